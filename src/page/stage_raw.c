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
	unsigned int i = 0;

	while (i < GW_CHUNK_PAGES) {
		unsigned int first = i;

		while (i < GW_CHUNK_PAGES && gw_pageset_test(&batch->left, i))
			i++;
		if (i > first)
			gw_batch_record(batch, &gw_stage_raw, first, i - first,
					batch->bytes + first * GW_PAGE_SIZE,
					(i - first) * GW_PAGE_SIZE);
		else
			i++;
	}
}

static int raw_decode(const struct gw_record *rec, struct gw_sink *sink)
{
	if (rec->len != rec->count * GW_PAGE_SIZE)
		return gw_fail(-EPROTO, "a raw record of %u pages with %zu bytes", rec->count,
			       rec->len);
	return sink->place(sink, rec->page, rec->count, rec->body);
}

const struct gw_stage gw_stage_raw = {
	.id = GW_STAGE_RAW,
	.name = "raw",
	.encode = raw_encode,
	.decode = raw_decode,
};
