/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * working_set.h - which pages a guest will use next (paper ZawThein, IV).
 *
 * Fed with what was seen in windows of time, it tells which pages are expected in the next ones:
 *
 *   lru		those accessed last, whoever did
 *   lru-splay	those of the processes that ran last, as in the paper's Fig. 5
 *   written	those written last and most often: to send them now is to send them again
 *
 * A window in which more than one process was seen does not tell whose a page is. Then lru-splay
 * takes the pages that lie together for those of a process (process.h).
 *
 * Not locked.
 */
#ifndef GW_WORKING_SET_H
#define GW_WORKING_SET_H

#include "lru.h"
#include "marks.h"

enum gw_predictor {
	GW_PREDICT_LRU,
	GW_PREDICT_LRU_SPLAY,
	GW_PREDICT_WRITTEN,
};

/** struct gw_seen - what was seen of a guest in some time; the caller's. */
struct gw_seen {
	const struct gw_bitmap *accessed,
		*written;	   /* the one that the predictor does not use: NULL */
	const uint64_t *processes; /* that ran */
	size_t nr_processes;
};

struct gw_working_set {
	enum gw_predictor predictor;
	struct gw_marks marks;
	struct gw_lru lru;
	size_t windows, mixed;	/* seen; in which it was not known whose the pages are */
	unsigned int processes; /* of how many processes it is, those that ran last; 16 */
	unsigned int top;	/* entries of the cache that the last window has put there */
};

/**
 * gw_working_set_init() - of a guest with @pages pages, nothing of which was seen. 0/-ENOMEM;
 * gw_working_set_free(), which keeps the numbers.
 */
int gw_working_set_init(struct gw_working_set *ws, enum gw_predictor predictor, size_t pages);
void gw_working_set_free(struct gw_working_set *ws);

/** gw_working_set_add() - one more window has ended. */
void gw_working_set_add(struct gw_working_set *ws, const struct gw_seen *w);

/**
 * gw_working_set_take() - set in @pages those that are expected to be used next.
 * @only: those that count at all; NULL: all
 * @most: so many at most
 *
 * Return: how many were set that were not before.
 */
size_t gw_working_set_take(struct gw_working_set *ws, const struct gw_bitmap *only, size_t most,
			   struct gw_bitmap *pages);

#endif
