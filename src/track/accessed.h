/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * accessed.h - which pages of a QEMU's memory were accessed since somebody last looked (F3).
 *
 * An entry of its page table that is there was made by an access since it was last dropped;
 * dropping it takes the page from nobody, since the file has it. So what is there is
 * collected, and then dropped by an injected madvise().
 *
 * That costs 0.2 to 0.4 us a page, and 1.6 to 1.9 us of the guest's time when it touches it again
 * (doc/measurements/2026-11-26-ageing.md). So whoever asks says how many the guest may have to make
 * again, and as many are dropped as come to that, by what the last ones came to: many of memory
 * that is not used, few of what is in use. It is done in turn, as by the hand of a clock; what the
 * hand has not come to is told as accessed.
 *
 * Beside a split VM's watch (watch.h) that costs nothing else: a page in the file is no missing
 * one, and what is protected leaves a marker. Beside one that tracks nothing is lost either; who
 * asks that tracker itself (its op `sample`) has it know who dropped an entry, and otherwise what
 * was accessed counts as written. Under both the kernel maps only the page that was touched, and
 * none around it.
 *
 * A call stops a thread of QEMU, less than a millisecond at a time: not while a guest stands still.
 */
#ifndef GW_ACCESSED_H
#define GW_ACCESSED_H

#include "tracker.h"

/*
 * So many entries are dropped at a time, in less than a millisecond, during which KVM lets the
 * guest have no page of that part.
 */
#define GW_ACCESSED_PART 2048UL

/* So many at most for one call, whatever the last ones came to: 512 MiB, 40 ms. */
#define GW_ACCESSED_MOST (1UL << 17)

struct gw_accessed {
	pid_t pid;
	struct gw_track_range ranges[GW_TRACK_RANGES];
	unsigned int nr_ranges;
	int pagemap;
	/* The hand: whose turn it is, and how often it has gone round. */
	struct gw_accessed_hand {
		unsigned int range;
		size_t at;
	} hand, from; /* where it was before the last call */
	unsigned int rounds;
	size_t swept;	/* pages that it has passed since */
	size_t may;	/* entries that it might have dropped */
	size_t dropped; /* that it has */
};

/** gw_accessed_open() - 0 or -errno with a message; gw_accessed_close() in the first case. */
int gw_accessed_open(struct gw_accessed *a, pid_t pid, const struct gw_track_range *ranges,
		     unsigned int nr_ranges);
void gw_accessed_close(struct gw_accessed *a);

/**
 * gw_accessed_sample() - set in @accessed what was accessed since its entry was last dropped.
 * @accessed: all clear
 * @made: so many entries the guest may have to make again until the next call; at least as many are
 * dropped, where there are
 *
 * One thread. Return: 0; -EAGAIN: no thread of QEMU could be stopped in 3 s, and what is told may
 * be told again; -ESRCH: it has ended; or another -errno with a message.
 */
int gw_accessed_sample(struct gw_accessed *a, struct gw_bitmap *accessed, size_t made);

/** gw_accessed_dropped() - clear in @map what the last sample has dropped of @accessed. */
void gw_accessed_dropped(const struct gw_accessed *a, const struct gw_bitmap *accessed,
			 struct gw_bitmap *map);

#endif
