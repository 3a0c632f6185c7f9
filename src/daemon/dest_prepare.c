// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dest_prepare.c - what an arriving VM needs before its first page comes: a folder and a
 * promise of memory, RAM files, and a QEMU that has what the source's has; see dest_env.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "feature.h"
#include "fetch.h"
#include "images.h"
#include "live.h"
#include "log.h"
#include "qemu_log.h"
#include "vm_folder.h"

#define START_MS 60000

/* Where the source answers questions: recovery asks it before it resumes the guest. */
static void note_source(struct gw_dest_env *e)
{
	static const char *const anywhere[] = { "", "0.0.0.0", "[::]", "*" };
	const char *listen = e->d.listen, *port = strrchr(listen, ':');
	char *peer = e->journal.peer;
	bool any = false;

	if (!port || !port[1])
		return;
	for (size_t i = 0; i < GW_ARRAY_SIZE(anywhere); i++)
		any = any || (strlen(anywhere[i]) == (size_t)(port - listen) &&
			      !strncmp(listen, anywhere[i], strlen(anywhere[i])));
	if (!any)
		snprintf(peer, sizeof(e->journal.peer), "%s", listen);
	else if (e->from[0])
		snprintf(peer, sizeof(e->journal.peer),
			 strchr(e->from, ':') ? "[%.90s]%.8s" : "%.90s%.8s", e->from, port);
}

static int name_taken(const struct gw_dest_env *e)
{
	const char *name = e->vm.def.name;
	struct gw_journal there;

	/* The very migration that this is: its source is this host. */
	if (!gw_journal_load(e->w->paths, name, &there) &&
	    !memcmp(there.id, e->journal.id, GW_ID_LEN))
		return gw_fail(-EEXIST,
			       "VM '%s' is on host '%s' already: the address is that of the host "
			       "that it is to leave",
			       name, e->w->host);
	return gw_fail(-EEXIST, "host '%s' already has a VM '%s'", e->w->host, name);
}

/* RAM files may take a little more than their size: metadata, huge pages. */
static bool can_be_resident(const struct gw_definition *def, uint64_t bytes)
{
	const uint64_t all = gw_definition_bytes(def);

	return bytes <= all + all / 8;
}

/* Make the VM's folder ours alone, and have its memory promised to us. */
static int claim(struct gw_dest_env *e, uint64_t resident)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc;

	if (!can_be_resident(&e->vm.def, resident))
		return gw_fail(-EPROTO, "source: a VM that uses more memory than it has");
	e->lock = gw_vm_claim(e->w->paths, e->w->host, e->vm.def.name);
	if (e->lock == -EEXIST)
		return name_taken(e);
	rc = e->lock < 0 ? e->lock : gw_dest_journal(e, GW_DEST_PHASE_RECEIVING);
	/* Recorded before there is anything to find: whoever finds us dead knows what to remove. */
	e->vm.qmp = gw_vm_qmp_path(dir);
	if (resident > gw_vm_promised(&e->vm))
		resident = gw_vm_promised(&e->vm);
	return rc ? rc : gw_budget_reserve(e->w->paths, e->w->host, &e->vm, resident);
}

/* Its memory: what was kept of it, if that is of use, and room for the rest. */
static int make_ram(struct gw_dest_env *e, const json_t *reuse, char *const paths[])
{
	int rc = gw_vm_make_ram_folder(e->w->paths, &e->vm.def);

	if (rc)
		return rc;
	gw_arrival_take(&e->arrival, e->w->paths, &e->vm.def, reuse, e->d.keyed ? &e->d.key : NULL,
			paths);
	return gw_vm_make_ram(e->w->paths, &e->vm.def, e->arrival.took, &e->ram);
}

static int start_qemu(struct gw_dest_env *e, char *const ram_paths[])
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc = gw_launch(&e->vm.def, dir, ram_paths, true, &e->vm.process);

	if (rc)
		return gw_fail_prefix(rc, "host '%s': ", e->w->host);
	rc = gw_vm_save(e->w->paths, &e->vm);
	if (!rc) {
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + START_MS * GW_MS);
		rc = e->qmp ? 0 : -EPIPE;
	}
	/* It closes its monitor a moment before it ends. */
	if (rc && gw_process_ended(&e->vm.process, GW_DEST_ENDING_MS)) {
		gw_autofree char *said = gw_qemu_said(e->w->paths, e->w->host, e->vm.def.name);

		e->log_kept = true;
		return gw_fail(-ECHILD,
			       "QEMU does not start on host '%s'. %s. Everything the VM "
			       "names (binary, machine version, disks, networks) must "
			       "exist there too",
			       e->w->host, said);
	}
	if (rc)
		return rc;
	e->qemu = gw_process_open(&e->vm.process);
	gw_dest_heed_fd(e, e->qemu);
	return e->qemu < 0 ? e->qemu : 0;
}

