// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_patch.c - pages of which the destination kept an older version: only
 * the 256-byte blocks that changed travel (design, section 8: below the page).
 *
 * Wire form: that of amend.h; what is said of a page is a bit for each of its 16 blocks that
 * changed, never none, and its changes are those blocks, 256 bytes each, in
 * ascending order.
 *
 * Blocks that are not given are those that the destination holds.
 *
 * The source has no older version to compare with, it was never here or has
 * been overwritten; it has the destination's digests of its blocks
 * (source/reuse.c asks for them). Those are good for the first time that the page
 * travels in this migration; after that the page is as it was sent.
 *
 * A block's digest has 64 bits, under the VM's key: that a changed block passes for
 * the same has a chance of 2^-59 each at most, one in 10^11 moves of a million
 * such blocks (decisions 13 and 18).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "amend.h"
#include "codec.h"
#include "error.h"
#include "pipeline.h"
#include "stage.h"

/* With more of its blocks changed a page had better travel whole, and compressed. */
#define BLOCKS_MAX (GW_PAGE_BLOCKS * 3 / 4)

#define BODY_MAX (GW_CHUNK_PAGES * (GW_AMEND_HEAD + BLOCKS_MAX * GW_BLOCK_SIZE))

/* The encoder's: blocks of the destination's pages. */
struct bases {
	size_t bytes;		 /* of @table */
	struct gw_blocks *table; /* a page each; sparse */
	struct gw_bitmap known;
};

void gw_blocks_of(const struct gw_key *key, const void *page, struct gw_blocks *blocks)
{
	for (unsigned int i = 0; i < GW_PAGE_BLOCKS; i++)
		blocks->digest[i] = gw_key_block(key, (const uint8_t *)page + i * GW_BLOCK_SIZE);
}

static int patch_open(struct gw_encoder *e)
{
	struct bases *b = calloc(1, sizeof(*b));

	if (!b)
		return gw_fail(-ENOMEM, "no memory for patches");
	e->stage[GW_STAGE_PATCH] = b;
	b->bytes = (e->held.nr_pages + 1) * sizeof(*b->table);
	b->table = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->table == MAP_FAILED) {
		b->table = NULL;
		return gw_fail(-ENOMEM, "no memory for the blocks of %zu pages", e->held.nr_pages);
	}
	return gw_bitmap_init(&b->known, e->held.nr_pages);
}

static void patch_close(struct gw_encoder *e)
{
	struct bases *b = e->stage[GW_STAGE_PATCH];

	if (!b)
		return;
	if (b->table)
		munmap(b->table, b->bytes);
	gw_bitmap_free(&b->known);
	free(b);
	e->stage[GW_STAGE_PATCH] = NULL;
}

bool gw_encoder_patches(const struct gw_encoder *e)
{
	return e->stage[GW_STAGE_PATCH];
}

void gw_encoder_base(struct gw_encoder *e, size_t page, const struct gw_blocks *blocks)
{
	struct bases *b = e->stage[GW_STAGE_PATCH];

	b->table[page] = *blocks;
	gw_bitmap_set(&b->known, page);
}

/* Whether the destination's version of any page of the chunk at @page is known. */
static bool has_bases(const struct bases *b, size_t page)
{
	const size_t end = page + GW_CHUNK_PAGES;

	return gw_bitmap_next(&b->known, page, end, true) < end;
}

static int patch_open_batch(struct gw_batch *batch)
{
	batch->stage[GW_STAGE_PATCH] = malloc(BODY_MAX);
	return batch->stage[GW_STAGE_PATCH] ? 0 : gw_fail(-ENOMEM, "no memory for patches");
}

static void patch_close_batch(struct gw_batch *batch)
{
	free(batch->stage[GW_STAGE_PATCH]);
	batch->stage[GW_STAGE_PATCH] = NULL;
}

static unsigned int changed_blocks(const struct gw_key *key, const struct bases *b, size_t page,
				   const void *bytes)
{
	struct gw_blocks now;
	unsigned int mask = 0;

	gw_blocks_of(key, bytes, &now);
	for (unsigned int i = 0; i < GW_PAGE_BLOCKS; i++)
		mask |= (unsigned int)(now.digest[i] != b->table[page].digest[i]) << i;
	return mask;
}

