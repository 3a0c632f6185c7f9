/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * missing.h - which of a VM's pages have not come yet: the one truth about post-copy
 * (decision 28), kept in the VM's folder so that it outlives whoever pages.
 *
 *   a bit set     the page is missing: no page table has it, its file holds old bytes,
 *                 or a part of the new ones, or nothing
 *   a bit clear   it is there: whoever faults on it sees what lies in the file
 *
 * A page is placed by clearing its bit, *after* its bytes are in the file and *before* anybody
 * can see them. So a bit never comes back, and whoever dies leaves no page in doubt.
 *
 * The file is a shared mapping on tmpfs: a header, then the bits. What is never set costs no
 * memory. Bits are cleared by any thread; they are set by one, before it is sealed.
 */
#ifndef GW_MISSING_H
#define GW_MISSING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "messages.h"
#include "memory.h"
#include "shared_bits.h"

struct gw_missing_head;

struct gw_missing {
	struct gw_missing_head *head;
	gw_shared_word *words;
	size_t nr_pages, len;
	_Atomic size_t left; /* bits that are set */
};

/**
 * gw_missing_create() - an empty table at @path, in place of what is there.
 * @id: of the migration
 * @connections: that its source opens, for whoever takes over
 *
 * Return: 0 or -errno with a message; gw_missing_close() either way.
 */
int gw_missing_create(struct gw_missing *m, const char *path, const struct gw_memory *memory,
		      const uint8_t id[GW_ID_LEN], unsigned int connections);

/**
 * gw_missing_open() - the table that somebody else has sealed.
 *
 * Return: 0; -ENOENT; -EINVAL if it is not of this migration, not sealed, or damaged;
 * gw_missing_close() either way.
 */
int gw_missing_open(struct gw_missing *m, const char *path, const struct gw_memory *memory,
		    const uint8_t id[GW_ID_LEN], unsigned int *connections);
void gw_missing_close(struct gw_missing *m);

/** gw_missing_add() - @count pages from @first are missing. 0, or -EPROTO: they are no memory. */
int gw_missing_add(struct gw_missing *m, const struct gw_memory *memory, size_t first,
		   size_t count);

/** gw_missing_seal() - these are all. */
void gw_missing_seal(struct gw_missing *m);

/** gw_missing_test() - whether @page is missing. */
static inline bool gw_missing_test(const struct gw_missing *m, size_t page)
{
	return gw_shared_bit(m->words, page);
}

/** gw_missing_placed() - @count pages from @first are there now. */
void gw_missing_placed(struct gw_missing *m, size_t first, size_t count);

/**
 * gw_missing_next() - the next run of missing pages, as they are now.
 * @at: where to begin, moves behind it
 * Return: how many pages from @first; 0: there is none.
 */
size_t gw_missing_next(const struct gw_missing *m, size_t *at, size_t *first);

#endif
