// SPDX-License-Identifier: GPL-2.0-or-later
/* disks.c - see disks.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "disks.h"
#include "error.h"
#include "sim.h"

#define DISKS	2U
#define BLOCKS	700UL /* of each disk, 4 KiB */
#define CACHED	300   /* pages that hold one from the start */
#define WRONG	16    /* one in so many blocks is another at the destination, hints are lies */
#define READ_NS (GW_MS / 5)

/* One in so many reads takes longer than anybody waits for it, and its pages come otherwise. */
#define SLOW	32
#define SLOW_NS GW_S

static struct {
	uint8_t *here, *there; /* both disks, one behind the other */
	struct gw_hint *told;  /* of each page, where it was read from */
	bool *known;
	struct gw_hint *before; /* the same, as it was when somebody asked for the next round */
	bool *known_before, asked;
	bool stale[DISKS * BLOCKS];
	size_t nr_pages;
	struct rng rng;
	unsigned int reading; /* callbacks that are at it */
	unsigned int life;    /* of a destination's worker */
	bool ending;	      /* it is about to end */
} disks;

static uint8_t *block_of(uint8_t *of, unsigned int disk, size_t block)
{
	return of + (disk * BLOCKS + block) * GW_PAGE_SIZE;
}

/* In a row, for the most part, as files are. */
void disks_fill(struct guest *g, size_t page)
{
	const unsigned int disk = (unsigned int)rng_below(&disks.rng, DISKS);
	const size_t block = rng_one_in(&disks.rng, 4) ? rng_below(&disks.rng, BLOCKS)
						       : page % BLOCKS;

	guest_store(g, page, block_of(disks.here, disk, block));
	disks.told[page] = (struct gw_hint){ disk, block * GW_PAGE_SECTORS };
	disks.known[page] = true;
}

/* Written back, where @page is known to be of a disk: by now, or never. */
void disks_changed(struct guest *g, size_t page)
{
	const struct gw_hint *at = &disks.told[page];

	if (!disks.known[page] || rng_one_in(&disks.rng, 2))
		return;
	guest_load(g, page, block_of(disks.here, at->disk, at->sector / GW_PAGE_SECTORS));
	if (!rng_one_in(&disks.rng, 4)) /* a disk that both hosts share, but for a moment */
		guest_load(g, page, block_of(disks.there, at->disk, at->sector / GW_PAGE_SECTORS));
}

void disks_init(void)
{
	const size_t len = DISKS * BLOCKS * GW_PAGE_SIZE;

	memset(&disks, 0, sizeof(disks));
	if (!sim.sc->guest.caches)
		return;
	disks.rng.state = sim.seed ^ 0xd15c;
	disks.nr_pages = sim.guest.memory->nr_pages;
	disks.here = malloc(len);
	disks.there = malloc(len);
	disks.told = calloc(disks.nr_pages, sizeof(*disks.told));
	disks.known = calloc(disks.nr_pages, sizeof(*disks.known));
	disks.before = calloc(disks.nr_pages, sizeof(*disks.before));
	disks.known_before = calloc(disks.nr_pages, sizeof(*disks.known_before));
	if (!disks.here || !disks.there || !disks.told || !disks.known || !disks.before ||
	    !disks.known_before)
		abort();
	rng_fill(&disks.rng, disks.here, len);
	memcpy(disks.there, disks.here, len);
	for (size_t i = 0; i < DISKS * BLOCKS; i++)
		if (rng_one_in(&disks.rng, WRONG))
			disks.there[i * GW_PAGE_SIZE + 7]++;
	for (unsigned int i = 0; i < CACHED; i++)
		disks_fill(&sim.guest, guest_any_page(&sim.guest));
}

void disks_free(void)
{
	free(disks.here);
	free(disks.there);
	free(disks.told);
	free(disks.known);
	free(disks.before);
	free(disks.known_before);
}

/* An index of the source's disks, which knows their bytes, and forgets what was wrong. */
static void find(void *arg, const uint8_t *chunk, const struct gw_pageset *left,
		 struct gw_pageset *found, struct gw_hint at[GW_CHUNK_PAGES])
{
	(void)arg;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		for (size_t k = 0; gw_pageset_test(left, i) && k < DISKS * BLOCKS; k++) {
			if (disks.stale[k] || memcmp(chunk + i * GW_PAGE_SIZE,
						     disks.here + k * GW_PAGE_SIZE, GW_PAGE_SIZE))
				continue;
			gw_pageset_set(found, i);
			at[i] = (struct gw_hint){ (unsigned int)(k / BLOCKS),
						  k % BLOCKS * GW_PAGE_SECTORS };
			break;
		}
}

