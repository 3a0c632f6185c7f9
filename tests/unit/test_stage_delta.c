// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_stage_delta.c - what changed in a page, there and back; the cache it is
 * found with, and every delta that cannot be.
 */
#include "road.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "sent.h"

#define ROOM  (8ULL << 20) /* a cache for every page of the road */
#define SCANT (1ULL << 20) /* one for less than a third of them */

static struct road *road_of(uint64_t cache)
{
	return make_road(&(struct gw_page_options){ .delta_cache = cache });
}

static int make(void **state)
{
	*state = road_of(ROOM);
	return 0;
}

static int drop(void **state)
{
	leave_road(*state);
	return 0;
}

static uint64_t sent_as(const struct road *r, unsigned int stage)
{
	return r->batch.count[stage].pages;
}

static uint64_t deltas(const struct road *r)
{
	return sent_as(r, GW_STAGE_DELTA);
}

/* A few bytes of a page become others. */
static void edit(struct rng *rng, uint8_t *page)
{
	for (uint64_t i = rng_below(rng, 4); i < 4; i++)
		page[rng_below(rng, GW_PAGE_SIZE)] ^= (uint8_t)(1 + rng_below(rng, 255));
}

static void edit_chunk(struct road *r, uint64_t chunk, struct rng *rng)
{
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
		edit(rng, r->source + (chunk * GW_CHUNK_PAGES + i) * GW_PAGE_SIZE);
}

static void assert_arrived(const struct road *r)
{
	assert_memory_equal(r->shadow.bytes, r->source, PAGES * GW_PAGE_SIZE);
	assert_table(r);
}

