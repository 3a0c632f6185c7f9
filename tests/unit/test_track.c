// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_track.c - both trackers on a real process that maps two RAM files.
 *
 * Each test runs with every tracker that this kernel has; what is found must be
 * exactly what was written (invariant 4).
 */
#include "tracked.h"

#include "holes.h"
#include "watch.h"

static void written_pages(struct guest *g)
{
	struct rng rng = { 9 };

	tell(g, WRITE, 1000, 20000, 1); /* mapped before tracking began */
	track(g);
	scan(g);
	assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
	for (int round = 0; round < 5; round++) {
		pick(g, &rng);
		tell_expected(g, WRITE);
		assert_found_once(g);
	}
	/* Reading is no writing. */
	tell(g, READ, 1000, 20000, 1);
	scan(g);
	assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
}

/*
 * The tracker goes, its userfaultfd stays in the process: whoever resumes finds
 * what was written meanwhile, and in memory that was never touched too.
 */
static void goes_on_without_us(void **state)
{
	struct gw_track_range ranges[2];
	struct rng rng = { 10 };
	int number = -1, uffd;
	struct guest g;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	start(&g, true);
	for (unsigned int i = 0; i < 2; i++)
		ranges[i] = (struct gw_track_range){ g.ram.files[i].hva,
						     g.ram.memory.blocks[i].first_page,
						     g.ram.memory.blocks[i].nr_pages };
	tell(&g, WRITE, 1000, 20000, 1);
	uffd = gw_inject_staying(g.pid, &number);
	assert_true(uffd >= 0);
	g.t = gw_tracker_uffd(g.pid, &uffd, 1, ranges, 2);
	assert_non_null(g.t);
	for (int stay = 0; stay < 3; stay++) {
		gw_tracker_stop(g.t);
		pick(&g, &rng);
		tell_expected(&g, WRITE);
		tell(&g, READ, 500, 3000, 1);
		uffd = gw_inject_found(g.pid, number);
		assert_true(uffd >= 0);
		g.t = gw_tracker_resume(g.pid, &uffd, 1, ranges, 2);
		assert_non_null(g.t);
		assert_found_once(&g);
	}
	/* Nobody else can watch meanwhile. */
	assert_null(new_tracker(&g));
	end(&g);
}

/* Pages that alternate: one region each, several buffers full; walk_end once lost some. */
static void more_regions_than_a_buffer(struct guest *g)
{
	track(g);
	for (size_t first = 0; first < 2; first++) {
		for (size_t page = first; page < BIG; page += 2)
			gw_bitmap_set(&g->expected, page);
		tell(g, WRITE, first, BIG - first, 2);
		assert_found_once(g);
	}
	/* Now all are mapped: as one region, and as every third. */
	gw_bitmap_set_range(&g->expected, 0, BIG);
	tell(g, WRITE, 0, BIG, 1);
	assert_found_once(g);
	for (size_t page = 0; page < BIG; page += 3)
		gw_bitmap_set(&g->expected, page);
	tell(g, WRITE, 0, BIG, 3);
	assert_found_once(g);
}

/* Taken out of the page table between write and scan: the tracker must not take it for clean. */
static void zapped_after_write(struct guest *g)
{
	tell(g, WRITE, 0, 2000, 1);
	track(g);
	scan(g);
	gw_bitmap_set_range(&g->expected, 100, 50);
	gw_bitmap_set(&g->expected, 1999);
	tell_expected(g, WRITE);
	tell_expected(g, ZAP);
	scan(g);
	assert_bits(&g->due, &g->expected);
	if (g->uffd) {
		/* And when it was not even mapped before. */
		gw_bitmap_zero(&g->expected);
		gw_bitmap_set_range(&g->expected, 30000, 10);
		tell_expected(g, WRITE);
		tell_expected(g, ZAP);
		scan(g);
		assert_bits(&g->due, &g->expected);
	}
}

/* What a round and its destination do, for the pages in @due. */
static void send_pages(struct guest *g, struct gw_holes *h, struct gw_digests *held,
		       const struct gw_bitmap *due)
{
	uint8_t bytes[GW_PAGE_SIZE];

	for (size_t page = 0; page < PAGES; page++) {
		if (due && !gw_bitmap_test(due, page))
			continue;
		if (!gw_memory_block_of(&g->ram.memory, page))
			continue;
		assert_int_equal(gw_holes_read(h, page, 1, bytes), 0);
		gw_digests_set(held, page, gw_digest_page(bytes));
	}
}

static void scan_all(struct guest *g, struct gw_holes *h, const struct gw_digests *held)
{
	int heard;

	scan(g);
	heard = gw_holes_heard(h);
	assert_true(heard >= 0);
	if (heard)
		assert_int_equal(gw_holes_due(h, 0, PAGES, held, &g->due), 0);
}

