/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sent.h - pages as they were last sent, as many as fit: the bases of deltas.
 *
 * Laid out like a processor's cache: a page has GW_SENT_WAYS places, those of
 * its set, and lies in one of them or nowhere. Pages in a row have sets in a
 * row, so a working set in a row fills the cache to its last place.
 *
 * What is written over and over is worth keeping, and all of it, over again:
 * were the oldest page of a set to give way to every new one, a working set a
 * little larger than the cache would never find anything in it. So a page gives
 * way only if nothing was gained from it lately: for GW_SENT_AGE rounds it was
 * not sent, or the last delta from it did not pay. New ones that find no place
 * are left out; which of a round's new ones find one is drawn by lot, lest it
 * be the lowest in memory each time.
 *
 * Locking: one lock per set, inside. The pages of a chunk are one stream's in a
 * round; the locks are for the sets, which pages of several chunks share.
 *
 * Memory: one mapping, never larger than what was asked for. Of it 35 bytes per
 * page (0.9 %) are not the page; what holds no page yet costs no memory.
 */
#ifndef GW_SENT_H
#define GW_SENT_H

#include "digest.h"

#define GW_SENT_WAYS 8
#define GW_SENT_AGE  4

struct gw_sent;

/**
 * gw_sent_open() - an empty cache.
 * @bytes: that it may use in all; NULL is stored if no set fits
 *
 * Return: 0 or -ENOMEM. gw_sent_close() either way.
 */
int gw_sent_open(struct gw_sent **sent, uint64_t bytes);
void gw_sent_close(struct gw_sent *sent);

/** gw_sent_bytes() - what it maps, all included. */
size_t gw_sent_bytes(const struct gw_sent *sent);

/** gw_sent_places() - pages that fit. */
size_t gw_sent_places(const struct gw_sent *sent);

/**
 * gw_sent_take() - page @page as it was last sent, with its set locked.
 * @held: digest of what the destination holds; other bytes are no base (invariant 11)
 *
 * Return: GW_PAGE_SIZE bytes until gw_sent_give(), or NULL, with nothing locked.
 */
const uint8_t *gw_sent_take(struct gw_sent *sent, size_t page, struct gw_digest held);

/**
 * gw_sent_give() - the page that was taken is sent as @bytes with @digest.
 * @round: this one, or 0 if the delta did not pay: the page stays, but gives way to any
 */
void gw_sent_give(struct gw_sent *sent, size_t page, struct gw_digest digest, const uint8_t *bytes,
		  uint64_t round);

/**
 * gw_sent_put() - page @page is sent in @round as @bytes with @digest.
 *
 * One that is there is replaced; another is kept if there is a place for it.
 */
void gw_sent_put(struct gw_sent *sent, size_t page, struct gw_digest digest, const uint8_t *bytes,
		 uint64_t round);

/** gw_sent_drop() - forget page @page. */
void gw_sent_drop(struct gw_sent *sent, size_t page);

#endif
