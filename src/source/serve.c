// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * serve.c - post-copy's source: the guest runs at its destination, or is about to, and what
 * it lacks of its memory is sent from here (decision 28; dest/paging.h is the other half).
 *
 *   gw_serve_open()   connections, while the guest still runs here
 *   gw_serve_begin()  it stands still: the destination is told what is missing, and from
 *                     then on gets it
 *   gw_serve_rest()   it runs there: until nothing is missing. Whatever connection is
 *                     lost, all are made again, and the destination says what it lacks
 *
 * Connection 0 is for what a guest waits for: nothing that is pushed is ever before it in
 * line. On the others there is never more under way than keeps the link busy (window.h),
 * since at the end of the same wire the answer waits behind it all the same.
 *
 * Rules: the guest is stopped here for good, so its memory does not change. Each page is
 * sent once (push.h), and again when the destination, asked anew, still lacks it. What the
 * destination holds under a missing page is believed only if it and we are the same
 * processes as in the rounds, and the page has not been sent since.
 *
 * What is pushed may go by what a disk there holds, between the same two processes. The
 * destination refuses what it does not find; and what it asks for is sent whether it is still
 * looking for it or not, since a guest does not wait for a disk. Either way the page itself
 * goes then, and with no regard to what lies there.
 *
 * Threads: one for each connection, which alone sends and receives on it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "internal.h"
#include "log.h"
#include "pipeline.h"
#include "push.h"
#include "runs.h"
#include "window.h"

#define LIST_NS	       (10 * GW_S) /* the destination says what is missing */
#define REPORT_NS      (100 * GW_MS)
/* Between two attempts to connect: 0.1 s, 0.2 s, ... */
#define RETRY_LEAST_NS (100 * GW_MS)
#define RETRY_MOST_NS  (5 * GW_S)
/* So often the destination is asked what became of a COMMIT. */
#define DOUBT_TRIES    5

struct gw_serve {
	struct gw_source *s;
	struct gw_push push;
	unsigned int n; /* connections */
	struct gw_transport *conns[GW_PAGING_MAX];
	uint64_t base[GW_PAGING_MAX]; /* bytes that had been sent before the first page */
	struct gw_batch batches[GW_PAGING_MAX];
	bool spawned;
	bool own;		/* the encoder's table is of what this process sent */
	struct gw_bitmap given; /* pages that have left since the destination told what it lacks */
	struct gw_bitmap anew;	/* that it has not, though it was told of them by digests */
	_Atomic bool disks;	/* what is pushed may go by what its disks hold */
	int64_t mended_ns, pause; /* when it was connected last; before the next attempt */
	_Atomic bool complete, failed;
	pthread_mutex_t lock; /* of what follows */
	int rc;		      /* of the first connection that failed */
	char message[GW_ERROR_MAX];
};

static int make(struct gw_source *s)
{
	struct gw_serve *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return gw_fail(-ENOMEM, "no memory to serve a guest's memory from");
	v->s = s;
	v->n = s->paging;
	gw_push_init(&v->push);
	pthread_mutex_init(&v->lock, NULL);
	s->serve = v;
	rc = gw_bitmap_init(&v->given, s->memory->nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&v->anew, s->memory->nr_pages);
	for (unsigned int i = 0; !rc && i < v->n; i++)
		rc = gw_batch_init(&v->batches[i], &s->holder.encoder, i);
	return rc;
}

static int open_connections(struct gw_serve *v)
{
	for (unsigned int i = 0; i < v->n; i++) {
		int rc = gw_holder_connect(&v->s->holder, GW_OPEN_PAGING, i, &v->conns[i]);

		if (rc)
			return gw_fail_prefix(rc, "paging connection %u of %u: ", i + 1, v->n);
		v->base[i] = v->conns[i]->sent;
	}
	return 0;
}

static void close_connections(struct gw_serve *v)
{
	for (unsigned int i = 0; i < v->n; i++)
		if (v->conns[i])
			v->conns[i]->ops->shutdown(v->conns[i]);
	if (v->spawned)
		v->s->ops->join(v->s->env);
	v->spawned = false;
	for (unsigned int i = 0; i < v->n; i++) {
		if (v->conns[i])
			v->s->holder.transferred += v->conns[i]->sent + v->conns[i]->received;
		gw_transport_close(&v->conns[i]);
	}
	v->failed = false;
}

