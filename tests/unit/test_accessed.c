// SPDX-License-Identifier: GPL-2.0-or-later
/* test_accessed.c - pages that a real process has accessed, under either kind of watch. */
#include "tracked.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>

#include "accessed.h"
#include "clock.h"
#include "watch.h"

struct watched {
	struct guest g;
	struct gw_memory_watch watch;
	struct gw_accessed accessed;
};

/* What was accessed, into g.due; @made: as for gw_accessed_sample(). */
static void look_for(struct watched *w, size_t made)
{
	gw_bitmap_zero(&w->g.due);
	assert_int_equal(gw_accessed_sample(&w->accessed, &w->g.due, made), 0);
}

static void look(struct watched *w)
{
	look_for(w, SIZE_MAX);
}

/* What is written is tracked from here on, by the same watch. */
static void track_written(struct watched *w)
{
	int numbers[2];

	for (unsigned int i = 0; i < 2; i++)
		numbers[i] = gw_inject_found(w->g.pid, w->watch.numbers[i]);
	w->g.t = gw_tracker_resume(w->g.pid, numbers, 2, w->watch.ranges, w->watch.nr_ranges);
	assert_non_null(w->g.t);
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

static void watch_as_split(struct watched *w)
{
	struct gw_paged paged;

	assert_int_equal(gw_watch_split(&w->watch, w->g.pid, &w->g.ram, 2), 0);
	assert_int_equal(gw_watch_open(&w->watch, w->g.pid, &paged), 0);
	/* Whoever comes after somebody who died in between does it again. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(gw_watch_arm(&paged), 0);
	gw_watch_close(&paged);
}

static struct watched *make(bool split)
{
	struct watched *w = calloc(1, sizeof(*w));

	start(&w->g, true);
	tell(&w->g, WRITE, 0, 2000, 1); /* nothing of these is missing */
	tell(&w->g, WRITE, FIRST, SMALL, 1);
	if (split)
		watch_as_split(w);
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

	(void)state;
	track_written(w);
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

#define HAMMERED 3000UL

/* What a round does: the scan, and then the pages that are due, as they are now. */
static size_t copy_due(struct watched *w, uint8_t *copy)
{
	size_t start, stop, n = 0;

	scan(&w->g);
	gw_bitmap_for_each_run(&w->g.due, 0, HAMMERED, start, stop) {
		memcpy(copy + start * GW_PAGE_SIZE, page_of(&w->g, start),
		       (stop - start) * GW_PAGE_SIZE);
		n += stop - start;
	}
	return n;
}

/*
 * Neither while it writes all the time: who copies what the tracker reports has a true copy in
 * the end, wherever between a write and a scan the entries were dropped.
 */
static void nothing_is_lost(bool own)
{
	struct watched *w = make(false);
	gw_autofree uint8_t *copy = calloc(HAMMERED, GW_PAGE_SIZE);
	size_t copied = 0, sampled = 0;

	track_written(w);
	memcpy(copy, page_of(&w->g, 0), HAMMERED * GW_PAGE_SIZE);
	tell(&w->g, HAMMER, 0, HAMMERED, 1);
	/* Until enough was tried, however little it gets of the processors meanwhile. */
	for (unsigned int i = 0; i < 60 || copied <= HAMMERED || sampled <= HAMMERED; i++) {
		struct gw_bitmap seen;

		assert_true(i < 1000000);
		assert_int_equal(gw_bitmap_init(&seen, PAGES), 0);
		assert_int_equal(own ? w->g.t->ops->sample(w->g.t, &seen)
				     : gw_accessed_sample(&w->accessed, &seen, SIZE_MAX),
				 0);
		sampled += gw_bitmap_count(&seen, 0, HAMMERED);
		gw_bitmap_free(&seen);
		if (i % 3 == 0)
			copied += copy_due(w, copy);
	}
	tell(&w->g, REST, 0, 0, 1);
	look(w); /* of what it wrote last no entry is left */
	copied += copy_due(w, copy);
	for (size_t page = 0; page < HAMMERED; page++)
		if (memcmp(copy + page * GW_PAGE_SIZE, page_of(&w->g, page), GW_PAGE_SIZE) != 0)
			fail_msg("a write to page %zu was not reported", page);
	drop(w);
}

static void nothing_is_lost_while_it_writes(void **state)
{
	(void)state;
	nothing_is_lost(false);
}

static void nor_when_the_tracker_samples(void **state)
{
	(void)state;
	nothing_is_lost(true);
}

/* Exactly the pages that are expected are due, and none is expected any more. */
static void due_as_expected(struct watched *w)
{
	scan(&w->g);
	for (size_t i = 0; i < (PAGES + 63) / 64; i++)
		if (w->g.due.words[i] != w->g.expected.words[i])
			fail_msg("pages %zu: %llx are due, not %llx", i * 64,
				 (unsigned long long)w->g.due.words[i],
				 (unsigned long long)w->g.expected.words[i]);
	gw_bitmap_zero(&w->g.expected);
}

/* The tracker's own samples make nothing due that was only read, and hide nothing. */
static void the_tracker_knows_what_it_dropped(void **state)
{
	struct watched *w = make(false);
	struct gw_bitmap accessed;

	(void)state;
	track_written(w);
	scan(&w->g);
	tell(&w->g, READ, 100, 2, 1);
	tell(&w->g, READ, FIRST, 1, 1);
	tell(&w->g, WRITE, 200, 1, 1);
	gw_bitmap_set(&w->g.expected, 200);
	due_as_expected(w);
	assert_int_equal(gw_bitmap_init(&accessed, PAGES), 0);
	assert_int_equal(w->g.t->ops->sample(w->g.t, &accessed), 0);
	assert_int_equal(gw_bitmap_count(&accessed, 0, PAGES), 4);
	due_as_expected(w);
	/* Dropped, and read again; dropped, and written; written, and then dropped. */
	tell(&w->g, READ, 100, 1, 1);
	tell(&w->g, WRITE, 101, 1, 1);
	tell(&w->g, WRITE, 300, 1, 1);
	gw_bitmap_zero(&accessed);
	assert_int_equal(w->g.t->ops->sample(w->g.t, &accessed), 0);
	assert_int_equal(gw_bitmap_count(&accessed, 0, PAGES), 3);
	gw_bitmap_set(&w->g.expected, 101);
	gw_bitmap_set(&w->g.expected, 300);
	due_as_expected(w);
	/* What somebody else takes away is due as ever. */
	tell(&w->g, READ, 100, 2, 1);
	due_as_expected(w);
	assert_int_equal(
		gw_inject_unmap(w->g.pid, w->g.ram.files[0].hva + 100 * GW_PAGE_SIZE, GW_PAGE_SIZE),
		0);
	gw_bitmap_set(&w->g.expected, 100);
	due_as_expected(w);
	gw_bitmap_free(&accessed);
	drop(w);
}

/* The fault that is told next. */
static struct uffd_msg fault_of(int uffd)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg = { 0 };

	assert_int_equal(poll(&p, 1, 60000), 1);
	assert_int_equal(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
	return msg;
}

/*
 * Of a split VM: what is leaving is protected still when its entry was dropped, read or not, and
 * what is missing is missing.
 */
static void dropped_entries_are_protected(void **state)
{
	struct watched *w = make(true);
	struct gw_paged paged;
	struct uffd_msg msg;

	(void)state;
	assert_int_equal(gw_watch_open(&w->watch, w->g.pid, &paged), 0);
	for (size_t page = 10; page < 13; page++) {
		struct uffdio_writeprotect wp = {
			.range = { w->g.ram.files[0].hva + page * GW_PAGE_SIZE, GW_PAGE_SIZE },
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};

		if (page == 10) /* present when it is protected, another is not */
			tell(&w->g, READ, page, 1, 1);
		assert_int_equal(ioctl(paged.uffds[0], UFFDIO_WRITEPROTECT, &wp), 0);
		look(w);
		if (page == 12) { /* dropped twice */
			tell(&w->g, READ, page, 1, 1);
			look(w);
		}
		send_command(&w->g, WRITE, page, 1, 1);
		msg = fault_of(paged.uffds[0]);
		assert_int_equal(msg.arg.pagefault.address / GW_PAGE_SIZE,
				 wp.range.start / GW_PAGE_SIZE);
		assert_true(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
		wp.mode = 0;
		assert_int_equal(ioctl(paged.uffds[0], UFFDIO_WRITEPROTECT, &wp), 0);
		await_command(&w->g);
		assert_int_equal(page_of(&w->g, page)[page], 2);
	}
	send_command(&w->g, READ, 2500, 1, 1);
	msg = fault_of(paged.uffds[0]);
	assert_false(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
	{
		struct uffdio_zeropage zero = {
			.range = { w->g.ram.files[0].hva + 2500 * GW_PAGE_SIZE, GW_PAGE_SIZE },
		};

		assert_int_equal(ioctl(paged.uffds[0], UFFDIO_ZEROPAGE, &zero), 0);
	}
	await_command(&w->g);
	gw_watch_close(&paged);
	drop(w);
}

/* Memory that is locked, whose entries no ordinary madvise() drops. */
static void of_locked_memory(bool split)
{
	struct watched *w = make(split);

	tell(&w->g, LOCK, FIRST, SMALL, 1); /* which touches all of it */
	gw_bitmap_set_range(&w->g.expected, FIRST, SMALL);
	accessed_as_expected(w);
	accessed_as_expected(w);
	tell(&w->g, READ, FIRST + 5, 1, 1);
	tell(&w->g, WRITE, FIRST + 300, 2, 1);
	gw_bitmap_set(&w->g.expected, FIRST + 5);
	gw_bitmap_set_range(&w->g.expected, FIRST + 300, 2);
	accessed_as_expected(w);
	drop(w);
}

static void of_locked_memory_split(void **state)
{
	(void)state;
	of_locked_memory(true);
}

static void of_locked_memory_tracked(void **state)
{
	(void)state;
	of_locked_memory(false);
}

/* Who may drop only some of them drops all in turn, and tells the others again until then. */
static void in_turn(void **state)
{
	struct watched *w = make(true);
	size_t left = 2000 + SMALL;
	unsigned int rounds = w->accessed.rounds;

	(void)state;
	tell(&w->g, READ, 0, 2000, 1);
	tell(&w->g, READ, FIRST, SMALL, 1);
	while (left) {
		look_for(w, 400);
		assert_int_equal(gw_bitmap_count(&w->g.due, 0, PAGES), left);
		assert_true(w->accessed.dropped >= (left < 400 ? left : 400));
		left -= w->accessed.dropped;
	}
	/* None at all; and what is behind the hand is found once it comes round. */
	accessed_as_expected(w);
	assert_true(w->accessed.rounds > rounds);
	for (unsigned int i = 0; i < 2; i++) {
		const size_t page = i ? FIRST + 3 : 3;

		tell(&w->g, READ, page, 2, 1);
		look_for(w, 1);
		gw_bitmap_set_range(&w->g.expected, page, 2);
		assert_bits(&w->g.due, &w->g.expected);
		gw_bitmap_clear(&w->g.expected, page);
		look_for(w, 0);
		assert_bits(&w->g.due, &w->g.expected);
		look_for(w, 1);
		gw_bitmap_zero(&w->g.expected);
		accessed_as_expected(w);
	}
	drop(w);
}

/*
 * Of memory that is not used twice as many are dropped each time, so that a turn takes few looks;
 * of what is in use as many as the guest may have to make again.
 */
static void as_many_as_are_made_again(void **state)
{
	struct watched *w = make(true);
	const size_t made = 64;
	unsigned int rounds, looks = 0;

	(void)state;
	tell(&w->g, READ, 0, 2000, 1);
	for (rounds = w->accessed.rounds; w->accessed.rounds == rounds; looks++) {
		look_for(w, made);
		assert_true(w->accessed.dropped <= made << looks);
	}
	assert_true(looks <= 7);
	for (looks = 0; looks < 10; looks++) {
		tell(&w->g, READ, 0, 2000, 1);
		look_for(w, made);
		assert_true(w->accessed.dropped >= made);
		assert_true(looks < 2 || w->accessed.dropped <= made + 2);
	}
	drop(w);
}

/* Told at once, also while nobody has asked for its status. */
static void one_that_has_ended(void **state)
{
	struct watched *w = make(true);
	int64_t began = gw_now();
	siginfo_t info;

	(void)state;
	kill(w->g.pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)w->g.pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(gw_accessed_sample(&w->accessed, &w->g.due, 1), -ESRCH);
	assert_message("has ended");
	assert_true(gw_now() - began < 2 * GW_S);
	waitpid(w->g.pid, NULL, 0);
	assert_int_equal(gw_accessed_sample(&w->accessed, &w->g.due, 1), -ESRCH);
	drop(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_a_split_vm),
		cmocka_unit_test(of_a_tracked_vm),
		cmocka_unit_test(nothing_is_lost_to_the_tracker),
		cmocka_unit_test(nothing_is_lost_while_it_writes),
		cmocka_unit_test(nor_when_the_tracker_samples),
		cmocka_unit_test(the_tracker_knows_what_it_dropped),
		cmocka_unit_test(dropped_entries_are_protected),
		cmocka_unit_test(of_locked_memory_split),
		cmocka_unit_test(of_locked_memory_tracked),
		cmocka_unit_test(in_turn),
		cmocka_unit_test(as_many_as_are_made_again),
		cmocka_unit_test(one_that_has_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
