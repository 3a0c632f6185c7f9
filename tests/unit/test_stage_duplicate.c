// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_stage_duplicate.c - copies of pages that the destination holds, and only of those.
 *
 * What several streams send in a round is delivered in any order that keeps
 * each stream's own: a copy of what another stream sends in the same round then
 * shows as wrong bytes.
 */
#include "road.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#define STREAMS 3

/* A second way and a third, beside the road's own. */
struct stream {
	struct road *road;
	struct gw_batch batch;
	struct gw_decoder decoder;
	struct {
		uint64_t chunk;
		uint8_t *bytes;
		size_t len;
	} queue[CHUNKS];
	unsigned int sent, delivered;
};

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

static uint8_t *page_at(const struct road *r, uint64_t page)
{
	return r->source + page * GW_PAGE_SIZE;
}

/* Random bytes that are always the same for @content; zeros for 0. */
static void put_content(struct road *r, uint64_t page, uint64_t content)
{
	struct rng rng = { content };

	memset(page_at(r, page), 0, GW_PAGE_SIZE);
	if (content)
		rng_fill(&rng, page_at(r, page), GW_PAGE_SIZE);
}

static uint64_t copies(const struct road *r)
{
	return r->batch.count[GW_STAGE_DUPLICATE].pages;
}

static void assert_arrived(const struct road *r)
{
	assert_memory_equal(r->shadow.bytes, r->source, PAGES * GW_PAGE_SIZE);
	assert_table(r);
}

/* A chunk of one pattern, as a memory test writes it: one page, and one record for the rest. */
static void one_pattern(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages();

	for (uint64_t page = 0; page < 2 * GW_CHUNK_PAGES; page++)
		put_content(r, page, 1);
	send_chunk(r, 0, &all);
	assert_int_equal(copies(r), GW_CHUNK_PAGES - 1);
	assert_int_equal(r->len, GW_RECORD_HEADER + GW_PAGE_SIZE + GW_RECORD_HEADER + 8);
	/* The same stream may copy what it sent before; the whole chunk is one record. */
	send_chunk(r, 1, &all);
	assert_int_equal(copies(r), GW_CHUNK_PAGES);
	assert_int_equal(r->len, GW_RECORD_HEADER + 8);
	assert_arrived(r);
}

/* A chunk that repeats another: one record, which counts along. */
static void pages_in_a_row(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages();

	for (uint64_t page = 0; page < GW_CHUNK_PAGES; page++) {
		put_content(r, page, page + 1);
		put_content(r, page + GW_CHUNK_PAGES, page + 1);
		put_content(r, page + 2 * GW_CHUNK_PAGES, (page + 7) % GW_CHUNK_PAGES + 1);
	}
	send_chunk(r, 0, &all);
	assert_int_equal(copies(r), 0);
	send_chunk(r, 1, &all);
	assert_int_equal(copies(r), GW_CHUNK_PAGES);
	assert_int_equal(r->len, GW_RECORD_HEADER + 8);
	/* Shifted, it is two rows. */
	send_chunk(r, 2, &all);
	assert_int_equal(copies(r), GW_CHUNK_PAGES);
	assert_int_equal(r->len, 2 * (GW_RECORD_HEADER + 8));
	assert_arrived(r);
}

/* What is in a row on both sides of a chunk's end is two rows. */
static void rows_end_with_their_chunk(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages();

	for (uint64_t i = 0; i < 16; i++) {
		put_content(r, GW_CHUNK_PAGES - 8 + i, i + 1);
		put_content(r, 2 * GW_CHUNK_PAGES + i, i + 1);
	}
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		send_chunk(r, chunk, &all);
	assert_int_equal(copies(r), 16);
	assert_int_equal(r->len, 2 * (GW_RECORD_HEADER + 8));
	assert_arrived(r);
}

