/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tunnel.h - the bytes of a socket of this host, carried over a connection to a peer (STORAGE
 * frames): what two QEMUs say to each other goes the way that Godwit's own messages go, with
 * whatever guards those, and within the same bandwidth limit.
 *
 *   local socket ──> thread "out" ──> STORAGE frames ──> peer's thread "in" ──> its local socket
 *               <── thread "in"  <──               <── peer's thread "out" <──
 *
 * Rules: nothing of it is looked at. Either end's end is the other's: whoever waits on the local
 * socket hears of a peer that is gone at once. What is under way is bounded by the buffers of the
 * sockets and one frame each way.
 */
#ifndef GW_TUNNEL_H
#define GW_TUNNEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pace.h"
#include "transport.h"

/* Bytes that one frame carries at most. */
#define GW_TUNNEL_PART (256UL << 10)

struct gw_tunnel {
	/* set by the caller; the tunnel's from gw_tunnel_start() on */
	struct gw_transport *t; /* past its handshake */
	int fd;			/* the local socket */
	/* set by the caller, and its: what paces "out"; NULL: nothing does */
	struct gw_pace *pace;
	uint64_t limit; /* bytes per second */

	pthread_t out, in;
	bool runs;
	_Atomic bool cut;
	_Atomic uint64_t sent, received; /* bytes of the local socket */
	_Atomic int64_t asked, heard;	 /* when the last of each went, or came (ns) */
};

/** gw_tunnel_start() - carry until an end. 0 or -errno; then both are closed already. */
int gw_tunnel_start(struct gw_tunnel *n);

/**
 * gw_tunnel_owes() - whether something went to the peer and nothing has come since: whoever asked
 * it for something waits for it. (One that has answered a part of what it was asked is not told
 * apart from one that has answered all.)
 */
static inline bool gw_tunnel_owes(const struct gw_tunnel *n)
{
	return n->asked > n->heard;
}

/** gw_tunnel_cut() - end both ways now. Any thread; never waits. */
void gw_tunnel_cut(struct gw_tunnel *n);

/** gw_tunnel_stop() - the same, and wait for its threads, which is soon. Harmless on a zeroed one.
 */
void gw_tunnel_stop(struct gw_tunnel *n);

#endif
