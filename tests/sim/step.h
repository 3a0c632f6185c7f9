/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * step.h - what each simulated world has: steps, at which anything may befall it, and checks that
 * end the program. sim.h has two hosts, split.h three and more; a program has one of them.
 */
#ifndef SIM_STEP_H
#define SIM_STEP_H

#include "fiber.h"

/* What a step is, so that a sweep leaves out faults that would change nothing there. */
#define STEP_FAILS	1U /* an op that may fail */
#define STEP_SENDS	2U
#define STEP_COMMITTING 4U  /* COMMIT may be on its way */
#define STEP_QEMU	8U  /* the destination has one */
#define STEP_LATE	16U /* an op that may work after its caller gave it up */
#define STEP_DISK	32U /* something is written there */

/**
 * sim_step() - a step of @process: faults strike, others run.
 * @what: name for the trace
 * @traits: STEP_*
 *
 * Return: 0: go on, atomically until the next step; -ESHUTDOWN: the process is
 * dead, have no effect; or what a failing op returns.
 */
int sim_step(struct process *process, const char *what, unsigned int traits);

/** sim_check() - unless @ok, say why, print how to repeat the run and exit. */
#define sim_check(ok, ...)                      \
	do {                                    \
		if (!(ok))                      \
			sim_wrong(__VA_ARGS__); \
	} while (0)

_Noreturn void sim_wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
