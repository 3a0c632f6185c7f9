// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_compress.c - the pages of a batch that nobody else took, compressed together.
 *
 * Wire form: flags say the method: 1 LZ4, 2 zstd. The body is
 *
 *   offset  bytes
 *        0  (count + 7) / 8   a bit for each page of the record's span, from the
 *                             lowest bit of the first byte on: whether it is here;
 *                             the first and the last page are, bits beyond are zero
 *           the rest          the bytes of these pages in a row, as one LZ4 block
 *                             or one zstd frame that states its content's size
 *
 * Pages that are not worth it are left to stage_raw.c: a few blocks of a batch
 * are looked at first, so random memory costs next to nothing, and in a mixed
 * batch each page is. What comes out is never longer than 95 % of the pages.
 *
 * Decode (invariant 10): the pages that the bitmap names say how long the
 * result must be, it is made in a buffer of one chunk, and neither library
 * gets to allocate by what a frame asks for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <zstd.h>

#include "cleanup.h"
#include "codec.h"
#include "compress_auto.h"
#include "error.h"
#include "stage.h"
#include "zstd_frame.h"

#define FLAG_LZ4   1
#define FLAG_ZSTD  2
#define MAP_BYTES  (GW_CHUNK_PAGES / 8)
#define WORTH(len) ((len) - (len) / 20)

/* What is looked at of a page: four slices, so that a half empty one is seen as such. */
#define SLICES	  4
#define SLICE	  256
#define LOOK	  ((size_t)SLICES * SLICE)
#define LOOKS	  16 /* pages of a batch */
/*
 * So many worth it: do not ask each page. LZ4 skips random bytes nearly as fast
 * as it is asked about them; zstd does not.
 */
#define MOST_LZ4  6
#define MOST_ZSTD 12
#define LZ4_WORTH 992 /* bytes of LOOK that LZ4 must get below */
/*
 * Sum of the squares of how often each value occurs in LOOK bytes: 5116 on
 * average in random ones, with a deviation of 90; 17400 in base64.
 */
#define EVEN	  6400

#define TRIAL_PAGES	  32
#define TRIAL_PAGES_SPARE 128 /* where they cost nothing: more is nearer to the truth */
#define CHANGE		  6   /* looks of LOOKS that turn out otherwise: another content */

/* One stream's way out. */
struct press {
	struct gw_auto control;
	unsigned int good; /* looks, when the methods were tried last */
	void *lz4;
	ZSTD_CCtx *zstd[GW_AUTO_METHODS]; /* a level each: to change it costs */
	uint8_t *gather;		  /* pages that do not lie in a row */
	uint8_t *out;			  /* room for the map, then what was compressed */
	size_t out_size;
};

/* One stream's way in. */
struct unpress {
	ZSTD_DCtx *zstd;
	uint8_t pages[GW_CHUNK_SIZE];
};

static size_t bound(void)
{
	size_t lz4 = (size_t)LZ4_compressBound((int)GW_CHUNK_SIZE);
	size_t zstd = ZSTD_compressBound(GW_CHUNK_SIZE);

	return lz4 > zstd ? lz4 : zstd;
}

/* A context takes its memory when it is first used. 0 or -ENOMEM. */
static int make_zstd(struct press *p, enum gw_auto_method method, int level)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();

	p->zstd[method] = c;
	return c && !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level))
		       ? 0
		       : -ENOMEM;
}

static int compress_open_batch(struct gw_batch *batch)
{
	struct press *p;

	if (batch->encoder->options.compress == GW_COMPRESS_NONE)
		return 0;
	p = calloc(1, sizeof(*p));
	batch->stage[GW_STAGE_COMPRESS] = p;
	if (!p)
		return gw_fail(-ENOMEM, "no memory for compression");
	p->lz4 = malloc((size_t)LZ4_sizeofState());
	p->gather = malloc(GW_CHUNK_SIZE);
	p->out_size = MAP_BYTES + bound();
	p->out = malloc(p->out_size);
	if (!p->lz4 || !p->gather || !p->out || make_zstd(p, GW_AUTO_ZSTD_2, 2) ||
	    make_zstd(p, GW_AUTO_ZSTD_3, 3))
		return gw_fail(-ENOMEM, "no memory for compression");
	gw_auto_init(&p->control, batch->encoder->now(batch->encoder->env));
	return 0;
}

