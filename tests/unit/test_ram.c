// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ram.c - several RAM files under one run of page numbers, with holes and padding. */
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

/* A chunk and three pages, one page, two chunks: each begins a chunk. */
static const size_t sizes[] = { GW_CHUNK_PAGES + 3, 1, 2 * GW_CHUNK_PAGES };
static const size_t firsts[] = { 0, 2 * GW_CHUNK_PAGES, 3 * GW_CHUNK_PAGES };

#define END (5 * GW_CHUNK_PAGES)

static int memory_file(size_t pages)
{
	int fd = memfd_create("unit-ram", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(pages * GW_PAGE_SIZE)), 0);
	return fd;
}

static int make(void **state)
{
	struct gw_ram *ram = calloc(1, sizeof(*ram));

	*state = ram;
	for (unsigned int i = 0; ram && i < GW_ARRAY_SIZE(sizes); i++) {
		char id[8];

		snprintf(id, sizeof(id), "ram%u", i);
		if (gw_ram_add(ram, id, memory_file(sizes[i]), sizes[i] * GW_PAGE_SIZE, 0))
			return -1;
	}
	return ram ? 0 : -1;
}

static int drop(void **state)
{
	gw_ram_close(*state);
	free(*state);
	return 0;
}

static void files_begin_at_chunks(void **state)
{
	struct gw_ram *ram = *state;

	assert_int_equal(ram->memory.nr_blocks, 3);
	assert_int_equal(ram->memory.nr_pages, END);
	assert_int_equal(gw_memory_bytes(&ram->memory),
			 (sizes[0] + sizes[1] + sizes[2]) * GW_PAGE_SIZE);
	for (size_t page = 0; page < END + 10; page++) {
		const struct gw_memory_block *expected = NULL;

		for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++)
			if (page >= firsts[i] && page < firsts[i] + sizes[i])
				expected = &ram->memory.blocks[i];
		assert_ptr_equal(gw_memory_block_of(&ram->memory, page), expected);
	}
	assert_null(gw_memory_block_of(&ram->memory, SIZE_MAX));
}

static void sizes_and_ids_are_checked(void **state)
{
	struct gw_ram ram = { 0 };
	char id[GW_MEMORY_ID_MAX + 1];

	(void)state;
	memset(id, 'i', sizeof(id) - 1);
	id[GW_MEMORY_ID_MAX] = '\0';
	assert_int_equal(gw_ram_add(&ram, "a", -1, 0, 0), -EINVAL);
	assert_int_equal(gw_ram_add(&ram, "a", -1, GW_PAGE_SIZE + 1, 0), -EINVAL);
	assert_int_equal(gw_ram_add(&ram, id, -1, GW_PAGE_SIZE, 0), -EINVAL);
	assert_int_equal(ram.memory.nr_blocks, 0);
	for (int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		assert_int_equal(gw_ram_add(&ram, "a", -1, GW_PAGE_SIZE, 0), 0);
	assert_int_equal(gw_ram_add(&ram, "a", -1, GW_PAGE_SIZE, 0), -E2BIG);
	assert_int_equal(ram.memory.nr_blocks, GW_MEMORY_BLOCKS_MAX);
}

static void what_is_written_is_read(void **state)
{
	static uint8_t out[GW_CHUNK_SIZE], in[GW_CHUNK_SIZE];
	struct gw_ram *ram = *state;
	struct rng rng = { 7 };

	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		size_t last = firsts[i] + sizes[i] - 1;

		rng_fill(&rng, out, GW_PAGE_SIZE);
		assert_int_equal(gw_memory_write(&ram->memory, last, 1, out), 0);
		assert_int_equal(gw_pread_all(ram->files[i].fd, in, GW_PAGE_SIZE,
					      (off_t)((sizes[i] - 1) * GW_PAGE_SIZE)),
				 0);
		assert_memory_equal(in, out, GW_PAGE_SIZE);
	}
	rng_fill(&rng, out, GW_CHUNK_SIZE);
	assert_int_equal(gw_memory_write(&ram->memory, firsts[2], GW_CHUNK_PAGES, out), 0);
	assert_int_equal(gw_memory_read(&ram->memory, firsts[2], GW_CHUNK_PAGES, in), 0);
	assert_memory_equal(in, out, GW_CHUNK_SIZE);
}

/* The padding after a file reads as zeros, so a whole chunk can always be read. */
static void padding_is_zero(void **state)
{
	static uint8_t page[GW_PAGE_SIZE], in[GW_CHUNK_SIZE];
	struct gw_ram *ram = *state;

	memset(page, 'p', sizeof(page));
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(gw_memory_write(&ram->memory, GW_CHUNK_PAGES + i, 1, page), 0);
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(&ram->memory, GW_CHUNK_PAGES, GW_CHUNK_PAGES, in), 0);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
		for (size_t k = 0; k < GW_PAGE_SIZE; k++)
			assert_int_equal(in[i * GW_PAGE_SIZE + k], i < 3 ? 'p' : 0);
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(&ram->memory, GW_CHUNK_PAGES + 3, 2, in), 0);
	assert_true(gw_page_is_zero(in) && gw_page_is_zero(in + GW_PAGE_SIZE));
	assert_int_equal(in[2 * GW_PAGE_SIZE], 'x');
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(&ram->memory, END + 1000, 1, in), 0);
	assert_true(gw_page_is_zero(in));
}

