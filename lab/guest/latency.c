/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * latency: what a read of a page costs the guest.
 *
 * Pages of a block are read at a known rate, each drawn at random; each second a line says
 * how many reads took how many microseconds. Where memory is paged, the reads that took long
 * are those of pages that were not there yet.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

/* Sixteen classes for each power of two: within 6 %. Below 16 us each has its own. */
#define SHARES	16
#define CLASSES (28 * SHARES) /* up to 2^31 us: half an hour */

struct latency {
	volatile uint64_t *memory;
	size_t pages;
	uint64_t random;
	uint64_t reported;
	uint32_t reads[CLASSES];
};

static size_t class_of(uint64_t us)
{
	size_t halvings = 0;

	while (us >= 2 * SHARES) {
		us /= 2;
		halvings++;
	}
	us += halvings * SHARES;
	return us < CLASSES ? us : CLASSES - 1;
}

/* The middle of a class. */
static uint64_t us_of(size_t class)
{
	size_t halvings = class < 2 * SHARES ? 0 : class / SHARES - 1;

	return ((class - halvings * SHARES) << halvings) + ((1 << halvings) >> 1);
}

static void read_next(void *arg)
{
	struct latency *l = arg;
	size_t page = (next_random(&l->random) >> 20) % l->pages;
	uint64_t before = now_ns();

	(void)l->memory[page * PAGE_WORDS];
	l->reads[class_of((now_ns() - before) / 1000)]++;
}

static void report(void *arg, uint64_t now)
{
	struct latency *l = arg;

	if (now - l->reported < NSEC_PER_SEC)
		return;
	printf("latency:");
	for (size_t class = 0; class < CLASSES; class ++) {
		if (l->reads[class])
			printf(" %lu:%u", us_of(class), l->reads[class]);
		l->reads[class] = 0;
	}
	putchar('\n');
	l->reported = now;
}

int latency_main(int argc, char **argv)
{
	struct latency l = {
		.pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES,
		.random = mix64(1),
	};
	uint64_t rate = argument(argc, argv, 2, "RATE_MIB_S", 1, 1 << 20, -1);
	uint64_t state = mix64(2);
	uint64_t *memory = map_pages(l.pages);

	fill_random(memory, l.pages * PAGE_WORDS, &state);
	l.memory = memory;
	puts("latency: filled");
	l.reported = now_ns();
	access_at(rate, read_next, report, &l);
}
