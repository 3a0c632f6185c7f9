// SPDX-License-Identifier: GPL-2.0-or-later
/* test_stage_compress.c - batches through both methods and back, and bodies that cannot be. */
#include "road.h"

#include <errno.h>
#include <lz4.h>
#include <zstd.h>

#include "clock.h"

#define FLAG_LZ4  1
#define FLAG_ZSTD 2
#define RECORD	  (GW_RECORD_HEADER + GW_CHUNK_PAGES / 8)

static const enum gw_compress methods[] = { GW_COMPRESS_LZ4, GW_COMPRESS_ZSTD };

static struct road *road_of(enum gw_compress compress)
{
	return make_road(&(struct gw_page_options){ .compress = compress });
}

/* Lines as a log has them: each is new, and yet much of it was seen before. */
static void fill_text(struct rng *rng, uint8_t *at, size_t len)
{
	char line[128];

	while (len) {
		int n = snprintf(line, sizeof(line),
				 "%08llx host%llu kernel: eth%llu: link is up, %llu Mbit/s\n",
				 (unsigned long long)rng_next(rng) & 0xffffffff,
				 (unsigned long long)rng_below(rng, 50),
				 (unsigned long long)rng_below(rng, 4),
				 (unsigned long long)rng_below(rng, 10000));
		size_t take = (size_t)n < len ? (size_t)n : len;

		memcpy(at, line, take);
		at += take;
		len -= take;
	}
}

static uint8_t *page_at(struct road *r, uint64_t chunk, size_t page)
{
	return r->source + (chunk * GW_CHUNK_PAGES + page) * GW_PAGE_SIZE;
}

static void whole_chunk(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(methods); k++) {
		struct road *r = road_of(methods[k]);
		struct rng rng = { 1 };

		fill_text(&rng, page_at(r, 1, 0), GW_CHUNK_SIZE);
		send_chunk(r, 1, &all);
		assert_int_equal(r->batch.count[GW_STAGE_COMPRESS].pages, GW_CHUNK_PAGES);
		assert_int_equal(r->batch.nr_records, 1);
		assert_true(r->len < GW_CHUNK_SIZE / 2);
		assert_int_equal(r->shadow.calls, 1);
		assert_memory_equal(r->shadow.bytes, r->source, PAGES * GW_PAGE_SIZE);
		assert_table(r);
		assert_int_equal(r->payload[3],
				 methods[k] == GW_COMPRESS_LZ4 ? FLAG_LZ4 : FLAG_ZSTD);
		leave_road(r);
	}
}

/* Nobody's gain: all of it is raw, and not a byte longer for having been asked. */
static void random_is_left(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(methods); k++) {
		struct road *r = road_of(methods[k]);
		struct rng rng = { 2 };

		rng_fill(&rng, r->source, GW_CHUNK_SIZE);
		send_chunk(r, 0, &all);
		assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, GW_CHUNK_PAGES);
		assert_int_equal(r->len, GW_RECORD_HEADER + GW_CHUNK_SIZE);
		leave_road(r);
	}
}

/* 64 values in any order: nothing repeats, which only zstd can use. */
static void uneven_values(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(methods); k++) {
		struct road *r = road_of(methods[k]);
		struct rng rng = { 3 };

		for (size_t i = 0; i < GW_CHUNK_SIZE; i++)
			r->source[i] = (uint8_t)(32 + rng_below(&rng, 64));
		send_chunk(r, 0, &all);
		assert_int_equal(r->batch.count[methods[k] == GW_COMPRESS_ZSTD ? GW_STAGE_COMPRESS
									       : GW_STAGE_RAW]
					 .pages,
				 GW_CHUNK_PAGES);
		leave_road(r);
	}
}

/* Pages of both kinds: each takes the way that suits it. */
static void mixed_pages_part(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(methods); k++) {
		struct road *r = road_of(methods[k]);
		struct rng rng = { 4 };

		for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
			if (i % 3)
				rng_fill(&rng, page_at(r, 2, i), GW_PAGE_SIZE);
			else
				fill_text(&rng, page_at(r, 2, i), GW_PAGE_SIZE);
		}
		send_chunk(r, 2, &all);
		assert_int_equal(r->batch.count[GW_STAGE_COMPRESS].pages, 86);
		assert_int_equal(r->batch.count[GW_STAGE_RAW].pages, 170);
		assert_memory_equal(r->shadow.bytes, r->source, PAGES * GW_PAGE_SIZE);
		leave_road(r);
	}
}

