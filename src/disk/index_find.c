// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * index_find.c - looking a page up; see index.h.
 *
 * One block of each digest is in a table with open addressing, at the slot that the digest says
 * or one of the next. Of blocks that are the same only the first is: the others are found where
 * they are expected (@hint), by a look at their digest, which is all that most lookups cost once a
 * run has begun.
 *
 * Digests are uniform, being keyed, so at most half full means two or three slots a lookup.
 * A file that nobody's key has made may be anything: there is an end to probing.
 */
#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "index_internal.h"

#define PROBES_MAX 128

static uint64_t digest_of(const struct gw_index *x, uint32_t block)
{
	return __atomic_load_n(&x->digests[block], __ATOMIC_RELAXED);
}

static size_t first_slot(const struct gw_index *x, uint64_t digest)
{
	return (size_t)((unsigned __int128)digest * x->nr_slots >> 64);
}

/* The slot with @digest, or the free one where it would be. NULL: neither is near. */
static uint32_t *slot_of(const struct gw_index *x, uint64_t digest)
{
	size_t at = first_slot(x, digest);

	for (int i = 0; i < PROBES_MAX; i++) {
		uint32_t *slot = &x->slots[at];

		if (!*slot || digest_of(x, *slot - 1) == digest)
			return slot;
		if (++at == x->nr_slots)
			at = 0;
	}
	return NULL;
}

static void add_segment(struct gw_index *x, size_t segment)
{
	const size_t first = segment * GW_SEGMENT_BLOCKS;

	for (size_t b = first; b < first + GW_SEGMENT_BLOCKS && b < x->nr_blocks; b++) {
		uint32_t *slot = x->digests[b] ? slot_of(x, x->digests[b]) : NULL;

		if (slot && !*slot)
			*slot = (uint32_t)b + 1;
	}
}

static size_t count_known(const struct gw_index *x)
{
	size_t known = 0;

	for (size_t s = 0; s < x->nr_segments; s++)
		for (size_t i = 0; x->segments[s].digests && i < GW_SEGMENT_BLOCKS; i++)
			known += x->digests[s * GW_SEGMENT_BLOCKS + i] != 0;
	return known;
}

int gw_index_prepare(struct gw_index *x)
{
	free(x->slots);
	x->nr_slots = 2 * count_known(x) + 1;
	x->slots = calloc(x->nr_slots, sizeof(*x->slots));
	if (!x->slots)
		return gw_fail(-ENOMEM, "no memory to find blocks of %s with", x->path);
	for (size_t s = 0; s < x->nr_segments; s++)
		if (x->segments[s].digests)
			add_segment(x, s);
	return 0;
}

uint64_t gw_index_digest(const struct gw_index *x, const void *page)
{
	return gw_key_page(&x->key, page).low;
}

uint32_t gw_index_find(const struct gw_index *x, uint64_t digest, uint32_t hint)
{
	const uint32_t *slot;

	if (!digest)
		return GW_INDEX_NONE;
	if (hint < x->nr_blocks && digest_of(x, hint) == digest)
		return hint;
	slot = x->slots ? slot_of(x, digest) : NULL;
	return slot && *slot ? *slot - 1 : GW_INDEX_NONE;
}
