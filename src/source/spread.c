// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * spread.c - what goes to sub-hosts in a migration, and what the main host is told of it; see
 * spread.h. Who they are to the source, and which unit is whose, is in spread_open.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "internal.h"
#include "runs.h"
#include "spread_internal.h"

/* PAGES frames that are not stored yet: what says that they are fits into any socket. */
#define WINDOW 32

/* Without a frame that is taken, or stored. A guest that stands still is not kept by it (tick). */
#define SILENCE_NS (12 * GW_ANSWER_NS)

/* Who has chunk @chunk beside its owner; NULL: nobody. */
static struct gw_sub *second_of(struct gw_spread *sp, size_t chunk)
{
	return sp->seconds && sp->seconds[chunk] != GW_NO_HOLDER ? &sp->subs[sp->seconds[chunk]]
								 : NULL;
}

/* Its failure is not the destination's, for which find_reason() would wait. */
static int failed(const struct gw_sub *sub, int rc)
{
	if (gw_transport_lost(rc) || rc == -EPIPE)
		rc = -EREMOTEIO;
	return gw_fail_prefix(rc, "sub-host %s: ", sub->address);
}

int gw_spread_start(struct gw_source *s)
{
	struct gw_spread *sp = s->spread;
	int rc = gw_told_init(&sp->told, s->memory->nr_pages);
	uint32_t both = UINT32_MAX;

	for (unsigned int k = 0; sp->seconds && k < sp->nr; k++)
		both &= sp->subs[k].stages;
	for (unsigned int k = 0; !rc && k < sp->nr; k++) {
		struct gw_sub *sub = &sp->subs[k];
		struct gw_page_options options = s->params.pages;

		rc = gw_stages_limit(&options, sub->stages & both);
		if (rc)
			return rc;
		pthread_mutex_init(&sub->lock, NULL);
		sub->ready = true;
		rc = gw_encoder_beside(&sub->encoder, &s->holder.encoder, &options);
		if (!rc)
			rc = gw_batch_init(&sub->batch, &sub->encoder, 0);
	}
	return rc;
}

void gw_spread_round(struct gw_source *s)
{
	for (unsigned int k = 0; s->spread && k < s->spread->nr; k++) {
		gw_encoder_round(&s->spread->subs[k].encoder, &s->due);
		s->spread->subs[k].next = 0;
	}
}

/* The next it says on the connection on which pages go there. */
static int hear(struct gw_source *s, struct gw_sub *sub)
{
	const int64_t deadline = s->ops->now(s->env) + SILENCE_NS;
	const struct gw_frame *f = &sub->inbox;
	int rc = gw_frame_recv(sub->conns[GW_MEMORY_BULK], &sub->inbox, deadline);

	if (rc)
		return rc;
	if (f->type == GW_MSG_ERROR)
		return gw_fail(-EREMOTEIO, "%.*s", (int)f->len, (const char *)f->payload);
	if (f->type != GW_MSG_STORED)
		return gw_fail(-EPROTO, "sent %s, which is not due", gw_message_name(f->type));
	if (f->arg > sub->sent || f->arg < sub->stored)
		return gw_fail(-EPROTO, "has stored more than it was sent");
	sub->stored = f->arg;
	return 0;
}

/* What it said before it closed its connection is why. */
static int reason(struct gw_source *s, struct gw_sub *sub, int rc)
{
	char noticed[GW_ERROR_MAX];
	int told = 0;

	snprintf(noticed, sizeof(noticed), "%s", gw_error());
	while (rc == -ECONNRESET && !told)
		told = hear(s, sub);
	return told == -EREMOTEIO ? told : gw_fail(rc, "%s", noticed);
}

/* Its lock is held. */
static int await_stored(struct gw_source *s, struct gw_sub *sub, uint64_t most)
{
	int rc = 0;

	while (!rc && sub->sent - sub->stored > most)
		rc = hear(s, sub);
	return rc;
}