int gw_serve_open(struct gw_source *s)
{
	int rc = s->serve ? 0 : make(s);

	if (rc)
		return rc;
	close_connections(s->serve); /* of a switchover that was taken back */
	s->serve->own = true;
	rc = open_connections(s->serve);
	/* It knows nothing of us any more: on the control connection it has said why. */
	return rc == -EREMOTEIO ? -ECONNRESET : rc;
}

/* The same, without the stages in @off. */
static int send_by(struct gw_serve *v, unsigned int i, size_t chunk, const struct gw_pageset *pages,
		   uint32_t off)
{
	struct gw_batch *batch = &v->batches[i];
	const size_t first = chunk * GW_CHUNK_PAGES;
	unsigned int at = 0, start, count;
	int rc = 0;

	batch->chunk = chunk;
	batch->off = off;
	batch->left = *pages;
	memset(&batch->again, 0, sizeof(batch->again));
	while (!rc && (count = gw_pageset_run(pages, &at, &start))) {
		for (size_t page = first + start; page < first + start + count; page++)
			gw_bitmap_put(&v->given, page);
		rc = gw_memory_read(v->s->memory, first + start, count,
				    batch->bytes + start * GW_PAGE_SIZE);
	}
	return rc ? rc : gw_round_put(v->s, batch, v->conns[i]);
}

/* The pages in @pages of @chunk, which are claimed, on connection @i. */
static int send_pages(struct gw_serve *v, unsigned int i, size_t chunk,
		      const struct gw_pageset *pages)
{
	const uint32_t off = i && v->disks ? 0 : 1U << GW_STAGE_TELEPORT;
	struct gw_pageset anew = { { 0 } }, others = *pages;
	int rc = 0;

	for (unsigned int k = 0; k < GW_CHUNK_PAGES; k++) {
		if (!gw_pageset_test(pages, k) ||
		    !gw_bitmap_has(&v->anew, chunk * GW_CHUNK_PAGES + k))
			continue;
		gw_pageset_set(&anew, k);
		gw_pageset_clear(&others, k);
	}
	if (!gw_pageset_empty(&anew))
		rc = send_by(v, i, chunk, &anew, GW_STAGES_REFERRING);
	return rc || gw_pageset_empty(&others) ? rc : send_by(v, i, chunk, &others, off);
}

/* It has been sent by a digest, and is sent itself now. */
static void add(struct gw_serve *v, size_t page)
{
	gw_bitmap_put(&v->anew, page);
	/* After a reconnection it may be on the list, and be refused as well. */
	v->s->due_pages += gw_push_add(&v->push, page);
}

/*
 * The destination does not have @page, of which it was not told that it is missing, or was told
 * by its digest: what it had kept of it is wrong (decision 29).
 */
static void give(struct gw_serve *v, size_t page)
{
	struct gw_source *s = v->s;

	if (!gw_holder_has(&s->holder, GW_FEATURE_RETURN) || !gw_memory_block_of(s->memory, page) ||
	    (!gw_encoder_refused(&s->holder.encoder, page) && !gw_push_is_new(&v->push, page)))
		return;
	if (s->holder.unchecked) {
		s->holder.absent_pages++;
		s->reused -= s->reused && !gw_digest_is_zero(s->holder.encoder.held.table[page]);
	}
	gw_encoder_reuse(&s->holder.encoder, page, GW_DIGEST_UNKNOWN);
	add(v, page);
}

/* Its disk does not have what @page should be, or not in time. Whether it was to look there. */
static bool refused(struct gw_serve *v, size_t page)
{
	if (!gw_encoder_lacks(&v->s->holder.encoder, page))
		return false;
	{
		gw_locked(&v->lock);
		v->disks = gw_teleport_refused(v->s, page) && v->disks;
	}
	add(v, page);
	return true;
}

