// SPDX-License-Identifier: GPL-2.0-or-later
/* test_pipeline.c - chunks through the stages and back, and every record that cannot be. */
#include "road.h"

#include <errno.h>

static int make(void **state)
{
	*state = make_road(&(struct gw_page_options){ 0 });
	return 0;
}

static int drop(void **state)
{
	leave_road(*state);
	return 0;
}

static void zeros_digest_to_zero(void **state)
{
	gw_autofree uint8_t *page = aligned_alloc(GW_PAGE_SIZE, GW_PAGE_SIZE);

	(void)state;
	memset(page, 0, GW_PAGE_SIZE);
	assert_true(gw_page_is_zero(page));
	assert_true(gw_digest_is_zero(gw_digest_page(page)));
	for (size_t i = 0; i < GW_PAGE_SIZE; i++) {
		page[i] = 1;
		assert_false(gw_page_is_zero(page));
		assert_false(gw_digest_is_zero(gw_digest_page(page)));
		page[i] = 0;
	}
}

/* A hole is as good as zeros, and what lies beyond the file's end too. */
static void chunk_digests(void **state)
{
	struct road *r = *state;
	struct gw_digest hole = gw_digest_chunk(NULL, 0);

	assert_true(gw_digest_equal(hole, gw_digest_chunk(r->source, GW_CHUNK_PAGES)));
	assert_true(gw_digest_equal(hole, gw_digest_chunk(r->source, 1)));
	r->source[5 * GW_PAGE_SIZE] = 1;
	assert_false(gw_digest_equal(hole, gw_digest_chunk(r->source, GW_CHUNK_PAGES)));
	assert_true(gw_digest_equal(gw_digest_chunk(r->source, 6),
				    gw_digest_chunk(r->source, GW_CHUNK_PAGES)));
	assert_true(gw_digest_equal(hole, gw_digest_chunk(r->source, 5)));
}

static void fresh_zeros_need_nothing(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();

	send_chunk(r, 1, &all);
	assert_int_equal(r->len, 0);
	assert_int_equal(r->batch.nr_parts, 0);
	assert_int_equal(r->batch.count[GW_STAGE_ZERO].pages, GW_CHUNK_PAGES);
	assert_int_equal(r->shadow.calls, 0);
	assert_table(r);
}

static void zeros_after_content_need_a_record(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();

	for (size_t i = 10; i < 20; i++)
		r->source[(GW_CHUNK_PAGES + i) * GW_PAGE_SIZE + 7] = 1;
	send_chunk(r, 1, &all);
	assert_int_equal(r->shadow.placed, 10);
	memset(r->source, 0, PAGES * GW_PAGE_SIZE);
	send_round(r, 1, &all);
	assert_int_equal(r->len, GW_RECORD_HEADER);
	assert_int_equal(r->shadow.zeroed, 10);
	assert_memory_equal(r->shadow.bytes, r->source, PAGES * GW_PAGE_SIZE);
	assert_table(r);
	send_round(r, 1, &all);
	assert_int_equal(r->len, 0);
}

/* The largest payload in one record, and the largest number of records. */
static void extremes_fit(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();
	struct rng rng = { 4 };

	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	send_chunk(r, 0, &all);
	assert_int_equal(r->len, GW_RECORD_HEADER + GW_CHUNK_SIZE);
	assert_int_equal(r->shadow.calls, 1);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i += 2)
		memset(r->source + i * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
	for (size_t i = 1; i < GW_CHUNK_PAGES; i += 2)
		rng_fill(&rng, r->source + i * GW_PAGE_SIZE, GW_PAGE_SIZE);
	r->shadow.calls = 0;
	send_round(r, 0, &all);
	assert_int_equal(r->shadow.calls, GW_CHUNK_PAGES);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
	assert_table(r);
}

