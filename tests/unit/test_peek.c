// SPDX-License-Identifier: GPL-2.0-or-later
/* test_peek.c - looking without forgetting, and several threads at once on one tracker. */
#include "tracked.h"

#include <pthread.h>
#include <stdatomic.h>

static void peek_forgets_nothing(struct guest *g)
{
	struct gw_bitmap seen, part;
	struct rng rng = { 10 };

	assert_int_equal(gw_bitmap_init(&seen, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&part, PAGES), 0);
	tell(g, WRITE, 0, BIG, 1);
	tell(g, WRITE, FIRST, SMALL, 1);
	track(g);
	scan(g);
	pick(g, &rng);
	tell_expected(g, WRITE);
	for (int i = 0; i < 2; i++) {
		gw_bitmap_zero(&seen);
		for (size_t page = 0; page < PAGES; page += GW_CHUNK_PAGES)
			assert_int_equal(g->t->ops->peek(g->t, page, GW_CHUNK_PAGES, &seen), 0);
		assert_bits(&seen, &g->expected);
	}
	/* A part of a run tells of that part only. */
	gw_bitmap_set_range(&g->expected, 5000, 100);
	tell(g, WRITE, 5000, 100, 1);
	assert_int_equal(g->t->ops->peek(g->t, 5010, 20, &part), 0);
	assert_int_equal(gw_bitmap_count(&part, 0, PAGES), 20);
	assert_int_equal(gw_bitmap_count(&part, 5010, 20), 20);
	assert_found_once(g);
	/* More regions than its buffer holds. */
	for (size_t page = 1; page < BIG; page += 2)
		gw_bitmap_set(&g->expected, page);
	tell(g, WRITE, 1, BIG - 1, 2);
	gw_bitmap_zero(&seen);
	assert_int_equal(g->t->ops->peek(g->t, 0, PAGES, &seen), 0);
	assert_bits(&seen, &g->expected);
	assert_found_once(g);
	gw_bitmap_free(&seen);
	gw_bitmap_free(&part);
}

struct part {
	struct guest *g;
	struct gw_bitmap *seen; /* peek into it; NULL: scan */
	_Atomic size_t *next;
	int rc;
};

static void *work_on_parts(void *arg)
{
	const size_t step = 16 * GW_CHUNK_PAGES;
	struct part *p = arg;
	struct gw_tracker *t = p->g->t;
	size_t page;

	while (!p->rc && (page = atomic_fetch_add(p->next, step)) < PAGES) {
		if (p->seen)
			p->rc = t->ops->peek(t, page, step, p->seen);
		else
			p->rc = t->ops->scan(t, page, step, &p->g->due);
	}
	return NULL;
}

static void in_parallel(struct guest *g, struct gw_bitmap *seen)
{
	_Atomic size_t next = 0;
	struct part parts[4];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		parts[i] = (struct part){ g, seen, &next, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, work_on_parts, &parts[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(parts[i].rc, 0);
	}
}

static void parts_at_once(struct guest *g)
{
	struct gw_bitmap seen;
	struct rng rng = { 11 };

	assert_int_equal(gw_bitmap_init(&seen, PAGES), 0);
	track(g);
	scan(g);
	for (int round = 0; round < 3; round++) {
		pick(g, &rng);
		tell_expected(g, WRITE);
		gw_bitmap_zero(&seen);
		in_parallel(g, &seen);
		assert_bits(&seen, &g->expected);
		gw_bitmap_zero(&g->due);
		in_parallel(g, NULL);
		if (g->t->ops->forget)
			assert_int_equal(g->t->ops->forget(g->t), 0);
		assert_bits(&g->due, &g->expected);
		scan(g);
		assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
	}
	gw_bitmap_free(&seen);
}

BOTH(peek_forgets_nothing)
BOTH(parts_at_once)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT_BOTH(peek_forgets_nothing),
		UNIT_BOTH(parts_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