/* Random pages in all of @chunk, sent and then, changed, sent again: the cache has them. */
static void fill_cache(struct road *r, uint64_t chunk, struct rng *rng)
{
	const struct gw_pageset all = all_pages();

	rng_fill(rng, r->source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
	send_chunk(r, chunk, &all);
	edit_chunk(r, chunk, rng);
	send_round(r, chunk, &all);
}

static void only_what_changed(void **state)
{
	/*
	 * Page 7: 200 bytes on, one; 100 on, four, of which the middle two did not
	 * change; page 255: the last byte.
	 */
	static const uint8_t expected[] = {
		7,   10, 0, 0xc8, 0x01, 1, 0x11, 100, 4, 1, 0x55, 0x55, 2, /* page 7 */
		255, 4,	 0, 0xff, 0x1f, 1, 3,				   /* page 255 */
	};
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	struct rng rng = { 1 };
	uint8_t *chunk = r->source + GW_CHUNK_SIZE;

	fill_cache(r, 1, &rng);
	memset(chunk + 7 * GW_PAGE_SIZE, 0x55, GW_PAGE_SIZE);
	memset(chunk + 255 * GW_PAGE_SIZE, 0x55, GW_PAGE_SIZE);
	send_round(r, 1, &all);
	chunk[7 * GW_PAGE_SIZE + 200] = 0x11;
	chunk[7 * GW_PAGE_SIZE + 301] = 1;
	chunk[7 * GW_PAGE_SIZE + 304] = 2;
	chunk[GW_CHUNK_SIZE - 1] = 3;
	send_round(r, 1, &all);
	assert_int_equal(deltas(r), 2);
	assert_int_equal(sent_as(r, GW_STAGE_SAME), GW_CHUNK_PAGES - 2);
	assert_int_equal(r->len, GW_RECORD_HEADER + sizeof(expected));
	assert_int_equal(r->payload[0], GW_STAGE_DELTA);
	assert_int_equal(r->payload[1], 7);
	assert_int_equal(r->payload[2], 255 - 7);
	assert_memory_equal(r->payload + GW_RECORD_HEADER, expected, sizeof(expected));
	assert_string_equal(gw_stage_name(GW_STAGE_DELTA), "delta");
	assert_arrived(r);
}

/* The first round is not kept; what is sent again is, and is a base from then on. */
static void kept_when_sent_again(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	struct rng rng = { 2 };

	rng_fill(&rng, r->source, GW_CHUNK_SIZE);
	send_chunk(r, 0, &all);
	for (int round = 2; round < 6; round++) {
		edit_chunk(r, 0, &rng);
		send_round(r, 0, &all);
		assert_int_equal(deltas(r), round == 2 ? 0 : GW_CHUNK_PAGES);
		assert_arrived(r);
	}
	assert_in_range(r->len, 1, GW_CHUNK_PAGES * 20);
}

/* Page 0 in three steps: by another stage, and then what changed since. */
static void whoever_sent_it(void **state)
{
	const struct gw_pageset one = gw_pageset_of(0, 1);
	struct road *r = *state;
	struct rng rng = { 3 };

	fill_cache(r, 0, &rng);
	rng_fill(&rng, r->source, GW_PAGE_SIZE); /* too much for a delta */
	send_round(r, 0, &one);
	assert_int_equal(sent_as(r, GW_STAGE_RAW), 1);
	edit(&rng, r->source);
	send_round(r, 0, &one);
	assert_int_equal(deltas(r), 1);
	send_round(r, 0, &one);
	assert_int_equal(sent_as(r, GW_STAGE_SAME), 1);
	edit(&rng, r->source);
	send_round(r, 0, &one);
	assert_int_equal(deltas(r), 1);
	assert_arrived(r);
	/* Of zeros nothing is kept: the page itself is shorter than what changed. */
	memset(r->source, 0, GW_PAGE_SIZE);
	send_round(r, 0, &one);
	assert_int_equal(sent_as(r, GW_STAGE_ZERO), 1);
	edit(&rng, r->source);
	send_round(r, 0, &one);
	assert_int_equal(deltas(r), 0);
	assert_arrived(r);
}

/* Invariant 11: a version that the destination does not hold is no base. */
static void base_must_be_held(void **state)
{
	const struct gw_pageset one = gw_pageset_of(5, 1);
	struct road *r = *state;
	struct rng rng = { 4 };
	uint8_t *page = r->source + 5 * GW_PAGE_SIZE;

	fill_cache(r, 0, &rng);
	rng_fill(&rng, r->shadow.bytes + 5 * GW_PAGE_SIZE, GW_PAGE_SIZE);
	gw_digests_set(&r->encoder.held, 5,
		       gw_key_page(&r->key, r->shadow.bytes + 5 * GW_PAGE_SIZE));
	edit(&rng, page);
	send_round(r, 0, &one);
	assert_int_equal(deltas(r), 0);
	assert_arrived(r);
	edit(&rng, page);
	send_round(r, 0, &one);
	assert_int_equal(deltas(r), 1);
	assert_arrived(r);
}

/* Without `same`, a page that did not change is a delta without runs. */
static void unchanged_without_same(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = make_road(
		&(struct gw_page_options){ .delta_cache = ROOM, .off = 1U << GW_STAGE_SAME });
	struct rng rng = { 5 };

	(void)state;
	fill_cache(r, 0, &rng);
	send_round(r, 0, &all);
	assert_int_equal(deltas(r), GW_CHUNK_PAGES);
	assert_int_equal(r->len, GW_RECORD_HEADER + 3 * GW_CHUNK_PAGES);
	assert_arrived(r);
	leave_road(r);
}

/* A delta is at most three quarters of a page; as many as fit go into one frame. */
static void longest_deltas(void **state)
{
	const struct gw_pageset all = all_pages();
	struct road *r = *state;
	struct rng rng = { 6 };

	fill_cache(r, 0, &rng);
	for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
		uint8_t *page = r->source + i * GW_PAGE_SIZE;

		/* One run, with a head of 1 + 2 bytes, around the limit. */
		for (size_t k = 0; k < 3072 - 3 + i % 2; k++)
			page[100 + k] ^= 0xff;
	}
	send_round(r, 0, &all);
	assert_int_equal(deltas(r), GW_CHUNK_PAGES / 2);
	assert_int_equal(sent_as(r, GW_STAGE_RAW), GW_CHUNK_PAGES / 2);
	assert_arrived(r);
	for (size_t i = 0; i < GW_CHUNK_SIZE; i++)
		if (i % GW_PAGE_SIZE < 3072 - 3)
			r->source[i] ^= 0xff;
	send_round(r, 0, &all);
	assert_int_equal(deltas(r), GW_CHUNK_PAGES);
	assert_int_equal(r->len, GW_RECORD_HEADER + GW_CHUNK_PAGES * (3 + 3072));
	assert_arrived(r);
}