static void compress_close_batch(struct gw_batch *batch)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];

	if (!p)
		return;
	for (enum gw_auto_method m = 0; m < GW_AUTO_METHODS; m++)
		ZSTD_freeCCtx(p->zstd[m]);
	free(p->lz4);
	free(p->gather);
	free(p->out);
	free(p);
	batch->stage[GW_STAGE_COMPRESS] = NULL;
}

/* Whether @method is likely to make @page smaller; half a microsecond. */
static bool is_worth(struct press *p, enum gw_auto_method method, const uint8_t *page)
{
	uint16_t seen[SLICES][256] = { { 0 } };
	uint8_t look[LOOK];
	uint32_t sum = 0;

	for (size_t s = 0; s < SLICES; s++)
		memcpy(look + s * SLICE, page + s * (GW_PAGE_SIZE / SLICES), SLICE);
	if (method == GW_AUTO_LZ4) {
		int len = LZ4_compress_fast_extState(p->lz4, (const char *)look, (char *)p->out,
						     LOOK, (int)p->out_size, 1);

		return len > 0 && len < LZ4_WORTH;
	}
	/* zstd gains where values are uneven, too; several tables, as one would stall on itself */
	for (size_t i = 0; i < LOOK; i += SLICES)
		for (size_t s = 0; s < SLICES; s++)
			seen[s][look[i + s]]++;
	for (size_t v = 0; v < 256; v++) {
		uint32_t n = (uint32_t)seen[0][v] + seen[1][v] + seen[2][v] + seen[3][v];

		sum += n * n;
	}
	return sum >= EVEN;
}

/*
 * Up to @want pages of @set, spread over it: one of each @want-th part, and not
 * always its first, as content often has a period of some power of two.
 */
static struct gw_pageset some_of(const struct gw_pageset *set, unsigned int want)
{
	const unsigned int count = gw_pageset_count(set);
	struct gw_pageset some = { { 0 } };
	unsigned int nr = 0, part = 0;

	if (count <= want)
		return *set;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES && part < want; i++) {
		if (!gw_pageset_test(set, i))
			continue;
		if (nr++ < (part * want + part * 7 % want) * count / (want * want))
			continue;
		gw_pageset_set(&some, i);
		part++;
	}
	return some;
}

static struct gw_pageset worth_of(struct gw_batch *batch, enum gw_auto_method method,
				  const struct gw_pageset *set)
{
	struct gw_pageset worth = { { 0 } };

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(set, i) && is_worth(batch->stage[GW_STAGE_COMPRESS], method,
							batch->bytes + i * GW_PAGE_SIZE))
			gw_pageset_set(&worth, i);
	return worth;
}

/* Those of the pages in @set that should be compressed. */
static struct gw_pageset choose(struct gw_batch *batch, enum gw_auto_method method,
				const struct gw_pageset *set)
{
	const struct gw_pageset some = some_of(set, LOOKS);
	const struct gw_pageset worth = worth_of(batch, method, &some);
	const unsigned int looked = gw_pageset_count(&some), good = gw_pageset_count(&worth);
	const unsigned int most = method == GW_AUTO_LZ4 ? MOST_LZ4 : MOST_ZSTD;

	if (!good || looked < LOOKS)
		return worth;
	return good > most ? *set : worth_of(batch, method, set);
}

/* The bytes of the pages in @set in a row; @len of them. */
static const uint8_t *in_a_row(struct gw_batch *batch, const struct gw_pageset *set, size_t *len)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	unsigned int at = 0, first, count;

	*len = gw_pageset_count(set) * GW_PAGE_SIZE;
	count = gw_pageset_run(set, &at, &first);
	if (count * GW_PAGE_SIZE == *len)
		return batch->bytes + first * GW_PAGE_SIZE;
	for (uint8_t *to = p->gather; count; count = gw_pageset_run(set, &at, &first)) {
		memcpy(to, batch->bytes + first * GW_PAGE_SIZE, count * GW_PAGE_SIZE);
		to += count * GW_PAGE_SIZE;
	}
	return p->gather;
}

/* Into @p->out, behind the map's room. Return: bytes, or 0 if it cannot be done. */
static size_t squeeze(struct press *p, enum gw_auto_method method, const uint8_t *bytes, size_t len)
{
	const size_t room = p->out_size - MAP_BYTES;
	size_t made;

	if (method == GW_AUTO_LZ4) {
		int rc = LZ4_compress_fast_extState(p->lz4, (const char *)bytes,
						    (char *)p->out + MAP_BYTES, (int)len, (int)room,
						    1);

		return rc > 0 ? (size_t)rc : 0;
	}
	made = ZSTD_compress2(p->zstd[method], p->out + MAP_BYTES, room, bytes, len);
	return ZSTD_isError(made) ? 0 : made;
}

