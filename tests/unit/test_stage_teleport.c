// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_stage_teleport.c - pages that lie on a disk: how they are told, what may refer to them
 * before they are certain, and every record that cannot be.
 */
#include "road.h"

#include <errno.h>

#define BODY_HEAD 8U

static struct gw_hints hints;

/* What the decoder was told last, and in all. */
static struct {
	uint64_t page;
	unsigned int count, calls, pages;
	struct gw_hint at;
	uint8_t digests[GW_CHUNK_PAGES * GW_DIGEST_LEN];
} told;

static int fetch(struct gw_sink *sink, uint64_t page, unsigned int count, struct gw_hint at,
		 const uint8_t *digests)
{
	(void)sink;
	told.page = page;
	told.count = count;
	told.at = at;
	told.calls++;
	told.pages += count;
	memcpy(told.digests, digests, count * GW_DIGEST_LEN);
	return 0;
}

static int make_with(void **state, struct gw_page_options options)
{
	struct road *r = make_road(&options);

	*state = r;
	memset(&told, 0, sizeof(told));
	r->shadow.sink.fetch = fetch;
	return gw_hints_init(&hints, PAGES);
}

static int make(void **state)
{
	return make_with(state, (struct gw_page_options){ .teleports = true });
}

static int make_delta(void **state)
{
	return make_with(state,
			 (struct gw_page_options){ .teleports = true, .delta_cache = 4 << 20 });
}

static int drop(void **state)
{
	leave_road(*state);
	gw_hints_free(&hints);
	return 0;
}

static void hint(size_t page, unsigned int disk, uint64_t sector)
{
	gw_hints_set(&hints, page, (struct gw_hint){ disk, sector });
}

static void fill(struct road *r, uint64_t seed)
{
	struct rng rng = { seed };

	rng_fill(&rng, r->source, PAGES * GW_PAGE_SIZE);
}

static uint64_t teleported(const struct road *r)
{
	return r->batch.count[GW_STAGE_TELEPORT].pages;
}

static void a_row_is_one_record(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	uint8_t digest[GW_DIGEST_LEN];

	fill(r, 1);
	for (unsigned int i = 10; i < 20; i++)
		hint(GW_CHUNK_PAGES + i, 3, 1000 + (i - 10) * GW_PAGE_SECTORS);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 1, &all);
	assert_int_equal(teleported(r), 10);
	assert_int_equal(r->batch.count[GW_STAGE_TELEPORT].bytes,
			 GW_RECORD_HEADER + BODY_HEAD + 10 * GW_DIGEST_LEN);
	assert_int_equal(told.calls, 1);
	assert_int_equal(told.page, GW_CHUNK_PAGES + 10);
	assert_int_equal(told.count, 10);
	assert_int_equal(told.at.disk, 3);
	assert_int_equal(told.at.sector, 1000);
	for (unsigned int i = 0; i < 10; i++) {
		gw_put_digest(digest, gw_key_page(&r->key, r->source + (GW_CHUNK_PAGES + 10 + i) *
									       GW_PAGE_SIZE));
		assert_memory_equal(told.digests + i * GW_DIGEST_LEN, digest, GW_DIGEST_LEN);
	}
	assert_string_equal(gw_stage_name(GW_STAGE_TELEPORT), "teleported");
}

/* Another disk, another place, a page between that nobody knows of, or that is zero. */
static void rows_end(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;

	fill(r, 2);
	memset(r->source + 4 * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
	for (unsigned int i = 0; i < 12; i++)
		if (i != 8)
			hint(i, i < 2 ? 0 : 254, 7 + (i < 6 ? i : i + 1) * GW_PAGE_SECTORS);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &all);
	/* 0 1 | 2 3 | (zero) | 5 | 6 7 | (unknown) | 9 10 11 */
	assert_int_equal(told.calls, 5);
	assert_int_equal(told.pages, 10);
	assert_int_equal(told.at.disk, 254);
}

/* The whole chunk in pieces of a page each is the longest that it gets. */
static void all_in_pieces(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;

	fill(r, 3);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		hint(i, 1, (GW_CHUNK_PAGES - i) * GW_PAGE_SECTORS);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &all);
	assert_int_equal(told.calls, GW_CHUNK_PAGES);
	assert_int_equal(teleported(r), GW_CHUNK_PAGES);
}

/* What is not certain yet is no base: not for a copy in its frame, nor later in its round. */
static void nothing_is_a_copy_of_it(void **state)
{
	const struct gw_pageset all = all_pages(), one = gw_pageset_of(0, 1);
	struct road *r = *state;

	fill(r, 4);
	hint(5, 0, 8);
	memcpy(r->source + 6 * GW_PAGE_SIZE, r->source + 5 * GW_PAGE_SIZE, GW_PAGE_SIZE);
	memcpy(r->source + GW_CHUNK_SIZE, r->source + 5 * GW_PAGE_SIZE, GW_PAGE_SIZE);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &all);
	assert_int_equal(teleported(r), 1);
	assert_int_equal(r->batch.count[GW_STAGE_DUPLICATE].pages, 0);
	/* But page 6, which went as it is, may be copied. */
	send_chunk(r, 1, &one);
	assert_int_equal(r->batch.count[GW_STAGE_DUPLICATE].pages, 1);
	assert_memory_equal(r->shadow.bytes + GW_CHUNK_SIZE, r->source + GW_CHUNK_SIZE,
			    GW_PAGE_SIZE);
}

