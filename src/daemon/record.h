/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * record.h - what a host writes down about its VMs, so that any later godwitd
 * or worker can carry on (invariant 12).
 *
 *   vm.json       definition, process, monitor: exists while the VM is here
 *   journal.json  the phase of a migration: exists from its start until its
 *                 outcome has been carried out here
 *   ledger        what its memory was when it came here (store/ledger.h)
 *   settled/ID    the outcome of an arrived migration, for the source's
 *                 `godwit recover`: "aborted", "running" or "lost"; "unknown" once
 *                 that was answered. At a source: "aborted", when it has the guest again
 *
 * Rules: written atomically (gw_write_file()). Only the holder of the VM's
 * lock writes vm.json and journal.json.
 */
#ifndef GW_RECORD_H
#define GW_RECORD_H

#include <jansson.h>
#include <stdbool.h>

#include "attach.h"
#include "define.h"
#include "key.h"
#include "launch.h"
#include "legs.h"
#include "messages.h"
#include "paths.h"
#include "watch.h"
#include "settings.h"

/** struct gw_vm - a VM of this host. */
struct gw_vm {
	struct gw_definition def;
	struct gw_process process;
	char *qmp;		      /* path of its monitor */
	bool attached;		      /* its files are the user's: never remove them */
	struct gw_memory_watch watch; /* that stays in its QEMU */
	/* What its digests are keyed with (page/key.h); gw_vm_need_secret() makes one. */
	bool has_secret;
	uint8_t secret[GW_SECRET_LEN];
	struct gw_legs legs; /* what its last moves took */
	json_t *blocks;
	json_t *split; /* split_record.h; NULL: all of its memory is here */
};

enum gw_role {
	GW_ROLE_SOURCE,
	GW_ROLE_DEST
};

struct gw_journal {
	enum gw_role role;
	int phase; /* enum gw_source_phase or gw_dest_phase */
	uint8_t id[GW_ID_LEN];
	char peer[GW_ADDRESS_MAX]; /* the other host's address; may be empty at a destination */
	bool was_running;	   /* source: resume it */
	unsigned int paging;	   /* source: connections of post-copy; 0: none were asked for */
	uint64_t max_bandwidth;	   /* source: bytes/s of pages, whoever sends them; 0: no limit */
	bool keeps;		   /* source: reuse was asked for */
	uint32_t image; /* source: departure of the image that the other host had; 0: none */
	char host[GW_HOST_MAX]; /* source: what the other host calls itself; "": not told */
	int64_t since;		/* source: the guest runs there; s since 1970, 0: not known */
	char why[512];		/* GW_SOURCE_GONE: what became of it; destination: as lost */
	bool lost;		/* source: what the guest lacks there is here no more */
	/* source: of a migration to several hosts: ADDRESS=SIZE, with commas; "": it is none */
	char split_to[GW_HOLDERS_MAX * (GW_ADDRESS_MAX + 24)];
	uint8_t split_id[GW_ID_LEN];
	char settings[GW_SETTINGS_MAX]; /* of its QEMU, to put back (invariant 14); "": none */
};

void gw_vm_free(struct gw_vm *vm);

/** gw_vm_save() - write vm.json. 0 or -errno. */
int gw_vm_save(const struct gw_paths *p, const struct gw_vm *vm);

/** gw_vm_promised() - bytes of this host's memory that are the VM's. */
uint64_t gw_vm_promised(const struct gw_vm *vm);

/** gw_vm_need_secret() - give @vm a secret unless it has one, and save it. 0 or -errno. */
int gw_vm_need_secret(const struct gw_paths *p, struct gw_vm *vm);

/** gw_vm_load() - read vm.json of @name. 0, -ENOENT, or -EINVAL for a damaged one. */
int gw_vm_load(const struct gw_paths *p, const char *name, struct gw_vm *vm);

/** gw_vm_ledger_path() - where the VM's ledger lies; free(). */
char *gw_vm_ledger_path(const struct gw_paths *p, const char *name);

/** gw_vm_describe() - keep @ram's blocks in @vm for `godwit list --json`. */
void gw_vm_describe(struct gw_vm *vm, const struct gw_ram *ram);

/**
 * gw_vm_remove() - remove the VM's folder, and its RAM files unless attached.
 * @def: whose RAM files; its process is not touched
 *
 * RAM files first, then the folder at once, by a rename: whoever is killed on
 * the way leaves a VM with its records, or none, and its name is free (or will be,
 * once the sweep of gw_jobs_sweep() has found its QEMU dead).
 */
int gw_vm_remove(const struct gw_paths *p, const struct gw_definition *def, bool attached);

/** gw_vm_sweep() - remove what removals left that were killed. May run beside them. */
void gw_vm_sweep(const struct gw_paths *p);

/**
 * gw_vm_lock() - take the VM's lock; -EBUSY if another worker holds it.
 * Return: a descriptor that holds it until closed.
 */
int gw_vm_lock(const struct gw_paths *p, const char *name);

int gw_journal_save(const struct gw_paths *p, const char *name, const struct gw_journal *j);

/** gw_journal_load() - 0, -ENOENT if none, or -EINVAL. */
int gw_journal_load(const struct gw_paths *p, const char *name, struct gw_journal *j);

/** gw_journal_gone_text() - of one that is lost: what became of the guest, and what to do now. */
void gw_journal_gone_text(const struct gw_journal *j, const char *name, char *text, size_t len);
void gw_journal_remove(const struct gw_paths *p, const char *name);

/** gw_settled_save() - record the outcome of migration @id; or that none is known. */
int gw_settled_save(const struct gw_paths *p, const uint8_t id[GW_ID_LEN], enum gw_outcome o);

/** gw_settled_load() - the recorded outcome, or 0 if none is. */
enum gw_outcome gw_settled_load(const struct gw_paths *p, const uint8_t id[GW_ID_LEN]);

/** gw_settled_any() - whether anything is recorded of migration @id. */
bool gw_settled_any(const struct gw_paths *p, const uint8_t id[GW_ID_LEN]);

/** gw_settled_doubted() - whether somebody was told that nothing is known of migration @id. */
bool gw_settled_doubted(const struct gw_paths *p, const uint8_t id[GW_ID_LEN]);

#endif
