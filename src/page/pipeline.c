// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pipeline.c - the one table of stages, both ways.
 *
 * A new technique is a row here and a stage_x.c; nothing else knows the stages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "codec.h"
#include "error.h"
#include "feature.h"
#include "pipeline.h"

/* Cheapest first; the last claims whatever is left. */
static const struct gw_stage *const stages[] = {
	&gw_stage_zero,	 &gw_stage_same,  &gw_stage_teleport, &gw_stage_duplicate,
	&gw_stage_patch, &gw_stage_delta, &gw_stage_compress, &gw_stage_raw,
};

#define NR_STAGES (sizeof(stages) / sizeof(stages[0]))

int gw_compress_parse(const char *name, enum gw_compress *compress)
{
	static const char *const names[] = { [GW_COMPRESS_NONE] = "none",
					     [GW_COMPRESS_AUTO] = "auto",
					     [GW_COMPRESS_LZ4] = "lz4",
					     [GW_COMPRESS_ZSTD] = "zstd" };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], name)) {
			*compress = i;
			return 0;
		}
	}
	return gw_fail(-EINVAL, "no compression '%s'; choose auto, none, lz4 or zstd", name);
}

static bool is_on(const struct gw_encoder *e, const struct gw_stage *stage)
{
	return stage->id == GW_STAGE_RAW || !(e->options.off & 1U << stage->id);
}

int gw_encoder_init(struct gw_encoder *e, const struct gw_page_options *options, size_t nr_pages,
		    int64_t (*now)(void *env), void *env)
{
	int rc;

	memset(e, 0, sizeof(*e));
	e->options = *options;
	e->now = now;
	e->env = env;
	rc = gw_digests_init(&e->held, nr_pages);
	e->seen = mmap(NULL, (nr_pages + 1) * sizeof(*e->seen), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (e->seen == MAP_FAILED) {
		e->seen = NULL;
		return gw_fail(-ENOMEM, "no memory to look at %zu pages", nr_pages);
	}
	for (size_t s = 0; !rc && s < NR_STAGES; s++)
		if (stages[s]->open && is_on(e, stages[s]))
			rc = stages[s]->open(e);
	return rc;
}

/* Of a chunk's pages, where nobody knows. */
static const struct gw_digest unknown[GW_CHUNK_PAGES] = {
	[0 ... GW_CHUNK_PAGES - 1] = { ~0ULL, ~0ULL },
};

int gw_encoder_bare(struct gw_encoder *e, const struct gw_page_options *options,
		    int64_t (*now)(void *env), void *env)
{
	int rc = 0;

	memset(e, 0, sizeof(*e));
	e->options = *options;
	e->options.off |= GW_STAGES_REFERRING;
	e->now = now;
	e->env = env;
	e->paging = true;
	for (size_t s = 0; !rc && s < NR_STAGES; s++)
		if (stages[s]->open && is_on(e, stages[s]))
			rc = stages[s]->open(e);
	return rc;
}

int gw_encoder_beside(struct gw_encoder *e, const struct gw_encoder *of,
		      const struct gw_page_options *options)
{
	int rc = 0;

	memset(e, 0, sizeof(*e));
	e->options = *options;
	e->options.off |= GW_STAGES_REFERRING & ~(1U << GW_STAGE_SAME);
	e->now = of->now;
	e->env = of->env;
	e->held = of->held;
	e->seen = of->seen;
	e->beside = true;
	for (size_t s = 0; !rc && s < NR_STAGES; s++)
		if (stages[s]->open && is_on(e, stages[s]))
			rc = stages[s]->open(e);
	return rc;
}

void gw_encoder_free(struct gw_encoder *e)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->close)
			stages[s]->close(e);
	if (e->beside) {
		memset(&e->held, 0, sizeof(e->held));
		e->seen = NULL;
	}
	if (e->seen)
		munmap(e->seen, (e->held.nr_pages + 1) * sizeof(*e->seen));
	e->seen = NULL;
	gw_digests_free(&e->held);
	gw_bitmap_free(&e->may_hold);
	gw_bitmap_free(&e->told);
	e->kept = NULL;
}

int gw_encoder_kept(struct gw_encoder *e, const struct gw_digest *digests)
{
	int rc = gw_bitmap_init(&e->may_hold, e->held.nr_pages);

	if (!rc)
		rc = gw_bitmap_init(&e->told, e->held.nr_pages);
	if (!rc)
		e->kept = digests;
	return rc;
}

bool gw_encoder_refused(struct gw_encoder *e, size_t page)
{
	if (!e->kept || page >= e->told.bits)
		return false;
	gw_bitmap_take(&e->may_hold, page);
	return gw_bitmap_take(&e->told, page);
}

