// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_same.c - fake dirty pages: written, and yet the bytes that the
 * destination holds (the paper's hash-based fake dirty page). In the first round
 * what it holds is from a kept image, and the page is reused.
 *
 * Wire form: none in a round. Which bytes the destination holds, the digest table knows
 * (invariant 3), so such a page needs no record at all. In post-copy, where each missing
 * page is waited for: a record without a body; its pages are right as they lie there. Where what
 * lies there is from an image that nobody has compared (decision 29): with flag 1, and as
 * the body the digest of each page, 16 bytes; they are right if they have these.
 */
#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "stage.h"

#define FLAG_CHECK 1

static int same_open_batch(struct gw_batch *batch)
{
	batch->stage[GW_STAGE_SAME] = malloc(GW_CHUNK_PAGES * GW_DIGEST_LEN);
	return batch->stage[GW_STAGE_SAME] ? 0 : gw_fail(-ENOMEM, "no memory for digests");
}

static void same_close_batch(struct gw_batch *batch)
{
	free(batch->stage[GW_STAGE_SAME]);
	batch->stage[GW_STAGE_SAME] = NULL;
}

/* Whether its digest is worth telling; once, so that whoever refuses it gets its bytes. */
static bool take_check(struct gw_encoder *e, size_t page, struct gw_digest digest)
{
	return gw_digest_equal(digest, e->kept[page]) && gw_bitmap_take(&e->may_hold, page);
}

static void record_checks(struct gw_batch *batch)
{
	struct gw_encoder *e = batch->encoder;
	uint8_t *digests = batch->stage[GW_STAGE_SAME];
	struct gw_pageset checks = { { 0 } };
	unsigned int at = 0, first, count;

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&batch->left, i) ||
		    !take_check(e, batch->chunk * GW_CHUNK_PAGES + i, batch->digest[i]))
			continue;
		gw_pageset_set(&checks, i);
		gw_put_digest(digests + i * GW_DIGEST_LEN, batch->digest[i]);
	}
	batch->doubted.told = checks;
	while ((count = gw_pageset_run(&checks, &at, &first))) {
		const struct gw_pageset run = gw_pageset_of(first, count);

		gw_batch_record(batch, &gw_stage_same, FLAG_CHECK, &run,
				digests + first * GW_DIGEST_LEN, count * GW_DIGEST_LEN);
		batch->count[GW_STAGE_SAME].pages -= count;
		batch->reused += count;
	}
}

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
	if (batch->encoder->paging) {
		record(batch, &same);
		if (batch->encoder->kept)
			record_checks(batch);
	} else if (batch->encoder->reuses)
		batch->reused += gw_batch_leave(batch, &same);
	else
		gw_batch_skip(batch, &gw_stage_same, &same);
}

static int same_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	if (rec->flags == FLAG_CHECK && d->sink->check && rec->len == rec->count * GW_DIGEST_LEN)
		return d->sink->check(d->sink, rec->page, rec->count, rec->body);
	if (rec->len || rec->flags || !d->sink->same)
		return gw_fail(-EPROTO, "a record of %u pages that are the same", rec->count);
	return d->sink->same(d->sink, rec->page, rec->count);
}

const struct gw_stage gw_stage_same = {
	.id = GW_STAGE_SAME,
	.name = "same",
	.open_batch = same_open_batch,
	.close_batch = same_close_batch,
	.encode = same_encode,
	.decode = same_decode,
};
