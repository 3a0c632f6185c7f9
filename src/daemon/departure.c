// SPDX-License-Identifier: GPL-2.0-or-later
/* departure.c - a VM leaves: ledger, watch, kept image; see departure.h. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "departure.h"
#include "error.h"
#include "log.h"
#include "registry_report.h"

const struct gw_ledger *gw_departure_recall(struct gw_departure *d, const struct gw_paths *p,
					    const char *name, size_t nr_pages)
{
	gw_autofree char *path = gw_vm_ledger_path(p, name);
	int rc = gw_ledger_open(&d->ledger, path);

	if (!rc && d->ledger.nr_pages == nr_pages)
		return &d->ledger;
	if (rc != -ENOENT)
		gw_warn("nothing of VM '%s' can be reused: %s", name,
			rc ? gw_error() : "its memory is not what it was");
	return NULL;
}

int gw_departure_ledger(struct gw_departure *d, const struct gw_paths *p, const struct gw_vm *vm,
			size_t nr_pages, struct gw_ledger *l)
{
	const struct gw_store *st = &p->store;

	d->keeps = (st->quota || st->disk_quota) && !vm->attached &&
		   !gw_image_begin(st, vm->def.name, nr_pages, l);
	return d->keeps ? 0 : gw_ledger_create(l, NULL, nr_pages);
}

void gw_departure_keep(const struct gw_departure *d, const struct gw_paths *p,
		       const struct gw_definition *def, struct gw_ledger *ledger)
{
	char *paths[GW_MEMORY_BLOCKS_MAX] = { NULL };
	int rc;

	if (!d->keeps)
		return;
	for (unsigned int i = 0; i < def->nr_memory; i++)
		paths[i] = gw_vm_ram_path(p, def, i);
	rc = ledger ? gw_image_finish(&p->store, def, paths, ledger)
		    : gw_image_drop(&p->store, def->name);
	if (rc)
		gw_warn("the memory of VM '%s' is not kept: %s", def->name, gw_error());
	for (unsigned int i = 0; i < def->nr_memory; i++)
		free(paths[i]);
}

void gw_departure_report(const struct gw_departure *d, const struct gw_worker *w,
			 const struct gw_source *s, const char *name, const char *address)
{
	struct gw_image image = { 0 };
	const bool kept = d->keeps && !gw_image_load(&w->paths->store, name, &image);

	gw_report_departure(w, s, name, address, kept ? &image.ledger : NULL, image.bytes);
	gw_image_close(&image);
}

void gw_departure_free(struct gw_departure *d)
{
	gw_ledger_close(&d->ledger);
}