static int take_refused(struct gw_serve *v, const struct gw_frame *f)
{
	struct gw_reader r = { f->payload, f->len };
	size_t first = 0, count = 0;
	int rc;

	while ((rc = gw_runs_take(&r, v->s->memory->nr_pages, &first, &count)) > 0)
		for (size_t page = first; page < first + count; page++)
			if (!refused(v, page))
				give(v, page);
	return rc ? gw_fail_prefix(rc, "destination: ") : 0;
}

static int answer(struct gw_serve *v, const struct gw_frame *f)
{
	struct gw_reader r = { f->payload, f->len };
	size_t first = 0, count = 0;
	int rc;

	while ((rc = gw_runs_take(&r, v->s->memory->nr_pages, &first, &count)) > 0) {
		for (size_t page = first; page < first + count; page++) {
			struct gw_pageset one = { { 0 } };

			v->s->postcopy_requests++;
			if (gw_encoder_lacks(&v->s->holder.encoder, page))
				add(v, page); /* whatever its disk has */
			else
				give(v, page);
			/* One that is taken is on its way. */
			if (!gw_push_claim(&v->push, page))
				continue;
			gw_pageset_set(&one, (unsigned int)(page % GW_CHUNK_PAGES));
			rc = send_pages(v, 0, page / GW_CHUNK_PAGES, &one);
			if (rc)
				return rc;
		}
	}
	return rc ? gw_fail_prefix(rc, "destination: ") : 0;
}

/* What the guest has waited for, for whoever looks at us. */
static int note_faults(struct gw_source *s, const struct gw_frame *f)
{
	uint64_t numbers[GW_FAULT_NUMBERS];
	int rc = gw_faults_decode(f->payload, f->len, numbers);

	if (rc)
		return gw_fail_prefix(rc, "destination: ");
	for (size_t i = 0; i < GW_FAULT_NUMBERS; i++)
		s->faults[i] = numbers[i];
	return 0;
}

static int heed_requests(struct gw_serve *v)
{
	struct gw_frame f = { 0 };
	int rc = 0;

	while (!rc && !v->complete) {
		rc = gw_frame_recv(v->conns[0], &f, GW_FOREVER);
		if (rc)
			break;
		if (f.type == GW_MSG_REQUEST)
			rc = answer(v, &f);
		else if (f.type == GW_MSG_FAULTS)
			rc = note_faults(v->s, &f);
		else if (f.type == GW_MSG_COMPLETE && !gw_push_left(&v->push))
			v->complete = true;
		else if (f.type == GW_MSG_COMPLETE)
			rc = gw_fail(-EPROTO, "destination: is complete without %zu pages",
				     gw_push_left(&v->push));
		else
			rc = gw_fail(-EPROTO, "destination: sent %s where REQUEST was due",
				     gw_message_name(f.type));
	}
	gw_frame_free(&f);
	return rc;
}

/* What comes on connection @i, one that pushes. */
static int heed_pushed(struct gw_serve *v, unsigned int i, struct gw_frame *f, struct gw_window *w)
{
	int rc = gw_frame_recv(v->conns[i], f, GW_FOREVER);

	if (rc)
		return rc;
	if (f->type == GW_MSG_REFUSED && (gw_holder_has(&v->s->holder, GW_FEATURE_RETURN) ||
					  gw_holder_has(&v->s->holder, GW_FEATURE_PUSH_DISKS)))
		return take_refused(v, f);
	if (f->type != GW_MSG_PLACED)
		return gw_fail(-EPROTO, "destination: sent %s where PLACED was due",
			       gw_message_name(f->type));
	return gw_window_placed(w, f->arg, v->s->ops->now(v->s->env));
}

static int push(struct gw_serve *v, unsigned int i)
{
	struct gw_frame f = { 0 };
	struct gw_window w;
	int rc = 0;

	gw_window_init(&w, (double)v->s->holder.bandwidth / (v->n - 1));
	while (!rc) {
		struct gw_pageset pages;
		size_t chunk;

		/* With nothing left to send: what was kept may turn out to be wrong, until the end.
		 */
		if (!gw_window_open(&w) ||
		    !gw_push_next(&v->push, gw_window_pages(&w), &chunk, &pages)) {
			rc = heed_pushed(v, i, &f, &w);
			continue;
		}
		rc = send_pages(v, i, chunk, &pages);
		gw_window_sent(&w, v->conns[i]->sent - v->base[i], v->s->ops->now(v->s->env));
	}
	gw_frame_free(&f);
	/* It may have been the last one to be needed: connection 0 tells. */
	if (gw_transport_lost(rc) && w.placed == w.sent && !gw_push_left(&v->push)) {
		gw_error_clear();
		rc = 0;
	}
	return rc;
}

