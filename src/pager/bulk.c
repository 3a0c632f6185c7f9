// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bulk.c - a memory server's bulk connection: what leaves for it, what is fetched from it ahead,
 * and what it need not keep (servers.h).
 *
 * One thread sends all of it, so that what came of a page before is released before the page is
 * sent again.
 */
#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "frame.h"
#include "runs.h"
#include "servers_internal.h"

#define BULK_NS (10 * GW_S)

static int by_first(const void *a, const void *b)
{
	const size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return x < y ? -1 : x > y;
}

static int send_bulk(struct gw_server *s, unsigned int type, const void *payload, size_t len)
{
	struct gw_transport *t = s->conns[GW_MEMORY_BULK];

	t->send_by = gw_server_now(s) + BULK_NS;
	return gw_frame_send_buf(t, type, 0, payload, len);
}

/* What is queued, as of now: the session's. Return: how many; or -errno. */
static int take_releases(struct gw_session *e)
{
	struct gw_server *s = e->s;
	gw_locked(&s->lock);

	if (s->overrun)
		return gw_fail(-ENOBUFS, "it was not told of all that came from it");
	memcpy(e->releases.runs, s->releases.runs, s->releases.n * sizeof(s->releases.runs[0]));
	e->releases.n = s->releases.n;
	s->releases.n = 0;
	return (int)e->releases.n;
}

static int flush_releases(struct gw_session *e)
{
	struct gw_server *s = e->s;
	struct gw_runs_queue *q = &e->releases;
	size_t len = 0;
	int rc = take_releases(e);

	if (rc <= 0)
		return rc;
	rc = 0;
	qsort(q->runs, q->n, sizeof(q->runs[0]), by_first);
	for (unsigned int i = 0, count; !rc && i < q->n; i += count) {
		size_t pages = q->runs[i].count;

		for (count = 1;
		     i + count < q->n && q->runs[i + count].first == q->runs[i].first + pages;)
			pages += q->runs[i + count++].count;
		gw_run_put(e->runs + len, q->runs[i].first, pages);
		len += GW_RUN_LEN;
		s->away -= pages;
		if (len < GW_RUNS_MAX * GW_RUN_LEN)
			continue;
		rc = send_bulk(s, GW_MSG_RELEASE, e->runs, len);
		len = 0;
	}
	return rc || !len ? rc : send_bulk(s, GW_MSG_RELEASE, e->runs, len);
}

/* Ask for what of these pages of a unit is there. Return: how many pages; or -errno. */
static int fetch(struct gw_session *e, size_t first, size_t count)
{
	size_t pages[GW_UNIT_PAGES_MAX];
	const unsigned int n = gw_split_rest(gw_server_split(e->s), first, count, pages);
	int rc = n ? send_bulk(e->s, GW_MSG_REQUEST, e->runs, gw_runs_list(pages, n, e->runs)) : 0;

	return rc ? rc : (int)n;
}

static bool next_fetch(struct gw_server *s, struct gw_fetch *next)
{
	gw_locked(&s->lock);

	if (!s->nr_fetches)
		return false;
	*next = s->fetches[0];
	memmove(s->fetches, s->fetches + 1, --s->nr_fetches * sizeof(s->fetches[0]));
	return true;
}

/* What is left of the VM's memory comes, as far as there is room. */
static int fetch_all(struct gw_session *e, bool *did)
{
	struct gw_servers *v = e->s->all;
	const struct gw_netpt *table = &v->split->table;
	int n = 0;

	while (!n && gw_split_has_room(v->split) &&
	       v->split->coming < GW_LEAVING_MAX * (uint64_t)table->units.pages) {
		const size_t unit = e->s->next++;
		size_t first, count;

		if (unit >= table->units.nr) {
			e->s->next = 0;
			break;
		}
		if (gw_netpt_holder(table, unit) != e->s->index)
			continue;
		count = gw_unit_pages(&table->units, unit, &first);
		n = fetch(e, first, count);
	}
	*did = *did || n > 0;
	return n < 0 ? n : 0;
}

static int fetch_some(struct gw_session *e, bool *did)
{
	struct gw_fetch next;
	int n = 0;

	while (n >= 0 && next_fetch(e->s, &next)) {
		if (!gw_split_has_room(gw_server_split(e->s)))
			continue;
		n = fetch(e, next.first, next.count);
		*did = true;
	}
	if (n >= 0 && (e->s->all->merging || e->s->leaves))
		return fetch_all(e, did);
	return n < 0 ? n : 0;
}

