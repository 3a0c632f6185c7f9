/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * holes.h - pages emptied behind the tracker's back (F8): punched out of the RAM
 * file by a balloon, by free-page reporting, by virtio-mem.
 *
 * No tracker can tell of all of them. A page that is punched while it is clean
 * keeps its mark, and one that is then read has an entry again, present and
 * protected like that of a page that nobody touched, over a new page of zeros.
 *
 * Two witnesses tell, and neither asks the file where its holes are (F20):
 *
 *  - inotify hears that a file was punched at all: fallocate() and
 *    madvise(MADV_REMOVE) are modifications of the file, stores through a mapping
 *    are not. As long as it is silent nothing was punched, and nothing is done.
 *  - A mapping of our own, never written through: a page that is punched loses its entry
 *    in every page table, and in ours nobody brings it back. It is made only
 *    where punching is to be expected, or was heard.
 *
 * Rule: each page that the destination holds with content has an entry in our
 * mapping that is older than the copy which was sent; or it is due as soon as anything
 * is heard. So a guest that gives nothing back while it moves pays nothing, and one
 * whose balloon is operated just then is looked at once more, wholly.
 *
 * The mapping costs 8 bytes a page of page table, a bit a page, about 0.2 s of a
 * processor per GiB to make, and 1.4 ms per GiB each time it is looked through (as
 * much as a scan, and like it on all streams). Decision 19 has more.
 *
 * Threads: gw_holes_due() and gw_holes_read() for chunks that are the caller's.
 */
#ifndef GW_HOLES_H
#define GW_HOLES_H

#include <stdbool.h>

#include "bitmap.h"
#include "digest.h"
#include "memory.h"

struct gw_holes;

/**
 * gw_holes_open() - begin to watch; before anybody looks where the data is.
 * @memory: must outlive it
 * @expected: the guest gives memory back all the time: make the mapping at once
 *
 * Return: 0 or -errno. gw_holes_close() either way.
 */
int gw_holes_open(struct gw_holes **holes, const struct gw_memory *memory, bool expected);

/** gw_holes_open_deaf() - who hears what was punched from somebody else: only gw_holes_read(). */
int gw_holes_open_deaf(struct gw_holes **holes, const struct gw_memory *memory);
void gw_holes_close(struct gw_holes *h);

/**
 * gw_holes_heard() - whether anything may have been punched since it was last asked.
 *
 * If so, gw_holes_due() must be called for all pages; after the tracker's scan, by which
 * a page that is written after it was punched is found anyway.
 *
 * Return: 1, 0 or -errno.
 */
int gw_holes_heard(struct gw_holes *h);

/**
 * gw_holes_surprise() - whether the first punch was just made: gw_holes_due() will then find due
 * all that is held, so a scan is for rounds and not for a guest that is stopped.
 */
bool gw_holes_surprise(const struct gw_holes *h);

/**
 * gw_holes_due() - pages of [first, first + count) that were emptied.
 * @held: what the destination holds; what it holds as zero is not due
 * @due: their bits are set here (invariant 4), and those of pages of which nothing is known
 *
 * Return: 0 or -errno.
 */
int gw_holes_due(struct gw_holes *h, size_t first, size_t count, const struct gw_digests *held,
		 struct gw_bitmap *due);

/**
 * gw_holes_read() - gw_memory_read(), so that what is copied here has its witness.
 *
 * Holes stay holes. Return: 0 or -errno.
 */
int gw_holes_read(struct gw_holes *h, size_t page, size_t count, uint8_t *buf);

#endif
