// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * placement PID MONITOR PERIODS PERIOD_MS: what it is worth to know what a guest has accessed.
 *
 * Records which pages of the running QEMU are accessed in each period (track/accessed.h), and then
 * plays that twice, as a guest that is split at half time: half of the memory that it has stays. By
 * the paper's history (track/ageing.h: collected, shifted, split by, and the coldest unit leaves),
 * and at random, as in the paper's comparison (S-memV, V-D): which units stay, and which one
 * leaves.
 *
 * Both see the same accesses in the same order; in which order those of one period came, nobody
 * knows, so it is drawn. A unit of which something is accessed that is not here comes, all of it,
 * and another one leaves. Nothing is random but by a fixed seed: random placement is played with
 * SEEDS of them.
 *
 * Prints a JSON object: units in the guest's memory (units), those that ever held something (used)
 * and that may be here (stays), how many are accessed in a period (accessed, the median), and units
 * and pages that came: by history, and at random the mean and the extremes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "accessed.h"
#include "ageing.h"
#include "attach.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "qmp.h"
#include "rng.h"
#include "tracker.h"
#include "watch.h"

#define UNIT_PAGES  GW_CHUNK_PAGES
#define PERIODS_MAX 1000UL
#define SHIFT	    10 /* periods: godwit split's default */
#define SEEDS	    20

/* What was recorded. */
struct record {
	struct gw_ram ram;
	struct gw_units units;
	struct gw_bitmap used; /* a bit a page: it ever held something */
	struct gw_bitmap accessed[PERIODS_MAX];
	size_t periods;
	size_t *orders[PERIODS_MAX]; /* units accessed, as drawn */
	size_t nr[PERIODS_MAX];
};

/* One way to play it. */
struct play {
	const struct record *record;
	struct gw_ageing ageing;
	struct gw_bitmap here; /* a bit a unit */
	size_t *list, nr;      /* the same, in no order */
	struct rng rng;
	bool random;
	size_t units_in, pages_in;
};

static int fail(void)
{
	fprintf(stderr, "placement: %s\n", gw_error());
	return 1;
}

