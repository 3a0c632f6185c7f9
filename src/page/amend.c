// SPDX-License-Identifier: GPL-2.0-or-later
/* amend.c - records that change pages which the destination holds; see amend.h. */
#include <errno.h>
#include <stdlib.h>

#include "amend.h"
#include "error.h"

#define BATCH 32U /* pages that are read and placed in one go */

struct change {
	unsigned int value;
	struct gw_reader bytes;
};

/* Check a record to its end: its @pages, and the change of each. */
static int take_pages(const struct gw_amend *how, const struct gw_record *rec,
		      struct gw_pageset *pages, struct change changes[GW_CHUNK_PAGES])
{
	const unsigned int first = rec->page % GW_CHUNK_PAGES;
	struct gw_reader r = { rec->body, rec->len };
	unsigned int next = first; /* the lowest that may come */

	if (rec->flags)
		return gw_fail(-EPROTO, "a %s record with flags %u", how->what, rec->flags);
	while (r.left) {
		const uint8_t *head = gw_take(&r, GW_AMEND_HEAD);
		struct change c;
		long len;

		if (!head)
			return gw_fail(-EPROTO, "a %s record is cut short", how->what);
		c.value = gw_get16(head + 1);
		len = how->length(c.value);
		c.bytes.left = len < 0 ? 0 : (size_t)len;
		c.bytes.at = len < 0 ? NULL : gw_take(&r, c.bytes.left);
		if (!c.bytes.at || head[0] < next || head[0] >= first + rec->count ||
		    (next == first && head[0] != first))
			return gw_fail(-EPROTO, "a %s of page %u does not fit into its record",
				       how->what, head[0]);
		if (how->sound && !how->sound(c.bytes))
			return gw_fail(-EPROTO, "a %s of page %u that cannot be", how->what,
				       head[0]);
		gw_pageset_set(pages, head[0]);
		changes[head[0]] = c;
		next = head[0] + 1U;
	}
	if (next != first + rec->count)
		return gw_fail(-EPROTO, "a %s record of %u pages ends at page %u of its chunk",
			       how->what, rec->count, next);
	return 0;
}

int gw_amend_decode(const struct gw_amend *how, const struct gw_record *rec, struct gw_decoder *d,
		    void **buffer)
{
	const uint64_t chunk = rec->page - rec->page % GW_CHUNK_PAGES;
	struct change changes[GW_CHUNK_PAGES];
	struct gw_pageset pages = { { 0 } };
	unsigned int at = 0, first, count;
	int rc = take_pages(how, rec, &pages, changes);
	uint8_t *bytes;

	if (rc)
		return rc;
	if (!*buffer)
		*buffer = aligned_alloc(GW_PAGE_SIZE, BATCH * GW_PAGE_SIZE);
	bytes = *buffer;
	if (!bytes)
		return gw_fail(-ENOMEM, "no memory to change pages");
	while (!rc && (count = gw_pageset_run(&pages, &at, &first))) {
		if (count > BATCH) {
			count = BATCH;
			at = first + BATCH;
		}
		rc = d->sink->read(d->sink, chunk + first, count, bytes);
		for (unsigned int i = 0; !rc && i < count; i++)
			how->apply(bytes + i * GW_PAGE_SIZE, changes[first + i].value,
				   changes[first + i].bytes);
		if (!rc)
			rc = d->sink->place(d->sink, chunk + first, count, bytes);
	}
	return rc;
}