/* The pages of @l that lie in chunk @chunk, and are not zero, in a frame of their own. */
static int send_chunk(struct gw_session *e, struct gw_leaving *l, size_t chunk)
{
	struct gw_server *s = e->s;
	struct gw_batch *b = &e->batch;
	const size_t base = chunk * GW_CHUNK_PAGES;
	unsigned int at = 0, first, n;
	struct gw_pageset pages = { { 0 } };
	int rc = 0;

	for (size_t i = 0; i < l->count; i++)
		if (l->first + i >= base && l->first + i < base + GW_CHUNK_PAGES &&
		    l->pages[i / 64] >> (i % 64) & 1)
			gw_pageset_set(&pages, (unsigned int)(l->first + i - base));
	while (!rc && (n = gw_pageset_run(&pages, &at, &first)))
		rc = gw_memory_read(gw_server_split(s)->memory, base + first, n,
				    b->bytes + first * GW_PAGE_SIZE);
	for (unsigned int i = 0; !rc && i < GW_CHUNK_PAGES; i++) {
		const size_t k = base + i - l->first;

		if (!gw_pageset_test(&pages, i) || !gw_page_is_zero(b->bytes + i * GW_PAGE_SIZE))
			continue;
		gw_pageset_clear(&pages, i);
		l->zero[k / 64] |= 1ULL << k % 64;
	}
	if (rc || gw_pageset_empty(&pages))
		return rc;
	b->chunk = chunk;
	b->left = pages;
	memset(&b->again, 0, sizeof(b->again));
	gw_pipeline_encode(b);
	{
		/* Before it is: its server may say that it has it before we come back. */
		gw_locked(&s->lock);
		s->frames_sent++;
	}
	s->conns[GW_MEMORY_BULK]->send_by = gw_server_now(s) + BULK_NS;
	return gw_frame_send(s->conns[GW_MEMORY_BULK], GW_MSG_PAGES, chunk, b->parts, b->nr_parts);
}

static uint64_t sent_pages(const struct gw_leaving *l)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < GW_UNIT_WORDS; i++)
		n += (uint64_t)__builtin_popcountll(l->pages[i] & ~l->zero[i]);
	return n;
}

/* Which are stored once the server says so; or at once if it has, or nothing was sent. */
static int is_sent(struct gw_session *e, const struct gw_leaving *l, uint64_t before)
{
	struct gw_server *s = e->s;
	bool waits;

	{
		gw_locked(&s->lock);
		waits = s->frames_sent > before && s->frames_sent > s->frames_stored;
		if (waits) {
			const unsigned int k = (s->first_leaving + s->nr_leaving++) %
					       GW_LEAVING_MAX;

			s->leaving[k].l = *l;
			s->leaving[k].frames = s->frames_sent;
		}
	}
	s->away += sent_pages(l);
	return waits ? 0 : gw_split_left(gw_server_split(s), l, true);
}

static int page_out(struct gw_session *e, size_t unit)
{
	struct gw_server *s = e->s;
	struct gw_leaving l;
	const uint64_t before = s->frames_sent;
	int rc, n = gw_split_leave(gw_server_split(s), unit, s->index, &l);

	if (n <= 0)
		return n;
	/* What came of these pages before must not be released after they are sent. */
	rc = flush_releases(e);
	for (size_t chunk = l.first / GW_CHUNK_PAGES;
	     !rc && chunk * GW_CHUNK_PAGES < l.first + l.count; chunk++) {
		if (gw_split_stays(gw_server_split(s), &l))
			break;
		rc = send_chunk(e, &l, chunk);
	}
	if (rc) {
		gw_split_left(gw_server_split(s), &l, false);
		return rc;
	}
	return is_sent(e, &l, before);
}

static int page_out_some(struct gw_session *e, bool *did)
{
	struct gw_server *s = e->s;
	size_t unit;
	bool full;
	int rc = 0;

	{
		gw_locked(&s->lock);
		full = s->nr_leaving == GW_LEAVING_MAX;
	}
	if (full || s->leaves || s->all->merging ||
	    !s->all->ops->victim(s->all->env, s->index, &unit))
		return 0;
	rc = page_out(e, unit);
	*did = true;
	return rc;
}

int gw_bulk_step(struct gw_session *e, bool *did)
{
	int rc = fetch_some(e, did);

	if (!rc)
		rc = page_out_some(e, did);
	return rc || *did ? rc : flush_releases(e);
}