static void wait_until(int64_t ns)
{
	const struct timespec t = { .tv_sec = ns / GW_S, .tv_nsec = ns % GW_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* A look; -EAGAIN: no thread of QEMU could be stopped, and what is told may be told again. */
static int sample(struct gw_accessed *a, struct gw_bitmap *accessed)
{
	int rc = gw_accessed_sample(a, accessed, SIZE_MAX);

	if (rc == -EAGAIN) {
		gw_error_clear();
		rc = 0;
	}
	return rc;
}

static int record_all(struct record *r, pid_t pid, int64_t period_ns)
{
	struct gw_track_range ranges[GW_TRACK_RANGES];
	const unsigned int nr = gw_track_ranges(&r->ram, ranges);
	struct gw_bitmap before = { 0 };
	struct gw_tracker *tracker;
	struct gw_accessed a;
	int uffd, rc;

	/* Beside a tracker the kernel maps what was touched, and nothing around it. */
	uffd = gw_inject_userfaultfd(pid);
	if (uffd < 0)
		return uffd;
	tracker = gw_tracker_uffd(pid, &uffd, 1, ranges, nr);
	if (!tracker)
		return -EIO;
	rc = gw_accessed_open(&a, pid, ranges, nr);
	if (!rc)
		rc = gw_bitmap_init(&before, r->ram.memory.nr_pages);
	if (!rc)
		rc = sample(&a, &before); /* nobody knows since when */
	for (size_t i = 0; !rc && i < r->periods; i++) {
		wait_until(gw_now() + period_ns);
		rc = gw_bitmap_init(&r->accessed[i], r->ram.memory.nr_pages);
		if (!rc)
			rc = sample(&a, &r->accessed[i]);
	}
	gw_bitmap_free(&before);
	gw_accessed_close(&a);
	gw_tracker_stop(tracker);
	return rc;
}

/* What the guest has, once all is recorded. */
static int note_used(struct record *r)
{
	struct gw_memory_walk walk = gw_memory_walk(&r->ram.memory);
	size_t first, stop;
	int rc;

	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0)
		gw_bitmap_set_range(&r->used, first, stop - first);
	return rc;
}

/* In which order the units of each period are played. */
static int draw_orders(struct record *r)
{
	struct rng rng = { 1 };

	for (size_t i = 0; i < r->periods; i++) {
		size_t *order = calloc(r->units.nr, sizeof(*order)), n = 0;

		if (!order)
			return gw_fail(-ENOMEM, "no memory for a period");
		for (size_t unit = 0, first, count; unit < r->units.nr; unit++) {
			count = gw_unit_pages(&r->units, unit, &first);
			if (gw_bitmap_count(&r->accessed[i], first, count))
				order[n++] = unit;
		}
		/* Fisher and Yates. */
		for (size_t k = n; k > 1; k--) {
			const size_t j = rng_below(&rng, k), kept = order[j];

			order[j] = order[k - 1];
			order[k - 1] = kept;
		}
		r->orders[i] = order;
		r->nr[i] = n;
	}
	return 0;
}

static size_t pages_of(const struct record *r, size_t unit)
{
	size_t first, count = gw_unit_pages(&r->units, unit, &first);

	return gw_bitmap_count(&r->used, first, count);
}

static size_t used_units(const struct record *r)
{
	size_t n = 0;

	for (size_t unit = 0; unit < r->units.nr; unit++)
		n += pages_of(r, unit) > 0;
	return n;
}

static void add_here(struct play *p, size_t unit)
{
	gw_bitmap_set(&p->here, unit);
	p->list[p->nr++] = unit;
}

/* Which units are here when the guest is split. */
static int split(struct play *p, size_t most)
{
	const struct record *r = p->record;
	struct gw_bitmap stay = { 0 };
	int rc;

	if (p->random) {
		/* Each set of so many is as likely. */
		for (size_t unit = 0, left = used_units(r), want = most; unit < r->units.nr; unit++)
			if (pages_of(r, unit) && rng_below(&p->rng, left--) < want) {
				add_here(p, unit);
				want--;
			}
		return 0;
	}
	rc = gw_bitmap_init(&stay, r->units.nr);
	if (rc)
		return rc;
	gw_ageing_split(&p->ageing, NULL, most, &stay);
	for (size_t unit = 0; unit < r->units.nr; unit++)
		if (gw_bitmap_test(&stay, unit) && pages_of(r, unit))
			add_here(p, unit);
	/* Where fewer were accessed than may stay, the rest of the room is for the first ones. */
	for (size_t unit = 0; unit < r->units.nr && p->nr < most; unit++)
		if (!gw_bitmap_test(&stay, unit) && pages_of(r, unit))
			add_here(p, unit);
	gw_bitmap_free(&stay);
	return 0;
}

/* Which of the units that are here leaves. */
static size_t victim(struct play *p)
{
	size_t unit = 0;

	if (p->random)
		return rng_below(&p->rng, p->nr);
	if (gw_ageing_coldest(&p->ageing, &p->here, 1, &unit) != 1)
		return 0;
	for (size_t i = 0; i < p->nr; i++)
		if (p->list[i] == unit)
			return i;
	return 0;
}

static void come(struct play *p, size_t unit)
{
	size_t first, count = gw_unit_pages(&p->record->units, unit, &first);
	const size_t leaves = victim(p);

	gw_bitmap_clear(&p->here, p->list[leaves]);
	p->list[leaves] = unit;
	gw_bitmap_set(&p->here, unit);
	gw_ageing_touch(&p->ageing, first, count);
	p->units_in++;
	p->pages_in += pages_of(p->record, unit);
}

static int play(struct play *p, size_t most)
{
	const struct record *r = p->record;
	int rc = gw_ageing_init(&p->ageing, &r->ram.memory, UNIT_PAGES);

	p->list = calloc(r->units.nr, sizeof(*p->list));
	if (!rc && !p->list)
		rc = gw_fail(-ENOMEM, "no memory for units");
	if (!rc)
		rc = gw_bitmap_init(&p->here, r->units.nr);
	for (size_t i = 0; !rc && i < r->periods; i++) {
		if (i == r->periods / 2)
			rc = split(p, most);
		for (size_t k = 0; !rc && i >= r->periods / 2 && k < r->nr[i]; k++)
			if (!gw_bitmap_test(&p->here, r->orders[i][k]))
				come(p, r->orders[i][k]);
		gw_ageing_add(&p->ageing, &r->accessed[i]);
		if ((i + 1) % SHIFT == 0)
			gw_ageing_shift(&p->ageing);
	}
	gw_ageing_free(&p->ageing);
	gw_bitmap_free(&p->here);
	free(p->list);
	return rc;
}

static int by_number(const void *a, const void *b)
{
	const size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return (x > y) - (x < y);
}

static int compare(struct record *r)
{
	const size_t used = used_units(r), most = used / 2;
	struct play known = { .record = r };
	size_t sum = 0, sum_pages = 0, least = SIZE_MAX, highest = 0, sorted[PERIODS_MAX];
	int rc = most ? play(&known, most) : gw_fail(-EINVAL, "the guest has no memory");

	for (unsigned int seed = 1; !rc && seed <= SEEDS; seed++) {
		struct play p = { .record = r, .random = true, .rng = { seed } };

		rc = play(&p, most);
		sum += p.units_in;
		sum_pages += p.pages_in;
		least = p.pages_in < least ? p.pages_in : least;
		highest = p.pages_in > highest ? p.pages_in : highest;
	}
	if (rc)
		return rc;
	memcpy(sorted, r->nr, r->periods * sizeof(sorted[0]));
	qsort(sorted, r->periods, sizeof(sorted[0]), by_number);
	printf("{\"units\": %zu, \"used\": %zu, \"stays\": %zu, \"periods\": %zu, "
	       "\"accessed\": %zu, \"history\": {\"units-in\": %zu, \"pages-in\": %zu}, "
	       "\"random\": {\"units-in\": %.1f, \"pages-in\": %.1f, \"least\": %zu, "
	       "\"most\": %zu}}\n",
	       r->units.nr, used, most, r->periods, sorted[r->periods / 2], known.units_in,
	       known.pages_in, (double)sum / SEEDS, (double)sum_pages / SEEDS, least, highest);
	return 0;
}

int main(int argc, char **argv)
{
	static struct record r;
	const unsigned long ms = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
	struct gw_guest_facts facts;
	struct gw_qmp *q;
	pid_t pid;
	int rc;

	r.periods = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
	if (r.periods < 2 || r.periods > PERIODS_MAX || !ms || ms > 60000) {
		fprintf(stderr,
			"usage: placement PID MONITOR PERIODS PERIOD_MS (2 to %lu, at most a "
			"minute)\n",
			PERIODS_MAX);
		return 2;
	}
	pid = (pid_t)atoi(argv[1]);
	q = gw_qmp_open(argv[2], gw_now() + 5 * GW_S);
	if (!q)
		return fail();
	rc = gw_attach(q, pid, &r.ram, &facts);
	gw_qmp_close(q);
	if (!rc)
		rc = gw_bitmap_init(&r.used, r.ram.memory.nr_pages);
	if (rc)
		return fail();
	gw_units_init(&r.units, &r.ram.memory, UNIT_PAGES);
	rc = record_all(&r, pid, (int64_t)ms * GW_MS) ?: note_used(&r) ?:
	     draw_orders(&r) ?: compare(&r);
	gw_bitmap_free(&r.used);
	for (size_t i = 0; i < r.periods; i++) {
		gw_bitmap_free(&r.accessed[i]);
		free(r.orders[i]);
	}
	gw_ram_close(&r.ram);
	return rc ? fail() : 0;
}
