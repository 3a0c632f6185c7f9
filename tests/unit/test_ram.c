// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ram.c - what is of files in a memory of RAM files; test_memory.c has the rest. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ram.h"
#include "rng.h"

static int memory_file(size_t pages)
{
	int fd = memfd_create("unit-ram", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(pages * GW_PAGE_SIZE)), 0);
	return fd;
}

/* What QEMU maps is what was written: each block is its file, from the first byte to the last. */
static void blocks_are_files(void **state)
{
	static uint8_t out[2 * GW_PAGE_SIZE], in[2 * GW_PAGE_SIZE];
	struct rng rng = { 7 };
	struct gw_ram ram = { 0 };
	struct stat st;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		const size_t pages = 2 + i * GW_CHUNK_PAGES;

		assert_int_equal(gw_ram_add(&ram, "block", memory_file(pages), pages * GW_PAGE_SIZE,
					    0x1000 * i),
				 0);
		assert_int_equal(ram.files[i].hva, 0x1000 * i);
		rng_fill(&rng, out, sizeof(out));
		assert_int_equal(gw_memory_write(&ram.memory,
						 ram.memory.blocks[i].first_page + pages - 2, 2,
						 out),
				 0);
		assert_int_equal(gw_pread_all(ram.files[i].fd, in, sizeof(in),
					      (off_t)((pages - 2) * GW_PAGE_SIZE)),
				 0);
		assert_memory_equal(in, out, sizeof(in));
		assert_int_equal(fstat(ram.files[i].fd, &st), 0);
		assert_int_equal(st.st_size, pages * GW_PAGE_SIZE);
	}
	gw_ram_close(&ram);
	assert_int_equal(ram.memory.nr_blocks, 0);
}

/* A file that does not say where its data is has no holes for that: it is an error. */
static void silence_is_no_hole(void **state)
{
	struct gw_ram ram = { 0 };
	struct gw_memory_walk walk = gw_memory_walk(&ram.memory);
	size_t first, stop;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[1]);
	assert_int_equal(gw_ram_add(&ram, "pipe", ends[0], GW_PAGE_SIZE, 0), 0);
	assert_int_equal(gw_memory_is_hole(&ram.memory, 0, 1), -ESPIPE);
	assert_message("RAM file of pipe");
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), -ESPIPE);
	gw_ram_close(&ram);
}

/* In a child with mounts of its own: a file on a tmpfs with @options. 0: small, 1: huge pages. */
static int huge_pages_with(const char *dir, const char *options)
{
	gw_autofree char *path = gw_path("%s/ram", dir);
	struct gw_ram ram = { 0 };
	int fd;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 77;
	if (mount("unit", dir, "tmpfs", 0, options))
		return 78;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, GW_PAGE_SIZE) ||
	    gw_ram_add(&ram, "small", memory_file(1), GW_PAGE_SIZE, 0) ||
	    gw_ram_has_huge_pages(&ram) || gw_ram_add(&ram, "a", fd, GW_PAGE_SIZE, 0))
		return 79;
	return gw_ram_has_huge_pages(&ram);
}

static void huge_pages_are_noticed(void **state)
{
	static const struct {
		const char *options;
		int huge;
	} mounts[] = {
		{ "size=1m", 0 },
		{ "size=1m,huge=never", 0 },
		{ "size=1m,huge=always", 1 },
		{ "size=1m,huge=within_size", 1 },
		{ "size=1m,huge=advise", 1 },
	};

	for (size_t i = 0; i < GW_ARRAY_SIZE(mounts); i++) {
		int status;
		pid_t child = fork();

		if (child == 0)
			_exit(huge_pages_with(*state, mounts[i].options));
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status) == 77)
			skip(); /* may not mount */
		if (WEXITSTATUS(status) == 78 && strstr(mounts[i].options, "huge"))
			continue; /* a kernel without huge pages */
		assert_int_equal(WEXITSTATUS(status), mounts[i].huge);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_files),
		cmocka_unit_test(silence_is_no_hole),
		unit_folder_test(huge_pages_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
