// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_pipeline.c - payloads of PAGES frames into gw_pipeline_decode().
 *
 * The first bytes choose the chunk and the VM's size; the sink aborts when a
 * record reaches beyond that memory. Whatever it is handed is read, so that
 * ASan sees bytes that are nobody's.
 *
 * With GW_FUZZ_STAGE all records are of that stage, whatever they say: a target
 * per stage_x.c, which smoke builds of this same file.
 */
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "fuzz.h"
#include "pipeline.h"

struct checked {
	struct gw_sink sink;
	uint64_t chunk, nr_pages;
	size_t len;
};

static volatile uint8_t seen;

static void check(const struct checked *c, uint64_t page, unsigned int count)
{
	if (!count || page < c->chunk * GW_CHUNK_PAGES ||
	    page + count > (c->chunk + 1) * GW_CHUNK_PAGES || page + count > c->nr_pages)
		abort();
}

static int place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	struct checked *c = (struct checked *)sink;

	check(c, page, count);
	for (size_t i = 0; i < count * GW_PAGE_SIZE; i += 64)
		seen ^= bytes[i];
	return 0;
}

static int zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	check((struct checked *)sink, page, count);
	return 0;
}

static int read(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	const struct checked *c = (const struct checked *)sink;

	if (!count || page >= c->nr_pages || count > c->nr_pages - page ||
	    page % GW_CHUNK_PAGES + count > GW_CHUNK_PAGES)
		abort();
	memset(bytes, (int)page, count * GW_PAGE_SIZE);
	return 0;
}

static int fetch(struct gw_sink *sink, uint64_t page, unsigned int count, struct gw_hint at,
		 const uint8_t *digests)
{
	check((struct checked *)sink, page, count);
	if (at.sector >= GW_HINT_SECTORS)
		abort();
	for (size_t i = 0; i < count * GW_DIGEST_LEN; i++)
		seen ^= digests[i];
	return 0;
}

#ifdef GW_FUZZ_STAGE
static void set_stage(uint8_t *payload, size_t len)
{
	struct gw_reader r = { payload, len };
	const uint8_t *header;

	while ((header = gw_take(&r, GW_RECORD_HEADER))) {
		payload[header - payload] = GW_FUZZ_STAGE;
		if (!gw_take(&r, gw_get32(header + 4)))
			break;
	}
}
#else
static void set_stage(uint8_t *payload, size_t len)
{
	(void)payload;
	(void)len;
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct checked c = { .sink = {
				     .place = place, .zero = zero, .read = read, .fetch = fetch } };
	struct gw_decoder d;
	uint8_t *payload;

	if (size < 12)
		return 0;
	c.chunk = gw_get64(data) % 5; /* mostly inside, sometimes beyond */
	c.nr_pages = gw_get32(data + 8) % (4 * GW_CHUNK_PAGES) + 1;
	c.len = size - 12;
	payload = malloc(c.len + 1); /* of its own, so that ASan sees its end */
	if (!payload)
		return 0;
	memcpy(payload, data + 12, c.len);
	set_stage(payload, c.len);
	gw_decoder_init(&d, &c.sink, c.nr_pages);
	if (gw_pipeline_decode(&d, c.chunk, payload, c.len) > 0)
		abort();
	gw_decoder_free(&d);
	free(payload);
	return 0;
}
