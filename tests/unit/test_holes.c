// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_holes.c - pages emptied unseen are found, each of them, whatever happened to
 * them afterwards, and none that were not.
 *
 * The guest is another mapping of the same files: reading there makes a page of
 * zeros of a hole, as QEMU's does.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffers.h"
#include "holes.h"
#include "ram.h"
#include "io.h"
#include "rng.h"

#define FIRST_PAGES (3 * GW_CHUNK_PAGES - 7)
#define PAGES	    (4 * GW_CHUNK_PAGES)

struct world {
	struct gw_ram ram;
	uint8_t *guest[2];
	struct gw_digests held;
	struct gw_bitmap due;
	struct gw_holes *h;
};

static bool is_page(size_t page)
{
	return page < FIRST_PAGES || page == 3 * GW_CHUNK_PAGES;
}

static uint8_t *guest_at(struct world *w, size_t page)
{
	return page < FIRST_PAGES ? w->guest[0] + page * GW_PAGE_SIZE : w->guest[1];
}

/* Reading by the guest. */
static void touch(struct world *w, size_t page)
{
	(void)*(volatile uint8_t *)guest_at(w, page);
}

/* Two files, the second of one page; in memory only (NULL), or (inotify hears them) in @folder. */
static void begin(struct world *w, const char *folder)
{
	static const size_t sizes[] = { FIRST_PAGES, 1 };

	memset(w, 0, sizeof(*w));
	for (unsigned int i = 0; i < 2; i++) {
		gw_autofree char *path = gw_path("%s/godwit-unit-holes.%d", folder ? folder : "",
						 (int)getpid());
		const size_t size = sizes[i] * GW_PAGE_SIZE;
		int fd = folder ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
				: memfd_create("unit-holes", MFD_CLOEXEC);

		assert_true(fd >= 0);
		if (folder)
			unlink(path);
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
		w->guest[i] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(w->guest[i], MAP_FAILED);
		assert_int_equal(gw_ram_add(&w->ram, i ? "b" : "a", fd, size, 0), 0);
	}
	assert_int_equal(w->ram.memory.nr_pages, PAGES);
	assert_int_equal(gw_digests_init(&w->held, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&w->due, PAGES), 0);
}

static void end(struct world *w)
{
	gw_holes_close(w->h);
	for (unsigned int i = 0; i < 2; i++)
		munmap(w->guest[i], w->ram.memory.blocks[i].size);
	gw_ram_close(&w->ram);
	gw_digests_free(&w->held);
	gw_bitmap_free(&w->due);
}

static void fill(struct world *w)
{
	for (size_t page = 0; page < PAGES; page++)
		if (is_page(page))
			memset(guest_at(w, page), 1 + (int)(page % 200), GW_PAGE_SIZE);
}

/* Copy [page, page + count) as a round does. */
static void send(struct world *w, size_t page, size_t count)
{
	static uint8_t bytes[GW_CHUNK_SIZE];

	assert_int_equal(gw_holes_read(w->h, page, count, bytes), 0);
	for (size_t i = 0; i < count; i++)
		gw_digests_set(&w->held, page + i, gw_digest_page(bytes + i * GW_PAGE_SIZE));
}

static void send_all(struct world *w)
{
	for (size_t page = 0; page < PAGES; page += GW_CHUNK_PAGES)
		send(w, page, GW_CHUNK_PAGES);
}

/* Return: whether anything was heard. */
static bool look(struct world *w)
{
	int heard = gw_holes_heard(w->h);

	assert_true(heard >= 0);
	gw_bitmap_zero(&w->due);
	/* In parts, as threads do. */
	for (size_t page = 0; heard && page < PAGES; page += 2 * GW_CHUNK_PAGES)
		assert_int_equal(gw_holes_due(w->h, page, 2 * GW_CHUNK_PAGES, &w->held, &w->due),
				 0);
	return heard;
}

static size_t count_due(const struct world *w)
{
	return gw_bitmap_count(&w->due, 0, PAGES);
}

static void punch(struct world *w, size_t page, size_t count)
{
	assert_int_equal(gw_memory_punch(&w->ram.memory, page, count), 0);
}