/* One of the frames of a chunk, to @sub, which some are not stored of yet. */
static int send_one(struct gw_source *s, struct gw_sub *sub, unsigned int type, uint64_t arg,
		    const struct iovec *iov, int n)
{
	int rc;
	gw_locked(&sub->lock);

	sub->conns[GW_MEMORY_BULK]->send_by = s->ops->now(s->env) + SILENCE_NS;
	rc = gw_frame_send(sub->conns[GW_MEMORY_BULK], type, arg, iov, n);
	if (rc)
		return failed(sub, reason(s, sub, rc));
	sub->sent += type == GW_MSG_PAGES;
	rc = await_stored(s, sub, WINDOW - 1);
	return rc ? failed(sub, rc) : 0;
}

/* To all who are to have the chunk. */
static int send_all(struct gw_source *s, struct gw_sub *sub, unsigned int type, uint64_t arg,
		    const struct iovec *iov, int n)
{
	struct gw_sub *second = second_of(s->spread, sub->batch.chunk);
	int rc = send_one(s, sub, type, arg, iov, n);

	return rc || !second ? rc : send_one(s, second, type, arg, iov, n);
}

static int send_pages(struct gw_source *s, void *to, const struct gw_batch *b)
{
	return send_all(s, to, GW_MSG_PAGES, b->chunk, b->parts, b->nr_parts);
}

/* Pages of the chunk in @sub's batch that are zero now: nobody needs to hold them. */
static int take_zeros(struct gw_source *s, struct gw_sub *sub)
{
	struct gw_digests *held = &sub->encoder.held;
	struct gw_batch *b = &sub->batch;
	const size_t base = b->chunk * GW_CHUNK_PAGES;
	struct gw_pageset gone = { { 0 } };
	uint8_t runs[GW_CHUNK_PAGES * GW_RUN_LEN];
	unsigned int at = 0, first, n;
	size_t len = 0;

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&b->left, i) || !gw_page_is_zero(b->bytes + i * GW_PAGE_SIZE))
			continue;
		gw_pageset_clear(&b->left, i);
		if (gw_pageset_test(&b->again, i)) { /* it was written since: next round */
			s->redirtied++;
			continue;
		}
		s->done_pages++;
		s->pages[GW_STAGE_ZERO]++;
		if (!gw_digest_is_zero(held->table[base + i]))
			gw_pageset_set(&gone, i);
	}
	while ((n = gw_pageset_run(&gone, &at, &first))) {
		gw_run_put(runs + len, base + first, n);
		len += GW_RUN_LEN;
		for (unsigned int i = first; i < first + n; i++)
			gw_digests_set(held, base + i, (struct gw_digest){ 0, 0 });
	}
	s->bytes[GW_STAGE_ZERO] += len;
	return len ? send_all(s, sub, GW_MSG_RELEASE, 0, &(struct iovec){ runs, len }, 1) : 0;
}

int gw_spread_send(struct gw_source *s, unsigned int k, size_t chunk)
{
	struct gw_sub *sub = &s->spread->subs[k];
	struct gw_sub *second = second_of(s->spread, chunk);
	struct gw_batch *b = &sub->batch;
	int rc = gw_round_take(s, b, chunk);

	if (rc || gw_pageset_empty(&b->left))
		return rc;
	rc = take_zeros(s, sub);
	if (rc || gw_pageset_empty(&b->left))
		return rc;
	rc = gw_round_put_by(s, b, send_pages, sub, second ? 2 : 1);
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++) {
		const unsigned int pages = id == GW_STAGE_SAME ? 0 : b->count[id].pages;

		sub->arrived += pages;
		if (second)
			second->arrived += pages;
	}
	return rc;
}

/* Until @sub has stored what it was sent so far. */
static int settle(struct gw_source *s, struct gw_sub *sub)
{
	int rc;
	gw_locked(&sub->lock);

	rc = await_stored(s, sub, 0);
	return rc ? failed(sub, rc) : 0;
}

int gw_spread_barrier(struct gw_source *s, unsigned int k)
{
	struct gw_spread *sp = s->spread;
	int rc = settle(s, &sp->subs[k]);

	/* What its thread has sent to others, who need not be waiting any more. */
	for (unsigned int i = 0; !rc && sp->seconds && i < sp->nr; i++)
		rc = settle(s, &sp->subs[i]);
	return rc;
}

void gw_spread_halt(struct gw_source *s)
{
	for (unsigned int k = 0; s->spread && k < s->spread->nr; k++)
		for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
			struct gw_transport *t = s->spread->subs[k].conns[i];

			if (t)
				t->ops->shutdown(t);
		}
}

