/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * netpt.h - the network page table of a split VM: which of its pages are not here, and which
 * holder has them (decision 32). The one truth, kept in the VM's folder so that it outlives
 * whoever pages.
 *
 *   away       a bit a page: its newest bytes are at its unit's holder, and it is a hole here
 *   holder     a byte a unit: where its pages go to and come from
 *   placing    what each stripe of units is bringing just now
 *
 * Where each page that leaves is stored twice (--replicas 2), a unit has a second holder, and what
 * one of the two has not got is said of each page that is away:
 *
 *   second     a byte a unit: as holder; none at first
 *   lacks      a bit a page for each of the two: its newest bytes are not there
 *
 * Lacking is what is rare, so that all else is as with one holder. These bits mean nothing of a
 * page that is here, and are written before it is away. A unit's holder may change as long as it
 * lacks all of the unit's pages that are away.
 *
 * A page that came is *here* from when it was placed (UFFDIO_COPY), which the guest sees at once;
 * so it is noted as placing before that, and cleared after its bit. One that leaves is away
 * before it is punched, and write-protected until after. So whoever dies leaves only pages
 * that are both away and in the file, and these say which is true: noted, it came; else it
 * was leaving (gw_netpt_torn()).
 *
 * The file is a shared mapping on tmpfs: what is never set costs no memory.
 *
 * Locking: bits and bytes of a unit, and its stripe's note, belong to whoever holds the lock of
 * that stripe (split.h); anybody may look.
 */
#ifndef GW_NETPT_H
#define GW_NETPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "messages.h"
#include "shared_bits.h"
#include "units.h"

#define GW_NETPT_STRIPES 64

struct gw_netpt_head;

struct gw_netpt {
	struct gw_netpt_head *head;
	gw_shared_word *words;
	_Atomic uint8_t *holders;
	_Atomic uint8_t *seconds;	      /* one more than the holder; NULL: there are none */
	gw_shared_word *lacks[GW_COPIES_MAX]; /* NULL as well */
	gw_shared_word *moved; /* the caller's: a bit a unit, some of which is elsewhere than it
				  was; set after it is. NULL: nobody wants to know */
	struct gw_units units;
	size_t nr_pages, len;
	_Atomic size_t away;   /* pages */
	_Atomic size_t single; /* of these, those that one of two holders lacks */
};

/**
 * gw_netpt_create() - a table at @path of a VM that is all here, in place of what is there.
 * @id: of the split
 *
 * Return: 0 or -errno with a message; gw_netpt_close() either way.
 */
int gw_netpt_create(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
		    const uint8_t id[GW_ID_LEN], unsigned int unit_pages);

/** gw_netpt_create_for() - the same, where each page is stored @copies times. */
int gw_netpt_create_for(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
			const uint8_t id[GW_ID_LEN], unsigned int unit_pages, unsigned int copies);

/**
 * gw_netpt_open() - the table that somebody else has made.
 *
 * Return: 0; -ENOENT; -EINVAL if it is not of this split, or damaged; gw_netpt_close() either way.
 */
int gw_netpt_open(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
		  const uint8_t id[GW_ID_LEN]);
void gw_netpt_close(struct gw_netpt *t);

/** gw_netpt_is_away() - whether @page is not here. */
static inline bool gw_netpt_is_away(const struct gw_netpt *t, size_t page)
{
	return gw_shared_bit(t->words, page);
}

/** gw_netpt_leaves() - @count pages from @first, of one unit, are away from here on. */
void gw_netpt_leaves(struct gw_netpt *t, size_t first, size_t count);

/** gw_netpt_leaves_for() - the same, and its unit's holders @copies have them. */
void gw_netpt_leaves_for(struct gw_netpt *t, size_t first, size_t count, unsigned int copies);

/** gw_netpt_place() - @count pages from @first, of unit @unit, are about to be placed. */
void gw_netpt_place(struct gw_netpt *t, size_t unit, size_t first, size_t count);