/* @set with @method: what of it to record, and the length that comes out. */
static struct gw_pageset compress_pages(struct gw_batch *batch, enum gw_auto_method method,
					const struct gw_pageset *set, size_t *made)
{
	struct gw_pageset taken = choose(batch, method, set);
	const uint8_t *bytes;
	size_t len;

	*made = 0;
	if (gw_pageset_empty(&taken))
		return taken;
	bytes = in_a_row(batch, &taken, &len);
	*made = squeeze(batch->stage[GW_STAGE_COMPRESS], method, bytes, len);
	if (!*made || *made + MAP_BYTES + GW_RECORD_HEADER > WORTH(len)) {
		*made = 0;
		return (struct gw_pageset){ { 0 } };
	}
	return taken;
}

/* Bytes on the wire of @set, if @taken of it becomes @made bytes and the rest stays. */
static size_t length(const struct gw_pageset *set, const struct gw_pageset *taken, size_t made)
{
	return (gw_pageset_count(set) - gw_pageset_count(taken)) * GW_PAGE_SIZE + made;
}

/* All methods on a few pages; what comes out is thrown away. */
static void try_all(struct gw_batch *batch)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	struct gw_encoder *e = batch->encoder;
	const struct gw_pageset set = some_of(
		&batch->left, gw_auto_has_spare(&p->control) ? TRIAL_PAGES_SPARE : TRIAL_PAGES);

	for (enum gw_auto_method m = GW_AUTO_LZ4; m < GW_AUTO_METHODS; m++) {
		int64_t began = e->now(e->env);
		struct gw_pageset taken;
		size_t made;

		if (m == p->control.method)
			continue;
		taken = compress_pages(batch, m, &set, &made);
		gw_auto_trial(&p->control, m, gw_pageset_count(&set) * GW_PAGE_SIZE,
			      length(&set, &taken, made), e->now(e->env) - began);
	}
}

/* What was tried on other content tells nothing: notice when it changes. */
static void watch_content(struct gw_batch *batch)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	const struct gw_pageset some = some_of(&batch->left, LOOKS);
	const struct gw_pageset worth = worth_of(batch, GW_AUTO_LZ4, &some);
	const unsigned int good = gw_pageset_count(&worth);

	if (gw_pageset_count(&some) < LOOKS)
		return;
	if (good > p->good + CHANGE || good + CHANGE < p->good) {
		gw_auto_changed(&p->control);
		p->good = good;
	}
}

/* The record's body: the map right before what was compressed. */
static void record(struct gw_batch *batch, enum gw_auto_method method,
		   const struct gw_pageset *taken, size_t made)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	unsigned int first = 0, last = GW_CHUNK_PAGES - 1;
	size_t map_len;
	uint8_t *map;

	while (!gw_pageset_test(taken, first))
		first++;
	while (!gw_pageset_test(taken, last))
		last--;
	map_len = (last - first) / 8 + 1;
	map = p->out + MAP_BYTES - map_len;
	memset(map, 0, map_len);
	for (unsigned int i = first; i <= last; i++)
		if (gw_pageset_test(taken, i))
			map[(i - first) / 8] |= (uint8_t)(1U << (i - first) % 8);
	gw_batch_record(batch, &gw_stage_compress, method == GW_AUTO_LZ4 ? FLAG_LZ4 : FLAG_ZSTD,
			taken, map, map_len + made);
}

static void compress_encode(struct gw_batch *batch)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	struct gw_encoder *e = batch->encoder;
	const struct gw_pageset left = batch->left;
	const size_t bytes = gw_pageset_count(&left) * GW_PAGE_SIZE;
	const bool automatic = e->options.compress == GW_COMPRESS_AUTO;
	int64_t began = e->now(e->env);
	enum gw_auto_method method = e->options.compress == GW_COMPRESS_LZ4 ? GW_AUTO_LZ4
									    : GW_AUTO_ZSTD_2;
	struct gw_pageset taken = { { 0 } };
	size_t made = 0;

	if (!p)
		return;
	if (automatic) {
		method = gw_auto_offer(&p->control, began, e->round, bytes);
		if (method == GW_AUTO_NONE && gw_auto_has_spare(&p->control))
			watch_content(batch);
		if (gw_auto_wants_trial(&p->control, began)) {
			try_all(batch);
			began = e->now(e->env);
		}
	}
	if (method != GW_AUTO_NONE)
		taken = compress_pages(batch, method, &left, &made);
	if (made)
		record(batch, method, &taken, made);
	if (automatic)
		gw_auto_worked(&p->control, bytes, length(&left, &taken, made),
			       method == GW_AUTO_NONE ? 0 : e->now(e->env) - began);
}

