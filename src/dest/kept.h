/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kept.h - the destination's half of memory reuse; source/reuse.c is the other. */
#ifndef GW_KEPT_H
#define GW_KEPT_H

#include "dest.h"

/** gw_dest_next() - the next message on the control connection; the source's ERROR becomes ours. */
int gw_dest_next(struct gw_dest *d, int64_t deadline);

/** gw_kept_heed() - read DEFINE's @reuse (may be NULL). 0 or -EPROTO. */
int gw_kept_heed(struct gw_dest *d, const json_t *reuse);

/** gw_kept_offer() - what READY says of a kept image; NULL: there is none. */
json_t *gw_kept_offer(const struct gw_dest *d);

/** gw_kept_send_absent() - the pages of the image that are not what they were. 0 or -errno. */
int gw_kept_send_absent(struct gw_dest *d);

/** gw_kept_compared() - answer the COMPARE in the inbox. 0 or -errno. */
int gw_kept_compared(struct gw_dest *d);

/** gw_kept_tell() - answer the WANT in the inbox. 0 or -errno. */
int gw_kept_tell(struct gw_dest *d);

/**
 * gw_kept_remember() - the guest runs here: take the ledger for its next departure.
 * 0 or -errno; that costs reuse then. May be tried again.
 */
int gw_kept_remember(struct gw_dest *d);

/** gw_kept_unknown() - log that it was not taken, and why: the last message, which is cleared. */
void gw_kept_unknown(void);

#endif