static void find_whatever_came_after(const char *folder)
{
	struct world w;

	begin(&w, folder);
	fill(&w);
	assert_int_equal(gw_holes_open(&w.h, &w.ram.memory, true), 0);
	send_all(&w);
	assert_true(look(&w) || folder); /* a memfd is never trusted to tell */
	assert_int_equal(count_due(&w), 0);
	punch(&w, 5, 1);
	punch(&w, 6, 2);
	touch(&w, 6);
	punch(&w, 3 * GW_CHUNK_PAGES, 1);
	touch(&w, 3 * GW_CHUNK_PAGES);
	/* Taken back, and given again. */
	punch(&w, 700, 1);
	touch(&w, 700);
	punch(&w, 700, 1);
	look(&w);
	assert_int_equal(count_due(&w), 5);
	for (size_t page = 5; page < 8; page++)
		assert_true(gw_bitmap_test(&w.due, page));
	assert_true(gw_bitmap_test(&w.due, 700));
	assert_true(gw_bitmap_test(&w.due, 3 * GW_CHUNK_PAGES));
	/* Until it was sent it stays due, however often one asks; where it is heard, one asks once.
	 */
	if (look(&w))
		assert_int_equal(count_due(&w), 5);
	send_all(&w);
	look(&w);
	assert_int_equal(count_due(&w), 0);
	end(&w);
}

static void found_whatever_came_after(void **state)
{
	(void)state;
	find_whatever_came_after(NULL);
	find_whatever_came_after("/dev/shm");
	find_whatever_came_after("."); /* a disk's file system, as --ram-dir may name one */
}

/* Its neighbours' faults must not bring a page's entry back before anybody has looked. */
static void neighbours_are_no_witnesses(void **state)
{
	struct world w;

	(void)state;
	begin(&w, NULL);
	fill(&w);
	assert_int_equal(gw_holes_open(&w.h, &w.ram.memory, true), 0);
	send_all(&w);
	punch(&w, 64, 1);
	punch(&w, 90, 1);
	look(&w);
	assert_int_equal(count_due(&w), 2);
	/* Before these two are sent, all around them is given back and read. */
	punch(&w, 32, 90);
	for (size_t page = 32; page < 32 + 90; page++)
		touch(&w, page);
	memset(guest_at(&w, 64), 7, GW_PAGE_SIZE);
	memset(guest_at(&w, 90), 8, GW_PAGE_SIZE);
	send(&w, 64, 1);
	send(&w, 90, 1);
	look(&w);
	assert_int_equal(count_due(&w), 88);
	assert_false(gw_bitmap_test(&w.due, 64) || gw_bitmap_test(&w.due, 90));
	end(&w);
}

static void silence_costs_nothing(void **state)
{
	struct world w;

	(void)state;
	begin(&w, "/dev/shm");
	fill(&w);
	assert_int_equal(gw_holes_open(&w.h, &w.ram.memory, false), 0);
	send_all(&w);
	fill(&w); /* stores are not heard */
	assert_false(look(&w));
	assert_false(look(&w));
	/* The first is not expected: whatever is held has no witness, and is due. */
	assert_false(gw_holes_surprise(w.h));
	punch(&w, 10, 1);
	touch(&w, 10);
	assert_true(gw_holes_surprise(w.h));
	assert_true(look(&w));
	assert_int_equal(count_due(&w), FIRST_PAGES + 1);
	assert_false(gw_holes_surprise(w.h));
	send_all(&w);
	assert_false(look(&w));
	/* From then on they are told apart. */
	punch(&w, 20, 3);
	touch(&w, 21);
	assert_false(gw_holes_surprise(w.h)); /* of this one the look tells all */
	assert_true(look(&w));
	assert_int_equal(count_due(&w), 3);
	assert_int_equal(gw_bitmap_count(&w.due, 20, 3), 3);
	send(&w, 20, 3);
	assert_false(look(&w));
	/* The other way in which memory is taken out of a file. */
	assert_int_equal(madvise(guest_at(&w, 30), GW_PAGE_SIZE, MADV_REMOVE), 0);
	assert_true(look(&w));
	assert_int_equal(count_due(&w), 1);
	end(&w);
}

