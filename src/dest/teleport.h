/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * teleport.h - pages that are read from this host's disks instead of the network.
 *
 * A record names a place on a disk and the digests of what should lie there
 * (page/stage_teleport.c). It is put aside, and the stream goes on; the disks are read beside it,
 * in their own order and much at a time, and what has the right digest is placed. What has not,
 * or has not been read in time, is lacking: the source hears of it before ROUND_DONE.
 *
 *   put aside ──> being read ──> placed
 *       │              │  (another digest, or no answer)
 *       └──────────────┴──────> lacking
 *
 * Rules: nothing is placed after the round's end was told, so that whatever comes in the next one
 * is newer. A read that hangs is left alone; when it ends after all nobody wants it. In each round
 * a page is put aside once at most, and no more than 16 GiB of them at a time: the rest is lacking.
 *
 * In post-copy (gw_teleport_follow()) there are no rounds. What is read is placed as what the
 * source sends is, whichever comes first (paging.h), and what is lacking is refused at once: by the
 * source's stop its page is what it is for good. A guest never waits for a disk, since what it
 * waits for is asked for.
 *
 * Threads: streams put aside, whoever has read brings, the machine's thread settles; one lock.
 */
#ifndef GW_TELEPORT_H
#define GW_TELEPORT_H

#include "dest.h"

struct gw_teleport;

/** gw_teleport_open() - for @d, whose prepare() has found disks to read. 0 or -ENOMEM. */
int gw_teleport_open(struct gw_dest *d, struct gw_sink *sink, struct gw_teleport **out);

/** gw_teleport_close() - once no stream puts anything aside any more. NULL is none. */
void gw_teleport_close(struct gw_teleport *t);

/**
 * gw_teleport_put() - @count pages from @page on are what a disk has at @at, if it has @digests.
 * For the sink's fetch. Return: 0, -EPROTO, -ENOMEM.
 */
int gw_teleport_put(struct gw_teleport *t, uint64_t page, unsigned int count, struct gw_hint at,
		    const uint8_t *digests);

/**
 * gw_teleport_settle() - all that was put aside is placed or lacking, and the source has been told
 * what is lacking. All streams have reached the barrier.
 * @rate: bytes per second at which they came. A disk that is slower than any round was, or than
 * 16 MiB/s, is not waited for
 */
int gw_teleport_settle(struct gw_teleport *t, uint64_t rate);

/**
 * gw_teleport_follow() - from here on what is put aside follows the guest: post-copy.
 * @sink: where it goes, and leaves alone what has come already
 * @refuse: @count pages from @page on are lacking; from any thread
 */
void gw_teleport_follow(struct gw_teleport *t, struct gw_sink *sink,
			void (*refuse)(void *arg, uint64_t page, unsigned int count), void *arg);

/** gw_teleport_look() - now and then: disks that are not worth it are left alone from here on. */
void gw_teleport_look(struct gw_teleport *t);

/**
 * gw_teleport_renew() - the source is about to hear what is missing: what was put aside is not
 * waited for, and nothing of it is placed any more. No stream puts anything aside meanwhile.
 *
 * Return: 0, or -errno with a message: some of it may still be.
 */
int gw_teleport_renew(struct gw_teleport *t);

#endif