/* What the guest gives back: mapped or not, read afterwards or not, it becomes due (F8). */
static void punched_clean_pages(struct guest *g)
{
	gw_autofree uint8_t *bytes = malloc(GW_CHUNK_SIZE);
	struct gw_digests held;
	struct gw_holes *h;

	memset(bytes, 'b', GW_CHUNK_SIZE);
	assert_int_equal(gw_digests_init(&held, PAGES), 0);
	/* Content in pages 0 to 511; the guest has mapped the first 256 of them. */
	assert_int_equal(gw_memory_write(&g->ram.memory, 0, GW_CHUNK_PAGES, bytes), 0);
	assert_int_equal(gw_memory_write(&g->ram.memory, GW_CHUNK_PAGES, GW_CHUNK_PAGES, bytes), 0);
	tell(g, WRITE, 0, GW_CHUNK_PAGES, 1);
	assert_int_equal(gw_holes_open(&h, &g->ram.memory, true), 0);
	track(g);
	scan(g);
	send_pages(g, h, &held, NULL);
	scan_all(g, h, &held);
	assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
	/* Clean and mapped; the same and read; clean and not mapped; the same and read. */
	assert_int_equal(gw_memory_punch(&g->ram.memory, 10, 5), 0);
	assert_int_equal(gw_memory_punch(&g->ram.memory, 20, 5), 0);
	tell(g, READ, 20, 5, 1);
	assert_int_equal(gw_memory_punch(&g->ram.memory, 300, 7), 0);
	assert_int_equal(gw_memory_punch(&g->ram.memory, 400, 7), 0);
	tell(g, READ, 400, 7, 1);
	assert_int_equal(gw_memory_punch(&g->ram.memory, 511, 1), 0);
	gw_bitmap_set_range(&g->expected, 10, 5);
	gw_bitmap_set_range(&g->expected, 20, 5);
	gw_bitmap_set_range(&g->expected, 300, 7);
	gw_bitmap_set_range(&g->expected, 400, 7);
	gw_bitmap_set(&g->expected, 511);
	scan_all(g, h, &held);
	assert_bits(&g->due, &g->expected);
	/* Once the destination holds zeros there, they are due no longer. */
	send_pages(g, h, &held, &g->expected);
	scan_all(g, h, &held);
	assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
	assert_true(gw_digest_is_zero(held.table[22]));
	gw_holes_close(h);
	gw_digests_free(&held);
}

/* After it nothing is left in the way: the process runs on, and can be tracked again. */
static void stopping(struct guest *g)
{
	tell(g, WRITE, 0, 100, 1);
	track(g);
	if (g->uffd) {
		assert_null(new_tracker(g));
		assert_message("registered with another userfaultfd already");
	}
	gw_tracker_stop(g->t);
	g->t = NULL;
	tell(g, WRITE, 0, 100, 1);
	assert_int_equal(g->map[0][7], 0); /* byte n of page n is counted */
	assert_int_equal(g->map[0][7 * GW_PAGE_SIZE + 7], 2);
	track(g);
	gw_bitmap_set_range(&g->expected, 50, 10);
	tell_expected(g, WRITE);
	assert_found_once(g);
	gw_tracker_stop(NULL);
}

/* Several descriptors, one for each range, where many vCPUs fault at once (F22). */
static void several_descriptors(void **state)
{
	struct gw_track_range ranges[2];
	struct rng rng = { 14 };
	struct guest g;
	int uffds[2];

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	start(&g, true);
	for (unsigned int i = 0; i < 2; i++) {
		ranges[i] = (struct gw_track_range){ g.ram.files[i].hva,
						     g.ram.memory.blocks[i].first_page,
						     g.ram.memory.blocks[i].nr_pages };
		uffds[i] = gw_inject_userfaultfd(g.pid);
		assert_true(uffds[i] >= 0);
	}
	g.t = gw_tracker_uffd(g.pid, uffds, 2, ranges, 2);
	assert_non_null(g.t);
	for (int round = 0; round < 3; round++) {
		pick(&g, &rng);
		tell_expected(&g, WRITE);
		assert_found_once(&g);
	}
	/* Each of the two holds its range, and both let go. */
	assert_null(new_tracker(&g));
	gw_tracker_stop(g.t);
	g.t = new_tracker(&g);
	assert_non_null(g.t);
	end(&g);
}

static int saved;

static int save(void *arg)
{
	saved++;
	return *(int *)arg;
}