/* Have QEMU wait for its device state on a socket of ours. */
static int await_state(struct gw_dest_env *e)
{
	static const char *const capabilities[] = { "x-ignore-shared", "late-block-activate",
						    "events", NULL };
	int pair[2], rc = gw_settings_find(e->qmp, capabilities, &e->settings);

	if (!rc)
		rc = gw_settings_format(e->settings, e->journal.settings);
	if (!rc)
		rc = gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
	if (!rc)
		rc = gw_settings_apply(e->qmp, e->settings);
	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return gw_fail(-errno, "socketpair: %s", strerror(errno));
	e->device = pair[0];
	rc = gw_qmp_send_fd(e->qmp, "godwit-device", pair[1]);
	close(pair[1]);
	if (!rc)
		rc = gw_qmp_call(e->qmp, "migrate-incoming",
				 json_pack("{s:s}", "uri", "fd:godwit-device"), NULL);
	return rc;
}

/* Write down what its memory looks like, while no guest waits for the monitor. */
static int describe(struct gw_dest_env *e, bool tracked)
{
	struct gw_guest_facts facts;
	struct gw_ram ram;
	int rc = gw_attach(e->qmp, e->vm.process.pid, &ram, &facts);

	if (rc && (e->d.paging || e->keeper))
		return rc;
	if (rc) {
		gw_warn("VM '%s' could not leave again: %s", e->vm.def.name, gw_error());
		return 0;
	}
	gw_vm_describe(&e->vm, &ram);
	if (e->d.paging && gw_pages_prepare(&e->pages, e->qmp, &ram)) {
		/* The source decides whether it goes on without; READY tells. */
		gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
		e->d.paging = 0;
		e->d.no_paging = true;
	}
	if (e->keeper) {
		rc = gw_dest_split_prepare(e, &ram, &facts);
		return rc ? rc : gw_vm_save(e->w->paths, &e->vm);
	}
	if (tracked && e->vm.watch.mode == GW_WATCH_NONE)
		gw_arrival_track(&e->vm, &ram);
	gw_ram_close(&ram);
	return gw_vm_save(e->w->paths, &e->vm);
}

/* QEMU has what it has at the source, or the move is refused before a page moves (invariant 14). */
static int compare_live(struct gw_dest_env *e, const json_t *theirs)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *ours = NULL;
	int rc = theirs ? gw_live_describe(e->qmp, e->vm.process.pid, dir, &ours) : 0;

	if (!rc && theirs)
		rc = gw_live_carry(e->qmp, e->vm.process.pid, dir, theirs, &ours);
	if (!rc)
		rc = gw_live_compare(theirs, ours, e->w->host);
	json_decref(ours);
	return rc;
}

static bool is_read(const struct gw_dest_env *e, const char *disk)
{
	const json_t *name;
	size_t i;

	json_array_foreach(e->d.disks, i, name) {
		if (!strcmp(json_string_value(name), disk))
			return true;
	}
	return false;
}

/* What the source has named is read, or the move is refused before a page moves. */
static int check_replicas(const struct gw_dest_env *e, const json_t *refused)
{
	const char *disk;
	json_t *name;

	json_object_foreach((json_t *)(uintptr_t)e->d.disk_map, disk, name) {
		const char *why = json_string_value(json_object_get(refused, disk));

		if (!is_read(e, disk))
			return gw_fail(-EIO, "host '%s': replica '%s' of disk '%s': %s", e->w->host,
				       json_string_value(name), disk,
				       why ?: "its storage does not answer in time");
	}
	return 0;
}

/*
 * Those of its disks that can be read may be read instead of pages, or replicas of them;
 * without disks of its own it goes, too.
 */
