/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pipeline.h - the road of a chunk's pages through the stages, and back.
 */
#ifndef GW_PIPELINE_H
#define GW_PIPELINE_H

#include <jansson.h>

#include "stage.h"

/**
 * gw_encoder_init() - the source's end of the road, for a VM of @nr_pages.
 * @now, @env: the clock that stages measure with
 *
 * Starts from a destination that holds zeros everywhere.
 *
 * Return: 0 or -ENOMEM. Free with gw_encoder_free() either way.
 */
int gw_encoder_init(struct gw_encoder *e, const struct gw_page_options *options, size_t nr_pages,
		    int64_t (*now)(void *env), void *env);
void gw_encoder_free(struct gw_encoder *e);

/**
 * gw_encoder_bare() - one that knows nothing of what the other side holds, and keeps no table:
 * every page gets a record of its own, and none is hashed. For a memory server, and for what
 * goes there (decision 32). 0 or -errno; gw_encoder_free() either way.
 */
int gw_encoder_bare(struct gw_encoder *e, const struct gw_page_options *options,
		    int64_t (*now)(void *env), void *env);

/**
 * gw_encoder_beside() - one more for pages of the same VM that go to another holder (decision 32).
 * It shares @of's table of what is held, so each page is always the same encoder's; no record
 * refers to another page, or to what was held before. @of must outlive it.
 *
 * Return: 0 or -errno; gw_encoder_free() either way.
 */
int gw_encoder_beside(struct gw_encoder *e, const struct gw_encoder *of,
		      const struct gw_page_options *options);

/**
 * gw_encoder_reuse() - the destination holds page @page with @digest, from an image it kept.
 * @digest: GW_DIGEST_UNKNOWN: it holds something, not known what
 *
 * Before the first round, or later for a page that has not travelled yet. Whoever calls
 * it clears @e->reuses when the last of these is known.
 */
static inline void gw_encoder_reuse(struct gw_encoder *e, size_t page, struct gw_digest digest)
{
	e->reuses = true;
	gw_digests_set(&e->held, page, digest);
}

/**
 * gw_encoder_kept() - the destination kept an image that nobody has compared: in post-copy a page
 * that is what it should be there is told by its digest.
 * @digests: what the pages should have; the caller's, as long as the encoder
 *
 * Which pages: those whose bit is set in @e->may_hold afterwards. 0 or -ENOMEM.
 */
int gw_encoder_kept(struct gw_encoder *e, const struct gw_digest *digests);

/**
 * gw_encoder_refused() - the destination does not have @page, so it is not told by a digest any
 * more. Return: whether it was since the last such call. Any thread.
 */
bool gw_encoder_refused(struct gw_encoder *e, size_t page);

/** struct gw_blocks - digests of a page's blocks: gw_key_block() of each. */
struct gw_blocks {
	uint64_t digest[GW_PAGE_BLOCKS];
};

/** gw_blocks_of() - of one page's GW_PAGE_SIZE bytes. */
void gw_blocks_of(const struct gw_key *key, const void *page, struct gw_blocks *blocks);

/** gw_encoder_patches() - whether gw_encoder_base() is of use. */
bool gw_encoder_patches(const struct gw_encoder *e);

/**
 * gw_encoder_base() - the destination's page @page consists of @blocks, so it may be patched.
 *
 * Before the first round; 128 bytes of memory a page.
 */
void gw_encoder_base(struct gw_encoder *e, size_t page, const struct gw_blocks *blocks);

/**
 * gw_encoder_paging() - the rounds are over: the guest runs there, and lacks @due (decision 28).
 *
 * From here on every page gets a record, and none refers to another page, which the guest
 * may have changed.
 */
void gw_encoder_paging(struct gw_encoder *e, const struct gw_bitmap *due);

/**
 * gw_encoder_round() - a new round begins: the destination has acknowledged the last.
 * @due: its pages; stays as it is, and the caller's, until the next round
 */
