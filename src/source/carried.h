/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * carried.h - a VM moves whose memory is split already (decision 32): its main host changes, and
 * what lies at its sub-hosts stays there. What spread.h is to a VM that is split as it moves.
 *
 *   rounds   go on as ever over what is here. A page that is away is a hole here, and becomes
 *            one there; pages leave and come all the while, and both are changes like a write
 *   tell     the main host hears between rounds what is away now
 *   freeze   with the guest stopped: from here on the sub-hosts' pages are those that it is told,
 *            whatever still comes here
 *   leave    before LOAD: nobody here calls the sub-hosts any more
 *   thaw     on every way out before COMMIT, and before the guest goes on here: as it was
 *
 * Rules: the sub-hosts are never dismissed; the VM lives on, on one host or the other. What came
 * after the freeze is told as away, so its pages are sent as zeros, which are holes there. So who
 * is told that a page has come back is owed it, whether or not it changed since.
 */
#ifndef GW_CARRIED_H
#define GW_CARRIED_H

#include <jansson.h>

#include "messages.h"
#include "shared_bits.h"
#include "told.h"
#include "units.h"

struct gw_source;
struct gw_batch;

struct gw_carried {
	/* set by the caller, and owned by it; table and holders change all the while */
	const json_t *define;		/* DEFINE's "split" */
	const gw_shared_word *away;	/* a bit a page */
	const _Atomic uint8_t *holders; /* of each unit */
	/* where each page is stored twice, as in pager/netpt.h; else NULL */
	const _Atomic uint8_t *seconds;
	const gw_shared_word *lacks[GW_COPIES_MAX];
	gw_shared_word *moved; /* a bit a unit, set after something of it has moved; cleared here */
	const struct gw_units *units;
	const uint8_t *history; /* of each unit */
	struct {
		char address[GW_ADDRESS_MAX], host[GW_HOST_MAX];
	} subs[GW_HOLDERS_MAX];
	unsigned int nr;

	struct gw_told told;
	struct gw_bitmap owed; /* pages that it was told have come back, and that are due since */
	uint8_t *at[GW_COPIES_MAX];		/* each unit's holders, as told */
	struct gw_bitmap lacked[GW_COPIES_MAX]; /* and what each has not got, of what is away */
	_Atomic bool frozen;
};

/** gw_carried_open() - the destination is READY. 0, or -ENOTSUP, -errno with a message. */
int gw_carried_open(struct gw_source *s);

/** gw_carried_tell() - tell the main host what has changed since the last time. 0 or -errno. */
int gw_carried_tell(struct gw_source *s);

/** gw_carried_due() - what is due of [first, first + count) beside what has changed. */
void gw_carried_due(struct gw_source *s, size_t first, size_t count);

/** gw_carried_hide() - pages of @batch that the main host is to have as holes are zeros. */
void gw_carried_hide(struct gw_source *s, struct gw_batch *batch);

/** gw_carried_freeze() - the guest stands still, for its last round. 0 or -errno. */
int gw_carried_freeze(struct gw_source *s);

/** gw_carried_leave() - the sub-hosts are the main host's from here on. 0 or -errno. */
int gw_carried_leave(struct gw_source *s);

/** gw_carried_thaw() - they are this host's again, if they were not. */
void gw_carried_thaw(struct gw_source *s);

/** gw_carried_json() - how it stands; the caller's. */
json_t *gw_carried_json(const struct gw_carried *c);

void gw_carried_free(struct gw_carried *c);

#endif
