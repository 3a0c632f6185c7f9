/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peer.h - the daemon's --listen socket: other hosts.
 *
 * The daemon reads only OPEN, 64 bytes, and hands the connection on: to a new
 * worker (migrate), to the worker that waits for it (stream), to a memory server, to a process
 * that answers for the registry, or answers when the outcome is known (settle). Rules: nothing a
 * peer sends makes the daemon wait or allocate (invariant 10). One that says nothing is dropped
 * after a while; or earlier, where too many do, the oldest first: of one address, before
 * those of others.
 */
#ifndef GW_PEER_H
#define GW_PEER_H

#include "jobs.h"
#include "loop.h"
#include "registrar.h"

struct gw_peers;

/** gw_peers_new() - listen on @address ("IP:PORT"). NULL with a message. */
struct gw_peers *gw_peers_new(struct gw_loop *loop, struct gw_jobs *jobs,
			      struct gw_registrar *registrar, const char *address);
void gw_peers_free(struct gw_peers *p);

/** gw_peers_expire() - drop connections that have not sent OPEN in time. */
void gw_peers_expire(struct gw_peers *p);

#endif
