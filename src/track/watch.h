/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * watch.h - the one watch that is kept over a VM's memory: its userfaultfds, where
 * they are, and what they are for.
 *
 * A VM's memory is registered with one kind of watch at a time.
 *
 *   none ──> tracking   gw_watch_begin(): stays in QEMU, whoever of Godwit lives
 *     │ ^     │    ^    gw_watch_track(): goes on with it, or one for a migration alone
 *     │ │     v    │
 *     │ │    paging     gw_watch_page(), gw_watch_unpage(): synchronous, the pager's
 *     v │
 *    split              gw_watch_split(), gw_watch_unsplit(): a pager's that pages out, too
 *
 * Tracking is WP, with WP_ASYNC; paging is MISSING | MINOR, without WP (the kernel never
 * lets go of a part of a registration: what is registered for all three stays so). Split is
 * MISSING | WP, and whoever writes what is protected waits (F9): WP_ASYNC belongs to a
 * descriptor, so it has its own, and what was tracked ends with the others.
 * From one to the other is a call a range, however large it is, and nothing is lost
 * on the way: a page that nobody touched keeps the marker that tracking gave it, in
 * either mode; one that is touched while it is paged gets an entry without protection,
 * and counts as written (F19). So paging may begin only where no page has an entry,
 * which is so from gw_watch_begin() until QEMU loads the device state (F6).
 *
 * The descriptors are made by injected system calls (vm/inject.h); there may be
 * several, each for a part of every range, where many vCPUs fault at once (F22).
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

/* More do not help: so many vCPUs that fault at once are those of a guest that waits anyway. */
#define GW_WATCH_PARTS 8

/* Whose faults are told apart (wire/faults.h has room for as many). */
#define GW_WATCH_VCPUS 64

enum gw_watch_mode {
	GW_WATCH_NONE,
	GW_WATCH_TRACKING,
	GW_WATCH_PAGING,
	GW_WATCH_SPLIT,
};

/** struct gw_memory_watch - what the VM's record says of it; zero: none. */
struct gw_memory_watch {
	enum gw_watch_mode mode;
	int numbers[GW_TRACK_RANGES]; /* in QEMU */
	unsigned int nr;
	/* What they watch. Records of before do not say; nr_ranges is 0 then. */
	struct gw_track_range ranges[GW_TRACK_RANGES];
	unsigned int nr_ranges;
	/* The first vCPUs' threads, for whoever pages by it to tell whose faults are whose. */
	pid_t vcpus[GW_WATCH_VCPUS];
	unsigned int nr_vcpus;
	/* Every write has been tracked ever since the VM came here, and none was asked for. */
	bool since_arrival;
};

/** struct gw_watched - a range of memory, and the descriptor that watches it. */
struct gw_watched {
	int uffd; /* here */
	struct gw_track_range range;
};

/** struct gw_paged - the watch in this process, for whoever pages by it. */
struct gw_paged {
	int uffds[GW_TRACK_RANGES];
	unsigned int nr_uffds;
	struct gw_watched parts[GW_TRACK_RANGES * GW_TRACK_RANGES];
	unsigned int nr_parts;
	pid_t vcpus[GW_WATCH_VCPUS]; /* their threads */
	unsigned int nr_vcpus;
};

/**
 * gw_track_ranges() - @ram as QEMU maps it, a range a block.
 * @ranges: GW_TRACK_RANGES of them
 *
 * Return: how many there are.
 */
unsigned int gw_track_ranges(const struct gw_ram *ram, struct gw_track_range *ranges);

/** gw_watch_json() - as the record keeps it; owned by the caller. */
json_t *gw_watch_json(const struct gw_memory_watch *w);

/** gw_watch_parse() - the reverse. Whatever is no watch of ours is none. */
void gw_watch_parse(struct gw_memory_watch *w, const json_t *json);

/**
 * gw_watch_begin() - track what the guest writes from here on, with what stays in QEMU.
 * @ram: as QEMU maps it
 * @parts: userfaultfds, GW_WATCH_PARTS at most; 1 unless it is to be paged
 *
 * Sets @w, for the caller to save. Return: 0, or -errno with a message and no watch.
 */
int gw_watch_begin(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
		   unsigned int parts);

/**
 * gw_watch_open() - bring a watch that stayed here, to page by it.
 *
 * Return: 0; -ENOENT if it is not there any more; -ENOTSUP if the record does not say what
 * it watches. gw_watch_close() in the first case.
 */
int gw_watch_open(const struct gw_memory_watch *w, pid_t pid, struct gw_paged *paged);
void gw_watch_close(struct gw_paged *paged);

/**
 * gw_watch_page() - from tracking to paging: from here on who touches a page without an entry
 * waits for a pager. Sets @w's mode, for the caller to save *before* anything can be missing.
 *
 * A call for each part: may be done while a guest stands still. Harmless where it is so
 * already. 0, or -errno with a message.
 */
int gw_watch_page(struct gw_memory_watch *w, const struct gw_paged *paged);

/** gw_watch_unpage() - the reverse, when nothing is missing. Wakes who waits. */
int gw_watch_unpage(struct gw_memory_watch *w, const struct gw_paged *paged);

/**
 * gw_watch_split() - the descriptors of a split VM's watch, instead of whatever watch there is.
 * @ram: as QEMU maps it
 * @parts: userfaultfds, GW_WATCH_PARTS at most
 *
 * Sets @w, for the caller to save before he opens it and calls gw_watch_arm(): whoever comes
 * after him must find it. The guest may run. Return: 0, or -errno with a message and no watch.
 */
int gw_watch_split(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
		   unsigned int parts);

/**
 * gw_watch_arm() - from here on who touches a page that is not in the file, or writes one that
 * is protected, waits for a pager. Harmless where it is so already. 0 or -errno with a message.
 */
int gw_watch_arm(const struct gw_paged *paged);

/**
 * gw_watch_unsplit() - the reverse, when nothing is missing: there is no watch any more. 0 or
 * -errno with a message. Whoever has the descriptors open closes them first (gw_watch_close()).
 */
int gw_watch_unsplit(struct gw_memory_watch *w, pid_t pid);

/**
 * gw_watch_wake() - let everybody who waits try again: what the kernel has told a pager that
 * is gone, it tells the next. 0 or -errno.
 */
int gw_watch_wake(const struct gw_paged *paged);

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