static void serve_connection(void *arg, unsigned int i)
{
	struct gw_serve *v = arg;
	int rc;

	v->s->ops->urgency(v->s->env, i ? GW_BULK : GW_URGENT);
	rc = i ? push(v, i) : heed_requests(v);
	if (rc) {
		gw_locked(&v->lock);
		if (!v->failed) {
			v->rc = rc;
			snprintf(v->message, sizeof(v->message), "%s", gw_error());
		}
		v->failed = true;
	}
	v->s->ops->notify(v->s->env);
}

/* What the destination lacks, in s->due. */
static int take_list(struct gw_serve *v, bool *known, int64_t deadline)
{
	struct gw_source *s = v->s;
	struct gw_frame f = { 0 };
	size_t pages = 0;
	int rc = 0;

	gw_bitmap_zero(&s->due);
	while (!rc) {
		struct gw_reader r;
		size_t first = 0, count = 0;

		rc = gw_frame_recv(v->conns[0], &f, deadline);
		if (rc || f.type == GW_MSG_MISSING_END)
			break;
		if (f.type == GW_MSG_ERROR)
			rc = gw_fail(-EREMOTEIO, "destination: %.*s", (int)f.len,
				     (const char *)f.payload);
		else if (f.type != GW_MSG_MISSING)
			rc = gw_fail(-EPROTO, "destination: sent %s where MISSING was due",
				     gw_message_name(f.type));
		r = (struct gw_reader){ f.payload, f.len };
		while (!rc && (rc = gw_runs_take(&r, s->memory->nr_pages, &first, &count)) > 0) {
			gw_bitmap_set_range(&s->due, first, count);
			pages += count;
			/* Each once: so it ends. */
			rc = pages > s->memory->nr_pages
				     ? gw_fail(-EPROTO, "misses more pages than there are")
				     : 0;
		}
		if (rc && f.type == GW_MSG_MISSING)
			gw_fail_prefix(rc, "destination: ");
	}
	*known = f.arg;
	gw_frame_free(&f);
	return rc;
}

static void forget(struct gw_source *s, const struct gw_bitmap *pages)
{
	size_t start, stop;

	gw_bitmap_for_each_run(pages, 0, s->memory->nr_pages, start, stop)
		for (size_t page = start; page < stop; page++)
			if (gw_bitmap_test(&s->due, page))
				gw_encoder_reuse(&s->holder.encoder, page, GW_DIGEST_UNKNOWN);
}

/*
 * Of what is missing there, what the encoder cannot know any more. Where another process
 * received it, or what was kept is not compared yet: all, and nothing is sent as a change
 * in it. Else what was sent and did not come: the page is there as it was before that.
 */
static void forget_held(struct gw_serve *v, bool known)
{
	struct gw_source *s = v->s;

	v->own = v->own && known;
	if (v->own && !s->holder.unchecked) {
		forget(s, &v->given);
	} else {
		s->holder.encoder.options.off |= 1U << GW_STAGE_PATCH | 1U << GW_STAGE_DELTA;
		forget(s, &s->due);
	}
	gw_bitmap_zero(&v->given);
	gw_bitmap_zero(&v->anew);
	v->disks = v->own && gw_teleport_push(s);
}

/* It waits for what nobody has any more, and closes when it has heard that. */
static int tell_lost(struct gw_serve *v, int64_t deadline)
{
	const char *why = v->s->lost;
	struct gw_frame f = { 0 };
	int rc = gw_frame_send_buf(v->conns[0], GW_MSG_ERROR, GW_ERROR_LOST, why, strlen(why));

	if (rc)
		return rc;
	/* To close first, with a request of it unread, might take away what was said. */
	while (!rc)
		rc = gw_frame_recv(v->conns[0], &f, deadline);
	gw_frame_free(&f);
	return gw_transport_lost(rc) ? gw_fail(-ENODATA, "%s", why) : rc;
}