/* Pages that are written all the time do not push the others out of the table. */
static void hot_pages(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages();

	for (uint64_t i = 0; i < GW_CHUNK_PAGES; i++)
		put_content(r, i, i + 1);
	send_chunk(r, 0, &all);
	for (uint64_t round = 1; round < 40; round++) {
		for (uint64_t i = 0; i < GW_CHUNK_PAGES; i++)
			put_content(r, GW_CHUNK_PAGES + i, round << 32 | i);
		send_round(r, 1, &all);
	}
	memcpy(page_at(r, 2 * GW_CHUNK_PAGES), r->source, GW_CHUNK_SIZE);
	send_round(r, 2, &all);
	/* Some are lost where too many digests meet; forgotten pages make room for most. */
	assert_in_range(copies(r), GW_CHUNK_PAGES * 3 / 4, GW_CHUNK_PAGES);
	assert_arrived(r);
}

/* One page of @chunk with a made-up digest. Return: whether the stage took it. */
static bool takes(struct road *r, uint64_t chunk, struct gw_digest digest)
{
	const struct gw_pageset one = gw_pageset_of(0, 1);
	struct gw_batch *batch = &r->batch;

	next_round(r, chunk, &one);
	batch->chunk = chunk;
	batch->left = one;
	batch->digest[0] = digest;
	batch->held = &r->encoder.held.table[chunk * GW_CHUNK_PAGES];
	batch->nr_parts = 0;
	batch->nr_records = 0;
	gw_stage_duplicate.encode(batch);
	gw_stage_duplicate.finish(batch);
	gw_stage_duplicate.remember(batch, &one);
	gw_digests_set(&r->encoder.held, chunk * GW_CHUNK_PAGES, digest);
	return gw_pageset_empty(&batch->left);
}

/* The table tells only where to look: digests that share their place in it are not equal. */
static void digests_that_are_alike(void **state)
{
	static const struct gw_digest d = { 0x1000000000000005, 0x3000000000000007 };
	static const struct gw_digest alike[] = { { 0x1000000000000005, 0x3000000000000006 },
						  { 0x1000010000000005, 0x3000000000000007 },
						  { 0x1000000000000005, 0x3000008000000007 } };
	struct road *r = *state;

	assert_false(takes(r, 0, d));
	for (size_t i = 0; i < GW_ARRAY_SIZE(alike); i++)
		assert_false(takes(r, 1, alike[i]));
	assert_true(takes(r, 1, d));
}

static void later_rounds(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages(), one = gw_pageset_of(9, 1);

	put_content(r, 5, 1);
	send_chunk(r, 0, &all);
	/* Not due any more: to be copied. */
	put_content(r, GW_CHUNK_PAGES + 9, 1);
	send_round(r, 1, &one);
	assert_int_equal(copies(r), 1);
	assert_arrived(r);
	/* Overwritten meanwhile: nobody holds those bytes but the copy, which is due. */
	put_content(r, 5, 2);
	send_round(r, 0, &all);
	put_content(r, 2 * GW_CHUNK_PAGES + 9, 1);
	send_round(r, 2, &one);
	assert_int_equal(copies(r), 0);
	assert_arrived(r);
	/* Zeroed, and the page is a copy of what took its place in the table. */
	put_content(r, 5, 0);
	send_round(r, 0, &all);
	put_content(r, 5, 1);
	send_round(r, 0, &all);
	assert_int_equal(copies(r), 1);
	assert_arrived(r);
}

/* Two pages of one batch exchange their content: neither may copy the other. */
static void exchange(void **state)
{
	struct road *r = *state;
	const struct gw_pageset all = all_pages();

	put_content(r, 0, 1);
	put_content(r, 1, 2);
	send_chunk(r, 0, &all);
	put_content(r, 0, 2);
	put_content(r, 1, 1);
	send_round(r, 0, &all);
	assert_int_equal(copies(r), 0);
	assert_arrived(r);
}

/* Switched off, or with a hash that takes different pages for equal ones. */
static void left_out(void **state)
{
	static const struct gw_page_options off[] = {
		{ .off = 1U << GW_STAGE_DUPLICATE },
		{ .hash = GW_HASH_CRC32 },
	};
	const struct gw_pageset all = all_pages();

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(off); i++) {
		struct road *r = make_road(&off[i]);

		for (uint64_t page = 0; page < PAGES; page++)
			put_content(r, page, 1);
		for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
			send_chunk(r, chunk, &all);
		assert_int_equal(copies(r), 0);
		assert_arrived(r);
		leave_road(r);
	}
}

