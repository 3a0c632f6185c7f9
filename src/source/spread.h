/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spread.h - a migration to several hosts (decision 32): a part of the memory goes to sub-hosts,
 * each page straight to its holder, and the guest to its main host, which is the destination.
 *
 *   open     each sub-host promises its part; which of the memory the guest uses is looked at, and
 *            by that it is decided, once, whose each unit is (paper S-memV, IV-C)
 *   rounds   a thread for each sub-host beside the streams; its barrier is that all is STORED
 *   tell     the main host hears what is where, between rounds
 *   leave    before LOAD: from here on the sub-hosts are the main host's
 *   dismiss  on every way out before COMMIT: the sub-hosts need to hold nothing
 *
 * With --replicas 2 each page goes to two of them: the thread of the one whose it is sends each
 * frame to the other, too. So they have the same, and the table of what one has is that of both.
 *
 * What a sub-host holds, the table of the destination's encoder says (page/digest.h), as of all
 * pages: so what is written but unchanged does not travel, and what is emptied is found. A page
 * of zeros is nowhere: what was there before it is released.
 *
 * Rules: a sub-host that fails fails the migration, and the guest runs on here. So many frames at
 * most are not stored yet, that a server which says so never waits for us to read it: one thread
 * can send and receive.
 *
 * Threads: in a round what is a sub-host's belongs to its thread, but what was sent there, which
 * has a lock; else to the machine's.
 */
#ifndef GW_SPREAD_H
#define GW_SPREAD_H

#include <jansson.h>
#include <pthread.h>

#include "ageing.h"
#include "messages.h"
#include "pipeline.h"
#include "told.h"
#include "transport.h"
#include "units.h"

/* Whose a chunk is that goes to no sub-host. */
#define GW_SPREAD_MAIN 0xff

struct gw_source;

/** struct gw_sub - one sub-host. */
struct gw_sub {
	/* set by the caller */
	char address[GW_ADDRESS_MAX];
	uint64_t size; /* bytes that may be put there */

	char host[GW_HOST_MAX]; /* what it calls itself; "": not known yet */
	struct gw_transport *conns[GW_MEMORY_CONNECTIONS];
	uint32_t stages;	  /* that it reads */
	bool asked;		  /* to hold something, and not dismissed */
	uint64_t transferred;	  /* on connections that are closed */
	pthread_mutex_t lock;	  /* of the connection on which pages go there, and these */
	uint64_t sent, stored;	  /* PAGES frames */
	size_t next;		  /* chunk: those from here on were not sent in this round */
	size_t units;		  /* that are its */
	_Atomic uint64_t pages;	  /* that lie there, as the main host was told */
	_Atomic uint64_t arrived; /* pages that were sent */
	struct gw_encoder encoder;
	struct gw_batch batch;
	bool ready; /* these two are */
	struct gw_frame inbox;
};

struct gw_spread {
	/* set by the caller, and owned by it */
	const json_t *define; /* DEFINE's "split" */
	uint64_t main_memory; /* bytes that the main host may have */
	uint64_t stay;	      /* pages that are to be there at first, at most */
	unsigned int unit_pages;
	unsigned int copies; /* how many sub-hosts are to have each page */
	struct gw_sub subs[GW_HOLDERS_MAX];
	unsigned int nr;

	struct gw_units units;
	uint8_t *owners;  /* of each chunk */
	uint8_t *seconds; /* who has it beside them; NULL: nobody */
	struct gw_told told;
	bool sampling;
	int64_t history_ns; /* that it took to see what is used */
};

/** gw_spread_open() - promises and plan; the destination is READY. 0 or -errno. */
int gw_spread_open(struct gw_source *s);

/** gw_spread_start() - after gw_round_start(), whose encoder it stands beside. 0 or -errno. */
int gw_spread_start(struct gw_source *s);

/** gw_spread_owner() - whose chunk @chunk is: a number of @sp->subs, or GW_SPREAD_MAIN. */
static inline unsigned int gw_spread_owner(const struct gw_spread *sp, size_t chunk)
{
	return sp && sp->owners ? sp->owners[chunk] : GW_SPREAD_MAIN;
}

/** gw_spread_round() - a round begins. */
void gw_spread_round(struct gw_source *s);

/** gw_spread_send() - chunk @chunk's due pages, to sub-host @k whose it is. 0 or -errno. */
int gw_spread_send(struct gw_source *s, unsigned int k, size_t chunk);

/** gw_spread_barrier() - until sub-host @k has stored all that it was sent. 0 or -errno. */
int gw_spread_barrier(struct gw_source *s, unsigned int k);

/** gw_spread_halt() - end its connections under those who use them; from any thread. */
void gw_spread_halt(struct gw_source *s);

/** gw_spread_tell() - tell the main host what has changed since the last time. 0 or -errno. */
int gw_spread_tell(struct gw_source *s);

/** gw_spread_leave() - all is stored: the sub-hosts are the main host's from here on. */
int gw_spread_leave(struct gw_source *s);

/**
 * gw_spread_dismiss() - the guest is not to run there: no sub-host needs to hold anything. One
 * that cannot be reached keeps what it has, which is logged.
 */
void gw_spread_dismiss(struct gw_source *s);

/** gw_spread_bytes() - bytes sent to sub-hosts so far, headers included. */
uint64_t gw_spread_bytes(const struct gw_spread *sp);

/** gw_spread_json() - how it stands; the caller's. */
json_t *gw_spread_json(const struct gw_spread *sp);

/** gw_spread_free() - and close the connections. */
void gw_spread_free(struct gw_spread *sp);

#endif
