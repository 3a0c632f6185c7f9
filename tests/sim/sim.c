// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim.c - which runs are made.
 *
 *   sim sweep [SCENARIO...]     every fault at every step where it can be
 *   sim pairs                   two faults, the second while the first is being put right
 *   sim random [COUNT [SEED]]   random guests, options, schedules and faults
 *   sim seeds FILE              the same by the seeds that failed once (tests/sim/seeds)
 *   sim soak SECONDS [SEED]     the same for a time, from a seed by the clock
 *   sim models                  the simulated world itself can tell right from wrong
 *   sim hostile                 peers that break the rules
 *   sim --scenario NAME [--seed N] [--fault KIND:STEP]... [--trace]    one run again
 *
 * A seed decides everything about a run, so a failure can be repeated: each random
 * run is made twice and must take the same steps at the same times to the same end.
 * Seed 0 is the plain schedule, in which whoever has waited longest goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"
#include "scenarios.h"

#ifdef __SANITIZE_ADDRESS__
/* A run frees everything at its end: what went before need not be kept for long. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=8";
}

/* Runs cost four times as much there, so each step gets a third of the faults. */
#define SHARES 3
#else
#define SHARES 1
#endif

static const struct fault no_faults[2];

static unsigned int runs;

static int run(const struct scenario *sc, uint64_t seed, const struct fault faults[2])
{
	runs++;
	return sim_run(sc, seed, faults);
}

/* Twice, and the second time must be the first over again. */
static int run_twice(const struct scenario *sc, uint64_t seed, const struct fault faults[2])
{
	uint64_t hash;
	unsigned int steps;

	run(sc, seed, faults);
	hash = sim.hash;
	steps = sim.steps;
	run(sc, seed, faults);
	if (sim.hash != hash)
		sim_wrong("the same run twice, and not the same: %u steps, then %u; compare two "
			  "traces",
			  steps, sim.steps);
	return sim.src.rc;
}

static bool can_strike(enum fault_kind kind, uint8_t traits)
{
	switch (kind) {
	case FAULT_OP:
	case FAULT_HANG_FAIL:
		return traits & STEP_FAILS;
	case FAULT_HANG_LATE:
	case FAULT_OP_LATE:
		return traits & STEP_LATE;
	case FAULT_DAMAGE:
	case FAULT_CUT_ONE:
		return traits & STEP_SENDS;
	case FAULT_CUT_SETTLE:
		return traits & STEP_COMMITTING;
	case FAULT_QEMU_DEST:
	case FAULT_REFUSE:
		return traits & STEP_QEMU;
	case FAULT_STILL: /* before that it is noticed and costs nothing new */
		return traits & STEP_COMMITTING;
	case FAULT_SLOW_SOURCE: /* from there on: the op itself, and what is left */
	case FAULT_SLOW_DEST:
		return traits & STEP_DISK;
	default:
		return true;
	}
}

/* One fault of each kind at each step of a run, all else being equal. */
static void sweep(const struct scenario *sc, uint64_t seed)
{
	static uint8_t traits[STEPS_MAX];
	const bool sparse = strcmp(sc->name, "plain"); /* half of what hangs is enough elsewhere */
	unsigned int steps, before = runs;

	run_twice(sc, seed, no_faults);
	steps = sim.steps;
	memcpy(traits, sim.traits, sizeof(traits));
	for (unsigned int step = 1; step <= steps; step += sc->stride ? sc->stride : 1) {
		for (enum fault_kind kind = FAULT_NONE + 1; kind < FAULT_KINDS; kind++) {
			const struct fault faults[2] = { { kind, step } };

			if ((step + kind) % SHARES == 0 && can_strike(kind, traits[step]) &&
			    (kind < FAULT_HANG || !sparse || (step / SHARES + kind) % 2))
				run(sc, seed, faults);
		}
	}
	printf("%s, seed %llu: %u steps, %u runs\n", sc->name, (unsigned long long)seed, steps,
	       runs - before);
}

/*
 * Two faults: the first while the guest changes hosts, the second at any step
 * of what follows, which is recovery for the most part.
 */
static void pairs(const struct scenario *sc)
{
	static const enum fault_kind first[] = { FAULT_CUT_SETTLE, FAULT_KILL_SOURCE,
						 FAULT_KILL_DEST,  FAULT_OP,
						 FAULT_OP_LATE,	   FAULT_STILL };
	static const enum fault_kind second[] = { FAULT_CUT,	   FAULT_KILL_SOURCE,
						  FAULT_KILL_DEST, FAULT_QEMU_DEST,
						  FAULT_OP,	   FAULT_OP_LATE,
						  FAULT_HANG };
	static uint8_t traits[STEPS_MAX];
	unsigned int steps, before = runs;

	run(sc, 0, no_faults);
	steps = sim.steps;
	memcpy(traits, sim.traits, sizeof(traits));
	for (unsigned int step = 1; step <= steps; step++) {
		for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
			struct fault faults[2] = { { first[i], step } };
			unsigned int end;

			if (!(traits[step] & STEP_COMMITTING) ||
			    !can_strike(first[i], traits[step]))
				continue;
			run(sc, 0, faults);
			end = sim.steps;
			for (unsigned int next = step + 1; next <= end; next++) {
				for (size_t k = 0; k < sizeof(second) / sizeof(second[0]); k++) {
					faults[1] = (struct fault){ second[k], next };
					if ((next + k) % SHARES == 0)
						run(sc, 0, faults);
				}
			}
		}
	}
	printf("%s, two faults: %u runs\n", sc->name, runs - before);
}

