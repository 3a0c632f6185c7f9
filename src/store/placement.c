// SPDX-License-Identifier: GPL-2.0-or-later
/* placement.c - what moving a VM to a host would cost; see placement.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"
#include "page.h"
#include "placement.h"

struct gw_placement_link gw_placement_link(const struct gw_link_record *links, size_t nr,
					   const char *to)
{
	struct gw_placement_link assumed = { .assumed = true };

	for (size_t i = 0; i < nr; i++) {
		if (!strcmp(links[i].to, to))
			return (struct gw_placement_link){
				.bandwidth = links[i].bandwidth,
				.round_trip_ms = (double)links[i].round_trip / 1e6,
			};
		if (!assumed.bandwidth || links[i].bandwidth < assumed.bandwidth)
			assumed.bandwidth = links[i].bandwidth;
	}
	if (!assumed.bandwidth)
		assumed.bandwidth = GW_PLACEMENT_BANDWIDTH;
	return assumed;
}

static uint64_t reuse(const struct gw_placement_vm *vm, const struct gw_image_record *image,
		      bool *stale)
{
	const struct gw_history_entry *e =
		image ? gw_history_find(vm->history, image->departure, image->id) : NULL;

	*stale = image && !e;
	if (!e)
		return 0;
	return e->pages < vm->pages ? e->pages : vm->pages;
}

/* What a registry says may be absurd: beyond 63 bits it stays there. */
static uint64_t rounded(double number)
{
	return number < 9e18 ? (uint64_t)(number + 0.5) : INT64_MAX;
}

/* The rounds, from the first on; see the formula in placement.h. */
static void count_rounds(const struct gw_placement_vm *vm, struct gw_placement *p)
{
	const double page = vm->wire_per_page > 0 ? vm->wire_per_page : (double)GW_PAGE_SIZE;
	const double limit = (double)vm->downtime_limit_ms - vm->device_ms;
	const double bandwidth = (double)p->link.bandwidth / 1e3; /* bytes per ms */
	const double trip = p->link.round_trip_ms,
		     leave = vm->device_ms + GW_SWITCHOVER_TRIPS * trip;
	const double first = (double)(vm->pages - p->reused);
	const double changed = p->reused && vm->wire_per_changed > 0 ? vm->wire_per_changed : page;
	double sent = first, bytes = first * changed, last = bytes / bandwidth, ms = last;

	/* Round 1 is never the last: the guest runs while it is sent. */
	for (p->rounds = 2; p->rounds <= GW_PLACEMENT_ROUNDS; p->rounds++) {
		double pages = vm->dirty_rate * last / 1e3;

		/* More pages than it has cannot be due. */
		if (pages > (double)vm->pages)
			pages = (double)vm->pages;
		last = pages * page / bandwidth;
		sent += pages;
		bytes += pages * page;
		ms += last;
		if (last <= limit)
			break;
	}
	if (p->rounds > GW_PLACEMENT_ROUNDS) {
		p->obstacle = GW_PLACEMENT_NEVER_ENDS;
		p->rounds = 1;
		sent = first;
		bytes = first * changed;
		ms = bytes / bandwidth;
	}
	p->travel = rounded(sent);
	p->wire_bytes = rounded(bytes + (double)vm->device_bytes);
	p->downtime_ms = last + leave;
	p->total_ms = vm->setup_ms + ms + leave + (p->rounds + GW_PLACEMENT_SETUP_TRIPS) * trip;
}

struct gw_placement gw_placement_predict(const struct gw_placement_vm *vm,
					 const struct gw_host_record *host,
					 const struct gw_image_record *image,
					 struct gw_placement_link link, int64_t now)
{
	struct gw_placement p = { .host = host, .link = link };
	const uint64_t need = vm->pages * GW_PAGE_SIZE;
	uint64_t kept;

	p.reused = reuse(vm, image, &p.stale);
	count_rounds(vm, &p);
	/* Its image's memory becomes the VM's own. */
	kept = image && !p.stale ? image->bytes : 0;
	p.total_ms += (double)kept / GW_PLACEMENT_COMPARED * 1e3;
	if (!host->address[0])
		p.obstacle = GW_PLACEMENT_NO_ADDRESS;
	else if (host->free < need && need - host->free > kept)
		p.obstacle = GW_PLACEMENT_NO_MEMORY;
	else if (now - host->reported > GW_REGISTRY_SILENT_S)
		p.obstacle = GW_PLACEMENT_SILENT;
	return p;
}

static int better(const void *one, const void *other)
{
	const struct gw_placement *a = one, *b = other;

	if (a->obstacle != b->obstacle)
		return a->obstacle < b->obstacle ? -1 : 1;
	if (a->total_ms < b->total_ms || a->total_ms > b->total_ms)
		return a->total_ms < b->total_ms ? -1 : 1;
	return strcmp(a->host->name, b->host->name);
}

size_t gw_placement_rank(const struct gw_placement_vm *vm, const struct gw_host_record *hosts,
			 size_t nr_hosts, const struct gw_image_record *images, size_t nr_images,
			 const struct gw_link_record *links, size_t nr_links, int64_t now,
			 struct gw_placement *out)
{
	size_t n = 0;

	for (size_t i = 0; i < nr_hosts; i++) {
		const struct gw_image_record *image = NULL;

		if (!strcmp(hosts[i].name, vm->host))
			continue;
		for (size_t k = 0; k < nr_images && !image; k++)
			if (!strcmp(images[k].host, hosts[i].name))
				image = &images[k];
		out[n++] = gw_placement_predict(vm, &hosts[i], image,
						gw_placement_link(links, nr_links, hosts[i].name),
						now);
	}
	qsort(out, n, sizeof(*out), better);
	return n;
}

const char *gw_placement_note(const struct gw_placement *p, char *text, size_t len)
{
	static const char *const obstacles[] = {
		[GW_PLACEMENT_FINE] = "",
		[GW_PLACEMENT_NEVER_ENDS] = "writes faster than the link",
		[GW_PLACEMENT_SILENT] = "has not reported lately",
		[GW_PLACEMENT_NO_MEMORY] = "not enough free memory",
		[GW_PLACEMENT_NO_ADDRESS] = "does not listen",
	};
	const char *separator = p->obstacle ? ", " : "";

	snprintf(text, len, "%s%s%s%s", obstacles[p->obstacle], p->link.assumed ? separator : "",
		 p->link.assumed ? "bandwidth assumed" : "",
		 !p->stale			  ? ""
		 : p->link.assumed || p->obstacle ? ", its image is of no use"
						  : "its image is of no use");
	return text;
}