void gw_encoder_round(struct gw_encoder *e, const struct gw_bitmap *due)
{
	e->round++;
	e->due = due;
}

void gw_encoder_certain(struct gw_encoder *e)
{
	if (e->hints)
		gw_bitmap_zero(&e->unsure);
	e->hints = NULL;
}

bool gw_encoder_lacks(struct gw_encoder *e, size_t page)
{
	if (page >= e->unsure.bits || !gw_bitmap_take(&e->unsure, page))
		return false;
	gw_digests_set(&e->held, page, GW_DIGEST_UNKNOWN);
	return true;
}

void gw_encoder_paging(struct gw_encoder *e, const struct gw_bitmap *due)
{
	gw_encoder_round(e, due);
	e->paging = true;
	e->options.off |= 1U << GW_STAGE_DUPLICATE;
}

bool gw_encoder_unchanged(const struct gw_encoder *e, size_t page, const void *bytes)
{
	return gw_digest_equal(gw_hash_page(e->options.hash, e->options.key, bytes),
			       e->held.table[page]);
}

int gw_batch_init(struct gw_batch *batch, struct gw_encoder *e, unsigned int stream)
{
	int rc = 0;

	memset(batch, 0, sizeof(*batch));
	batch->encoder = e;
	batch->stream = stream;
	batch->bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);
	if (!batch->bytes)
		return gw_fail(-ENOMEM, "no memory for a chunk");
	for (size_t s = 0; !rc && s < NR_STAGES; s++)
		if (stages[s]->open_batch && is_on(e, stages[s]))
			rc = stages[s]->open_batch(batch);
	return rc;
}

void gw_batch_free(struct gw_batch *batch)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->close_batch)
			stages[s]->close_batch(batch);
	free(batch->bytes);
	batch->bytes = NULL;
}

unsigned int gw_batch_leave(struct gw_batch *batch, const struct gw_pageset *pages)
{
	for (size_t i = 0; i < GW_CHUNK_PAGES / 64; i++)
		batch->left.words[i] &= ~pages->words[i];
	return gw_pageset_count(pages);
}

void gw_batch_skip(struct gw_batch *batch, const struct gw_stage *stage,
		   const struct gw_pageset *pages)
{
	batch->count[stage->id].pages += gw_batch_leave(batch, pages);
}

void gw_batch_record(struct gw_batch *batch, const struct gw_stage *stage, uint8_t flags,
		     const struct gw_pageset *pages, const void *body, size_t len)
{
	uint8_t *header = batch->headers[batch->nr_records++];
	unsigned int first = 0, last = GW_CHUNK_PAGES - 1;

	while (!gw_pageset_test(pages, first))
		first++;
	while (!gw_pageset_test(pages, last))
		last--;
	header[0] = (uint8_t)stage->id;
	header[1] = (uint8_t)first;
	header[2] = (uint8_t)(last - first);
	header[3] = flags;
	gw_put32(header + 4, (uint32_t)len);
	batch->parts[batch->nr_parts++] = (struct iovec){ header, GW_RECORD_HEADER };
	if (len)
		batch->parts[batch->nr_parts++] = (struct iovec){ (void *)(uintptr_t)body, len };
	batch->count[stage->id].bytes += GW_RECORD_HEADER + len;
	gw_batch_skip(batch, stage, pages);
}

/* Of a page that is written again and again: whether it really changes. */
static bool changes(struct gw_batch *batch, unsigned int i)
{
	uint32_t *seen = &batch->encoder->seen[batch->chunk * GW_CHUNK_PAGES + i];
	const struct gw_digest digest = batch->digest[i];
	const uint32_t now = (uint32_t)digest.low | 1; /* 0: never looked at */

	if (gw_digest_equal(digest, batch->held[i]) || *seen == now)
		return false;
	*seen = now;
	return true;
}

static void leave_what_changes(struct gw_batch *batch)
{
	batch->redirtied = 0;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&batch->again, i) || !gw_pageset_test(&batch->left, i) ||
		    !changes(batch, i))
			continue;
		gw_pageset_clear(&batch->left, i);
		batch->redirtied++;
	}
}

static struct gw_digest digest_of(const struct gw_encoder *e, const void *page)
{
	static const struct gw_digest zero = { 0, 0 };

	if (e->held.table)
		return gw_hash_page(e->options.hash, e->options.key, page);
	return gw_page_is_zero(page) ? zero : unknown[0];
}

