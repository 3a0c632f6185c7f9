// SPDX-License-Identifier: GPL-2.0-or-later
/* registry_report.c - what a worker tells the registry; see registry_report.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "registry.h"
#include "registry_report.h"

/* NULL: this host uses none, or its URL is wrong, which main.c has said. */
static struct gw_registry *open_registry(const struct gw_worker *w)
{
	return w->paths->registry ? gw_registry_open(w->paths->registry, 0) : NULL;
}

int gw_report_claim(const struct gw_worker *w, const char *name)
{
	struct gw_registry *r = open_registry(w);
	int rc = r ? gw_registry_claim(r, name, w->host) : 0;

	gw_registry_close(r);
	if (!rc || rc == -EEXIST)
		return rc;
	gw_warn("VM '%s' starts although the registry cannot tell whether another host has one of "
		"that name: %s",
		name, gw_error());
	return 0;
}

void gw_report_release(const struct gw_worker *w, const char *name)
{
	gw_autofree char *said = strdup(gw_error());
	struct gw_registry *r = open_registry(w);

	if (r && gw_registry_release(r, name, w->host))
		gw_warn("VM '%s' is still in the registry for now: %s", name, gw_error());
	gw_registry_close(r);
	gw_fail(0, "%s", said ? said : "");
}

/* Bytes of a first round below which its pace says more of processors than of the link. */
#define TELLING (16ULL << 20)

/* Bytes on the wire for a page that travelled, @patched ones too, over the whole migration. */
static double wire_per_page(const struct gw_source *s, bool patched)
{
	uint64_t pages = 0, bytes = 0;

	for (unsigned int id = 0; id < GW_STAGE_MAX; id++) {
		if (id == GW_STAGE_ZERO || id == GW_STAGE_SAME ||
		    (id == GW_STAGE_PATCH && !patched))
			continue;
		pages += s->pages[id];
		bytes += s->bytes[id];
	}
	return pages ? (double)bytes / (double)pages : s->holder.wire_per_page;
}

static int tell_image(struct gw_registry *r, const struct gw_worker *w, const char *name,
		      const struct gw_source *s, const struct gw_ledger *ledger, uint64_t bytes)
{
	struct gw_image_record image = { .departure = gw_ledger_departures(ledger),
					 .bytes = bytes,
					 .left = time(NULL) };

	snprintf(image.vm, sizeof(image.vm), "%s", name);
	gw_copy_whole(image.host, sizeof(image.host), w->host);
	memcpy(image.id, s->id, GW_ID_LEN);
	return gw_registry_put_image(r, &image);
}

static int tell_link(struct gw_registry *r, const struct gw_worker *w, const struct gw_source *s)
{
	struct gw_link_record link = { .bandwidth = s->holder.bandwidth,
				       .round_trip = (uint64_t)s->holder.round_trip,
				       .measured = time(NULL) };

	/* A host with no name for a registry is in none. */
	if (!gw_registry_key_ok(s->holder.host))
		return 0;
	gw_copy_whole(link.from, sizeof(link.from), w->host);
	gw_copy_whole(link.to, sizeof(link.to), s->holder.host);
	return gw_registry_put_link(r, &link);
}

/*
 * Whether @host uses this registry too: 1, 0 or -errno. To one that does not, no
 * claim can be handed on: it would never give it back.
 */
static int reports_here(struct gw_registry *r, const char *host)
{
	struct gw_host_record record;
	int rc = gw_registry_key_ok(host) ? gw_registry_host(r, host, &record) : -ENOENT;

	if (rc == -ENOENT || rc == -EBADMSG)
		return 0;
	return rc ? rc : time(NULL) - record.reported <= GW_REGISTRY_SILENT_S;
}

static int tell_departure(struct gw_registry *r, const struct gw_worker *w,
			  const struct gw_source *s, const char *name, const char *address,
			  const struct gw_ledger *ledger, uint64_t image_bytes)
{
	struct gw_vm_record vm = { .reported = time(NULL),
				   .resident = gw_memory_resident(s->memory),
				   .dirty_rate = s->dirty_rate,
				   .setup_ms = (double)(s->ready_ns - s->started_ns) / 1e6,
				   .device_bytes = s->device_bytes,
				   .wire_per_page = wire_per_page(s, false) },
			    before;
	bool had;
	int rc;

	snprintf(vm.name, sizeof(vm.name), "%s", name);
	gw_copy_whole(vm.host, sizeof(vm.host), s->holder.host);
	gw_copy_whole(vm.address, sizeof(vm.address), address);
	/* What a page costs where an older version was kept, only such a move can tell. */
	had = !gw_registry_vm(r, name, &before);
	if (s->holder.image)
		vm.wire_per_changed = wire_per_page(s, true);
	else if (had)
		vm.wire_per_changed = before.wire_per_changed;
	/* Who only served the end of a move knows no more than was known. */
	if (!s->device_bytes && !s->dirty_rate && had) {
		vm.dirty_rate = before.dirty_rate;
		vm.setup_ms = before.setup_ms;
		vm.device_bytes = before.device_bytes;
		vm.wire_per_page = before.wire_per_page;
	}
	if (ledger) {
		vm.departures = gw_ledger_departures(ledger);
		gw_history_of(&vm.history, ledger);
	}
	/* First what keeps others from starting a VM of that name. */
	rc = reports_here(r, s->holder.host);
	if (rc >= 0)
		rc = rc ? gw_registry_move(r, &vm, w->host) : gw_registry_release(r, name, w->host);
	/* An image that it had kept there is the VM's memory now. */
	if (!rc)
		rc = gw_registry_drop_image(r, name, s->holder.host);
	if (!rc && ledger && image_bytes)
		rc = tell_image(r, w, name, s, ledger, image_bytes);
	/* With --max-bandwidth the limit was measured, not the link; with little, neither. */
	if (!rc && s->holder.bandwidth && !s->params.max_bandwidth &&
	    s->rounds[0].wire_bytes >= TELLING)
		rc = tell_link(r, w, s);
	return rc;
}

void gw_report_departure(const struct gw_worker *w, const struct gw_source *s, const char *name,
			 const char *address, const struct gw_ledger *ledger, uint64_t image_bytes)
{
	struct gw_registry *r = open_registry(w);

	if (r && tell_departure(r, w, s, name, address, ledger, image_bytes))
		gw_warn("the registry was not told all of where VM '%s' went: %s", name,
			gw_error());
	gw_registry_close(r);
}

void gw_report_image_gone(const struct gw_worker *w, const char *name)
{
	struct gw_registry *r = open_registry(w);

	if (r && gw_registry_drop_image(r, name, w->host))
		gw_warn("the registry still has the image of VM '%s': %s", name, gw_error());
	gw_registry_close(r);
}
