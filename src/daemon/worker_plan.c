// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_plan.c - the worker that predicts where a VM would best go.
 *
 * What the VM is comes from itself where it is on this host: its pages with
 * data, and, if it has moved before, a sample of them compared with its ledger,
 * which tells what it has not changed since it arrived. Anything else, and all
 * of it for a VM of another host, is what the registry has.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "digest.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "placement.h"
#include "registry.h"
#include "source.h"
#include "worker.h"

/* Pages compared with the ledger at most: 64 MiB are read. A share is off by 1 % then. */
#define SAMPLE_MAX 16384

struct plan {
	struct gw_registry *registry;
	const char *name;
	char host[GW_REGISTRY_KEY_MAX]; /* where the VM is */
	uint64_t pages;
	struct gw_key key;
	struct gw_history history;
	struct gw_vm_record record;
	struct gw_host_record *hosts;
	struct gw_image_record *images;
	struct gw_link_record *links;
	size_t nr_hosts, nr_images, nr_links;
};

static int count_data(const struct gw_memory *memory, uint64_t *pages)
{
	struct gw_memory_walk walk = gw_memory_walk(memory);
	size_t first, stop;
	int rc;

	*pages = 0;
	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0)
		*pages += stop - first;
	return rc;
}

/* Every so many pages with data: which have not changed since the VM arrived? */
static int sample(struct plan *plan, const struct gw_memory *memory, const struct gw_ledger *ledger)
{
	const uint64_t step = plan->pages / SAMPLE_MAX + 1;
	uint64_t at = 0, looked = 0;
	uint8_t page_bytes[GW_PAGE_SIZE];
	struct gw_memory_walk walk = gw_memory_walk(memory);
	size_t first, stop;
	int rc;

	gw_history_begin(&plan->history, ledger);
	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		for (size_t page = first; page < stop; page++) {
			if (at++ % step)
				continue;
			rc = gw_memory_read(memory, page, 1, page_bytes);
			if (rc)
				return rc;
			looked++;
			if (gw_digest_equal(gw_key_page(&plan->key, page_bytes),
					    ledger->digests[page]))
				gw_history_count(&plan->history, ledger->generations[page]);
		}
	}
	gw_history_end(&plan->history, looked, looked < plan->pages ? plan->pages : looked);
	return rc;
}

static int look_at_memory(const struct gw_worker *w, struct plan *plan, const struct gw_vm *vm,
			  const struct gw_memory *memory)
{
	gw_autofree char *dir = gw_vm_dir(w->paths, plan->name);
	gw_autofree char *path = gw_path("%s/ledger", dir);
	struct gw_ledger ledger;
	int rc;

	rc = count_data(memory, &plan->pages);
	if (rc)
		return rc;
	/* It has never moved, or not keyed: nobody has kept anything of use. */
	if (access(path, F_OK) || !vm->has_secret)
		return 0;
	rc = gw_key_init(&plan->key, vm->secret);
	if (rc)
		return rc;
	rc = gw_ledger_open(&ledger, path);
	if (!rc && ledger.nr_pages == memory->nr_pages && gw_ledger_has_key(&ledger, plan->key.id))
		rc = sample(plan, memory, &ledger);
	else
		gw_warn("VM '%s': without its ledger all of it travels: %s", plan->name,
			rc ? gw_error() : "it is of another memory");
	gw_ledger_close(&ledger);
	return rc == -EBADMSG ? 0 : rc;
}

