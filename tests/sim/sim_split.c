// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split.c - which runs are made of a guest whose memory lies on several hosts (sim_split.h).
 *
 *   sim_split random [COUNT [SEED]]   random guests, hosts, schedules and faults
 *   sim_split deaths                  the pager dies at each of its park points, again and again
 *   sim_split seeds FILE              the seeds that failed once (tests/sim/seeds: "split SEED")
 *   sim_split soak SECONDS [SEED]     random ones for a time, from a seed by the clock
 *   sim_split --seed N [--death WHERE:STEP] [--trace]    one run again
 *
 * Each run is made twice, and must take the same steps at the same times to the same end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"
#include "sim_split.h"

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=8";
}
#endif

static unsigned int runs;
static uint64_t steps;

static void run_twice(uint64_t seed, bool faults, const struct split_strike *only)
{
	uint64_t hash;
	unsigned int first;

	split_run(seed, faults, only);
	hash = sim_split.hash;
	first = sim_split.steps;
	split_run(seed, faults, only);
	if (sim_split.hash != hash)
		sim_wrong("the same run twice, and not the same: %u steps, then %u; compare two "
			  "traces",
			  first, sim_split.steps);
	runs += 2;
	steps += 2ULL * first;
}

static struct split_strike death(int where, unsigned int step)
{
	return (struct split_strike){ .kind = SPLIT_KILL_PAGER, .step = step, .where = where };
}

static void deaths(void)
{
	for (int where = 0; where < SPLIT_UNSPLIT; where++)
		for (unsigned int i = 0; i < 3; i++) {
			const struct split_strike strike = death(where, 150 + 170 * i);

			run_twice((uint64_t)where * 3 + i, false, &strike);
		}
}

static void repeat(int argc, char **argv)
{
	struct split_strike strike;
	bool dies = false;
	uint64_t seed = 0;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		unsigned int step;
		int where;

		if (!strcmp(argv[i], "--trace")) {
			sim_split.trace = true;
			gw_log_init("sim_split", GW_LOG_INFO);
		} else if (!strcmp(argv[i], "--seed")) {
			seed = strtoull(value, NULL, 10);
		} else if (!strcmp(argv[i], "--death") &&
			   sscanf(value, "%d:%u", &where, &step) == 2) {
			strike = death(where, step);
			dies = true;
		}
	}
	split_run(seed, !dies, dies ? &strike : NULL);
	runs++;
	steps += sim_split.steps;
	printf("%.3f ms, hash %016llx\n", (double)sim_now() / GW_MS,
	       (unsigned long long)sim_split.hash);
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
		const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 160;
		const uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;

		for (uint64_t seed = first; seed < first + count; seed++)
			run_twice(seed, true, NULL);
		if (argc == 2)
			split_check_roads();
	} else if (!strcmp(what, "deaths")) {
		deaths();
	} else if (!strcmp(what, "seeds") && argc == 3) {
		const int rc = kept_seeds(argv[2]);

		if (rc)
			return rc;
	} else if (!strcmp(what, "soak") && argc > 2) {
		soak(strtoll(argv[2], NULL, 10),
		     argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL) << 20);
	} else if (!strncmp(what, "--", 2)) {
		repeat(argc, argv);
	} else {
		fprintf(stderr, "usage: sim_split random|deaths|seeds|soak|--seed N ...\n");
		return 2;
	}
	printf("%u runs, %llu steps\n", runs, (unsigned long long)steps);
	return 0;
}
