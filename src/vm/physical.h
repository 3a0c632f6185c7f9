/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * physical.h - which of the VM's pages a guest-physical page frame is.
 *
 * A guest counts frames, Godwit pages of blocks (memory.h). The two differ from the hole below
 * 4 GiB on, with several NUMA nodes, and wherever memory was plugged in. QEMU's monitor tells how
 * they lie, in words for people (info mtree), so a frame may not be found: this is for hints only.
 */
#ifndef GW_PHYSICAL_H
#define GW_PHYSICAL_H

#include <stdint.h>

#include "memory.h"
#include "qmp.h"

#define GW_PHYSICAL_MAX 64

/** struct gw_physical - ranges of frames, each of pages in a row. */
struct gw_physical {
	struct gw_physical_range {
		uint64_t frame, count;
		size_t page;
	} ranges[GW_PHYSICAL_MAX];
	unsigned int nr;
};

/** gw_physical_parse() - what "info mtree -f" says in @text of @m's blocks. Trusts nothing. */
void gw_physical_parse(struct gw_physical *p, const char *text, const struct gw_memory *m);

/** gw_physical_ask() - likewise, of @q's QEMU. 0, or -ENODATA with a message: it does not say. */
int gw_physical_ask(struct gw_physical *p, struct gw_qmp *q, const struct gw_memory *m);

/**
 * gw_physical_pages() - the pages of the frames from @frame on, @count at most.
 * @page: set to the first
 * Return: how many of them are in a row; 0: @frame is no memory of the VM.
 */
uint64_t gw_physical_pages(const struct gw_physical *p, uint64_t frame, uint64_t count,
			   size_t *page);

#endif
