/* SPDX-License-Identifier: GPL-2.0-or-later */
/* servers_internal.h - what servers.c (a server's thread, requests) and bulk.c share. */
#ifndef GW_SERVERS_INTERNAL_H
#define GW_SERVERS_INTERNAL_H

#include "servers.h"

struct gw_receiver {
	struct gw_server *s;
	unsigned int index;
	void *task; /* NULL: it does not run */
};

/** struct gw_session - what a server's thread has while it is up. */
struct gw_session {
	struct gw_server *s;
	struct gw_receiver receivers[GW_MEMORY_CONNECTIONS];
	bool compared; /* so something may be known to be lost, or be asked for */
	struct gw_encoder encoder;
	struct gw_batch batch;
	uint8_t *runs; /* GW_RUNS_MAX * GW_RUN_LEN */
	struct gw_runs_queue releases;
};

static inline struct gw_split *gw_server_split(const struct gw_server *s)
{
	return s->all->split;
}

static inline int64_t gw_server_now(const struct gw_server *s)
{
	return s->all->tasks->now(s->all->env);
}

/** gw_server_signal() - there is something to do for its task. Its lock is held. */
static inline void gw_server_signal(struct gw_server *s)
{
	s->all->tasks->signal(s->all->env, &s->work);
}

/**
 * gw_bulk_step() - fetch, page out, or release, whatever there is to do now.
 * @did: set if there was any
 *
 * Return: 0, or -errno with a message: the connection is of no use any more.
 */
int gw_bulk_step(struct gw_session *e, bool *did);

#endif