void gw_encoder_round(struct gw_encoder *e, const struct gw_bitmap *due);

/**
 * gw_encoder_teleports() - pages of the round that has just begun may go by @hints, which must
 * outlive it. Not in the last one. The destination tells what it lacks before it is over; in
 * post-copy, once it knows.
 */
static inline void gw_encoder_teleports(struct gw_encoder *e, struct gw_hints *hints)
{
	e->hints = e->unsure.bits ? hints : NULL;
}

/*
 * Stages whose records refer to what the other side has: of a page that may lie there in a state
 * that nobody knows they are of no use.
 */
#define GW_STAGES_REFERRING                                                         \
	(1U << GW_STAGE_SAME | 1U << GW_STAGE_TELEPORT | 1U << GW_STAGE_DUPLICATE | \
	 1U << GW_STAGE_DELTA | 1U << GW_STAGE_PATCH)

/** gw_encoder_certain() - the round is over, and the destination has told what it lacks of it. */
void gw_encoder_certain(struct gw_encoder *e);

/**
 * gw_encoder_lacks() - the destination's disk did not have what @page should be, or is not waited
 * for.
 * Return: whether that page went by it in this round, or since the last such call. Any thread.
 */
bool gw_encoder_lacks(struct gw_encoder *e, size_t page);

/** gw_encoder_unchanged() - whether @bytes are what the destination holds of @page. */
bool gw_encoder_unchanged(const struct gw_encoder *e, size_t page, const void *bytes);

/** gw_batch_init() - one stream's buffers. 0 or -ENOMEM. gw_batch_free() either way. */
int gw_batch_init(struct gw_batch *batch, struct gw_encoder *e, unsigned int stream);
void gw_batch_free(struct gw_batch *batch);

/**
 * gw_pipeline_encode() - express the pages in @batch->left.
 * @batch: chunk, bytes, off, left and again are set by the caller
 *
 * A page in @batch->again is worth a look and no more: if its bytes are what
 * the destination holds it is done for this round; if they are what they were
 * at the last such look, its writes change nothing and it travels now; else it
 * waits, and is counted in @batch->redirtied (decision 11).
 *
 * Afterwards parts/nr_parts are the payload of a PAGES frame (none if the
 * destination holds every page already), the table knows the new digests
 * (invariant 3) and count[] says what each stage did in this batch.
 */
void gw_pipeline_encode(struct gw_batch *batch);

/** gw_pipeline_sent() - the batch's frame of @bytes left, and the network took @ns to take it. */
void gw_pipeline_sent(struct gw_batch *batch, size_t bytes, int64_t ns);

/** gw_decoder_init() - one stream's way into @sink, for a VM of @nr_pages. */
void gw_decoder_init(struct gw_decoder *d, struct gw_sink *sink, uint64_t nr_pages);
void gw_decoder_free(struct gw_decoder *d);

/**
 * gw_pipeline_decode() - check and install the payload of a PAGES frame.
 * @chunk: the frame's argument; pages beyond the VM's are refused
 *
 * Return: 0, -EPROTO with what is wrong, or the sink's -errno.
 */
int gw_pipeline_decode(struct gw_decoder *d, uint64_t chunk, const uint8_t *payload, size_t len);

/** gw_stage_name() - of stage @id, in JSON and in lists of stages (wire/feature.h), or NULL. */
const char *gw_stage_name(unsigned int id);

/** gw_stages_read() - a bit per enum gw_stage_id: those whose records this release decodes. */
uint32_t gw_stages_read(void);

/** gw_stages_json() - their names, as they travel; the caller's, NULL: no memory. */
json_t *gw_stages_json(void);

/**
 * gw_stages_limit() - leave out of @options what the destination cannot read.
 * @read: its gw_stages_read()
 *
 * Return: 0, or -EPROTO for a destination that does not even take raw pages.
 */
int gw_stages_limit(struct gw_page_options *options, uint32_t read);

#endif
