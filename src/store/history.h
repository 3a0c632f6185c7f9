/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history.h - a VM's ledger in a few numbers: how much of its memory an image
 * of each departure would hold.
 *
 * For each of the newest departures, ascending: its number, its id, and how many
 * of the VM's pages with data are not newer than it. It predicts reuse without
 * asking the host that keeps the image, and travels to the registry, where the
 * ledger would be too large.
 */
#ifndef GW_HISTORY_H
#define GW_HISTORY_H

#include <stdint.h>

#include "ledger.h"

#define GW_HISTORY_MAX 64

struct gw_history {
	unsigned int nr;
	struct gw_history_entry {
		uint32_t departure;
		uint8_t id[GW_ID_LEN];
		uint64_t pages;
	} at[GW_HISTORY_MAX];
};

/** gw_history_find() - the entry of departure @departure with @id, or NULL. */
const struct gw_history_entry *gw_history_find(const struct gw_history *h, uint32_t departure,
					       const uint8_t id[GW_ID_LEN]);

/**
 * gw_history_begin() - the newest departures of @l, with no pages yet.
 *
 * Then call gw_history_count() for pages, and gw_history_end().
 */
void gw_history_begin(struct gw_history *h, const struct gw_ledger *l);

/** gw_history_count() - one more page of generation @generation. */
void gw_history_count(struct gw_history *h, uint32_t generation);

/**
 * gw_history_end() - from pages of each generation to pages not newer than each departure.
 * @part, @whole: where only some pages were counted, @part of @whole; equal otherwise
 */
void gw_history_end(struct gw_history *h, uint64_t part, uint64_t whole);

/** gw_history_of() - of all pages of @l that are not zero. */
void gw_history_of(struct gw_history *h, const struct gw_ledger *l);

#endif