/* Once the round is over it is, unless the destination has said that it lacks it. */
static void certain_or_lacking(void **state)
{
	const struct gw_pageset all = all_pages(), both = gw_pageset_of(0, 2),
				four = gw_pageset_of(4, 2);
	struct road *r = *state;

	fill(r, 5);
	hint(4, 0, 8);
	hint(5, 0, 800);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &all);
	memcpy(r->shadow.bytes + 4 * GW_PAGE_SIZE, r->source + 4 * GW_PAGE_SIZE, GW_PAGE_SIZE);
	assert_true(gw_encoder_lacks(&r->encoder, 5));
	assert_false(gw_encoder_lacks(&r->encoder, 5));
	assert_false(gw_encoder_lacks(&r->encoder, 6));
	assert_false(gw_encoder_lacks(&r->encoder, PAGES));
	gw_encoder_certain(&r->encoder);
	memcpy(r->source + GW_CHUNK_SIZE, r->source + 4 * GW_PAGE_SIZE, 2 * GW_PAGE_SIZE);
	send_round(r, 1, &both);
	assert_int_equal(r->batch.count[GW_STAGE_DUPLICATE].pages, 1);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	assert_memory_equal(r->shadow.bytes + GW_CHUNK_SIZE, r->source + GW_CHUNK_SIZE,
			    2 * GW_PAGE_SIZE);
	/* The one is what the destination holds, the other travels. */
	send_round(r, 0, &four);
	assert_int_equal(r->batch.count[GW_STAGE_SAME].pages, 1);
	assert_int_equal(teleported(r), 0); /* as in the last round */
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
}

/* Nor is it one for a delta, whose cache it does not crowd either. */
static void no_delta_of_it(void **state)
{
	const struct gw_pageset all = all_pages(), one = gw_pageset_of(5, 1);
	struct road *r = *state;

	fill(r, 6);
	send_chunk(r, 0, &all);
	r->source[5 * GW_PAGE_SIZE]++;
	hint(5, 0, 8);
	next_round(r, 0, &one);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &one);
	assert_int_equal(teleported(r), 1);
	assert_true(gw_encoder_lacks(&r->encoder, 5));
	gw_encoder_certain(&r->encoder);
	r->source[5 * GW_PAGE_SIZE]++;
	send_round(r, 0, &one);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
}

static void never_without_a_key(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r =
		make_road(&(struct gw_page_options){ .teleports = true, .hash = GW_HASH_CRC32 });

	(void)state;
	fill(r, 7);
	hint(5, 0, 8);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &all);
	assert_int_equal(teleported(r), 0);
	leave_road(r);
}

/* Asked in the middle of an encode: by another thread it might be. */
static unsigned int asked;

static int64_t ask_now(void *env)
{
	struct road *r = env;

	asked++;
	assert_false(gw_encoder_lacks(&r->encoder, 5));
	return 0;
}

/* What follows the guest: not of what it waits for, nor of what was refused. */
static void in_post_copy(void **state)
{
	const struct gw_page_options options = { .teleports = true, .compress = GW_COMPRESS_LZ4 };
	const struct gw_pageset all = all_pages(), two = gw_pageset_of(4, 2),
				four = gw_pageset_of(4, 1), five = gw_pageset_of(5, 1);
	struct road *r;
	struct gw_digest digest;

	assert_int_equal(make_with(state, options), 0);
	r = *state;
	fill(r, 8);
	send_chunk(r, 0, &all);
	fill(r, 9);
	memset(r->source + 4 * GW_PAGE_SIZE, 4, GW_PAGE_SIZE); /* for who compresses */
	hint(4, 0, 8);
	hint(5, 0, 16);
	next_round(r, 0, &two);
	gw_encoder_paging(&r->encoder, &r->due);
	gw_encoder_teleports(&r->encoder, &hints);
	r->batch.off = 1U << GW_STAGE_TELEPORT;
	send_chunk(r, 0, &four);
	assert_int_equal(teleported(r), 0);
	assert_memory_equal(r->shadow.bytes + 4 * GW_PAGE_SIZE, r->source + 4 * GW_PAGE_SIZE,
			    GW_PAGE_SIZE);
	/* Nobody may give it back before the table is what it is to be. */
	gw_hints_drop(&hints, 4);
	gw_encoder_reuse(&r->encoder, 4, GW_DIGEST_UNKNOWN);
	r->encoder.now = ask_now;
	asked = 0;
	r->batch.off = 0;
	send_chunk(r, 0, &two);
	assert_true(asked > 0);
	assert_int_equal(teleported(r), 1);
	assert_int_equal(told.page, 5);
	digest = r->encoder.held.table[5];
	assert_true(gw_encoder_lacks(&r->encoder, 5));
	assert_false(gw_encoder_lacks(&r->encoder, 5));
	/* Whatever the table says by then: the page itself goes. */
	gw_encoder_reuse(&r->encoder, 5, digest);
	r->batch.off = GW_STAGES_REFERRING;
	send_chunk(r, 0, &five);
	assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 1);
	assert_memory_equal(r->shadow.bytes + 5 * GW_PAGE_SIZE, r->source + 5 * GW_PAGE_SIZE,
			    GW_PAGE_SIZE);
}

