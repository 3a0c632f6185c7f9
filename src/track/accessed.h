/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * accessed.h - which pages of a QEMU's memory were accessed since somebody last looked (F3).
 *
 * An entry of its page table that is there was made by an access since it was last dropped;
 * dropping it takes the page from nobody, since the file has it. So what is there is
 * collected, and then dropped by an injected madvise().
 *
 * Beside a split VM's watch (watch.h) that costs nothing else: a page in the file is no missing
 * one, and what is protected leaves a marker. Beside one that tracks nothing is lost either, but
 * what was accessed counts as written, since the tracker does not know who dropped it. Under both
 * the kernel maps only the page that was touched, and none around it.
 *
 * A call stops a thread of QEMU, for milliseconds at a time: not while a guest stands still.
 */
#ifndef GW_ACCESSED_H
#define GW_ACCESSED_H

#include "tracker.h"

struct gw_accessed {
	pid_t pid;
	struct gw_track_range ranges[GW_TRACK_RANGES];
	unsigned int nr_ranges;
	int pagemap;
};

/** gw_accessed_open() - 0 or -errno with a message; gw_accessed_close() in the first case. */
int gw_accessed_open(struct gw_accessed *a, pid_t pid, const struct gw_track_range *ranges,
		     unsigned int nr_ranges);
void gw_accessed_close(struct gw_accessed *a);

/**
 * gw_accessed_sample() - set in @accessed what was accessed since the last call, or the beginning.
 *
 * 2 ms a GiB that is mapped, of which QEMU's thread is stopped for half; in parts, between which
 * it runs. Return: 0; -EAGAIN: no thread of it could be stopped, and some is told next time;
 * -ESRCH: it has ended; or another -errno with a message.
 */
int gw_accessed_sample(struct gw_accessed *a, struct gw_bitmap *accessed);

#endif
