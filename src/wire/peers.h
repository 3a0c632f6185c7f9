/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peers.h - the one way to another host's godwitd, and from it: a connection, and OPEN on it.
 *
 * Whoever needs a peer (a migration's control connection and streams, `godwit
 * recover`, a registry) comes here, and so does whoever was called by one, so that
 * what a connection needs before its first frame is in one place. There are no
 * credentials in this release. When there are, they are the host's: the daemon reads
 * them once, before it forks whoever connects, and nobody passes them here. Their
 * handshake goes into gw_peer_connect() and gw_peer_accept(), and their session behind
 * struct gw_transport.
 *
 * What has no session to bring along is the descriptor that daemon/peer.c hands to the
 * process which a connection is for, once it has read OPEN from it as it came.
 */
#ifndef GW_PEERS_H
#define GW_PEERS_H

#include "address.h"
#include "frame.h"
#include "messages.h"
#include "transport.h"

/** struct gw_peer - another host's godwitd, and what to heed while we wait for it. */
struct gw_peer {
	const char *address; /* HOST:PORT */
	struct gw_wake wake; /* while it is connected; .fd -1: nothing */
};

/**
 * gw_peer_connect() - a connection to @peer by @deadline (ns).
 * Return: the transport (gw_transport_close()), or NULL with a message.
 */
struct gw_transport *gw_peer_connect(const struct gw_peer *peer, int64_t deadline);

/**
 * gw_peer_accept() - the other end: a connection that a peer has made to us.
 * @fd: connected, and the transport's from here, even if there is none
 *
 * Return: the transport, or NULL with a message.
 */
struct gw_transport *gw_peer_accept(int fd);

/**
 * gw_peer_open() - begin the dialogue: OPEN, and its answer.
 * @open: kind, stream and id; the versions are filled in here (but for a higher least one)
 * @answer: the type that is due, GW_MSG_ACCEPT for most kinds
 * @f: the answer; the caller's gw_frame_free()
 * @deadline: ns
 *
 * Return: 0; -EREMOTEIO if the peer refuses, with its text; -EPROTO if it says anything
 * else, or a version that we did not offer; or the transport's -errno.
 */
int gw_peer_open(struct gw_transport *t, const struct gw_open *open, unsigned int answer,
		 struct gw_frame *f, int64_t deadline);

#endif
