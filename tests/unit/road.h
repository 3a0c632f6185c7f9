/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * road.h - chunks through the pipeline into a destination that checks what it
 * is told and holds it in memory. For the tests of the pipeline and its stages.
 */
#ifndef GW_TEST_ROAD_H
#define GW_TEST_ROAD_H

#include "unit.h"

#include "cleanup.h"
#include "codec.h"
#include "messages.h"
#include "pipeline.h"
#include "rng.h"

#define CHUNKS 3UL
#define PAGES  (CHUNKS * GW_CHUNK_PAGES)

/* A destination that checks what it is told, and holds it in memory. */
struct shadow {
	struct gw_sink sink;
	uint8_t *bytes;
	unsigned int calls, placed, zeroed, read;
	int rc; /* what the sink answers */
};

struct road {
	struct gw_encoder encoder;
	struct gw_decoder decoder;
	struct gw_batch batch;
	struct gw_bitmap due;
	struct shadow shadow;
	uint8_t *source; /* all chunks */
	uint8_t *payload;
	size_t len;
	struct gw_key key;
	int64_t now; /* the encoder's clock, in ns: moves only when a test moves it */
};

static int shadow_place(struct gw_sink *sink, uint64_t page, unsigned int count,
			const uint8_t *bytes)
{
	struct shadow *s = (struct shadow *)sink;

	assert_true(count >= 1 && count <= GW_CHUNK_PAGES && page + count <= PAGES);
	assert_int_equal(page / GW_CHUNK_PAGES, (page + count - 1) / GW_CHUNK_PAGES);
	s->calls++;
	s->placed += count;
	memcpy(s->bytes + page * GW_PAGE_SIZE, bytes, count * GW_PAGE_SIZE);
	return s->rc;
}

static int shadow_zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	struct shadow *s = (struct shadow *)sink;

	assert_true(count >= 1 && count <= GW_CHUNK_PAGES && page + count <= PAGES);
	s->calls++;
	s->zeroed += count;
	memset(s->bytes + page * GW_PAGE_SIZE, 0, count * GW_PAGE_SIZE);
	return s->rc;
}

static int shadow_read(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	struct shadow *s = (struct shadow *)sink;

	assert_true(count >= 1 && count <= GW_CHUNK_PAGES && page + count <= PAGES);
	assert_int_equal(page / GW_CHUNK_PAGES, (page + count - 1) / GW_CHUNK_PAGES);
	s->read += count;
	memcpy(bytes, s->bytes + page * GW_PAGE_SIZE, count * GW_PAGE_SIZE);
	return s->rc;
}

static int64_t road_now(void *env)
{
	return ((struct road *)env)->now;
}

/* A road with @options; leave_road() either way. In the first round, all pages due. */
static inline struct road *make_road(const struct gw_page_options *options)
{
	struct road *r = calloc(1, sizeof(*r));

	struct gw_page_options keyed = *options;

	assert_non_null(r);
	assert_int_equal(gw_key_init(&r->key, (const uint8_t *)"thirty-two bytes of a secret ..."),
			 0);
	keyed.key = &r->key;
	assert_int_equal(gw_encoder_init(&r->encoder, &keyed, PAGES, road_now, r), 0);
	assert_int_equal(gw_batch_init(&r->batch, &r->encoder, 0), 0);
	assert_int_equal(gw_bitmap_init(&r->due, PAGES), 0);
	for (size_t i = 0; i < PAGES; i++)
		gw_bitmap_set(&r->due, i);
	gw_encoder_round(&r->encoder, &r->due);
	r->shadow.sink =
		(struct gw_sink){ .place = shadow_place, .zero = shadow_zero, .read = shadow_read };
	gw_decoder_init(&r->decoder, &r->shadow.sink, PAGES);
	r->shadow.bytes = calloc(PAGES, GW_PAGE_SIZE);
	r->source = calloc(PAGES, GW_PAGE_SIZE);
	r->payload = malloc((size_t)gw_message_max(GW_MSG_PAGES));
	assert_true(r->shadow.bytes && r->source && r->payload);
	return r;
}

