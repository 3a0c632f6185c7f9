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

/* Who is to be chosen of whom; as gw_sub_hosts_choose() has it. */
struct choice {
	const struct gw_host_record *hosts;
	size_t nr, count;
	const char *own, *main;
	int64_t now;
};

/* A host that may be asked, and for how much at most. */
struct able {
	const struct gw_host_record *host;
	uint64_t room;
};

static int by_room(const void *a, const void *b)
{
	const struct able *x = a, *y = b;

	if (x->room != y->room)
		return x->room > y->room ? -1 : 1;
	return strcmp(x->host->name, y->host->name);
}

/* What one VM is promised lies in one place. */
static uint64_t room_of(const struct gw_host_record *host, bool disks)
{
	const uint64_t most = disks && host->swap_free > host->server_free ? host->swap_free
									   : host->server_free;

	return most / STEP * STEP;
}

/* All of @hosts that may be asked, most room first. Return: the room of the first @count. */
static uint64_t find_able(const struct choice *c, bool disks, struct able *able, size_t *n)
{
	uint64_t room = 0;

	*n = 0;
	for (size_t i = 0; i < c->nr; i++) {
		const struct gw_host_record *host = &c->hosts[i];

		if (room_of(host, disks) && host->address[0] && !is(host, c->own) &&
		    !is(host, c->main) && c->now - host->reported <= GW_REGISTRY_SILENT_S)
			able[(*n)++] = (struct able){ host, room_of(host, disks) };
	}
	qsort(able, *n, sizeof(*able), by_room);
	for (size_t i = 0; i < *n && i < c->count; i++)
		room += able[i].room;
	return room;
}

int gw_sub_hosts_choose(const struct gw_host_record *hosts, size_t nr, unsigned int count,
			const char *own, const char *main, uint64_t need, int64_t now, json_t *to)
{
	const struct choice c = { hosts, nr, count, own, main, now };
	gw_autofree struct able *able = calloc(nr + 1, sizeof(struct able));
	uint64_t room, left = (need + STEP - 1) / STEP * STEP;
	size_t n;

	if (!able)
		return gw_fail(-ENOMEM, "no memory to choose sub-hosts");
	room = find_able(&c, false, able, &n);
	if (n < count || room < left)
		room = find_able(&c, true, able, &n);
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

		if (share > able[i].room)
			share = able[i].room;
		json_array_append_new(to, json_pack("{s:s,s:I}", "address", able[i].host->address,
						    "size", (json_int_t)share));
		left -= share < left ? share : left;
	}
	return 0;
}