/* What is not as the main host was told, of 64 pages from @page on, all @k's. */
static int tell_word(struct gw_source *s, unsigned int k, size_t page, uint64_t differ)
{
	struct gw_spread *sp = s->spread;
	struct gw_sub *sub = &sp->subs[k];
	struct gw_sub *second = second_of(sp, page / GW_CHUNK_PAGES);
	int rc = 0;

	for (; !rc && differ; differ &= differ - 1) {
		const size_t at = page + (size_t)__builtin_ctzll(differ);
		const bool back = gw_bitmap_test(&sp->told.away, at);

		sub->pages += back ? -1UL : 1;
		if (second)
			second->pages += back ? -1UL : 1;
		rc = back ? gw_tell_back(s, &sp->told, at) : gw_tell_away(s, &sp->told, k, at);
		if (!rc && !back && second)
			rc = gw_tell_away(s, &sp->told, (unsigned int)(second - sp->subs), at);
	}
	return rc;
}

int gw_spread_tell(struct gw_source *s)
{
	struct gw_spread *sp = s->spread;
	const uint64_t *held = s->holder.encoder.held.filled.words;
	const size_t chunks = s->memory->nr_pages / GW_CHUNK_PAGES;
	int rc = 0;

	for (size_t chunk = 0; !rc && chunk < chunks; chunk++) {
		const unsigned int k = sp->owners[chunk];
		const size_t word = chunk * (GW_CHUNK_PAGES / 64);

		if (k == GW_SPREAD_MAIN)
			continue;
		for (size_t i = word; !rc && i < word + GW_CHUNK_PAGES / 64; i++)
			if (held[i] != sp->told.away.words[i])
				rc = tell_word(s, k, i * 64, held[i] ^ sp->told.away.words[i]);
	}
	return rc ? rc : gw_tell_flush(s, &sp->told);
}

int gw_spread_leave(struct gw_source *s)
{
	int rc = gw_spread_tell(s);

	for (unsigned int k = 0; k < s->spread->nr; k++)
		gw_sub_close(&s->spread->subs[k]);
	return rc ? rc
		  : gw_frame_send(s->holder.control, GW_MSG_AWAY_END, s->spread->told.pages, NULL,
				  0);
}

uint64_t gw_spread_bytes(const struct gw_spread *sp)
{
	uint64_t bytes = 0;

	for (unsigned int k = 0; sp && k < sp->nr; k++) {
		bytes += sp->subs[k].transferred;
		for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
			if (sp->subs[k].conns[i])
				bytes += sp->subs[k].conns[i]->sent;
	}
	return bytes;
}

json_t *gw_spread_json(const struct gw_spread *sp)
{
	json_t *holders = json_array();

	for (unsigned int k = 0; k < sp->nr; k++) {
		const struct gw_sub *sub = &sp->subs[k];

		json_array_append_new(holders,
				      json_pack("{s:s,s:s,s:I,s:I,s:I}", "address", sub->address,
						"host", sub->host, "size", (json_int_t)sub->size,
						"sent-pages", (json_int_t)sub->arrived, "pages",
						(json_int_t)sub->pages));
	}
	return json_pack("{s:I,s:i,s:I,s:b,s:f,s:o}", "main-memory", (json_int_t)sp->main_memory,
			 "chunk-pages", (int)sp->unit_pages, "away-pages",
			 (json_int_t)sp->told.pages, "sampling", (int)sp->sampling, "history-ms",
			 sp->sampling ? 0.0 : (double)sp->history_ns / GW_MS, "holders", holders);
}

void gw_spread_free(struct gw_spread *sp)
{
	for (unsigned int k = 0; sp && k < sp->nr; k++) {
		struct gw_sub *sub = &sp->subs[k];

		gw_sub_close(sub);
		if (sub->ready) {
			gw_batch_free(&sub->batch);
			gw_encoder_free(&sub->encoder);
			pthread_mutex_destroy(&sub->lock);
		}
		sub->ready = false;
		gw_frame_free(&sub->inbox);
	}
	if (!sp)
		return;
	gw_told_free(&sp->told);
	free(sp->owners);
	free(sp->seconds);
	sp->owners = sp->seconds = NULL;
}
