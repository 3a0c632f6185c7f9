// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_same.c - fake dirty pages: written, and yet the bytes that the
 * destination holds (the paper's hash-based fake dirty page). In the first round
 * what it holds is from a kept image, and the page is reused.
 *
 * Wire form: none in a round. Which bytes the destination holds, the digest table knows
 * (invariant 3), so such a page needs no record at all. In post-copy, where each missing
 * page is waited for: a record without a body; its pages are right as they lie there.
 */
#include <errno.h>

#include "error.h"
#include "stage.h"

static void record(struct gw_batch *batch, const struct gw_pageset *same)
{
	unsigned int at = 0, first, count;

	while ((count = gw_pageset_run(same, &at, &first))) {
		const struct gw_pageset run = gw_pageset_of(first, count);

		gw_batch_record(batch, &gw_stage_same, 0, &run, NULL, 0);
	}
}

static void same_encode(struct gw_batch *batch)
{
	struct gw_pageset same = { { 0 } };

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&batch->left, i) &&
		    gw_digest_equal(batch->digest[i], batch->held[i]))
			gw_pageset_set(&same, i);
	if (batch->encoder->paging)
		record(batch, &same);
	else if (batch->encoder->reuses)
		batch->reused += gw_batch_leave(batch, &same);
	else
		gw_batch_skip(batch, &gw_stage_same, &same);
}

static int same_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	if (rec->len || rec->flags || !d->sink->same)
		return gw_fail(-EPROTO, "a record of %u pages that are the same", rec->count);
	return d->sink->same(d->sink, rec->page, rec->count);
}

const struct gw_stage gw_stage_same = {
	.id = GW_STAGE_SAME,
	.name = "same",
	.encode = same_encode,
	.decode = same_decode,
};
