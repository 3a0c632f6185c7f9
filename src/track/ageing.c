// SPDX-License-Identifier: GPL-2.0-or-later
/* ageing.c - a history of accesses in a byte a page; see ageing.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ageing.h"
#include "error.h"

#define EIGHT(byte) (0x0101010101010101ULL * (byte))

static uint8_t *table(size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

int gw_ageing_init(struct gw_ageing *a, const struct gw_memory *memory, unsigned int unit_pages)
{
	memset(a, 0, sizeof(*a));
	gw_units_init(&a->units, memory, unit_pages);
	a->pages_len = (memory->nr_pages + 63) / 64 * 64;
	a->pages = table(a->pages_len);
	a->units_len = (a->units.nr + 63) / 64 * 64;
	a->unit = table(a->units_len);
	return a->pages && a->unit ? 0
				   : gw_fail(-ENOMEM, "no memory to note which pages are accessed");
}

void gw_ageing_free(struct gw_ageing *a)
{
	if (a->pages)
		munmap(a->pages, a->pages_len);
	if (a->unit)
		munmap(a->unit, a->units_len);
	memset(a, 0, sizeof(*a));
}

/* GW_AGEING_NOW in byte i of the result where bit i of @bits is set. */
static uint64_t spread(uint8_t bits)
{
	const uint64_t one_each = EIGHT(bits) & 0x8040201008040201ULL;

	return (one_each + EIGHT(0x7f)) & EIGHT(GW_AGEING_NOW);
}

/* Whoever else looks or touches meanwhile sees whole bytes. */
static uint64_t eight_at(const uint8_t *bytes)
{
	return __atomic_load_n((const uint64_t *)(const void *)bytes, __ATOMIC_RELAXED);
}

static void set_eight(uint8_t *bytes, uint64_t eight)
{
	__atomic_store_n((uint64_t *)(void *)bytes, eight, __ATOMIC_RELAXED);
}

static void set_now(uint8_t *byte)
{
	if (!(__atomic_load_n(byte, __ATOMIC_RELAXED) & GW_AGEING_NOW))
		__atomic_fetch_or(byte, GW_AGEING_NOW, __ATOMIC_RELAXED);
}

/* May lose what gw_ageing_touch() sets just now, which the next look tells again. */
static void add_word(uint8_t *pages, uint64_t word)
{
	for (unsigned int i = 0; i < 64; i += 8, word >>= 8)
		if (word & 0xff)
			set_eight(pages + i, eight_at(pages + i) | spread((uint8_t)word));
}

/* The units of the pages in @word, the first of which is @page. */
static void add_units(struct gw_ageing *a, size_t page, uint64_t word)
{
	while (word) {
		const size_t at = page + (size_t)__builtin_ctzll(word);
		size_t first, unit = gw_unit_of(&a->units, at);
		const size_t end = gw_unit_pages(&a->units, unit, &first) + first - page;

		set_now(&a->unit[unit]);
		word &= end < 64 ? ~0ULL << end : 0;
	}
}

void gw_ageing_add(struct gw_ageing *a, const struct gw_bitmap *accessed)
{
	for (size_t i = 0; i < (accessed->bits + 63) / 64; i++) {
		if (!accessed->words[i])
			continue;
		add_word(a->pages + i * 64, accessed->words[i]);
		add_units(a, i * 64, accessed->words[i]);
	}
}

void gw_ageing_touch(struct gw_ageing *a, size_t first, size_t count)
{
	const size_t stop = first + count;

	for (size_t page = first; page < stop; page++)
		set_now(&a->pages[page]);
	for (size_t page = first; page < stop;) {
		const size_t unit = gw_unit_of(&a->units, page);

		set_now(&a->unit[unit]);
		page = gw_unit_pages(&a->units, unit, &first) + first;
	}
}

/* To write what is zero would cost memory. */
static void shift_pages(struct gw_ageing *a)
{
	for (size_t i = 0; i < a->pages_len; i += 8) {
		const uint64_t eight = eight_at(a->pages + i);

		if (eight)
			set_eight(a->pages + i, eight >> 1 & EIGHT(0x7f));
	}
}

