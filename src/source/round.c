// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * round.c - one pass over the due pages, on all streams at once.
 *
 * Every stream takes the next chunk that nobody has taken, copies its due
 * pages (F12), sends them down the pipeline and the frame out. Just before the
 * copy a look without protecting finds pages that were written again since the
 * scan: they are due next round anyway, so those that change wait. A barrier ends the round, so a
 * chunk may use another stream next time.
 *
 * Each stream owns one chunk of every bitmap and table at a time; chunks are
 * four words, so streams share nothing but the counters.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "internal.h"
#include "pipeline.h"

#define PACE_STEP_NS (50 * GW_MS)

/* Of a round that tells something, at most so many times its other pages. */
#define TELEPORTED_MOST 4

/* Pages that are looked at in one go: 4 GiB, 4 ms. */
#define LOOK_PART (4096UL * GW_CHUNK_PAGES)

struct gw_round {
	struct gw_source *s;
	struct gw_batch batches[GW_STREAMS_MAX];
	_Atomic size_t next_chunk;
	_Atomic bool halted;
	_Atomic bool cut; /* no more chunks: the last one took too long, or it cannot win */
	bool last;
	/* look_ahead()'s: what was written again by now, whether and how far it looks, what it
	 * found */
	struct gw_bitmap seen;
	bool looks;
	size_t looked;
	uint64_t written;
	int64_t began; /* it, and what had been sent, or left for the next, by then */
	uint64_t before, redirtied;
};

int gw_round_start(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	struct gw_page_options options = s->params.pages;
	struct gw_round *r;
	int rc = gw_stages_limit(&options, h->stages);

	if (rc)
		return rc;
	r = calloc(1, sizeof(*r));
	if (!r)
		return gw_fail(-ENOMEM, "no memory for the streams");
	r->s = s;
	s->round = r;
	rc = gw_encoder_init(&h->encoder, &options, s->memory->nr_pages, s->ops->now, s->env);
	if (!rc && s->params.postcopy == GW_POSTCOPY_AUTO)
		rc = gw_bitmap_init(&r->seen, s->memory->nr_pages);
	for (unsigned int i = 0; !rc && i < s->params.streams; i++)
		rc = gw_batch_init(&r->batches[i], &h->encoder, i);
	return rc;
}

void gw_round_stop(struct gw_source *s)
{
	if (!s->round)
		return;
	for (unsigned int i = 0; i < GW_STREAMS_MAX; i++)
		gw_batch_free(&s->round->batches[i]);
	gw_bitmap_free(&s->round->seen);
	gw_encoder_free(&s->holder.encoder);
	free(s->round);
	s->round = NULL;
}

static void halt(void *arg)
{
	struct gw_round *r = arg;

	r->halted = true;
	gw_holder_halt(&r->s->holder);
	gw_spread_halt(r->s);
}

/*
 * Of the last round: the guest stands still no longer than it may, whatever the
 * streams wait for (invariant 13).
 */
static void tick(void *arg)
{
	struct gw_round *r = arg;

	gw_source_tick(r->s);
	if (r->s->over)
		r->cut = true;
}

/*
 * Of a round that post-copy may follow: once it has lasted as long as the guest may stand
 * still, see whether it can get anywhere. A part of memory at a time, so that nobody waits.
 */
static void look_ahead(void *arg)
{
	struct gw_round *r = arg;
	struct gw_source *s = r->s;
	const size_t nr_pages = s->memory->nr_pages, first = r->looked;
	const size_t count = nr_pages - first < LOOK_PART ? nr_pages - first : LOOK_PART;
	const int64_t ns = s->ops->now(s->env) - r->began;

	if (!count || ns < s->params.downtime_limit_ms * GW_MS)
		return;
	gw_bitmap_clear_range(&r->seen, first, count);
	if (s->tracker->ops->peek(s->tracker, first, count, &r->seen)) {
		gw_error_clear(); /* who sends will find out */
		r->looked = nr_pages;
		return;
	}
	r->looked += count;
	r->written += gw_bitmap_count(&r->seen, first, count);
	if (r->looked < nr_pages || !gw_converge_never(s, ns, ns + s->scan_ns, r->written))
		return;
	s->behind = true;
	r->cut = true;
}

/* Of any other round. */
static void tick_early(void *arg)
{
	struct gw_round *r = arg;
	struct gw_source *s = r->s;

	if (r->looks)
		look_ahead(r);
	gw_teleport_tick(s, s->ops->now(s->env) - r->began,
			 s->done_pages + s->redirtied - r->redirtied);
}