/** gw_netpt_placed() - these are here; none of the unit is being placed. */
void gw_netpt_placed(struct gw_netpt *t, size_t unit, size_t first, size_t count);

/** gw_netpt_unplace() - they could not be placed, and are away still. */
void gw_netpt_unplace(struct gw_netpt *t, size_t unit);

/**
 * gw_netpt_torn() - what the @stripe-th stripe was placing when its process died.
 * Return: how many pages from @first; 0: nothing.
 */
size_t gw_netpt_torn(const struct gw_netpt *t, unsigned int stripe, size_t *first);

/** gw_netpt_holder() - of unit @unit. */
static inline unsigned int gw_netpt_holder(const struct gw_netpt *t, size_t unit)
{
	return atomic_load(&t->holders[unit]);
}

/** gw_netpt_assign() - its pages go to @holder from here on; none of them is away. */
static inline void gw_netpt_assign(struct gw_netpt *t, size_t unit, unsigned int holder)
{
	atomic_store(&t->holders[unit], (uint8_t)holder);
}

/** gw_netpt_copies_max() - how often a page is stored. */
static inline unsigned int gw_netpt_copies_max(const struct gw_netpt *t)
{
	return t->seconds ? GW_COPIES_MAX : 1;
}

/** gw_netpt_at() - the @slot-th holder of unit @unit, or GW_NO_HOLDER. */
static inline unsigned int gw_netpt_at(const struct gw_netpt *t, size_t unit, unsigned int slot)
{
	unsigned int one;

	if (!slot)
		return gw_netpt_holder(t, unit);
	one = slot < gw_netpt_copies_max(t) ? atomic_load(&t->seconds[unit]) : 0;
	return one ? one - 1 : GW_NO_HOLDER;
}

/** gw_netpt_slot() - as which of its holders unit @unit knows @holder. Or -ENOENT. */
int gw_netpt_slot(const struct gw_netpt *t, size_t unit, unsigned int holder);

/**
 * gw_netpt_places() - as which of its holders unit @unit would know each of @to, one of which may
 * be GW_NO_HOLDER: who is none of them takes the place of one that lacks all of it.
 *
 * Return: whether there is one for each, in @places.
 */
bool gw_netpt_places(const struct gw_netpt *t, size_t unit, const unsigned int to[GW_COPIES_MAX],
		     unsigned int places[GW_COPIES_MAX]);

/** gw_netpt_put() - its @slot-th holder is @holder; no page of it that is away is there. */
void gw_netpt_put(struct gw_netpt *t, size_t unit, unsigned int slot, unsigned int holder);

/** gw_netpt_copies() - which holders of its unit have @page, which is away: bit k is the k-th. */
unsigned int gw_netpt_copies(const struct gw_netpt *t, size_t page);

/** gw_netpt_gain() - @count pages from @first, which are away, are at the @slot-th holder, too. */
void gw_netpt_gain(struct gw_netpt *t, size_t first, size_t count, unsigned int slot);

/** gw_netpt_drop() - @page is away, and its unit's @slot-th holder has not got it after all. */
void gw_netpt_drop(struct gw_netpt *t, size_t page, unsigned int slot);

/**
 * gw_netpt_next() - the next run of pages in [*at, end) that are away.
 * Return: how many from @first; 0: there is none.
 */
size_t gw_netpt_next(const struct gw_netpt *t, size_t *at, size_t end, size_t *first);

/** gw_netpt_next_at() - the same, of one unit, that its @slot-th holder has. */
size_t gw_netpt_next_at(const struct gw_netpt *t, unsigned int slot, size_t *at, size_t end,
			size_t *first);

/** gw_netpt_has_any() - whether a page of unit @unit is away, and its @slot-th holder has it. */
bool gw_netpt_has_any(const struct gw_netpt *t, size_t unit, unsigned int slot);

#endif
