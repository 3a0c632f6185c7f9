// SPDX-License-Identifier: GPL-2.0-or-later
/* test_runs.c - sets of pages in messages, there and back, and those that cannot be. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "rng.h"
#include "runs.h"

#define PAGES 100000UL

static void there_and_back(void **state)
{
	uint8_t *out = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	struct gw_bitmap map, back;
	struct rng rng = { 1 };
	size_t at = 0, pages, len, messages = 0, total = 0;

	(void)state;
	assert_int_equal(gw_bitmap_init(&map, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&back, PAGES), 0);
	for (int i = 0; i < 6000; i++) {
		size_t first = rng_below(&rng, PAGES - 8);

		gw_bitmap_set_range(&map, first, 1 + rng_below(&rng, 8));
	}
	while ((len = gw_runs_put(&map, &at, 3000, &pages, out))) {
		struct gw_reader r = { out, len };
		size_t first = 0, count = 0, here = 0;

		assert_true(pages >= 1 && pages <= 3000 && len <= GW_RUNS_MAX * GW_RUN_LEN);
		while (gw_runs_take(&r, PAGES, &first, &count) > 0) {
			assert_int_equal(gw_bitmap_count(&back, first, count), 0);
			gw_bitmap_set_range(&back, first, count);
			here += count;
		}
		assert_int_equal(r.left, 0);
		assert_int_equal(here, pages);
		total += here;
		messages++;
	}
	assert_int_equal(pages, 0);
	assert_true(messages > 5);
	assert_int_equal(total, gw_bitmap_count(&map, 0, PAGES));
	assert_memory_equal(map.words, back.words, PAGES / 8);
	gw_bitmap_free(&map);
	gw_bitmap_free(&back);
	free(out);
}

static int take_two(const uint64_t first[2], const uint32_t count[2], size_t len)
{
	uint8_t bytes[2 * GW_RUN_LEN + 1] = { 0 };
	struct gw_reader r = { bytes, len };
	size_t f = 0, c = 0;
	int rc;

	for (int i = 0; i < 2; i++) {
		gw_put64(bytes + (size_t)i * GW_RUN_LEN, first[i]);
		gw_put32(bytes + (size_t)i * GW_RUN_LEN + 8, count[i]);
	}
	while ((rc = gw_runs_take(&r, PAGES, &f, &c)) > 0)
		assert_true(f < PAGES && c >= 1 && c <= PAGES - f);
	return rc;
}

static void runs_that_cannot_be(void **state)
{
	const size_t both = 2 * GW_RUN_LEN;

	(void)state;
	assert_int_equal(take_two((uint64_t[]){ 5, 7 }, (uint32_t[]){ 2, 1 }, both), 0);
	assert_int_equal(take_two((uint64_t[]){ 5, 7 }, (uint32_t[]){ 2, 1 }, both - 1), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, 7 }, (uint32_t[]){ 2, 1 }, both + 1), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, 6 }, (uint32_t[]){ 2, 1 }, both), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, 4 }, (uint32_t[]){ 1, 1 }, both), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, 7 }, (uint32_t[]){ 0, 1 }, both), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, PAGES }, (uint32_t[]){ 1, 1 }, both), -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, PAGES - 1 }, (uint32_t[]){ 1, 2 }, both),
			 -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 5, UINT64_MAX }, (uint32_t[]){ 1, 1 }, both),
			 -EPROTO);
	assert_int_equal(take_two((uint64_t[]){ 0, PAGES - 1 }, (uint32_t[]){ 1, 1 }, both), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(runs_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
