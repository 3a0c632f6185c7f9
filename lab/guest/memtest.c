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
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

struct memtest {
	uint64_t *memory;
	size_t pages;
	uint64_t seed;
	uint32_t *generation[2];
	uint64_t sum; /* of all generations */
	uint64_t random;
	struct pass pass;
};

static uint64_t first_word(const struct memtest *t, size_t page, uint32_t generation)
{
	return mix64(t->seed ^ mix64((uint64_t)page << 32 | generation));
}

static void write_page(struct memtest *t, size_t page, uint32_t generation)
{
	write_pattern(t->memory + page * PAGE_WORDS, first_word(t, page, generation));
	t->generation[0][page] = generation;
	t->generation[1][page] = generation;
}

static void verify_page(struct memtest *t, size_t page)
{
	uint32_t a = t->generation[0][page];
	uint32_t b = t->generation[1][page];

	if (a != b) {
		if (may_report(&t->pass))
			printf("memtest: BAD generation of page %zu: got %u and %u\n", page, a, b);
		t->generation[1][page] = a;
	}
	verify_pattern(&t->pass, page, t->memory + page * PAGE_WORDS, first_word(t, page, a));
}

static void verify(struct memtest *t)
{
	uint64_t sum = 0;

	for (size_t page = 0; page < t->pages; page++) {
		verify_page(t, page);
		sum += t->generation[0][page];
	}
	if (sum != t->sum && may_report(&t->pass))
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
		.pass = { .name = "memtest" },
	};
	size_t table = t.pages * sizeof(uint32_t) / PAGE_SIZE + 1;

	t.random = mix64(t.seed) | 1;
	t.generation[0] = map_pages(table);
	t.memory = map_pages(t.pages);
	t.generation[1] = map_pages(table);
	for (size_t page = 0; page < t.pages; page++)
		write_page(&t, page, 0);
	puts("memtest: filled");

	for (;;) {
		verify(&t);
		end_pass(&t.pass);
		rewrite_third(&t);
	}
}
