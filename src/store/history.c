// SPDX-License-Identifier: GPL-2.0-or-later
/* history.c - a VM's ledger in a few numbers; see history.h. */
#include <string.h>

#include "history.h"

const struct gw_history_entry *gw_history_find(const struct gw_history *h, uint32_t departure,
					       const uint8_t id[GW_ID_LEN])
{
	for (unsigned int i = 0; i < h->nr; i++)
		if (h->at[i].departure == departure && !memcmp(h->at[i].id, id, GW_ID_LEN))
			return &h->at[i];
	return NULL;
}

void gw_history_begin(struct gw_history *h, const struct gw_ledger *l)
{
	const uint32_t newest = gw_ledger_departures(l);
	const uint32_t nr = newest < GW_HISTORY_MAX ? newest : GW_HISTORY_MAX;

	memset(h, 0, sizeof(*h));
	for (uint32_t number = newest - nr + 1; number <= newest && number; number++) {
		const uint8_t *id = gw_ledger_id(l, number);

		if (!id)
			continue;
		h->at[h->nr].departure = number;
		memcpy(h->at[h->nr++].id, id, GW_ID_LEN);
	}
}

/* Most pages are old: the first entry has them. */
void gw_history_count(struct gw_history *h, uint32_t generation)
{
	for (unsigned int i = 0; i < h->nr; i++)
		if (generation <= h->at[i].departure) {
			h->at[i].pages++;
			return;
		}
}

void gw_history_end(struct gw_history *h, uint64_t part, uint64_t whole)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < h->nr; i++) {
		sum += h->at[i].pages;
		h->at[i].pages = part == whole
					 ? sum
					 : (uint64_t)((double)sum * (double)whole / (double)part);
	}
}

void gw_history_of(struct gw_history *h, const struct gw_ledger *l)
{
	gw_history_begin(h, l);
	for (size_t page = 0; h->nr && page < l->nr_pages; page++)
		if (!gw_digest_is_zero(l->digests[page]))
			gw_history_count(h, l->generations[page]);
	gw_history_end(h, 1, 1);
}
