// SPDX-License-Identifier: GPL-2.0-or-later
/* test_qemu_log.c - what a QEMU said outlives its VM's folder, and is bounded. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "own.h"
#include "qemu_log.h"
#include "record.h"

struct host {
	char *root;
	struct gw_paths paths;
};

static int make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));

	*state = h;
	return h && !unit_folder((void **)&h->root) && !gw_paths_init(&h->paths, h->root) ? 0 : -1;
}

static int drop(void **state)
{
	struct host *h = *state;

	gw_paths_free(&h->paths);
	unit_folder_remove((void **)&h->root);
	free(h);
	return 0;
}

/* A QEMU of VM @name that was started @ms after the epoch, and has said @text. */
static void qemu(struct host *h, const char *name, int64_t ms, const char *text, size_t len)
{
	gw_autofree char *dir = gw_vm_dir(&h->paths, name);
	gw_autofree char *pid = gw_path("%s/qemu.pid", dir), *log = gw_path("%s/qemu.log", dir);
	const struct timespec at = { ms / 1000, ms % 1000 * 1000000 };
	gw_autofd int fd = -1;

	assert_int_equal(gw_own_mkdirs(dir), 0);
	assert_int_equal(gw_write_file(pid, "1 1\n"), 0);
	assert_int_equal(utimensat(AT_FDCWD, pid, (struct timespec[]){ at, at }, 0), 0);
	fd = gw_own_make(log, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(gw_write_all(fd, text, len), 0);
}

static unsigned int logs(const struct host *h)
{
	gw_autofree char *folder = gw_path("%s/log", h->paths.run);
	DIR *dir = opendir(folder);
	const struct dirent *e;
	unsigned int n = 0;

	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static void a_log_outlives_its_vm(void **state)
{
	static const char text[] = "a\0console\nqemu: no such disk\n";
	struct host *h = *state;
	struct gw_definition def = { .name = "web1" };
	gw_autofree char *said = NULL, *path = NULL, *again = NULL, *kept = NULL, *whole = NULL;
	size_t len;

	qemu(h, "web1", 1000000000123, text, sizeof(text) - 1);
	said = gw_qemu_said(&h->paths, "host1", "web1");
	path = gw_path("%s/log/web1-20010909T014640.123Z.log", h->paths.run);
	whole = gw_path("It said: a console; qemu: no such disk; its log is host1:%s", path);
	assert_string_equal(said, whole);
	/* The same QEMU has the same log, which is longer now. */
	qemu(h, "web1", 1000000000123, "more\n", 5);
	again = gw_qemu_log_keep(&h->paths, "web1");
	assert_string_equal(again, path);
	assert_int_equal(gw_vm_remove(&h->paths, &def, true), 0);
	kept = gw_own_read(path, 100, &len);
	assert_string_equal(kept, "more\n");
	assert_int_equal(logs(h), 1);
}

static void nothing_said_is_no_log(void **state)
{
	struct host *h = *state;
	gw_autofree char *said = NULL;

	assert_null(gw_qemu_log_keep(&h->paths, "none"));
	qemu(h, "mute", 1000, "", 0);
	assert_null(gw_qemu_log_keep(&h->paths, "mute"));
	said = gw_qemu_said(&h->paths, "host1", "mute");
	assert_non_null(strstr(said, "It said nothing"));
	assert_int_equal(logs(h), 0);
}

/* A guest that writes to its console for a year, and one that starts again for ever. */
static void logs_are_bounded(void **state)
{
	struct host *h = *state;
	static const char end[] = "\nlast one\n";
	const size_t much = 1UL << 20;
	gw_autofree char *text = malloc(much), *path = NULL, *said = NULL, *old = NULL;
	struct stat st;

	memset(text, 'x', much);
	memcpy(text + much - sizeof(end) + 1, end, sizeof(end) - 1);
	qemu(h, "web1", 5000, text, much);
	path = gw_qemu_log_keep(&h->paths, "web1");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 256 << 10);
	said = gw_qemu_said(&h->paths, "host1", "web1");
	assert_true(strlen(said) < 800);
	assert_non_null(strstr(said, "last one; its log is"));
	for (int i = 0; i < 100; i++) {
		free(gw_qemu_log_keep(&h->paths, "web1"));
		qemu(h, "web1", 6000 + i, "again\n", 6);
	}
	assert_int_equal(logs(h), 32);
	/* By age too. */
	old = gw_qemu_log_keep(&h->paths, "web1");
	st.st_mtim.tv_sec = time(NULL) - 8L * 24 * 60 * 60;
	assert_int_equal(utimensat(AT_FDCWD, old, (struct timespec[]){ st.st_mtim, st.st_mtim }, 0),
			 0);
	gw_qemu_logs_prune(&h->paths);
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(logs(h), 31);
}

/* NAME-TIME is no other's: a name may hold dashes and digits itself. */
static void names_do_not_collide(void **state)
{
	static const char *const names[] = { "a", "a-19700101T000001.000Z",
					     "a-19700101T000001.000Z.log", "a.log", "a-" };
	struct host *h = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
		qemu(h, names[i], 1000, names[i], strlen(names[i]));
		free(gw_qemu_log_keep(&h->paths, names[i]));
	}
	assert_int_equal(logs(h), GW_ARRAY_SIZE(names));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_log_outlives_its_vm, make, drop),
		cmocka_unit_test_setup_teardown(nothing_said_is_no_log, make, drop),
		cmocka_unit_test_setup_teardown(logs_are_bounded, make, drop),
		cmocka_unit_test_setup_teardown(names_do_not_collide, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