static void compress_sent(struct gw_batch *batch, size_t bytes, int64_t ns)
{
	struct press *p = batch->stage[GW_STAGE_COMPRESS];
	struct gw_encoder *e = batch->encoder;

	if (p && e->options.compress == GW_COMPRESS_AUTO)
		gw_auto_sent(&p->control, e->now(e->env), bytes, ns);
}

/* One frame, of this format, that states @want as its content's size: nothing is allocated. */
static int unzstd(struct unpress *u, const uint8_t *from, size_t len, size_t want)
{
	size_t made;

	if (!gw_zstd_is_frame(from, len, want))
		return -EPROTO;
	if (!u->zstd)
		u->zstd = ZSTD_createDCtx();
	if (!u->zstd)
		return gw_fail(-ENOMEM, "no memory for decompression");
	made = ZSTD_decompressDCtx(u->zstd, u->pages, want, from, len);
	return made == want ? 0 : -EPROTO;
}

/* The pages that @map names, which must name the record's first and last. */
static int read_map(const struct gw_record *rec, const uint8_t *map, struct gw_pageset *set)
{
	const unsigned int bits = (rec->count + 7) / 8 * 8;

	for (unsigned int i = 0; i < bits; i++) {
		if (!(map[i / 8] >> i % 8 & 1))
			continue;
		if (i >= rec->count)
			return -EPROTO;
		gw_pageset_set(set, i);
	}
	return gw_pageset_test(set, 0) && gw_pageset_test(set, rec->count - 1) ? 0 : -EPROTO;
}

static int compress_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	struct gw_reader r = { rec->body, rec->len };
	const uint8_t *map = gw_take(&r, (rec->count + 7) / 8);
	struct unpress *u = d->stage[GW_STAGE_COMPRESS];
	struct gw_pageset set = { { 0 } };
	unsigned int at = 0, first, count;
	const uint8_t *from;
	size_t want;
	int rc = -EPROTO;

	if (!map || !r.left || (rec->flags != FLAG_LZ4 && rec->flags != FLAG_ZSTD) ||
	    read_map(rec, map, &set))
		return gw_fail(-EPROTO, "a compressed record of %u pages with %zu bytes, flags %u",
			       rec->count, rec->len, rec->flags);
	if (!u) {
		d->stage[GW_STAGE_COMPRESS] = u = malloc(sizeof(*u));
		if (!u)
			return gw_fail(-ENOMEM, "no memory for decompression");
		u->zstd = NULL;
	}
	want = gw_pageset_count(&set) * GW_PAGE_SIZE;
	if (rec->flags == FLAG_ZSTD)
		rc = unzstd(u, r.at, r.left, want);
	else if (r.left <= (size_t)LZ4_COMPRESSBOUND(GW_CHUNK_SIZE) &&
		 LZ4_decompress_safe((const char *)r.at, (char *)u->pages, (int)r.left,
				     (int)want) == (int)want)
		rc = 0;
	if (rc == -EPROTO)
		rc = gw_fail(rc, "a compressed record does not yield its %zu bytes", want);
	if (rc)
		return rc;
	from = u->pages;
	while (!rc && (count = gw_pageset_run(&set, &at, &first))) {
		rc = d->sink->place(d->sink, rec->page + first, count, from);
		from += count * GW_PAGE_SIZE;
	}
	return rc;
}

static void compress_close_decoder(struct gw_decoder *d)
{
	struct unpress *u = d->stage[GW_STAGE_COMPRESS];

	if (!u)
		return;
	ZSTD_freeDCtx(u->zstd);
	free(u);
	d->stage[GW_STAGE_COMPRESS] = NULL;
}

const struct gw_stage gw_stage_compress = {
	.id = GW_STAGE_COMPRESS,
	.name = "compressed",
	.open_batch = compress_open_batch,
	.close_batch = compress_close_batch,
	.encode = compress_encode,
	.sent = compress_sent,
	.decode = compress_decode,
	.close_decoder = compress_close_decoder,
};
