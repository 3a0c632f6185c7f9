// SPDX-License-Identifier: GPL-2.0-or-later
/* sub_hosts.c - memory servers by the registry; see sub_hosts.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "sub_hosts.h"

/* Sizes are whole huge pages, so that a unit more than was counted is no reason to fail. */
#define STEP (2ULL << 20)

static bool is(const struct gw_host_record *host, const char *who)
{
	return who && (!strcmp(host->name, who) || !strcmp(host->address, who));
}

static int by_room(const void *a, const void *b)
{
	const struct gw_host_record *const *x = a, *const *y = b;

	if ((*x)->server_free != (*y)->server_free)
		return (*x)->server_free > (*y)->server_free ? -1 : 1;
	return strcmp((*x)->name, (*y)->name);
}

static uint64_t room_of(const struct gw_host_record *host)
{
	return host->server_free / STEP * STEP;
}

int gw_sub_hosts_choose(const struct gw_host_record *hosts, size_t nr, unsigned int count,
			const char *own, const char *main, uint64_t need, int64_t now, json_t *to)
{
	gw_autofree const struct gw_host_record **able = calloc(nr + 1,
								sizeof(struct gw_host_record *));
	uint64_t room = 0, left = (need + STEP - 1) / STEP * STEP;
	size_t n = 0;

	if (!able)
		return gw_fail(-ENOMEM, "no memory to choose sub-hosts");
	for (size_t i = 0; i < nr; i++)
		if (room_of(&hosts[i]) && hosts[i].address[0] && !is(&hosts[i], own) &&
		    !is(&hosts[i], main) && now - hosts[i].reported <= GW_REGISTRY_SILENT_S)
			able[n++] = &hosts[i];
	qsort(able, n, sizeof(struct gw_host_record *), by_room);
	for (size_t i = 0; i < n && i < count; i++)
		room += room_of(able[i]);
	if (n < count || room < left)
		return gw_fail(
			-ENOSPC,
			"by the registry %zu other host%s memory for VMs, and the %u with the most "
			"have %llu MiB left; %llu MiB are needed (godwit hosts)",
			n, n == 1 ? " holds" : "s hold", count, (unsigned long long)room >> 20,
			(unsigned long long)left >> 20);
	/* From the one with the least on: what it has not got the others take. */
	for (unsigned int i = count; i--;) {
		uint64_t share = (left / (i + 1) + STEP - 1) / STEP * STEP;

		if (share > room_of(able[i]))
			share = room_of(able[i]);
		json_array_append_new(to, json_pack("{s:s,s:I}", "address", able[i]->address,
						    "size", (json_int_t)share));
		left -= share < left ? share : left;
	}
	return 0;
}
