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
#include "pipeline.h"

/* Cheapest first; the last claims whatever is left. */
static const struct gw_stage *const stages[] = {
	&gw_stage_zero,
	&gw_stage_raw,
};

#define NR_STAGES (sizeof(stages) / sizeof(stages[0]))

int gw_batch_init(struct gw_batch *batch)
{
	memset(batch, 0, sizeof(*batch));
	batch->bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);
	if (!batch->bytes)
		return gw_fail(-ENOMEM, "no memory for a chunk");
	return 0;
}

void gw_batch_free(struct gw_batch *batch)
{
	free(batch->bytes);
	batch->bytes = NULL;
}

void gw_batch_record(struct gw_batch *batch, const struct gw_stage *stage, unsigned int first,
		     unsigned int count, const void *body, size_t len)
{
	uint8_t *header = batch->headers[batch->nr_records++];

	header[0] = (uint8_t)stage->id;
	header[1] = (uint8_t)first;
	header[2] = (uint8_t)(count - 1);
	header[3] = 0;
	gw_put32(header + 4, (uint32_t)len);
	batch->parts[batch->nr_parts++] = (struct iovec){ header, GW_RECORD_HEADER };
	if (len)
		batch->parts[batch->nr_parts++] = (struct iovec){ (void *)(uintptr_t)body, len };
	batch->count[stage->id].pages += count;
	batch->count[stage->id].bytes += GW_RECORD_HEADER + len;
	for (unsigned int i = first; i < first + count; i++)
		gw_pageset_clear(&batch->left, i);
}

void gw_pipeline_encode(struct gw_batch *batch)
{
	const struct gw_pageset all = batch->left;

	const size_t first = batch->chunk * GW_CHUNK_PAGES;

	batch->held = &batch->digests->table[first];
	batch->nr_parts = 0;
	batch->nr_records = 0;
	memset(batch->count, 0, sizeof(batch->count));
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&all, i))
			batch->digest[i] = gw_digest_page(batch->bytes + i * GW_PAGE_SIZE);
	for (size_t s = 0; s < NR_STAGES && !gw_pageset_empty(&batch->left); s++)
		stages[s]->encode(batch);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&all, i))
			gw_digests_set(batch->digests, first + i, batch->digest[i]);
}

static const struct gw_stage *stage_of(unsigned int id)
{
	for (size_t s = 0; s < NR_STAGES; s++)
		if (stages[s]->id == id)
			return stages[s];
	return NULL;
}

int gw_pipeline_decode(uint64_t chunk, const uint8_t *payload, size_t len, uint64_t nr_pages,
		       struct gw_sink *sink)
{
	struct gw_reader r = { payload, len };
	const uint64_t first_page = chunk * GW_CHUNK_PAGES;

	if (chunk >= (nr_pages + GW_CHUNK_PAGES - 1) / GW_CHUNK_PAGES)
		return gw_fail(-EPROTO, "pages for chunk %llu, beyond the VM's memory",
			       (unsigned long long)chunk);
	while (r.left) {
		const uint8_t *header = gw_take(&r, GW_RECORD_HEADER);
		const struct gw_stage *stage;
		struct gw_record rec;
		int rc;

		if (!header || header[3])
			return gw_fail(-EPROTO, "a record header is cut short or malformed");
		stage = stage_of(header[0]);
		if (!stage)
			return gw_fail(-EPROTO, "a record of unknown stage %u", header[0]);
		rec.page = first_page + header[1];
		rec.count = header[2] + 1U;
		rec.len = gw_get32(header + 4);
		rec.body = gw_take(&r, rec.len);
		if (!rec.body || header[1] + rec.count > GW_CHUNK_PAGES ||
		    rec.page + rec.count > nr_pages)
			return gw_fail(-EPROTO, "a %s record reaches beyond its chunk or frame",
				       stage->name);
		rc = stage->decode(&rec, sink);
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