/* Zeros are never copied, even where the stage that knows them is left out. */
static void zeros_are_no_copies(void **state)
{
	struct road *r = make_road(
		&(struct gw_page_options){ .off = 1U << GW_STAGE_ZERO | 1U << GW_STAGE_SAME });
	const struct gw_pageset all = all_pages();

	(void)state;
	put_content(r, 0, 1);
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
		send_chunk(r, chunk, &all);
		assert_int_equal(copies(r), 0);
	}
	assert_arrived(r);
	leave_road(r);
}

/* Encode what is due of @chunk, and keep the frame until it is delivered. Not for cmocka: threads.
 */
static void put_in_queue(struct stream *s, uint64_t chunk)
{
	struct gw_batch *batch = &s->batch;
	size_t len = 0;
	uint8_t *bytes;

	batch->chunk = chunk;
	memcpy(batch->bytes, s->road->source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
	memcpy(batch->left.words, &s->road->due.words[chunk * GW_CHUNK_PAGES / 64],
	       sizeof(batch->left.words));
	gw_pipeline_encode(batch);
	for (int i = 0; i < batch->nr_parts; i++)
		len += batch->parts[i].iov_len;
	bytes = malloc(len + 1);
	if (!bytes)
		abort();
	s->queue[s->sent].chunk = chunk;
	s->queue[s->sent].bytes = bytes;
	s->queue[s->sent].len = len;
	s->sent++;
	for (int i = 0; i < batch->nr_parts; i++) {
		memcpy(bytes, batch->parts[i].iov_base, batch->parts[i].iov_len);
		bytes += batch->parts[i].iov_len;
	}
}

static bool deliver(struct stream *s)
{
	if (s->delivered == s->sent)
		return false;
	assert_int_equal(gw_pipeline_decode(&s->decoder, s->queue[s->delivered].chunk,
					    s->queue[s->delivered].bytes,
					    s->queue[s->delivered].len),
			 0);
	free(s->queue[s->delivered].bytes);
	s->delivered++;
	return true;
}

/* All that was sent in this round, in a random order. */
static void deliver_all(struct stream *streams, struct rng *rng)
{
	unsigned int idle = 0;

	while (idle < 50)
		idle = deliver(&streams[rng_below(rng, STREAMS)]) ? 0 : idle + 1;
	for (unsigned int i = 0; i < STREAMS; i++) {
		while (deliver(&streams[i]))
			;
		streams[i].sent = streams[i].delivered = 0;
	}
}

static void open_streams(struct stream *streams, struct road *r)
{
	for (unsigned int i = 0; i < STREAMS; i++) {
		memset(&streams[i], 0, sizeof(streams[i]));
		streams[i].road = r;
		assert_int_equal(gw_batch_init(&streams[i].batch, &r->encoder, i), 0);
		gw_decoder_init(&streams[i].decoder, &r->shadow.sink, PAGES);
	}
}

static void close_streams(struct stream *streams)
{
	for (unsigned int i = 0; i < STREAMS; i++) {
		gw_batch_free(&streams[i].batch);
		gw_decoder_free(&streams[i].decoder);
	}
}

/* In one round a stream copies what it sent itself, and nothing of another's. */
static void not_of_another_stream(void **state)
{
	struct road *r = *state;
	struct stream streams[STREAMS];
	struct rng rng = { 1 };

	open_streams(streams, r);
	for (uint64_t page = 0; page < PAGES; page++)
		put_content(r, page, page % 64 + 1);
	put_in_queue(&streams[0], 0);
	put_in_queue(&streams[1], 1);
	assert_int_equal(streams[1].batch.count[GW_STAGE_DUPLICATE].pages, GW_CHUNK_PAGES - 64);
	put_in_queue(&streams[0], 2);
	assert_int_equal(streams[0].batch.count[GW_STAGE_DUPLICATE].pages, GW_CHUNK_PAGES);
	/* The later stream arrives first. */
	assert_true(deliver(&streams[1]));
	deliver_all(streams, &rng);
	assert_arrived(r);
	/* In the next round, what is not due may be copied by anybody. */
	for (uint64_t page = 0; page < 64; page++)
		put_content(r, page, (page + 32) % 64 + 1);
	next_round(r, 0, &(struct gw_pageset){ { ~0ULL, 0, 0, 0 } });
	put_in_queue(&streams[2], 0);
	assert_int_equal(streams[2].batch.count[GW_STAGE_DUPLICATE].pages, 64);
	deliver_all(streams, &rng);
	assert_arrived(r);
	close_streams(streams);
}

/* Due pages of a round with contents of which there are few, next to pages that are like no other.
 */
static void choose_round(struct road *r, struct rng *rng, uint8_t *expected)
{
	const uint64_t kinds = 1 + rng_below(rng, 40), dense = 1 + rng_below(rng, 8);

	gw_bitmap_zero(&r->due);
	for (uint64_t page = 0; page < PAGES; page++) {
		if (!rng_one_in(rng, dense))
			continue;
		if (rng_one_in(rng, 10))
			put_content(r, page, rng_next(rng));
		else if (rng_one_in(rng, 4) && page)
			memcpy(page_at(r, page), page_at(r, rng_below(rng, page)), GW_PAGE_SIZE);
		else if (!rng_one_in(rng, 8))
			put_content(r, page, rng_below(rng, kinds));
		gw_bitmap_set(&r->due, page);
		memcpy(expected + page * GW_PAGE_SIZE, page_at(r, page), GW_PAGE_SIZE);
	}
	gw_encoder_round(&r->encoder, &r->due);
}

static void random_streams(void **state)
{
	struct road *r = *state;
	gw_autofree uint8_t *expected = calloc(PAGES, GW_PAGE_SIZE);
	struct stream streams[STREAMS];
	struct rng rng = { 2 };
	uint64_t found = 0;

	open_streams(streams, r);
	for (int round = 0; round < 150; round++) {
		choose_round(r, &rng, expected);
		for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
			struct stream *s = &streams[rng_below(&rng, STREAMS)];

			put_in_queue(s, chunk);
			found += s->batch.count[GW_STAGE_DUPLICATE].pages;
		}
		deliver_all(streams, &rng);
		assert_memory_equal(r->shadow.bytes, expected, PAGES * GW_PAGE_SIZE);
		assert_table(r);
	}
	assert_true(found > 1000);
	close_streams(streams);
}

