/* SPDX-License-Identifier: GPL-2.0-or-later */
/* scenarios.h - what is simulated: guests, options and links, by name or by seed. */
#ifndef SIM_SCENARIOS_H
#define SIM_SCENARIOS_H

#include "sim.h"

#define SCENARIOS_MAX 32

extern const struct scenario scenarios[];
extern const size_t nr_scenarios;

/* Runs that must go wrong, or the checks are worth nothing. */
extern const struct scenario blind[];
extern const size_t nr_blind;

/** scenario_random() - a function of @seed alone. */
struct scenario scenario_random(uint64_t seed);

/** scenario_carried() - the same, of a guest that is split already. */
struct scenario scenario_carried(uint64_t seed);

/** scenario_print() - what a run is made of, for its trace. */
void scenario_print(const struct scenario *sc);

/** scenario_find() - by name, "random" with @seed; ends the program if there is none. */
const struct scenario *scenario_find(const char *name, uint64_t seed);

#endif
