// SPDX-License-Identifier: GPL-2.0-or-later
/* away.c - a simulated main host's page table; see away.h. */
#include "away.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "carried.h"
#include "error.h"
#include "sim.h"

#define SUBS CARRIED_SUBS

static struct gw_netpt table;
static uint8_t *history;

static const char *path(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "/tmp/gw-sim-away-%d", (int)getpid());
	return text;
}

int away_prepare(struct gw_dest *d, const struct gw_memory *memory)
{
	static const uint8_t id[GW_ID_LEN] = { 1 };
	int rc = gw_netpt_create(&table, path(), memory, id,
				 d->split.carried ? CARRIED_UNIT : GW_CHUNK_PAGES);

	if (rc)
		return rc;
	history = calloc(table.units.nr, 1);
	if (!history)
		return gw_fail(-ENOMEM, "no memory for a history");
	d->split.table = &table;
	d->split.history = history;
	d->split.nr = SUBS;
	d->split.size[0] = d->split.size[1] = gw_memory_bytes(memory);
	d->split.main_memory = gw_memory_bytes(memory);
	return 0;
}

int away_split(void *env)
{
	sim_check(sim.sc->carried, "memory is paged that lies nowhere");
	return sim_step(env, "page at the destination", STEP_FAILS);
}

void away_drop(void)
{
	if (!table.head)
		return;
	gw_netpt_close(&table);
	free(history);
	history = NULL;
	unlink(path());
}