/*
 * Keep all streams together below the bandwidth limit. A frame's own time is
 * waited for after it, as a socket would, so that auto compression sees what a
 * frame costs and not what the one before it did.
 */
static void pace(struct gw_round *r, size_t bytes)
{
	struct gw_source *s = r->s;
	int64_t now = s->ops->now(s->env);
	const int64_t mine = gw_pace_take(&s->pace, s->params.max_bandwidth, bytes, now);

	/* In short steps, so that a halt is not waited for. */
	while (now < mine && !r->halted) {
		int64_t step = now + PACE_STEP_NS;

		s->ops->sleep_until(s->env, step < mine ? step : mine);
		now = s->ops->now(s->env);
	}
}

/* The chunk's due pages, and which of them were written again by now. */
static int choose(struct gw_round *r, size_t first, struct gw_batch *batch)
{
	struct gw_source *s = r->s;
	uint64_t *again = &s->again.words[first / 64];
	int rc;

	memcpy(batch->left.words, &s->due.words[first / 64], sizeof(batch->left.words));
	memset(&batch->again, 0, sizeof(batch->again));
	if (r->last || gw_pageset_empty(&batch->left))
		return 0;
	memset(again, 0, sizeof(batch->again.words));
	rc = s->tracker->ops->peek(s->tracker, first, GW_CHUNK_PAGES, &s->again);
	if (!rc)
		memcpy(batch->again.words, again, sizeof(batch->again.words));
	return rc;
}

static int copy_pages(struct gw_source *s, size_t first, struct gw_batch *batch)
{
	unsigned int i = 0;

	while (i < GW_CHUNK_PAGES) {
		unsigned int start = i;
		int rc;

		while (i < GW_CHUNK_PAGES && gw_pageset_test(&batch->left, i))
			i++;
		if (i == start) {
			i++;
			continue;
		}
		rc = gw_holes_read(s->holes, first + start, i - start,
				   batch->bytes + start * GW_PAGE_SIZE);
		if (rc)
			return rc;
	}
	return 0;
}

int gw_round_put_by(struct gw_source *s, struct gw_batch *batch, gw_send_fn *send, void *to,
		    unsigned int copies)
{
	const unsigned int pages = gw_pageset_count(&batch->left);
	size_t len = 0;
	int rc = 0;

	gw_pipeline_encode(batch);
	for (int i = 0; i < batch->nr_parts; i++)
		len += copies * batch->parts[i].iov_len;
	if (batch->nr_parts) {
		int64_t began = s->ops->now(s->env);

		rc = send(s, to, batch);
		if (!rc)
			pace(s->round, len);
		gw_pipeline_sent(batch, len, s->ops->now(s->env) - began);
	}
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++) {
		if (!batch->count[id].pages && !batch->count[id].bytes)
			continue;
		s->pages[id] += batch->count[id].pages;
		s->bytes[id] += batch->count[id].bytes;
	}
	s->redirtied += batch->redirtied;
	s->reused += batch->reused;
	s->done_pages += pages - batch->redirtied;
	return rc;
}

static int send_pages(struct gw_source *s, void *to, const struct gw_batch *batch)
{
	(void)s;
	return gw_frame_send(to, GW_MSG_PAGES, batch->chunk, batch->parts, batch->nr_parts);
}

int gw_round_put(struct gw_source *s, struct gw_batch *batch, struct gw_transport *t)
{
	return gw_round_put_by(s, batch, send_pages, t, 1);
}

int gw_round_take(struct gw_source *s, struct gw_batch *batch, size_t chunk)
{
	const size_t first = chunk * GW_CHUNK_PAGES;
	int rc = choose(s->round, first, batch);

	batch->chunk = chunk;
	if (rc || gw_pageset_empty(&batch->left))
		return rc;
	rc = copy_pages(s, first, batch);
	if (!rc && s->carried)
		gw_carried_hide(s, batch);
	return rc;
}

static int send_chunk(struct gw_round *r, unsigned int stream, size_t chunk)
{
	struct gw_batch *batch = &r->batches[stream];
	int rc = gw_round_take(r->s, batch, chunk);

	if (rc || gw_pageset_empty(&batch->left))
		return rc;
	return gw_round_put(r->s, batch, r->s->holder.streams[stream]);
}

static bool is_due(const struct gw_source *s, size_t chunk)
{
	const size_t end = (chunk + 1) * GW_CHUNK_PAGES;

	return gw_bitmap_next(&s->due, chunk * GW_CHUNK_PAGES, end, true) != end;
}

/* Once halted, a closed connection is our own doing and tells nothing. */
static int sent(const struct gw_round *r, int rc)
{
	return r->halted ? gw_fail(GW_HALTED, "the round was ended") : rc;
}