static void wrong(void *arg, struct gw_hint at)
{
	(void)arg;
	sim_check(at.disk < DISKS && at.sector < BLOCKS * GW_PAGE_SECTORS, "no place of a disk");
	disks.stale[at.disk * BLOCKS + at.sector / GW_PAGE_SECTORS] = true;
}

static const struct gw_lookup index_of_disks = { .find = find, .wrong = wrong };

/* What is told is of that moment. */
void disks_hints_again(void *env, int64_t ns, int64_t left_ns)
{
	(void)env;
	sim_check(left_ns >= 0 && left_ns <= ns, "a round of %ld ns ends in %ld", (long)ns,
		  (long)left_ns);
	sim_check(!sim.src.s.stopped, "hints are asked for no round");
	if (!sim.sc->guest.caches || disks.asked || rng_one_in(&disks.rng, 4))
		return;
	memcpy(disks.before, disks.told, disks.nr_pages * sizeof(*disks.told));
	memcpy(disks.known_before, disks.known, disks.nr_pages * sizeof(*disks.known));
	disks.asked = true;
}

/* Somebody in the guest tells, and does not look twice; or the index is asked. */
int disks_hints(void *env, const json_t *names, uint64_t due, struct gw_hints *hints)
{
	int rc = sim_step(env, "hints", STEP_FAILS);
	const struct gw_hint *told = disks.asked ? disks.before : disks.told;
	const bool *known = disks.asked ? disks.known_before : disks.known;

	disks.asked = false;
	sim_check(due <= sim.guest.memory->nr_pages, "more is due than there is");
	if (rc || !sim.sc->guest.caches)
		return rc ? rc : gw_fail(-ENOTSUP, "nobody knows");
	hints->lookup = sim.seed % 2 ? &index_of_disks : NULL;
	sim_check(json_array_size(names) == DISKS, "the destination's disks are others");
	for (size_t page = 0; page < disks.nr_pages; page++) {
		struct gw_hint at = told[page];

		if (rng_one_in(&disks.rng, WRONG))
			at.sector = rng_below(&disks.rng, 2 * BLOCKS * GW_PAGE_SECTORS);
		else if (!known[page])
			continue;
		gw_hints_set(hints, page, at);
	}
	return 0;
}

struct reading {
	struct process *process;
	unsigned int life, disk;
	uint64_t offset;
	size_t len;
	void (*done)(void *arg, const uint8_t *bytes);
	void *arg;
};

static void run_reading(void *arg, unsigned int i)
{
	struct reading *r = arg;
	const uint64_t size = BLOCKS * GW_PAGE_SIZE;
	uint8_t *bytes = calloc(1, r->len);
	int rc = sim_step(r->process, "read a disk", STEP_FAILS | STEP_DISK);

	(void)i;
	if (!bytes)
		abort();
	fiber_sleep_until(sim_now() + (int64_t)rng_below(&disks.rng, rng_one_in(&disks.rng, SLOW)
									     ? SLOW_NS
									     : READ_NS));
	if (r->offset < size)
		memcpy(bytes, block_of(disks.there, r->disk, 0) + r->offset,
		       r->len < size - r->offset ? r->len : size - r->offset);
	if (r->life == disks.life) {
		disks.reading++;
		r->done(r->arg, rc || r->offset >= size ? NULL : bytes);
		disks.reading--;
	}
	free(bytes);
	free(r);
}

void disks_fetch(void *env, unsigned int disk, uint64_t offset, size_t len,
		 void (*done)(void *arg, const uint8_t *bytes), void *arg)
{
	struct reading *r = calloc(1, sizeof(*r));

	if (!r)
		abort();
	sim_check(disk < DISKS && len && len <= 2 << 20, "a read of %zu bytes of disk %u", len,
		  disk);
	/* Who brings while it is ended may begin another, of which nobody hears. */
	*r = (struct reading){ env, disks.life - disks.ending, disk, offset, len, done, arg };
	fiber_new(env, "disk", run_reading, r, 0);
}

static bool none_reads(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !disks.reading;
}

void disks_fetch_end(void *env)
{
	(void)env; /* also of a dead process */
	disks.life++;
	disks.ending = true;
	if (disks.reading)
		fiber_wait(none_reads, NULL, GW_FOREVER);
	disks.ending = false;
}
