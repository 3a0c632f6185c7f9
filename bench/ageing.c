// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ageing RUNS: what the history of a guest's accesses costs (track/ageing.h), for guests of 1 GiB
 * to 2 TiB that need not be here: access bits and histories are random, as in the paper's
 * measurement (S-memV, Fig. 14).
 *
 *   collect    half of the pages were accessed: into the history of pages and of units
 *   shift      of both, where a period ends
 *   split      which half of the units stays
 *   victim     one unit to leave, of all
 *   victims    64 at once
 *
 * Prints a JSON object a size: medians, in ms of processor, so that a machine which is busy with
 * other things tells nearly the same; and the memory that a history takes, in MiB: of a guest
 * that accesses everything, and of one that accesses a hundredth, in one place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ageing.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "rng.h"

#define UNIT_PAGES GW_CHUNK_PAGES
#define VICTIMS	   64U
#define RUNS_MAX   101UL

enum step {
	COLLECT,
	SHIFT,
	SPLIT,
	VICTIM,
	MANY,
	STEPS,
};

static const char *const names[STEPS] = { "collect", "shift", "split", "victim", "victims" };

struct bench {
	struct gw_memory memory;
	struct gw_ageing ageing;
	struct gw_bitmap accessed, eligible, stay;
	size_t units[VICTIMS];
};

static void call(struct bench *b, enum step step)
{
	switch (step) {
	case COLLECT:
		gw_ageing_add(&b->ageing, &b->accessed);
		break;
	case SHIFT:
		gw_ageing_shift(&b->ageing);
		break;
	case SPLIT:
		gw_ageing_split(&b->ageing, b->ageing.units.nr / 2, &b->stay);
		break;
	case VICTIM:
		gw_ageing_coldest(&b->ageing, &b->eligible, 1, b->units);
		break;
	default:
		gw_ageing_coldest(&b->ageing, &b->eligible, VICTIMS, b->units);
	}
}

static int64_t processor_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * GW_S + t.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double median_ms(struct bench *b, enum step step, size_t runs)
{
	int64_t ns[RUNS_MAX];

	for (size_t i = 0; i < runs; i++) {
		gw_bitmap_zero(&b->stay);
		/* What may stay of the last run is there for this one, too. */
		memset(b->stay.words, 0, (b->stay.bits + 63) / 64 * sizeof(b->stay.words[0]));
		ns[i] = -processor_ns();
		call(b, step);
		ns[i] += processor_ns();
	}
	qsort(ns, runs, sizeof(ns[0]), by_time);
	return (double)ns[runs / 2] / GW_MS;
}

/* What this process has, in MiB. */
static double resident_mib(void)
{
	gw_autofree char *text = gw_read_file("/proc/self/statm", 4096, NULL);
	const char *second = text ? strchr(text, ' ') : NULL;

	return second ? strtod(second, NULL) * GW_PAGE_SIZE / (1 << 20) : 0;
}

/* What the history of a guest costs that accesses a hundredth of its memory. */
static double small_mib(const struct gw_memory *memory)
{
	const double before = resident_mib();
	struct gw_ageing a;
	double mib = 0;

	if (!gw_ageing_init(&a, memory, UNIT_PAGES)) {
		for (size_t page = 0; page < memory->nr_pages / 100; page += UNIT_PAGES)
			gw_ageing_touch(&a, page, UNIT_PAGES);
		gw_ageing_shift(&a);
		mib = resident_mib() - before;
	}
	gw_ageing_free(&a);
	return mib;
}

static int measure(size_t gib, size_t runs)
{
	struct bench b = { 0 };
	struct rng rng = { gib };
	int rc = gw_memory_add(&b.memory, "ram", (uint64_t)gib << 30);

	if (rc >= 0)
		rc = gw_ageing_init(&b.ageing, &b.memory, UNIT_PAGES);
	if (!rc)
		rc = gw_bitmap_init(&b.accessed, b.memory.nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&b.eligible, b.ageing.units.nr);
	if (!rc)
		rc = gw_bitmap_init(&b.stay, b.ageing.units.nr);
	if (rc)
		return rc;
	rng_fill(&rng, b.accessed.words, b.memory.nr_pages / 8);
	rng_fill(&rng, b.ageing.pages, b.memory.nr_pages);
	gw_bitmap_set_range(&b.eligible, 0, b.ageing.units.nr);
	printf("{\"gib\": %zu", gib);
	for (enum step step = COLLECT; step < STEPS; step++) {
		/* Of units, collecting makes all the same. */
		rng_fill(&rng, b.ageing.unit, b.ageing.units.nr);
		printf(", \"%s\": %.4f", names[step], median_ms(&b, step, runs));
	}
	printf(", \"mib\": %.2f, \"small-mib\": %.2f}\n",
	       (double)(b.ageing.pages_len + b.ageing.units_len) / (1 << 20), small_mib(&b.memory));
	fflush(stdout);
	gw_ageing_free(&b.ageing);
	gw_bitmap_free(&b.accessed);
	gw_bitmap_free(&b.eligible);
	gw_bitmap_free(&b.stay);
	return 0;
}

int main(int argc, char **argv)
{
	const size_t runs = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;

	if (!runs || runs > RUNS_MAX) {
		fprintf(stderr, "usage: ageing RUNS (at most %lu)\n", RUNS_MAX);
		return 2;
	}
	for (size_t gib = 1; gib <= 2048; gib *= 2) {
		if (measure(gib, runs)) {
			fprintf(stderr, "ageing: %s\n", gw_error());
			return 1;
		}
	}
	return 0;
}
