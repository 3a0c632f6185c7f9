/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * digest.h - digests of pages, and the table of what the destination holds.
 *
 * The digest of an all-zero page is all zero by definition, so a fresh table
 * says "the destination holds zeros everywhere", which is true of a new RAM
 * file, and costs no memory for pages never sent (16 bytes a page otherwise).
 *
 * Invariant 3: a stored digest is of the bytes that travelled; the pipeline
 * computes it from the copy that it sends (F12), nobody else stores one.
 */
#ifndef GW_DIGEST_H
#define GW_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bitmap.h"
#include "codec.h"
#include "page.h"

struct gw_digest {
	uint64_t low, high;
};

/* Bytes of one that travels or lies in a file. */
#define GW_DIGEST_LEN 16UL

static inline void gw_put_digest(uint8_t *p, struct gw_digest d)
{
	gw_put64(p, d.low);
	gw_put64(p + 8, d.high);
}

static inline struct gw_digest gw_get_digest(const uint8_t *p)
{
	return (struct gw_digest){ gw_get64(p), gw_get64(p + 8) };
}

/* Of bytes that nobody here knows: equals no page's. */
#define GW_DIGEST_UNKNOWN ((struct gw_digest){ ~0ULL, ~0ULL })

static inline bool gw_digest_equal(struct gw_digest a, struct gw_digest b)
{
	return a.low == b.low && a.high == b.high;
}

static inline bool gw_digest_is_zero(struct gw_digest d)
{
	return !(d.low | d.high);
}

/**
 * gw_digest_page() - XXH3-128 of one page's GW_PAGE_SIZE bytes.
 *
 * Its secret is public, so it decides nothing about a guest's memory (key.h has what
 * does) but where a peer of version 1 wants it.
 */
struct gw_digest gw_digest_page(const void *page);

/**
 * gw_digest_chunk() - digest of a chunk: XXH3-128 over its pages' digests; of version 1.
 * @bytes: the chunk's content, or NULL if every page is zero
 * @nr: pages in it; those up to GW_CHUNK_PAGES count as zero
 */
struct gw_digest gw_digest_chunk(const uint8_t *bytes, size_t nr);

/**
 * struct gw_digests - one digest per page, and which are not zero.
 *
 * Read them freely; change them with gw_digests_set(). Not locked: each page
 * is changed by one thread at a time.
 */
struct gw_digests {
	struct gw_digest *table;
	struct gw_bitmap filled; /* pages whose digest is not zero */
	size_t nr_pages;
};

/** gw_digests_set() - page @page is now held with digest @digest. */
static inline void gw_digests_set(struct gw_digests *d, size_t page, struct gw_digest digest)
{
	uint64_t *word;

	if (gw_digest_equal(d->table[page], digest))
		return; /* untouched pages of the table stay without memory */
	d->table[page] = digest;
	/* Its word is shared with the pages around it. */
	word = &d->filled.words[page / 64];
	if ((__atomic_load_n(word, __ATOMIC_RELAXED) >> page % 64 & 1) == gw_digest_is_zero(digest))
		__atomic_fetch_xor(word, 1ULL << page % 64, __ATOMIC_RELAXED);
}

/** gw_digests_init() - a table for @nr_pages, all "zero". 0 or -ENOMEM. */
int gw_digests_init(struct gw_digests *d, size_t nr_pages);
void gw_digests_free(struct gw_digests *d);

#endif
