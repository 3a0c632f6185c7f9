/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * promise.h - what this host's memory server holds of VMs that run elsewhere (decision 32), as
 * it is written down, so that any later godwitd or worker can carry on (invariant 12).
 *
 *   RUN/held/ID/record.json  what was promised to whom (vm/hold.h); ID is the split's
 *   RUN/held/ID/main         locked (flock) while the main host is connected
 *   RUN/ram-small/held/ID/   the pages (memserver/store.h); or
 *   SWAP/ID/                 on a disk (swap.h): the record says where, once and for all
 *
 * A record is its promise, as a VM's is (budget.h): from before the first page lies here until
 * the main host dismisses it, or somebody here drops it. Pages go before their record.
 *
 * Locking: the folder RUN/held/ID itself is locked (flock) by the one worker that changes it.
 */
#ifndef GW_PROMISE_H
#define GW_PROMISE_H

#include <limits.h>
#include <stdbool.h>

#include "hold.h"
#include "paths.h"

/* An id as text, with its NUL. */
#define GW_ID_TEXT (2 * GW_ID_LEN + 1)

/** struct gw_promise - what was promised of one VM, and where all of it lies. */
struct gw_promise {
	struct gw_hold hold;
	char swap[PATH_MAX]; /* the folder on a disk; "": it is memory */
	bool failed;	     /* the disk has lost some of it, so nobody is told that it is there */
};

/**
 * gw_promise_lock() - the lock of split @id; its folder is made if it is not there.
 * @deadline: to wait for another worker to leave (ns)
 *
 * Return: a descriptor that holds it until closed; -EBUSY; -errno.
 */
int gw_promise_lock(const struct gw_paths *p, const char *id, int64_t deadline);

/** gw_promise_load() - 0; -ENOENT, without a message; -EINVAL: damaged. */
int gw_promise_load(const struct gw_paths *p, const char *id, struct gw_promise *promise);

/** gw_promise_save() - write it down; whoever calls it has the lock. 0 or -errno. */
int gw_promise_save(const struct gw_paths *p, const char *id, const struct gw_promise *promise);

/** gw_promise_store() - the folder of its pages; free(). */
char *gw_promise_store(const struct gw_paths *p, const char *id, const struct gw_promise *promise);

/**
 * gw_promise_used() - bytes that its pages take.
 *
 * On a disk that may take as long as the disk does: not for the daemon, nor under a lock that
 * others wait for.
 */
uint64_t gw_promise_used(const struct gw_paths *p, const char *id,
			 const struct gw_promise *promise);

/** gw_promise_connect() - say that the main host is connected, until what is returned is closed. */
int gw_promise_connect(const struct gw_paths *p, const char *id);

/** gw_promise_connected() - whether it is. */
bool gw_promise_connected(const struct gw_paths *p, const char *id);

/** gw_promise_remove() - pages and record, or a folder without one; has the lock. 0 or -errno. */
int gw_promise_remove(const struct gw_paths *p, const char *id);

/** gw_promise_each() - call @fn for each. */
void gw_promise_each(const struct gw_paths *p,
		     void (*fn)(void *arg, const char *id, const struct gw_promise *promise),
		     void *arg);

#endif