static int send_stream(struct gw_round *r, unsigned int stream)
{
	struct gw_source *s = r->s;
	const size_t chunks = s->memory->nr_pages / GW_CHUNK_PAGES;
	int rc = 0;

	/* Who has taken a chunk sends it: what nobody took is what was not sent. */
	while (!rc && !r->halted && !r->cut) {
		size_t chunk = r->next_chunk++;

		if (chunk >= chunks)
			break;
		if (gw_spread_owner(s->spread, chunk) != GW_SPREAD_MAIN || !is_due(s, chunk))
			continue;
		rc = send_chunk(r, stream, chunk);
	}
	if (!rc && !r->halted) {
		rc = gw_frame_send(s->holder.streams[stream], GW_MSG_BARRIER, s->holder.round, NULL,
				   0);
		if (!rc)
			return 0;
	}
	return sent(r, rc);
}

/* What is sub-host @k's goes to it. */
static int send_sub(struct gw_round *r, unsigned int k)
{
	struct gw_source *s = r->s;
	const size_t chunks = s->memory->nr_pages / GW_CHUNK_PAGES;
	size_t chunk = 0;
	int rc = 0;

	for (; !rc && chunk < chunks && !r->halted && !r->cut; chunk++)
		if (gw_spread_owner(s->spread, chunk) == k && is_due(s, chunk))
			rc = gw_spread_send(s, k, chunk);
	s->spread->subs[k].next = chunk;
	if (!rc && !r->halted) {
		rc = gw_spread_barrier(s, k);
		if (!rc)
			return 0;
	}
	return sent(r, rc);
}

static int send_share(void *arg, unsigned int i)
{
	struct gw_round *r = arg;
	const unsigned int streams = r->s->params.streams;

	return i < streams ? send_stream(r, i) : send_sub(r, i - streams);
}

/* From which chunk on nobody has sent anything. */
static size_t reached(const struct gw_round *r)
{
	const struct gw_spread *sp = r->s->spread;
	size_t chunk = r->next_chunk;

	for (unsigned int k = 0; sp && k < sp->nr; k++)
		if (sp->subs[k].next < chunk)
			chunk = sp->subs[k].next;
	return chunk;
}

/* To all hosts: they are sent to at a time, so it is of them together that is learned. */
static uint64_t wire_bytes(const struct gw_source *s)
{
	return gw_holder_wire_bytes(&s->holder) + gw_spread_bytes(s->spread);
}

/*
 * Learn bandwidth, bytes and time per page from a round large enough to tell. A
 * smaller one is mostly latency: it can only show that there is more bandwidth
 * than was thought, as after a round in which the network stood still.
 */
static void learn(struct gw_holder *h, const struct gw_round_stats *st, bool cut)
{
	uint64_t seen = st->ns > 0 ? (uint64_t)((double)st->wire_bytes * GW_S / (double)st->ns) : 0;
	uint64_t pages = st->sent + st->same + st->reused - st->teleported;

	/* What disks are read for takes time here, too, and says little of the network. */
	if (st->teleported > TELEPORTED_MOST * pages)
		return;
	/* One that took too long was slow, however small it was. */
	if (seen && (cut || st->wire_bytes >= (1U << 20) || (h->bandwidth && seen > h->bandwidth)))
		h->bandwidth = seen;
	/* What is reused in the first round, or read from a disk, says nothing of the last. */
	if (pages >= GW_CHUNK_PAGES && !h->encoder.reuses)
		h->wire_per_page = (double)(st->wire_bytes - st->teleported_bytes) / (double)pages;
	if (pages >= GW_CHUNK_PAGES || (pages && (double)st->ns < h->page_ns * (double)pages))
		h->page_ns = (double)st->ns / (double)pages;
}

