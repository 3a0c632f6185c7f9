/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * wset: a working set that is written round and round at a known rate.
 *
 * A share of the writes is fake: it stores the values that are there already,
 * which dirties the page for any tracker and changes nothing. The others
 * replace the whole page by new random data. Which is which is drawn for each
 * write, so that sooner or later every page has changed; or, with SAME, for
 * each page once, so that some pages always change and the others never do.
 */
#include <stdbool.h>
#include <stdio.h>

#include "../served.h"
#include "guest.h"

#define LINE_WORDS 8

struct wset {
	uint64_t *memory;
	size_t pages;
	unsigned int fake_percent;
	bool same;
	size_t next;
	uint64_t random;
	uint64_t written;  /* pages since the last report */
	uint64_t reported; /* when that was */
};

static void write_fake(volatile uint64_t *words)
{
	for (size_t i = 0; i < PAGE_WORDS; i += LINE_WORDS)
		words[i] = words[i];
}

static bool next_is_fake(struct wset *w)
{
	/* The middle bits: xorshift's low ones are its weakest. */
	uint64_t draw = w->same ? mix64(w->next + 1) : next_random(&w->random);

	return (draw >> 20) % 100 < w->fake_percent;
}

static void write_next(void *arg)
{
	struct wset *w = arg;
	uint64_t *words = w->memory + w->next * PAGE_WORDS;

	if (next_is_fake(w))
		write_fake(words);
	else
		fill_random(words, PAGE_WORDS, &w->random);
	w->next = (w->next + 1) % w->pages;
	w->written++;
}

static void report(void *arg, uint64_t now)
{
	struct wset *w = arg;
	double seconds = (double)(now - w->reported) / NSEC_PER_SEC;

	if (seconds < 1)
		return;
	printf("wset: %.1f pages %lu\n", w->written / seconds / MIB_PAGES, w->written);
	w->reported = now;
	w->written = 0;
}

int wset_main(int argc, char **argv)
{
	struct wset w = {
		.pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES,
		.fake_percent = argument(argc, argv, 3, "FAKE_PERCENT", 0, 100, -1),
		.same = argument(argc, argv, 4, "SAME", 0, 1, 0),
		.random = mix64(1),
	};
	uint64_t rate = argument(argc, argv, 2, "RATE_MIB_S", 0, 1 << 20, -1);

	w.memory = map_pages(w.pages);
	fill_random(w.memory, w.pages * PAGE_WORDS, &w.random);
	puts("wset: filled");
	w.reported = now_ns();
	access_at(rate, write_next, report, &w);
}