static inline void leave_road(struct road *r)
{
	gw_batch_free(&r->batch);
	gw_encoder_free(&r->encoder);
	gw_decoder_free(&r->decoder);
	gw_bitmap_free(&r->due);
	free(r->shadow.bytes);
	free(r->source);
	free(r->payload);
	free(r);
}

/* The next round, in which the pages of @chunk in @due are due and no other. */
static inline void next_round(struct road *r, uint64_t chunk, const struct gw_pageset *due)
{
	gw_bitmap_zero(&r->due);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(due, i))
			gw_bitmap_set(&r->due, chunk * GW_CHUNK_PAGES + i);
	gw_encoder_round(&r->encoder, &r->due);
}

static inline void copy_chunk(struct road *r, uint64_t chunk)
{
	memcpy(r->batch.bytes, r->source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
}

/* Encode the pages in @due from the batch's copy; the payload stays in @r. */
static inline void encode(struct road *r, uint64_t chunk, const struct gw_pageset *due)
{
	uint64_t pages = 0, bytes = 0;

	r->batch.chunk = chunk;
	r->batch.left = *due;
	gw_pipeline_encode(&r->batch);
	assert_true(gw_pageset_empty(&r->batch.left));
	assert_true(r->batch.nr_parts <= (int)GW_BATCH_PARTS);
	r->len = 0;
	for (int i = 0; i < r->batch.nr_parts; i++) {
		assert_true(r->len + r->batch.parts[i].iov_len <=
			    (size_t)gw_message_max(GW_MSG_PAGES));
		memcpy(r->payload + r->len, r->batch.parts[i].iov_base, r->batch.parts[i].iov_len);
		r->len += r->batch.parts[i].iov_len;
	}
	for (unsigned int s = 0; s < GW_STAGE_MAX; s++) {
		pages += r->batch.count[s].pages;
		bytes += r->batch.count[s].bytes;
	}
	assert_int_equal(pages + r->batch.redirtied, gw_pageset_count(due));
	assert_int_equal(bytes, r->len);
}

static inline int decode(struct road *r, uint64_t chunk)
{
	return gw_pipeline_decode(&r->decoder, chunk, r->payload, r->len);
}

/* In the round that is: the pages of @chunk in @due travel and arrive. */
static inline void send_chunk(struct road *r, uint64_t chunk, const struct gw_pageset *due)
{
	copy_chunk(r, chunk);
	encode(r, chunk, due);
	assert_int_equal(decode(r, chunk), 0);
}

/* In a round of their own. */
static inline void send_round(struct road *r, uint64_t chunk, const struct gw_pageset *due)
{
	next_round(r, chunk, due);
	send_chunk(r, chunk, due);
}

/* Invariant 3: the table says what the destination holds, and `filled` what is not zero. */
static inline void assert_table(const struct road *r)
{
	const struct gw_digests *held = &r->encoder.held;

	for (size_t page = 0; page < PAGES; page++) {
		const uint8_t *bytes = r->shadow.bytes + page * GW_PAGE_SIZE;

		assert_true(gw_encoder_unchanged(&r->encoder, page, bytes));
		assert_int_equal(gw_bitmap_test(&held->filled, page),
				 !gw_digest_is_zero(held->table[page]));
		assert_int_equal(gw_page_is_zero(bytes), gw_digest_is_zero(held->table[page]));
	}
}

static inline struct gw_pageset all_pages(void)
{
	return (struct gw_pageset){ { ~0ULL, ~0ULL, ~0ULL, ~0ULL } };
}

/* One record into a payload, with a body of 0x5a. Return: its length. */
static inline size_t put_record(uint8_t *at, unsigned int stage, unsigned int first,
				unsigned int count, uint32_t len)
{
	at[0] = (uint8_t)stage;
	at[1] = (uint8_t)first;
	at[2] = (uint8_t)(count - 1);
	at[3] = 0;
	gw_put32(at + 4, len);
	memset(at + GW_RECORD_HEADER, 0x5a, len <= GW_CHUNK_SIZE ? len : 0);
	return GW_RECORD_HEADER + (len <= GW_CHUNK_SIZE ? len : 0);
}

#endif
