/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * away.h - the main host's half of a migration to several hosts (decision 32): what the source
 * says lies at sub-hosts goes into the network page table, which begins filled.
 *
 * Until the source has closed its connections to them (AWAY_END), nobody here calls a sub-host;
 * from LOAD on the guest's memory is paged by the table (ops->split), and until the guest runs
 * nothing leaves: whatever fails before leaves what lies at the sub-hosts as the source put it.
 *
 * Rules: nothing of it is trusted (invariant 10). A page is memory, at one sub-host, which has
 * room for it, and a hole here; and no more comes here than was promised.
 */
#ifndef GW_AWAY_H
#define GW_AWAY_H

#include "dest.h"

/** gw_away_heed() - an AWAY or AWAY_END is in the inbox. 0 or -EPROTO, -errno. */
int gw_away_heed(struct gw_dest *d);

/** gw_away_history() - a HISTORY is in the inbox. 0 or -EPROTO. */
int gw_away_history(struct gw_dest *d);

/** gw_away_check() - whether no more came here than may. 0 or -EPROTO. Any thread. */
int gw_away_check(const struct gw_dest *d);

#endif
