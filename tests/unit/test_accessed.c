// SPDX-License-Identifier: GPL-2.0-or-later
/* test_accessed.c - pages that a real process has accessed, under either kind of watch. */
#include "tracked.h"

#include "accessed.h"
#include "watch.h"

struct watched {
	struct guest g;
	struct gw_memory_watch watch;
	struct gw_accessed accessed;
};

static void look(struct watched *w)
{
	gw_bitmap_zero(&w->g.due);
	assert_int_equal(gw_accessed_sample(&w->accessed, &w->g.due), 0);
}

/* Exactly what is expected, and nothing of it is expected any more. */
static void accessed_as_expected(struct watched *w)
{
	look(w);
	for (size_t i = 0; i < (PAGES + 63) / 64; i++)
		if (w->g.due.words[i] != w->g.expected.words[i])
			fail_msg("pages %zu: %llx, and %llx were accessed", i * 64,
				 (unsigned long long)w->g.due.words[i],
				 (unsigned long long)w->g.expected.words[i]);
	gw_bitmap_zero(&w->g.expected);
}

static struct watched *make(bool split)
{
	struct watched *w = calloc(1, sizeof(*w));

	start(&w->g, true);
	tell(&w->g, WRITE, 0, 2000, 1); /* nothing of these is missing */
	tell(&w->g, WRITE, FIRST, SMALL, 1);
	if (split)
		assert_int_equal(gw_watch_split(&w->watch, w->g.pid, &w->g.ram, 2), 0);
	else
		assert_int_equal(gw_watch_begin(&w->watch, w->g.pid, &w->g.ram, 2), 0);
	assert_int_equal(
		gw_accessed_open(&w->accessed, w->g.pid, w->watch.ranges, w->watch.nr_ranges), 0);
	look(w);
	return w;
}

static void drop(struct watched *w)
{
	gw_accessed_close(&w->accessed);
	end(&w->g);
	free(w);
}

/* Reads, writes and neither; the process sees what it had written, and waits for nobody. */
static void exactly(bool split)
{
	struct watched *w = make(split);

	accessed_as_expected(w);
	tell(&w->g, READ, 100, 1, 1);
	tell(&w->g, WRITE, 700, 3, 1);
	tell(&w->g, READ, FIRST + SMALL - 1, 1, 1);
	gw_bitmap_set(&w->g.expected, 100);
	gw_bitmap_set_range(&w->g.expected, 700, 3);
	gw_bitmap_set(&w->g.expected, FIRST + SMALL - 1);
	accessed_as_expected(w);
	accessed_as_expected(w);
	tell(&w->g, WRITE, 0, 2000, 2);
	for (size_t page = 0; page < 2000; page += 2)
		gw_bitmap_set(&w->g.expected, page);
	accessed_as_expected(w);
	/* Once by the start, once now; 700 and 702 by the first, too. */
	assert_int_equal(page_of(&w->g, 700)[700], 3);
	assert_int_equal(page_of(&w->g, 701)[701], 2);
	assert_int_equal(page_of(&w->g, 1000)[1000], 2);
	drop(w);
}

static void of_a_split_vm(void **state)
{
	(void)state;
	exactly(true);
}

static void of_a_tracked_vm(void **state)
{
	(void)state;
	exactly(false);
}

/* Whoever samples loses nothing for whoever tracks what is written. */
static void nothing_is_lost_to_the_tracker(void **state)
{
	struct watched *w = make(false);
	struct rng rng = { 5 };
	int numbers[2];

	(void)state;
	for (unsigned int i = 0; i < 2; i++)
		numbers[i] = gw_inject_found(w->g.pid, w->watch.numbers[i]);
	w->g.t = gw_tracker_resume(w->g.pid, numbers, 2, w->watch.ranges, w->watch.nr_ranges);
	assert_non_null(w->g.t);
	assert_int_equal(gw_tracker_scan(w->g.t, &w->g.expected), 0);
	for (unsigned int i = 0; i < 40; i++) {
		size_t written[8];
		struct gw_bitmap due;

		assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
		for (unsigned int k = 0; k < 8; k++) {
			written[k] = rng_below(&rng, 2000);
			tell(&w->g, WRITE, written[k], 1, 1);
			if (rng_one_in(&rng, 3))
				look(w);
		}
		assert_int_equal(gw_tracker_scan(w->g.t, &due), 0);
		for (unsigned int k = 0; k < 8; k++)
			assert_true(gw_bitmap_test(&due, written[k]));
		gw_bitmap_free(&due);
	}
	drop(w);
}

/* Memory that is locked is dropped likewise, and one that has ended is told. */
static void one_that_has_ended(void **state)
{
	struct watched *w = make(true);
	int rc;

	(void)state;
	kill(w->g.pid, SIGKILL);
	waitpid(w->g.pid, NULL, 0);
	rc = gw_accessed_sample(&w->accessed, &w->g.due);
	assert_int_equal(rc, -ESRCH);
	drop(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_a_split_vm),
		cmocka_unit_test(of_a_tracked_vm),
		cmocka_unit_test(nothing_is_lost_to_the_tracker),
		cmocka_unit_test(one_that_has_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
