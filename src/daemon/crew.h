/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * crew.h - threads that do one thing in parallel while their owner watches
 * descriptors. The live form of the machines' parallel, spawn, wait and notify.
 */
#ifndef GW_CREW_H
#define GW_CREW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

#define GW_CREW_MAX 64

struct gw_crew;

struct gw_crew_member {
	struct gw_crew *crew;
	unsigned int index;
	pthread_t thread;
};

struct gw_crew {
	int event; /* eventfd: a member ended, or notify was called */
	struct gw_crew_member members[GW_CREW_MAX];
	unsigned int n;
	_Atomic unsigned int running;
	int (*fn)(void *arg, unsigned int i);
	void *arg;
	pthread_mutex_t lock; /* rc, message */
	int rc;
	char message[GW_ERROR_MAX];
};

/** gw_crew_init() - 0 or -errno; gw_crew_free() when no member runs. */
int gw_crew_init(struct gw_crew *c);
void gw_crew_free(struct gw_crew *c);

/** gw_crew_start() - run fn(arg, 0..n-1), each in a thread. 0 or -errno. */
int gw_crew_start(struct gw_crew *c, unsigned int n, int (*fn)(void *arg, unsigned int i),
		  void *arg);

/** gw_crew_cores() - threads that keep all cores that we may use busy, at most GW_CREW_MAX. */
unsigned int gw_crew_cores(void);

/** gw_crew_notify() - wake the owner. Any thread. */
void gw_crew_notify(struct gw_crew *c);

/** gw_crew_quiet() - forget notifications so far; the owner then looks at the state. */
void gw_crew_quiet(struct gw_crew *c);

/** gw_crew_failed() - whether a member has failed. */
bool gw_crew_failed(struct gw_crew *c);

/** gw_crew_join() - wait for all members. Return: the first failure, its message recorded here. */
int gw_crew_join(struct gw_crew *c);

#endif
