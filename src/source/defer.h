/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * defer.h - the pages that wait because the guest is about to write them again (paper ZawThein, IV;
 * predict/waiting.h).
 *
 *   lru, lru-splay  the paper's: before the first round it is watched for a while which pages each
 *                   process accesses, and they wait while they are written in every round
 *   auto            what was written while the destination prepared itself, which costs no time,
 *                   waits in the first round; and later what was written in each of two rounds, but
 *                   only while rounds get nowhere
 *
 * With post-copy at once, whichever of these is asked for, what was accessed while the destination
 * prepared itself follows the guest before the rest (push.h).
 *
 * Rule: what waits goes with the last round at the latest, so it counts in what that would cost
 * (invariant 13).
 */
#ifndef GW_DEFER_H
#define GW_DEFER_H

#include <jansson.h>

#include "waiting.h"
#include "working_set.h"

enum gw_defer_mode {
	GW_DEFER_OFF,
	GW_DEFER_LRU,
	GW_DEFER_LRU_SPLAY,
	GW_DEFER_AUTO,
};

/* vCPUs whose processes are told apart. */
#define GW_DEFER_VCPUS 64

struct gw_defer {
	enum gw_defer_mode mode; /* GW_DEFER_OFF: nothing is predicted, and nothing else is set */
	struct gw_working_set set;
	struct gw_waiting waiting;
	struct gw_bitmap written, accessed; /* in a window */
	struct gw_bitmap early;		    /* written in all of them: scans have forgotten it */
	int64_t window_end, window_ns;
	bool begun; /* whatever was accessed before the first window is known, and not counted */
	size_t expected;    /* pages, when the first round began, or all of it followed the guest */
	int64_t watched_ns; /* before the first round, for nothing else */
	int64_t cost;	    /* the last round's, as gw_converge_cost() has it */
};

struct gw_source;

/** gw_defer_parse() - what --working-set says. 0, or -EINVAL with a message. */
int gw_defer_parse(const char *word, enum gw_defer_mode *mode);

/** gw_defer_watches() - whether @mode takes time of its own before the first round. */
static inline bool gw_defer_watches(enum gw_defer_mode mode)
{
	return mode == GW_DEFER_LRU || mode == GW_DEFER_LRU_SPLAY;
}

/** gw_defer_json() - godwit.working-set; NULL: nothing is predicted. Owned by the caller. */
json_t *gw_defer_json(const struct gw_source *s);

#endif
