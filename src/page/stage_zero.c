// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_zero.c - pages of zeros.
 *
 * Wire form: no body; the pages of the record are all zero. In the first round
 * a page that the destination holds as zero (a fresh RAM file is zero
 * everywhere) needs no record; later such a page is a fake dirty one, and
 * stage_same.c's.
 */
#include <errno.h>

#include "error.h"
#include "stage.h"

static void zero_encode(struct gw_batch *batch)
{
	struct gw_pageset held = { { 0 } }, gone = { { 0 } };
	unsigned int at = 0, first, count;

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&batch->left, i) || !gw_digest_is_zero(batch->digest[i]))
			continue;
		if (gw_digest_is_zero(batch->held[i]) && batch->encoder->round <= 1 &&
		    !batch->encoder->paging)
			gw_pageset_set(&held, i);
		else if (!gw_digest_is_zero(batch->held[i]) ||
			 batch->encoder->options.off & 1U << GW_STAGE_SAME)
			gw_pageset_set(&gone, i);
	}
	gw_batch_skip(batch, &gw_stage_zero, &held);
	while ((count = gw_pageset_run(&gone, &at, &first))) {
		const struct gw_pageset run = gw_pageset_of(first, count);

		gw_batch_record(batch, &gw_stage_zero, 0, &run, NULL, 0);
	}
}

static int zero_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	if (rec->len || rec->flags)
		return gw_fail(-EPROTO, "a zero record with a body of %zu bytes or flags %u",
			       rec->len, rec->flags);
	return d->sink->zero(d->sink, rec->page, rec->count);
}

const struct gw_stage gw_stage_zero = {
	.id = GW_STAGE_ZERO,
	.name = "zero",
	.encode = zero_encode,
	.decode = zero_decode,
};