/* Some way a guest may write to a page. */
static void write_page(struct rng *rng, uint8_t *page)
{
	size_t at = rng_below(rng, GW_PAGE_SIZE), len = 1 + rng_below(rng, GW_PAGE_SIZE - at);

	switch (rng_below(rng, 7)) {
	case 0:
		rng_fill(rng, page, GW_PAGE_SIZE);
		break;
	case 1:
		memset(page, 0, GW_PAGE_SIZE);
		break;
	case 2:
		rng_fill(rng, page + at, len);
		break;
	case 3:
		memmove(page, page + at, GW_PAGE_SIZE - at);
		break;
	case 4:
		for (size_t i = at; i < GW_PAGE_SIZE; i += 1 + rng_below(rng, 9))
			page[i]++;
		break;
	case 5:
		memset(page + at, 0, len);
		break;
	default:
		edit(rng, page);
	}
}

/* Pages that are not due keep what the destination holds, whatever the copy says. */
static void any_writes_in_any_cache(void **state)
{
	static const uint64_t caches[] = { 0, 1, 40000, 200000, SCANT, ROOM };

	(void)state;
	for (size_t c = 0; c < GW_ARRAY_SIZE(caches); c++) {
		struct road *r = road_of(caches[c]);
		gw_autofree uint8_t *expected = calloc(PAGES, GW_PAGE_SIZE);
		struct rng rng = { 7 + c };
		uint64_t n = 0;

		for (int round = 0; round < 60; round++) {
			uint64_t chunk = rng_below(&rng, CHUNKS);
			struct gw_pageset due = { 0 };

			for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
				size_t at = (chunk * GW_CHUNK_PAGES + i) * GW_PAGE_SIZE;

				if (rng_one_in(&rng, 2))
					write_page(&rng, r->source + at);
				if (rng_one_in(&rng, 2))
					continue;
				gw_pageset_set(&due, i);
				memcpy(expected + at, r->source + at, GW_PAGE_SIZE);
			}
			send_round(r, chunk, &due);
			assert_memory_equal(r->shadow.bytes, expected, PAGES * GW_PAGE_SIZE);
			assert_table(r);
			n += deltas(r);
		}
		if (caches[c] < 40000)
			assert_int_equal(n, 0);
		else
			assert_true(n > 0);
		leave_road(r);
	}
}

/* One round in which all pages of the road are due and edited, @fresh of them anew. */
static uint64_t rewrite(struct road *r, struct rng *rng, size_t fresh)
{
	const struct gw_pageset all = all_pages();
	uint64_t n = 0;

	for (size_t i = 0; i < PAGES; i++) {
		if (i < fresh)
			rng_fill(rng, r->source + i * GW_PAGE_SIZE, GW_PAGE_SIZE);
		else
			edit(rng, r->source + i * GW_PAGE_SIZE);
	}
	gw_bitmap_set_range(&r->due, 0, PAGES);
	gw_encoder_round(&r->encoder, &r->due);
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
		send_chunk(r, chunk, &all);
		n += deltas(r);
	}
	assert_arrived(r);
	return n;
}