/* Where a fault is likely to matter: anywhere, in the switchover, while COMMIT is under way. */
static unsigned int random_step(struct rng *rng)
{
	const unsigned int steps = sim.steps;
	unsigned int among = steps, committing = steps;

	while (committing > 1 && sim.traits[committing - 1] & STEP_COMMITTING)
		committing--;
	switch (rng_below(rng, 4)) {
	case 0:
	case 1:
		break;
	case 2:
		among = steps / 4;
		break;
	default:
		among = steps - committing + 1;
	}
	return steps - (unsigned int)rng_below(rng, among);
}

/* Those that matter most there, often: who puts things right fails, COMMIT gets no answer. */
static enum fault_kind random_kind(struct rng *rng, bool second, unsigned int step)
{
	static const enum fault_kind committing[] = { FAULT_CUT_SETTLE, FAULT_STILL, FAULT_REFUSE,
						      FAULT_STOP_DEST };

	if (second && rng_one_in(rng, 3))
		return FAULT_OP;
	if (step <= sim.steps && sim.traits[step] & STEP_COMMITTING && rng_one_in(rng, 2))
		return committing[rng_below(rng, sizeof(committing) / sizeof(committing[0]))];
	return (enum fault_kind)rng_below(rng, FAULT_CUT_ONE);
}

/* Of random runs. */
#define CARRIED_ONE_IN 3

/* Two faults, the second often while the first is being put right. */
static void struck_at_random(const struct scenario *sc, uint64_t seed)
{
	struct rng rng = { seed };
	struct fault faults[2] = { 0 };

	run_twice(sc, seed, no_faults);
	for (int i = 0; i < 2; i++) {
		faults[i].step = i && rng_one_in(&rng, 2)
					 ? faults[0].step + 1 + (unsigned int)rng_below(&rng, 5)
					 : random_step(&rng);
		faults[i].kind = random_kind(&rng, i, faults[i].step);
	}
	/* New draws come last: tests/sim/seeds. */
	if (rng_one_in(&rng, 9))
		faults[rng_below(&rng, 2)].kind = FAULT_CUT_ONE;
	run_twice(sc, seed, faults);
}

static void random_run(uint64_t seed)
{
	const struct scenario sc = scenario_random(seed), carried = scenario_carried(seed);

	struck_at_random(&sc, seed);
	if (seed % CARRIED_ONE_IN == 0)
		struck_at_random(&carried, seed);
}

/* Seeds that failed once: lines "random SEED  # why". */
static int kept_seeds(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[512];

	if (!f) {
		perror(path);
		return 2;
	}
	for (unsigned int n = 1; fgets(line, sizeof(line), f); n++) {
		unsigned long long seed;

		if (line[0] == '#' || line[0] == '\n' || !strncmp(line, "split ", 6))
			continue;
		if (sscanf(line, "random %llu", &seed) != 1) {
			fprintf(stderr, "%s:%u: not 'random SEED  # why'\n", path, n);
			fclose(f);
			return 2;
		}
		random_run(seed);
	}
	fclose(f);
	return 0;
}