/* Pages that are not due keep what the destination holds, whatever the copy says. */
static void random_rounds(void **state)
{
	struct road *r = *state;
	gw_autofree uint8_t *expected = calloc(PAGES, GW_PAGE_SIZE);
	struct rng rng = { 5 };

	for (int round = 0; round < 60; round++) {
		uint64_t chunk = rng_below(&rng, CHUNKS);
		struct gw_pageset due = { 0 };

		for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
			size_t at = (chunk * GW_CHUNK_PAGES + i) * GW_PAGE_SIZE;

			if (rng_one_in(&rng, 3))
				rng_fill(&rng, r->source + at, GW_PAGE_SIZE);
			else if (rng_one_in(&rng, 2))
				memset(r->source + at, 0, GW_PAGE_SIZE);
			if (rng_one_in(&rng, 2)) {
				gw_pageset_set(&due, i);
				memcpy(expected + at, r->source + at, GW_PAGE_SIZE);
			}
		}
		send_round(r, chunk, &due);
		assert_memory_equal(r->shadow.bytes, expected, PAGES * GW_PAGE_SIZE);
		assert_table(r);
	}
	assert_true(r->shadow.placed && r->shadow.zeroed);
}

/* Invariant 3: the guest writes on after the copy; the table must follow the copy. */
static void table_follows_what_travelled(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();
	struct rng rng = { 6 };

	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	copy_chunk(r, 0);
	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	encode(r, 0, &all);
	assert_int_equal(decode(r, 0), 0);
	assert_table(r);
	assert_memory_not_equal(r->shadow.bytes, r->source, GW_PAGE_SIZE);
	assert_false(gw_digest_equal(r->encoder.held.table[0], gw_key_page(&r->key, r->source)));
}

static void records_that_cannot_be(void **state)
{
	static const struct {
		const char *what;
		unsigned int stage, first, count;
		uint32_t len;
	} bad[] = {
		{ "stage 0", 0, 0, 1, 0 },
		{ "unknown stage", 3, 0, 1, 0 },
		{ "a page that is the same", GW_STAGE_SAME, 0, 1, 0 },
		{ "stage beyond the table", GW_STAGE_MAX, 0, 1, 0 },
		{ "stage 255", 255, 0, 1, 0 },
		{ "raw without body", GW_STAGE_RAW, 0, 1, 0 },
		{ "raw too short", GW_STAGE_RAW, 0, 2, GW_PAGE_SIZE },
		{ "raw one byte short", GW_STAGE_RAW, 0, 1, GW_PAGE_SIZE - 1 },
		{ "raw one byte long", GW_STAGE_RAW, 0, 1, GW_PAGE_SIZE + 1 },
		{ "raw beyond its chunk", GW_STAGE_RAW, 255, 2, 2 * GW_PAGE_SIZE },
		{ "raw longer than the frame", GW_STAGE_RAW, 0, 1, UINT32_MAX },
		{ "zero with a body", GW_STAGE_ZERO, 0, 1, 1 },
		{ "zero beyond its chunk", GW_STAGE_ZERO, 1, 256, 0 },
		{ "zero longer than the frame", GW_STAGE_ZERO, 0, 1, UINT32_MAX },
	};
	struct road *r = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		r->len = put_record(r->payload, bad[i].stage, bad[i].first, bad[i].count,
				    bad[i].len);
		if (decode(r, 1) != -EPROTO)
			fail_msg("accepted: %s", bad[i].what);
		assert_int_equal(r->shadow.calls, 0);
	}
}

static void good_record_is_the_yardstick(void **state)
{
	struct road *r = *state;
	size_t len = put_record(r->payload, GW_STAGE_RAW, 3, 2, 2 * GW_PAGE_SIZE);

	r->len = len + put_record(r->payload + len, GW_STAGE_ZERO, 255, 1, 0);
	assert_int_equal(decode(r, 2), 0);
	assert_int_equal(r->shadow.calls, 2);
	/* Cut anywhere, it is refused, but for the place between its records. */
	for (size_t cut = 1; cut < r->len; cut++) {
		int rc = gw_pipeline_decode(&r->decoder, 2, r->payload, cut);

		assert_int_equal(rc, cut == len ? 0 : -EPROTO);
	}
	r->payload[3] = 1;
	assert_int_equal(decode(r, 2), -EPROTO);
	r->payload[3] = 0;
	/* The sink's failure is the answer. */
	r->shadow.rc = -ENOSPC;
	r->shadow.calls = 0;
	assert_int_equal(decode(r, 2), -ENOSPC);
	assert_int_equal(r->shadow.calls, 1);
}

