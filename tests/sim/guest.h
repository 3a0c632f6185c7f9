/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * guest.h - a guest that writes its memory between the steps of its migration,
 * and a tracker that knows exactly what a real one would.
 *
 * Memory is two blocks: three chunks, and a small one that ends within a
 * chunk; a big guest has a third, of holes. Some pages are data from the start.
 * Where a balloon punches they are RAM files (memfds), with the real witnesses of holes
 * over them (track/holes.h); elsewhere buffers.
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "bitmap.h"
#include "buffers.h"
#include "ram.h"
#include "rng.h"
#include "tracker.h"

#define GUEST_IOS 4

struct behaviour {
	unsigned int writes_per_ms; /* pages, while it runs */
	unsigned int working_set;   /* pages that most writes go to */
	bool direct_io;		    /* disk reads land behind the tracker's back (F7) */
	bool punches;		    /* a balloon empties clean pages (F8) */
	bool needs_quiesce;	    /* of the tracker: scans only while it is stopped */
	bool big;		    /* and much memory that it never touches */
	bool familiar;		    /* writes what is known: the same, a byte of it, a copy, text */
	bool caches;		    /* reads its disks into memory (disks.h) */
};

/* A disk read under way into a pinned page. */
struct guest_io {
	bool busy;
	size_t page;
	int64_t lands;
	unsigned int scans; /* made before it was pinned */
};

struct guest {
	const struct behaviour *b;
	struct rng rng;
	const struct gw_memory *memory; /* one of these */
	struct gw_ram ram;
	struct buffers buffers;
	uint8_t *bytes[GW_MEMORY_BLOCKS_MAX]; /* where it lies; NULL if it is never touched */
	struct gw_bitmap data;		      /* pages that are no holes */
	bool running;			      /* at the source */
	int64_t ran_until;
	double debt; /* writes not made yet */
	struct guest_io io[GUEST_IOS];
	unsigned int lost;    /* reads that landed where no scan could see it */
	unsigned int punched; /* clean pages emptied */

	struct gw_tracker tracker;
	bool tracked;
	unsigned int scans;
	struct gw_bitmap written;
};

/** guest_init() - memory with its first content; not running. */
void guest_init(struct guest *g, const struct behaviour *b, uint64_t seed);
void guest_free(struct guest *g);

/** guest_tick() - let it run up to the present. */
void guest_tick(struct guest *g);

/** guest_run(), guest_stop() - QEMU's cont and stop; stop drains the disks. */
void guest_run(struct guest *g);
void guest_stop(struct guest *g);

/** guest_store(), guest_load() - a page, as the guest writes and reads it. */
void guest_store(struct guest *g, size_t page, const uint8_t *bytes);
void guest_load(const struct guest *g, size_t page, uint8_t *bytes);

/** guest_any_page() - one that exists. */
size_t guest_any_page(struct guest *g);

/** guest_work() - write @writes times, at once. */
void guest_work(struct guest *g, unsigned int writes);

/** guest_arrive() - it has just come to this host, and its writes are tracked. */
void guest_arrive(struct guest *g);

/** guest_resume_tracking() - the tracker of guest_arrive(), with what was written since. */
struct gw_tracker *guest_resume_tracking(struct guest *g);

/** guest_track() - begin to track; the tracker belongs to the guest. */
struct gw_tracker *guest_track(struct guest *g);

/** guest_compare() - first page by which @a and @b differ, or their number of pages. */
size_t guest_compare(const struct gw_memory *a, const struct gw_memory *b);

#endif