/* The VM is on this host. */
static int look(struct gw_worker *w, struct plan *plan, const struct gw_vm *vm)
{
	gw_autofd int lock = gw_vm_lock(w->paths, plan->name);
	struct gw_guest_facts facts;
	struct gw_ram ram = { 0 };
	struct gw_qmp *qmp;
	int rc;

	if (lock < 0)
		return lock;
	qmp = gw_qmp_open(vm->qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	if (!qmp)
		return -EPIPE;
	rc = gw_attach(qmp, vm->process.pid, &ram, &facts);
	gw_qmp_close(qmp);
	if (!rc)
		rc = look_at_memory(w, plan, vm, &ram.memory);
	gw_ram_close(&ram);
	return rc;
}

static int find_vm(struct gw_worker *w, struct plan *plan)
{
	struct gw_vm vm;
	int rc = gw_vm_load(w->paths, plan->name, &vm), known;

	if (rc && rc != -ENOENT)
		return rc;
	/* What its last move measured. A VM that never moved has nothing there. */
	known = gw_registry_vm(plan->registry, plan->name, &plan->record);
	if (!rc) {
		gw_copy_whole(plan->host, sizeof(plan->host), w->host);
		rc = look(w, plan, &vm);
		gw_vm_free(&vm);
		return rc;
	}
	if (known == -ENOENT || (!known && !plan->record.host[0]))
		return gw_fail(-ENOENT,
			       "no VM '%s' on this host, and the registry knows none; see godwit "
			       "list",
			       plan->name);
	if (!known && !plan->record.reported)
		return gw_fail(
			-ENODATA,
			"VM '%s' is on host '%s', and the registry knows no more of it: plan "
			"there, where its memory can be looked at",
			plan->name, plan->record.host);
	if (known)
		return known;
	snprintf(plan->host, sizeof(plan->host), "%s", plan->record.host);
	plan->pages = plan->record.resident / GW_PAGE_SIZE;
	plan->history = plan->record.history;
	return 0;
}

static int ask(struct plan *plan)
{
	int rc = gw_registry_hosts(plan->registry, &plan->hosts, &plan->nr_hosts);

	if (!rc)
		rc = gw_registry_images(plan->registry, plan->name, &plan->images,
					&plan->nr_images);
	if (!rc)
		rc = gw_registry_links(plan->registry, plan->host, &plan->links, &plan->nr_links);
	return rc ? gw_fail_prefix(rc, "without the registry nothing can be planned: ") : 0;
}

static json_t *placement_json(const struct gw_placement *p)
{
	char note[128];

	return json_pack(
		"{s:s,s:s,s:I,s:I,s:I,s:f,s:f,s:i,s:I,s:f,s:b,s:I,s:I,s:f,s:I,s:b,s:s}", "host",
		p->host->name, "address", p->host->address, "reused", (json_int_t)p->reused,
		"pages", (json_int_t)p->travel, "wire-bytes", (json_int_t)p->wire_bytes,
		"total-time", p->total_ms, "downtime", p->downtime_ms, "rounds", (int)p->rounds,
		"bandwidth", (json_int_t)p->link.bandwidth, "round-trip", p->link.round_trip_ms,
		"assumed", p->link.assumed, "memory", (json_int_t)p->host->memory, "free",
		(json_int_t)p->host->free, "load", p->host->load, "reported",
		(json_int_t)p->host->reported, "possible", p->obstacle == GW_PLACEMENT_FINE, "note",
		gw_placement_note(p, note, sizeof(note)));
}

static json_t *rank(const struct plan *plan, unsigned int downtime_limit_ms)
{
	const struct gw_placement_vm vm = { .host = plan->host,
					    .pages = plan->pages,
					    .history = &plan->history,
					    .dirty_rate = plan->record.dirty_rate,
					    .setup_ms = plan->record.setup_ms,
					    .device_bytes = plan->record.device_bytes,
					    .wire_per_page = plan->record.wire_per_page,
					    .wire_per_changed = plan->record.wire_per_changed,
					    .device_ms = GW_SOURCE_FIXED_MS,
					    .downtime_limit_ms = downtime_limit_ms };
	gw_autofree struct gw_placement *ranked = calloc(plan->nr_hosts + 1,
							 sizeof(*ranked)); /* never 0 bytes */
	json_t *list = json_array();
	size_t n;

	if (!ranked)
		return list;
	n = gw_placement_rank(&vm, plan->hosts, plan->nr_hosts, plan->images, plan->nr_images,
			      plan->links, plan->nr_links, time(NULL), ranked);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, placement_json(&ranked[i]));
	return json_pack("{s:s,s:s,s:I,s:f,s:f,s:b,s:o}", "name", plan->name, "host", plan->host,
			 "pages", (json_int_t)plan->pages, "dirty-pages-rate",
			 plan->record.dirty_rate, "wire-per-page", plan->record.wire_per_page,
			 "measured", plan->record.reported != 0, "hosts", list);
}

int gw_worker_plan(struct gw_worker *w, const json_t *args, json_t **result)
{
	const json_t *limit = json_object_get(args, "downtime-limit");
	const unsigned int downtime_limit_ms = json_is_integer(limit)
						       ? (unsigned int)json_integer_value(limit)
						       : 300;
	struct plan plan = { .name = json_string_value(json_object_get(args, "name")) };
	int rc;

	if (!gw_name_ok(plan.name))
		return -EINVAL;
	if (!w->paths->registry)
		return gw_fail(-ENOTSUP, "this godwitd has no registry, so nothing can be planned; "
					 "see --registry in godwitd(8)");
	plan.registry = gw_registry_open(w->paths->registry, GW_REGISTRY_USER_MS);
	rc = plan.registry ? find_vm(w, &plan) : -EINVAL;
	if (!rc)
		rc = ask(&plan);
	if (!rc)
		*result = rank(&plan, downtime_limit_ms);
	free(plan.hosts);
	free(plan.images);
	free(plan.links);
	gw_registry_close(plan.registry);
	return rc;
}
