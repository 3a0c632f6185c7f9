/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * waiting.h - pages that are due and not sent, because they are expected to be written again (paper
 * ZawThein, IV).
 *
 *   first round   everything but the hot pages
 *
 *   a round       what was written since the last; hot pages among it wait, and those that waited
 *                 and were not written have cooled: they go, and are hot no more
 *
 *   last round    what was written, and what waits
 *
 * So a page that waits costs one page of the last round, whatever it does. Which pages are hot,
 * somebody has predicted before the first round (working_set.h), or it is learned from the rounds:
 * a page is hot if it was written in each of the last two.
 *
 * Rule: what waits is due, and not held by anybody as it is now; whoever asks what is left to be
 * sent adds it.
 *
 * Not locked.
 */
#ifndef GW_WAITING_H
#define GW_WAITING_H

#include "bitmap.h"

struct gw_waiting {
	struct gw_bitmap hot, waits;
	struct gw_bitmap before;	  /* written in the last round but one; if it learns */
	struct gw_bitmap predicted, seen; /* ever hot and due; of these, written again since */
	size_t nr_waits, nr_predicted, nr_seen; /* of these maps */
	bool learns;
};

/** gw_waiting_init() - nothing is hot. 0/-ENOMEM; gw_waiting_free(), which keeps the numbers. */
int gw_waiting_init(struct gw_waiting *w, size_t pages, bool learns);
void gw_waiting_free(struct gw_waiting *w);

/** gw_waiting_first() - take the hot pages, as the caller has set them, out of the first @due. */
void gw_waiting_first(struct gw_waiting *w, struct gw_bitmap *due);

/**
 * gw_waiting_room() - how many pages may wait in the next round.
 * @fits: so many fit into the last round
 * @before, @now: what the last round would have cost before this one, and what it would cost now
 *
 * Half of what fits is left for what is not foreseen. Who learns has pages wait only where rounds
 * get nowhere, so that a guest which is moved without is moved as it would have been.
 */
size_t gw_waiting_room(const struct gw_waiting *w, size_t fits, int64_t before, int64_t now);

/**
 * gw_waiting_scan() - @due was written since the last round: what waits now is taken out of it, and
 * what has cooled added.
 * @held: pages that have travelled; NULL: all. Of what is learned only those may wait: another is
 *	looked at in each round, and travels once its writes change nothing (decision 11).
 * @room: pages that may wait. With less than waits already, what has waited goes, too.
 */
void gw_waiting_scan(struct gw_waiting *w, struct gw_bitmap *due, const struct gw_bitmap *held,
		     size_t room);

/** gw_waiting_end() - the last round: what waits is added to @due, and nothing waits any more. */
void gw_waiting_end(struct gw_waiting *w, struct gw_bitmap *due);

/** gw_waiting_count() - pages that wait and are not in @written: they are left, too. */
size_t gw_waiting_count(const struct gw_waiting *w, const struct gw_bitmap *written);

#endif
