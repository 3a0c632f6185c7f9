/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serve.h - a memory server's side of the conversation about one VM (wire/messages.h, "A VM
 * whose memory lies on several hosts"; decision 32).
 *
 *            begin()                                requests(), connection 0
 *   HOLD ──> held ──> MISSING ... ──> compared ──┬── REQUEST: pages
 *                                                │── DISMISS: dismissed
 *                                                └── bulk(), connection 1
 *                                                    PAGES, RELEASE, REQUEST
 *
 * Whatever connection is lost, both are made again, 0 first, and all begins anew with what lies
 * here then: nothing is dropped because somebody is gone.
 *
 * Rules: nothing that the main host says is trusted (invariant 10). A lie, or an error here, ends
 * the connections with an ERROR that says what it was; what was stored stays. Records are decoded
 * that need no other page, and nothing that is known here; those that are sent need none, either
 * (gw_encoder_bare()).
 *
 * Threads: begin() and requests() in one, bulk() in another, once begin() has returned 0. Each
 * alone sends and receives on its connection. The main host must go on reading each while it sends
 * there. Time, and what is promised, come through ops, so that a simulation may drive it.
 */
#ifndef GW_MEMSERVE_H
#define GW_MEMSERVE_H

#include "frame.h"
#include "hold.h"
#include "pipeline.h"
#include "store.h"
#include "transport.h"

/* The main host has dismissed what it has here: all is to be removed. */
#define GW_MEMSERVE_DISMISSED 1

struct gw_memserve_ops {
	int64_t (*now)(void *env);
	/*
	 * HOLD has come: promise what it asks for, and open the store, which stays the env's.
	 * 0, or -errno with what the main host is told.
	 */
	int (*hold)(void *env, const struct gw_hold *hold, struct gw_memstore **store);
};

/** struct gw_memserve_way - one of the connections. */
struct gw_memserve_way {
	struct gw_encoder encoder;
	struct gw_batch batch;
	struct gw_decoder decoder;
	struct gw_frame frame;
	bool ready; /* encoder and batch are open */
	/* what is gathered of an answer */
	size_t chunk;
	struct gw_pageset pages;
};

struct gw_memserve {
	const struct gw_memserve_ops *ops;
	void *env;
	const char *host; /* ours */
	struct gw_hold hold;
	struct gw_memstore *store;
	struct gw_sink sink;
	struct gw_memserve_way ways[GW_MEMORY_CONNECTIONS];
	_Atomic uint64_t asked, sent, stored; /* pages, since gw_memserve_init() */
};

/** gw_memserve_init() - @host, @ops, @env: the caller's, as long as it is. */
void gw_memserve_init(struct gw_memserve *s, const struct gw_memserve_ops *ops, void *env,
		      const char *host);
void gw_memserve_free(struct gw_memserve *s);

/**
 * gw_memserve_begin() - until both sides know what lies here.
 * @t: connection 0, past ACCEPT
 *
 * Return: 0; GW_MEMSERVE_DISMISSED; or -errno, and the main host was told why.
 */
int gw_memserve_begin(struct gw_memserve *s, struct gw_transport *t);

/** gw_memserve_requests() - answer on connection 0 until it ends. Never 0; as above. */
int gw_memserve_requests(struct gw_memserve *s, struct gw_transport *t);

/** gw_memserve_bulk() - store, release and answer on connection 1 until it ends. Always -errno. */
int gw_memserve_bulk(struct gw_memserve *s, struct gw_transport *t);

/** gw_memserve_dismissed() - all is removed: tell the main host, on connection 0. */
void gw_memserve_dismissed(struct gw_transport *t);

#endif
