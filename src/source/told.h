/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * told.h - what the main host of a split VM believes of where its pages are (AWAY, decision 32):
 * only what has changed since is told, as runs, so that little is left for when the guest stands
 * still.
 *
 * Threads: the machine's.
 */
#ifndef GW_TOLD_H
#define GW_TOLD_H

#include "bitmap.h"

struct gw_source;

struct gw_told {
	struct gw_bitmap away; /* pages that it believes to be away */
	uint64_t pages;	       /* how many */
	uint8_t *runs;	       /* of AWAYs under way, each sub-host's, and last of what came back */
	size_t *lens;
};

/** gw_told_init() - it believes that all is there. 0 or -ENOMEM; gw_told_free() either way. */
int gw_told_init(struct gw_told *t, size_t nr_pages);
void gw_told_free(struct gw_told *t);

/**
 * gw_tell_away() - @page is at @holder, and where it is stored twice maybe at another, too. It
 * hears so by gw_tell_flush() at the latest. 0 or -errno.
 */
int gw_tell_away(struct gw_source *s, struct gw_told *t, unsigned int holder, size_t page);

/** gw_tell_back() - @page, which it believes to be away, is nowhere any more. 0 or -errno. */
int gw_tell_back(struct gw_source *s, struct gw_told *t, size_t page);

/** gw_tell_flush() - and what is back before what is away. 0 or -errno. */
int gw_tell_flush(struct gw_source *s, struct gw_told *t);

/** gw_tell_history() - how much the guest has used each of @nr units of late. 0 or -errno. */
int gw_tell_history(struct gw_source *s, const uint8_t *history, size_t nr);

#endif