/* A working set larger than the cache does not wash it out. */
static void no_thrashing(void **state)
{
	struct road *r = road_of(SCANT);
	const size_t places = gw_sent_places(r->encoder.stage[GW_STAGE_DELTA]);
	struct rng rng = { 20 };

	(void)state;
	assert_in_range(places, 1, PAGES / 3);
	rewrite(r, &rng, PAGES);
	rewrite(r, &rng, 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(rewrite(r, &rng, 0), places);
	leave_road(r);
}

/*
 * Pages of which a delta never pays give way to those of which it does, though
 * these are few, come last in each round, and the cache is small.
 */
static void useless_pages_give_way(void **state)
{
	struct road *r = road_of(200000);
	const size_t places = gw_sent_places(r->encoder.stage[GW_STAGE_DELTA]);
	uint64_t before = 0, n = 0;
	struct rng rng = { 21 };

	(void)state;
	assert_in_range(places, 1, PAGES / 10);
	for (int i = 0; i < 12; i++) {
		n = rewrite(r, &rng, PAGES - 2 * places);
		assert_true(n >= before);
		before = n;
	}
	assert_in_range(n, places / 2, places);
	leave_road(r);
}

/* A working set that moves on gets the cache after a few rounds, not before. */
static void stale_pages_give_way(void **state)
{
	struct road *r = road_of(SCANT);
	const size_t places = gw_sent_places(r->encoder.stage[GW_STAGE_DELTA]);
	const struct gw_pageset all = all_pages();
	struct rng rng = { 22 };

	(void)state;
	rng_fill(&rng, r->source + GW_CHUNK_SIZE, GW_CHUNK_SIZE);
	send_chunk(r, 1, &all);
	fill_cache(r, 0, &rng);
	for (int i = 0; i <= GW_SENT_AGE; i++) {
		edit_chunk(r, 1, &rng);
		send_round(r, 1, &all);
		assert_int_equal(deltas(r), 0);
	}
	edit_chunk(r, 1, &rng);
	send_round(r, 1, &all);
	assert_int_equal(deltas(r), places);
	assert_arrived(r);
	leave_road(r);
}

/* Every size: no more than that, not much less, and each place a page of its own. */
static void cache_within_its_bound(void **state)
{
	uint8_t page[GW_PAGE_SIZE];
	struct gw_sent *sent;
	uint64_t bytes = 0, set;

	(void)state;
	do {
		assert_int_equal(gw_sent_open(&sent, bytes), 0);
	} while (!sent && ++bytes);
	set = gw_sent_bytes(sent);
	assert_in_range(bytes, set, set + GW_PAGE_SIZE);
	gw_sent_close(sent);
	for (; bytes < (4 << 20); bytes += 4099) {
		size_t places;

		assert_int_equal(gw_sent_open(&sent, bytes), 0);
		assert_in_range(gw_sent_bytes(sent), bytes > 2 * set ? bytes - 2 * set : 0, bytes);
		places = gw_sent_places(sent);
		for (size_t i = 0; i < places; i++) {
			memset(page, (int)i, sizeof(page));
			gw_sent_put(sent, i, (struct gw_digest){ i, 1 }, page, 2);
		}
		gw_sent_put(sent, places, (struct gw_digest){ places, 1 }, page, 3);
		assert_null(gw_sent_take(sent, places, (struct gw_digest){ places, 1 }));
		for (size_t i = 0; i < places; i++) {
			const uint8_t *there = gw_sent_take(sent, i, (struct gw_digest){ i, 1 });

			assert_non_null(there);
			memset(page, (int)i, sizeof(page));
			assert_memory_equal(page, there, sizeof(page));
			gw_sent_give(sent, i, (struct gw_digest){ i, 2 }, page, 4);
			assert_null(gw_sent_take(sent, i, (struct gw_digest){ i, 1 }));
		}
		gw_sent_drop(sent, 0);
		assert_null(gw_sent_take(sent, 0, (struct gw_digest){ 0, 2 }));
		gw_sent_close(sent);
	}
	/* What sent.h and the manual say of the overhead. */
	assert_int_equal(gw_sent_open(&sent, GW_DELTA_CACHE_DEFAULT), 0);
	assert_in_range(gw_sent_places(sent) * GW_PAGE_SIZE, GW_DELTA_CACHE_DEFAULT / 1000 * 990,
			GW_DELTA_CACHE_DEFAULT);
	gw_sent_close(sent);
}

static void deltas_that_cannot_be(void **state)
{
	/* In a record of pages 10 to 12, where 10 and 12 are all that is given. */
	static const struct {
		const char *what;
		int rc;
		unsigned int len;
		uint8_t body[24];
	} records[] = {
		{ "the yardstick", 0, 9, { 10, 3, 0, 0, 1, 9, 12, 0, 0 } },
		{ "all three", 0, 9, { 10, 0, 0, 11, 0, 0, 12, 0, 0 } },
		{ "up to the page's end", 0, 10, { 10, 4, 0, 0xff, 31, 1, 9, 12, 0, 0 } },
		{ "beyond it", -EPROTO, 11, { 10, 5, 0, 0xff, 31, 2, 9, 9, 12, 0, 0 } },
		{ "all of it beyond", -EPROTO, 10, { 10, 4, 0, 0x80, 32, 1, 9, 12, 0, 0 } },
		{ "far beyond", -EPROTO, 10, { 10, 4, 0, 0xff, 0xff, 1, 9, 12, 0, 0 } },
		{ "beyond, in two runs",
		  -EPROTO,
		  14,
		  { 10, 8, 0, 0x80, 16, 1, 9, 0x80, 16, 1, 9, 12, 0, 0 } },
		{ "an empty run", -EPROTO, 8, { 10, 2, 0, 0, 0, 12, 0, 0 } },
		{ "a gap alone", -EPROTO, 7, { 10, 1, 0, 0, 12, 0, 0 } },
		{ "half a number", -EPROTO, 7, { 10, 1, 0, 0x85, 12, 0, 0 } },
		{ "a number too long", -EPROTO, 10, { 10, 4, 0, 0x85, 0, 1, 9, 12, 0, 0 } },
		{ "a run past its page's runs", -EPROTO, 9, { 10, 3, 0, 0, 2, 9, 12, 0, 0 } },
		{ "runs past the body", -EPROTO, 6, { 10, 0, 0, 12, 1, 0 } },
		{ "runs far past the body", -EPROTO, 6, { 10, 0xff, 0xff, 12, 0, 0 } },
		{ "half a head", -EPROTO, 5, { 10, 0, 0, 12, 0 } },
		{ "nothing", -EPROTO, 0, { 0 } },
		{ "the first page alone", -EPROTO, 3, { 10, 0, 0 } },
		{ "the last page alone", -EPROTO, 3, { 12, 0, 0 } },
		{ "a page before", -EPROTO, 9, { 9, 0, 0, 10, 0, 0, 12, 0, 0 } },
		{ "a page after", -EPROTO, 9, { 10, 0, 0, 12, 0, 0, 13, 0, 0 } },
		{ "a page twice", -EPROTO, 9, { 10, 0, 0, 10, 0, 0, 12, 0, 0 } },
		{ "pages in descending order", -EPROTO, 9, { 10, 0, 0, 12, 0, 0, 11, 0, 0 } },
	};
	struct road *r = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(records); i++) {
		r->len = put_record(r->payload, GW_STAGE_DELTA, 10, 3, records[i].len);
		memcpy(r->payload + GW_RECORD_HEADER, records[i].body, records[i].len);
		r->shadow.calls = 0;
		if (decode(r, 1) != records[i].rc)
			fail_msg("not as it should be: %s: %s", records[i].what, gw_error());
		/* A record that cannot be places nothing at all. */
		if (records[i].rc)
			assert_int_equal(r->shadow.calls, 0);
	}
	r->len = put_record(r->payload, GW_STAGE_DELTA, 10, 3, records[0].len);
	memcpy(r->payload + GW_RECORD_HEADER, records[0].body, records[0].len);
	r->payload[3] = 1;
	assert_int_equal(decode(r, 1), -EPROTO);
	/* The sink's failure is the answer. */
	r->payload[3] = 0;
	r->shadow.rc = -EIO;
	assert_int_equal(decode(r, 1), -EIO);
	assert_int_equal(r->shadow.calls, 0);
}