static void records_that_cannot_be(void **state)
{
	struct road *r = *state;
	const size_t right = BODY_HEAD + 2 * GW_DIGEST_LEN;

	r->len = put_record(r->payload, GW_STAGE_TELEPORT, 0, 2, (uint32_t)right);
	assert_int_equal(decode(r, 0), 0);
	assert_int_equal(told.at.disk, 0x5a5a);
	r->payload[3] = 1;
	assert_int_equal(decode(r, 0), -EPROTO);
	for (size_t len = 0; len < right + 20; len++) {
		r->len = put_record(r->payload, GW_STAGE_TELEPORT, 0, 2, (uint32_t)len);
		assert_int_equal(decode(r, 0), len == right ? 0 : -EPROTO);
	}
	r->shadow.sink.fetch = NULL;
	r->len = put_record(r->payload, GW_STAGE_TELEPORT, 0, 2, (uint32_t)right);
	assert_int_equal(decode(r, 0), -EPROTO);
}

/* Odd pages lie in a row, wherever hints say that they do. */
static void find(void *arg, const uint8_t *chunk, const struct gw_pageset *left,
		 struct gw_pageset *found, struct gw_hint at[GW_CHUNK_PAGES])
{
	const struct road *r = arg;

	assert_ptr_equal(chunk, r->batch.bytes);
	for (unsigned int i = 1; i < GW_CHUNK_PAGES; i += 2) {
		if (!gw_pageset_test(left, i))
			continue;
		gw_pageset_set(found, i);
		at[i] = (struct gw_hint){ 7, i * GW_PAGE_SECTORS };
	}
}

static unsigned int wrongs;

static void wrong(void *arg, struct gw_hint at)
{
	(void)arg;
	assert_int_equal(at.disk, 7);
	assert_int_equal(at.sector, 5 * GW_PAGE_SECTORS);
	wrongs++;
}

static void looked_up(void **state)
{
	struct road *r = *state;
	const struct gw_lookup lookup = { .find = find, .wrong = wrong, .arg = r };
	struct gw_pageset due = gw_pageset_of(0, 100);

	fill(r, 8);
	hints.lookup = &lookup;
	hint(2, 1, 8); /* nobody believes it any more */
	gw_pageset_clear(&due, 9);
	gw_encoder_teleports(&r->encoder, &hints);
	send_chunk(r, 0, &due);
	assert_int_equal(teleported(r), 49);
	assert_int_equal(told.at.disk, 7);
	gw_hints_drop(&hints, 5);
	gw_hints_drop(&hints, 5);
	assert_int_equal(wrongs, 1);
}

static void hints_out_of_range(void **state)
{
	struct gw_hint at;

	(void)state;
	hint(PAGES, 0, 0);
	hint(1, GW_HINT_DISKS, 0);
	hint(2, 0, GW_HINT_SECTORS);
	hint(3, GW_HINT_DISKS - 1, GW_HINT_SECTORS - 1);
	assert_false(gw_hints_get(&hints, 1, &at));
	assert_false(gw_hints_get(&hints, 2, &at));
	assert_true(gw_hints_get(&hints, 3, &at));
	assert_int_equal(at.disk, GW_HINT_DISKS - 1);
	assert_int_equal(at.sector, GW_HINT_SECTORS - 1);
	gw_hints_drop(&hints, 3);
	assert_false(gw_hints_get(&hints, 3, &at));
	hint(4, 0, 0);
	assert_true(gw_hints_get(&hints, 4, &at));
	gw_hints_clear(&hints);
	assert_false(gw_hints_get(&hints, 4, &at));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_row_is_one_record, make, drop),
		cmocka_unit_test_setup_teardown(rows_end, make, drop),
		cmocka_unit_test_setup_teardown(all_in_pieces, make, drop),
		cmocka_unit_test_setup_teardown(nothing_is_a_copy_of_it, make, drop),
		cmocka_unit_test_setup_teardown(certain_or_lacking, make, drop),
		cmocka_unit_test_setup_teardown(no_delta_of_it, make_delta, drop),
		cmocka_unit_test_setup_teardown(never_without_a_key, make, drop),
		cmocka_unit_test_teardown(in_post_copy, drop),
		cmocka_unit_test_setup_teardown(records_that_cannot_be, make, drop),
		cmocka_unit_test_setup_teardown(looked_up, make, drop),
		cmocka_unit_test_setup_teardown(hints_out_of_range, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
