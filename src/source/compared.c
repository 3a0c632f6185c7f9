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
 * Longer than a destination's own budget of time (daemon/arrival.c); and as many answers
 * without news, each of which it may take GW_COMPARE_MS for.
 */
#define COMPARED_NS (60 * GW_S)
#define NO_NEWS_MAX 60

/* Of the first round: what is due in it is held as nobody knows what. */
int gw_compared_begin(struct gw_source *s)
{
	int rc = gw_bitmap_init(&s->pending, s->memory->nr_pages);

	if (rc)
		return rc;
	for (size_t w = 0; w < s->memory->nr_pages / 64; w++) {
		s->pending.words[w] = ~s->due.words[w];
		for (uint64_t due = s->due.words[w]; due; due &= due - 1)
			gw_encoder_reuse(&s->encoder, w * 64 + (size_t)__builtin_ctzll(due),
					 GW_DIGEST_UNKNOWN);
	}
	return 0;
}

void gw_compared_free(struct gw_source *s)
{
	gw_bitmap_free(&s->pending);
	gw_bitmap_free(&s->look);
	s->comparing = false;
}

/* The pages of [s->compared, @stop) are compared, and s->absent says how they are. */
static void settle(struct gw_source *s, size_t stop)
{
	for (size_t page = s->compared; page < stop; page++) {
		const bool absent = gw_bitmap_test(&s->absent, page);

		s->absent_pages += absent;
		if (!gw_bitmap_test(&s->pending, page))
			continue;
		if (absent)
			gw_encoder_reuse(&s->encoder, page, GW_DIGEST_UNKNOWN);
		if (absent || gw_bitmap_test(&s->look, page))
			gw_bitmap_set(&s->due, page);
		else
			s->reused += !gw_digest_is_zero(s->ledger->digests[page]);
	}
	s->compared = stop;
}

/* What is not known in time is sent. */
static void give_up(struct gw_source *s)
{
	gw_bitmap_set_range(&s->absent, s->compared, s->memory->nr_pages - s->compared);
	settle(s, s->memory->nr_pages);
}

static void show(struct gw_source *s)
{
	snprintf(s->waits_for, sizeof(s->waits_for),
		 "comparing what it kept of the VM's memory: %zu %%",
		 s->compared * 100 / s->memory->nr_pages);
	s->ops->report(s->env);
}

static int ask(struct gw_source *s)
{
	size_t first = s->compared, count = 0;
	struct gw_reader r;
	int rc = gw_frame_send(s->control, GW_MSG_COMPARE, GW_COMPARE_MS, NULL, 0);

	if (rc)
		return gw_fail_prefix(rc, "destination: ");
	rc = gw_source_expect(s, GW_MSG_COMPARED,
			      s->ops->now(s->env) + GW_COMPARE_MS * GW_MS + GW_ANSWER_NS);
	if (rc)
		return rc;
	r = (struct gw_reader){ s->inbox.payload, s->inbox.len };
	while ((rc = gw_runs_take(&r, s->memory->nr_pages, &first, &count)) > 0)
		gw_bitmap_set_range(&s->absent, first, count);
	if (rc || s->inbox.arg < first + count || s->inbox.arg > s->memory->nr_pages)
		return gw_fail(-EPROTO,
			       "destination: has compared its image up to page %llu, "
			       "which cannot be",
			       (unsigned long long)s->inbox.arg);
	settle(s, s->inbox.arg);
	return 0;
}

int gw_compared_rest(struct gw_source *s)
{
	const int64_t by = s->ops->now(s->env) + COMPARED_NS;
	const size_t pages = s->memory->nr_pages;
	unsigned int no_news = 0;
	int rc = 0;

	while (!rc && s->compared < pages) {
		const size_t before = s->compared;

		gw_bitmap_zero(&s->due);
		rc = s->ops->cancelled(s->env);
		if (!rc && s->ops->now(s->env) < by && no_news < NO_NEWS_MAX)
			rc = ask(s);
		else if (!rc)
			give_up(s);
		no_news += s->compared == before;
		show(s);
		if (!rc && gw_bitmap_next(&s->due, 0, pages, true) < pages)
			rc = gw_round_send(s, false);
	}
	s->waits_for[0] = '\0';
	gw_compared_free(s);
	return rc;
}