/* The watch as its owner sees it: begun, recorded, found by whoever reads the record. */
static void watch_that_stays(void **state)
{
	struct gw_memory_watch watch, back;
	bool resumed, since;
	struct rng rng = { 15 };
	int ok = 0, bad = -EIO;
	struct guest g;
	json_t *json;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	start(&g, true);
	assert_int_equal(gw_watch_begin(&watch, g.pid, &g.ram, 1), 0);
	assert_true(watch.mode == GW_WATCH_TRACKING && watch.nr == 1 && watch.since_arrival);
	json = gw_watch_json(&watch);
	gw_watch_parse(&back, json);
	json_decref(json);
	assert_memory_equal(&back, &watch, sizeof(back));
	pick(&g, &rng);
	tell_expected(&g, WRITE);
	saved = 0;
	g.t = gw_watch_track(&back, g.pid, &g.ram, save, &ok, &resumed, &since);
	assert_non_null(g.t);
	assert_true(resumed && since && saved == 1);
	assert_false(back.since_arrival); /* recorded so before anything was asked for */
	assert_found_once(&g);
	gw_tracker_stop(g.t);
	/* Once asked for, it has not seen all since the arrival; it goes on all the same. */
	g.t = gw_watch_track(&back, g.pid, &g.ram, save, &ok, &resumed, &since);
	assert_true(g.t && resumed && !since);
	gw_tracker_stop(g.t);
	/* What cannot be recorded is not gone on with, and memory has one watch at a time. */
	g.t = gw_watch_track(&back, g.pid, &g.ram, save, &bad, &resumed, &since);
	assert_null(g.t);
	assert_false(resumed || since);
	assert_message("registered with another userfaultfd already");
	/* What is paged is not tracked, and a record of nonsense is none. */
	back.mode = GW_WATCH_PAGING;
	assert_null(gw_watch_track(&back, g.pid, &g.ram, save, &ok, &resumed, &since));
	assert_message("still to come");
	for (const char *const *text =
		     (const char *const[]){ "{}", "7", "{\"mode\":\"tracking\"}",
					    "{\"mode\":\"x\",\"descriptors\":[3]}", NULL };
	     *text; text++) {
		json = json_loads(*text, JSON_DECODE_ANY, NULL);
		gw_watch_parse(&back, json);
		assert_true(back.mode == GW_WATCH_NONE && !back.nr && !back.since_arrival);
		json_decref(json);
	}
	end(&g);
}

/* Parts of a range: all of it, in order, each a whole number of huge pages but for the ends. */
static void parts_of_a_range(void **state)
{
	static const size_t lengths[] = { 1, 3, 511, 769, 1024, 65531, 1UL << 30 };

	(void)state;
	for (size_t before = 0; before < 512; before += 37)
		for (size_t k = 0; k < GW_ARRAY_SIZE(lengths); k++)
			for (unsigned int n = 1; n <= GW_TRACK_RANGES; n++) {
				const struct gw_track_range r = {
					.hva = ((1UL << 40) + before) * GW_PAGE_SIZE,
					.first_page = 7168,
					.nr_pages = lengths[k],
				};
				size_t next = r.first_page;

				for (unsigned int i = 0; i < n; i++) {
					struct gw_track_range part;

					if (!gw_track_part(&r, i, n, &part))
						continue;
					assert_int_equal(part.first_page, next);
					assert_int_equal(part.hva - r.hva,
							 (next - r.first_page) * GW_PAGE_SIZE);
					next += part.nr_pages;
					if (next < r.first_page + r.nr_pages)
						assert_int_equal(
							(part.hva / GW_PAGE_SIZE + part.nr_pages) %
								512,
							0);
				}
				assert_int_equal(next, r.first_page + r.nr_pages);
			}
}

/* A guest that was powered off in mid-move is no riddle about page maps. */
static void ended_process(void **state)
{
	struct guest g;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	start(&g, true);
	tell(&g, WRITE, 0, 10, 1);
	track(&g);
	kill(g.pid, SIGKILL);
	waitpid(g.pid, NULL, 0);
	assert_int_equal(gw_tracker_scan(g.t, &g.due), -ESRCH);
	assert_message("the guest's QEMU has ended");
	assert_message("powered off");
	end(&g);
}

BOTH(written_pages)
BOTH(more_regions_than_a_buffer)
BOTH(zapped_after_write)
BOTH(punched_clean_pages)
BOTH(stopping)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT_BOTH(written_pages),
		cmocka_unit_test(goes_on_without_us),
		cmocka_unit_test(several_descriptors),
		cmocka_unit_test(parts_of_a_range),
		cmocka_unit_test(watch_that_stays),
		cmocka_unit_test(ended_process),
		UNIT_BOTH(more_regions_than_a_buffer),
		UNIT_BOTH(zapped_after_write),
		UNIT_BOTH(punched_clean_pages),
		UNIT_BOTH(stopping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
