/* SPDX-License-Identifier: GPL-2.0-or-later */
/* place.h - the only code that installs a page of guest memory. */
#ifndef GW_PLACE_H
#define GW_PLACE_H

#include "key.h"
#include "memory.h"
#include "pager.h"
#include "split.h"
#include "stage.h"

/** struct gw_place - a sink that writes into memory while the guest does not run. */
struct gw_place {
	struct gw_sink sink;
	const struct gw_memory *memory;
	struct gw_teleport *teleport; /* reads disks for it; NULL: nobody does */
};

/** gw_place_init() - a sink for @memory, which must outlive it. */
void gw_place_init(struct gw_place *p, const struct gw_memory *memory);

/** struct gw_page_in - a sink that brings missing pages of a guest that runs. */
struct gw_page_in {
	struct gw_sink sink;
	struct gw_pager *pager;
	const struct gw_key *key;
};

/**
 * gw_page_in_init() - one for @pager, which must outlive it.
 * @key: the VM's, by which pages are told; NULL: none are
 */
void gw_page_in_init(struct gw_page_in *p, struct gw_pager *pager, const struct gw_key *key);

/** struct gw_split_in - a sink that brings pages of a split VM, whose guest runs. */
struct gw_split_in {
	struct gw_sink sink;
	struct gw_split *split;
};

/** gw_split_in_init() - one for @split, which must outlive it. */
void gw_split_in_init(struct gw_split_in *p, struct gw_split *split);

#endif
