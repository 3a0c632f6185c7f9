// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * compared.c - an image that the destination compares while the rounds go on.
 *
 * The destination is ready as soon as its QEMU is; what of its image is what it was
 * (invariant 9) it finds out meanwhile, page by page from the first on. The first round
 * sends what travels whatever the answer is: pages that have changed since, and
 * what was written here since they came. All others are *pending*:
 *
 *   pending ──> sent           it became due first; any answer that comes later is void
 *      │
 *      ├──> absent: due        it is not what it was there
 *      ├──> reused             it is, and has not been written here
 *      └──> look: due          it is, and nobody knows whether it was written here
 *
 * Rules: nothing that is pending is believed to be held, and no switchover begins
 * while anything is. So the comparison never holds up a guest that is stopped: it ends
 * before, by its own budget or by ours, and what is not known by then is sent.
 */
#include <stdio.h>

#include "bitmap.h"
#include "clock.h"
#include "error.h"
#include "internal.h"
#include "runs.h"

/*
 * Longer than a destination's own budget of time (daemon/arrival.c): a minute, and what
 * sending all of it at 10 Gbit/s takes. And so many answers in a row may be without
 * news, each of which it may take GW_COMPARE_MS for.
 */
#define COMPARED_NS (60 * GW_S)
#define BYTES_PER_S (10000000000ULL / 8)
#define NO_NEWS_MAX 60

/* Of the first round: what is due in it is held as nobody knows what. */
int gw_compared_begin(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	int rc = gw_bitmap_init(&h->pending, s->memory->nr_pages);

	if (rc)
		return rc;
	for (size_t w = 0; w < s->memory->nr_pages / 64; w++) {
		h->pending.words[w] = ~s->due.words[w];
		for (uint64_t due = s->due.words[w]; due; due &= due - 1)
			gw_encoder_reuse(&h->encoder, w * 64 + (size_t)__builtin_ctzll(due),
					 GW_DIGEST_UNKNOWN);
	}
	return 0;
}

void gw_compared_free(struct gw_holder *h)
{
	gw_bitmap_free(&h->pending);
	gw_bitmap_free(&h->look);
	h->comparing = false;
}

/* The pages of [s->holder.compared, @stop) are compared, and s->holder.absent says how they are. */
static void settle(struct gw_source *s, size_t stop)
{
	struct gw_holder *h = &s->holder;
	for (size_t page = h->compared; page < stop; page++) {
		const bool absent = gw_bitmap_test(&h->absent, page);

		if (!gw_bitmap_test(&s->holder.pending, page) ||
		    (absent && !gw_memory_block_of(s->memory, page)))
			continue;
		s->holder.absent_pages += absent;
		if (absent)
			gw_encoder_reuse(&h->encoder, page, GW_DIGEST_UNKNOWN);
		if (absent || gw_bitmap_test(&h->look, page))
			gw_bitmap_set(&s->due, page);
		else
			s->reused += !gw_digest_is_zero(s->ledger->digests[page]);
	}
	h->compared = stop;
}

/* What is not known in time is sent; settle() knows what is padding. */
static void give_up(struct gw_source *s)
{
	gw_bitmap_set_range(&s->holder.absent, s->holder.compared,
			    s->memory->nr_pages - s->holder.compared);
	settle(s, s->memory->nr_pages);
}

static void show(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	snprintf(h->waits_for, sizeof(h->waits_for),
		 "comparing what it kept of the VM's memory: %zu %%",
		 h->compared * 100 / s->memory->nr_pages);
	s->ops->report(s->env);
}

static int ask(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	size_t first = h->compared, count = 0;
	struct gw_reader r;
	int rc = gw_frame_send(h->control, GW_MSG_COMPARE, GW_COMPARE_MS, NULL, 0);

	if (rc)
		return gw_fail_prefix(rc, "destination: ");
	rc = gw_holder_expect(h, GW_MSG_COMPARED,
			      s->ops->now(s->env) + GW_COMPARE_MS * GW_MS + GW_ANSWER_NS);
	if (rc)
		return rc;
	r = (struct gw_reader){ h->inbox.payload, h->inbox.len };
	while ((rc = gw_runs_take(&r, s->memory->nr_pages, &first, &count)) > 0)
		gw_bitmap_set_range(&h->absent, first, count);
	if (rc || h->inbox.arg < first + count || h->inbox.arg > s->memory->nr_pages)
		return gw_fail(-EPROTO,
			       "destination: has compared its image up to page %llu, "
			       "which cannot be",
			       (unsigned long long)h->inbox.arg);
	settle(s, h->inbox.arg);
	return 0;
}

int gw_compared_rest(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	const int64_t by = s->ops->now(s->env) + COMPARED_NS +
			   (int64_t)(gw_memory_bytes(s->memory) / BYTES_PER_S) * GW_S;
	const size_t pages = s->memory->nr_pages;
	unsigned int no_news = 0;
	int rc = 0;

	while (!rc && h->compared < pages) {
		const size_t before = h->compared;

		gw_bitmap_zero(&s->due);
		rc = s->ops->cancelled(s->env);
		if (!rc && s->ops->now(s->env) < by && no_news < NO_NEWS_MAX)
			rc = ask(s);
		else if (!rc)
			give_up(s);
		no_news = h->compared == before ? no_news + 1 : 0;
		show(s);
		if (!rc && gw_bitmap_next(&s->due, 0, pages, true) < pages)
			rc = gw_round_send(s, false);
	}
	h->waits_for[0] = '\0';
	gw_compared_free(h);
	return rc;
}