static void beyond_the_memory(void **state)
{
	static const uint64_t chunks[] = { CHUNKS, CHUNKS + 1, UINT64_MAX, UINT64_MAX / 256 + 1 };
	struct road *r = *state;

	r->len = put_record(r->payload, GW_STAGE_ZERO, 0, 1, 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(chunks); i++)
		assert_int_equal(decode(r, chunks[i]), -EPROTO);
	/* A last chunk that is not full. */
	r->decoder.nr_pages = PAGES - 255;
	assert_int_equal(decode(r, 2), 0);
	put_record(r->payload, GW_STAGE_ZERO, 0, 2, 0);
	assert_int_equal(decode(r, 2), -EPROTO);
	r->decoder.nr_pages = 0;
	assert_int_equal(decode(r, 0), -EPROTO);
	assert_int_equal(r->shadow.calls, 1);
}

static void nothing_changed_costs_nothing(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();
	struct rng rng = { 7 };

	rng_fill(&rng, r->source, 100 * GW_PAGE_SIZE);
	send_chunk(r, 0, &all);
	for (int i = 0; i < 3; i++) {
		send_round(r, 0, &all);
		assert_int_equal(r->batch.nr_parts, 0);
		assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, GW_CHUNK_PAGES);
	}
	/* One byte in one page: that page travels, the others do not. */
	r->source[17 * GW_PAGE_SIZE + 4095] ^= 1;
	send_round(r, 0, &all);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, GW_CHUNK_PAGES - 1);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
	assert_table(r);
}

/*
 * Written again just before its turn: a page that changes waits, one whose
 * writes change nothing travels once, and costs nothing from then on.
 */
static void written_again(void **state)
{
	struct road *r = *state;
	const struct gw_pageset both = gw_pageset_of(8, 2), none = { { 0 } };
	struct rng rng = { 9 };

	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	r->batch.again = both;
	send_chunk(r, 0, &both);
	assert_int_equal(r->batch.redirtied, 2);
	assert_int_equal(r->len, 0);
	for (int round = 0; round < 3; round++) {
		r->source[8 * GW_PAGE_SIZE]++;
		r->batch.again = both;
		send_round(r, 0, &both);
		assert_int_equal(r->batch.redirtied, 1);
		assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, round == 0);
		assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, round > 0);
	}
	/* The guest stands still: what waited travels. */
	r->batch.again = none;
	send_round(r, 0, &both);
	assert_int_equal(r->batch.redirtied, 0);
	assert_memory_equal(r->shadow.bytes + 8 * GW_PAGE_SIZE, r->source + 8 * GW_PAGE_SIZE,
			    2 * GW_PAGE_SIZE);
	assert_table(r);
}

/* Each of these can be left out, and all still arrives. */
static void without_zero_and_same(void **state)
{
	const uint32_t offs[] = { 1U << GW_STAGE_ZERO, 1U << GW_STAGE_SAME,
				  1U << GW_STAGE_ZERO | 1U << GW_STAGE_SAME };
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(offs); k++) {
		struct road *r = make_road(&(struct gw_page_options){ .off = offs[k] });
		struct rng rng = { 8 };

		for (int round = 0; round < 4; round++) {
			rng_fill(&rng, r->source + (size_t)round * GW_PAGE_SIZE, GW_PAGE_SIZE);
			memset(r->source + (size_t)(round + 5) * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
			send_round(r, 0, &all);
			assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
			assert_table(r);
			for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
				assert_true(!(offs[k] & 1U << id) || !r->batch.count[id].pages);
		}
		leave_road(r);
	}
}

static struct {
	unsigned int right, wrong;
} checked;