/* A real record cut anywhere, and with any of its bytes changed. */
static void cut_and_changed(void **state)
{
	const struct gw_pageset due = gw_pageset_of(30, 9);
	struct road *r = *state;
	gw_autofree uint8_t *before = malloc(PAGES * GW_PAGE_SIZE);
	struct rng rng = { 23 };
	size_t body;

	fill_cache(r, 0, &rng);
	edit_chunk(r, 0, &rng);
	next_round(r, 0, &due);
	copy_chunk(r, 0);
	encode(r, 0, &due);
	assert_int_equal(deltas(r), 9);
	body = r->len - GW_RECORD_HEADER;
	memcpy(before, r->shadow.bytes, PAGES * GW_PAGE_SIZE);
	for (size_t cut = 0; cut < body; cut++) {
		gw_autofree uint8_t *short_one = malloc(GW_RECORD_HEADER + cut);

		memcpy(short_one, r->payload, GW_RECORD_HEADER + cut);
		gw_put32(short_one + 4, (uint32_t)cut);
		assert_int_equal(
			gw_pipeline_decode(&r->decoder, 0, short_one, GW_RECORD_HEADER + cut),
			-EPROTO);
	}
	assert_memory_equal(r->shadow.bytes, before, PAGES * GW_PAGE_SIZE);
	for (size_t i = 0; i < body * 256; i++) {
		uint8_t *byte = r->payload + GW_RECORD_HEADER + i / 256, was = *byte;
		int rc;

		*byte = (uint8_t)i;
		rc = decode(r, 0);
		assert_true(rc == 0 || rc == -EPROTO);
		*byte = was;
	}
	/* Whatever came of it, it was in these pages. */
	memcpy(r->shadow.bytes + 30 * GW_PAGE_SIZE, before + 30 * GW_PAGE_SIZE, 9 * GW_PAGE_SIZE);
	assert_memory_equal(r->shadow.bytes, before, PAGES * GW_PAGE_SIZE);
	assert_int_equal(decode(r, 0), 0);
	assert_memory_equal(r->shadow.bytes + 30 * GW_PAGE_SIZE, r->source + 30 * GW_PAGE_SIZE,
			    9 * GW_PAGE_SIZE);
}

