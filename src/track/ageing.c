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
	a->unit = table(a->units.nr + sizeof(uint64_t));
	return a->pages && a->unit ? 0
				   : gw_fail(-ENOMEM, "no memory to note which pages are accessed");
}

void gw_ageing_free(struct gw_ageing *a)
{
	if (a->pages)
		munmap(a->pages, a->pages_len);
	if (a->unit)
		munmap(a->unit, a->units.nr + sizeof(uint64_t));
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
	for (size_t page = first; page < first + count; page++)
		a->pages[page] |= GW_AGEING_NOW;
	if (count)
		a->unit[gw_unit_of(&a->units, first)] |= GW_AGEING_NOW;
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
	shift(a->unit, a->units.nr);
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

/* Of those eligible with a value in [@from, @upto], from the @start-th unit on and around. */
static unsigned int collect(const struct gw_ageing *a, const struct gw_bitmap *eligible,
			    unsigned int value, size_t start, size_t stop, unsigned int most,
			    size_t *units)
{
	unsigned int n = 0;

	for (size_t unit = start; n < most && unit < stop; unit++) {
		unit = gw_bitmap_next(eligible, unit, stop, true);
		if (unit < stop && a->unit[unit] == value)
			units[n++] = unit;
	}
	return n;
}

unsigned int gw_ageing_coldest(struct gw_ageing *a, const struct gw_bitmap *eligible,
			       unsigned int most, size_t *units)
{
	const size_t end = a->units.nr, from = a->from < end ? a->from : 0;
	size_t nr[256] = { 0 };
	unsigned int n = 0;

	for (size_t unit = 0; unit < end; unit++) {
		unit = gw_bitmap_next(eligible, unit, end, true);
		if (unit < end)
			nr[a->unit[unit]]++;
	}
	for (unsigned int value = 0; value < 256 && n < most; value++) {
		const unsigned int before = n;

		if (!nr[value])
			continue;
		n += collect(a, eligible, value, from, end, most - n, units + n);
		n += collect(a, eligible, value, 0, from, most - n, units + n);
		if (n > before)
			a->from = units[n - 1] + 1;
	}
	return n;
}
