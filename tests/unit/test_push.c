// SPDX-License-Identifier: GPL-2.0-or-later
/* test_push.c - the order in which missing pages are sent, and that each is sent once. */
#include "unit.h"

#include <pthread.h>

#include "push.h"

#define PAGES (64 * GW_CHUNK_PAGES)

struct fixture {
	struct gw_push push;
	struct gw_bitmap due;
};

static int make(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!f || gw_bitmap_init(&f->due, PAGES))
		return -1;
	gw_push_init(&f->push);
	return 0;
}

static int drop(void **state)
{
	struct fixture *f = *state;

	gw_push_free(&f->push);
	gw_bitmap_free(&f->due);
	free(f);
	return 0;
}

/* The first page of the next push, of which there must be @count in a row. */
static size_t next(struct fixture *f, unsigned int most, unsigned int count)
{
	struct gw_pageset pages;
	unsigned int at = 0, first = 0;
	size_t chunk = 0;

	assert_int_equal(gw_push_next(&f->push, most, &chunk, &pages), count);
	assert_int_equal(gw_pageset_run(&pages, &at, &first), count);
	return chunk * GW_CHUNK_PAGES + first;
}

/* What is expected to be used soon is next after what lies behind faults. */
static void goes_sooner(void **state)
{
	struct fixture *f = *state;
	struct gw_bitmap sooner;
	struct gw_pageset pages;
	size_t chunk;

	assert_int_equal(gw_bitmap_init(&sooner, PAGES), 0);
	gw_bitmap_set_range(&f->due, 0, 8 * GW_CHUNK_PAGES);
	gw_bitmap_set_range(&sooner, 3 * GW_CHUNK_PAGES - 5, 10);
	gw_bitmap_set(&sooner, 5 * GW_CHUNK_PAGES + 1);
	gw_bitmap_set(&sooner, 5 * GW_CHUNK_PAGES + 7);
	gw_bitmap_set(&sooner, 9 * GW_CHUNK_PAGES); /* which is not due */
	gw_push_begin(&f->push, &f->due, &sooner);
	assert_int_equal(next(f, 3, 3), 3 * GW_CHUNK_PAGES - 5);
	assert_true(gw_push_claim(&f->push, 100));
	assert_int_equal(next(f, 64, 64), 101); /* behind the fault */
	assert_int_equal(next(f, 64, 2), 3 * GW_CHUNK_PAGES - 2);
	assert_true(gw_push_claim(&f->push, 3 * GW_CHUNK_PAGES + 3)); /* is behind it, and soon */
	assert_int_equal(next(f, 64, 64), 3 * GW_CHUNK_PAGES + 4);
	assert_int_equal(next(f, 64, 3), 3 * GW_CHUNK_PAGES);
	/* Those of one chunk together, whatever lies between them. */
	assert_int_equal(gw_push_next(&f->push, 64, &chunk, &pages), 2);
	assert_int_equal(chunk, 5);
	assert_true(gw_pageset_test(&pages, 1) && gw_pageset_test(&pages, 7));
	assert_int_equal(next(f, 64, 64), 0);
	gw_bitmap_free(&sooner);
}

static void goes_by_memory(void **state)
{
	struct fixture *f = *state;
	struct gw_pageset pages;
	size_t chunk;

	gw_bitmap_set_range(&f->due, GW_CHUNK_PAGES - 4, 20);
	gw_push_begin(&f->push, &f->due, NULL);
	/* A chunk at a time, and no more than asked for. */
	assert_int_equal(next(f, 16, 4), GW_CHUNK_PAGES - 4);
	assert_int_equal(next(f, 10, 10), GW_CHUNK_PAGES);
	assert_int_equal(gw_push_left(&f->push), 6);
	assert_int_equal(next(f, 10, 6), GW_CHUNK_PAGES + 10);
	assert_int_equal(gw_push_next(&f->push, 16, &chunk, &pages), 0);
}

static void neighbours_of_the_last_fault_come_first(void **state)
{
	struct fixture *f = *state;

	gw_bitmap_set_range(&f->due, 0, PAGES);
	gw_push_begin(&f->push, &f->due, NULL);
	assert_true(gw_push_claim(&f->push, 5000));
	assert_true(gw_push_claim(&f->push, 9000));
	for (size_t i = 0; i < GW_PUSH_AHEAD; i += 16)
		assert_int_equal(next(f, 16, 16), 9001 + i);
	for (size_t i = 0; i < GW_PUSH_AHEAD; i += 16)
		assert_int_equal(next(f, 16, 16), 5001 + i);
	assert_int_equal(next(f, 16, 16), 0);
}