/* Any content, any pages, any method: what arrives is what was due, and it is never longer. */
static void random_rounds(void **state)
{
	static const enum gw_compress all[] = { GW_COMPRESS_NONE, GW_COMPRESS_AUTO, GW_COMPRESS_LZ4,
						GW_COMPRESS_ZSTD };

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(all); k++) {
		struct road *r = road_of(all[k]);
		gw_autofree uint8_t *expected = calloc(PAGES, GW_PAGE_SIZE);
		struct rng rng = { 5 };
		uint64_t compressed = 0;

		for (int round = 0; round < 150; round++) {
			uint64_t chunk = rng_below(&rng, CHUNKS), rare = 1 + rng_below(&rng, 40);
			uint64_t mix = rng_below(&rng, 5);
			struct gw_pageset due = { 0 };
			size_t raw = 0;

			for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
				uint8_t *page = page_at(r, chunk, i);

				if (!rng_one_in(&rng, rare))
					continue;
				gw_pageset_set(&due, (unsigned int)i);
				if (rng_below(&rng, 4) < mix)
					rng_fill(&rng, page, GW_PAGE_SIZE);
				else
					fill_text(&rng, page, GW_PAGE_SIZE);
				memcpy(expected + (page - r->source), page, GW_PAGE_SIZE);
				raw += GW_PAGE_SIZE;
			}
			if (!(round % 50)) /* within a round `auto` learns what the link is */
				send_round(r, chunk, &due);
			else
				send_chunk(r, chunk, &due);
			assert_true(r->len <= raw + r->batch.nr_records * RECORD);
			assert_memory_equal(r->shadow.bytes, expected, PAGES * GW_PAGE_SIZE);
			assert_table(r);
			compressed += r->batch.count[GW_STAGE_COMPRESS].pages;
			r->now += (int64_t)r->len * 100; /* 10 MB/s */
			gw_pipeline_sent(&r->batch, r->len, (int64_t)r->len * 100);
		}
		assert_int_equal(compressed > 0, all[k] != GW_COMPRESS_NONE);
		leave_road(r);
	}
}

/* On a link of 10 MB/s `auto` begins to compress; random memory it sends as it is. */
static void auto_follows_the_link(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (int slow = 0; slow < 2; slow++) {
		struct road *r = road_of(GW_COMPRESS_AUTO);
		struct rng rng = { 6 };
		uint64_t compressed = 0;

		for (int i = 0; i < 100; i++) {
			fill_text(&rng, r->source, GW_CHUNK_SIZE);
			send_chunk(r, 0, &all);
			/* Nothing takes time but the link, if it is slow. */
			r->now += slow ? (int64_t)r->len * 100 : 0;
			gw_pipeline_sent(&r->batch, r->len, slow ? (int64_t)r->len * 100 : 0);
			compressed += r->batch.count[GW_STAGE_COMPRESS].pages;
		}
		if (slow)
			assert_true(compressed > 80 * GW_CHUNK_PAGES);
		else
			assert_int_equal(compressed, 0);
		leave_road(r);
	}
}

/* A record whose map is @map_len times 0xff, then @len bytes of @data. */
static void put_body(struct road *r, unsigned int flags, unsigned int count, size_t map_len,
		     const void *data, size_t len)
{
	r->payload[0] = GW_STAGE_COMPRESS;
	r->payload[1] = 0;
	r->payload[2] = (uint8_t)(count - 1);
	r->payload[3] = (uint8_t)flags;
	gw_put32(r->payload + 4, (uint32_t)(map_len + len));
	memset(r->payload + GW_RECORD_HEADER, 0xff, map_len);
	memcpy(r->payload + GW_RECORD_HEADER + map_len, data, len);
	r->len = GW_RECORD_HEADER + map_len + len;
}

static size_t make_lz4(const uint8_t *from, size_t len, uint8_t *to, size_t room)
{
	int made = LZ4_compress_default((const char *)from, (char *)to, (int)len, (int)room);

	assert_true(made > 0);
	return (size_t)made;
}

