/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peers.h - the one way to another host's godwitd: a connection, and OPEN on it.
 *
 * Whoever needs a peer (a migration's control connection and streams, `godwit
 * recover`, a registry) comes here, so that what a connection needs before its first
 * frame is in one place: its credentials, when there are any, belong into struct
 * gw_peer, and their handshake into gw_peer_connect().
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
