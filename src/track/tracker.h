/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tracker.h - what tells which pages were written since last asked.
 *
 * Two trackers stand behind one set of ops: written_uffd.c (F2, Linux 6.7 and
 * newer) and written_softdirty.c (F4, older kernels such as Debian 12's).
 *
 * Invariant 4: a page is due if it was written, if its state is unknown
 * (neither mapped nor marked), or if it was emptied; the scan comes before
 * the read. What was emptied and does not look written is holes.h's business. Neither tracker sees
 * direct I/O in flight (F7): the scan that counts is made while the VM is quiesced
 * (source/switchover.c).
 *
 */
#ifndef GW_TRACKER_H
#define GW_TRACKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bitmap.h"

/** struct gw_track_range - one mapping of guest RAM in QEMU's address space. */
struct gw_track_range {
	uint64_t hva;
	size_t first_page, nr_pages;
};

#define GW_TRACK_RANGES 16

/**
 * gw_track_part() - the part of @r that the @i-th of @n userfaultfds watches (F22).
 *
 * Parts are runs of pages in a row, as even as whole huge pages allow; the same
 * arguments name the same part for ever. False: it has none.
 */
bool gw_track_part(const struct gw_track_range *r, unsigned int i, unsigned int n,
		   struct gw_track_range *part);

struct gw_tracker;

struct gw_tracker_ops {
	const char *name;
	bool needs_quiesce; /* every scan must be made with the VM stopped */
	/*
	 * Collect and forget, for the pages of [first, first + count): set the bits
	 * of written pages in @due and forget that they were, in one step per page.
	 * Any thread, as long as parts scanned at once begin at different chunks.
	 */
	int (*scan)(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *due);
	/* Called once when all pages were scanned, where forgetting is a step of its own. */
	int (*forget)(struct gw_tracker *t);
	/* Set in @written the pages of [first, first + count) written since the last scan; forget
	 * nothing. */
	int (*peek)(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *written);
	/*
	 * Set in @accessed (all clear) what was accessed since its entry was last dropped, and drop
	 * all entries, which the scan then does not take for anything that was taken away. NULL
	 * where dropping an entry would lose a write. While no other thread scans. 0; -EAGAIN: no
	 * thread of QEMU could be stopped, and what is told may be told again; -errno.
	 */
	int (*sample)(struct gw_tracker *t, struct gw_bitmap *accessed);
	void (*stop)(struct gw_tracker *t);
};

struct gw_tracker {
	const struct gw_tracker_ops *ops;
	struct gw_track_range ranges[GW_TRACK_RANGES];
	unsigned int nr_ranges;
	int pagemap;
};

/**
 * gw_tracker_uffd() - track with write-protection (F2); protects everything.
 * @pid: the QEMU
 * @uffds: its userfaultfds, brought here by vm/inject.c; owned by the tracker from here
 * @nr_uffds: at least 1; each watches a part of every range (F22)
 *
 * Return: the tracker (gw_tracker_stop()), or NULL with a message.
 */
struct gw_tracker *gw_tracker_uffd(pid_t pid, const int *uffds, unsigned int nr_uffds,
				   const struct gw_track_range *ranges, unsigned int nr_ranges);

/**
 * gw_tracker_resume() - go on with what an earlier gw_tracker_uffd() began.
 * @uffds: the same userfaultfds, that stayed in QEMU meanwhile (gw_inject_found())
 *
 * The first scan returns what was written since the last, or since then.
 */
struct gw_tracker *gw_tracker_resume(pid_t pid, const int *uffds, unsigned int nr_uffds,
				     const struct gw_track_range *ranges, unsigned int nr_ranges);

/**
 * gw_tracker_softdirty() - track with soft-dirty bits (F4); clears them all.
 *
 * A page without an entry says nothing here, so pages that swap could take
 * away would be missed: refused while this host has swap.
 */
struct gw_tracker *gw_tracker_softdirty(pid_t pid, const struct gw_track_range *ranges,
					unsigned int nr_ranges);

/** gw_tracker_scan() - scan all pages from this thread. 0 or -errno. */
int gw_tracker_scan(struct gw_tracker *t, struct gw_bitmap *due);

/** gw_tracker_stop() - stop tracking; QEMU's memory is as if it had never been. */
void gw_tracker_stop(struct gw_tracker *t);

/** gw_track_has_uffd(), gw_track_has_softdirty() - what this kernel offers; for godwit check. */
bool gw_track_has_uffd(void);
bool gw_track_has_softdirty(void);

#endif