static int open_disks(struct gw_dest_env *e)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *images = NULL, *refused = NULL, *why;
	const char *disk;
	int rc = 0;

	if (!e->d.wants_disks)
		return 0;
	if (gw_images_find(e->qmp, &images))
		gw_info("VM '%s': %s", e->vm.def.name, gw_error());
	gw_storage_images(e, images, false);
	if (e->d.disk_map)
		rc = gw_replicas_open(&e->replicas, e->w->paths->disk_map, e->d.disk_map, images);
	if (rc)
		gw_fail_prefix(rc, "host '%s': ", e->w->host);
	else if (gw_fetch_open(&e->fetch, images, e->vm.process.pid, dir, GW_DISKS_NS, &e->d.disks,
			       &refused))
		gw_info("no disk of VM '%s' is read instead of its pages: %s", e->vm.def.name,
			gw_error());
	json_object_foreach(refused, disk, why) {
		gw_info("disk '%s' of VM '%s' is not read instead of its pages: %s", disk,
			e->vm.def.name, json_string_value(why));
	}
	if (!rc)
		rc = check_replicas(e, refused);
	json_decref(refused);
	json_decref(images);
	return rc;
}

static int prepare(struct gw_dest_env *e, const json_t *definition, uint64_t resident,
		   const json_t *reuse, struct gw_dest_kept *kept)
{
	const bool later = e->d.features >> GW_FEATURE_LATER & 1;
	char *ram_paths[GW_MEMORY_BLOCKS_MAX] = { NULL };
	int rc = gw_definition_parse(&e->vm.def, definition);

	note_source(e);
	e->vm.has_secret = e->d.keyed;
	memcpy(e->vm.secret, e->d.secret, sizeof(e->vm.secret));
	e->vm.legs = e->d.legs;
	if (!rc && e->d.wants_split)
		rc = gw_dest_split_ask(e, e->d.wants_split);
	for (unsigned int i = 0; !rc && i < e->vm.def.nr_memory; i++)
		ram_paths[i] = gw_vm_ram_path(e->w->paths, &e->vm.def, i);
	if (!rc)
		rc = claim(e, resident);
	if (!rc)
		rc = make_ram(e, reuse, ram_paths);
	if (!rc && e->keeper) {
		gw_teller_now(&e->teller, "calling the sub-hosts");
		rc = gw_dest_split_reach(e);
	}
	if (!rc && e->d.wants_storage) {
		gw_teller_now(&e->teller, "making images for its disks");
		rc = gw_storage_make(e, e->d.wants_storage);
	}
	gw_teller_now(&e->teller, "starting QEMU");
	if (!rc && e->d.unchecked)
		gw_arrival_unchecked(&e->arrival, kept);
	else if (!rc) /* while QEMU starts, and the rounds go on */
		rc = gw_arrival_compare(&e->arrival, &e->ram.memory, later, kept, gw_dest_notify,
					e);
	if (!rc)
		rc = start_qemu(e, ram_paths);
	if (!rc)
		rc = compare_live(e, json_object_get(definition, "live"));
	if (!rc && e->d.paging)
		rc = gw_pages_remember(&e->pages, reuse);
	if (!rc)
		rc = describe(e, reuse && !e->w->paths->store.untracked);
	if (!rc && e->storage)
		rc = gw_storage_serve(e);
	if (!rc)
		rc = open_disks(e);
	if (!rc)
		rc = await_state(e);
	kept->later = kept->departure && later && !kept->unchecked;
	if (!rc && !kept->later) {
		gw_teller_now(&e->teller, "looking at what it kept of the VM's memory");
		gw_arrival_compare_all(&e->arrival, &kept->absent);
	}
	for (unsigned int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		free(ram_paths[i]);
	return rc;
}

static void tell_source(void *arg, const char *what)
{
	gw_dest_wait(&((struct gw_dest_env *)arg)->d, what);
}

/* It may take minutes: memory to be freed, an image on disk to be read, a slow QEMU. */
int gw_dest_prepare(void *env, const json_t *definition, uint64_t resident, const json_t *reuse,
		    const struct gw_memory **memory, struct gw_dest_kept *kept)
{
	struct gw_dest_env *e = env;
	int rc;

	gw_teller_start(&e->teller, GW_DEST_WAIT_MS, tell_source, e, "making room for its memory");
	*memory = &e->ram.memory;
	rc = gw_dest_because(e, prepare(e, definition, resident, reuse, kept));
	gw_teller_stop(&e->teller);
	return rc;
}
