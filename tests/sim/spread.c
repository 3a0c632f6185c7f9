// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * spread.c - which runs are made of a guest whose memory lies on several hosts (spread.h).
 *
 *   sim_split random [COUNT [SEED]]   random guests, hosts, schedules and faults
 *   sim_split deaths                  the pager dies at each of its park points, again and again
 *   sim_split seeds FILE              the seeds that failed once (tests/sim/seeds: "split SEED")
 *   sim_split soak SECONDS [SEED]     random ones for a time, from a seed by the clock
 *   sim_split --seed N [--trace]      one run again
 *
 * Each run is made twice, and must take the same steps at the same times to the same end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"
#include "spread.h"

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=8";
}
#endif

static unsigned int runs;
static uint64_t steps;

static void run_twice(uint64_t seed, bool faults, const struct spread_strike *only)
{
	uint64_t hash;
	unsigned int first;

	spread_run(seed, faults, only);
	hash = spread.hash;
	first = spread.steps;
	spread_run(seed, faults, only);
	if (spread.hash != hash)
		sim_wrong("the same run twice, and not the same: %u steps, then %u; compare two "
			  "traces",
			  first, spread.steps);
	runs += 2;
	steps += 2ULL * first;
}

static void deaths(void)
{
	for (int where = 0; where < SPREAD_UNSPLIT; where++)
		for (unsigned int i = 0; i < 3; i++) {
			const struct spread_strike strike = { .kind = SPREAD_KILL_PAGER,
							      .step = 150 + 170 * i,
							      .where = where };

			run_twice((uint64_t)where * 3 + i, false, &strike);
		}
}

static int kept_seeds(const char *path)
{
	FILE *f = fopen(path, "r");
	unsigned long long seed;
	char line[512];

	if (!f) {
		perror(path);
		return 2;
	}
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "split %llu", &seed) == 1)
			run_twice(seed, true, NULL);
	fclose(f);
	return 0;
}

static void soak(int64_t seconds, uint64_t seed)
{
	const int64_t end = gw_now() + seconds * GW_S;

	printf("seeds from %llu\n", (unsigned long long)seed);
	fflush(stdout);
	do {
		run_twice(seed++, true, NULL);
	} while (gw_now() < end);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	gw_log_init("sim_split", 0); /* what servers that are away log is part of many runs */
	if (!strcmp(what, "random")) {
		const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 120;
		const uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;

		for (uint64_t seed = first; seed < first + count; seed++)
			run_twice(seed, true, NULL);
		if (argc == 2)
			spread_check_roads();
	} else if (!strcmp(what, "deaths")) {
		deaths();
	} else if (!strcmp(what, "seeds") && argc == 3) {
		const int rc = kept_seeds(argv[2]);

		if (rc)
			return rc;
	} else if (!strcmp(what, "soak") && argc > 2) {
		soak(strtoll(argv[2], NULL, 10),
		     argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL) << 20);
	} else if (!strcmp(what, "--seed") && argc > 2) {
		spread.trace = argc > 3 && !strcmp(argv[3], "--trace");
		if (spread.trace)
			gw_log_init("sim_split", GW_LOG_INFO);
		spread_run(strtoull(argv[2], NULL, 10), true, NULL);
		runs++;
		steps += spread.steps;
	} else {
		fprintf(stderr, "usage: sim_split random|deaths|seeds|soak|--seed N ...\n");
		return 2;
	}
	printf("%u runs, %llu steps\n", runs, (unsigned long long)steps);
	return 0;
}
