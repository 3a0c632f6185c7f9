/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pace.h - keep all connections of a migration together below its bandwidth limit. */
#ifndef GW_PACE_H
#define GW_PACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "clock.h"

/** struct gw_pace - @next: when all that has left may have arrived (ns). Zero: nothing has. */
struct gw_pace {
	_Atomic int64_t next;
};

/**
 * gw_pace_take() - @bytes leave now, where @limit bytes may in a second. Any thread.
 *
 * Return: until when (ns) whoever sent them is to wait before it sends more; 0: there is no limit.
 */
static inline int64_t gw_pace_take(struct gw_pace *p, uint64_t limit, uint64_t bytes, int64_t now)
{
	int64_t next = p->next, mine;

	if (!limit)
		return 0;
	do
		mine = (next < now ? now : next) + (int64_t)((double)bytes * GW_S / (double)limit);
	while (!atomic_compare_exchange_weak(&p->next, &next, mine));
	return mine;
}

#endif
