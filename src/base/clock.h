/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clock.h - monotonic time in nanoseconds, and deadlines made of it. */
#ifndef GW_CLOCK_H
#define GW_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define GW_US 1000LL
#define GW_MS 1000000LL
#define GW_S  1000000000LL

/** GW_FOREVER - a deadline that never comes. */
#define GW_FOREVER INT64_MAX

/** gw_now() - CLOCK_MONOTONIC in nanoseconds. */
static inline int64_t gw_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * GW_S + ts.tv_nsec;
}

/**
 * gw_wait_until() - pthread_cond_timedwait() by gw_now(): of a condition without attributes.
 * @until: nanoseconds.
 *
 * Return: 0, also for nothing, or ETIMEDOUT.
 */
static inline int gw_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until)
{
	const struct timespec ts = { until / GW_S, until % GW_S };

	return pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &ts);
}

/** gw_poll_ms() - what poll() should wait for until @deadline (ns), -1 for ever. */
static inline int gw_poll_ms(int64_t deadline)
{
	int64_t left;

	if (deadline == GW_FOREVER)
		return -1;
	left = deadline - gw_now();
	if (left <= 0)
		return 0;
	left = (left + GW_MS - 1) / GW_MS;
	return left > 1000000000 ? 1000000000 : (int)left;
}

#endif
