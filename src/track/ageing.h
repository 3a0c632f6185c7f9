/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ageing.h - how long ago each page of a guest was accessed, about (paper S-memV, IV-B and IV-C).
 *
 * Eight bits a page: what was accessed sets the top bit, whenever somebody looks; now and then all
 * are shifted down. So the value says when a page was used last, and how often before: the
 * larger, the more likely it is used soon. That of a unit is the OR of its pages', kept as bits
 * come in and not computed from them.
 *
 * Nothing is sorted: whoever wants the most or the least likely units counts how many have each of
 * the 256 values.
 *
 * The tables are memory of their own, so what is never accessed costs none.
 *
 * Locking: pages are touched by any thread at any time, so nobody who brings one waits for a walk
 * over the table of a large guest. The other calls are one thread's at a time, of which add and
 * shift are one's, coldest another's.
 */
#ifndef GW_AGEING_H
#define GW_AGEING_H

#include "bitmap.h"
#include "units.h"

/* The bit of what was accessed since the last shift. */
#define GW_AGEING_NOW 0x80

struct gw_ageing {
	struct gw_units units;
	uint8_t *pages, *unit;	     /* a byte each */
	size_t pages_len, units_len; /* of the tables: multiples of 64 */
	size_t from;		     /* whom to begin with among equals */
};

/** gw_ageing_init() - of a guest that has accessed nothing yet. 0/-ENOMEM; gw_ageing_free(). */
int gw_ageing_init(struct gw_ageing *a, const struct gw_memory *memory, unsigned int unit_pages);
void gw_ageing_free(struct gw_ageing *a);

/** gw_ageing_add() - @accessed: since somebody last looked. */
void gw_ageing_add(struct gw_ageing *a, const struct gw_bitmap *accessed);

/** gw_ageing_touch() - @count pages from @first are known to be accessed just now. */
void gw_ageing_touch(struct gw_ageing *a, size_t first, size_t count);

/** gw_ageing_recall() - unit @unit has @value, as another host has found. */
static inline void gw_ageing_recall(struct gw_ageing *a, size_t unit, uint8_t value)
{
	if (value)
		a->unit[unit] = value;
}

/** gw_ageing_shift() - a period is over: what was accessed in it counts half as much. */
void gw_ageing_shift(struct gw_ageing *a);

/**
 * gw_ageing_split() - which @most units are to stay: those with the largest values (IV-C). Of
 * those with the least value that stays at all, the first ones.
 * @filled: units that have memory at all, which the others make way for; NULL: all have
 * @stay: a bit a unit, all clear
 */
void gw_ageing_split(const struct gw_ageing *a, const struct gw_bitmap *filled, size_t most,
		     struct gw_bitmap *stay);

/**
 * gw_ageing_coldest() - units with the least values, the least first.
 * @eligible: a bit a unit: of these. Others may set bits meanwhile, but clear none.
 * @most: @units at most
 *
 * Among equals it goes on where it stopped, so that not always the same ones leave.
 * Return: how many; fewer than there are where they are touched meanwhile.
 */
unsigned int gw_ageing_coldest(struct gw_ageing *a, const struct gw_bitmap *eligible,
			       unsigned int most, size_t *units);

#endif
