/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * marks.h - a number from 0 to 255 for each page, of which the largest are wanted.
 *
 * Either when it was used last (an LRU list of pages, in which all that was used in one window has
 * the same place), or in which of the last eight windows it was: bit 7 for the last one, bit 6 for
 * the one before (as in paper S-memV, IV-B).
 *
 * The table is memory of its own: what is never used costs none. Not locked.
 */
#ifndef GW_MARKS_H
#define GW_MARKS_H

#include "bitmap.h"

struct gw_marks {
	uint8_t *page;
	size_t pages, len; /* pages; the table's: a multiple of 64 */
	uint8_t now;	   /* the last window's number */
};

/** gw_marks_init() - all zero. 0/-ENOMEM; gw_marks_free(). */
int gw_marks_init(struct gw_marks *m, size_t pages);
void gw_marks_free(struct gw_marks *m);

/** gw_marks_stamp() - @used in the window that has just ended: each of them is the newest. */
void gw_marks_stamp(struct gw_marks *m, const struct gw_bitmap *used);

/** gw_marks_shift() - @used in the window that has just ended: into bit 7, all others a bit down.
 */
void gw_marks_shift(struct gw_marks *m, const struct gw_bitmap *used);

/**
 * gw_marks_largest() - set in @pages those with the largest marks, none of which is 0.
 * @only: those that count at all; NULL: all
 * @most: so many at most; of those with the least mark that some have the first ones
 *
 * Return: how many.
 */
size_t gw_marks_largest(const struct gw_marks *m, const struct gw_bitmap *only, size_t most,
			struct gw_bitmap *pages);

#endif
