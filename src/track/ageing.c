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

static void add_word(uint8_t *pages, uint64_t word)
{
	uint64_t eight;

	for (unsigned int i = 0; i < 64; i += 8, word >>= 8) {
		if (!(word & 0xff))
			continue;
		memcpy(&eight, pages + i, sizeof(eight));
		eight |= spread((uint8_t)word);
		memcpy(pages + i, &eight, sizeof(eight));
	}
}

/* The units of the pages in @word, the first of which is @page. */
static void add_units(struct gw_ageing *a, size_t page, uint64_t word)
{
	while (word) {
		const size_t at = page + (size_t)__builtin_ctzll(word);
		size_t first, unit = gw_unit_of(&a->units, at);
		const size_t end = gw_unit_pages(&a->units, unit, &first) + first - page;

		a->unit[unit] |= GW_AGEING_NOW;
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
		a->pages[page] |= GW_AGEING_NOW;
	for (size_t page = first; page < stop;) {
		const size_t unit = gw_unit_of(&a->units, page);

		a->unit[unit] |= GW_AGEING_NOW;
		page = gw_unit_pages(&a->units, unit, &first) + first;
	}
}

static void shift(uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
		uint64_t eight;

		memcpy(&eight, bytes + i, sizeof(eight));
		if (!eight) /* to write what is zero would cost memory */
			continue;
		eight = eight >> 1 & EIGHT(0x7f);
		memcpy(bytes + i, &eight, sizeof(eight));
	}
}

void gw_ageing_shift(struct gw_ageing *a)
{
	shift(a->pages, a->pages_len);
	shift(a->unit, a->units_len);
}

void gw_ageing_split(const struct gw_ageing *a, size_t most, struct gw_bitmap *stay)
{
	size_t nr[256] = { 0 }, above = 0, of_it;
	unsigned int threshold = 256;

	for (size_t unit = 0; unit < a->units.nr; unit++)
		nr[a->unit[unit]]++;
	while (threshold && above + nr[threshold - 1] <= most)
		above += nr[--threshold];
	/* Those with threshold and more all fit; of the next value as many as there is room for. */
	of_it = most - above;
	for (size_t unit = 0; unit < a->units.nr; unit++) {
		if (a->unit[unit] < threshold && (a->unit[unit] + 1U != threshold || !of_it))
			continue;
		of_it -= a->unit[unit] < threshold;
		gw_bitmap_set(stay, unit);
	}
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
		const uint8_t *unit = a->unit + i * 64;
		uint64_t word = word_of(eligible, i);

		if (word == ~0ULL)
			for (unsigned int k = 0; k < 64; k++)
				four[k % 4][unit[k]]++;
		else
			for (; word; word &= word - 1)
				four[0][unit[__builtin_ctzll(word)]]++;
	}
	for (unsigned int value = 0; value < 256; value++)
		nr[value] = four[0][value] + four[1][value] + four[2][value] + four[3][value];
}

static bool has_any(const uint8_t unit[64], uint8_t most)
{
	uint8_t least = 255;

	for (unsigned int k = 0; k < 64; k++)
		least = unit[k] < least ? unit[k] : least;
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
		uint64_t word = word_of(s->eligible, i);

		if (i == from / 64)
			word &= ~0ULL << from % 64;
		if (end - i * 64 < 64)
			word &= ~(~0ULL << end % 64);
		if (!word || !has_any(s->a->unit + i * 64, (uint8_t)s->last))
			continue;
		for (; word; word &= word - 1) {
			const size_t unit = i * 64 + (size_t)__builtin_ctzll(word);
			const unsigned int value = s->a->unit[unit];

			if (value > s->last || !s->left[value])
				continue;
			*s->to[value]++ = unit;
			s->left[value]--;
			s->all--;
		}
	}
}

unsigned int gw_ageing_coldest(struct gw_ageing *a, const struct gw_bitmap *eligible,
			       unsigned int most, size_t *units)
{
	const size_t from = a->from < a->units.nr ? a->from : 0;
	struct search s = { .a = a, .eligible = eligible };
	size_t nr[256], n = 0;

	count_values(a, eligible, nr);
	for (unsigned int value = 0; value < 256 && n < most; value++) {
		s.left[value] = nr[value] < most - n ? nr[value] : most - n;
		s.to[value] = units + n;
		n += s.left[value];
		s.last = value;
	}
	s.all = n;
	collect(&s, from, a->units.nr);
	collect(&s, 0, from);
	if (n)
		a->from = units[n - 1] + 1;
	return (unsigned int)n;
}
