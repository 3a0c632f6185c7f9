/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_internal.h - what split.c, split_leave.c and who sends units share: whom a page is asked
 * of, how a unit stands, and the pages of one that leaves, as bits.
 */
#ifndef GW_SPLIT_INTERNAL_H
#define GW_SPLIT_INTERNAL_H

#include "split.h"

/* Of a unit, in gw_split.leaving. */
enum {
	GW_UNIT_STAYS,	  /* nothing leaves */
	GW_UNIT_PREPARED, /* it is write-protected, and may leave */
	GW_UNIT_LEAVES,	  /* it is write-protected, and its bytes are read or sent */
	GW_UNIT_WRITTEN,  /* it was leaving when it was written: it stays, and is not protected */
};

/** gw_split_park() - for tests: whoever is here may be held. */
static inline void gw_split_park(const struct gw_split *s, enum gw_split_park where, size_t page)
{
	if (s->ops->park)
		s->ops->park(s->env, where, page);
}

/** gw_split_unprotect() - whoever waits to write one of them does, or tries again. Their stripe is
 * locked. */
void gw_split_unprotect(struct gw_split *s, size_t page, size_t count);

/**
 * gw_split_keep() - it is written, or given back by the guest: what was leaving of it stays. Its
 * stripe is locked.
 */
void gw_split_keep(struct gw_split *s, size_t unit);

/** gw_split_release() - @holder need not keep what is here: it hears so now, or after a freeze. */
void gw_split_release(struct gw_split *s, unsigned int holder, size_t page, size_t count);

/** gw_asked_slot() - as which of its unit's holders the one is known that is asked for @page. */
static inline unsigned int gw_asked_slot(const struct gw_split *s, size_t page)
{
	return s->second && gw_shared_bit(s->second, page);
}

/** gw_asked_of() - who that is. */
static inline unsigned int gw_asked_of(const struct gw_split *s, size_t page)
{
	return gw_netpt_at(&s->table, gw_unit_of(&s->table.units, page), gw_asked_slot(s, page));
}

/**
 * gw_ask_of() - @page is asked of its unit's @slot-th holder, or of the other if that one lacks it.
 * Its stripe is locked. Return: whether it is the one that was named.
 */
static inline bool gw_ask_of(struct gw_split *s, size_t page, unsigned int slot)
{
	const bool has = gw_netpt_copies(&s->table, page) & 1U << slot;

	if (!s->second)
		return has;
	if (slot ^ !has)
		gw_shared_bit_set(s->second, page);
	else
		gw_shared_bit_clear(s->second, page);
	return has;
}

/** gw_leaving_pages() - how many leave. */
static inline size_t gw_leaving_pages(const struct gw_leaving *l)
{
	size_t n = 0;

	for (unsigned int i = 0; i < GW_UNIT_WORDS; i++)
		n += (size_t)__builtin_popcountll(l->pages[i]);
	return n;
}

/** gw_leaving_run() - the next run of @bits, of @count, from *@at on. Return: its length; 0: there
 * is none. */
static inline size_t gw_leaving_run(const uint64_t *bits, size_t count, size_t *at, size_t *first)
{
	while (*at < count && !(bits[*at / 64] >> (*at % 64) & 1))
		(*at)++;
	*first = *at;
	while (*at < count && bits[*at / 64] >> (*at % 64) & 1)
		(*at)++;
	return *at - *first;
}

/** gw_leaving_sent() - what was sent of it to its @slot-th holder: bit i is its page i. */
static inline void gw_leaving_sent(const struct gw_leaving *l, unsigned int slot,
				   uint64_t sent[GW_UNIT_WORDS])
{
	for (unsigned int i = 0; i < GW_UNIT_WORDS; i++)
		sent[i] = l->pages[i] & ~(slot ? l->zero_second : l->zero)[i];
}

#endif