static void beyond_is_refused(void **state)
{
	static const struct {
		size_t page, count;
	} bad[] = {
		{ GW_CHUNK_PAGES + 3, 1 },     /* padding */
		{ GW_CHUNK_PAGES + 2, 2 },     /* half of it padding */
		{ 2 * GW_CHUNK_PAGES + 1, 1 }, /* after the file of one page */
		{ END, 1 },
		{ END - 1, 2 },
		{ SIZE_MAX, 1 },
	};
	static uint8_t bytes[2 * GW_PAGE_SIZE];
	struct gw_ram *ram = *state;

	memset(bytes, 1, sizeof(bytes));
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(gw_memory_write(&ram->memory, bad[i].page, bad[i].count, bytes),
				 -EPROTO);
		assert_int_equal(gw_memory_punch(&ram->memory, bad[i].page, bad[i].count), -EPROTO);
	}
	assert_int_equal(gw_memory_resident(&ram->memory), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		struct stat st;

		assert_int_equal(fstat(ram->files[i].fd, &st), 0);
		assert_int_equal(st.st_size, sizes[i] * GW_PAGE_SIZE);
	}
}

static void punched_pages_are_holes(void **state)
{
	static uint8_t bytes[4 * GW_PAGE_SIZE], in[4 * GW_PAGE_SIZE];
	struct gw_ram *ram = *state;

	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(gw_memory_write(&ram->memory, firsts[2] + 4, 4, bytes), 0);
	assert_int_equal(gw_memory_resident(&ram->memory), 4 * GW_PAGE_SIZE);
	assert_int_equal(gw_memory_punch(&ram->memory, firsts[2] + 5, 2), 0);
	assert_int_equal(gw_memory_resident(&ram->memory), 2 * GW_PAGE_SIZE);
	assert_int_equal(gw_memory_read(&ram->memory, firsts[2] + 4, 4, in), 0);
	memset(bytes + GW_PAGE_SIZE, 0, 2 * GW_PAGE_SIZE);
	assert_memory_equal(in, bytes, sizeof(in));
}

/* The pages that a walk finds, as a map. */
static void find_data(const struct gw_ram *ram, uint8_t found[END])
{
	struct gw_memory_walk walk = gw_memory_walk(&ram->memory);
	size_t first, stop, last = 0;
	int rc;

	memset(found, 0, END);
	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		assert_true(first >= last && first < stop && stop <= END);
		assert_ptr_equal(gw_memory_block_of(&ram->memory, first),
				 gw_memory_block_of(&ram->memory, stop - 1));
		memset(found + first, 1, stop - first);
		last = stop;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 0);
}

static void data_is_found(void **state)
{
	static uint8_t written[END], found[END], page[GW_PAGE_SIZE];
	struct gw_ram *ram = *state;
	struct rng rng = { 8 };

	memset(page, 1, sizeof(page));
	find_data(ram, found);
	assert_memory_equal(found, written, END);
	for (size_t i = 0; i < END; i++) {
		if (!gw_memory_block_of(&ram->memory, i) || !rng_one_in(&rng, 4))
			continue;
		assert_int_equal(gw_memory_write(&ram->memory, i, 1, page), 0);
		written[i] = 1;
	}
	find_data(ram, found);
	assert_memory_equal(found, written, END);
	/* Parts of chunks, padding included. */
	for (int i = 0; i < 2000; i++) {
		const size_t first = rng_below(&rng, END);
		const size_t count = 1 + rng_below(&rng, GW_CHUNK_PAGES - first % GW_CHUNK_PAGES);

		assert_int_equal(gw_memory_is_hole(&ram->memory, first, count),
				 !memchr(written + first, 1, count));
	}
	assert_int_equal(gw_memory_is_hole(&ram->memory, END, 1), 1);
}

static void full_files_are_data(void **state)
{
	static uint8_t chunk[GW_CHUNK_SIZE];
	struct gw_ram *ram = *state;
	struct gw_memory_walk walk = gw_memory_walk(&ram->memory);
	size_t first, stop;

	assert_int_equal(gw_memory_write(&ram->memory, firsts[2], GW_CHUNK_PAGES, chunk), 0);
	assert_int_equal(
		gw_memory_write(&ram->memory, firsts[2] + GW_CHUNK_PAGES, GW_CHUNK_PAGES, chunk),
		0);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 1);
	assert_int_equal(first, firsts[2]);
	assert_int_equal(stop, END);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 0);
	assert_int_equal(gw_memory_is_hole(&ram->memory, firsts[2] + 7, 1), 0);
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

#define ram_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ram_test(files_begin_at_chunks),
		cmocka_unit_test(sizes_and_ids_are_checked),
		ram_test(what_is_written_is_read),
		ram_test(padding_is_zero),
		ram_test(beyond_is_refused),
		ram_test(punched_pages_are_holes),
		ram_test(data_is_found),
		ram_test(full_files_are_data),
		cmocka_unit_test(silence_is_no_hole),
		unit_folder_test(huge_pages_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
