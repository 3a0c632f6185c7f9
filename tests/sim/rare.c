// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rare.c - roads that random runs must take now and then, or they would prove nothing of them;
 * see sim.h.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

static unsigned int rare[RARE_COUNT];

void sim_rare(enum rare road)
{
	rare[road]++;
}

void sim_check_rare(void)
{
	static const char *const names[RARE_COUNT] = {
		[RARE_TAKEN_BACK] = "switchover taken back",
		[RARE_AGAIN] = "and moved by a later one",
		[RARE_CANCELLED_LATE] = "cancelled in the switchover",
		[RARE_IN_DOUBT] = "in doubt",
		[RARE_SETTLED_RUNNING] = "settled as running",
		[RARE_SETTLED_ABORTED] = "settled as aborted",
		[RARE_SETTLED_LOST] = "settled as lost",
		[RARE_UNKNOWN] = "settle answered unknown",
		[RARE_SOURCE_RECOVERS] = "source recovers",
		[RARE_DEST_RECOVERS] = "destination recovers",
		[RARE_RETRIED] = "recovery repeated",
		[RARE_HUNG_STOPPED] = "hung while the guest stood still",
		[RARE_HUNG_COMMITTING] = "hung while COMMIT was under way",
		[RARE_COMPARED_LATER] = "image compared after the first round",
		[RARE_COMPARED_NEVER] = "comparison given up",
		[RARE_POSTCOPY] = "memory followed the guest",
		[RARE_SERVES_ON] = "source's keeper",
		[RARE_PAGES_ON] = "destination's keeper",
		[RARE_BOTH_ON] = "both",
		[RARE_RECONNECTED] = "paging connected again",
		[RARE_STILL_KNOWN] = "with what lies there still known",
		[RARE_COMPLETE_LOST] = "COMPLETE lost",
		[RARE_SETTLED_PAGING] = "settled as paging",
		[RARE_CARRIED] = "split before, and moved",
		[RARE_CARRIED_BACK] = "and thawed here",
		[RARE_WAITED] = "stopped with pages that wait",
		[RARE_WAITED_POSTCOPY] = "which follow the guest",
		[RARE_TELEPORTED] = "moved with pages of disks",
		[RARE_LACKED] = "of which some were lacking",
	};
	bool all = true;

	for (unsigned int road = 0; road < RARE_COUNT; road++) {
		printf("%6u  %s\n", rare[road], names[road]);
		/* One seed each takes these two. */
		all = all &&
		      (rare[road] || road == RARE_COMPLETE_LOST || road == RARE_SETTLED_PAGING);
	}
	if (!all) {
		fprintf(stderr, "FAILED: random runs no longer take every road that they must\n");
		exit(1);
	}
}
