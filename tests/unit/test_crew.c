// SPDX-License-Identifier: GPL-2.0-or-later
/* test_crew.c - threads that work while their owner watches a descriptor. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>

#include "crew.h"
#include "teller.h"

struct work {
	struct gw_crew *crew;
	_Atomic unsigned int done[GW_CREW_MAX];
	_Atomic bool go;
	sem_t gate;
	unsigned int fail_at;
};

static bool notified(const struct gw_crew *c, int ms)
{
	struct pollfd pfd = { .fd = c->event, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

static int count(void *arg, unsigned int i)
{
	struct work *w = arg;

	w->done[i]++;
	return 0;
}

static void each_member_works_once(void **state)
{
	static const unsigned int sizes[] = { 1, 2, 7, GW_CREW_MAX };
	struct gw_crew c;

	(void)state;
	assert_int_equal(gw_crew_init(&c), 0);
	for (size_t s = 0; s < GW_ARRAY_SIZE(sizes); s++) {
		struct work w = { 0 };

		assert_int_equal(gw_crew_start(&c, sizes[s], count, &w), 0);
		assert_int_equal(gw_crew_join(&c), 0);
		for (unsigned int i = 0; i < GW_CREW_MAX; i++)
			assert_int_equal(w.done[i], i < sizes[s]);
		assert_int_equal(c.running, 0);
		assert_true(notified(&c, 0));
	}
	assert_int_equal(gw_crew_join(&c), 0); /* nobody left: no harm */
	gw_crew_free(&c);
}

static int wait_at_gate(void *arg, unsigned int i)
{
	struct work *w = arg;

	(void)i;
	while (sem_wait(&w->gate))
		;
	return 0;
}

/* The owner hears of each end, and of nothing before. */
static void owner_is_woken(void **state)
{
	struct work w = { 0 };
	struct gw_crew c;

	(void)state;
	sem_init(&w.gate, 0, 0);
	assert_int_equal(gw_crew_init(&c), 0);
	assert_int_equal(gw_crew_start(&c, 3, wait_at_gate, &w), 0);
	assert_false(notified(&c, 0));
	for (unsigned int left = 3; left; left--) {
		assert_int_equal(c.running, left);
		sem_post(&w.gate);
		assert_true(notified(&c, 10000));
		gw_crew_quiet(&c);
		assert_false(notified(&c, 0));
	}
	assert_int_equal(c.running, 0);
	assert_int_equal(gw_crew_join(&c), 0);
	gw_crew_free(&c);
	sem_destroy(&w.gate);
}

static int notify_twice(void *arg, unsigned int i)
{
	struct work *w = arg;

	(void)i;
	w->go = true;
	gw_crew_notify(w->crew);
	gw_crew_notify(w->crew);
	return wait_at_gate(arg, i);
}

/* State set before notify is seen by whoever quiets first and looks then. */
static void members_notify(void **state)
{
	struct gw_crew c;
	struct work w = { .crew = &c };

	(void)state;
	sem_init(&w.gate, 0, 0);
	assert_int_equal(gw_crew_init(&c), 0);
	assert_int_equal(gw_crew_start(&c, 1, notify_twice, &w), 0);
	assert_true(notified(&c, 10000));
	gw_crew_quiet(&c);
	assert_true(w.go);
	assert_int_equal(c.running, 1);
	sem_post(&w.gate);
	assert_int_equal(gw_crew_join(&c), 0);
	gw_crew_quiet(&c);
	gw_crew_quiet(&c); /* with nothing to forget it does not block */
	assert_false(notified(&c, 0));
	gw_crew_free(&c);
	sem_destroy(&w.gate);
}

static int fail_first(void *arg, unsigned int i)
{
	struct work *w = arg;

	if (i == w->fail_at)
		return gw_fail(-EPROTO, "member %u has failed", i);
	wait_at_gate(arg, i);
	return gw_fail(-ESHUTDOWN, "member %u was told to stop", i);
}

/* The first failure counts, whatever its consequences are; its text crosses threads. */
static void first_failure_counts(void **state)
{
	struct gw_crew c;

	(void)state;
	assert_int_equal(gw_crew_init(&c), 0);
	for (unsigned int at = 0; at < 4; at++) {
		struct work w = { .fail_at = at };

		sem_init(&w.gate, 0, 0);
		gw_crew_quiet(&c);
		assert_int_equal(gw_crew_start(&c, 4, fail_first, &w), 0);
		assert_true(notified(&c, 10000));
		assert_true(gw_crew_failed(&c));
		for (int i = 0; i < 3; i++)
			sem_post(&w.gate);
		gw_error_clear();
		assert_int_equal(gw_crew_join(&c), -EPROTO);
		assert_message("has failed");
		assert_int_equal(gw_error()[7], '0' + (int)at);
		sem_destroy(&w.gate);
	}
	/* A new start begins without it. */
	struct work w = { 0 };

	assert_int_equal(gw_crew_start(&c, 2, count, &w), 0);
	assert_int_equal(gw_crew_join(&c), 0);
	assert_false(gw_crew_failed(&c));
	gw_crew_free(&c);
}

struct told {
	sem_t said;
	_Atomic unsigned int times;
	const char *_Atomic last;
};

static void note(void *arg, const char *what)
{
	struct told *told = arg;

	told->last = what;
	told->times++;
	sem_post(&told->said);
}

/* It tells what is being done, the latest, and is silent once it was stopped. */
static void teller_tells(void **state)
{
	static const char first[] = "first", then[] = "then";
	struct gw_teller t;
	struct told told = { .times = 0 };
	unsigned int times;

	(void)state;
	sem_init(&told.said, 0, 0);
	gw_teller_start(&t, 1, note, &told, first);
	sem_wait(&told.said);
	gw_teller_now(&t, then);
	while (told.last != then)
		sem_wait(&told.said);
	gw_teller_stop(&t);
	times = told.times;
	assert_true(times >= 2);
	/* One that is slow does not keep whoever stops it waiting. */
	gw_teller_start(&t, 3600 * 1000, note, &told, first);
	gw_teller_stop(&t);
	assert_int_equal(told.times, times);
	sem_destroy(&told.said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_member_works_once), cmocka_unit_test(owner_is_woken),
		cmocka_unit_test(members_notify),	  cmocka_unit_test(first_failure_counts),
		cmocka_unit_test(teller_tells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
