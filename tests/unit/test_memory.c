// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_memory.c - several blocks under one run of page numbers, with holes and
 * padding: the same of each kind of memory, RAM files and buffers.
 */
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffers.h"
#include "ram.h"
#include "rng.h"

/* A chunk and three pages, one page, two chunks: each begins a chunk. */
static const size_t sizes[] = { GW_CHUNK_PAGES + 3, 1, 2 * GW_CHUNK_PAGES };
static const size_t firsts[] = { 0, 2 * GW_CHUNK_PAGES, 3 * GW_CHUNK_PAGES };

#define END (5 * GW_CHUNK_PAGES)

static struct gw_ram ram;
static struct buffers buffers;

static bool in_files; /* the kind that is tested now */

static int add_block(size_t pages)
{
	int fd;

	if (!in_files)
		return buffers_add(&buffers, "block", pages * GW_PAGE_SIZE);
	fd = memfd_create("unit-ram", MFD_CLOEXEC);
	return fd < 0 || ftruncate(fd, (off_t)(pages * GW_PAGE_SIZE))
		       ? -1
		       : gw_ram_add(&ram, "block", fd, pages * GW_PAGE_SIZE, 0);
}

static int make(void **state)
{
	*state = in_files ? &ram.memory : &buffers.memory;
	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++)
		if (add_block(sizes[i]))
			return -1;
	return 0;
}

static int drop(void **state)
{
	(void)state;
	gw_ram_close(&ram);
	buffers_free(&buffers);
	return 0;
}

static void blocks_begin_at_chunks(void **state)
{
	const struct gw_memory *m = *state;

	assert_int_equal(m->nr_blocks, 3);
	assert_int_equal(m->nr_pages, END);
	assert_int_equal(gw_memory_bytes(m), (sizes[0] + sizes[1] + sizes[2]) * GW_PAGE_SIZE);
	for (size_t page = 0; page < END + 10; page++) {
		const struct gw_memory_block *expected = NULL;

		for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++)
			if (page >= firsts[i] && page < firsts[i] + sizes[i])
				expected = &m->blocks[i];
		assert_ptr_equal(gw_memory_block_of(m, page), expected);
	}
	assert_null(gw_memory_block_of(m, SIZE_MAX));
}

static void sizes_and_ids_are_checked(void **state)
{
	struct gw_memory m = { 0 };
	char id[GW_MEMORY_ID_MAX + 1];

	(void)state;
	memset(id, 'i', sizeof(id) - 1);
	id[GW_MEMORY_ID_MAX] = '\0';
	assert_int_equal(gw_memory_add(&m, "a", 0), -EINVAL);
	assert_int_equal(gw_memory_add(&m, "a", GW_PAGE_SIZE + 1), -EINVAL);
	assert_int_equal(gw_memory_add(&m, id, GW_PAGE_SIZE), -EINVAL);
	assert_int_equal(m.nr_blocks, 0);
	for (int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		assert_int_equal(gw_memory_add(&m, "a", GW_PAGE_SIZE), i);
	assert_int_equal(gw_memory_add(&m, "a", GW_PAGE_SIZE), -E2BIG);
	assert_int_equal(m.nr_blocks, GW_MEMORY_BLOCKS_MAX);
}

static void what_is_written_is_read(void **state)
{
	static uint8_t out[GW_CHUNK_SIZE], in[GW_CHUNK_SIZE];
	const struct gw_memory *m = *state;
	struct rng rng = { 7 };

	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		size_t last = firsts[i] + sizes[i] - 1;

		rng_fill(&rng, out, GW_PAGE_SIZE);
		assert_int_equal(gw_memory_write(m, last, 1, out), 0);
		assert_int_equal(gw_memory_read(m, last, 1, in), 0);
		assert_memory_equal(in, out, GW_PAGE_SIZE);
	}
	rng_fill(&rng, out, GW_CHUNK_SIZE);
	assert_int_equal(gw_memory_write(m, firsts[2], GW_CHUNK_PAGES, out), 0);
	assert_int_equal(gw_memory_read(m, firsts[2], GW_CHUNK_PAGES, in), 0);
	assert_memory_equal(in, out, GW_CHUNK_SIZE);
}

/* The padding after a file reads as zeros, so a whole chunk can always be read. */
static void padding_is_zero(void **state)
{
	static uint8_t page[GW_PAGE_SIZE], in[GW_CHUNK_SIZE];
	const struct gw_memory *m = *state;

	memset(page, 'p', sizeof(page));
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(gw_memory_write(m, GW_CHUNK_PAGES + i, 1, page), 0);
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(m, GW_CHUNK_PAGES, GW_CHUNK_PAGES, in), 0);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
		for (size_t k = 0; k < GW_PAGE_SIZE; k++)
			assert_int_equal(in[i * GW_PAGE_SIZE + k], i < 3 ? 'p' : 0);
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(m, GW_CHUNK_PAGES + 3, 2, in), 0);
	assert_true(gw_page_is_zero(in) && gw_page_is_zero(in + GW_PAGE_SIZE));
	assert_int_equal(in[2 * GW_PAGE_SIZE], 'x');
	memset(in, 'x', sizeof(in));
	assert_int_equal(gw_memory_read(m, END + 1000, 1, in), 0);
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
	const struct gw_memory *m = *state;

	memset(bytes, 1, sizeof(bytes));
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(gw_memory_write(m, bad[i].page, bad[i].count, bytes), -EPROTO);
		assert_int_equal(gw_memory_punch(m, bad[i].page, bad[i].count), -EPROTO);
	}
	assert_int_equal(gw_memory_resident(m), 0);
}

