/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * units.h - the pages of a guest that leave a host, and come back to it, together (decision 32):
 * what the paper calls a chunk, of a size that is chosen for each VM.
 */
#ifndef GW_UNITS_H
#define GW_UNITS_H

#include "memory.h"

/* A huge page. */
#define GW_UNIT_PAGES_MAX 512

/** struct gw_units - units over a memory: each block's, in order, from its first page on. */
struct gw_units {
	const struct gw_memory *memory;
	unsigned int
		pages; /* of each but a block's last: a power of two, GW_UNIT_PAGES_MAX at most */
	size_t first[GW_MEMORY_BLOCKS_MAX]; /* of each block */
	size_t nr;
};

/** gw_units_init() - units of @pages pages. */
void gw_units_init(struct gw_units *u, const struct gw_memory *memory, unsigned int pages);

/** gw_unit_of() - the unit of @page, which is memory. */
size_t gw_unit_of(const struct gw_units *u, size_t page);

/** gw_unit_pages() - how many pages unit @unit has, from @first. */
size_t gw_unit_pages(const struct gw_units *u, size_t unit, size_t *first);

#endif
