// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_raw.c - pages as they are; claims whatever no other stage took.
 *
 * Wire form: the pages' bytes, count * 4096 of them.
 */
#include <errno.h>

#include "error.h"
#include "stage.h"

static void raw_encode(struct gw_batch *batch)
{
	const struct gw_pageset left = batch->left;
	unsigned int at = 0, first, count;

	while ((count = gw_pageset_run(&left, &at, &first))) {
		const struct gw_pageset run = gw_pageset_of(first, count);

		gw_batch_record(batch, &gw_stage_raw, 0, &run, batch->bytes + first * GW_PAGE_SIZE,
				count * GW_PAGE_SIZE);
	}
}

static int raw_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	if (rec->flags || rec->len != rec->count * GW_PAGE_SIZE)
		return gw_fail(-EPROTO, "a raw record of %u pages with %zu bytes and flags %u",
			       rec->count, rec->len, rec->flags);
	return d->sink->place(d->sink, rec->page, rec->count, rec->body);
}

const struct gw_stage gw_stage_raw = {
	.id = GW_STAGE_RAW,
	.name = "raw",
	.encode = raw_encode,
	.decode = raw_decode,
};