static atomic_size_t next_chunk;

static void *send_chunks(void *arg)
{
	size_t chunk;

	while ((chunk = next_chunk++) < CHUNKS)
		put_in_queue(arg, chunk);
	return NULL;
}

/* For the thread sanitizer; and whatever thread takes which chunk, all arrives. */
static void threads(void **state)
{
	struct road *r = *state;
	gw_autofree uint8_t *expected = calloc(PAGES, GW_PAGE_SIZE);
	struct stream streams[STREAMS];
	struct rng rng = { 3 };

	open_streams(streams, r);
	for (int round = 0; round < 60; round++) {
		pthread_t ids[STREAMS];

		choose_round(r, &rng, expected);
		next_chunk = 0;
		for (unsigned int i = 0; i < STREAMS; i++)
			assert_int_equal(pthread_create(&ids[i], NULL, send_chunks, &streams[i]),
					 0);
		for (unsigned int i = 0; i < STREAMS; i++)
			pthread_join(ids[i], NULL);
		deliver_all(streams, &rng);
		assert_memory_equal(r->shadow.bytes, expected, PAGES * GW_PAGE_SIZE);
		assert_table(r);
	}
	close_streams(streams);
}

/* A record of pages 16 to 16 + count of chunk 1, with page number @from. */
static void put_copy(struct road *r, unsigned int count, uint8_t flags, uint64_t from)
{
	r->len = put_record(r->payload, GW_STAGE_DUPLICATE, 16, count, 8);
	r->payload[3] = flags;
	gw_put64(r->payload + GW_RECORD_HEADER, from);
}

