/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memtest: notices any page of memory that is lost, old, torn or misplaced.
 *
 * Every word of a page is a function of (page, word, generation of the page,
 * seed). For ever: every page is verified, then a pseudo-random third is
 * rewritten with the next generation. The table of generations is memory that
 * can be lost too, so there are two copies of it, far apart, and the sum of
 * all generations is kept: that notices a page that falls back together with
 * both its entries.
 *
 * A bad page is reported by its first bad word, then rewritten, so that one
 * loss is one report.
 */
#include <stdbool.h>
#include <stdio.h>

#include "../served.h"
#include "guest.h"

#define STEP	    0x9e3779b97f4a7c15
/* Reports per pass; a guest that lost everything must not drown the console. */
#define REPORTS_MAX 16

struct memtest {
	uint64_t *memory;
	size_t pages;
	uint64_t seed;
	uint32_t *generation[2];
	uint64_t sum; /* of all generations */
	uint64_t random;
	unsigned int bad; /* in this pass */
};

static uint64_t first_word(const struct memtest *t, size_t page, uint32_t generation)
{
	return mix64(t->seed ^ mix64((uint64_t)page << 32 | generation));
}

static void write_page(struct memtest *t, size_t page, uint32_t generation)
{
	uint64_t *words = t->memory + page * PAGE_WORDS;
	uint64_t value = first_word(t, page, generation);

	for (size_t i = 0; i < PAGE_WORDS; i++, value += STEP)
		words[i] = value;
	t->generation[0][page] = generation;
	t->generation[1][page] = generation;
}

/* Returns the first word of @page that is not as written, or PAGE_WORDS. */
static size_t first_bad_word(const struct memtest *t, size_t page, uint32_t generation)
{
	const uint64_t *words = t->memory + page * PAGE_WORDS;
	uint64_t value = first_word(t, page, generation);
	size_t i;

	for (i = 0; i < PAGE_WORDS && words[i] == value; i++)
		value += STEP;
	return i;
}

static bool report(struct memtest *t)
{
	return ++t->bad <= REPORTS_MAX;
}

static void verify_page(struct memtest *t, size_t page)
{
	uint32_t a = t->generation[0][page];
	uint32_t b = t->generation[1][page];
	size_t word = first_bad_word(t, page, a);

	if (a != b && report(t))
		printf("memtest: BAD generation of page %zu: got %u and %u\n", page, a, b);
	if (word < PAGE_WORDS && report(t))
		printf("memtest: BAD page %zu word %zu got %016lx want %016lx\n", page, word,
		       t->memory[page * PAGE_WORDS + word], first_word(t, page, a) + word * STEP);
	if (a != b || word < PAGE_WORDS)
		write_page(t, page, a);
}

static void verify(struct memtest *t)
{
	uint64_t sum = 0;

	t->bad = 0;
	for (size_t page = 0; page < t->pages; page++) {
		verify_page(t, page);
		sum += t->generation[0][page];
	}
	if (sum != t->sum && report(t))
		printf("memtest: BAD sum of generations: got %lu want %lu\n", sum, t->sum);
	t->sum = sum;
}

static void rewrite_third(struct memtest *t)
{
	for (size_t page = 0; page < t->pages; page++) {
		if (next_random(&t->random) % 3)
			continue;
		write_page(t, page, t->generation[0][page] + 1);
		t->sum++;
	}
}

int memtest_main(int argc, char **argv)
{
	struct memtest t = {
		.pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES,
		.seed = argument(argc, argv, 2, "SEED", 0, UINT64_MAX, 1),
	};
	size_t table = t.pages * sizeof(uint32_t) / PAGE_SIZE + 1;

	t.random = mix64(t.seed) | 1;
	t.generation[0] = map_pages(table);
	t.memory = map_pages(t.pages);
	t.generation[1] = map_pages(table);
	for (size_t page = 0; page < t.pages; page++)
		write_page(&t, page, 0);
	puts("memtest: filled");

	for (uint64_t pass = 1;; pass++) {
		/* The compiler may not remember what it wrote: memory is on trial. */
		__asm__ volatile("" : : : "memory");
		verify(&t);
		if (t.bad)
			printf("memtest: BAD pass %lu: %u errors\n", pass, t.bad);
		else
			printf("memtest: pass %lu ok\n", pass);
		rewrite_third(&t);
	}
}
