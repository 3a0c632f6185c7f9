// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ageing.c - histories of accesses, against the paper's figures and a model. */
#include "unit.h"

#include "ageing.h"
#include "rng.h"

#define PAGES 1024UL

static struct gw_memory two_blocks(void)
{
	struct gw_memory m = { .nr_blocks = 2, .nr_pages = PAGES };

	m.blocks[0].nr_pages = 300;
	m.blocks[1].first_page = 512;
	m.blocks[1].nr_pages = 400;
	return m;
}

/* Fig. 4: bits gather in the top one until they are shifted. */
static void accumulates(void **state)
{
	const struct gw_memory m = two_blocks();
	struct gw_bitmap seen;
	struct gw_ageing a;

	(void)state;
	assert_int_equal(gw_ageing_init(&a, &m, 2), 0);
	assert_int_equal(gw_bitmap_init(&seen, PAGES), 0);
	gw_bitmap_set(&seen, 3);
	gw_ageing_add(&a, &seen);
	gw_bitmap_zero(&seen);
	gw_bitmap_set(&seen, 512);
	gw_ageing_add(&a, &seen); /* the first one's bit stays */
	assert_true(a.pages[3] == 0x80 && a.pages[512] == 0x80 && a.pages[2] == 0);
	gw_ageing_shift(&a);
	gw_ageing_touch(&a, 3, 1);
	assert_true(a.pages[3] == 0xc0 && a.pages[512] == 0x40);
	/* Fig. 5: a chunk's is the OR of its pages'. */
	assert_true(a.unit[1] == 0xc0 && a.unit[150] == 0x40 && a.unit[0] == 0);
	for (int i = 0; i < 8; i++)
		gw_ageing_shift(&a);
	assert_true(a.pages[3] == 0 && a.unit[1] == 0);
	gw_bitmap_free(&seen);
	gw_ageing_free(&a);
}

/* Units from the largest values on; of the threshold's as many as there is room for. */
static void splits(void **state)
{
	static const uint8_t values[] = { 0x80, 0, 0x40, 0x80, 0x40, 0x40, 0x01 };
	const struct gw_memory m = two_blocks();
	struct gw_ageing a;

	(void)state;
	assert_int_equal(gw_ageing_init(&a, &m, 256), 0);
	assert_int_equal(a.units.nr, 4);
	gw_ageing_free(&a);
	assert_int_equal(gw_ageing_init(&a, &m, 64), 0);
	assert_int_equal(a.units.nr, 12);
	memcpy(a.unit, values, sizeof(values));
	for (size_t most = 0; most <= a.units.nr; most++) {
		static const size_t order[] = { 0, 3, 2, 4, 5, 6, 1 };
		struct gw_bitmap stay;

		assert_int_equal(gw_bitmap_init(&stay, a.units.nr), 0);
		gw_ageing_split(&a, most, &stay);
		assert_int_equal(gw_bitmap_count(&stay, 0, a.units.nr), most);
		for (size_t i = 0; i < most && i < sizeof(values); i++)
			assert_true(gw_bitmap_test(&stay, order[i]));
		gw_bitmap_free(&stay);
	}
	gw_ageing_free(&a);
}

static void coldest_first(void **state)
{
	const struct gw_memory m = two_blocks();
	struct gw_bitmap all;
	struct gw_ageing a;
	size_t units[16];

	(void)state;
	assert_int_equal(gw_ageing_init(&a, &m, 64), 0);
	assert_int_equal(gw_bitmap_init(&all, a.units.nr), 0);
	gw_bitmap_set_range(&all, 0, a.units.nr);
	memset(a.unit, 0x20, a.units.nr);
	a.unit[7] = 1;
	gw_bitmap_clear(&all, 2);
	assert_int_equal(gw_ageing_coldest(&a, &all, 3, units), 3);
	assert_true(units[0] == 7 && units[1] == 0 && units[2] == 1);
	gw_bitmap_clear(&all, 7);
	/* It goes on where it stopped. */
	assert_int_equal(gw_ageing_coldest(&a, &all, 2, units), 2);
	assert_true(units[0] == 3 && units[1] == 4);
	assert_int_equal(gw_ageing_coldest(&a, &all, 16, units), a.units.nr - 2);
	assert_true(units[0] == 5 && units[1] == 6 && units[2] == 8);
	gw_bitmap_zero(&all);
	assert_int_equal(gw_ageing_coldest(&a, &all, 16, units), 0);
	gw_bitmap_free(&all);
	gw_ageing_free(&a);
}

/* Anything at random: the tables are what one page after the other would make of them. */
static void as_a_model(void **state)
{
	const struct gw_memory m = two_blocks();

	(void)state;
	for (unsigned int unit_pages = 1; unit_pages <= 512; unit_pages *= 2) {
		uint8_t pages[PAGES] = { 0 }, unit[PAGES] = { 0 };
		struct rng rng = { unit_pages };
		struct gw_bitmap seen;
		struct gw_ageing a;

		assert_int_equal(gw_ageing_init(&a, &m, unit_pages), 0);
		assert_int_equal(gw_bitmap_init(&seen, PAGES), 0);
		for (unsigned int step = 0; step < 60; step++) {
			gw_bitmap_zero(&seen);
			for (size_t n = rng_below(&rng, 200); n; n--) {
				const size_t page = rng_one_in(&rng, 2)
							    ? rng_below(&rng, 300)
							    : 512 + rng_below(&rng, 400);

				gw_bitmap_set(&seen, page);
				pages[page] |= 0x80;
				unit[gw_unit_of(&a.units, page)] |= 0x80;
			}
			gw_ageing_add(&a, &seen);
			if (rng_one_in(&rng, 3)) {
				gw_ageing_shift(&a);
				for (size_t i = 0; i < PAGES; i++) {
					pages[i] >>= 1;
					unit[i] >>= 1;
				}
			}
			assert_memory_equal(a.pages, pages, PAGES);
			assert_memory_equal(a.unit, unit, a.units.nr);
		}
		gw_bitmap_free(&seen);
		gw_ageing_free(&a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accumulates),
		cmocka_unit_test(splits),
		cmocka_unit_test(coldest_first),
		cmocka_unit_test(as_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
