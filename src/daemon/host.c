// SPDX-License-Identifier: GPL-2.0-or-later
/* host.c - what this host says of itself; see host.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "budget.h"
#include "host.h"
#include "io.h"
#include "promise.h"

struct server {
	const struct gw_paths *p;
	struct gw_host_record *host;
};

static uint64_t memory_of(const struct gw_paths *p)
{
	struct statvfs fs;

	if (p->limit)
		return p->limit;
	return statvfs(p->ram, &fs) ? 0 : (uint64_t)fs.f_blocks * fs.f_frsize;
}

static void add(void *arg, const char *id, const struct gw_promise *promise)
{
	struct server *s = arg;
	struct gw_host_held *held;

	if (s->host->nr_held++ >= GW_HOST_HELD_MAX)
		return;
	held = &s->host->held[s->host->nr_held - 1];
	gw_copy_whole(held->vm, sizeof(held->vm), promise->hold.name);
	gw_copy_whole(held->host, sizeof(held->host), promise->hold.host);
	held->promised = promise->hold.size;
	held->here = gw_promise_used(s->p, id, promise);
	held->on_disk = promise->swap[0];
}

void gw_host_look(const struct gw_paths *p, const char *name, const char *address,
		  struct gw_host_record *host)
{
	struct server s = { .p = p, .host = host };
	struct gw_budget_server room;

	memset(host, 0, sizeof(*host));
	host->memory = memory_of(p);
	host->free = gw_budget_free(p, NULL);
	host->reported = time(NULL);
	if (getloadavg(&host->load, 1) != 1)
		host->load = 0;
	gw_copy_whole(host->name, sizeof(host->name), name);
	gw_copy_whole(host->address, sizeof(host->address), address);
	gw_promise_each(p, add, &s);
	gw_budget_server(p, &room);
	host->server_limit = room.limit;
	host->server_free = room.free;
	host->swap_limit = room.swap_limit;
	host->swap_free = room.swap_free;
}
