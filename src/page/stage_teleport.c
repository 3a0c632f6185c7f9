// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_teleport.c - pages whose bytes lie on a disk that the destination has, too: page cache
 * (Akiyama et al., steps c and d).
 *
 * Wire form: pages in a row whose bytes lie in a row. The body is 8 bytes, where the first one
 * begins (48 bits: 512-byte sector; 16 bits above: number of the disk in READY's list), then the
 * digest of each page, 16 bytes, keyed with the VM's secret (invariant 15).
 *
 * The destination reads its own disk whenever it comes to it, and places what has the right digest;
 * the rest it names before ROUND_DONE (REFUSED), and it travels in the next round. So a hint
 * that is wrong costs time, and it does not matter when the disk is read: an equal digest is equal
 * content.
 *
 * Until ROUND_DONE nobody knows whether the page is there. So it is @unsure, and no other record
 * may refer to it in this round: this stage comes before stage_duplicate.c, whose copies it would
 * otherwise be for. Nor does a page travel like this in the last round, which no other follows.
 *
 * In post-copy what is pushed may go like this, too, since it does not change any more: the
 * destination refuses what it does not find, and asks for what its guest waits for, whoever brings
 * it (source/serve.c).
 */
#include <errno.h>
#include <stdlib.h>

#include "codec.h"
#include "error.h"
#include "stage.h"

#define HEAD_LEN 8UL

/* The largest body for each page, one behind the other. */
#define BODIES_LEN (GW_CHUNK_PAGES * (HEAD_LEN + GW_DIGEST_LEN))

static int teleport_open(struct gw_encoder *e)
{
	/* Only what nobody can aim at may decide (invariant 15). */
	if (!e->options.teleports || e->options.hash != GW_HASH_GMAC)
		return 0;
	return gw_bitmap_init(&e->unsure, e->held.nr_pages);
}

static void teleport_close(struct gw_encoder *e)
{
	gw_bitmap_free(&e->unsure);
}

/* One stream's: what is known of its chunk, and the bodies of its records. */
struct teleport {
	struct gw_pageset found;
	struct gw_hint at[GW_CHUNK_PAGES];
	uint8_t bodies[BODIES_LEN];
};

static int teleport_open_batch(struct gw_batch *batch)
{
	if (!batch->encoder->unsure.bits)
		return 0;
	batch->stage[GW_STAGE_TELEPORT] = malloc(sizeof(struct teleport));
	return batch->stage[GW_STAGE_TELEPORT] ? 0
					       : gw_fail(-ENOMEM, "no memory for what disks hold");
}

static void teleport_close_batch(struct gw_batch *batch)
{
	free(batch->stage[GW_STAGE_TELEPORT]);
	batch->stage[GW_STAGE_TELEPORT] = NULL;
}

/* The pages from @first on that lie in a row. */
static unsigned int run_of(const struct teleport *t, unsigned int first)
{
	const struct gw_hint from = t->at[first];
	unsigned int n = 1;

	while (first + n < GW_CHUNK_PAGES && gw_pageset_test(&t->found, first + n) &&
	       t->at[first + n].disk == from.disk &&
	       t->at[first + n].sector == from.sector + n * GW_PAGE_SECTORS)
		n++;
	return n;
}

/* In a round at once: later stages of this very batch go by it. */
static void mark(struct gw_batch *batch, unsigned int first, unsigned int count)
{
	struct gw_encoder *e = batch->encoder;

	for (unsigned int i = first; i < first + count; i++) {
		if (e->paging)
			gw_pageset_set(&batch->doubted.unsure, i);
		else
			gw_bitmap_put(&e->unsure, batch->chunk * GW_CHUNK_PAGES + i);
	}
}

static void teleport_encode(struct gw_batch *batch)
{
	struct gw_encoder *e = batch->encoder;
	struct teleport *t = batch->stage[GW_STAGE_TELEPORT];
	uint8_t *at;
	unsigned int count;

	if (!t || !e->hints)
		return;
	gw_hints_of_chunk(e->hints, batch->chunk, batch->bytes, &batch->left, &t->found, t->at);
	at = t->bodies;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i += count) {
		struct gw_pageset run;

		count = 1;
		if (!gw_pageset_test(&t->found, i))
			continue;
		count = run_of(t, i);
		gw_put64(at, t->at[i].sector | (uint64_t)t->at[i].disk << 48);
		for (unsigned int k = 0; k < count; k++)
			gw_put_digest(at + HEAD_LEN + k * GW_DIGEST_LEN, batch->digest[i + k]);
		mark(batch, i, count);
		run = gw_pageset_of(i, count);
		gw_batch_record(batch, &gw_stage_teleport, 0, &run, at,
				HEAD_LEN + count * GW_DIGEST_LEN);
		at += HEAD_LEN + count * GW_DIGEST_LEN;
	}
}

static int teleport_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	uint64_t at;

	if (rec->len != HEAD_LEN + rec->count * GW_DIGEST_LEN || rec->flags)
		return gw_fail(-EPROTO, "%u pages of a disk with a body of %zu bytes and flags %u",
			       rec->count, rec->len, rec->flags);
	if (!d->sink->fetch)
		return gw_fail(-EPROTO, "pages of a disk, which were not offered");
	at = gw_get64(rec->body);
	return d->sink->fetch(
		d->sink, rec->page, rec->count,
		(struct gw_hint){ (unsigned int)(at >> 48), at & (GW_HINT_SECTORS - 1) },
		rec->body + HEAD_LEN);
}

const struct gw_stage gw_stage_teleport = {
	.id = GW_STAGE_TELEPORT,
	.name = "teleported",
	.open = teleport_open,
	.close = teleport_close,
	.open_batch = teleport_open_batch,
	.close_batch = teleport_close_batch,
	.encode = teleport_encode,
	.decode = teleport_decode,
};
