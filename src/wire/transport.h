/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * transport.h - one connection to a peer, whatever carries it.
 *
 * TCP today (tcp.c), TLS behind the same ops tomorrow, queues in virtual time
 * in tests/sim. Rules: one thread sends and one receives at a time; a failed
 * transport stays failed; the message names the peer.
 */
#ifndef GW_TRANSPORT_H
#define GW_TRANSPORT_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "clock.h"

struct gw_transport;

/* How often something is looked at that must happen in time. */
#define GW_TICK_NS (5 * GW_MS)

struct gw_transport_ops {
	/* Send all of @iov (which it may change). -ECONNRESET, -ETIMEDOUT, ... when it cannot. */
	int (*send)(struct gw_transport *t, struct iovec *iov, int n);
	/* Receive exactly @len bytes by @deadline (ns). -ECONNRESET: the peer is gone. */
	int (*recv)(struct gw_transport *t, void *buf, size_t len, int64_t deadline);
	/* End both directions; wakes whoever waits in send or recv. Any thread. */
	void (*shutdown)(struct gw_transport *t);
	void (*close)(struct gw_transport *t);
};

struct gw_transport {
	const struct gw_transport_ops *ops;
	_Atomic uint64_t sent;	   /* bytes handed to the network */
	_Atomic uint64_t received; /* bytes taken from it */
	int64_t round_trip;	   /* ns, of the connection's first packets; 0: not measured */
	/*
	 * When a send that cannot go on fails (ns; 0: it waits as long as the peer is
	 * there). A peer that is stopped, or that does not read, keeps none waiting longer.
	 * Any thread may change it: a send that waits goes by what it is then.
	 */
	_Atomic int64_t send_by;
	/*
	 * While somebody waits to send or to receive, on_tick (NULL: none) is called
	 * every GW_TICK_NS: 0 to go on waiting, -errno (message recorded) to give up.
	 * Only where one thread does both.
	 */
	int (*on_tick)(void *arg);
	void *tick_arg;
	/*
	 * While a receiver waits, it also watches wake_fd (-1: none) and calls
	 * on_wake when that is readable: 0 to go on waiting, -errno (message
	 * recorded) to give up.
	 */
	int poll_fd; /* readable once the peer has said something; -1: cannot be polled */
	int wake_fd;
	int (*on_wake)(void *arg);
	void *wake_arg;
};

/**
 * gw_transport_lost() - whether @rc means that the peer, or the way to it, is
 * gone. What it said before that may still be waiting to be read.
 */
static inline bool gw_transport_lost(int rc)
{
	return rc == -ECONNRESET || rc == -ETIMEDOUT || rc == -EHOSTUNREACH || rc == -ENETUNREACH;
}

static inline void gw_transport_close(struct gw_transport **t)
{
	if (*t)
		(*t)->ops->close(*t);
	*t = NULL;
}

struct gw_wake;

/**
 * gw_tcp_dial() - connect to "HOST:PORT" (address.h) by @deadline (ns).
 * @wake: heeded while it connects; may be NULL
 *
 * All addresses of a name are tried: each gets a head start before the next, and
 * the first that answers is taken. A peer whose kernel is silent is given up after
 * GW_TCP_SILENCE_MS, one that takes nothing of what we send after GW_TCP_STALL_MS.
 *
 * Return: the transport (gw_transport_close()), or NULL with a message.
 */
struct gw_transport *gw_tcp_dial(const char *address, int64_t deadline, const struct gw_wake *wake);

/** gw_tcp_adopt() - a transport over a connected socket, which it then owns. */
struct gw_transport *gw_tcp_adopt(int fd);

/**
 * gw_tcp_listen() - a listening socket on "IP:PORT"; ":PORT" hears IPv4 and IPv6.
 * Return: descriptor or -errno.
 */
int gw_tcp_listen(const char *address);

/* Silence after which a peer counts as lost, in setup and rounds alike. */
#define GW_TCP_SILENCE_MS 5000

/*
 * A peer that is there and takes nothing: a busy one, a stopped one. Much longer than
 * what it may have to do in between, such as digests of a big guest's memory.
 */
#define GW_TCP_STALL_MS 120000

#endif
