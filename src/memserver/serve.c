// SPDX-License-Identifier: GPL-2.0-or-later
/* serve.c - a memory server's side of the conversation; see serve.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "feature.h"
#include "frame.h"
#include "log.h"
#include "runs.h"
#include "serve.h"

#define HOLD_NS	 (10 * GW_S) /* until HOLD has come */
#define LIST_NS	 (60 * GW_S) /* between two parts of what the main host has not */
#define ERROR_NS (1 * GW_S)  /* to take the reason why not */

/* PAGES frames that are acknowledged together, while more come. */
#define STORED_FRAMES 8

/* Runs of absent pages that are kept until all were named; then they are told as they come. */
#define ABSENT_RUNS (64UL * GW_RUNS_MAX)

static struct gw_memserve *serve_of(struct gw_sink *sink)
{
	return (struct gw_memserve *)((char *)sink - offsetof(struct gw_memserve, sink));
}

static int sink_place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	struct gw_memserve *s = serve_of(sink);
	const int rc = gw_memstore_put(s->store, page, count, bytes);

	if (!rc)
		s->stored += count;
	return rc;
}

/* A page of zeros needs no memory server; whoever sends one all the same gets it back. */
static int sink_zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	int rc = 0;

	for (unsigned int i = 0; !rc && i < count; i++)
		rc = sink_place(sink, page + i, 1, zeros);
	return rc;
}

static int sink_read(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	(void)sink;
	(void)page;
	(void)count;
	(void)bytes;
	return gw_fail(-EPROTO, "a page that is told by another");
}

void gw_memserve_init(struct gw_memserve *s, const struct gw_memserve_ops *ops, void *env,
		      const char *host)
{
	memset(s, 0, sizeof(*s));
	s->ops = ops;
	s->env = env;
	s->host = host;
	s->sink = (struct gw_sink){ .place = sink_place, .zero = sink_zero, .read = sink_read };
}

static void close_way(struct gw_memserve_way *w)
{
	if (w->ready) {
		gw_batch_free(&w->batch);
		gw_encoder_free(&w->encoder);
		gw_decoder_free(&w->decoder);
	}
	gw_frame_free(&w->frame);
	memset(w, 0, sizeof(*w));
}

void gw_memserve_free(struct gw_memserve *s)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		close_way(&s->ways[i]);
	s->store = NULL;
}

/* A page that a guest waits for is not compressed: that takes longer than it saves. */
static int open_way(struct gw_memserve *s, unsigned int i)
{
	struct gw_memserve_way *w = &s->ways[i];
	struct gw_page_options options = { .compress = i == GW_MEMORY_REQUESTS ? GW_COMPRESS_NONE
									       : GW_COMPRESS_AUTO };
	int rc = gw_stages_limit(&options, s->hold.stages);

	close_way(w);
	if (rc)
		return rc;
	w->ready = true;
	rc = gw_encoder_bare(&w->encoder, &options, s->ops->now, s->env);
	gw_decoder_init(&w->decoder, &s->sink, s->store->ram.memory.nr_pages);
	return rc ? rc : gw_batch_init(&w->batch, &w->encoder, i);
}

/* The connection ends: of what it was not, the main host hears why. */
static int end(struct gw_memserve *s, struct gw_transport *t, int rc)
{
	if (gw_transport_lost(rc))
		return gw_fail_prefix(rc, "main host: ");
	if (rc == -EREMOTEIO)
		return rc;
	t->send_by = s->ops->now(s->env) + ERROR_NS;
	{
		gw_autofree char *why = strdup(gw_error());

		if (why && gw_frame_send_buf(t, GW_MSG_ERROR, 0, why, strlen(why)))
			gw_fail(rc, "%s", why);
	}
	return rc;
}