/* All connections are open: hear what is missing, and begin to send it. */
static int begin(struct gw_serve *v, int64_t deadline)
{
	struct gw_source *s = v->s;
	bool known = false;
	int rc = take_list(v, &known, deadline);

	if (!rc && s->lost && gw_bitmap_count(&s->due, 0, s->memory->nr_pages))
		rc = tell_lost(v, deadline);
	if (rc)
		return rc;
	forget_held(v, known);
	gw_encoder_paging(&s->holder.encoder, &s->due);
	rc = gw_push_begin(&v->push, &s->due, gw_defer_sooner(s));
	if (rc)
		return rc;
	s->due_pages = gw_push_left(&v->push);
	s->done_pages = 0;
	v->spawned = true;
	return s->ops->spawn(s->env, v->n, serve_connection, v);
}

static int tell(struct gw_source *s)
{
	gw_autofree uint8_t *runs = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	size_t at = 0, pages = 0, all = 0, len;
	int rc = 0;

	if (!runs)
		return gw_fail(-ENOMEM, "no memory to tell what is missing");
	while (!rc && (len = gw_runs_put(&s->due, &at, s->memory->nr_pages, &pages, runs))) {
		all += pages;
		rc = gw_frame_send_buf(s->holder.control, GW_MSG_MISSING, 0, runs, len);
	}
	return rc ? rc : gw_frame_send(s->holder.control, GW_MSG_MISSING_END, all, NULL, 0);
}

int gw_serve_tell(struct gw_source *s)
{
	const int rc = tell(s);

	return rc ? gw_fail_prefix(rc, "destination: ") : 0;
}

int gw_serve_begin(struct gw_source *s)
{
	/* A guest that stands still here does not wait for longer than that. */
	return begin(s->serve, gw_handover_end(s));
}

int gw_serve_failed(void *arg)
{
	struct gw_serve *v = ((struct gw_source *)arg)->serve;

	if (!v->failed)
		return 0;
	gw_locked(&v->lock);
	return gw_fail(v->rc, "the guest's memory cannot follow it: %s", v->message);
}

