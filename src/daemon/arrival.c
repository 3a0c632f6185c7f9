// SPDX-License-Identifier: GPL-2.0-or-later
/* arrival.c - the kept image of a VM that arrives, and its tracking; see arrival.h. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "arrival.h"
#include "budget.h"
#include "clock.h"
#include "error.h"
#include "log.h"

/*
 * What is kept is worth waiting for if it is faster than a good link: below
 * 10 Gbit/s, and a start-up, sending is. The source waits for our READY meanwhile.
 */
#define WORTH_PER_S (10000000000ULL / 8)
#define WORTH_MIN_S 5
#define WORTH_MAX_S 40

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

static int64_t worth_waiting(const struct gw_definition *def)
{
	const uint64_t s = WORTH_MIN_S + gw_definition_bytes(def) / WORTH_PER_S;

	return gw_now() + (int64_t)(s < WORTH_MAX_S ? s : WORTH_MAX_S) * GW_S;
}

/* Whether there is an image for those who say @reuse and @key; one of no use is removed. */
static bool find(struct gw_arrival *a, const struct gw_paths *p, const struct gw_definition *def,
		 const json_t *reuse, const struct gw_key *key)
{
	int rc = gw_image_load(&p->store, def->name, &a->image);

	if (!rc && reuse && key && gw_ledger_has_key(&a->image.ledger, key->id) &&
	    gw_image_fits(&a->image, def) && is_of(&a->image, reuse)) {
		a->key = *key;
		return true;
	}
	if (rc && rc != -ENOENT)
		gw_warn("%s", gw_error());
	gw_image_close(&a->image);
	if (!rc && gw_image_drop(&p->store, def->name))
		gw_warn("%s", gw_error());
	gw_error_clear();
	return false;
}

static void take(struct gw_arrival *a, const struct gw_paths *p, const struct gw_definition *def,
		 char *const ram_paths[])
{
	a->took = !gw_image_take(&p->store, &a->image, ram_paths, a->deadline);
	if (a->took)
		return;
	gw_warn("what was kept of VM '%s' cannot be used: %s", def->name, gw_error());
	gw_image_close(&a->image);
	if (gw_image_drop(&p->store, def->name))
		gw_warn("%s", gw_error());
}

void gw_arrival_take(struct gw_arrival *a, const struct gw_paths *p,
		     const struct gw_definition *def, const json_t *reuse, const struct gw_key *key,
		     char *const ram_paths[])
{
	const bool found = find(a, p, def, reuse, key);

	a->deadline = worth_waiting(def);
	/* Memory first: then it is the VM's, and nobody has it give way for the VM. */
	if (found && !a->image.on_disk)
		take(a, p, def, ram_paths);
	gw_budget_make_room(p, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
	if (found && !a->took && a->image.on_disk)
		take(a, p, def, ram_paths);
}

static int compare(void *arg, unsigned int i)
{
	struct gw_arrival *a = arg;
	int rc = 0;

	(void)i;
	while (!rc) {
		size_t first = a->next++ * COMPARE_PART;
		size_t left = first < a->memory->nr_pages ? a->memory->nr_pages - first : 0;

		if (!left)
			break;
		left = left < COMPARE_PART ? left : COMPARE_PART;
		if (gw_now() < a->deadline) {
			rc = gw_image_absent(&a->image, &a->key, a->memory, first, left,
					     &a->kept->absent);
		} else {
			/* Nobody knows what is in them, so they are sent. */
			gw_bitmap_set_range(&a->kept->absent, first, left);
			a->skipped += left;
		}
	}
	return rc;
}

int gw_arrival_compare(struct gw_arrival *a, struct gw_crew *crew, const struct gw_memory *memory,
		       struct gw_dest_kept *kept)
{
	cpu_set_t cpus;
	int rc, n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	if (!a->took)
		return 0;
	a->memory = memory;
	a->kept = kept;
	a->next = 0;
	a->skipped = 0;
	rc = gw_bitmap_init(&kept->absent, memory->nr_pages);
	if (n > COMPARE_THREADS)
		n = COMPARE_THREADS;
	return rc ? rc : gw_crew_start(crew, (unsigned int)n, compare, a);
}

int gw_arrival_compared(struct gw_arrival *a, struct gw_crew *crew)
{
	int rc = a->memory ? gw_crew_join(crew) : 0;

	if (!rc && a->memory && a->skipped)
		gw_warn("of %zu pages that were kept of VM '%s' %zu were not compared in time, and "
			"are sent",
			a->memory->nr_pages, a->image.name, (size_t)a->skipped);
	if (!rc && a->memory) {
		a->kept->departure = a->image.departure;
		a->kept->ledger = &a->image.ledger;
	}
	return rc;
}

void gw_arrival_give_back(const struct gw_paths *p, const struct gw_definition *def)
{
	char *paths[GW_MEMORY_BLOCKS_MAX] = { NULL };

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
