/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * teller.h - a thread that says now and then that something takes long, while
 * another is at it.
 */
#ifndef GW_TELLER_H
#define GW_TELLER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct gw_teller {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool running, end;
	int ms;
	void (*tell)(void *arg, const char *what);
	void *arg;
	const char *_Atomic what;
};

/**
 * gw_teller_start() - call @tell every @ms, from a thread of its own, until gw_teller_stop().
 * @what: is being done; change it with gw_teller_now()
 *
 * Where there is no thread, nothing is told.
 */
void gw_teller_start(struct gw_teller *t, int ms, void (*tell)(void *arg, const char *what),
		     void *arg, const char *what);

/** gw_teller_now() - what is being done from now on: a literal. Any thread. */
void gw_teller_now(struct gw_teller *t, const char *what);

/** gw_teller_stop() - nothing is told any more when it returns. */
void gw_teller_stop(struct gw_teller *t);

#endif
