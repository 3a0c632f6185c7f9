// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * reuse.c - what the destination kept of this VM's memory, and what it is told
 * for the next time (design, section 8; the paper's algorithm).
 *
 * The destination keeps the image of departure N. Its page is this page, if the
 * page's generation is at most N and it was not written since it arrived here;
 * then it is not even read. If it was written, or that is not known, its bytes
 * decide: the digest on arrival is the destination's (stage_same.c). If its
 * generation is higher, the destination has an older version: of that it is
 * asked for the digests of the blocks (stage_patch.c).
 *
 * What the destination calls absent is damaged or was evicted there. It is sent.
 * Where it is still comparing its image, compared.c asks for the rest after the first round.
 * Where the guest returns at once, it compares as that runs there (decision 29): until then
 * nothing that it kept is believed of a page that is sent, nor what refers to such a page.
 *
 * After the move the destination gets the ledger of this departure, and the same
 * ledger is kept here with the image. All of this only spares bytes: whatever is
 * missing or fails costs reuse, and no page is taken for another (invariant 9).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "hash.h"
#include "internal.h"
#include "log.h"
#include "runs.h"

/* For questions about blocks, in ns: some GiB of changed pages on a good link. */
#define BLOCKS_NS (2 * GW_S)

/* With --verify all is compared, while the guest stands still. */
static bool returns_at_once(const struct gw_source *s)
{
	return s->params.postcopy == GW_POSTCOPY_NOW && !s->params.verify;
}

json_t *gw_reuse_offer(const struct gw_source *s)
{
	const uint32_t departures = s->ledger ? gw_ledger_departures(s->ledger) : 0;
	json_t *ids = json_array();
	const uint8_t *id;

	/* Version 1 knows no secret: what it kept goes by digests that a guest can forge. */
	if (!s->params.reuse || s->holder.version < 2) {
		json_decref(ids);
		return NULL;
	}
	for (uint32_t n = departures; s->ledger && (id = gw_ledger_id(s->ledger, n)); n--) {
		char text[2 * GW_ID_LEN + 1];

		gw_id_format(id, text);
		json_array_append_new(ids, json_string(text));
	}
	return json_pack("{s:I,s:o,s:b}", "departures", (json_int_t)departures, "ids", ids,
			 "unchecked", returns_at_once(s));
}

/* The pages of the image that are not what they were. */
static int take_absent(struct gw_source *s, uint64_t total)
{
	struct gw_holder *h = &s->holder;
	uint64_t seen = 0;

	while (seen < total) {
		int rc = gw_holder_expect(h, GW_MSG_ABSENT, s->ops->now(s->env) + GW_ANSWER_NS);
		struct gw_reader r = { h->inbox.payload, h->inbox.len };
		size_t first = 0, count = 0;

		if (rc)
			return rc;
		while ((rc = gw_runs_take(&r, s->memory->nr_pages, &first, &count)) > 0) {
			gw_bitmap_set_range(&h->absent, first, count);
			seen += count;
		}
		if (rc || !count || seen > total)
			return gw_fail(-EPROTO,
				       "destination: a list of absent pages that cannot be");
	}
	return 0;
}

int gw_reuse_answer(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	json_t *ready = json_loadb((const char *)h->inbox.payload, h->inbox.len, 0, NULL);
	const json_t *image = json_object_get(ready, "image");
	const json_int_t number = json_integer_value(json_object_get(image, "departure"));
	const json_int_t absent = json_integer_value(json_object_get(image, "absent"));
	const bool comparing = json_is_true(json_object_get(image, "comparing"));
	const bool unchecked = json_is_true(json_object_get(image, "unchecked"));
	int rc;

	json_decref(ready);
	if (!number)
		return 0;
	if (!s->params.reuse || !s->ledger || number < 0 || absent < 0 ||
	    number > gw_ledger_departures(s->ledger) || (uint64_t)absent > s->memory->nr_pages ||
	    (comparing && (absent || !gw_holder_has(h, GW_FEATURE_LATER))) ||
	    (unchecked &&
	     (absent || comparing || !returns_at_once(s) || !gw_holder_has(h, GW_FEATURE_RETURN))))
		return gw_fail(-EPROTO, "destination: has an image that cannot be");
	rc = gw_bitmap_init(&h->absent, s->memory->nr_pages);
	h->image = (uint32_t)number;
	h->absent_pages = (uint64_t)absent;
	h->comparing = comparing;
	h->unchecked = unchecked;
	return rc ? rc : take_absent(s, (uint64_t)absent);
}

/*
 * Tell the encoder what the destination holds of the image. @same gets the pages that it
 * may have as they were on arrival here.
 */
static void assume(struct gw_source *s, struct gw_bitmap *same)
{
	struct gw_holder *h = &s->holder;
	const struct gw_ledger *l = s->ledger;

	h->encoder.reuses = true;
	for (size_t page = 0; page < l->nr_pages; page++) {
		if (l->generations[page] > h->image || gw_bitmap_test(&h->absent, page)) {
			gw_encoder_reuse(&h->encoder, page, GW_DIGEST_UNKNOWN);
			continue;
		}
		gw_bitmap_set(same, page);
		if (!gw_digest_is_zero(l->digests[page]))
			gw_encoder_reuse(&h->encoder, page, l->digests[page]);
	}
}

/* Nobody has compared it: a page is told by its digest, and nothing refers to another. */
static int assume_unchecked(struct gw_source *s, const struct gw_bitmap *same)
{
	struct gw_encoder *e = &s->holder.encoder;
	int rc = gw_encoder_kept(e, s->ledger->digests);

	for (size_t i = 0; !rc && i < (same->bits + 63) / 64; i++)
		e->may_hold.words[i] = same->words[i] & e->held.filled.words[i];
	/* Should rounds follow, too. */
	e->options.off |= 1U << GW_STAGE_DUPLICATE | 1U << GW_STAGE_DELTA | 1U << GW_STAGE_PATCH;
	return rc;
}

/* Whether it may have another version of @page, which is due. */
static bool has_older(const struct gw_source *s, size_t page)
{
	const struct gw_ledger *l = s->ledger;

	return !gw_bitmap_test(&s->holder.absent, page) &&
	       (l->generations[page] > s->holder.image || !gw_digest_is_zero(l->digests[page]));
}

/*
 * Of the data in the pages [first, first + 64), by @mask, what must be looked at. What is in
 * @same and not due the destination may hold as it is here; where writes were tracked
 * since the arrival it does, without a look.
 */
static void choose(struct gw_source *s, const struct gw_bitmap *same, size_t first, uint64_t mask,
		   struct gw_bitmap *wanted)
{
	struct gw_holder *h = &s->holder;
	const size_t word = first / 64;
	uint64_t reusable = mask & same->words[word] & ~s->due.words[word];

	if (!s->since_arrival && !h->comparing)
		reusable = 0;
	else if (!s->since_arrival)
		h->look.words[word] |= reusable;
	else if (!h->comparing)
		s->reused += (uint64_t)__builtin_popcountll(reusable &
							    h->encoder.held.filled.words[word]);
	mask &= ~reusable;
	s->due.words[word] |= mask;
	for (; mask && !h->unchecked; mask &= mask - 1) {
		const size_t page = first + (size_t)__builtin_ctzll(mask);

		if (has_older(s, page))
			gw_bitmap_set(wanted, page);
	}
}

/*
 * Of s->due, which holds what was written since the arrival (if that is known),
 * make what must be looked at: the rest of the data, less what is reused. Of that
 * @wanted gets pages whose blocks are worth a question. One walk does for both.
 */
static int choose_due(struct gw_source *s, const struct gw_bitmap *same, struct gw_bitmap *wanted)
{
	const struct gw_bitmap *held = &s->holder.encoder.held.filled;
	struct gw_memory_walk walk = gw_memory_walk(s->memory);
	size_t page = 0, first, stop, start, end;
	int rc;

	do {
		rc = gw_memory_walk_next(&walk, &first, &stop);
		if (rc < 0)
			return rc;
		if (!rc)
			first = stop = s->memory->nr_pages;
		/* What is a hole here and is not known to be zero there. */
		gw_bitmap_for_each_run(held, page, first, start, end)
			gw_bitmap_set_range(&s->due, start, end - start);
		for (page = first; page < stop; page = end) {
			start = page / 64 * 64;
			end = start + 64 < stop ? start + 64 : stop;
			choose(s, same, start,
			       ~0ULL << (page - start) & ~0ULL >> (start + 64 - end), wanted);
		}
	} while (rc);
	return 0;
}

/* An answer to a WANT for the @pages of @wanted from @page on. -EAGAIN: it is not there yet. */
static int take_blocks(struct gw_source *s, const struct gw_bitmap *wanted, size_t page,
		       size_t pages)
{
	struct gw_holder *h = &s->holder;
	const uint64_t before = h->control->received;
	int rc = gw_holder_expect(h, GW_MSG_BLOCKS, s->ops->now(s->env) + GW_ANSWER_NS);
	struct gw_reader r = { h->inbox.payload, h->inbox.len };
	const uint8_t *has, *digests;

	/* Half an answer leaves nothing that the next message could be told from. */
	if (rc == -ETIMEDOUT && h->control->received == before)
		return -EAGAIN;
	if (rc)
		return rc;
	has = gw_take(&r, (pages + 7) / 8);
	for (size_t i = 0; has && i < pages; i++, page++) {
		struct gw_blocks blocks;

		page = gw_bitmap_next(wanted, page, wanted->bits, true);
		if (!(has[i / 8] >> i % 8 & 1))
			continue;
		digests = gw_take(&r, sizeof(blocks.digest));
		for (unsigned int k = 0; digests && k < GW_PAGE_BLOCKS; k++)
			blocks.digest[k] = gw_get64(digests + 8UL * k);
		if (digests)
			gw_encoder_base(&h->encoder, page, &blocks);
		else
			has = NULL;
	}
	if (has && !r.left)
		return 0;
	return gw_fail(-EPROTO, "destination: digests of blocks that cannot be");
}

/*
 * Two questions are under way at a time, so that neither side waits for the other.
 * They are asked over one connection and answered by one thread, before the first
 * round: after BLOCKS_NS there are no more, and the other pages travel whole. So do those
 * whose answer takes too long: it only spares bytes, and is dropped when it comes.
 */
static int ask_for_blocks(struct gw_source *s, const struct gw_bitmap *wanted)
{
	gw_autofree uint8_t *runs = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	size_t asked_from[2], asked[2], at = 0, sent = 0, answered = 0;
	const int64_t by = s->ops->now(s->env) + BLOCKS_NS;
	bool all = false;
	int rc = 0;

	if (!runs)
		return gw_fail(-ENOMEM, "no memory to ask for blocks");
	while (!rc && (!all || answered < sent)) {
		size_t len;

		all = all || s->ops->now(s->env) >= by;
		if (!all && sent - answered < 2) {
			asked_from[sent % 2] = at;
			len = gw_runs_put(wanted, &at, GW_WANT_PAGES, &asked[sent % 2], runs);
			all = !len;
			if (len)
				rc = gw_frame_send_buf(s->holder.control, GW_MSG_WANT, sent++, runs,
						       len);
			if (rc)
				gw_fail_prefix(rc, "destination: ");
			continue;
		}
		if (answered == sent) /* there was no time for even the first */
			break;
		rc = take_blocks(s, wanted, asked_from[answered % 2], asked[answered % 2]);
		if (rc == -EAGAIN) {
			gw_warn("%s: pages of which it holds an older version are sent whole",
				gw_error());
			gw_error_clear();
			s->holder.late = (unsigned int)(sent - answered);
			return 0;
		}
		answered++;
	}
	return rc;
}

int gw_reuse_due(struct gw_source *s)
{
	struct gw_bitmap wanted = { 0 }, same = { 0 };
	int rc = gw_bitmap_init(&wanted, s->memory->nr_pages);

	if (!rc)
		rc = gw_bitmap_init(&same, s->memory->nr_pages);
	if (!rc)
		assume(s, &same);
	if (!rc && s->holder.unchecked)
		rc = assume_unchecked(s, &same);
	if (!rc && s->holder.comparing)
		rc = gw_bitmap_init(&s->holder.look, s->memory->nr_pages);
	if (!rc)
		rc = choose_due(s, &same, &wanted);
	if (!rc && s->holder.comparing)
		rc = gw_compared_begin(s);
	if (!rc && gw_encoder_patches(&s->holder.encoder))
		rc = ask_for_blocks(s, &wanted);
	gw_bitmap_free(&wanted);
	gw_bitmap_free(&same);
	return rc;
}

static void rehash_chunk(void *arg, size_t chunk, uint8_t *bytes)
{
	struct gw_encoder *e = arg;

	for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
		struct gw_digest digest = { 0 };

		if (bytes)
			digest = gw_hash_page(e->options.hash, e->options.key,
					      bytes + i * GW_PAGE_SIZE);
		gw_digests_set(&e->held, chunk * GW_CHUNK_PAGES + i, digest);
	}
}

