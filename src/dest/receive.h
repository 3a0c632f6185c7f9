/* SPDX-License-Identifier: GPL-2.0-or-later */
/* receive.h - the streams' end of a migration: frames in, pages placed, barriers kept. */
#ifndef GW_RECEIVE_H
#define GW_RECEIVE_H

#include "dest.h"

/** gw_receive_start() - start a receiver on each of @d->streams. 0 or -errno. */
int gw_receive_start(struct gw_dest *d);

/**
 * gw_receive_wait() - wait until every stream has delivered round @round.
 * @silence: ns without a byte on any of them, which end it
 *
 * And until what it referred to on this host's disks is placed, or the source has been told that
 * it is lacking (teleport.h).
 *
 * Return: 0, -ETIMEDOUT, or the failure of the stream that failed.
 */
int gw_receive_wait(struct gw_dest *d, uint64_t round, int64_t silence);

/**
 * gw_receive_stop() - end the receivers and wait for them.
 *
 * When it returns no frame can change memory any more. Harmless where none run.
 */
void gw_receive_stop(struct gw_dest *d);

/** gw_receive_hand_over() - what reads disks goes on for post-copy, in gw_dest.teleport. */
void gw_receive_hand_over(struct gw_dest *d);

#endif
