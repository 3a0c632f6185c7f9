/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * net.h - the network between the two hosts, as far as TCP shows it.
 *
 * Bytes arrive in order, after the link's latency and at its rate; a sender
 * waits while the window is full. An end of file travels like the bytes before
 * it. A cut link loses what is under way without telling anybody, and both
 * ends give up after GW_TCP_SILENCE_MS; a stalled one delays it.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "fiber.h"
#include "rng.h"
#include "transport.h"

/* What may be under way and unread in one direction. */
#define NET_WINDOW (256UL << 10)

/**
 * struct net_link - an idle one.
 * @latency: ns one way
 * @uneven: and up to so many more for each piece, so that what is sent on one connection overtakes
 *	    what was sent on another
 * @rate: bytes per second; @rate_now: NULL, or what it is just now
 * @wake: by a transport's wake_fd: whether its receiver is to look
 */
struct net_link {
	uint64_t seed;
	int64_t latency, uneven;
	uint64_t rate;
	uint64_t (*rate_now)(uint64_t rate);
	const bool *wake;
};

void net_init(const struct net_link *link);

/** net_open() - connect: the ends at @here (returned) and @there, after a round trip. */
struct gw_transport *net_open(struct process *here, struct process *there,
			      struct gw_transport **peer, int64_t deadline);

/** net_give() - hand an end to another process, as a daemon does to its worker. */
void net_give(struct gw_transport *t, struct process *process);

/** net_readable() - whether the peer has said something, or will never again; a fiber_ready. */
bool net_readable(struct gw_transport *t, int64_t *when);

/** net_leave() - what the kernel does to the connections of a process that has died. */
void net_leave(const struct process *process);

/** net_cut(), net_mend() - from here on nothing arrives; new connections work again. */
void net_cut(void);
void net_mend(void);

/** net_cut_of() - what @process has open is cut as net_cut() does it; others' is not. */
void net_cut_of(const struct process *process);

/** net_cut_for() - ns since the link was cut; 0: it is not. */
int64_t net_cut_for(void);

/** net_stall() - nothing arrives for @ns, then everything does. */
void net_stall(int64_t ns);

/** net_cut_one() - the same for the connection on which something is sent next, alone. */
void net_cut_one(void);

/** net_damage() - flip a bit of what is sent next. */
void net_damage(void);

/** net_ends() - transports that nobody has closed yet. */
unsigned int net_ends(void);

#endif
