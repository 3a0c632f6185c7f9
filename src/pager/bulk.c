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

/* Units that come back at a time for want of another copy, and how often all are looked at. */
#define REMAKES	  4U
#define REMAKE_NS (250 * GW_MS)

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
		gw_server_has_less(s, pages);
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
	const unsigned int n = gw_split_rest(gw_server_split(e->s), e->s->index, first, count,
					     pages);
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

	/* Where all is to come there is room for all. */
	while (!n && (v->merging || gw_split_has_room(v->split)) &&
	       v->split->coming < GW_LEAVING_MAX * (uint64_t)table->units.pages) {
		const size_t unit = e->s->next++;
		size_t first, count;

		if (unit >= table->units.nr) {
			e->s->next = 0;
			break;
		}
		if (gw_netpt_slot(table, unit, e->s->index) < 0)
			continue;
		count = gw_unit_pages(&table->units, unit, &first);
		n = fetch(e, first, count);
	}
	*did = *did || n > 0;
	return n < 0 ? n : 0;
}

/* A unit comes back of which some is here only, to leave again for two. */
static int remake(struct gw_session *e, bool *did)
{
	struct gw_server *s = e->s;
	struct gw_servers *v = s->all;
	const struct gw_netpt *table = &v->split->table;
	size_t first, count;

	if (gw_server_now(s) < s->next_remake || !gw_servers_may_remake(v))
		return 0;
	while (gw_split_has_room(v->split) &&
	       v->split->coming < REMAKES * (uint64_t)table->units.pages) {
		const size_t unit = s->next++;
		int n;

		if (unit >= table->units.nr) {
			s->next = 0;
			s->next_remake = gw_server_now(s) + REMAKE_NS;
			break;
		}
		if (!gw_servers_remakes(v, s, unit))
			continue;
		count = gw_unit_pages(&table->units, unit, &first);
		n = fetch(e, first, count);
		*did = *did || n > 0;
		if (n)
			return n < 0 ? n : 0;
	}
	return 0;
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
	return n < 0 || *did ? (n < 0 ? n : 0) : remake(e, did);
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
static int is_sent(struct gw_session *e, const struct gw_leaving *l, struct gw_departure *shared,
		   uint64_t before)
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
			s->leaving[k].shared = shared;
			s->leaving[k].frames = s->frames_sent;
		}
	}
	/* Where others send it units, too, all of it was counted when it began. */
	if (gw_netpt_copies_max(&gw_server_split(s)->table) > 1)
		gw_server_has_less(s, gw_leaving_pages(l) - sent_pages(l));
	else
		s->away += sent_pages(l);
	return waits ? 0 : gw_departure_end(s, shared, l, true);
}

/* What @l leaves for this server, or for another as well: @shared. */
static int send_unit(struct gw_session *e, struct gw_leaving *l, struct gw_departure *shared)
{
	struct gw_server *s = e->s;
	const uint64_t before = s->frames_sent;
	/* What came of these pages before must not be released after they are sent. */
	int rc = flush_releases(e);

	for (size_t chunk = l->first / GW_CHUNK_PAGES;
	     !rc && chunk * GW_CHUNK_PAGES < l->first + l->count; chunk++) {
		if (gw_split_stays(gw_server_split(s), l))
			break;
		rc = send_chunk(e, l, chunk);
	}
	if (rc) {
		gw_departure_end(s, shared, l, false);
		return rc;
	}
	return is_sent(e, l, shared, before);
}

/* For whom @unit leaves, this server among them. Return: whether it does. */
static bool choose(struct gw_server *s, size_t unit, unsigned int to[GW_COPIES_MAX])
{
	struct gw_split *split = gw_server_split(s);
	size_t first, count;

	to[0] = s->index;
	to[1] = GW_NO_HOLDER;
	if (gw_netpt_copies_max(&split->table) == 1)
		return true;
	if (gw_servers_choose(s->all, unit, to) > 0 && (to[0] == s->index || to[1] == s->index))
		return true;
	/* Something has changed since it was chosen: it is to be looked at again. */
	count = gw_unit_pages(&split->table.units, unit, &first);
	split->ops->touched(split->env, first, count);
	return false;
}

static int page_out(struct gw_session *e, size_t unit)
{
	struct gw_server *s = e->s;
	unsigned int to[GW_COPIES_MAX];
	struct gw_departure *shared;
	struct gw_leaving l;
	int n = choose(s, unit, to) ? gw_split_leave_to(gw_server_split(s), unit, to, &l) : 0;

	if (n <= 0)
		return n;
	if (gw_departure_begin(s, &l, &shared))
		return gw_split_left(gw_server_split(s), &l, 0);
	return send_unit(e, &l, shared);
}

/* What another server's thread has begun, and this one is to have as well. */
static int send_parts(struct gw_session *e, bool *did)
{
	struct gw_server *s = e->s;
	struct gw_departure *part = NULL;
	struct gw_leaving l;

	{
		gw_locked(&s->lock);
		if (s->nr_leaving < GW_LEAVING_MAX)
			part = gw_departure_take(s);
	}
	if (!part)
		return 0;
	*did = true;
	l = part->l;
	return send_unit(e, &l, part);
}

static int page_out_some(struct gw_session *e, bool *did)
{
	struct gw_server *s = e->s;
	size_t unit;
	bool full;
	int rc = 0;

	{
		gw_locked(&s->lock);
		full = s->nr_leaving == GW_LEAVING_MAX || s->departing >= GW_LEAVING_MAX;
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
		rc = send_parts(e, did);
	if (!rc)
		rc = page_out_some(e, did);
	return rc || *did ? rc : flush_releases(e);
}
