// SPDX-License-Identifier: GPL-2.0-or-later
/* marks.c - when pages were used, a byte each; see marks.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "marks.h"

#define NEWEST	    0x80
#define EIGHT(byte) (0x0101010101010101ULL * (byte))

int gw_marks_init(struct gw_marks *m, size_t pages)
{
	void *at;

	memset(m, 0, sizeof(*m));
	m->len = (pages + 63) / 64 * 64;
	at = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		  -1, 0);
	if (at == MAP_FAILED)
		return gw_fail(-ENOMEM, "no memory to note when pages are used");
	m->page = at;
	m->pages = pages;
	return 0;
}

void gw_marks_free(struct gw_marks *m)
{
	if (m->page)
		munmap(m->page, m->len);
	memset(m, 0, sizeof(*m));
}

/* Of 64 pages that belong together, whether any has a mark: most have none. */
static bool any(const uint8_t *page)
{
	const uint64_t *eight = (const uint64_t *)(const void *)page;

	return eight[0] | eight[1] | eight[2] | eight[3] | eight[4] | eight[5] | eight[6] |
	       eight[7];
}

/* Numbers are used up: the older half becomes one. */
static void renumber(struct gw_marks *m)
{
	for (size_t i = 0; i < m->len; i += 64)
		for (size_t k = i; any(&m->page[i]) && k < i + 64; k++)
			if (m->page[k])
				m->page[k] = m->page[k] > NEWEST ? m->page[k] - NEWEST + 1 : 1;
	m->now -= NEWEST - 1;
}

void gw_marks_stamp(struct gw_marks *m, const struct gw_bitmap *used)
{
	if (m->now == UINT8_MAX)
		renumber(m);
	m->now++;
	for (size_t i = 0; i < m->len / 64; i++)
		for (uint64_t word = used->words[i]; word; word &= word - 1)
			m->page[i * 64 + (size_t)__builtin_ctzll(word)] = m->now;
}

void gw_marks_shift(struct gw_marks *m, const struct gw_bitmap *used)
{
	for (size_t i = 0; i < m->len; i += 64) {
		uint64_t *eight = (uint64_t *)(void *)&m->page[i];

		/* To write what is zero would cost memory. */
		for (unsigned int k = 0; k < 8; k++)
			if (eight[k])
				eight[k] = eight[k] >> 1 & EIGHT(NEWEST - 1);
		for (uint64_t word = used->words[i / 64]; word; word &= word - 1)
			m->page[i + (size_t)__builtin_ctzll(word)] |= NEWEST;
	}
}

static uint64_t only_of(const struct gw_bitmap *only, size_t i)
{
	return only ? only->words[i] : UINT64_MAX;
}

size_t gw_marks_largest(const struct gw_marks *m, const struct gw_bitmap *only, size_t most,
			struct gw_bitmap *pages)
{
	size_t nr[256] = { 0 }, above = 0, of_it;
	unsigned int threshold = 256;

	for (size_t i = 0; i < m->len / 64; i++)
		for (uint64_t word = any(&m->page[i * 64]) ? only_of(only, i) : 0; word;
		     word &= word - 1)
			nr[m->page[i * 64 + (size_t)__builtin_ctzll(word)]]++;
	while (threshold > 1 && above + nr[threshold - 1] <= most)
		above += nr[--threshold];
	/* All of those with threshold and more; of the next mark as many as there is room for. */
	of_it = threshold > 1 ? most - above : 0;
	for (size_t i = 0; i < m->len / 64; i++)
		for (uint64_t word = any(&m->page[i * 64]) ? only_of(only, i) : 0; word;
		     word &= word - 1) {
			const size_t page = i * 64 + (size_t)__builtin_ctzll(word);
			const unsigned int mark = m->page[page];

			if (mark < threshold && (mark + 1 != threshold || !of_it))
				continue;
			of_it -= mark < threshold;
			gw_bitmap_set(pages, page);
			above += mark < threshold;
		}
	return above;
}