static uint8_t *put_page(uint8_t *at, unsigned int i, unsigned int mask, const uint8_t *bytes)
{
	at = gw_amend_put_head(at, i, mask);
	for (unsigned int k = 0; k < GW_PAGE_BLOCKS; k++) {
		if (!(mask >> k & 1))
			continue;
		memcpy(at, bytes + k * GW_BLOCK_SIZE, GW_BLOCK_SIZE);
		at += GW_BLOCK_SIZE;
	}
	return at;
}

static void patch_encode(struct gw_batch *batch)
{
	const struct bases *b = batch->encoder->stage[GW_STAGE_PATCH];
	const size_t first = batch->chunk * GW_CHUNK_PAGES;
	struct gw_pageset claimed = { { 0 } }, same = { { 0 } };
	uint8_t *body = batch->stage[GW_STAGE_PATCH], *at = body;

	if (!has_bases(b, first))
		return;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		const uint8_t *bytes = batch->bytes + i * GW_PAGE_SIZE;
		unsigned int mask;

		if (!gw_pageset_test(&batch->left, i) || !gw_bitmap_test(&b->known, first + i))
			continue;
		mask = changed_blocks(batch->encoder->options.key, b, first + i, bytes);
		/* In post-copy it needs a record, and another stage has one. */
		if (!mask && batch->encoder->paging)
			continue;
		if (!mask) {
			gw_pageset_set(&same, i);
		} else if (__builtin_popcount(mask) <= (int)BLOCKS_MAX) {
			at = put_page(at, i, mask, bytes);
			gw_pageset_set(&claimed, i);
		}
	}
	/* In post-copy each page is waited for: the next stages take it. */
	if (!batch->encoder->paging)
		batch->reused += gw_batch_leave(batch, &same);
	if (!gw_pageset_empty(&claimed))
		gw_batch_record(batch, &gw_stage_patch, 0, &claimed, body, (size_t)(at - body));
}

/* Whoever took a page: what the destination kept of it is gone. */
static void patch_remember(struct gw_batch *batch, const struct gw_pageset *all)
{
	struct bases *b = batch->encoder->stage[GW_STAGE_PATCH];
	const size_t page = batch->chunk * GW_CHUNK_PAGES;
	unsigned int at = 0, first, count;

	/* In post-copy none is looked at twice, and its word is shared with other threads. */
	if (batch->encoder->paging || !has_bases(b, page))
		return;
	while ((count = gw_pageset_run(all, &at, &first)))
		gw_bitmap_clear_range(&b->known, page + first, count);
}

static long patch_length(unsigned int mask)
{
	return mask ? __builtin_popcount(mask) * (long)GW_BLOCK_SIZE : -1;
}

static void patch_apply(uint8_t *page, unsigned int mask, struct gw_reader blocks)
{
	const uint8_t *block;

	for (unsigned int k = 0; k < GW_PAGE_BLOCKS; k++)
		if (mask >> k & 1 && (block = gw_take(&blocks, GW_BLOCK_SIZE)))
			memcpy(page + k * GW_BLOCK_SIZE, block, GW_BLOCK_SIZE);
}

static int patch_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	static const struct gw_amend how = { "patch", patch_length, NULL, patch_apply };

	return gw_amend_decode(&how, rec, d, &d->stage[GW_STAGE_PATCH]);
}

static void patch_close_decoder(struct gw_decoder *d)
{
	free(d->stage[GW_STAGE_PATCH]);
	d->stage[GW_STAGE_PATCH] = NULL;
}

const struct gw_stage gw_stage_patch = {
	.id = GW_STAGE_PATCH,
	.name = "patched",
	.open = patch_open,
	.close = patch_close,
	.open_batch = patch_open_batch,
	.close_batch = patch_close_batch,
	.encode = patch_encode,
	.remember = patch_remember,
	.decode = patch_decode,
	.close_decoder = patch_close_decoder,
};
