// SPDX-License-Identifier: GPL-2.0-or-later
/* scenarios.c - guests, options and links that runs are made of; see scenarios.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "scenarios.h"

/* A delta cache that has no room for what the guest writes. */
#define FEW_PAGES (64 * GW_PAGE_SIZE)

const struct scenario scenarios[] = {
	{ .name = "plain",
	  .guest = { .writes_per_ms = 5, .working_set = 60 },
	  .streams = 2,
	  .downtime_limit_ms = 26 },
	{ .name = "verify",
	  .guest = { .writes_per_ms = 5, .working_set = 200, .punches = true },
	  .streams = 1,
	  .downtime_limit_ms = 300,
	  .verify = true },
	{ .name = "slow-start", /* longer than any silence may last */
	  .guest = { .writes_per_ms = 1, .working_set = 20 },
	  .streams = 1,
	  .downtime_limit_ms = 300,
	  .start_s = 90,
	  .stride = 5 },
	{ .name = "paused",
	  .guest = { .working_set = 1 },
	  .streams = 1,
	  .downtime_limit_ms = 300,
	  .verify = true,
	  .paused = true },
	{ .name = "direct",
	  .guest = { .writes_per_ms = 8, .working_set = 40, .direct_io = true },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .direct_io = true },
	{ .name = "quiesce",
	  .guest = { .writes_per_ms = 8,
		     .working_set = 40,
		     .direct_io = true,
		     .punches = true,
		     .needs_quiesce = true },
	  .streams = 1,
	  .downtime_limit_ms = 27,
	  .verify = true,
	  .direct_io = true },
	{ .name = "fast",
	  .guest = { .writes_per_ms = 150, .working_set = 760 },
	  .streams = 2,
	  .downtime_limit_ms = 27,
	  .stride = 7, /* a dozen rounds of the same steps */
	  .result = -ETIME },
	{ .name = "big",
	  .guest = { .writes_per_ms = 8, .working_set = 80, .punches = true, .big = true },
	  .streams = 2,
	  .downtime_limit_ms = 27,
	  .stride = 2 },
	{ .name = "many",
	  .guest = { .writes_per_ms = 10, .working_set = 100, .punches = true },
	  .streams = 4,
	  .downtime_limit_ms = 60,
	  .max_bandwidth = 40 << 20 },
	{ .name = "stages",
	  .guest = { .writes_per_ms = 30, .working_set = 100, .punches = true, .familiar = true },
	  .streams = 2,
	  .link_rate = 50000000,
	  .downtime_limit_ms = 26,
	  .pages = { .compress = GW_COMPRESS_LZ4, .delta_cache = FEW_PAGES } },
	{ .name = "measured",
	  .guest = { .writes_per_ms = 40, .working_set = 120, .direct_io = true, .familiar = true },
	  .streams = 3,
	  .downtime_limit_ms = 40,
	  .verify = true,
	  .direct_io = true,
	  .stride = 3,
	  .pages = { .hash = GW_HASH_SHA1,
		     .compress = GW_COMPRESS_AUTO,
		     .delta_cache = GW_DELTA_CACHE_DEFAULT } },
	{ .name = "back",
	  .guest = { .writes_per_ms = 8, .working_set = 60, .punches = true },
	  .streams = 2,
	  .downtime_limit_ms = 27,
	  .reuse = REUSE_BACK },
	{ .name = "round",
	  .guest = { .writes_per_ms = 8, .working_set = 60, .direct_io = true },
	  .streams = 2,
	  .downtime_limit_ms = 40,
	  .verify = true,
	  .direct_io = true,
	  .stride = 2,
	  .pages = { .compress = GW_COMPRESS_LZ4, .delta_cache = FEW_PAGES },
	  .reuse = REUSE_ROUND },
	{ .name = "ring",
	  .guest = { .writes_per_ms = 20, .working_set = 60, .punches = true, .familiar = true },
	  .streams = 3,
	  .downtime_limit_ms = 27,
	  .stride = 3,
	  .reuse = REUSE_ROUND,
	  .pages = { .compress = GW_COMPRESS_ZSTD, .delta_cache = GW_DELTA_CACHE_DEFAULT } },
	{ .name = "untracked",
	  .guest = { .writes_per_ms = 8, .working_set = 60, .punches = true },
	  .streams = 1,
	  .downtime_limit_ms = 30,
	  .stride = 3,
	  .reuse = REUSE_UNTRACKED },
	{ .name = "stranger",
	  .guest = { .writes_per_ms = 5, .working_set = 60 },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .stride = 5,
	  .reuse = REUSE_STRANGER },
	/* Last pages enough to fill a window: a link that stalls then is not waited for. */
	{ .name = "narrow",
	  .guest = { .writes_per_ms = 30, .working_set = 200 },
	  .streams = 1,
	  .link_rate = 12500000,
	  .downtime_limit_ms = 250,
	  .stride = 3 },
	/* A limit that lets the device state alone take longer than anybody waits for an answer. */
	{ .name = "patient",
	  .guest = { .working_set = 1 },
	  .streams = 1,
	  .link_rate = 30000,
	  .device_state = DEVICE_STATE_MAX,
	  .downtime_limit_ms = 40000,
	  .stride = 11 },
	/* A destination of the release before, which lists neither features nor stages. */
	{ .name = "older",
	  .guest = { .writes_per_ms = 30, .working_set = 100, .punches = true, .familiar = true },
	  .streams = 2,
	  .link_rate = 50000000,
	  .downtime_limit_ms = 26,
	  .verify = true,
	  .stride = 3,
	  .version = 1,
	  .pages = { .compress = GW_COMPRESS_LZ4, .delta_cache = FEW_PAGES } },
	/* Memory that follows the guest: all of it, and what some rounds have left. */
	{ .name = "postcopy",
	  .guest = { .writes_per_ms = 8, .working_set = 60 },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .stride = 3,
	  .uneven = 2 * GW_MS,
	  .postcopy = GW_POSTCOPY_NOW },
	{ .name = "hybrid",
	  .guest = { .writes_per_ms = 150, .working_set = 760, .punches = true, .familiar = true },
	  .streams = 2,
	  .downtime_limit_ms = 27,
	  .stride = 5,
	  .uneven = GW_MS,
	  .postcopy = GW_POSTCOPY_AUTO,
	  .postcopy_after = 2,
	  .pages = { .compress = GW_COMPRESS_LZ4, .delta_cache = FEW_PAGES } },
	/* It comes back at once, before what was kept of it has been compared. */
	{ .name = "returns",
	  .guest = { .writes_per_ms = 8, .working_set = 60, .direct_io = true },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .direct_io = true,
	  .stride = 3,
	  .reuse = REUSE_ROUND,
	  .postcopy = GW_POSTCOPY_NOW },
	/* Nobody knows what it has written since: what is the same is told by its digest. */
	{ .name = "returns-untracked",
	  .guest = { .writes_per_ms = 8, .working_set = 60, .punches = true },
	  .streams = 1,
	  .downtime_limit_ms = 30,
	  .stride = 3,
	  .reuse = REUSE_UNTRACKED,
	  .postcopy = GW_POSTCOPY_NOW },
	/* It is split already, and what its sub-hosts have stays there. */
	{ .name = "carried",
	  .guest = { .writes_per_ms = 8, .working_set = 200 },
	  .streams = 2,
	  .downtime_limit_ms = 40,
	  .stride = 2,
	  .uneven = GW_MS,
	  .carried = true },
	/* Whatever is sent once the guest stands still comes late: no round gets it there. */
	{ .name = "waits",
	  .guest = { .writes_per_ms = 6, .working_set = 60 },
	  .streams = 2,
	  .downtime_limit_ms = 40,
	  .working_set = GW_DEFER_LRU_SPLAY },
	{ .name = "learns", /* nothing of what it writes leaves sooner than with the last round */
	  .guest = { .writes_per_ms = 12, .working_set = 200 },
	  .streams = 2,
	  .link_rate = 50000000,
	  .downtime_limit_ms = 50,
	  .stride = 5,
	  .working_set = GW_DEFER_AUTO,
	  .result = SIM_MAY_BE_TOO_FAST },
	/* Most of what it reads lies on disks, of which the destination's are not quite the same.
	 */
	{ .name = "cached",
	  .guest = { .writes_per_ms = 8, .working_set = 300, .familiar = true, .caches = true },
	  .copies = true,
	  .streams = 2,
	  .link_rate = 60000000,
	  .downtime_limit_ms = 60,
	  .uneven = GW_MS,
	  .pages = { .delta_cache = FEW_PAGES, .compress = GW_COMPRESS_LZ4 },
	  .stride = 2,
	  .result = SIM_MAY_BE_TOO_FAST },
	{ .name = "cached-slow", /* rounds that outlast the reads that nobody waits for */
	  .guest = { .writes_per_ms = 1, .working_set = 500, .caches = true },
	  .streams = 2,
	  .link_rate = 3000000,
	  .downtime_limit_ms = 150,
	  .stride = 5,
	  .result = SIM_MAY_BE_TOO_FAST },
	/* And of what follows the guest. */
	{ .name = "cached-follows",
	  .guest = { .writes_per_ms = 8, .working_set = 300, .familiar = true, .caches = true },
	  .streams = 2,
	  .link_rate = 60000000,
	  .downtime_limit_ms = 30,
	  .uneven = GW_MS,
	  .pages = { .delta_cache = FEW_PAGES, .compress = GW_COMPRESS_LZ4 },
	  .stride = 7,
	  .postcopy = GW_POSTCOPY_NOW },
	{ .name = "cached-returns",
	  .guest = { .writes_per_ms = 8, .working_set = 300, .caches = true },
	  .streams = 1,
	  .downtime_limit_ms = 30,
	  .stride = 7,
	  .reuse = REUSE_ROUND,
	  .postcopy = GW_POSTCOPY_NOW },
	{ .name = "late",
	  .guest = { .writes_per_ms = 8, .working_set = 120 },
	  .streams = 2,
	  .link_rate = 50000000,
	  .stopped_rate = 1000000,
	  .device_state = 4096,
	  .downtime_limit_ms = 60,
	  .stride = 7,
	  .postcopy = GW_POSTCOPY_AUTO },
	/* A display that can never be sent within the limit: the guest is not even stopped. */
	{ .name = "heavy",
	  .guest = { .writes_per_ms = 5, .working_set = 60 },
	  .streams = 2,
	  .downtime_limit_ms = 300,
	  .device_weight = 1 << 30,
	  .stride = 5,
	  .postcopy = GW_POSTCOPY_AUTO,
	  .result = -ERANGE },
};

