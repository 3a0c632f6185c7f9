/* SPDX-License-Identifier: GPL-2.0-or-later */
/* servers_internal.h - what servers.c (a server's thread, requests), bulk.c and copies.c share. */
#ifndef GW_SERVERS_INTERNAL_H
#define GW_SERVERS_INTERNAL_H

#include "cleanup.h"
#include "clock.h"
#include "frame.h"
#include "servers.h"
#include "split_internal.h"

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

/** gw_server_has_less() - so many pages fewer. What came while it was told may be counted twice. */
static inline void gw_server_has_less(struct gw_server *s, size_t pages)
{
	uint64_t has = s->away;

	while (!atomic_compare_exchange_weak(&s->away, &has, has > pages ? has - pages : 0))
		;
}

/** gw_server_signal() - there is something to do for its task. Its lock is held. */
static inline void gw_server_signal(struct gw_server *s)
{
	s->all->tasks->signal(s->all->env, &s->work);
}

/**
 * gw_servers_choose() - for whom @unit is to leave where each page is stored twice, as
 * gw_servers_may_leave() has it: for two, or for one where there is no other.
 *
 * Return: how many are in @to; 0: nobody; -EAGAIN: one that is away may be back at once, or one
 * that is full have room.
 */
int gw_servers_choose(struct gw_servers *v, size_t unit, unsigned int to[GW_COPIES_MAX]);

/**
 * gw_servers_remakes() - whether what @by has of @unit is to come back, for want of another copy of
 * some of it, and would find two servers that take it.
 */
bool gw_servers_remakes(const struct gw_servers *v, const struct gw_server *by, size_t unit);

/**
 * gw_server_listen() - where another has what it has: whether it answers still. One that stands
 * still with its connections open would keep waiting whoever has asked it.
 *
 * Return: 0, or -ETIMEDOUT with a message.
 */
int gw_server_listen(struct gw_server *s);

/** gw_servers_may_remake() - whether any copy may be missing for which there is a server. */
bool gw_servers_may_remake(const struct gw_servers *v);

/** struct gw_departure - a unit that leaves for two servers; of both, until both are done. */
struct gw_departure {
	struct gw_leaving l; /* as it was begun */
	uint64_t zero[GW_COPIES_MAX][GW_UNIT_WORDS];
	struct gw_server *by;
	_Atomic unsigned int left, stored;    /* how many are not done; who has it: bits */
	unsigned int sessions[GW_COPIES_MAX]; /* since when */
	struct gw_departure *next;	      /* of its other server's parts */
};

/**
 * gw_departure_begin() - @l leaves, and counts as being at @s: the other of the two that it leaves
 * for is to be sent it, too.
 * @shared: what they share; or NULL: it leaves for @s only
 *
 * Return: 0; -EAGAIN: @s has no room for it any more.
 */
int gw_departure_begin(struct gw_server *s, const struct gw_leaving *l,
		       struct gw_departure **shared);

/** gw_departure_take() - what another has begun, to be sent by @s; or NULL. Its lock is held. */
struct gw_departure *gw_departure_take(struct gw_server *s);

/**
 * gw_departure_end() - @s has stored what it was sent of @l; or does not. @shared: may be NULL.
 * Return: as gw_split_left().
 */
int gw_departure_end(struct gw_server *s, struct gw_departure *shared, const struct gw_leaving *l,
		     bool stored);

#define GW_CONNECT_NS (5 * GW_S)

/**
 * gw_server_greet() - connect, and tell it what it is to hold (greet.c).
 *
 * Return: 0: @e's session may begin; -errno with a message. Its thread's.
 */
int gw_server_greet(struct gw_session *e);

/** gw_server_hold() - the first of that: its HOLDING is in @f. 0 or -errno with a message. */
int gw_server_hold(struct gw_server *s, struct gw_frame *f, int64_t deadline);

/** gw_server_expect() - what it says next, which must be @type; 0: whatever. 0 or -errno. */
int gw_server_expect(struct gw_server *s, struct gw_frame *f, unsigned int type);

/** gw_server_take_absent() - pages that it has not got, in @f. 0 or -errno. */
int gw_server_take_absent(struct gw_server *s, const struct gw_frame *f);

/** gw_server_has_any() - whether a page of the VM is there. */
bool gw_server_has_any(const struct gw_server *s);

/**
 * gw_server_forget_stored() - what it has stored of units that have not left by now is not there
 * from here on: they were to leave for another, too, who is not done.
 */
static inline void gw_server_forget_stored(struct gw_server *s)
{
	gw_locked(&s->all->ending);

	s->sessions++;
}

/**
 * gw_bulk_step() - fetch, page out, or release, whatever there is to do now.
 * @did: set if there was any
 *
 * Return: 0, or -errno with a message: the connection is of no use any more.
 */
int gw_bulk_step(struct gw_session *e, bool *did);

#endif