static void soak(int64_t seconds, uint64_t seed)
{
	const int64_t end = gw_now() + seconds * GW_S;
	const uint64_t first = seed;

	printf("seeds from %llu\n", (unsigned long long)first);
	fflush(stdout);
	do {
		random_run(seed++);
	} while (gw_now() < end);
	printf("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)seed - 1);
}

/* A guest that has work for every stage must have given it to each. */
static void check_stages(const struct scenario *sc, const uint64_t *pages)
{
	static const enum gw_stage_id ids[] = { GW_STAGE_ZERO,	    GW_STAGE_SAME,
						GW_STAGE_DUPLICATE, GW_STAGE_DELTA,
						GW_STAGE_COMPRESS,  GW_STAGE_RAW };

	printf("%s:", sc->name);
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		printf(" %llu %s", (unsigned long long)pages[ids[i]], gw_stage_name(ids[i]));
	printf("\n");
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		/* Which method pays is not known before more has travelled than they have. */
		sim_check(pages[ids[i]] > 100 || (ids[i] == GW_STAGE_COMPRESS &&
						  sc->pages.compress == GW_COMPRESS_AUTO),
			  "%s: a stage had hardly any work", sc->name);
}

/* What was kept is of use, and what a stranger left is not. */
static void check_reuse(const struct scenario *sc, uint64_t reused, uint64_t patched)
{
	printf("%s: %llu reused, %llu patched\n", sc->name, (unsigned long long)reused,
	       (unsigned long long)patched);
	if (sc->reuse == REUSE_STRANGER)
		sim_check(!reused && !patched, "%s: what is not known was reused", sc->name);
	else
		sim_check(reused > 1000 && (patched > 100 || sc->postcopy),
			  "%s: hardly anything was reused", sc->name);
}

/*
 * The scenarios must contain what they are there for, and memory that was
 * lost must be noticed: a direct read that no scan saw, with a machine that
 * was not told to compare.
 */
static void models(void)
{
	static unsigned int lost[SCENARIOS_MAX], punched, redirtied, many_rounds;
	static uint64_t pages[SCENARIOS_MAX][GW_STAGE_MAX], reused[SCENARIOS_MAX];

	for (uint64_t seed = 0; seed < 20; seed++) {
		for (size_t i = 0; i < nr_scenarios; i++) {
			run(&scenarios[i], seed, no_faults);
			lost[i] += sim.guest.lost;
			punched += sim.guest.punched;
			redirtied += (unsigned int)sim.src.s.redirtied;
			many_rounds += sim.src.s.nr_rounds > 2;
			reused[i] += sim.src.s.reused;
			for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
				pages[i][id] += sim.src.s.pages[id];
		}
		for (size_t i = 0; i < nr_blind; i++) {
			run(&blind[i], seed, no_faults);
			sim_check(sim.guest.lost, "no direct read went unseen");
		}
	}
	for (size_t i = 0; i < nr_scenarios; i++) {
		sim_check(!scenarios[i].guest.direct_io || lost[i] > 10,
			  "%s: only %u direct reads went unseen", scenarios[i].name, lost[i]);
		if (lost[i])
			printf("%s: %u direct reads unseen\n", scenarios[i].name, lost[i]);
		if (scenarios[i].guest.caches)
			sim_check(pages[i][GW_STAGE_TELEPORT] > 1000,
				  "%s: hardly any page of a disk", scenarios[i].name);
		else if (scenarios[i].guest.familiar && !scenarios[i].reuse)
			check_stages(&scenarios[i], pages[i]);
		if (scenarios[i].reuse)
			check_reuse(&scenarios[i], reused[i], pages[i][GW_STAGE_PATCH]);
	}
	sim_check(punched > 100 && redirtied > 100 && many_rounds > 50,
		  "guests too tame: %u punched, %u written again, %u runs of several rounds",
		  punched, redirtied, many_rounds);
}

static struct fault parse_fault(const char *text)
{
	const char *colon = strchr(text, ':');

	for (enum fault_kind kind = 0; colon && kind < FAULT_KINDS; kind++)
		if (strlen(sim_fault_name(kind)) == (size_t)(colon - text) &&
		    !strncmp(text, sim_fault_name(kind), (size_t)(colon - text)))
			return (struct fault){ kind, (unsigned int)atoi(colon + 1) };
	fprintf(stderr, "'%s' is not KIND:STEP\n", text);
	exit(2);
}

static int repeat(int argc, char **argv)
{
	struct fault faults[2] = { 0 };
	const char *name = "plain";
	uint64_t seed = 0;
	int n = 0, rc;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--trace")) {
			sim.trace = true;
			gw_log_init("sim", GW_LOG_INFO);
			continue;
		}
		if (!strcmp(argv[i], "--scenario"))
			name = value;
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--fault") && n < 2)
			faults[n++] = parse_fault(value);
		i++;
	}
	if (sim.trace)
		scenario_print(scenario_find(name, seed));
	rc = run(scenario_find(name, seed), seed, faults);
	printf("returned %d (%s), %u steps, %.1f ms, hash %016llx\n", rc, sim.src.s.error,
	       sim.steps, (double)sim_now() / GW_MS, (unsigned long long)sim.hash);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	gw_log_init("sim", 0); /* what recovery logs is part of many runs */
	if (!strcmp(what, "sweep")) {
		for (int i = 2; i < argc; i++)
			sweep(scenario_find(argv[i], 0), 0);
		for (size_t i = 0; argc == 2 && i < nr_scenarios; i++)
			sweep(&scenarios[i], 0);
	} else if (!strcmp(what, "pairs")) {
		pairs(scenario_find("plain", 0));
		pairs(scenario_find("paused", 0));
	} else if (!strcmp(what, "random")) {
		uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 300;
		uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;

		for (uint64_t seed = first; seed < first + count; seed++)
			random_run(seed);
		if (argc == 2)
			sim_check_rare();
	} else if (!strcmp(what, "seeds") && argc == 3) {
		int rc = kept_seeds(argv[2]);

		if (rc)
			return rc;
	} else if (!strcmp(what, "soak") && argc > 2) {
		soak(strtoll(argv[2], NULL, 10),
		     argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL) << 20);
	} else if (!strcmp(what, "models")) {
		models();
	} else if (!strcmp(what, "hostile")) {
		runs += hostile_sources() + hostile_destinations() + hostile_pagers();
	} else if (!strncmp(what, "--", 2)) {
		return repeat(argc, argv);
	} else {
		fprintf(stderr,
			"usage: sim sweep|pairs|random|seeds|soak|models|hostile|--scenario NAME "
			"...\n");
		return 2;
	}
	printf("%u runs\n", runs);
	return 0;
}
