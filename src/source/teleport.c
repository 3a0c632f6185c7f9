// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * teleport.c - pages that the destination reads from its own disks (page/stage_teleport.c).
 *
 * Who knows what disks hold is asked before each round but the last, and told a little earlier that
 * it will be: what is known then goes by it. What the destination lacks after all, it says before
 * ROUND_DONE; it is due in the next round, and by no hint any more. Where most of a round's are
 * lacking, disks are not what was thought, or slower than the network, and it is left at that.
 *
 * What follows the guest in post-copy goes by what was known last (serve.c).
 */
#include <errno.h>

#include "error.h"
#include "feature.h"
#include "internal.h"
#include "runs.h"

/* Of a round's pages that went by disks, so many that are lacking tell something. */
#define LACKS_TELL 256

/* Or rounds in a row that have brought none at all: a disk that hangs, for instance. */
#define BARREN_MAX 2

bool gw_teleport_wanted(const struct gw_source *s)
{
	return s->ops->hints && s->params.pages.hash == GW_HASH_GMAC &&
	       !(s->params.pages.off >> GW_STAGE_TELEPORT & 1);
}

int gw_teleport_start(struct gw_source *s)
{
	struct gw_teleports *t = &s->teleport;
	struct gw_holder *h = &s->holder;
	int rc;

	if (s->disk_map && (!gw_holder_has(h, GW_FEATURE_DISK_MAP) || !h->disks))
		return gw_fail(
			-ENOTSUP,
			"host '%s' cannot read replicas of disks: its godwitd is older; move "
			"it without --disk-map",
			h->host);
	if (!gw_teleport_wanted(s) || !h->disks || !(h->stages >> GW_STAGE_TELEPORT & 1))
		return 0;
	rc = gw_hints_init(&t->hints, s->memory->nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&t->lacks, s->memory->nr_pages);
	t->offered = t->on = !rc;
	s->params.pages.teleports = t->on;
	return rc;
}

int gw_teleport_ask(struct gw_source *s)
{
	struct gw_teleports *t = &s->teleport;

	if (!t->on)
		return 0;
	/* Nobody who knows costs nothing but the hint; or it was ended meanwhile. */
	if (s->ops->hints(s->env, s->holder.disks, s->due_pages, &t->hints)) {
		gw_error_clear();
		return s->ops->cancelled(s->env);
	}
	t->told = true;
	t->by = t->hints.by;
	t->round_pages = s->pages[GW_STAGE_TELEPORT];
	t->round_lacks = 0;
	gw_encoder_teleports(&s->holder.encoder, &t->hints);
	return 0;
}

int gw_teleport_round(struct gw_source *s, bool last)
{
	gw_encoder_certain(
		&s->holder.encoder); /* a switchover that was to do without is taken back */
	return last ? 0 : gw_teleport_ask(s);
}

bool gw_teleport_push(struct gw_source *s)
{
	struct gw_teleports *t = &s->teleport;
	struct gw_encoder *e = &s->holder.encoder;

	/* What was unsure is missing, and is sent anew, or it has come. */
	if (e->unsure.bits)
		gw_bitmap_zero(&e->unsure);
	e->hints = NULL;
	if (!t->on || !t->told || !gw_holder_has(&s->holder, GW_FEATURE_PUSH_DISKS))
		return false;
	t->round_pages = s->pages[GW_STAGE_TELEPORT];
	t->round_lacks = 0;
	gw_encoder_teleports(e, &t->hints);
	return true;
}

bool gw_teleport_refused(struct gw_source *s, size_t page)
{
	struct gw_teleports *t = &s->teleport;

	gw_hints_drop(&t->hints, page);
	t->lacked++;
	t->round_lacks++;
	if (t->round_lacks >= LACKS_TELL &&
	    t->round_lacks > (s->pages[GW_STAGE_TELEPORT] - t->round_pages) / 2)
		t->on = false;
	return t->on;
}

void gw_teleport_tick(struct gw_source *s, int64_t ns, uint64_t done)
{
	int64_t left;

	if (!s->teleport.on || !s->ops->hints_again || !done)
		return;
	left = done < s->due_pages
		       ? (int64_t)((double)ns * (double)(s->due_pages - done) / (double)done)
		       : 0;
	s->ops->hints_again(s->env, ns + left, left);
}

/* REFUSED: some pages, ascending. */
static int heed_lacks(void *arg)
{
	struct gw_source *s = arg;
	struct gw_teleports *t = &s->teleport;
	struct gw_reader r = { s->holder.inbox.payload, s->holder.inbox.len };
	size_t first = 0, count = 0;
	int rc;

	while ((rc = gw_runs_take(&r, s->memory->nr_pages, &first, &count)) > 0) {
		for (size_t page = first; page < first + count; page++) {
			if (!gw_encoder_lacks(&s->holder.encoder, page))
				return gw_fail(-EPROTO,
					       "lacks page %zu, which no disk was to bring", page);
			gw_hints_drop(&t->hints, page);
			gw_bitmap_set(&t->lacks, page);
		}
		t->first_lack = t->nr_lacks && t->first_lack < first ? t->first_lack : first;
		t->end_lack = t->nr_lacks && t->end_lack > first + count ? t->end_lack
									 : first + count;
		t->nr_lacks += count;
		t->round_lacks += count;
	}
	return rc;
}

/* What is waited for there is no measure of the network. */
static int64_t disks_ns(const struct gw_source *s, int64_t began)
{
	const struct gw_frame *f = &s->holder.inbox;
	const int64_t most = s->ops->now(s->env) - began;
	const uint64_t ns = f->len == 8 ? gw_get64(f->payload) : 0;

	return ns < (uint64_t)most ? (int64_t)ns : most;
}

int gw_teleport_wait(struct gw_source *s, int64_t *waited)
{
	struct gw_teleports *t = &s->teleport;
	struct gw_holder *h = &s->holder;
	const int64_t began = s->ops->now(s->env);
	uint64_t pages;
	int rc;

	*waited = 0;
	if (!h->encoder.hints)
		return gw_holder_wait_round(h, s->ops->now(s->env) + GW_ROUND_NS);
	h->on_refused = heed_lacks;
	h->refused_arg = s;
	rc = gw_holder_wait_round(h, GW_FOREVER);
	h->on_refused = NULL;
	if (!rc)
		*waited = disks_ns(s, began);
	pages = s->pages[GW_STAGE_TELEPORT] - t->round_pages;
	t->lacked += t->round_lacks;
	t->barren = pages && t->round_lacks == pages ? t->barren + 1 : 0;
	if ((t->round_lacks >= LACKS_TELL && t->round_lacks > pages / 2) || t->barren >= BARREN_MAX)
		t->on = false;
	gw_encoder_certain(&h->encoder);
	if (!t->hints.lookup) /* what was told of pages serves once */
		gw_hints_clear(&t->hints);
	return rc;
}

void gw_teleport_due(struct gw_source *s)
{
	struct gw_teleports *t = &s->teleport;
	size_t start, stop;

	if (!t->nr_lacks)
		return;
	/* The guest may stand still: nothing is looked at where nothing can be. */
	gw_bitmap_for_each_run(&t->lacks, t->first_lack, t->end_lack, start, stop) {
		gw_bitmap_set_range(&s->due, start, stop - start);
		gw_bitmap_clear_range(&t->lacks, start, stop - start);
	}
	t->nr_lacks = 0;
}

void gw_teleport_free(struct gw_source *s)
{
	gw_hints_free(&s->teleport.hints);
	gw_bitmap_free(&s->teleport.lacks);
}