static void copies_that_cannot_be(void **state)
{
	static const struct {
		const char *what;
		unsigned int count;
		uint8_t flags;
		uint64_t from;
	} bad[] = {
		{ "the page behind the last", 1, 0, PAGES },
		{ "a page far behind", 1, 0, UINT64_MAX },
		{ "a row from far behind", 2, 1, UINT64_MAX },
		{ "a row beyond its chunk", 2, 1, GW_CHUNK_PAGES - 1 },
		{ "a row beyond the memory", 3, 1, PAGES - 2 },
		{ "itself", 1, 0, GW_CHUNK_PAGES + 16 },
		{ "its own last page", 4, 0, GW_CHUNK_PAGES + 19 },
		{ "a row that is itself", 4, 1, GW_CHUNK_PAGES + 16 },
		{ "a row that begins in itself", 4, 1, GW_CHUNK_PAGES + 19 },
		{ "a row that ends in itself", 4, 1, GW_CHUNK_PAGES + 13 },
		{ "an unknown flag", 1, 2, 0 },
		{ "an unknown flag more", 1, 129, 0 },
	};
	struct road *r = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		put_copy(r, bad[i].count, bad[i].flags, bad[i].from);
		if (decode(r, 1) != -EPROTO)
			fail_msg("accepted: %s", bad[i].what);
	}
	for (uint32_t len = 0; len < 20; len++) {
		r->len = put_record(r->payload, GW_STAGE_DUPLICATE, 16, 1, len);
		memset(r->payload + GW_RECORD_HEADER, 0, len);
		assert_int_equal(decode(r, 1), len == 8 ? 0 : -EPROTO);
	}
	assert_int_equal(r->shadow.calls, 1);
	assert_int_equal(r->shadow.read, 1);
	/* The yardstick: next to each of the bad ones lies a good one. */
	put_copy(r, 1, 0, PAGES - 1);
	assert_int_equal(decode(r, 1), 0);
	put_copy(r, 2, 1, GW_CHUNK_PAGES - 2);
	assert_int_equal(decode(r, 1), 0);
	put_copy(r, 4, 1, GW_CHUNK_PAGES + 20);
	assert_int_equal(decode(r, 1), 0);
	put_copy(r, 4, 1, GW_CHUNK_PAGES + 12);
	assert_int_equal(decode(r, 1), 0);
	/* The sink's failure is the answer, and nothing is placed. */
	r->shadow.calls = 0;
	r->shadow.rc = -EIO;
	assert_int_equal(decode(r, 1), -EIO);
	assert_int_equal(r->shadow.calls, 0);
}

/* Address space of this process, in bytes. */
static size_t address_space(void)
{
	char text[128] = "";
	gw_autofd int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	return strtoul(text, NULL, 10) * 4096;
}

/* What the stage adds to an encoder for @nr_pages. */
static size_t cost_of(size_t nr_pages)
{
	size_t taken[2];

	for (unsigned int on = 0; on < 2; on++) {
		struct gw_page_options o = { .off = on ? 0 : 1U << GW_STAGE_DUPLICATE };
		size_t before = address_space();
		struct gw_encoder e;

		assert_int_equal(gw_encoder_init(&e, &o, nr_pages, road_now, NULL), 0);
		taken[on] = address_space() - before;
		gw_encoder_free(&e);
		assert_true(address_space() <= before + (1 << 20));
	}
	return taken[1] - taken[0];
}

/* 8 bytes a page, up to 32 MiB: a VM of 256 GiB costs no more than one of 16. */
static void bounded_memory(void **state)
{
	const size_t slack = 1 << 20;

	(void)state;
	cost_of(1); /* what the allocator takes once */
	assert_true(cost_of(1000) <= slack);
	assert_in_range(cost_of(1 << 20), 8 << 20, (8 << 20) + slack);
	assert_in_range(cost_of(1 << 22), 32 << 20, (32 << 20) + slack);
	assert_in_range(cost_of(1 << 26), 32 << 20, (32 << 20) + slack);
}

#define road_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		road_test(one_pattern),
		road_test(pages_in_a_row),
		road_test(rows_end_with_their_chunk),
		road_test(hot_pages),
		road_test(digests_that_are_alike),
		road_test(later_rounds),
		road_test(exchange),
		cmocka_unit_test(left_out),
		cmocka_unit_test(zeros_are_no_copies),
		road_test(not_of_another_stream),
		road_test(random_streams),
		road_test(threads),
		road_test(copies_that_cannot_be),
		cmocka_unit_test(bounded_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
