// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_stage_patch.c - pages of which the destination kept an older version:
 * what is reused, what is patched, and every patch that cannot be.
 */
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

/* All of chunk @chunk is random, and the destination kept it: @known, or only as blocks. */
static void keep_chunk(struct road *r, uint64_t chunk, struct rng *rng, bool known)
{
	rng_fill(rng, r->source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
	memcpy(r->shadow.bytes + chunk * GW_CHUNK_SIZE, r->source + chunk * GW_CHUNK_SIZE,
	       GW_CHUNK_SIZE);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
		const size_t page = chunk * GW_CHUNK_PAGES + i;
		struct gw_blocks blocks;

		gw_blocks_of(&r->key, r->shadow.bytes + page * GW_PAGE_SIZE, &blocks);
		gw_encoder_base(&r->encoder, page, &blocks);
		gw_encoder_reuse(&r->encoder, page,
				 known ? gw_key_page(&r->key, r->source + page * GW_PAGE_SIZE)
				       : GW_DIGEST_UNKNOWN);
	}
}

static void arrive(struct road *r, uint64_t chunk)
{
	const struct gw_pageset all = all_pages();

	copy_chunk(r, chunk);
	r->batch.chunk = chunk;
	r->batch.left = all;
	gw_pipeline_encode(&r->batch);
	r->len = 0;
	for (int i = 0; i < r->batch.nr_parts; i++) {
		memcpy(r->payload + r->len, r->batch.parts[i].iov_base, r->batch.parts[i].iov_len);
		r->len += r->batch.parts[i].iov_len;
	}
	assert_int_equal(decode(r, chunk), 0);
	assert_memory_equal(r->shadow.bytes + chunk * GW_CHUNK_SIZE,
			    r->source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
}

static uint64_t patched(const struct road *r)
{
	return r->batch.count[GW_STAGE_PATCH].pages;
}

/* One byte of the first block and one of the last: two blocks, as the file says. */
static void only_changed_blocks(void **state)
{
	struct road *r = *state;
	struct rng rng = { 1 };
	uint8_t *page = r->source + GW_CHUNK_SIZE + 9 * GW_PAGE_SIZE;

	keep_chunk(r, 1, &rng, false);
	page[0] ^= 1;
	page[GW_PAGE_SIZE - 1] ^= 1;
	arrive(r, 1);
	assert_int_equal(patched(r), 1);
	assert_int_equal(r->batch.reused, GW_CHUNK_PAGES - 1);
	assert_int_equal(r->len, GW_RECORD_HEADER + 3 + 2 * GW_BLOCK_SIZE);
	assert_int_equal(r->payload[0], GW_STAGE_PATCH);
	assert_int_equal(r->payload[1], 9);
	assert_int_equal(r->payload[2], 0);
	assert_int_equal(r->payload[GW_RECORD_HEADER], 9);
	assert_int_equal(gw_get16(r->payload + GW_RECORD_HEADER + 1), 0x8001);
	assert_memory_equal(r->payload + GW_RECORD_HEADER + 3, page, GW_BLOCK_SIZE);
	assert_memory_equal(r->payload + GW_RECORD_HEADER + 3 + GW_BLOCK_SIZE,
			    page + GW_PAGE_SIZE - GW_BLOCK_SIZE, GW_BLOCK_SIZE);
	assert_string_equal(gw_stage_name(GW_STAGE_PATCH), "patched");
	assert_int_equal(gw_digest_equal(r->encoder.held.table[GW_CHUNK_PAGES + 9],
					 gw_key_page(&r->key, page)),
			 1);
}

/* In post-copy each page is waited for: one whose blocks are all there needs a record, too. */
static void none_left_out(void **state)
{
	struct road *r = *state;
	struct rng rng = { 1 };
	uint64_t pages = 0;

	keep_chunk(r, 1, &rng, false);
	r->source[GW_CHUNK_SIZE + 9 * GW_PAGE_SIZE] ^= 1;
	gw_encoder_paging(&r->encoder, r->encoder.due);
	arrive(r, 1);
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
		pages += r->batch.count[id].bytes ? r->batch.count[id].pages : 0;
	assert_int_equal(patched(r), 1);
	assert_int_equal(r->batch.reused, 0);
	assert_int_equal(pages, GW_CHUNK_PAGES);
}

/* With so many blocks changed that it does not pay, the page travels whole. */
static void too_much_changed(void **state)
{
	struct road *r = *state;
	struct rng rng = { 2 };

	keep_chunk(r, 0, &rng, false);
	for (size_t blocks = 0; blocks <= GW_PAGE_BLOCKS; blocks++)
		for (size_t k = 0; k < blocks; k++)
			r->source[blocks * GW_PAGE_SIZE + k * GW_BLOCK_SIZE + 17] ^= 0xff;
	arrive(r, 0);
	assert_int_equal(patched(r), 12);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 4);
	assert_int_equal(r->batch.reused, GW_CHUNK_PAGES - GW_PAGE_BLOCKS);
}

/* A page whose digest is known is reused for it; from the second round on it is `same`. */
static void known_pages(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	struct rng rng = { 3 };

	keep_chunk(r, 2, &rng, true);
	arrive(r, 2);
	assert_int_equal(r->len, 0);
	assert_int_equal(r->batch.reused, GW_CHUNK_PAGES);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, 0);
	r->encoder.reuses = false; /* the first rounds are over */
	send_round(r, 2, &all);
	assert_int_equal(r->batch.reused, 0);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, GW_CHUNK_PAGES);
}