static void the_end_of_memory_is_one(void **state)
{
	struct fixture *f = *state;
	struct gw_pageset pages;
	size_t chunk;

	gw_bitmap_set_range(&f->due, PAGES - 2, 2);
	gw_push_begin(&f->push, &f->due, NULL);
	assert_true(gw_push_claim(&f->push, PAGES - 1));
	assert_false(gw_push_claim(&f->push, PAGES - 1));
	assert_int_equal(next(f, 16, 1), PAGES - 2);
	assert_int_equal(gw_push_next(&f->push, 16, &chunk, &pages), 0);
}

/* More faults than are remembered: the oldest is forgotten, and its neighbours wait. */
static void old_faults_are_forgotten(void **state)
{
	struct fixture *f = *state;

	gw_bitmap_set_range(&f->due, 0, PAGES);
	gw_push_begin(&f->push, &f->due, NULL);
	for (size_t i = 0; i <= GW_PUSH_NEAR; i++)
		assert_true(gw_push_claim(&f->push, 500 + i * 200));
	for (size_t i = GW_PUSH_NEAR; i > 0; i--)
		for (size_t left = GW_PUSH_AHEAD; left;) {
			struct gw_pageset pages;
			size_t chunk;

			left -= gw_push_next(&f->push, 64, &chunk, &pages);
			assert_true(chunk >= 700 / GW_CHUNK_PAGES);
		}
	assert_int_equal(next(f, 16, 16), 0);
}

/* What is found to be wrong at the destination comes, too, once, wherever the push is by then. */
static void what_is_refused_is_added(void **state)
{
	struct fixture *f = *state;
	struct gw_pageset pages;
	size_t chunk;

	gw_bitmap_set_range(&f->due, 600, 2);
	assert_int_equal(gw_push_begin(&f->push, &f->due, NULL), 0);
	assert_int_equal(gw_push_next(&f->push, 16, &chunk, &pages), 2);
	assert_int_equal(gw_push_next(&f->push, 16, &chunk, &pages), 0);
	assert_false(gw_push_is_new(&f->push, 600));
	assert_true(gw_push_is_new(&f->push, 3));
	assert_false(gw_push_is_new(&f->push, 3));
	assert_true(gw_push_add(&f->push, 3));
	/* It is on the list, and not twice. */
	assert_false(gw_push_add(&f->push, 3));
	assert_int_equal(gw_push_left(&f->push), 1);
	assert_int_equal(gw_push_next(&f->push, 16, &chunk, &pages), 1);
	assert_true(!chunk && gw_pageset_test(&pages, 3));
	assert_false(gw_push_claim(&f->push, 3));
	assert_int_equal(gw_push_left(&f->push), 0);
	/* A new list tells of all again. */
	assert_int_equal(gw_push_begin(&f->push, &f->due, NULL), 0);
	assert_true(gw_push_is_new(&f->push, 3) && gw_push_is_new(&f->push, 600));
}

static _Atomic unsigned int taken[PAGES];

static void *ask(void *arg)
{
	struct fixture *f = arg;

	for (size_t page = 7; page < PAGES; page += 7)
		if (gw_push_claim(&f->push, page))
			taken[page]++;
	return NULL;
}

static void *push(void *arg)
{
	struct fixture *f = arg;
	struct gw_pageset pages;
	size_t chunk;

	while (gw_push_next(&f->push, 16, &chunk, &pages))
		for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
			if (gw_pageset_test(&pages, i))
				taken[chunk * GW_CHUNK_PAGES + i]++;
	return NULL;
}

static void each_page_is_taken_once(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[3];

	gw_bitmap_set_range(&f->due, 0, PAGES);
	gw_push_begin(&f->push, &f->due, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i ? push : ask, f), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(taken[page], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(goes_by_memory, make, drop),
		cmocka_unit_test_setup_teardown(goes_sooner, make, drop),
		cmocka_unit_test_setup_teardown(neighbours_of_the_last_fault_come_first, make,
						drop),
		cmocka_unit_test_setup_teardown(the_end_of_memory_is_one, make, drop),
		cmocka_unit_test_setup_teardown(old_faults_are_forgotten, make, drop),
		cmocka_unit_test_setup_teardown(each_page_is_taken_once, make, drop),
		cmocka_unit_test_setup_teardown(what_is_refused_is_added, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
