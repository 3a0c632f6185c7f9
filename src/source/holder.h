/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * holder.h - a host that holds pages of the VM, as the source sees it: its
 * connections, what was agreed with it, what it holds, and how fast it was.
 *
 * A migration to one host has one holder. Whatever is said to a host, waited for
 * from it, or measured of it, is here or takes this; what is the guest's (its
 * memory, what is due, how it stands) is the source's.
 *
 * "Is held" means: by this host, and placed there. The encoder's table says so of a
 * page from when it went out; the barrier makes it true (invariant 11).
 *
 * Threads: a stream is its thread's within a round, and of the encoder the chunk
 * that it has taken; all else is the thread's that runs the machine.
 */
#ifndef GW_HOLDER_H
#define GW_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "bitmap.h"
#include "frame.h"
#include "messages.h"
#include "pipeline.h"
#include "transport.h"

#define GW_STREAMS_MAX 64

struct gw_source_ops;

struct gw_holder {
	/* set before anything else; the source's */
	const struct gw_source_ops *ops;
	void *env;
	const uint8_t *id; /* of the migration, GW_ID_LEN bytes */

	/* agreed */
	uint32_t features;	/* of enum gw_feature: those that both sides have */
	uint32_t stages;	/* of enum gw_stage_id: those that it reads */
	uint16_t version;	/* in OPEN */
	char host[GW_HOST_MAX]; /* its name, from READY; empty until then */

	/* connections */
	struct gw_transport *control;
	struct gw_transport *streams[GW_STREAMS_MAX];
	uint64_t round;	       /* number of the last one that was begun: its barrier */
	uint64_t transferred;  /* on all of them, once they are closed */
	struct gw_frame inbox; /* what came last on the control connection */
	unsigned int nr_streams;
	bool waited;	     /* what came last is a WAIT */
	unsigned int late;   /* BLOCKS that are no longer waited for, and may still come */
	bool revoked;	     /* it has answered that the guest never ran there, and never will */
	char waits_for[128]; /* what it is at, while that is all that happens */

	/* what it holds */
	struct gw_encoder encoder;
	struct gw_bitmap absent; /* pages of its image that are not what they were */
	_Atomic uint64_t absent_pages;
	/* compared.c: it is still comparing its image */
	struct gw_bitmap pending; /* pages whose reuse depends on that */
	struct gw_bitmap look;	  /* of these: to be looked at here, too */
	size_t compared;	  /* up to this page it is done */
	bool comparing;
	json_t *disks; /* that it may read instead of pages, by name; NULL: none */
	/* What it says is lacking (REFUSED), where it may; NULL: it may not. 0 or -errno. */
	int (*on_refused)(void *arg);
	void *refused_arg;
	bool unchecked; /* it compares its image as the guest runs there (decision 29) */
	uint32_t image; /* departure whose image it kept; 0: none */

	/* measured */
	uint64_t bandwidth;   /* bytes per second */
	int64_t round_trip;   /* ns, of the control connection */
	double wire_per_page; /* bytes */
	double page_ns;	      /* in a round, however little of it travels */
};

/* A failure of its connection, or what it says in the end, has "destination: " in front. */

/** gw_holder_open() - the control connection, past OPEN and ACCEPT. 0 or -errno. */
int gw_holder_open(struct gw_holder *h);

/** gw_holder_connect() - one connection more, of @kind, past OPEN and ACCEPT. 0 or -errno. */
int gw_holder_connect(struct gw_holder *h, enum gw_open_kind kind, unsigned int index,
		      struct gw_transport **out);

/** gw_holder_open_streams() - @nr more; the message of a failure says which of them. */
int gw_holder_open_streams(struct gw_holder *h, unsigned int nr);

/**
 * gw_holder_expect() - receive a message, which must be @type, into h->inbox.
 *
 * Return: 0; -EREMOTEIO with its text if it is ERROR or CANCEL (or, where RUNNING is due,
 * SETTLED: then h->revoked); -EPROTO; or what the transport says.
 */
int gw_holder_expect(struct gw_holder *h, unsigned int type, int64_t deadline);

/**
 * gw_holder_expect_patiently() - the same of a host that may be at work for long, and says so.
 * @silence: ns without a word (WAIT) that end it
 * @by: what ends it, whatever it says
 */
int gw_holder_expect_patiently(struct gw_holder *h, unsigned int type, int64_t silence, int64_t by);

/** gw_holder_heed_ready() - its name and what it can do, from the READY in h->inbox. */
int gw_holder_heed_ready(struct gw_holder *h);

/** gw_holder_has() - whether both sides have @feature (enum gw_feature). */
static inline bool gw_holder_has(const struct gw_holder *h, unsigned int feature)
{
	return h->features >> feature & 1;
}

/**
 * gw_holder_wait_round() - until all that was sent in h->round has been placed there.
 *
 * Where it may refuse some of that (h->on_refused), it may also say that it is at work.
 */
int gw_holder_wait_round(struct gw_holder *h, int64_t deadline);

/** gw_holder_send_by() - nothing that is sent waits beyond @deadline; 0: while it is there. */
void gw_holder_send_by(struct gw_holder *h, int64_t deadline);

/** gw_holder_halt() - end the streams under those who use them; from any thread. */
void gw_holder_halt(struct gw_holder *h);

/** gw_holder_wire_bytes() - bytes sent on the streams so far, headers included. */
uint64_t gw_holder_wire_bytes(const struct gw_holder *h);

/** gw_holder_transferred() - bytes on all connections so far, in both directions. */
uint64_t gw_holder_transferred(const struct gw_holder *h);

/** gw_holder_close() - the connections and what they needed; not the encoder. */
void gw_holder_close(struct gw_holder *h);

#endif
