// SPDX-License-Identifier: GPL-2.0-or-later
/* arrival.c - the kept image of a VM that arrives, and its tracking; see arrival.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arrival.h"
#include "budget.h"
#include "clock.h"
#include "error.h"
#include "log.h"

/*
 * What is kept is worth waiting for if it is faster than a good link: below
 * 10 Gbit/s, and a start-up, sending is. The source waits for our READY meanwhile, or
 * with its rounds.
 */
#define WORTH_PER_S   (10000000000ULL / 8)
#define WORTH_MIN_S   5
#define WORTH_MAX_S   40
/* While the rounds go on, nothing but the end of the move waits: an hour is 4 TiB. */
#define WORTH_LATER_S 3600

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

/* Until when, for a VM of @bytes, if it is @most seconds at most. */
static int64_t worth_waiting(uint64_t bytes, uint64_t most)
{
	const uint64_t s = WORTH_MIN_S + bytes / WORTH_PER_S;

	return gw_now() + (int64_t)(s < most ? s : most) * GW_S;
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

	a->deadline = worth_waiting(gw_definition_bytes(def), WORTH_MAX_S);
	/* Memory first: then it is the VM's, and nobody has it give way for the VM. */
	if (found && !a->image.on_disk)
		take(a, p, def, ram_paths);
	gw_budget_make_room(p, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
	if (found && !a->took && a->image.on_disk)
		take(a, p, def, ram_paths);
}

/* Pages of part @part, from *@first on. */
static size_t part_of(const struct gw_arrival *a, size_t part, size_t *first)
{
	const size_t left = a->memory->nr_pages - part * COMPARE_PART;

	*first = part * COMPARE_PART;
	return left < COMPARE_PART ? left : COMPARE_PART;
}

/* Nobody knows what is in these pages, so they are sent; padding is nobody's. */
static void set_absent(const struct gw_memory *m, struct gw_bitmap *absent, size_t first,
		       size_t count)
{
	const size_t stop = first + count;

	for (unsigned int i = 0; i < m->nr_blocks; i++) {
		const size_t begin = m->blocks[i].first_page, end = begin + m->blocks[i].nr_pages;
		const size_t from = begin > first ? begin : first, to = end < stop ? end : stop;

		if (from < to)
			gw_bitmap_set_range(absent, from, to - from);
	}
}

static int compare(void *arg, unsigned int i)
{
	struct gw_arrival *a = arg;
	size_t part, first;

	(void)i;
	while (!a->halted && (part = a->next++) < a->parts) {
		const size_t count = part_of(a, part, &first);
		int rc = gw_now() < a->deadline ? gw_image_absent(&a->image, &a->key, a->memory,
								  first, count, &a->absent)
						: -ETIME;

		if (rc) {
			if (rc != -ETIME)
				gw_warn("%s", gw_error());
			set_absent(a->memory, &a->absent, first, count);
			a->skipped += count;
		}
		a->done[part] = true;
		a->notify(a->arg);
	}
	return 0;
}

int gw_arrival_compare(struct gw_arrival *a, const struct gw_memory *memory, bool later,
		       struct gw_dest_kept *kept, void (*notify)(void *arg), void *arg)
{
	const unsigned int n = gw_crew_cores();
	int rc;

	if (!a->took)
		return 0;
	if (later) /* nobody stands still for it, and no READY waits */
		a->deadline = worth_waiting(gw_memory_bytes(memory), WORTH_LATER_S);
	a->memory = memory;
	a->notify = notify;
	a->arg = arg;
	a->parts = (memory->nr_pages + COMPARE_PART - 1) / COMPARE_PART;
	a->done = calloc(a->parts, sizeof(*a->done));
	rc = a->done ? gw_bitmap_init(&a->absent, memory->nr_pages)
		     : gw_fail(-ENOMEM, "no memory to compare a kept image with");
	if (!rc)
		rc = gw_bitmap_init(&kept->absent, memory->nr_pages);
	if (!rc)
		rc = gw_crew_init(&a->crew);
	if (rc)
		return rc;
	a->begun = true;
	kept->departure = a->image.departure;
	kept->ledger = &a->image.ledger;
	return gw_crew_start(&a->crew, n < COMPARE_THREADS ? n : COMPARE_THREADS, compare, a);
}

void gw_arrival_unchecked(const struct gw_arrival *a, struct gw_dest_kept *kept)
{
	if (!a->took)
		return;
	kept->departure = a->image.departure;
	kept->ledger = &a->image.ledger;
	kept->unchecked = true;
}

size_t gw_arrival_compared(struct gw_arrival *a, size_t from, struct gw_bitmap *absent)
{
	const size_t pages = a->memory->nr_pages;
	size_t first, count, upto;

	while (a->told < a->parts && a->done[a->told])
		a->told++;
	upto = a->told * COMPARE_PART < pages ? a->told * COMPARE_PART : pages;
	for (size_t part = from / COMPARE_PART; absent && part < a->told; part++) {
		count = part_of(a, part, &first);
		memcpy(&absent->words[first / 64], &a->absent.words[first / 64], count / 8);
	}
	if (upto == pages || gw_now() < a->deadline)
		return upto;
	/* Who is at it may hang: nobody waits for him. */
	if (!a->halted)
		a->skipped += pages - upto;
	a->halted = true;
	if (absent)
		set_absent(a->memory, absent, upto, pages - upto);
	return pages;
}

void gw_arrival_compare_all(struct gw_arrival *a, struct gw_bitmap *absent)
{
	if (!a->begun)
		return;
	gw_crew_join(&a->crew);
	gw_arrival_compared(a, 0, absent);
}

void gw_arrival_compare_end(struct gw_arrival *a)
{
	a->halted = true;
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
	gw_arrival_compare_end(a);
	if (a->begun) {
		gw_crew_join(&a->crew);
		gw_crew_free(&a->crew);
	}
	if (a->skipped)
		gw_warn("of %zu pages that were kept of VM '%s' %zu were not compared in time, and "
			"are sent",
			a->memory->nr_pages, a->image.name, (size_t)a->skipped);
	gw_image_close(&a->image);
	gw_bitmap_free(&a->absent);
	free(a->done);
}

void gw_arrival_track(struct gw_vm *vm, const struct gw_ram *ram)
{
	if (gw_track_has_uffd() && gw_watch_begin(&vm->watch, vm->process.pid, ram, 1))
		gw_warn("VM '%s' is not tracked here: %s", vm->def.name, gw_error());
}
