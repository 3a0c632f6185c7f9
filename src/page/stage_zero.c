// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_zero.c - pages of zeros.
 *
 * Wire form: no body; the pages of the record are all zero. A page that the
 * destination already holds as zero (a fresh RAM file is zero everywhere)
 * needs no record at all.
 */
#include <errno.h>

#include "error.h"
#include "stage.h"

static void zero_encode(struct gw_batch *batch)
{
	unsigned int i = 0;

	while (i < GW_CHUNK_PAGES) {
		unsigned int first = i;

		while (i < GW_CHUNK_PAGES && gw_pageset_test(&batch->left, i) &&
		       gw_digest_is_zero(batch->digest[i]) && !gw_digest_is_zero(batch->held[i]))
			i++;
		if (i > first) {
			gw_batch_record(batch, &gw_stage_zero, first, i - first, NULL, 0);
			continue;
		}
		if (gw_pageset_test(&batch->left, i) && gw_digest_is_zero(batch->digest[i])) {
			gw_pageset_clear(&batch->left, i);
			batch->count[GW_STAGE_ZERO].pages++;
		}
		i++;
	}
}

static int zero_decode(const struct gw_record *rec, struct gw_sink *sink)
{
	if (rec->len)
		return gw_fail(-EPROTO, "a zero record with a body of %zu bytes", rec->len);
	return sink->zero(sink, rec->page, rec->count);
}

const struct gw_stage gw_stage_zero = {
	.id = GW_STAGE_ZERO,
	.name = "zero",
	.encode = zero_encode,
	.decode = zero_decode,
};
