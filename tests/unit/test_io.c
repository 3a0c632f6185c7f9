// SPDX-License-Identifier: GPL-2.0-or-later
/* test_io.c - whole transfers, small files, folders, sizes with units. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "own.h"

static void sizes_are_parsed(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "4096B", 4096 },
		{ "1k", 1024 },
		{ "1K", 1024 },
		{ "512M", 512ULL << 20 },
		{ "2G", 2ULL << 30 },
		{ "2GiB", 2ULL << 30 },
		{ "2gb", 2ULL << 30 },
		{ "3T", 3ULL << 40 },
		{ "16777215T", 16777215ULL << 40 },
		{ "18446744073709551615", UINT64_MAX },
	};
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++) {
		bytes = 1;
		assert_int_equal(gw_parse_size(good[i].text, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
}

static void junk_is_no_size(void **state)
{
	static const char *const bad[] = {
		"",
		"M",
		"-1",
		" -1",
		"+1",
		" 1",
		"1X",
		"1 M",
		"1MM",
		"1.5G",
		"0x10",
		"G1",
		"1Mi ",
		"18446744073709551616",
		"16777216T",
		"18446744073709551615K",
		"99999999999999999999999G",
		"1i",
		"1iB",
	};

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		uint64_t bytes = 42;

		gw_error_clear();
		if (gw_parse_size(bad[i], &bytes) != -EINVAL)
			fail_msg("'%s' was taken for a size", bad[i]);
		assert_int_equal(bytes, 42);
		assert_message("is not a size");
	}
}

static void sizes_are_formatted(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1.0 KiB" },
		{ 1536, "1.5 KiB" },
		{ 100 << 10, "100 KiB" },
		{ 1ULL << 30, "1.0 GiB" },
		{ 1ULL << 50, "1.0 PiB" },
		{ UINT64_MAX, "16.0 EiB" },
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		assert_ptr_equal(gw_format_size(sizes[i].bytes, buf, sizeof(buf)), buf);
		assert_string_equal(buf, sizes[i].text);
	}
	assert_string_equal(gw_format_size(1536, buf, 4), "1.5");
}

static void files_are_read_whole(void **state)
{
	gw_autofree char *path = gw_path("%s/file", (char *)*state);
	gw_autofree char *big = malloc(100001);
	gw_autofree char *back = NULL;
	gw_autofree char *proc = NULL;
	size_t len = 0;

	memset(big, 'b', 100000);
	big[100000] = '\0';
	assert_int_equal(gw_write_file(path, big), 0);
	back = gw_read_file(path, 100000, &len);
	assert_non_null(back);
	assert_int_equal(len, 100000);
	assert_string_equal(back, big);
	assert_null(gw_read_file(path, 99999, &len));
	assert_message("larger than 99999 bytes");
	/* procfs says that its files have no length. */
	proc = gw_read_file("/proc/self/maps", 1 << 20, &len);
	assert_non_null(proc);
	assert_int_equal(strlen(proc), len);
	assert_true(len > 0);
	assert_null(gw_read_file(*state, 100, NULL));
	gw_error_clear();
	assert_null(gw_read_file("/tmp/gw-unit-none/none", 100, NULL));
	assert_message("/tmp/gw-unit-none/none: No such file");
}

static void files_are_replaced_whole(void **state)
{
	gw_autofree char *path = gw_path("%s/file", (char *)*state);
	gw_autofree char *folder = gw_path("%s/folder", (char *)*state);
	gw_autofree char *left = gw_path("%s/folder.new", (char *)*state);
	gw_autofree char *again = NULL;
	char seen[16] = "";
	gw_autofd int old = -1;

	assert_int_equal(gw_write_file(path, "before"), 0);
	old = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(gw_write_file(path, "after"), 0);
	/* Whoever has the old one open sees all of it still. */
	assert_int_equal(gw_pread_all(old, seen, 6, 0), 0);
	assert_string_equal(seen, "before");
	again = gw_read_file(path, 100, NULL);
	assert_string_equal(again, "after");
	/* What cannot be replaced stays, and nothing is left lying about. */
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(gw_write_file(folder, "text"), -EISDIR);
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(gw_write_file("/tmp/gw-unit-none/none", "text"), -ENOENT);
	free(gw_steal(again));
	assert_int_equal(gw_write_file_synced(path, "at last"), 0);
	again = gw_read_file(path, 100, NULL);
	assert_string_equal(again, "at last");
	assert_int_equal(gw_write_file_synced(folder, "text"), -EISDIR);
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(gw_sync_path(folder), 0);
	assert_int_equal(gw_sync_path(left), -ENOENT);
}

static void transfers_are_whole(void **state)
{
	gw_autofree char *path = gw_path("%s/file", (char *)*state);
	gw_autofd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	gw_autofd int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	char buf[16] = "";

	assert_int_equal(gw_write_all(fd, "0123456789", 10), 0);
	assert_int_equal(gw_pwrite_all(fd, "ab", 2, 4), 0);
	assert_int_equal(gw_pread_all(fd, buf, 10, 0), 0);
	assert_string_equal(buf, "0123ab6789");
	assert_int_equal(gw_pread_all(fd, buf, 2, 9), -EIO);
	assert_message("the file ends there");
	assert_int_equal(gw_write_all(full, "x", 1), -ENOSPC);
	assert_int_equal(gw_write_all(-1, "x", 1), -EBADF);
	assert_int_equal(gw_pwrite_all(-1, "x", 1, 0), -EBADF);
	assert_int_equal(gw_pread_all(-1, buf, 1, 0), -EBADF);
}

static void folders_come_and_go(void **state)
{
	gw_autofree char *deep = gw_path("%s/a/b/c", (char *)*state);
	gw_autofree char *a = gw_path("%s/a", (char *)*state);
	gw_autofree char *file = gw_path("%s/a/b/c/file", (char *)*state);
	gw_autofree char *link = gw_path("%s/a/link", (char *)*state);
	gw_autofree char *outside = gw_path("%s/outside", (char *)*state);
	gw_autofree char *below = gw_path("%s/outside/x", (char *)*state);
	struct stat st;

	assert_int_equal(gw_own_mkdirs(deep), 0);
	assert_int_equal(gw_own_mkdirs(deep), 0);
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(gw_write_file(file, "text"), 0);
	assert_int_equal(gw_write_file(outside, "kept"), 0);
	assert_int_equal(symlink(outside, link), 0);
	assert_int_equal(gw_own_mkdirs(below), -ENOTDIR);
	assert_int_equal(gw_remove_tree(a), 0);
	assert_int_equal(access(a, F_OK), -1);
	assert_int_equal(access(outside, F_OK), 0); /* links are not followed */
	assert_int_equal(gw_remove_tree(a), 0);	    /* gone already is gone */
	assert_int_equal(gw_remove_tree(outside), -ENOTDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_parsed),	    cmocka_unit_test(junk_is_no_size),
		cmocka_unit_test(sizes_are_formatted),	    unit_folder_test(files_are_read_whole),
		unit_folder_test(files_are_replaced_whole), unit_folder_test(transfers_are_whole),
		unit_folder_test(folders_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