/* A stream of the road that is not its own: its batch, its decoder, its counts. */
struct stream {
	struct road road;
	_Atomic unsigned int *next; /* chunk that nobody has taken */
	uint64_t deltas;
};

static void *run_stream(void *arg)
{
	struct stream *s = arg;
	const struct gw_pageset all = all_pages();
	unsigned int chunk;

	while ((chunk = (*s->next)++) < CHUNKS) {
		memcpy(s->road.batch.bytes, s->road.source + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
		s->road.batch.chunk = chunk;
		s->road.batch.left = all;
		gw_pipeline_encode(&s->road.batch);
		s->road.len = 0;
		for (int i = 0; i < s->road.batch.nr_parts; i++) {
			const struct iovec *part = &s->road.batch.parts[i];

			memcpy(s->road.payload + s->road.len, part->iov_base, part->iov_len);
			s->road.len += part->iov_len;
		}
		if (decode(&s->road, chunk))
			return (void *)"refused";
		s->deltas += deltas(&s->road);
	}
	return NULL;
}

/* They meet in every set: the cache is small, and holds pages of all chunks. */
static void two_streams(void **state)
{
	struct road *r = road_of(SCANT);
	const size_t places = gw_sent_places(r->encoder.stage[GW_STAGE_DELTA]);
	struct stream streams[2];
	_Atomic unsigned int next;
	struct rng rng = { 24 };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct road *own = &streams[i].road;

		memset(&streams[i], 0, sizeof(streams[i]));
		own->shadow = r->shadow;
		own->source = r->source;
		own->payload = malloc((size_t)gw_message_max(GW_MSG_PAGES));
		assert_non_null(own->payload);
		assert_int_equal(gw_batch_init(&own->batch, &r->encoder, i), 0);
		gw_decoder_init(&own->decoder, &own->shadow.sink, PAGES);
		streams[i].next = &next;
	}
	rng_fill(&rng, r->source, PAGES * GW_PAGE_SIZE);
	gw_bitmap_set_range(&r->due, 0, PAGES);
	for (int round = 1; round < 30; round++) {
		pthread_t threads[2];

		next = 0;
		for (unsigned int i = 0; i < 2; i++) {
			streams[i].deltas = 0;
			assert_int_equal(pthread_create(&threads[i], NULL, run_stream, &streams[i]),
					 0);
		}
		for (unsigned int i = 0; i < 2; i++) {
			void *refused;

			pthread_join(threads[i], &refused);
			assert_null(refused);
		}
		assert_arrived(r);
		if (round > 2)
			assert_int_equal(streams[0].deltas + streams[1].deltas, places);
		for (size_t i = 0; i < PAGES; i++)
			edit(&rng, r->source + i * GW_PAGE_SIZE);
		gw_encoder_round(&r->encoder, &r->due);
	}
	for (unsigned int i = 0; i < 2; i++) {
		gw_batch_free(&streams[i].road.batch);
		gw_decoder_free(&streams[i].road.decoder);
		free(streams[i].road.payload);
	}
	leave_road(r);
}

#define road_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		road_test(only_what_changed),
		road_test(kept_when_sent_again),
		road_test(whoever_sent_it),
		road_test(base_must_be_held),
		cmocka_unit_test(unchanged_without_same),
		road_test(longest_deltas),
		cmocka_unit_test(any_writes_in_any_cache),
		cmocka_unit_test(no_thrashing),
		cmocka_unit_test(useless_pages_give_way),
		cmocka_unit_test(stale_pages_give_way),
		cmocka_unit_test(cache_within_its_bound),
		road_test(deltas_that_cannot_be),
		road_test(cut_and_changed),
		cmocka_unit_test(two_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
