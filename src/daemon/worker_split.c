// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_split.c - the workers behind `godwit split` and `godwit merge`: the VM as it runs becomes
 * one whose memory is watched, and of which nothing is away yet. Its keeper does the rest
 * (keeper.c).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "keeper.h"
#include "log.h"
#include "split_hosts.h"

/* For another godwitd's keeper, which looks twice a second whether there is a younger one. */
#define GIVES_WAY_NS (10 * GW_S)
#define LOOK_MS	     20

/* How QEMU is now: its memory, and how many vCPUs fault. */
static int look_at_qemu(struct gw_keeper *k)
{
	struct gw_qmp *qmp = gw_qmp_open(k->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	struct gw_guest_facts facts;
	int rc = qmp ? gw_qmp_check(qmp, k->vm.process.pid) : -EPIPE;

	if (!rc)
		rc = gw_attach(qmp, k->vm.process.pid, &k->ram, &facts);
	if (!rc) {
		k->record.direct_io = facts.direct_io;
		rc = gw_keeper_watch(k, &k->vm, qmp);
	}
	gw_qmp_close(qmp);
	return rc;
}

/* A part of a huge page that is punched may stay, as zeros; so a unit is a whole one. */
static void fit_units(struct gw_keeper *k)
{
	if (gw_ram_has_huge_pages(&k->ram) || k->vm.attached)
		k->record.unit_pages = GW_UNIT_PAGES_MAX;
}

static int begin(struct gw_keeper *k, const json_t *args)
{
	const uint64_t memory = gw_definition_bytes(&k->vm.def);
	struct gw_journal journal;
	json_t *asked = NULL;
	int rc;

	if (k->vm.split)
		return gw_fail(-EBUSY, "VM '%s' is split already; 'godwit status %s' says how",
			       k->vm.def.name, k->vm.def.name);
	if (k->vm.watch.mode == GW_WATCH_PAGING ||
	    !gw_journal_load(k->w->paths, k->vm.def.name, &journal))
		return gw_fail(-EBUSY,
			       "VM '%s' moves, or did and is not settled: see 'godwit list'",
			       k->vm.def.name);
	gw_error_clear();
	rc = gw_split_hosts(k->w, args, memory, NULL, &asked);
	if (!rc)
		rc = gw_split_record_ask(&k->record, asked, memory);
	json_decref(asked);
	if (!rc)
		rc = gw_id_make(k->record.id);
	if (!rc)
		rc = look_at_qemu(k);
	if (rc)
		return rc;
	fit_units(k);
	k->split.memory = &k->ram.memory;
	rc = gw_netpt_create_for(&k->split.table, k->table, &k->ram.memory, k->record.id,
				 k->record.unit_pages, k->record.replicas);
	if (!rc)
		rc = gw_keeper_save(k);
	if (rc && gw_watch_unsplit(&k->vm.watch, k->vm.process.pid))
		gw_warn("VM '%s' keeps descriptors that nobody needs", k->vm.def.name);
	return rc;
}

/* What is on its way out may leave until nobody sends any more. */
static bool is_all_here(struct gw_keeper *k)
{
	gw_servers_stop(&k->all);
	return !k->split.table.away;
}

/* It could not begin: nothing is away, so the VM is as it was. Returns @rc. */
static int give_up(struct gw_keeper *k, int rc)
{
	gw_autofree char *why = strdup(gw_error());

	if (gw_keeper_end(k))
		gw_err("VM '%s' is still watched: %s", k->vm.def.name, gw_error());
	return gw_fail(rc, "%s", why ? why : "");
}

/* The keeper of another godwitd gives way, once it has seen that there is a younger one. */
static int await_lock(struct gw_worker *w, const char *name)
{
	const int64_t end = gw_now() + GIVES_WAY_NS;
	int lock = gw_vm_lock(w->paths, name);

	while (lock == -EBUSY && gw_now() < end) {
		poll(NULL, 0, LOOK_MS);
		lock = gw_vm_lock(w->paths, name);
	}
	return lock;
}

int gw_worker_split(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	const bool resumed = json_is_true(json_object_get(args, "resumed"));
	gw_autofd int lock = resumed ? await_lock(w, name) : gw_vm_lock(w->paths, name);
	struct gw_keeper *k = lock < 0 ? NULL : gw_keeper_new(w, name);
	int rc;

	if (!k)
		return lock < 0 ? lock : -ENOMEM;
	rc = gw_keeper_open(k, name);
	if (rc == -ESRCH && resumed) {
		rc = gw_keeper_bury(k);
		gw_keeper_free(k);
		return rc;
	}
	if (!rc)
		rc = resumed ? gw_keeper_take_over(k) : begin(k, args);
	if (!rc)
		rc = gw_keeper_start(k, resumed);
	if (!rc)
		rc = gw_keeper_keep(k);
	else if (rc == GW_KEEPER_MERGED)
		rc = 0;
	if (rc && rc != -ESTALE && !resumed && k->vm.split && is_all_here(k))
		rc = give_up(k, rc);
	/* Not a failure, which would have it followed by another. */
	if (rc == -ESTALE && w->yield) {
		*result = gw_keeper_status(k);
		rc = 0;
	} else if (!rc && k->why) {
		rc = gw_fail(-ECANCELED, "%s", k->why);
	}
	if (!rc && !*result)
		*result = json_pack("{s:s}", "status", "completed");
	gw_keeper_free(k);
	return rc;
}

int gw_worker_merge(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_vm vm;
	int rc = gw_vm_load(w->paths, name, &vm);

	if (rc == -ENOENT)
		return gw_fail(rc, "no VM '%s' on this host; see godwit list", name);
	if (rc)
		return rc;
	if (vm.split)
		rc = gw_fail(-EAGAIN,
			     "VM '%s' is still split; 'godwit status %s' says how it "
			     "stands",
			     name, name);
	else if (!json_is_true(json_object_get(args, "waited")))
		rc = gw_fail(-EINVAL, "all memory of VM '%s' is here", name);
	else
		*result = json_pack("{s:s}", "name", name);
	gw_vm_free(&vm);
	return rc;
}