static bool settled(void *arg)
{
	const struct gw_serve *v = arg;

	return v->complete || v->failed;
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

/* Wait for @done, @ns at most. 0, or what else ended it. */
static int wait_for(struct gw_source *s, bool (*done)(void *arg), int64_t ns)
{
	int rc = s->ops->wait(s->env, done, s->serve, s->ops->now(s->env) + ns);

	if (rc != -ETIMEDOUT)
		return rc;
	gw_error_clear();
	return 0;
}

/*
 * It does not take our connections. 1: it needs them no more; 0: try again; -errno: the
 * guest is lost there.
 */
static int ask(struct gw_source *s)
{
	enum gw_outcome outcome = GW_OUTCOME_UNKNOWN;
	int rc = s->ops->settle(s->env, &outcome);

	if (rc)
		return 0;
	if (outcome == GW_OUTCOME_RUNNING)
		return 1;
	if (outcome == GW_OUTCOME_LOST || outcome == GW_OUTCOME_ENDED)
		return gw_fail(-ECHILD, "its QEMU ended there before all of its memory had come");
	return outcome == GW_OUTCOME_FORGOTTEN
		       ? gw_fail(-ECHILD, "that host was booted before all of its memory had come")
		       : 0;
}

int gw_serve_doubt(struct gw_source *s, int rc)
{
	enum gw_outcome outcome = GW_OUTCOME_UNKNOWN;
	char why[GW_ERROR_MAX];

	snprintf(why, sizeof(why), "%s", gw_error());
	for (unsigned int i = 0; i < DOUBT_TRIES && outcome == GW_OUTCOME_UNKNOWN; i++) {
		if (i && wait_for(s, never, GW_S))
			break;
		if (!s->ops->settle(s->env, &outcome) && outcome == GW_OUTCOME_PAGING)
			return 0;
	}
	return gw_fail(rc, "%s", why);
}

/* One more attempt. 0: served again, or 1: done; -EAGAIN; or -errno: it is lost. */
static int mend(struct gw_serve *v)
{
	struct gw_source *s = v->s;
	int rc;

	close_connections(v);
	rc = open_connections(v);
	if (!rc)
		rc = begin(v, s->ops->now(s->env) + LIST_NS);
	if (!rc)
		return 0;
	/* All or none: of some of them nothing can be handed over. */
	close_connections(v);
	if (s->lost && rc == -ENODATA)
		return rc;
	rc = rc == -EREMOTEIO ? ask(s) : 0;
	return rc ?: -EAGAIN;
}

static int reconnect(struct gw_serve *v)
{
	struct gw_source *s = v->s;
	int rc;

	/* One that takes a connection and fails at once is not called without a pause, either. */
	if (s->ops->now(s->env) - v->mended_ns >= RETRY_MOST_NS)
		v->pause = 0;
	for (;;) {
		rc = v->pause ? wait_for(s, never, v->pause) : 0;
		if (rc)
			return rc;
		v->pause = !v->pause			  ? RETRY_LEAST_NS
			   : v->pause * 2 < RETRY_MOST_NS ? v->pause * 2
							  : RETRY_MOST_NS;
		rc = mend(v);
		if (rc != -EAGAIN) {
			v->mended_ns = s->ops->now(s->env);
			return rc;
		}
		snprintf(s->holder.waits_for, sizeof(s->holder.waits_for), "%.120s", gw_error());
		s->ops->report(s->env);
	}
}

/* The destination has what it needs; connection 0 goes on as the control connection did. */
static void hand_over(struct gw_serve *v)
{
	struct gw_source *s = v->s;

	if (!v->conns[0])
		return;
	for (unsigned int i = 1; i < v->n; i++)
		v->conns[i]->ops->shutdown(v->conns[i]);
	if (v->spawned)
		s->ops->join(s->env);
	v->spawned = false;
	gw_transport_close(&s->holder.control);
	s->holder.control = v->conns[0];
	v->conns[0] = NULL;
}

int gw_serve_rest(struct gw_source *s)
{
	struct gw_serve *v = s->serve;
	int rc = 0;

	while (!v->complete) {
		if (v->spawned && !v->failed) {
			rc = wait_for(s, settled, REPORT_NS);
			if (rc)
				break;
			s->ops->report(s->env);
			continue;
		}
		if (v->failed)
			gw_warn("the destination of the guest's memory is lost: %s. It is called "
				"until it answers",
				v->message);
		gw_source_enter(s, GW_SOURCE_POSTCOPY_PAUSED);
		rc = reconnect(v);
		if (rc)
			break;
		s->holder.waits_for[0] = '\0';
		gw_source_enter(s, GW_SOURCE_POSTCOPY_ACTIVE);
	}
	if (rc < 0 && !v->complete)
		return rc;
	hand_over(v);
	/* What stays behind is only told: recover removes it. */
	if (s->ops->journal(s->env, GW_SOURCE_LEFT))
		gw_error_clear();
	return 0;
}

int gw_serve_lost(struct gw_source *s, int rc)
{
	if (rc == -ECHILD)
		s->lost = NULL; /* nobody needs it any more */
	else if (rc != -ECANCELED && (!s->lost || rc != -ENODATA))
		return rc; /* it went wrong here, and another process tries again */
	snprintf(s->error, sizeof(s->error), "%s", gw_error());
	if (s->ops->journal(s->env, GW_SOURCE_GONE))
		gw_error_clear();
	return gw_fail(rc, "%s", s->error);
}

int gw_serve_on(struct gw_source *s)
{
	int rc = make(s);

	return rc ? rc : gw_serve_rest(s);
}

void gw_serve_end(struct gw_source *s)
{
	struct gw_serve *v = s->serve;

	if (!v)
		return;
	close_connections(v);
	for (unsigned int i = 0; i < v->n; i++)
		gw_batch_free(&v->batches[i]);
	gw_push_free(&v->push);
	gw_bitmap_free(&v->given);
	gw_bitmap_free(&v->anew);
	pthread_mutex_destroy(&v->lock);
	free(v);
	s->serve = NULL;
}
