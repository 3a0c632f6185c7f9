// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ageing.c - histories of accesses, against the paper's figures and a model. */
#include "unit.h"

#include <pthread.h>

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
		gw_ageing_split(&a, NULL, most, &stay);
		assert_int_equal(gw_bitmap_count(&stay, 0, a.units.nr), most);
		for (size_t i = 0; i < most && i < sizeof(values); i++)
			assert_true(gw_bitmap_test(&stay, order[i]));
		gw_bitmap_free(&stay);
	}
	gw_ageing_free(&a);
}

/* What has no memory stays where it takes nobody's place. */
static void splits_what_is_filled(void **state)
{
	static const uint8_t values[] = { 0x80, 0, 0x40, 0, 0, 0, 0x01 };
	const struct gw_memory m = two_blocks();
	struct gw_ageing a;

	(void)state;
	assert_int_equal(gw_ageing_init(&a, &m, 64), 0);
	memcpy(a.unit, values, sizeof(values));
	for (size_t most = 0; most <= a.units.nr; most++) {
		/* Those that are filled, by their value; then the others. */
		static const size_t order[] = { 0, 2, 6, 9, 10, 1, 3, 4, 5, 7, 8, 11 };
		struct gw_bitmap stay, filled;

		assert_int_equal(gw_bitmap_init(&stay, a.units.nr), 0);
		assert_int_equal(gw_bitmap_init(&filled, a.units.nr), 0);
		for (size_t i = 0; i < 5; i++)
			gw_bitmap_set(&filled, order[i]);
		gw_ageing_split(&a, &filled, most, &stay);
		assert_int_equal(gw_bitmap_count(&stay, 0, a.units.nr), most);
		for (size_t i = 0; i < most; i++)
			assert_true(gw_bitmap_test(&stay, order[i]));
		gw_bitmap_free(&stay);
		gw_bitmap_free(&filled);
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

/* Whom a look at one unit after the other finds, from @from on and around. */
static size_t coldest_of(const struct gw_ageing *a, const struct gw_bitmap *eligible, size_t from,
			 size_t most, size_t *units)
{
	size_t n = 0;

	for (unsigned int value = 0; value < 256; value++) {
		for (size_t i = 0; i < a->units.nr; i++) {
			const size_t unit = (from + i) % a->units.nr;

			if (n < most && a->unit[unit] == value && gw_bitmap_test(eligible, unit))
				units[n++] = unit;
		}
	}
	return n;
}

static void coldest_as_a_model(void **state)
{
	const struct gw_memory m = two_blocks();
	struct rng rng = { 3 };

	(void)state;
	for (unsigned int unit_pages = 1; unit_pages <= 512; unit_pages *= 2) {
		struct gw_bitmap eligible;
		struct gw_ageing a;

		assert_int_equal(gw_ageing_init(&a, &m, unit_pages), 0);
		assert_int_equal(gw_bitmap_init(&eligible, a.units.nr), 0);
		for (unsigned int step = 0; step < 300; step++) {
			const uint64_t values = 1 + rng_below(&rng, 256);
			const uint64_t all = rng_below(&rng, 4); /* now and then: whole words */
			const size_t most = rng_below(&rng, a.units.nr + 2);
			const size_t from = a.from < a.units.nr ? a.from : 0;
			size_t found[PAGES], expected[PAGES], n;

			gw_bitmap_zero(&eligible);
			for (size_t unit = 0; unit < a.units.nr; unit++) {
				a.unit[unit] = (uint8_t)rng_below(&rng, values);
				if (all == 3 || rng_below(&rng, 3) < all)
					gw_bitmap_set(&eligible, unit);
			}
			n = coldest_of(&a, &eligible, from, most, expected);
			assert_int_equal(
				gw_ageing_coldest(&a, &eligible, (unsigned int)most, found), n);
			assert_memory_equal(found, expected, n * sizeof(found[0]));
			if (n)
				assert_int_equal(a.from, found[n - 1] + 1);
		}
		gw_bitmap_free(&eligible);
		gw_ageing_free(&a);
	}
}

/* What came with one fault may be of several units, and of a part of the first. */
static void touched_units(void **state)
{
	const struct gw_memory m = two_blocks();
	struct gw_ageing a;

	(void)state;
	assert_int_equal(gw_ageing_init(&a, &m, 4), 0);
	gw_ageing_touch(&a, 6, 3);
	assert_true(!a.pages[5] && a.pages[6] && a.pages[8] && !a.pages[9]);
	assert_true(!a.unit[0] && a.unit[1] && a.unit[2] && !a.unit[3]);
	gw_ageing_touch(&a, 511 + 400, 1); /* the last */
	gw_ageing_touch(&a, 299, 1);
	gw_ageing_touch(&a, 100, 0);
	assert_true(a.unit[a.units.nr - 1] && a.unit[74] && !a.unit[25] && !a.unit[75]);
	gw_ageing_free(&a);
}

/* KiB of memory that the mapping with @at has, of zeros that are only read none. */
static long resident_at(const void *at)
{
	gw_autofile FILE *f = fopen("/proc/self/smaps", "re");
	char line[256];
	bool within = false;

	while (f && fgets(line, sizeof(line), f)) {
		char *end;
		const uintptr_t from = strtoul(line, &end, 16);

		if (*end == '-')
			within = (uintptr_t)at >= from &&
				 (uintptr_t)at < strtoul(end + 1, NULL, 16);
		else if (within && !strncmp(line, "Rss:", 4))
			return strtol(line + 4, NULL, 10);
	}
	fail_msg("no mapping");
	return -1;
}

/* What is never accessed costs no memory, whatever is asked of it. */
static void costs_what_was_accessed(void **state)
{
	struct gw_memory m = { .nr_blocks = 1, .nr_pages = 1UL << 26 }; /* 256 GiB */
	struct gw_bitmap all;
	struct gw_ageing a;
	size_t units[4];

	(void)state;
	m.blocks[0].nr_pages = m.nr_pages;
	assert_int_equal(gw_ageing_init(&a, &m, 256), 0);
	assert_int_equal(gw_bitmap_init(&all, a.units.nr), 0);
	gw_bitmap_set_range(&all, 0, a.units.nr);
	gw_ageing_touch(&a, 1UL << 25, 1000);
	for (int i = 0; i < 3; i++)
		gw_ageing_shift(&a);
	assert_int_equal(gw_ageing_coldest(&a, &all, 4, units), 4);
	/* Huge pages and what lies beside it, at worst; the table is of 64 MiB. */
	assert_in_range(resident_at(a.pages + (1UL << 25)), 1, 16 * 1024);
	gw_bitmap_free(&all);
	gw_ageing_free(&a);
}

struct crowd {
	struct gw_ageing a;
	struct gw_bitmap eligible, seen;
	_Atomic bool stop;
	_Atomic unsigned int chosen, wrong;
};

static void *toucher(void *arg)
{
	struct crowd *c = arg;
	struct rng rng = { 21 };

	while (!c->stop)
		gw_ageing_touch(&c->a, 512 + rng_below(&rng, 399), 1 + rng_below(&rng, 2));
	return NULL;
}

static void *chooser(void *arg)
{
	struct crowd *c = arg;

	while (!c->stop) {
		uint8_t chosen[PAGES] = { 0 };
		size_t units[80];
		unsigned int n = gw_ageing_coldest(&c->a, &c->eligible, 80, units);

		c->chosen += n;
		if (!n || n > 80)
			c->wrong++;
		for (unsigned int i = 0; i < n; i++)
			c->wrong += chosen[units[i]]++; /* nobody twice */
	}
	return NULL;
}

/* Pages are touched, and units chosen, while others are added and all are shifted. */
static void touched_meanwhile(void **state)
{
	const struct gw_memory m = two_blocks();
	struct rng rng = { 22 };
	pthread_t threads[2];
	struct crowd c = { 0 };

	(void)state;
	assert_int_equal(gw_ageing_init(&c.a, &m, 4), 0);
	assert_int_equal(gw_bitmap_init(&c.eligible, c.a.units.nr), 0);
	assert_int_equal(gw_bitmap_init(&c.seen, PAGES), 0);
	gw_bitmap_set_range(&c.eligible, 0, c.a.units.nr);
	assert_int_equal(pthread_create(&threads[0], NULL, toucher, &c), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, chooser, &c), 0);
	for (int i = 0; i < 5000 || !c.chosen; i++) { /* its thread may begin late */
		gw_bitmap_set(&c.seen, rng_below(&rng, 300));
		gw_ageing_add(&c.a, &c.seen);
		gw_ageing_shift(&c.a);
		/* A unit that was touched does not look cold before its time. */
		gw_ageing_touch(&c.a, 0, 1);
		assert_true(__atomic_load_n(&c.a.unit[0], __ATOMIC_RELAXED) & GW_AGEING_NOW);
	}
	c.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(c.wrong, 0);
	gw_bitmap_free(&c.eligible);
	gw_bitmap_free(&c.seen);
	gw_ageing_free(&c.a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accumulates),
		cmocka_unit_test(splits),
		cmocka_unit_test(splits_what_is_filled),
		cmocka_unit_test(coldest_first),
		cmocka_unit_test(as_a_model),
		cmocka_unit_test(coldest_as_a_model),
		cmocka_unit_test(touched_units),
		cmocka_unit_test(costs_what_was_accessed),
		cmocka_unit_test(touched_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