static int receive(struct gw_memserve_way *w, struct gw_transport *t, int64_t deadline)
{
	const int rc = gw_frame_recv(t, &w->frame, deadline);

	if (!rc && (w->frame.type == GW_MSG_ERROR || w->frame.type == GW_MSG_CANCEL))
		return gw_fail(-EREMOTEIO, "main host: %.*s", (int)w->frame.len,
			       (const char *)w->frame.payload);
	return rc;
}

static int unexpected(const struct gw_memserve_way *w)
{
	return gw_fail(-EPROTO, "%s is not due now", gw_message_name(w->frame.type));
}

static char *make_holding(const struct gw_memserve *s)
{
	const uint64_t size = s->store->most * GW_PAGE_SIZE;
	json_t *json = json_pack("{s:s,s:I,s:I,s:o,s:o}", "host", s->host, "pages",
				 (json_int_t)s->store->pages, "size", (json_int_t)size, "features",
				 gw_features_json(), "stages", gw_stages_json());
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

static int hold(struct gw_memserve *s, struct gw_transport *t)
{
	struct gw_memserve_way *w = &s->ways[GW_MEMORY_REQUESTS];
	gw_autofree char *holding = NULL;
	json_t *json;
	int rc = receive(w, t, s->ops->now(s->env) + HOLD_NS);

	if (!rc && w->frame.type != GW_MSG_HOLD)
		rc = unexpected(w);
	if (rc)
		return rc;
	json = json_loadb((const char *)w->frame.payload, w->frame.len, 0, NULL);
	rc = gw_hold_parse(&s->hold, json);
	json_decref(json);
	if (rc)
		return gw_fail_prefix(rc, "HOLD: ");
	rc = s->ops->hold(s->env, &s->hold, &s->store);
	for (unsigned int i = 0; !rc && i < GW_MEMORY_CONNECTIONS; i++)
		rc = open_way(s, i);
	if (rc)
		return rc;
	holding = make_holding(s);
	return holding ? gw_frame_send_buf(t, GW_MSG_HOLDING, s->store->pages, holding,
					   strlen(holding))
		       : gw_fail(-ENOMEM, "no memory for an answer");
}

/* A list of pages that are not here, as it will travel. */
struct absent {
	struct gw_transport *t;
	uint8_t *runs;
	size_t len, room; /* bytes */
};

static int tell_absent(struct absent *a)
{
	const size_t most = GW_RUNS_MAX * GW_RUN_LEN;
	int rc = 0;

	for (size_t at = 0; !rc && at < a->len; at += most)
		rc = gw_frame_send_buf(a->t, GW_MSG_ABSENT, 0, a->runs + at,
				       a->len - at < most ? a->len - at : most);
	a->len = 0;
	return rc;
}

static int put_absent(struct absent *a, size_t first, size_t count)
{
	uint8_t *last = a->len ? a->runs + a->len - GW_RUN_LEN : NULL;
	int rc = 0;

	if (last && gw_get64(last) + gw_get32(last + 8) == first &&
	    count <= UINT32_MAX - gw_get32(last + 8)) {
		gw_put32(last + 8, (uint32_t)(gw_get32(last + 8) + count));
		return 0;
	}
	for (size_t part; !rc && count; first += part, count -= part) {
		part = count < UINT32_MAX ? count : UINT32_MAX;
		gw_put64(a->runs + a->len, first);
		gw_put32(a->runs + a->len + 8, (uint32_t)part);
		a->len += GW_RUN_LEN;
		if (a->len == a->room)
			rc = tell_absent(a);
	}
	return rc;
}

/*
 * The main host has all pages in [@from, @first), and has not the @count from there on. One that is
 * not yet the VM's does not say what goes.
 */
static int compare(struct gw_memserve *s, struct absent *a, size_t from, size_t first, size_t count)
{
	const struct gw_bitmap *here = &s->store->here;
	int rc = s->hold.carried ? 0 : gw_memstore_release(s->store, from, first - from);
	size_t at = first;

	while (!rc && at < first + count) {
		const size_t start = gw_bitmap_next(here, at, first + count, false);

		if (start == first + count)
			break;
		at = gw_bitmap_next(here, start, first + count, true);
		rc = put_absent(a, start, at - start);
	}
	return rc;
}

static int take_list(struct gw_memserve *s, struct gw_transport *t, struct absent *a)
{
	struct gw_memserve_way *w = &s->ways[GW_MEMORY_REQUESTS];
	const size_t nr_pages = s->store->ram.memory.nr_pages;
	size_t first = 0, count = 0, from = 0;
	int rc;

	for (;;) {
		struct gw_reader r;

		rc = receive(w, t, s->ops->now(s->env) + LIST_NS);
		if (rc)
			return rc;
		if (w->frame.type == GW_MSG_DISMISS)
			return GW_MEMSERVE_DISMISSED;
		if (w->frame.type == GW_MSG_MISSING_END)
			break;
		/* Each names pages beyond the last one's: so it ends. */
		if (w->frame.type != GW_MSG_MISSING || !w->frame.len)
			return unexpected(w);
		r = (struct gw_reader){ w->frame.payload, w->frame.len };
		while ((rc = gw_runs_take(&r, nr_pages, &first, &count)) > 0) {
			rc = compare(s, a, from, first, count);
			if (rc)
				return rc;
			from = first + count;
		}
		if (rc)
			return rc;
	}
	rc = compare(s, a, from, nr_pages, 0);
	if (!rc)
		rc = tell_absent(a);
	return rc ? rc : gw_frame_send(t, GW_MSG_HOLDING, s->store->pages, NULL, 0);
}

int gw_memserve_begin(struct gw_memserve *s, struct gw_transport *t)
{
	gw_autofree uint8_t *runs = malloc(ABSENT_RUNS * GW_RUN_LEN);
	struct absent a = { .t = t, .runs = runs, .room = ABSENT_RUNS * GW_RUN_LEN };
	int rc = runs ? hold(s, t) : gw_fail(-ENOMEM, "no memory for a list of pages");

	if (!rc)
		rc = take_list(s, t, &a);
	return rc < 0 ? end(s, t, rc) : rc;
}

/* Send what is gathered. */
static int flush(struct gw_memserve *s, struct gw_memserve_way *w, struct gw_transport *t)
{
	struct gw_batch *batch = &w->batch;
	unsigned int at = 0, first, count;
	size_t len = 0;
	int64_t began;
	int rc = 0;

	if (gw_pageset_empty(&w->pages))
		return 0;
	batch->chunk = w->chunk;
	batch->left = w->pages;
	while (!rc && (count = gw_pageset_run(&w->pages, &at, &first)))
		rc = gw_memstore_get(s->store, w->chunk * GW_CHUNK_PAGES + first, count,
				     batch->bytes + first * GW_PAGE_SIZE);
	if (rc)
		return rc;
	s->sent += gw_pageset_count(&w->pages);
	memset(&w->pages, 0, sizeof(w->pages));
	gw_pipeline_encode(batch);
	for (int i = 0; i < batch->nr_parts; i++)
		len += batch->parts[i].iov_len;
	began = s->ops->now(s->env);
	rc = gw_frame_send(t, GW_MSG_PAGES, batch->chunk, batch->parts, batch->nr_parts);
	gw_pipeline_sent(batch, len, s->ops->now(s->env) - began);
	return rc;
}

static int gather(struct gw_memserve *s, struct gw_memserve_way *w, struct absent *a, size_t page)
{
	const size_t chunk = page / GW_CHUNK_PAGES;
	int rc = 0;

	if (!gw_memstore_has(s->store, page))
		return put_absent(a, page, 1);
	if (chunk != w->chunk)
		rc = flush(s, w, a->t);
	w->chunk = chunk;
	gw_pageset_set(&w->pages, (unsigned int)(page % GW_CHUNK_PAGES));
	return rc;
}

/* A frame for each chunk; for each run, where a guest waits for the first. */
static int answer(struct gw_memserve *s, unsigned int i, struct gw_transport *t)
{
	struct gw_memserve_way *w = &s->ways[i];
	struct gw_reader r = { w->frame.payload, w->frame.len };
	uint8_t runs[GW_MEMORY_REQUEST_PAGES * GW_RUN_LEN];
	struct absent a = { .t = t, .runs = runs, .room = sizeof(runs) };
	size_t first = 0, count = 0, all = 0;
	int rc;

	while ((rc = gw_runs_take(&r, s->store->ram.memory.nr_pages, &first, &count)) > 0) {
		all += count;
		if (all > GW_MEMORY_REQUEST_PAGES)
			return gw_fail(-EPROTO, "a request for more than %lu pages",
				       GW_MEMORY_REQUEST_PAGES);
		rc = 0;
		for (size_t page = first; !rc && page < first + count; page++)
			rc = gather(s, w, &a, page);
		if (!rc && i == GW_MEMORY_REQUESTS)
			rc = flush(s, w, t);
		if (rc)
			return rc;
	}
	s->asked += all;
	if (!rc)
		rc = flush(s, w, t);
	return rc ? rc : tell_absent(&a);
}

int gw_memserve_requests(struct gw_memserve *s, struct gw_transport *t)
{
	struct gw_memserve_way *w = &s->ways[GW_MEMORY_REQUESTS];
	int rc;

	do {
		rc = receive(w, t, GW_FOREVER);
		if (!rc && w->frame.type == GW_MSG_DISMISS)
			return GW_MEMSERVE_DISMISSED;
		if (!rc && w->frame.type == GW_MSG_REQUEST)
			rc = answer(s, GW_MEMORY_REQUESTS, t);
		else if (!rc)
			rc = unexpected(w);
	} while (!rc);
	return end(s, t, rc);
}

static int release(struct gw_memserve *s, const struct gw_memserve_way *w)
{
	struct gw_reader r = { w->frame.payload, w->frame.len };
	size_t first = 0, count = 0;
	int rc;

	while ((rc = gw_runs_take(&r, s->store->ram.memory.nr_pages, &first, &count)) > 0) {
		rc = gw_memstore_release(s->store, first, count);
		if (rc)
			break;
	}
	return rc;
}

/* Whether the main host has said something that was not read yet. */
static bool more_comes(const struct gw_transport *t)
{
	struct pollfd pfd = { .fd = t->poll_fd, .events = POLLIN };

	return t->poll_fd >= 0 && poll(&pfd, 1, 0) > 0;
}

int gw_memserve_bulk(struct gw_memserve *s, struct gw_transport *t)
{
	struct gw_memserve_way *w = &s->ways[GW_MEMORY_BULK];
	uint64_t frames = 0, told = 0;
	int rc = 0;

	while (!rc) {
		if (frames != told && (frames - told >= STORED_FRAMES || !more_comes(t))) {
			rc = gw_frame_send(t, GW_MSG_STORED, frames, NULL, 0);
			told = frames;
		}
		if (!rc)
			rc = receive(w, t, GW_FOREVER);
		if (rc)
			break;
		if (w->frame.type == GW_MSG_PAGES) {
			rc = gw_pipeline_decode(&w->decoder, w->frame.arg, w->frame.payload,
						w->frame.len);
			frames += !rc;
		} else if (w->frame.type == GW_MSG_RELEASE) {
			rc = release(s, w);
		} else if (w->frame.type == GW_MSG_REQUEST) {
			rc = answer(s, GW_MEMORY_BULK, t);
		} else {
			rc = unexpected(w);
		}
	}
	return end(s, t, rc);
}

void gw_memserve_dismissed(struct gw_transport *t)
{
	/* One that is gone meanwhile asks again, and hears that there is nothing. */
	if (gw_frame_send(t, GW_MSG_DISMISSED, 0, NULL, 0))
		gw_error_clear();
}