/* From here on others may take a page of this batch for one that the destination lacks. */
static void let_doubt(struct gw_batch *batch)
{
	struct gw_encoder *e = batch->encoder;
	const size_t first = batch->chunk * GW_CHUNK_PAGES;

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (gw_pageset_test(&batch->doubted.told, i))
			gw_bitmap_put(&e->told, first + i);
		if (gw_pageset_test(&batch->doubted.unsure, i))
			gw_bitmap_put(&e->unsure, first + i);
	}
}

void gw_pipeline_encode(struct gw_batch *batch)
{
	struct gw_encoder *e = batch->encoder;
	const size_t first = batch->chunk * GW_CHUNK_PAGES;
	struct gw_pageset all;

	batch->held = e->held.table ? &e->held.table[first] : unknown;
	batch->nr_parts = 0;
	batch->nr_records = 0;
	batch->reused = 0;
	memset(batch->count, 0, sizeof(batch->count));
	memset(&batch->doubted, 0, sizeof(batch->doubted));
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&batch->left, i))
			batch->digest[i] = digest_of(e, batch->bytes + i * GW_PAGE_SIZE);
	leave_what_changes(batch);
	all = batch->left;
	for (size_t s = 0; s < NR_STAGES && !gw_pageset_empty(&batch->left); s++)
		if (is_on(e, stages[s]) && !(batch->off >> stages[s]->id & 1))
			stages[s]->encode(batch);
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->finish && is_on(e, stages[s]))
			stages[s]->finish(batch);
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->remember && is_on(e, stages[s]))
			stages[s]->remember(batch, &all);
	for (unsigned int i = 0; e->held.table && i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&all, i))
			gw_digests_set(&e->held, first + i, batch->digest[i]);
	if (e->paging)
		let_doubt(batch);
}

void gw_pipeline_sent(struct gw_batch *batch, size_t bytes, int64_t ns)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->sent && is_on(batch->encoder, stages[s]))
			stages[s]->sent(batch, bytes, ns);
}

static const struct gw_stage *stage_of(unsigned int id)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->id == id)
			return stages[s];
	return NULL;
}

void gw_decoder_init(struct gw_decoder *d, struct gw_sink *sink, uint64_t nr_pages)
{
	memset(d, 0, sizeof(*d));
	d->sink = sink;
	d->nr_pages = nr_pages;
}

void gw_decoder_free(struct gw_decoder *d)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->close_decoder)
			stages[s]->close_decoder(d);
}

int gw_pipeline_decode(struct gw_decoder *d, uint64_t chunk, const uint8_t *payload, size_t len)
{
	struct gw_reader r = { payload, len };
	const uint64_t first_page = chunk * GW_CHUNK_PAGES;

	if (chunk >= (d->nr_pages + GW_CHUNK_PAGES - 1) / GW_CHUNK_PAGES)
		return gw_fail(-EPROTO, "pages for chunk %llu, beyond the VM's memory",
			       (unsigned long long)chunk);
	while (r.left) {
		const uint8_t *header = gw_take(&r, GW_RECORD_HEADER);
		const struct gw_stage *stage;
		struct gw_record rec;
		int rc;

		if (!header)
			return gw_fail(-EPROTO, "a record header is cut short");
		stage = stage_of(header[0]);
		if (!stage)
			return gw_fail(-EPROTO, "a record of unknown stage %u", header[0]);
		rec.page = first_page + header[1];
		rec.count = header[2] + 1U;
		rec.flags = header[3];
		rec.len = gw_get32(header + 4);
		rec.body = gw_take(&r, rec.len);
		if (!rec.body || header[1] + rec.count > GW_CHUNK_PAGES ||
		    rec.page + rec.count > d->nr_pages)
			return gw_fail(-EPROTO, "a %s record reaches beyond its chunk or frame",
				       stage->name);
		rc = stage->decode(&rec, d);
		if (rc)
			return rc;
	}
	return 0;
}

const char *gw_stage_name(unsigned int id)
{
	const struct gw_stage *stage = stage_of(id);

	return stage ? stage->name : NULL;
}

/* `same` has no record, so nobody needs to read it. */
uint32_t gw_stages_read(void)
{
	uint32_t all = 0;

	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->id != GW_STAGE_SAME)
			all |= 1U << stages[s]->id;
	return all;
}

json_t *gw_stages_json(void)
{
	return gw_names_json(gw_stages_read(), GW_STAGE_MAX, gw_stage_name);
}

int gw_stages_limit(struct gw_page_options *options, uint32_t read)
{
	if (!(read & 1U << GW_STAGE_RAW))
		return gw_fail(-EPROTO, "destination: takes no raw pages");
	options->off |= gw_stages_read() & ~read;
	return 0;
}
