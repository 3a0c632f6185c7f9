/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * busy: counts how much work the guest gets done, to measure what tracking
 * and migration cost it.
 *
 * A unit of work is a fixed number of steps of integer arithmetic, one random
 * read and one random write each. Reported are the units done in each second
 * of the guest's clock.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

#define UNIT_STEPS 2000

/* A word's index, evenly spread, without a division. */
static size_t pick(uint64_t random, size_t words)
{
	return (random >> 32) * words >> 32;
}

static void work(uint64_t *memory, size_t words, uint64_t *state)
{
	uint64_t x = *state;

	for (int i = 0; i < UNIT_STEPS; i++) {
		uint64_t read = memory[pick(next_random(&x), words)];

		memory[pick(next_random(&x), words)] = mix64(x + read);
	}
	*state = x;
}

int busy_main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, "MIB", 1, 1 << 14, 64) * MIB_PAGES;
	uint64_t *memory = map_pages(pages);
	uint64_t random = mix64(1);
	uint64_t end, units = 0;

	fill_random(memory, pages * PAGE_WORDS, &random);
	puts("busy: filled");
	end = now_ns() + NSEC_PER_SEC;
	for (;;) {
		uint64_t now;

		work(memory, pages * PAGE_WORDS, &random);
		units++;
		now = now_ns();
		if (now < end)
			continue;
		printf("busy: %lu\n", units);
		units = 0;
		end = now + NSEC_PER_SEC;
	}
}
