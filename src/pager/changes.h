/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * changes.h - which pages of a split VM have changed on this host since somebody looked: written,
 * come, left, or given back. For who moves the VM, as tracker.h is for one whose memory is all
 * here; the watch of a split VM is of another kind (decision 32), and knows more.
 *
 * Rule: a page whose bit is clear is write-protected, or not here, and then it faults when it is
 * touched. So whoever lifts a protection, or brings a page, notes it under the lock of its stripe;
 * and whoever takes a bit protects the page first, under that lock, too. What comes is noted before
 * the table says that it is here: whoever finds it there, and takes later, hears of it.
 */
#ifndef GW_CHANGES_H
#define GW_CHANGES_H

#include "bitmap.h"
#include "split.h"

/** gw_changes_note() - @count pages from @page have changed, or may from now on. Their stripe is
 * locked. */
static inline void gw_changes_note(struct gw_split *s, size_t page, size_t count)
{
	if (s->changed)
		gw_shared_bits_set(s->changed, page, count);
}

/**
 * gw_changes_begin() - all that is here is protected, and no page has changed. After
 * gw_split_mend(), with s->moves. 0 or -errno.
 */
int gw_changes_begin(struct gw_split *s);

/**
 * gw_changes_take() - set in @due which of [first, first + count) have changed; from here on they
 * have not. Any thread; parts that are looked at at once begin at different chunks. 0 or -errno.
 */
int gw_changes_take(struct gw_split *s, size_t first, size_t count, struct gw_bitmap *due);

/** gw_changes_peek() - the same, and nothing is forgotten. */
void gw_changes_peek(const struct gw_split *s, size_t first, size_t count,
		     struct gw_bitmap *changed);

#endif
