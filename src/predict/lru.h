/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lru.h - an LRU cache of processes, each with the pages that it used (paper ZawThein, IV-A,
 * Fig. 5).
 *
 * Whenever a process is seen to use a page, the page goes into its tree, and the process to the
 * top. A full cache loses the process that was not seen for longest, with all of its pages. The
 * working set is what the topmost have.
 *
 * A process is any number that tells one from another: an address space (process.h), or a region
 * of memory where that cannot be told.
 *
 * Not locked.
 */
#ifndef GW_LRU_H
#define GW_LRU_H

#include "bitmap.h"
#include "splay.h"

/* Processes at a time. */
#define GW_LRU_MOST 128

struct gw_lru {
	struct gw_forest forest;
	struct gw_lru_entry {
		uint64_t process;
		uint32_t tree;
	} entries[GW_LRU_MOST]; /* the one that was seen last first */
	unsigned int nr, most;
};

/**
 * gw_lru_init() - empty. 0/-ENOMEM; gw_lru_free().
 * @most: processes, 1 to GW_LRU_MOST
 * @pages: of all of them together
 */
int gw_lru_init(struct gw_lru *c, unsigned int most, uint32_t pages);
void gw_lru_free(struct gw_lru *c);

/**
 * gw_lru_request() - @process uses @page: Fig. 5.
 *
 * Where there is no room for the page, the process at the end leaves; one that is alone begins
 * anew.
 */
void gw_lru_request(struct gw_lru *c, uint64_t process, uint64_t page);

/**
 * gw_lru_working_set() - set in @pages what the topmost processes have, nearest to their roots
 * first, until @most are set.
 * @only: pages that count at all; NULL: all
 * @processes: of at most so many
 *
 * Return: how many were set that were not before.
 */
size_t gw_lru_working_set(struct gw_lru *c, unsigned int processes, const struct gw_bitmap *only,
			  size_t most, struct gw_bitmap *pages);

#endif
