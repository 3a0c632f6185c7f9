// SPDX-License-Identifier: GPL-2.0-or-later
/* arrival.c - the kept image of a VM that arrives, and its tracking; see arrival.h. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "arrival.h"
#include "error.h"
#include "log.h"

/* Pages that one thread compares with the ledger at a time. */
#define COMPARE_PART	(64 * GW_CHUNK_PAGES)
#define COMPARE_THREADS 8

/* Whether the departure that left the image is one of @reuse, by number and id. */
static bool is_of(const struct gw_image *image, const json_t *reuse)
{
	const json_int_t departures = json_integer_value(json_object_get(reuse, "departures"));
	const json_int_t since = departures - (json_int_t)image->departure;
	const json_t *ids = json_object_get(reuse, "ids"); /* the newest first */
	uint8_t id[GW_ID_LEN];

	return since >= 0 && (size_t)since < json_array_size(ids) &&
	       !gw_id_parse(json_string_value(json_array_get(ids, (size_t)since)), id) &&
	       !memcmp(id, image->id, GW_ID_LEN);
}

void gw_arrival_take(struct gw_arrival *a, const struct gw_paths *p,
		     const struct gw_definition *def, const json_t *reuse, const struct gw_key *key,
		     char *const ram_paths[])
{
	int rc = gw_image_load(&p->store, def->name, &a->image);

	if (rc == -ENOENT) {
		gw_error_clear();
		return;
	}
	if (rc) {
		gw_warn("%s", gw_error());
		return;
	}
	if (reuse && key && gw_ledger_has_key(&a->image.ledger, key->id) &&
	    gw_image_fits(&a->image, def) && is_of(&a->image, reuse)) {
		a->key = *key;
		a->took = !gw_image_take(&p->store, &a->image, ram_paths);
		if (a->took)
			return;
		gw_warn("what was kept of VM '%s' cannot be used: %s", def->name, gw_error());
	}
	gw_image_close(&a->image);
	if (gw_image_drop(&p->store, def->name))
		gw_warn("%s", gw_error());
}

static int compare(void *arg, unsigned int i)
{
	struct gw_arrival *a = arg;
	int rc = 0;

	(void)i;
	while (!rc) {
		size_t first = a->next++ * COMPARE_PART;
		size_t left = first < a->ram->nr_pages ? a->ram->nr_pages - first : 0;

		if (!left)
			break;
		rc = gw_image_absent(&a->image, &a->key, a->ram, first,
				     left < COMPARE_PART ? left : COMPARE_PART, &a->kept->absent);
	}
	return rc;
}

int gw_arrival_compare(struct gw_arrival *a, struct gw_crew *crew, const struct gw_ram *ram,
		       struct gw_dest_kept *kept)
{
	cpu_set_t cpus;
	int rc, n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	if (!a->took)
		return 0;
	a->ram = ram;
	a->kept = kept;
	a->next = 0;
	rc = gw_bitmap_init(&kept->absent, ram->nr_pages);
	if (n > COMPARE_THREADS)
		n = COMPARE_THREADS;
	return rc ? rc : gw_crew_start(crew, (unsigned int)n, compare, a);
}

int gw_arrival_compared(struct gw_arrival *a, struct gw_crew *crew)
{
	int rc = a->ram ? gw_crew_join(crew) : 0;

	if (!rc && a->ram) {
		a->kept->departure = a->image.departure;
		a->kept->ledger = &a->image.ledger;
	}
	return rc;
}

void gw_arrival_give_back(const struct gw_paths *p, const struct gw_definition *def)
{
	char *paths[GW_RAM_FILES_MAX] = { NULL };

	for (unsigned int i = 0; i < def->nr_memory; i++)
		paths[i] = gw_vm_ram_path(p, def, i);
	if (gw_image_give_back(&p->store, def->name, paths))
		gw_warn("what was kept of VM '%s' is lost: %s", def->name, gw_error());
	for (unsigned int i = 0; i < def->nr_memory; i++)
		free(paths[i]);
}

void gw_arrival_free(struct gw_arrival *a)
{
	gw_image_close(&a->image);
}

void gw_arrival_track(struct gw_vm *vm, const struct gw_ram *ram)
{
	if (gw_track_has_uffd() && gw_watch_begin(&vm->watch, vm->process.pid, ram))
		gw_warn("VM '%s' is not tracked here: %s", vm->def.name, gw_error());
}