static size_t make_zstd(const uint8_t *from, size_t len, uint8_t *to, size_t room)
{
	size_t made = ZSTD_compress(to, room, from, len, 1);

	assert_false(ZSTD_isError(made));
	return made;
}

static void assert_refused(struct road *r, const char *what)
{
	if (decode(r, 0) != -EPROTO)
		fail_msg("accepted: %s", what);
	assert_int_equal(r->shadow.calls, 0);
}

/* A body that is right, and what becomes of it cut, longer, or with other pages. */
static void sizes_must_fit(void **state)
{
	gw_autofree uint8_t *body = malloc(4 * GW_CHUNK_SIZE);

	(void)state;
	for (unsigned int flag = FLAG_LZ4; flag <= FLAG_ZSTD; flag++) {
		struct road *r = road_of(GW_COMPRESS_NONE);
		struct rng rng = { 7 };
		size_t len;

		fill_text(&rng, r->source, 17 * GW_PAGE_SIZE);
		for (size_t pages = 15; pages <= 17; pages++) {
			size_t bytes = pages * GW_PAGE_SIZE;

			for (int off = -1; off <= 1; off++) {
				len = flag == FLAG_LZ4 ? make_lz4(r->source, bytes + off, body,
								  4 * GW_CHUNK_SIZE)
						       : make_zstd(r->source, bytes + off, body,
								   4 * GW_CHUNK_SIZE);
				put_body(r, flag, 16, 2, body, len);
				if (pages == 16 && !off)
					continue;
				assert_refused(r, "another number of bytes");
			}
		}
		len = flag == FLAG_LZ4
			      ? make_lz4(r->source, 16 * GW_PAGE_SIZE, body, 4 * GW_CHUNK_SIZE)
			      : make_zstd(r->source, 16 * GW_PAGE_SIZE, body, 4 * GW_CHUNK_SIZE);
		for (size_t cut = 0; cut < len; cut += 1 + cut / 8) {
			put_body(r, flag, 16, 2, body, cut);
			assert_refused(r, "cut short");
		}
		body[len] = 0;
		put_body(r, flag, 16, 2, body, len + 1);
		assert_refused(r, "a byte more");
		put_body(r, 3 - flag, 16, 2, body, len);
		assert_refused(r, "the other method");
		put_body(r, 0, 16, 2, body, len);
		assert_refused(r, "no method");
		put_body(r, 3, 16, 2, body, len);
		assert_refused(r, "both methods");
		put_body(r, flag | 0x80, 16, 2, body, len);
		assert_refused(r, "an unknown flag");
		put_body(r, flag, 15, 2, body, len);
		assert_refused(r, "a page beyond the span");
		put_body(r, flag, 16, 2, body, len);
		r->payload[GW_RECORD_HEADER] = 0xfe;
		assert_refused(r, "not the first page");
		r->payload[GW_RECORD_HEADER] = 0xff;
		r->payload[GW_RECORD_HEADER + 1] = 0x7f;
		assert_refused(r, "not the last page");
		put_body(r, flag, 16, 0, body, 0);
		assert_refused(r, "nothing");
		put_body(r, flag, 16, 1, body, 0);
		assert_refused(r, "half a map");
		/* And the yardstick. */
		put_body(r, flag, 16, 2, body, len);
		assert_int_equal(decode(r, 0), 0);
		assert_memory_equal(r->shadow.bytes, r->source, 16 * GW_PAGE_SIZE);
		assert_int_equal(r->shadow.placed, 16);
		r->shadow.rc = -ENOSPC;
		assert_int_equal(decode(r, 0), -ENOSPC);
		leave_road(r);
	}
}

