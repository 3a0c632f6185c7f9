/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tasks.h - time, and who works beside whom: threads of this process, or, in a simulation, what
 * takes turns in a time of its own. Locks are pthread's in both.
 */
#ifndef GW_TASKS_H
#define GW_TASKS_H

#include <pthread.h>
#include <stdint.h>

#include "urgency.h"

struct gw_task_ops {
	/* Nanoseconds; as gw_now(). */
	int64_t (*now)(void *env);
	/* What the calling task does from here on is of that kind. */
	void (*urgency)(void *env, enum gw_urgency urgency);
	/* Run fn(arg) beside us. Return: for join(), once; NULL with a message: it does not run. */
	void *(*spawn)(void *env, void (*fn)(void *arg), void *arg);
	/* Until it has ended. */
	void (*join)(void *env, void *task);
	/* Let go of @lock, which is held, until signal(@cond) or @until (ns), or earlier. */
	void (*rest)(void *env, pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until);
	/* Whoever rests there goes on; its lock is held. */
	void (*signal)(void *env, pthread_cond_t *cond);
};

/* Threads. */
extern const struct gw_task_ops gw_threads;

#endif