static int check_digests(struct gw_sink *sink, uint64_t page, unsigned int count,
			 const uint8_t *digests)
{
	struct road *r = (struct road *)((char *)sink - offsetof(struct road, shadow.sink));

	for (unsigned int i = 0; i < count; i++) {
		const struct gw_digest must = { gw_get64(digests + 16UL * i),
						gw_get64(digests + 16UL * i + 8) };
		const bool right = gw_digest_equal(
			must, gw_key_page(&r->key, r->shadow.bytes + (page + i) * GW_PAGE_SIZE));

		*(right ? &checked.right : &checked.wrong) += 1;
	}
	return 0;
}

/* Where nobody has compared what is held, a page is told by its digest, and then by its bytes. */
static void unchecked_pages_are_told_by_digest(void **state)
{
	struct road *r = *state;
	gw_autofree struct gw_digest *kept = calloc(PAGES, sizeof(*kept));
	const struct gw_pageset some = gw_pageset_of(3, 4);
	struct rng rng = { 12 };

	checked.right = checked.wrong = 0;
	assert_non_null(kept);
	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	memcpy(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
	for (size_t i = 0; i < 6; i++) /* not page 6 */
		kept[i] = gw_key_page(&r->key, r->source + i * GW_PAGE_SIZE);
	assert_int_equal(gw_encoder_kept(&r->encoder, kept), 0);
	gw_bitmap_set_range(&r->encoder.may_hold, 3, 4);
	for (size_t i = 3; i < 7; i++)
		gw_encoder_reuse(&r->encoder, i, GW_DIGEST_UNKNOWN);
	gw_encoder_paging(&r->encoder, &r->due);
	r->shadow.bytes[4 * GW_PAGE_SIZE + 100] ^= 1;
	r->shadow.sink.check = check_digests;
	copy_chunk(r, 0);
	r->batch.chunk = 0;
	r->batch.left = some;
	gw_pipeline_encode(&r->batch);
	assert_int_equal(r->batch.reused, 3);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, 0);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].bytes, GW_RECORD_HEADER + 3 * 16);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	r->len = 0;
	for (int i = 0; i < r->batch.nr_parts; i++) {
		memcpy(r->payload + r->len, r->batch.parts[i].iov_base, r->batch.parts[i].iov_len);
		r->len += r->batch.parts[i].iov_len;
	}
	assert_int_equal(decode(r, 0), 0);
	assert_true(checked.right == 2 && checked.wrong == 1);
	/* Refused, it is told by its bytes; and once. */
	assert_false(gw_encoder_refused(&r->encoder, 6));
	gw_bitmap_set(&r->encoder.may_hold, 5);
	assert_true(gw_encoder_refused(&r->encoder, 5));
	assert_false(gw_bitmap_test(&r->encoder.may_hold, 5));
	assert_true(gw_encoder_refused(&r->encoder, 4));
	assert_false(gw_encoder_refused(&r->encoder, 4));
	assert_false(gw_encoder_refused(&r->encoder, PAGES + 64));
	gw_encoder_reuse(&r->encoder, 4, GW_DIGEST_UNKNOWN);
	send_chunk(r, 0, &(struct gw_pageset){ { 1U << 4 } });
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
	assert_true(checked.right == 2 && checked.wrong == 1);
	/* A digest too few, and one where nobody can look. */
	r->len = put_record(r->payload, GW_STAGE_SAME, 0, 2, 16);
	r->payload[3] = 1;
	assert_int_equal(decode(r, 0), -EPROTO);
	r->shadow.sink.check = NULL;
	r->len = put_record(r->payload, GW_STAGE_SAME, 0, 2, 32);
	r->payload[3] = 1;
	assert_int_equal(decode(r, 0), -EPROTO);
}