int gw_reuse_rehash(struct gw_source *s)
{
	return gw_source_whole(s, rehash_chunk, &s->holder.encoder);
}

static int send_ledger(struct gw_source *s, const struct gw_ledger *l)
{
	gw_autofree uint8_t *part = malloc(GW_LEDGER_PART_MAX);
	int rc = 0;

	if (!part)
		return gw_fail(-ENOMEM, "no memory for the ledger");
	if (!s->holder.control) /* post-copy: the destination was done before it could be told */
		return gw_fail(-ENOTCONN, "the destination has no ledger");
	for (size_t page = 0; !rc && page < l->nr_pages; page += GW_LEDGER_PART) {
		long len = gw_ledger_pack(l, page, s->holder.image, part);

		if (len < 0)
			return (int)len;
		s->ledger_bytes += (uint64_t)len;
		rc = gw_frame_send_buf(s->holder.control, GW_MSG_LEDGER, page, part, (size_t)len);
	}
	if (!rc)
		rc = gw_frame_send(s->holder.control, GW_MSG_LEDGER_END, gw_ledger_departures(l),
				   NULL, 0);
	return rc;
}

int gw_reuse_depart(struct gw_source *s, struct gw_ledger *l)
{
	int rc = s->ops->ledger(s->env, s->memory->nr_pages, l);

	if (rc)
		return rc;
	gw_ledger_set_key(l, s->key.id);
	rc = gw_ledger_depart(l, s->ledger, &s->holder.encoder.held, s->id);
	return rc ? rc : send_ledger(s, l);
}
