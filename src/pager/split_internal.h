/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_internal.h - what split.c and who sends units share: whom a page is asked of, and the pages
 * of a unit that leaves, as bits.
 */
#ifndef GW_SPLIT_INTERNAL_H
#define GW_SPLIT_INTERNAL_H

#include "split.h"

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