/* What the guest gave back stays given back. */
static void holes_stay_holes(void **state)
{
	struct world w;
	uint64_t bytes;

	(void)state;
	begin(&w, NULL);
	fill(&w);
	punch(&w, 0, 50);
	punch(&w, GW_CHUNK_PAGES, GW_CHUNK_PAGES);
	bytes = gw_memory_resident(&w.ram.memory);
	assert_int_equal(gw_holes_open(&w.h, &w.ram.memory, true), 0);
	send_all(&w);
	assert_int_equal(gw_memory_resident(&w.ram.memory), bytes);
	punch(&w, 60, 9);
	look(&w);
	assert_int_equal(count_due(&w), 9);
	send_all(&w);
	assert_int_equal(gw_memory_resident(&w.ram.memory), bytes - 9 * GW_PAGE_SIZE);
	end(&w);
}

/* After any history, what was not found is what the destination holds. */
static void any_history(void **state)
{
	static uint8_t bytes[GW_PAGE_SIZE];
	struct rng rng = { 12 };

	(void)state;
	for (int run = 0; run < 20; run++) {
		struct world w;

		begin(&w, run % 3 == 2 ? "." : run % 3 ? "/dev/shm" : NULL);
		fill(&w);
		assert_int_equal(gw_holes_open(&w.h, &w.ram.memory, rng_one_in(&rng, 2)), 0);
		send_all(&w);
		for (int round = 0; round < 30; round++) {
			for (int i = 0; i < 40; i++) {
				const size_t page = rng_below(&rng, FIRST_PAGES);
				const size_t room = FIRST_PAGES - page;

				if (rng_one_in(&rng, 3))
					punch(&w, page, 1 + rng_below(&rng, room < 9 ? room : 9));
				else if (rng_one_in(&rng, 2))
					touch(&w, page);
				else if (rng_one_in(&rng, 2)) /* due for the tracker, and sent */
					memset(guest_at(&w, page), (int)rng_below(&rng, 255) + 1,
					       GW_PAGE_SIZE),
						send(&w, page, 1);
			}
			look(&w);
			for (size_t page = 0; page < PAGES; page++) {
				if (gw_bitmap_test(&w.due, page)) {
					send(&w, page, 1);
					continue;
				}
				assert_int_equal(gw_memory_read(&w.ram.memory, page, 1, bytes), 0);
				if (!gw_digest_equal(gw_digest_page(bytes), w.held.table[page]))
					fail_msg("run %d round %d: page %zu was lost", run, round,
						 page);
			}
		}
		end(&w);
	}
}

/* Memory in no file: nobody else can empty it, and what is read is what is there. */
static void no_file_no_witness(void **state)
{
	static uint8_t page[GW_PAGE_SIZE], read[2 * GW_PAGE_SIZE];
	const size_t nr_pages = GW_CHUNK_PAGES + 1;
	struct buffers b = { 0 };
	struct gw_digests held;
	struct gw_bitmap due;

	(void)state;
	memset(page, 7, sizeof(page));
	for (int expected = 0; expected < 2; expected++) {
		struct gw_holes *h;

		assert_int_equal(buffers_add(&b, "a", nr_pages * GW_PAGE_SIZE), 0);
		assert_int_equal(gw_memory_write(&b.memory, nr_pages - 1, 1, page), 0);
		assert_int_equal(gw_digests_init(&held, b.memory.nr_pages), 0);
		assert_int_equal(gw_bitmap_init(&due, b.memory.nr_pages), 0);
		assert_int_equal(gw_holes_open(&h, &b.memory, expected), 0);
		assert_int_equal(gw_holes_read(h, nr_pages - 1, 2, read), 0);
		assert_memory_equal(read, page, GW_PAGE_SIZE);
		assert_true(gw_page_is_zero(read + GW_PAGE_SIZE));
		gw_digests_set(&held, nr_pages - 1, gw_digest_page(page));
		assert_int_equal(gw_holes_heard(h), 0);
		assert_false(gw_holes_surprise(h));
		assert_int_equal(gw_holes_due(h, 0, b.memory.nr_pages, &held, &due), 0);
		assert_int_equal(gw_bitmap_count(&due, 0, due.bits), 0);
		gw_holes_close(h);
		gw_bitmap_free(&due);
		gw_digests_free(&held);
		buffers_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(found_whatever_came_after),
		cmocka_unit_test(neighbours_are_no_witnesses),
		cmocka_unit_test(silence_costs_nothing),
		cmocka_unit_test(holes_stay_holes),
		cmocka_unit_test(any_history),
		cmocka_unit_test(no_file_no_witness),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