_Static_assert(sizeof(scenarios) / sizeof(scenarios[0]) <= SCENARIOS_MAX, "too many");
const size_t nr_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);

/* Runs that must go wrong, or the checks are worth nothing. */
const struct scenario blind[] = {
	{ .name = "blind",
	  .guest = { .writes_per_ms = 16, .working_set = 40, .direct_io = true },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .unequal = true },
	{ .name = "blind-verify",
	  .guest = { .writes_per_ms = 16, .working_set = 40, .direct_io = true },
	  .streams = 2,
	  .downtime_limit_ms = 30,
	  .verify = true,
	  .unequal = true,
	  .result = -EREMOTEIO },
};

const size_t nr_blind = sizeof(blind) / sizeof(blind[0]);

struct scenario scenario_random(uint64_t seed)
{
	struct rng rng = { seed * 7919 };
	struct scenario sc = { .name = "random" };

	sc.guest.writes_per_ms = (unsigned int)rng_below(&rng, 20);
	sc.guest.working_set = 1 + (unsigned int)rng_below(&rng, 400);
	sc.guest.direct_io = rng_one_in(&rng, 2);
	sc.guest.punches = rng_one_in(&rng, 2);
	sc.guest.needs_quiesce = rng_one_in(&rng, 4);
	sc.guest.big = rng_one_in(&rng, 8);
	sc.streams = 1 + (unsigned int)rng_below(&rng, 4);
	sc.downtime_limit_ms = 26 + (unsigned int)rng_below(&rng, 3) * 20;
	sc.max_bandwidth = rng_one_in(&rng, 4) ? (20ULL << 20) + rng_below(&rng, 100 << 20) : 0;
	sc.link_rate = 12500000ULL << rng_below(&rng, 8);
	sc.verify = rng_one_in(&rng, 2);
	sc.paused = rng_one_in(&rng, 8);
	sc.direct_io = sc.guest.direct_io;
	sc.guest.familiar = !rng_one_in(&rng, 4);
	sc.pages.hash = (enum gw_hash)rng_below(&rng, GW_HASH_COUNT);
	sc.pages.compress = (enum gw_compress)rng_below(&rng, 4);
	sc.pages.delta_cache = rng_below(&rng, 3) * FEW_PAGES;
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
		if (rng_one_in(&rng, 6))
			sc.pages.off |= 1U << id;
	if (rng_one_in(&rng, 2))
		sc.reuse = (enum reuse)rng_below(&rng, REUSE_STRANGER + 1);
	sc.version = rng_one_in(&rng, 6) ? 1 : 0;
	sc.hasty = rng_one_in(&rng, 2);
	sc.slow_compare = rng_one_in(&rng, 4);
	sc.result = SIM_MAY_BE_TOO_FAST;
	/* New draws come last: tests/sim/seeds. */
	if (!sc.version && rng_one_in(&rng, 2))
		sc.postcopy = (enum gw_postcopy)(GW_POSTCOPY_AUTO + rng_below(&rng, 2));
	sc.postcopy_after = (unsigned int)rng_below(&rng, 4);
	if (sc.postcopy && rng_one_in(&rng, 2))
		sc.uneven = (int64_t)rng_below(&rng, 3) * GW_MS;
	if (rng_one_in(&rng, 2))
		sc.working_set = (enum gw_defer_mode)(GW_DEFER_LRU + rng_below(&rng, 3));
	sc.guest.caches = rng_one_in(&rng, 2);
	sc.copies = !sc.version && rng_one_in(&rng, 3);
	return sc;
}

