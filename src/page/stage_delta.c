// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_delta.c - pages of which the destination holds an older version that is
 * still here: only what changed travels (decision 9).
 *
 * Wire form: that of amend.h; what is said of a page is the length of its runs
 * in bytes, and its changes are its runs, in ascending order; none if nothing changed.
 *
 * A run is bytes of the page that changed, in a row:
 *
 *   bytes
 *     1-2  unchanged bytes since the run before, or the page's start
 *     1-2  length of the run, at least 1
 *          the new bytes
 *
 * A number below 128 is one byte; else its low 7 bits are in the first, with
 * bit 7 set, and the rest in the second. All bytes outside the runs are those
 * that the destination holds.
 *
 * The older versions are in the cache of sent.h, which all streams share. The
 * first round sends every page and would only fill it with what is never
 * written again: it keeps pages from the second on, those being rewritten. A
 * page that travels replaces its older version there, whichever stage sent it.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "amend.h"
#include "codec.h"
#include "error.h"
#include "sent.h"
#include "stage.h"

#define ROUND_FIRST 2			   /* from which on pages are kept */
#define RUNS_MAX    (GW_PAGE_SIZE / 4 * 3) /* beyond it the page had better travel whole */
#define BODY_MAX    (GW_CHUNK_PAGES * (GW_AMEND_HEAD + RUNS_MAX))

/*
 * Unchanged bytes between two runs that are not worth ending the first: to
 * begin another costs two bytes too.
 */
#define GAP_MIN 3

#define WORD  64UL /* bytes compared in one step: a bit for each */
#define SHORT 16UL /* runs up to it are copied in one move */

/* In a batch: a stream's own. */
struct delta {
	struct gw_pageset given; /* of this batch: the cache knows of them */
	uint8_t body[BODY_MAX + SHORT];
};

typedef uint8_t vector __attribute__((vector_size(16)));

/* Bit i: whether byte i of the WORD differs. */
static inline uint64_t differences(const uint8_t *a, const uint8_t *b)
{
	uint64_t x[WORD / 8], y[WORD / 8], any = 0, mask = 0;

	memcpy(x, a, WORD);
	memcpy(y, b, WORD);
	for (unsigned int i = 0; i < WORD / 8; i++)
		any |= x[i] ^ y[i];
	if (!any)
		return 0;
	for (unsigned int i = 0; i < WORD; i += 16) {
		vector v, w;
		uint64_t ones[2];

		memcpy(&v, a + i, 16);
		memcpy(&w, b + i, 16);
		v = (vector)(v != w) & 1;
		memcpy(ones, &v, 16);
		/* The product gathers the eight bytes' lowest bits in its top byte. */
		mask |= le64toh(ones[0]) * 0x0102040810204080ULL >> 56 << i;
		mask |= le64toh(ones[1]) * 0x0102040810204080ULL >> 56 << (i + 8);
	}
	return mask;
}

static uint8_t *put_number(uint8_t *at, unsigned int value)
{
	if (value < 128) {
		*at++ = (uint8_t)value;
		return at;
	}
	*at++ = (uint8_t)(value | 128);
	*at++ = (uint8_t)(value >> 7);
	return at;
}

/* The run [@start, @stop) of @page, @gap bytes after the last; NULL if it is too much. */
static inline uint8_t *put_run(uint8_t *at, const uint8_t *end, const uint8_t *page,
			       unsigned int gap, unsigned int start, unsigned int stop)
{
	const unsigned int len = stop - start;

	at = put_number(at, gap);
	at = put_number(at, len);
	if (end - at < (ptrdiff_t)len)
		return NULL;
	if (len <= SHORT && start + SHORT <= GW_PAGE_SIZE)
		memcpy(at, page + start, SHORT);
	else
		memcpy(at, page + start, len);
	return at + len;
}

/* What turns @old into @page, at @at. Return: its end, or NULL if it is too much. */
static uint8_t *put_runs(uint8_t *at, const uint8_t *old, const uint8_t *page)
{
	const uint8_t *end = at + RUNS_MAX;
	/* The run at hand, none while it is empty, and the end of the one before. */
	unsigned int start = 0, stop = 0, last = 0;

	for (unsigned int word = 0; word < GW_PAGE_SIZE; word += WORD) {
		uint64_t mask = differences(old + word, page + word);

		while (mask) {
			const unsigned int skip = (unsigned int)__builtin_ctzll(mask);
			const uint64_t equal = ~(mask >> skip);
			const unsigned int len = equal ? (unsigned int)__builtin_ctzll(equal)
						       : WORD;
			const unsigned int here = word + skip;

			mask = skip + len < WORD ? mask >> (skip + len) << (skip + len) : 0;
			if (start == stop) {
				start = here;
			} else if (here >= stop + GAP_MIN) {
				at = put_run(at, end, page, start - last, start, stop);
				if (!at)
					return NULL;
				last = stop;
				start = here;
			}
			stop = here + len;
		}
	}
	return start == stop ? at : put_run(at, end, page, start - last, start, stop);
}

static int delta_open(struct gw_encoder *e)
{
	struct gw_sent *sent;
	int rc = gw_sent_open(&sent, e->options.delta_cache);

	e->stage[GW_STAGE_DELTA] = sent;
	return rc;
}

static void delta_close(struct gw_encoder *e)
{
	gw_sent_close(e->stage[GW_STAGE_DELTA]);
	e->stage[GW_STAGE_DELTA] = NULL;
}