/* And nothing is lost: a unit that was just touched must not look cold. */
static void shift_units(struct gw_ageing *a)
{
	for (size_t i = 0; i < a->units_len; i += 8) {
		uint64_t *at = (uint64_t *)(void *)(a->unit + i), was = eight_at(a->unit + i);

		while (was && !__atomic_compare_exchange_n(at, &was, was >> 1 & EIGHT(0x7f), true,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			;
	}
}

void gw_ageing_shift(struct gw_ageing *a)
{
	shift_pages(a);
	shift_units(a);
}

static bool is_in(const struct gw_bitmap *units, size_t unit)
{
	return !units || gw_bitmap_test(units, unit);
}

void gw_ageing_split(const struct gw_ageing *a, const struct gw_bitmap *filled, size_t most,
		     struct gw_bitmap *stay)
{
	size_t nr[256] = { 0 }, above = 0, of_it;
	unsigned int threshold = 256;

	for (size_t unit = 0; unit < a->units.nr; unit++)
		nr[a->unit[unit]] += is_in(filled, unit);
	while (threshold && above + nr[threshold - 1] <= most)
		above += nr[--threshold];
	/* Those with threshold and more all fit; of the next value as many as there is room for. */
	of_it = most - above;
	for (size_t unit = 0; unit < a->units.nr; unit++) {
		if (!is_in(filled, unit) ||
		    (a->unit[unit] < threshold && (a->unit[unit] + 1U != threshold || !of_it)))
			continue;
		of_it -= a->unit[unit] < threshold;
		gw_bitmap_set(stay, unit);
	}
	for (size_t unit = 0; filled && of_it && unit < a->units.nr; unit++) {
		if (gw_bitmap_test(filled, unit))
			continue;
		of_it--;
		gw_bitmap_set(stay, unit);
	}
}

/* The values of 64 units from the @i-th 64 on. */
static void values_of(const struct gw_ageing *a, size_t i, uint64_t values[8])
{
	for (unsigned int k = 0; k < 8; k++)
		values[k] = eight_at(a->unit + i * 64 + k * sizeof(values[k]));
}

/* Others may be setting bits. */
static uint64_t word_of(const struct gw_bitmap *map, size_t i)
{
	return __atomic_load_n(&map->words[i], __ATOMIC_RELAXED);
}

/* How many of the eligible units have each value. */
static void count_values(const struct gw_ageing *a, const struct gw_bitmap *eligible,
			 size_t nr[256])
{
	size_t four[4][256] = { 0 }; /* one after the other would wait for each other's sums */

	for (size_t i = 0; i < (a->units.nr + 63) / 64; i++) {
		uint64_t word = word_of(eligible, i), values[8] = { 0 };
		const uint8_t *value = (const uint8_t *)values;

		if (!word)
			continue;
		values_of(a, i, values);
		if (word == ~0ULL)
			for (unsigned int k = 0; k < 64; k++)
				four[k % 4][value[k]]++;
		else
			for (; word; word &= word - 1)
				four[0][value[__builtin_ctzll(word)]]++;
	}
	for (unsigned int value = 0; value < 256; value++)
		nr[value] = four[0][value] + four[1][value] + four[2][value] + four[3][value];
}

static bool has_any(const uint8_t values[64], uint8_t most)
{
	uint8_t least = 255;

	for (unsigned int k = 0; k < 64; k++)
		least = values[k] < least ? values[k] : least;
	return least <= most;
}

/* Who is looked for: of each value up to @last so many, to where the next of it belongs. */
struct search {
	const struct gw_ageing *a;
	const struct gw_bitmap *eligible;
	unsigned int last;
	size_t left[256], all;
	size_t *to[256];
};

/* In [from, end). */
static void collect(struct search *s, size_t from, size_t end)
{
	for (size_t i = from / 64; s->all && i * 64 < end; i++) {
		uint64_t word = word_of(s->eligible, i), values[8] = { 0 };
		const uint8_t *of = (const uint8_t *)values;

		if (i == from / 64)
			word &= ~0ULL << from % 64;
		if (end - i * 64 < 64)
			word &= ~(~0ULL << end % 64);
		if (!word)
			continue;
		values_of(s->a, i, values);
		if (!has_any(of, (uint8_t)s->last))
			continue;
		for (; word; word &= word - 1) {
			const unsigned int k = (unsigned int)__builtin_ctzll(word);
			const unsigned int value = of[k];

			if (value > s->last || !s->left[value])
				continue;
			*s->to[value]++ = i * 64 + k;
			s->left[value]--;
			s->all--;
		}
	}
}

/* Return: how many; in @wanted how many there were before values changed meanwhile. */
static size_t choose(struct gw_ageing *a, const struct gw_bitmap *eligible, size_t most,
		     size_t *units, size_t *wanted)
{
	const size_t from = a->from < a->units.nr ? a->from : 0;
	struct search s = { .a = a, .eligible = eligible };
	const size_t *begin[256];
	size_t nr[256], n = 0;

	count_values(a, eligible, nr);
	for (unsigned int value = 0; value < 256; value++) {
		s.left[value] = nr[value] < most - n ? nr[value] : most - n;
		begin[value] = s.to[value] = units + n;
		n += s.left[value];
		if (s.left[value])
			s.last = value;
	}
	*wanted = s.all = n;
	if (!n)
		return 0;
	collect(&s, from, a->units.nr);
	collect(&s, 0, from);
	n = 0;
	for (unsigned int value = 0; value <= s.last; value++)
		for (const size_t *unit = begin[value]; unit < s.to[value]; unit++)
			units[n++] = *unit;
	return n;
}

unsigned int gw_ageing_coldest(struct gw_ageing *a, const struct gw_bitmap *eligible,
			       unsigned int most, size_t *units)
{
	size_t n, wanted;

	/* None of some: all were shifted in between. */
	do
		n = choose(a, eligible, most, units, &wanted);
	while (!n && wanted);
	if (n)
		a->from = units[n - 1] + 1;
	return (unsigned int)n;
}
