/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * watch.h - the one watch that is kept over a VM's memory: its userfaultfds, where
 * they are, and what they are for.
 *
 * A VM's memory is registered with one kind of watch at a time.
 *
 *   none ──> tracking   gw_watch_begin(): stays in QEMU, whoever of Godwit lives
 *     │                 gw_watch_track(): goes on with it, or one for a migration alone
 *     └────> paging     synchronous; the pager's, which is not in this release
 *
 * From one to the other it goes by none: the last descriptor is closed, here and in
 * QEMU, the kernel lifts every registration, and the other begins. What was
 * written before that and not scanned is lost, so whoever changes scans first.
 *
 * The descriptors are made by an injected system call (vm/inject.h); there may be
 * several, one for each range of memory, where many vCPUs fault at once (F22).
 * They stay in QEMU under the numbers that the record keeps (daemon/record.h), so a
 * process that never saw them finds them again.
 *
 * Locking: the holder of the VM's lock.
 */
#ifndef GW_WATCH_H
#define GW_WATCH_H

#include <jansson.h>

#include "ram.h"
#include "tracker.h"

enum gw_watch_mode {
	GW_WATCH_NONE,
	GW_WATCH_TRACKING,
	GW_WATCH_PAGING, /* known, so that a record of a release to come is not misread */
};

/** struct gw_memory_watch - what the VM's record says of it; zero: none. */
struct gw_memory_watch {
	enum gw_watch_mode mode;
	int numbers[GW_TRACK_RANGES]; /* in QEMU */
	unsigned int nr;
	/* Every write has been tracked ever since the VM came here, and none was asked for. */
	bool since_arrival;
};

/** gw_watch_json() - as the record keeps it; owned by the caller. */
json_t *gw_watch_json(const struct gw_memory_watch *w);

/** gw_watch_parse() - the reverse. Whatever is no watch of ours is none. */
void gw_watch_parse(struct gw_memory_watch *w, const json_t *json);

/**
 * gw_watch_begin() - track what the guest writes from here on, with what stays in QEMU.
 * @ram: as QEMU maps it
 *
 * Sets @w, for the caller to save. Return: 0, or -errno with a message and no watch.
 */
int gw_watch_begin(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram);

/**
 * gw_watch_track() - what tells the pages that are written, by whatever this kernel has.
 * @save: called before the first scan takes from the kernel what only the caller knows then:
 *	record @w, which says so
 * @resumed: set to whether pages may have been written already, under the watch that stayed
 * @since_arrival: set to whether it has seen all of them
 *
 * Goes on with the watch that stayed; else makes one that ends with the tracker, or
 * with this process. Return: gw_tracker_stop(), or NULL with a message.
 */
struct gw_tracker *gw_watch_track(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
				  int (*save)(void *arg), void *arg, bool *resumed,
				  bool *since_arrival);

#endif
