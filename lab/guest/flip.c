/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flip: one byte of every page changes, round and round, at a known rate.
 *
 * The n-th flip of a page inverts its byte n modulo the page's size, so what a
 * page must hold follows from the number of flips alone; before each flip it
 * is verified.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

struct flip {
	uint64_t *memory;
	size_t pages, next;
	struct pass pass; /* its number is that of the next page's flips */
};

/* The bytes of word @i that are inverted after @flips of its page. */
static uint64_t inverted(uint64_t flips, size_t i)
{
	uint64_t all = flips / PAGE_SIZE % 2 ? UINT64_MAX : 0;
	size_t once_more = flips % PAGE_SIZE, start = i * sizeof(all);

	if (once_more >= start + sizeof(all))
		return ~all;
	if (once_more > start)
		return all ^ ((UINT64_C(1) << 8 * (once_more - start)) - 1);
	return all;
}

static void verify_next(struct flip *f)
{
	uint64_t *words = f->memory + f->next * PAGE_WORDS, want = 0;
	size_t i;

	for (i = 0; i < PAGE_WORDS; i++) {
		want = pattern_word(mix64(f->next), i) ^ inverted(f->pass.number, i);
		if (words[i] != want)
			break;
	}
	if (i < PAGE_WORDS)
		report_word(&f->pass, f->next, i, words[i], want);
	for (; i < PAGE_WORDS; i++)
		words[i] = pattern_word(mix64(f->next), i) ^ inverted(f->pass.number, i);
}

static void flip_next(void *arg)
{
	struct flip *f = arg;
	uint8_t *bytes = (uint8_t *)(f->memory + f->next * PAGE_WORDS);

	verify_next(f);
	bytes[f->pass.number % PAGE_SIZE] ^= 0xff;
	if (++f->next < f->pages)
		return;
	f->next = 0;
	end_pass(&f->pass);
}

int flip_main(int argc, char **argv)
{
	struct flip f = {
		.pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES,
		.pass = { .name = "flip" },
	};
	uint64_t rate = argument(argc, argv, 2, "RATE_MIB_S", 0, 1 << 20, -1);

	f.memory = map_pages(f.pages);
	for (size_t page = 0; page < f.pages; page++)
		write_pattern(f.memory + page * PAGE_WORDS, mix64(page));
	puts("flip: filled");
	access_at(rate, flip_next, NULL, &f);
}