static void punched_pages_are_holes(void **state)
{
	static uint8_t bytes[4 * GW_PAGE_SIZE], in[4 * GW_PAGE_SIZE];
	const struct gw_memory *m = *state;

	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(gw_memory_write(m, firsts[2] + 4, 4, bytes), 0);
	assert_int_equal(gw_memory_resident(m), 4 * GW_PAGE_SIZE);
	assert_int_equal(gw_memory_punch(m, firsts[2] + 5, 2), 0);
	assert_int_equal(gw_memory_resident(m), 2 * GW_PAGE_SIZE);
	assert_int_equal(gw_memory_read(m, firsts[2] + 4, 4, in), 0);
	memset(bytes + GW_PAGE_SIZE, 0, 2 * GW_PAGE_SIZE);
	assert_memory_equal(in, bytes, sizeof(in));
}

/* The pages that a walk finds, as a map. */
static void find_data(const struct gw_memory *m, uint8_t found[END])
{
	struct gw_memory_walk walk = gw_memory_walk(m);
	size_t first, stop, last = 0;
	int rc;

	memset(found, 0, END);
	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		assert_true(first >= last && first < stop && stop <= END);
		assert_ptr_equal(gw_memory_block_of(m, first), gw_memory_block_of(m, stop - 1));
		memset(found + first, 1, stop - first);
		last = stop;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 0);
}

static void data_is_found(void **state)
{
	static uint8_t written[END], found[END], page[GW_PAGE_SIZE];
	const struct gw_memory *m = *state;
	struct rng rng = { 8 };

	memset(page, 1, sizeof(page));
	memset(written, 0, sizeof(written));
	find_data(m, found);
	assert_memory_equal(found, written, END);
	for (size_t i = 0; i < END; i++) {
		if (!gw_memory_block_of(m, i) || !rng_one_in(&rng, 4))
			continue;
		assert_int_equal(gw_memory_write(m, i, 1, page), 0);
		written[i] = 1;
	}
	find_data(m, found);
	assert_memory_equal(found, written, END);
	/* Parts of chunks, padding included. */
	for (int i = 0; i < 2000; i++) {
		const size_t first = rng_below(&rng, END);
		const size_t count = 1 + rng_below(&rng, GW_CHUNK_PAGES - first % GW_CHUNK_PAGES);

		assert_int_equal(gw_memory_is_hole(m, first, count),
				 !memchr(written + first, 1, count));
	}
	assert_int_equal(gw_memory_is_hole(m, END, 1), 1);
}

static void full_blocks_are_data(void **state)
{
	static uint8_t chunk[GW_CHUNK_SIZE];
	const struct gw_memory *m = *state;
	struct gw_memory_walk walk = gw_memory_walk(m);
	size_t first, stop;

	assert_int_equal(gw_memory_write(m, firsts[2], GW_CHUNK_PAGES, chunk), 0);
	assert_int_equal(gw_memory_write(m, firsts[2] + GW_CHUNK_PAGES, GW_CHUNK_PAGES, chunk), 0);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 1);
	assert_int_equal(first, firsts[2]);
	assert_int_equal(stop, END);
	assert_int_equal(gw_memory_walk_next(&walk, &first, &stop), 0);
	assert_int_equal(gw_memory_is_hole(m, firsts[2] + 7, 1), 0);
}

/* Only a file can be watched for what others do to it. */
static void files_are_told(void **state)
{
	for (unsigned int i = 0; i < GW_ARRAY_SIZE(sizes); i++)
		assert_int_equal(gw_memory_file(*state, i), in_files ? ram.files[i].fd : -1);
}

#define memory_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		memory_test(blocks_begin_at_chunks),  cmocka_unit_test(sizes_and_ids_are_checked),
		memory_test(what_is_written_is_read), memory_test(padding_is_zero),
		memory_test(beyond_is_refused),	      memory_test(punched_pages_are_holes),
		memory_test(data_is_found),	      memory_test(full_blocks_are_data),
		memory_test(files_are_told),
	};
	int failed = cmocka_run_group_tests_name("in buffers", tests, NULL, NULL);

	in_files = true;
	return failed + cmocka_run_group_tests_name("in RAM files", tests, NULL, NULL);
}
