/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fiber.h - everything that runs in a simulation, one at a time, in virtual time.
 *
 *   runnable ──> running ──> waiting ──> runnable ...
 *                   └──> ended
 *
 * A fiber runs until it yields or waits; then the schedule, which is a
 * function of the seed alone, picks the next one that can go on. Time stands
 * still while any can; then it jumps to the next moment at which one can.
 *
 * A process owns fibers. A killed one is dead to the world: its fibers run on
 * only so that the code under test frees what it holds, and every op and
 * transport call of theirs fails without effect (sim.h), which looks from
 * outside as if the process were gone.
 *
 * Rules: a fiber switches only inside these functions, so whatever stands
 * between two of them is atomic. The message of error.h belongs to the fiber.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include <stdbool.h>
#include <stdint.h>

struct process {
	const char *name;
	bool dead;
	int64_t stopped_until; /* no fiber of it has a turn before */
};

/**
 * fiber_ready - whether a waiting fiber can go on.
 * @when: lower it to the moment at which to look again, if time alone may
 *        make the difference
 */
typedef bool (*fiber_ready)(void *arg, int64_t *when);

/** fibers_init() - no fibers, time zero. @seed: of the schedule; 0: longest waiting first. */
void fibers_init(uint64_t seed);

/** fiber_new() - a fiber of @process that will run fn(arg, i). */
void fiber_new(struct process *process, const char *name, void (*fn)(void *arg, unsigned int i),
	       void *arg, unsigned int i);

/**
 * fibers_run() - run until every fiber has ended.
 * @tick: called before each turn, outside every fiber
 *
 * Return: false if all wait and no time will wake any.
 */
bool fibers_run(void (*tick)(void *arg), void *arg);

/** fibers_dump() - print who waits, for a deadlock's report. */
void fibers_dump(void);

/** fiber_yield() - let others run. */
void fiber_yield(void);

/** fiber_wait() - until ready(arg), or @deadline. Return: whether it is ready. */
bool fiber_wait(fiber_ready ready, void *arg, int64_t deadline);

/** fiber_sleep_until() - let virtual time pass. */
void fiber_sleep_until(int64_t when);

/** sim_now() - virtual nanoseconds. */
int64_t sim_now(void);

#endif