int gw_round_send(struct gw_source *s, bool last)
{
	struct gw_holder *h = &s->holder;
	struct gw_round *r = s->round;
	struct gw_round_stats st = { .pages = gw_bitmap_count(&s->due, 0, s->memory->nr_pages) };
	void (*on_tick)(void *arg) = NULL;
	int rc;

	r->next_chunk = 0;
	r->halted = r->cut = false;
	r->last = last;
	/* All is due in the first, and none may be cut while the destination compares. */
	r->looks = s->params.postcopy == GW_POSTCOPY_AUTO && s->nr_rounds && !h->comparing;
	r->looked = 0;
	r->written = 0;
	h->round++;
	gw_encoder_round(&h->encoder, &s->due);
	gw_spread_round(s);
	s->due_pages = st.pages;
	rc = gw_teleport_round(s, last); /* may wait for who knows */
	if (rc)
		return rc;
	if (last)
		on_tick = tick;
	else if (r->looks || s->teleport.on)
		on_tick = tick_early;
	r->began = s->ops->now(s->env);
	r->before = wire_bytes(s);
	r->redirtied = s->redirtied;
	s->done_pages = 0;
	st.same = s->pages[GW_STAGE_SAME];
	st.reused = s->reused;
	st.teleported = s->pages[GW_STAGE_TELEPORT];
	st.teleported_bytes = s->bytes[GW_STAGE_TELEPORT];
	rc = s->ops->parallel(s->env, s->params.streams + (s->spread ? s->spread->nr : 0),
			      send_share, r, halt, on_tick);
	if (!rc)
		rc = gw_frame_send(h->control, GW_MSG_ROUND_END, h->round, NULL, 0);
	if (rc)
		return rc;
	if (r->cut && s->stopped)
		return gw_fail(-EAGAIN, "the guest does not go on");
	s->unsent = s->memory->nr_pages;
	if (r->cut && reached(r) * GW_CHUNK_PAGES < s->unsent)
		s->unsent = reached(r) * GW_CHUNK_PAGES;
	st.pages -= gw_source_unsent(s);
	/* A round that was cut ends like any other, and the guest runs meanwhile. */
	last = last && !r->cut;
	if (!last)
		rc = gw_teleport_wait(s, &st.disks_ns);
	st.ns = s->ops->now(s->env) - r->began - st.disks_ns;
	st.same = s->pages[GW_STAGE_SAME] - st.same;
	st.redirtied = s->redirtied - r->redirtied;
	st.reused = s->reused - st.reused;
	st.teleported = s->pages[GW_STAGE_TELEPORT] - st.teleported;
	st.teleported_bytes = s->bytes[GW_STAGE_TELEPORT] - st.teleported_bytes;
	st.sent = s->done_pages - st.same - st.reused;
	st.wire_bytes = wire_bytes(s) - r->before;
	s->rounds[s->nr_rounds < GW_ROUNDS_KEPT ? s->nr_rounds : GW_ROUNDS_KEPT - 1] = st;
	s->nr_rounds++;
	if (!rc && !last)
		learn(h, &st, r->cut);
	/* So that little is left to be told while the guest stands still. */
	if (!rc && !last && s->spread)
		rc = gw_spread_tell(s);
	if (!rc && !last && s->carried)
		rc = gw_carried_tell(s);
	return rc || !r->cut || !r->last ? rc : gw_fail(-EAGAIN, "the last pages took too long");
}

void gw_round_late(struct gw_source *s)
{
	const struct gw_round *r = s->round;
	const int64_t ns = s->ops->now(s->env) - r->began;
	const uint64_t bytes = wire_bytes(s) - r->before + s->device_bytes;

	if (ns > 0 && bytes)
		s->holder.bandwidth = (uint64_t)((double)bytes * GW_S / (double)ns) + 1;
}

/*
 * Make a page due again if its bytes are not those that travelled. A chunk that
 * is a hole is one of zeros.
 */
static int compare_stream(void *arg, unsigned int stream)
{
	struct gw_round *r = arg;
	struct gw_source *s = r->s;
	const size_t chunks = s->memory->nr_pages / GW_CHUNK_PAGES;
	uint8_t *bytes = r->batches[stream].bytes;

	while (!r->halted) {
		const size_t chunk = r->next_chunk++, first = chunk * GW_CHUNK_PAGES;
		size_t start, stop;
		int rc;

		if (chunk >= chunks)
			return 0;
		rc = gw_memory_is_hole(s->memory, first, GW_CHUNK_PAGES);
		if (rc < 0)
			return rc;
		if (rc) {
			gw_bitmap_for_each_run(&s->holder.encoder.held.filled, first,
					       first + GW_CHUNK_PAGES, start, stop)
				gw_bitmap_set_range(&s->due, start, stop - start);
			continue;
		}
		rc = gw_memory_read(s->memory, first, GW_CHUNK_PAGES, bytes);
		if (rc)
			return rc;
		for (size_t i = 0; i < GW_CHUNK_PAGES; i++)
			if (!gw_encoder_unchanged(&s->holder.encoder, first + i,
						  bytes + i * GW_PAGE_SIZE))
				gw_bitmap_set(&s->due, first + i);
	}
	return gw_fail(GW_HALTED, "the comparison was ended");
}

int gw_round_compare(struct gw_source *s)
{
	struct gw_round *r = s->round;

	r->next_chunk = 0;
	r->halted = false;
	return s->ops->parallel(s->env, s->params.streams, compare_stream, r, halt, NULL);
}
