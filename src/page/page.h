/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * page.h - the units of guest memory (design, section 1), and sets of pages.
 *
 * A page number counts 4 KiB pages over all blocks of a VM's memory in order; each
 * begins at a chunk boundary (vm/memory.h), so a chunk never spans two.
 */
#ifndef GW_PAGE_H
#define GW_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_PAGE_SIZE   4096UL
#define GW_CHUNK_PAGES 256UL
#define GW_CHUNK_SIZE  (GW_PAGE_SIZE * GW_CHUNK_PAGES)

/* Below the page: what is reused of one that changed in part (stage_patch.c). */
#define GW_BLOCK_SIZE  256UL
#define GW_PAGE_BLOCKS (GW_PAGE_SIZE / GW_BLOCK_SIZE)

/* Pages of one chunk, a bit each. */
struct gw_pageset {
	uint64_t words[GW_CHUNK_PAGES / 64];
};

static inline bool gw_pageset_test(const struct gw_pageset *set, unsigned int i)
{
	return set->words[i / 64] >> (i % 64) & 1;
}

static inline void gw_pageset_set(struct gw_pageset *set, unsigned int i)
{
	set->words[i / 64] |= 1ULL << (i % 64);
}

static inline void gw_pageset_clear(struct gw_pageset *set, unsigned int i)
{
	set->words[i / 64] &= ~(1ULL << (i % 64));
}

static inline bool gw_pageset_empty(const struct gw_pageset *set)
{
	return !(set->words[0] | set->words[1] | set->words[2] | set->words[3]);
}

static inline unsigned int gw_pageset_count(const struct gw_pageset *set)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < GW_CHUNK_PAGES / 64; i++)
		n += (unsigned int)__builtin_popcountll(set->words[i]);
	return n;
}

/** gw_pageset_run() - the next pages of @set in a row, from @*at on; @*at moves past them. */
static inline unsigned int gw_pageset_run(const struct gw_pageset *set, unsigned int *at,
					  unsigned int *first)
{
	while (*at < GW_CHUNK_PAGES && !gw_pageset_test(set, *at))
		++*at;
	*first = *at;
	while (*at < GW_CHUNK_PAGES && gw_pageset_test(set, *at))
		++*at;
	return *at - *first;
}

/* The @count pages from @first on. */
static inline struct gw_pageset gw_pageset_of(unsigned int first, unsigned int count)
{
	struct gw_pageset set = { { 0 } };

	for (unsigned int i = first; i < first + count; i++)
		gw_pageset_set(&set, i);
	return set;
}

/** gw_page_is_zero() - whether all GW_PAGE_SIZE bytes are zero. */
bool gw_page_is_zero(const void *page);

#endif
