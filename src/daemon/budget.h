/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * budget.h - the memory of a host: what was promised to VMs, and what is left
 * for kept images (decision 23).
 *
 * A VM's record (record.h) is its promise: all of the memory in its definition,
 * from before its RAM files exist until its folder is removed. So whoever dies
 * leaves no reservation that nobody releases, and there is nothing to keep in step.
 *
 *   limit    >=  memory promised to VMs, and to those of other hosts (promise.h)
 *                +  images that are pinned; what lies on a disk (swap.h) counts there alone
 *   free     >=  what VMs were promised and do not use yet, and a reserve
 *
 * The first is asked of --memory-limit, the second of the file system of the RAM
 * files and of the host (MemAvailable). Images that are not pinned live in what
 * is left, and give way when a VM starts or arrives, and when others use memory.
 *
 * memory-overcommit: with 200 (percent) a VM counts for half of its memory, or
 * for what it uses and an eighth of its memory, if that is more.
 */
#ifndef GW_BUDGET_H
#define GW_BUDGET_H

#include "hold.h"
#include "record.h"

/* How long a VM that starts or arrives waits until images are on disk. */
#define GW_BUDGET_DEMOTE_S 3

/**
 * gw_budget_free() - bytes of memory that one more VM may be promised.
 * @def: it goes where this one would; NULL: any VM
 *
 * What kept images hold counts as free, unless they are pinned.
 */
uint64_t gw_budget_free(const struct gw_paths *p, const struct gw_definition *def);

/**
 * gw_budget_reserve() - promise @vm its memory by writing down its record.
 * @host: our name, for the message
 * @resident: bytes that it will use at once, because it used them where it comes from
 *
 * Two that fit one at a time do not get it both. The VM's lock is held; until
 * gw_budget_make_room() images may still be where its memory is to go.
 *
 * Return: 0, -ENOMEM with the figures, or -errno.
 */
int gw_budget_reserve(const struct gw_paths *p, const char *host, const struct gw_vm *vm,
		      uint64_t resident);

/**
 * gw_budget_grow() - promise @vm, which is here and uses a part of it, what its record says now.
 * The same otherwise.
 */
int gw_budget_grow(const struct gw_paths *p, const char *host, const struct gw_vm *vm);

/** struct gw_budget_server - what VMs of other hosts may have here, and what of it is left. */
struct gw_budget_server {
	uint64_t limit, free;		/* bytes, in memory */
	uint64_t swap_limit, swap_free; /* on a disk (swap.h) */
};

/** gw_budget_server() - how this host stands as a memory server. It asks the disk, which may hang.
 */
void gw_budget_server(const struct gw_paths *p, struct gw_budget_server *server);

/** gw_budget_serves() - whether memory is held here for VMs of other hosts. 0, or -EPERM. */
int gw_budget_serves(const struct gw_paths *p, const char *host);

/**
 * gw_budget_promise() - promise what @hold asks for by writing down its record (promise.h).
 * @host: our name, for the message
 * @id: of the split, whose lock is held
 *
 * It lies in memory, or where that has no room on the disk (budget_held.c); what was promised to it
 * before stays where it lies, and only the difference is looked for. No more lies here than it asks
 * for now. A VM of this host gets none of its memory. Otherwise as gw_budget_reserve(): two that
 * fit one at a time do not get it both.
 *
 * Return: 0, -EPERM: none is held here, -ENOMEM with the figures, -EIO: a disk has lost some of it,
 * or -errno.
 */
int gw_budget_promise(const struct gw_paths *p, const char *host, const char *id,
		      const struct gw_hold *hold);

/** gw_budget_make_room() - images give way until there is room for all promises. Bytes freed. */
uint64_t gw_budget_make_room(const struct gw_paths *p, int64_t deadline);

/**
 * gw_budget_is_low() - whether gw_budget_make_room() is worth a call. Cheap: for
 * the daemon's tick.
 */
bool gw_budget_is_low(const struct gw_paths *p);

#endif