struct scenario scenario_carried(uint64_t seed)
{
	struct scenario sc = scenario_random(seed);

	sc.name = "carried-random";
	sc.guest.punches = sc.guest.direct_io = sc.guest.needs_quiesce = sc.direct_io = false;
	sc.verify = false;
	sc.reuse = REUSE_NONE;
	sc.postcopy = GW_POSTCOPY_NEVER;
	sc.version = 0;
	sc.carried = true;
	return sc;
}

void scenario_print(const struct scenario *sc)
{
	const struct behaviour *b = &sc->guest;

	fprintf(stderr,
		"%s: %u writes/ms in %u pages%s%s%s%s%s, %u streams of %llu bytes/s in all, limit "
		"%u ms, bandwidth %llu, stages off %#x, hash %d, compress %d, delta cache %llu, "
		"reuse %d, post-copy %d after %u, uneven by %lld us, working set %d, version "
		"%u%s%s%s%s%s\n",
		sc->name, b->writes_per_ms, b->working_set, b->direct_io ? ", direct I/O" : "",
		b->punches ? ", punches" : "", b->needs_quiesce ? ", needs quiesce" : "",
		b->big ? ", big" : "", b->familiar ? ", familiar" : "", sc->streams,
		(unsigned long long)sc->link_rate, sc->downtime_limit_ms,
		(unsigned long long)sc->max_bandwidth, sc->pages.off, (int)sc->pages.hash,
		(int)sc->pages.compress, (unsigned long long)sc->pages.delta_cache, (int)sc->reuse,
		(int)sc->postcopy, sc->postcopy_after, (long long)(sc->uneven / GW_US),
		(int)sc->working_set, sc->version, sc->verify ? ", verify" : "",
		sc->paused ? ", paused" : "", sc->direct_io ? ", told of direct I/O" : "",
		sc->hasty ? ", hasty" : "", sc->slow_compare ? ", slow comparison" : "");
}

const struct scenario *scenario_find(const char *name, uint64_t seed)
{
	static struct scenario random;

	for (size_t i = 0; i < nr_scenarios; i++)
		if (!strcmp(scenarios[i].name, name))
			return &scenarios[i];
	for (size_t i = 0; i < nr_blind; i++)
		if (!strcmp(blind[i].name, name))
			return &blind[i];
	if (!strcmp(name, "random") || !strcmp(name, "carried-random")) {
		random = name[0] == 'r' ? scenario_random(seed) : scenario_carried(seed);
		return &random;
	}
	fprintf(stderr, "no scenario '%s'\n", name);
	exit(2);
}
