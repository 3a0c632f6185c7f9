/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hints.h - where on the VM's disks the bytes of a page may lie, too.
 *
 * A hint is what somebody said at some moment: the guest's kernel, its agent, or an index of an
 * image, which is asked when a page's bytes are there. It may be old, wrong or a lie, and decides
 * nothing: the destination believes a digest (stage_teleport.c). So whoever sets and reads them
 * needs no lock.
 *
 * Memory: 8 bytes a page of the VM, of which those that nobody touches cost nothing.
 */
#ifndef GW_HINTS_H
#define GW_HINTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

/* Disks that hints can tell apart, and sectors of one: 128 PiB. */
#define GW_HINT_DISKS	255U
#define GW_HINT_SECTORS (1ULL << 48)

/* Bytes of a sector, and sectors of a page. */
#define GW_SECTOR_SIZE	512UL
#define GW_PAGE_SECTORS 8UL

/** struct gw_hint - the page begins at @sector of disk @disk. */
struct gw_hint {
	unsigned int disk;
	uint64_t sector;
};

/** struct gw_lookup - who finds by its bytes where a page lies. Any thread may call. */
struct gw_lookup {
	/*
	 * Of the pages of a chunk in @left, whose bytes are at @chunk: those that were found are
	 * set in @found, and where in @at.
	 */
	void (*find)(void *arg, const uint8_t *chunk, const struct gw_pageset *left,
		     struct gw_pageset *found, struct gw_hint at[GW_CHUNK_PAGES]);
	/* What was found there is not there. */
	void (*wrong)(void *arg, struct gw_hint at);
	void *arg;
};

/**
 * struct gw_hints - of all pages; zero knows nothing.
 * @table: sector, and disk + 1 above it. Of what the page was when it was told
 * @lookup: asked instead, and the table is of what was found last; NULL: nobody is asked
 * @by: who has told, for people; NULL: nobody yet
 */
struct gw_hints {
	_Atomic uint64_t *table;
	size_t nr_pages;
	const struct gw_lookup *lookup;
	const char *by;
};

/** gw_hints_init() - none yet, for @nr_pages. 0 or -ENOMEM; gw_hints_free() either way. */
int gw_hints_init(struct gw_hints *h, size_t nr_pages);
void gw_hints_free(struct gw_hints *h);

/** gw_hints_clear() - forget all, and give the memory back. */
void gw_hints_clear(struct gw_hints *h);

/** gw_hints_set() - of one page; what is out of range is left out. */
static inline void gw_hints_set(struct gw_hints *h, size_t page, struct gw_hint hint)
{
	if (page < h->nr_pages && hint.disk < GW_HINT_DISKS && hint.sector < GW_HINT_SECTORS)
		atomic_store_explicit(&h->table[page], (hint.disk + 1ULL) << 48 | hint.sector,
				      memory_order_relaxed);
}

/** gw_hints_get() - whether there is one of @page. */
static inline bool gw_hints_get(const struct gw_hints *h, size_t page, struct gw_hint *hint)
{
	const uint64_t word = atomic_load_explicit(&h->table[page], memory_order_relaxed);

	hint->disk = (unsigned int)(word >> 48) - 1;
	hint->sector = word & (GW_HINT_SECTORS - 1);
	return word;
}

/** gw_hints_drop() - the one of @page was wrong. */
void gw_hints_drop(struct gw_hints *h, size_t page);

/**
 * gw_hints_of_chunk() - where the pages of chunk @chunk in @left are, whose bytes are at @bytes.
 * @found: set to those of which something is known; @at: to what
 */
void gw_hints_of_chunk(struct gw_hints *h, uint64_t chunk, const uint8_t *bytes,
		       const struct gw_pageset *left, struct gw_pageset *found,
		       struct gw_hint at[GW_CHUNK_PAGES]);

#endif
