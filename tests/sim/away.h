/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * away.h - the simulated main host of a VM whose memory lies on several hosts: the table that it
 * is told of. Nobody pages by it, since no source here sends anything to a sub-host.
 */
#ifndef SIM_AWAY_H
#define SIM_AWAY_H

#include "dest.h"

/* DEFINE asks for it: a table of @memory. 0 or -errno. */
int away_prepare(struct gw_dest *d, const struct gw_memory *memory);
int away_split(void *env);
/* Whatever was prepared. */
void away_drop(void);

#endif