/* What the destination cannot read is never sent: every record is of a stage that it listed. */
static void only_what_can_be_read(void **state)
{
	const uint32_t all = gw_stages_read(), raw = 1U << GW_STAGE_RAW;
	const uint32_t reads[] = { raw, raw | 1U << GW_STAGE_ZERO, raw | 1U << GW_STAGE_DELTA,
				   all };
	struct gw_pageset pages = all_pages();

	(void)state;
	assert_true(all & raw && !(all & 1U << GW_STAGE_SAME));
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
		assert_true(!(all & 1U << id) || gw_stage_name(id));
	for (size_t k = 0; k < GW_ARRAY_SIZE(reads); k++) {
		struct gw_page_options options = { .compress = GW_COMPRESS_LZ4,
						   .delta_cache = GW_DELTA_CACHE_DEFAULT };
		struct rng rng = { 10 };
		uint32_t sent = 0;
		struct road *r;

		assert_int_equal(gw_stages_limit(&options, reads[k]), 0);
		r = make_road(&options);
		rng_fill(&rng, r->source, GW_CHUNK_SIZE);
		memcpy(r->source + 9 * GW_PAGE_SIZE, r->source, GW_PAGE_SIZE);
		for (unsigned int i = 20; i < 40; i++)
			memset(r->source + i * GW_PAGE_SIZE, (int)i, GW_PAGE_SIZE);
		for (int round = 0; round < 4; round++) {
			send_round(r, 0, &pages);
			assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
			for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
				if (r->batch.count[id].bytes)
					sent |= 1U << id;
			for (unsigned int i = 50; i < 60; i++)
				r->source[i * GW_PAGE_SIZE + (size_t)round]++;
			memset(r->source + (size_t)(round + 60) * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
		}
		assert_int_equal(sent & ~reads[k], 0);
		if (reads[k] == all)
			assert_int_equal(sent,
					 all & ~(1U << GW_STAGE_PATCH | 1U << GW_STAGE_TELEPORT));
		leave_road(r);
	}
	assert_int_equal(gw_stages_limit(&(struct gw_page_options){ 0 }, all & ~raw), -EPROTO);
}

static void stages_have_names(void **state)
{
	(void)state;
	assert_string_equal(gw_stage_name(GW_STAGE_ZERO), "zero");
	assert_string_equal(gw_stage_name(GW_STAGE_RAW), "raw");
	assert_string_equal(gw_stage_name(GW_STAGE_SAME), "same");
	assert_null(gw_stage_name(0));
	assert_null(gw_stage_name(GW_STAGE_MAX));
}

/* Without a table each page gets a record each time, whatever went before, and knows no other. */
static void bare(void **state)
{
	struct road *r = *state;
	struct gw_pageset all = all_pages();
	struct rng rng = { 11 };

	gw_batch_free(&r->batch);
	gw_encoder_free(&r->encoder);
	assert_int_equal(gw_encoder_bare(&r->encoder, &(struct gw_page_options){ 0 }, road_now, r),
			 0);
	assert_int_equal(gw_batch_init(&r->batch, &r->encoder, 0), 0);
	rng_fill(&rng, r->source + GW_CHUNK_SIZE, GW_PAGE_SIZE);
	memcpy(r->source + GW_CHUNK_SIZE + 5 * GW_PAGE_SIZE, r->source + GW_CHUNK_SIZE,
	       GW_PAGE_SIZE);
	for (unsigned int i = 0; i < 2; i++) {
		memset(r->shadow.bytes, 0xff, PAGES * GW_PAGE_SIZE);
		r->shadow.placed = r->shadow.zeroed = 0;
		send_chunk(r, 1, &all);
		assert_int_equal(r->shadow.placed, 2);
		assert_int_equal(r->shadow.zeroed, GW_CHUNK_PAGES - 2);
		assert_memory_equal(r->shadow.bytes + GW_CHUNK_SIZE, r->source + GW_CHUNK_SIZE,
				    GW_CHUNK_SIZE);
	}
}

#define road_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_digest_to_zero),
		road_test(chunk_digests),
		road_test(fresh_zeros_need_nothing),
		road_test(zeros_after_content_need_a_record),
		road_test(extremes_fit),
		road_test(random_rounds),
		road_test(table_follows_what_travelled),
		road_test(records_that_cannot_be),
		road_test(unchecked_pages_are_told_by_digest),
		road_test(good_record_is_the_yardstick),
		road_test(beyond_the_memory),
		road_test(nothing_changed_costs_nothing),
		road_test(written_again),
		cmocka_unit_test(without_zero_and_same),
		road_test(bare),
		cmocka_unit_test(only_what_can_be_read),
		cmocka_unit_test(stages_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