/* A few bytes that would become very many, and frames of other kinds. */
static void bombs(void **state)
{
	const size_t huge = 256UL << 20;
	gw_autofree uint8_t *zeros = calloc(1, huge);
	gw_autofree uint8_t *body = malloc(4 * GW_CHUNK_SIZE);
	struct road *r = road_of(GW_COMPRESS_NONE);
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	size_t len, rest;
	ZSTD_outBuffer out = { body, 4 * GW_CHUNK_SIZE, 0 };
	ZSTD_inBuffer in = { zeros, GW_CHUNK_SIZE, 0 };

	(void)state;
	assert_true(zeros && body && zstd);
	len = make_zstd(zeros, huge, body, 4 * GW_CHUNK_SIZE);
	put_body(r, FLAG_ZSTD, 256, 32, body, len);
	assert_refused(r, "256 MiB in a zstd frame");
	len = make_lz4(zeros, huge, body, 4 * GW_CHUNK_SIZE);
	put_body(r, FLAG_LZ4, 256, 32, body, len < GW_CHUNK_SIZE ? len : GW_CHUNK_SIZE);
	assert_refused(r, "256 MiB in an LZ4 block");
	/* Made as a stream, a frame does not state its size, and may want a large window. */
	assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, 27)));
	do {
		rest = ZSTD_compressStream2(zstd, &out, &in,
					    in.pos < in.size ? ZSTD_e_continue : ZSTD_e_end);
		assert_false(ZSTD_isError(rest));
	} while (rest || in.pos < in.size);
	put_body(r, FLAG_ZSTD, 256, 32, body, out.pos);
	assert_refused(r, "a frame that does not state its size");
	/* Two frames that together have the right size; a skippable one before a good one. */
	len = make_zstd(zeros, GW_CHUNK_SIZE / 2, body, 4 * GW_CHUNK_SIZE);
	memcpy(body + len, body, len);
	put_body(r, FLAG_ZSTD, 256, 32, body, 2 * len);
	assert_refused(r, "two frames");
	gw_put32(body, ZSTD_MAGIC_SKIPPABLE_START);
	gw_put32(body + 4, 0);
	len = make_zstd(zeros, GW_CHUNK_SIZE, body + 8, GW_CHUNK_SIZE);
	put_body(r, FLAG_ZSTD, 256, 32, body, len + 8);
	assert_refused(r, "a skippable frame");
	put_body(r, FLAG_ZSTD, 256, 32, body + 8, len);
	assert_int_equal(decode(r, 0), 0);
	ZSTD_freeCCtx(zstd);
	leave_road(r);
}

/* What a bit of damage does to a good body: an error or other bytes, in their place. */
static void damaged_bodies(void **state)
{
	struct gw_pageset all = all_pages();

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(methods); k++) {
		struct road *r = road_of(methods[k]);
		struct rng rng = { 8 };
		unsigned int refused = 0;

		fill_text(&rng, r->source, GW_CHUNK_SIZE);
		send_chunk(r, 0, &all);
		for (int i = 0; i < 400; i++) {
			size_t at = GW_RECORD_HEADER + rng_below(&rng, i % 2 ? 64 : r->len - 8);
			uint8_t was = r->payload[at];
			int rc;

			r->payload[at] ^= (uint8_t)(1U << rng_below(&rng, 8));
			rc = decode(r, 0);
			assert_true(rc == 0 || rc == -EPROTO);
			refused += rc != 0;
			r->payload[at] = was;
		}
		assert_true(refused > 100);
		assert_int_equal(decode(r, 0), 0);
		assert_memory_equal(r->shadow.bytes, r->source, GW_CHUNK_SIZE);
		leave_road(r);
	}
}

static void options_have_names(void **state)
{
	static const char *const names[] = { "none", "auto", "lz4", "zstd" };
	enum gw_compress c;

	(void)state;
	for (unsigned int i = 0; i < GW_ARRAY_SIZE(names); i++) {
		assert_int_equal(gw_compress_parse(names[i], &c), 0);
		assert_int_equal(c, i);
	}
	assert_int_equal(gw_compress_parse("gzip", &c), -EINVAL);
	assert_message("gzip");
	assert_string_equal(gw_stage_name(GW_STAGE_COMPRESS), "compressed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_chunk),	  cmocka_unit_test(random_is_left),
		cmocka_unit_test(uneven_values),  cmocka_unit_test(mixed_pages_part),
		cmocka_unit_test(random_rounds),  cmocka_unit_test(auto_follows_the_link),
		cmocka_unit_test(sizes_must_fit), cmocka_unit_test(bombs),
		cmocka_unit_test(damaged_bodies), cmocka_unit_test(options_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