static int delta_open_batch(struct gw_batch *batch)
{
	if (!batch->encoder->stage[GW_STAGE_DELTA])
		return 0;
	batch->stage[GW_STAGE_DELTA] = calloc(1, sizeof(struct delta));
	return batch->stage[GW_STAGE_DELTA] ? 0 : gw_fail(-ENOMEM, "no memory for deltas");
}

static void delta_close_batch(struct gw_batch *batch)
{
	free(batch->stage[GW_STAGE_DELTA]);
	batch->stage[GW_STAGE_DELTA] = NULL;
}

static void delta_encode(struct gw_batch *batch)
{
	struct delta *d = batch->stage[GW_STAGE_DELTA];
	struct gw_sent *sent = batch->encoder->stage[GW_STAGE_DELTA];
	struct gw_pageset claimed = { { 0 } };
	uint8_t *at;

	if (!d)
		return;
	at = d->body;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		const size_t page = batch->chunk * GW_CHUNK_PAGES + i;
		const uint8_t *bytes = batch->bytes + i * GW_PAGE_SIZE;
		const uint8_t *old;
		uint8_t *end;

		if (!gw_pageset_test(&batch->left, i))
			continue;
		old = gw_sent_take(sent, page, batch->held[i]);
		if (!old)
			continue;
		end = put_runs(at + GW_AMEND_HEAD, old, bytes);
		gw_sent_give(sent, page, batch->digest[i], bytes, end ? batch->encoder->round : 0);
		gw_pageset_set(&d->given, i);
		if (!end)
			continue;
		gw_amend_put_head(at, i, (unsigned int)(end - at - GW_AMEND_HEAD));
		gw_pageset_set(&claimed, i);
		at = end;
	}
	if (!gw_pageset_empty(&claimed))
		gw_batch_record(batch, &gw_stage_delta, 0, &claimed, d->body,
				(size_t)(at - d->body));
}

static void delta_remember(struct gw_batch *batch, const struct gw_pageset *all)
{
	struct gw_sent *sent = batch->encoder->stage[GW_STAGE_DELTA];
	struct delta *d = batch->stage[GW_STAGE_DELTA];
	const struct gw_bitmap *unsure = &batch->encoder->unsure; /* may not be there at all */

	if (!d || batch->encoder->round < ROUND_FIRST)
		return;
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		const size_t page = batch->chunk * GW_CHUNK_PAGES + i;

		/* What the destination held already is in the cache as it is, or not at all. */
		if (!gw_pageset_test(all, i) || gw_pageset_test(&d->given, i) ||
		    (page < unsure->bits && gw_bitmap_test(unsure, page)) ||
		    gw_pageset_test(&batch->doubted.unsure, i) ||
		    gw_digest_equal(batch->digest[i], batch->held[i]))
			continue;
		if (gw_digest_is_zero(batch->digest[i]))
			gw_sent_drop(sent, page);
		else
			gw_sent_put(sent, page, batch->digest[i], batch->bytes + i * GW_PAGE_SIZE,
				    batch->encoder->round);
	}
	d->given = (struct gw_pageset){ { 0 } };
}

static inline bool take_number(struct gw_reader *r, unsigned int *value)
{
	const uint8_t *low = gw_take(r, 1), *high;

	if (!low)
		return false;
	*value = *low;
	if (*low < 128)
		return true;
	high = gw_take(r, 1);
	if (!high || !*high)
		return false;
	*value = *low % 128U + *high * 128U;
	return true;
}

/*
 * The next run of a page; @stop is the end of the one before, and then its own.
 * Return: its @len bytes, or NULL if it cannot be.
 */
static inline const uint8_t *take_run(struct gw_reader *r, unsigned int *stop, unsigned int *len)
{
	unsigned int gap;

	if (!take_number(r, &gap) || !take_number(r, len) || !*len)
		return NULL;
	*stop += gap + *len;
	return *stop <= GW_PAGE_SIZE ? gw_take(r, *len) : NULL;
}

static long delta_length(unsigned int value)
{
	return (long)value;
}

static bool delta_sound(struct gw_reader runs)
{
	unsigned int stop = 0, len;

	while (runs.left)
		if (!take_run(&runs, &stop, &len))
			return false;
	return true;
}

static void delta_apply(uint8_t *page, unsigned int value, struct gw_reader runs)
{
	unsigned int stop = 0, len;
	const uint8_t *run;

	(void)value;
	while (runs.left && (run = take_run(&runs, &stop, &len)))
		memcpy(page + stop - len, run, len);
}

static int delta_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	static const struct gw_amend how = { "delta", delta_length, delta_sound, delta_apply };

	return gw_amend_decode(&how, rec, d, &d->stage[GW_STAGE_DELTA]);
}

static void delta_close_decoder(struct gw_decoder *d)
{
	free(d->stage[GW_STAGE_DELTA]);
	d->stage[GW_STAGE_DELTA] = NULL;
}

const struct gw_stage gw_stage_delta = {
	.id = GW_STAGE_DELTA,
	.name = "delta",
	.open = delta_open,
	.close = delta_close,
	.open_batch = delta_open_batch,
	.close_batch = delta_close_batch,
	.encode = delta_encode,
	.remember = delta_remember,
	.decode = delta_decode,
	.close_decoder = delta_close_decoder,
};