/* In post-copy somebody waits for each page, also for one whose blocks all agree. */
static void each_page_is_waited_for(void **state)
{
	struct road *r = *state;
	struct rng rng = { 4 };

	keep_chunk(r, 1, &rng, false);
	r->source[GW_CHUNK_SIZE] ^= 1;
	gw_encoder_paging(&r->encoder, &r->due);
	arrive(r, 1);
	assert_int_equal(r->batch.reused, 0);
	assert_int_equal(r->shadow.placed, GW_CHUNK_PAGES);
}

/* What the destination kept is overwritten by the first page that travels, however it does. */
static void a_base_is_good_once(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	struct rng rng = { 4 };
	uint8_t *page = r->source;

	keep_chunk(r, 0, &rng, false);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
		page[i * GW_PAGE_SIZE] ^= 1;
	rng_fill(&rng, page + 5 * GW_PAGE_SIZE, GW_PAGE_SIZE); /* raw */
	memset(page + 6 * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);      /* zero */
	arrive(r, 0);
	assert_int_equal(patched(r), GW_CHUNK_PAGES - 2);
	/* The old version comes back: it must be sent, though it is what was kept. */
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
		page[i * GW_PAGE_SIZE] ^= 1;
	send_round(r, 0, &all);
	assert_int_equal(patched(r), 0);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
}

/* Random changes to random pages of a chunk that was kept in part. */
static void whatever_changes(void **state)
{
	struct road *r = *state;
	struct rng rng = { 5 };

	keep_chunk(r, 1, &rng, false);
	for (int i = 0; i < 3000; i++)
		r->source[GW_CHUNK_SIZE + rng_below(&rng, GW_CHUNK_SIZE)] ^=
			(uint8_t)rng_next(&rng);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i += 3)
		rng_fill(&rng, r->source + GW_CHUNK_SIZE + i * GW_PAGE_SIZE, 700);
	arrive(r, 1);
	assert_true(patched(r) > GW_CHUNK_PAGES / 2);
}

static void refused(struct road *r, unsigned int first, unsigned int count, const uint8_t *body,
		    size_t len)
{
	r->len = put_record(r->payload, GW_STAGE_PATCH, first, count, (uint32_t)len);
	memcpy(r->payload + GW_RECORD_HEADER, body, len);
	r->shadow.calls = 0;
	assert_int_equal(decode(r, 0), -EPROTO);
	assert_int_equal(r->shadow.calls, 0);
}

static void patches_that_cannot_be(void **state)
{
	struct road *r = *state;
	uint8_t body[2 * (3 + GW_PAGE_SIZE) + 1] = { 10, 1, 0 };
	const size_t one = 3 + GW_BLOCK_SIZE;

	r->len = put_record(r->payload, GW_STAGE_PATCH, 10, 1, (uint32_t)one);
	memcpy(r->payload + GW_RECORD_HEADER, body, one);
	assert_int_equal(decode(r, 0), 0);
	for (size_t len = 0; len < one; len++)
		refused(r, 10, 1, body, len);
	refused(r, 10, 1, body, one + 1);
	refused(r, 9, 1, body, one);  /* another page than the record's */
	refused(r, 9, 2, body, one);  /* begins with another */
	refused(r, 10, 2, body, one); /* ends before the record does */
	body[1] = 0;		      /* no block */
	refused(r, 10, 1, body, 3);
	body[1] = 1;
	memcpy(body + one, body, one); /* a page twice */
	refused(r, 10, 1, body, 2 * one);
	refused(r, 10, 2, body, 2 * one);
	body[one] = 9; /* descending */
	refused(r, 9, 2, body, 2 * one);
	r->len = put_record(r->payload, GW_STAGE_PATCH, 10, 1, (uint32_t)one);
	body[0] = 10;
	memcpy(r->payload + GW_RECORD_HEADER, body, one);
	r->payload[3] = 1; /* flags */
	assert_int_equal(decode(r, 0), -EPROTO);
}

/* Any bytes: no crash, and nothing outside of the record's pages. */
static void random_patches(void **state)
{
	struct road *r = *state;
	struct rng rng = { 6 };

	for (int i = 0; i < 20000; i++) {
		const unsigned int first = (unsigned int)rng_below(&rng, GW_CHUNK_PAGES);
		const unsigned int count = 1 +
					   (unsigned int)rng_below(&rng, GW_CHUNK_PAGES - first);
		const size_t len = rng_below(&rng, 1200);

		r->len = put_record(r->payload, GW_STAGE_PATCH, first, count, (uint32_t)len);
		rng_fill(&rng, r->payload + GW_RECORD_HEADER, len);
		if (len > 3) {
			r->payload[GW_RECORD_HEADER] = (uint8_t)first;
			gw_put16(r->payload + GW_RECORD_HEADER + 1,
				 (uint16_t)(1U << rng_below(&rng, 16)));
		}
		assert_true(decode(r, 0) <= 0);
	}
}

static void switched_off(void **state)
{
	struct road *r = make_road(&(struct gw_page_options){ .off = 1U << GW_STAGE_PATCH });

	(void)state;
	assert_false(gw_encoder_patches(&r->encoder));
	leave_road(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_changed_blocks, make, drop),
		cmocka_unit_test_setup_teardown(none_left_out, make, drop),
		cmocka_unit_test_setup_teardown(too_much_changed, make, drop),
		cmocka_unit_test_setup_teardown(known_pages, make, drop),
		cmocka_unit_test_setup_teardown(each_page_is_waited_for, make, drop),
		cmocka_unit_test_setup_teardown(a_base_is_good_once, make, drop),
		cmocka_unit_test_setup_teardown(whatever_changes, make, drop),
		cmocka_unit_test_setup_teardown(patches_that_cannot_be, make, drop),
		cmocka_unit_test_setup_teardown(random_patches, make, drop),
		cmocka_unit_test(switched_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
