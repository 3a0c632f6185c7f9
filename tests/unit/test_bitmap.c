// SPDX-License-Identifier: GPL-2.0-or-later
/* test_bitmap.c - bitmaps against an array of bytes that does the same naively. */
#include "unit.h"

#include "bitmap.h"
#include "rng.h"

#define BITS 777UL

struct pair {
	struct gw_bitmap map;
	uint8_t naive[BITS];
};

static int make(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	*state = p;
	return p ? gw_bitmap_init(&p->map, BITS) : -1;
}

static int drop(void **state)
{
	struct pair *p = *state;

	gw_bitmap_free(&p->map);
	free(p);
	return 0;
}

static void assert_same(const struct pair *p)
{
	for (size_t i = 0; i < BITS; i++)
		assert_int_equal(gw_bitmap_test(&p->map, i), p->naive[i]);
}

static void starts_clear(void **state)
{
	struct pair *p = *state;

	assert_int_equal(gw_bitmap_count(&p->map, 0, BITS), 0);
	assert_int_equal(gw_bitmap_next(&p->map, 0, BITS, true), BITS);
	assert_int_equal(gw_bitmap_next(&p->map, 0, BITS, false), 0);
}

static void single_bits(void **state)
{
	static const size_t at[] = { 0, 1, 63, 64, 65, 127, 128, BITS - 1 };
	struct pair *p = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(at); i++) {
		gw_bitmap_set(&p->map, at[i]);
		p->naive[at[i]] = 1;
		assert_same(p);
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(at); i++) {
		gw_bitmap_clear(&p->map, at[i]);
		p->naive[at[i]] = 0;
		assert_same(p);
	}
}

/* Ranges that begin and end at each place within and around a word. */
static void ranges_at_word_edges(void **state)
{
	struct pair *p = *state;

	for (size_t first = 60; first < 70; first++) {
		for (size_t count = 0; count < 140; count++) {
			gw_bitmap_set_range(&p->map, first, count);
			memset(p->naive + first, 1, count);
			assert_same(p);
			assert_int_equal(gw_bitmap_count(&p->map, 0, BITS), count);
			gw_bitmap_clear_range(&p->map, first, count);
			memset(p->naive + first, 0, count);
			assert_same(p);
		}
	}
}

static size_t naive_next(const struct pair *p, size_t from, size_t end, bool value)
{
	while (from < end && p->naive[from] != value)
		from++;
	return from < end ? from : end;
}

static size_t naive_count(const struct pair *p, size_t first, size_t count)
{
	size_t n = 0;

	for (size_t i = first; i < first + count; i++)
		n += p->naive[i];
	return n;
}

static void random_operations(void **state)
{
	struct pair *p = *state;
	struct rng rng = { 1 };

	for (int i = 0; i < 5000; i++) {
		size_t first = rng_below(&rng, BITS);
		size_t count = rng_below(&rng, BITS - first + 1);
		bool value = rng_one_in(&rng, 2);

		if (value)
			gw_bitmap_set_range(&p->map, first, count);
		else
			gw_bitmap_clear_range(&p->map, first, count);
		memset(p->naive + first, value, count);
		first = rng_below(&rng, BITS);
		count = rng_below(&rng, BITS - first + 1);
		assert_int_equal(gw_bitmap_count(&p->map, first, count),
				 naive_count(p, first, count));
		for (int v = 0; v < 2; v++)
			assert_int_equal(gw_bitmap_next(&p->map, first, first + count, v),
					 naive_next(p, first, first + count, v));
	}
	assert_same(p);
}

static void runs_cover_the_set_bits(void **state)
{
	struct pair *p = *state;
	uint8_t seen[BITS] = { 0 };
	struct rng rng = { 2 };
	size_t start, stop, last = 0, runs = 0;

	for (size_t i = 0; i < BITS; i++)
		if (rng_one_in(&rng, 3))
			gw_bitmap_set(&p->map, i);
	gw_bitmap_set(&p->map, BITS - 1);
	gw_bitmap_for_each_run(&p->map, 0, BITS, start, stop) {
		assert_true(start < stop && stop <= BITS);
		assert_true(!runs++ || start > last); /* touching runs would be one */
		memset(seen + start, 1, stop - start);
		last = stop;
	}
	assert_int_equal(last, BITS);
	for (size_t i = 0; i < BITS; i++)
		assert_int_equal(seen[i], gw_bitmap_test(&p->map, i));
	/* A run that is cut by the end of the walk. */
	gw_bitmap_set_range(&p->map, 0, BITS);
	runs = 0;
	gw_bitmap_for_each_run(&p->map, 10, 200, start, stop) {
		assert_int_equal(start, 10);
		assert_int_equal(stop, 200);
		runs++;
	}
	assert_int_equal(runs, 1);
}

static void or_and_zero(void **state)
{
	struct pair *p = *state;
	struct gw_bitmap other;

	assert_int_equal(gw_bitmap_init(&other, BITS), 0);
	gw_bitmap_set_range(&p->map, 3, 100);
	gw_bitmap_set_range(&other, 90, 400);
	gw_bitmap_set(&other, BITS - 1);
	gw_bitmap_or(&p->map, &other);
	memset(p->naive + 3, 1, 487);
	p->naive[BITS - 1] = 1;
	assert_same(p);
	assert_int_equal(gw_bitmap_count(&other, 0, BITS), 401);
	gw_bitmap_zero(&p->map);
	memset(p->naive, 0, BITS);
	assert_same(p);
	gw_bitmap_free(&other);
}

/* A 4 TiB guest's bitmap, and none at all. */
static void extremes(void **state)
{
	const size_t huge = 1UL << 30;
	struct gw_bitmap map;

	(void)state;
	assert_int_equal(gw_bitmap_init(&map, huge), 0);
	gw_bitmap_set(&map, huge - 1);
	assert_int_equal(gw_bitmap_next(&map, huge / 2, huge, true), huge - 1);
	gw_bitmap_free(&map);
	assert_null(map.words);
	assert_int_equal(gw_bitmap_init(&map, 0), 0);
	assert_int_equal(gw_bitmap_next(&map, 0, 0, true), 0);
	gw_bitmap_zero(&map);
	gw_bitmap_free(&map);
	gw_bitmap_free(&map); /* twice does no harm */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(starts_clear, make, drop),
		cmocka_unit_test_setup_teardown(single_bits, make, drop),
		cmocka_unit_test_setup_teardown(ranges_at_word_edges, make, drop),
		cmocka_unit_test_setup_teardown(random_operations, make, drop),
		cmocka_unit_test_setup_teardown(runs_cover_the_set_bits, make, drop),
		cmocka_unit_test_setup_teardown(or_and_zero, make, drop),
		cmocka_unit_test(extremes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
