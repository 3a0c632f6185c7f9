// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * spread_open.c - the sub-hosts of a migration, from their promise until they are dismissed, and
 * which unit of the memory is whose; see spread.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "hold.h"
#include "internal.h"
#include "io.h"
#include "log.h"
#include "spread_internal.h"

/* Images may have to give way there before it promises anything. */
#define PROMISE_NS (12 * GW_ANSWER_NS)

void gw_sub_close(struct gw_sub *sub)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		if (sub->conns[i])
			sub->transferred += sub->conns[i]->sent;
		gw_transport_close(&sub->conns[i]);
	}
	sub->sent = sub->stored = 0;
}

static int expect(struct gw_source *s, struct gw_sub *sub, unsigned int type, int64_t ns)
{
	struct gw_transport *t = sub->conns[GW_MEMORY_REQUESTS];
	const struct gw_frame *f = &sub->inbox;
	int rc = gw_frame_recv(t, &sub->inbox, s->ops->now(s->env) + ns);

	if (!rc && f->type == GW_MSG_ERROR)
		return gw_fail(-EREMOTEIO, "%.*s", (int)f->len, (const char *)f->payload);
	if (!rc && f->type != type)
		return gw_fail(-EPROTO, "sent %s where %s was due", gw_message_name(f->type),
			       gw_message_name(type));
	return rc;
}

/* HOLD, on a connection of its own: what it promises then is to be dismissed. */
static int ask(struct gw_source *s, struct gw_sub *sub, int64_t ns)
{
	const unsigned int k = (unsigned int)(sub - s->spread->subs);
	const int64_t deadline = s->ops->now(s->env) + GW_ANSWER_NS;
	gw_autofree char *hold =
		gw_hold_text(json_string_value(json_object_get(s->definition, "name")),
			     s->holder.host[0] ? s->holder.host : "?", s->memory, sub->size, false);
	struct gw_transport *t;

	if (!hold)
		return gw_fail(-ENOMEM, "no memory to ask for memory");
	t = s->ops->sub_connect(s->env, k, GW_MEMORY_REQUESTS, deadline);
	sub->conns[GW_MEMORY_REQUESTS] = t;
	if (!t)
		return -EHOSTUNREACH;
	sub->asked = true;
	t->send_by = deadline;
	return gw_frame_send_buf(t, GW_MSG_HOLD, 0, hold, strlen(hold))
		       ?: expect(s, sub, GW_MSG_HOLDING, ns);
}

/* A host that has two names would drop, as one of them, what it holds as the other. */
static int check_alone(const struct gw_spread *sp, const struct gw_sub *sub)
{
	for (const struct gw_sub *other = sp->subs; other < sub; other++)
		if (!strcmp(other->host, sub->host))
			return gw_fail(-EEXIST,
				       "it is host '%s', as another of the sub-hosts is: each is "
				       "to be named once, and two hosts must not have one name",
				       sub->host);
	return 0;
}

static int open_sub(struct gw_source *s, struct gw_sub *sub)
{
	const unsigned int k = (unsigned int)(sub - s->spread->subs);
	struct gw_transport *t;
	uint32_t features = 0;
	int rc = ask(s, sub, PROMISE_NS);

	if (!rc)
		rc = gw_holding_parse(sub->inbox.payload, sub->inbox.len, sub->host, &sub->stages,
				      &features);
	if (!rc)
		rc = check_alone(s->spread, sub);
	if (rc)
		return rc;
	/* Nothing of it is there yet; what is, of an earlier attempt, goes. */
	rc = gw_frame_send(sub->conns[GW_MEMORY_REQUESTS], GW_MSG_MISSING_END, 0, NULL, 0);
	if (!rc)
		rc = expect(s, sub, GW_MSG_HOLDING, PROMISE_NS);
	if (rc)
		return rc;
	t = s->ops->sub_connect(s->env, k, GW_MEMORY_BULK, s->ops->now(s->env) + GW_ANSWER_NS);
	sub->conns[GW_MEMORY_BULK] = t;
	return t ? 0 : -EHOSTUNREACH;
}

/* Units of the VM that sub-host @sub has room for. */
static size_t room(const struct gw_spread *sp, const struct gw_sub *sub)
{
	return sub->size / GW_PAGE_SIZE / sp->unit_pages;
}

/* Units that the sub-hosts take in all, each as often as it is to be stored, by as many. */
static size_t room_for_all(const struct gw_spread *sp)
{
	size_t all = 0, most = 0;

	for (unsigned int k = 0; k < sp->nr; k++) {
		const size_t units = room(sp, &sp->subs[k]);

		all += units;
		most = units > most ? units : most;
	}
	if (sp->copies < 2)
		return all;
	return all - most < all / 2 ? all - most : all / 2;
}

/* How many units stay with the main host: as few as it wants, if the sub-hosts take the others. */
static int count_units(struct gw_spread *sp, size_t *stay)
{
	const size_t unit_bytes = sp->unit_pages * GW_PAGE_SIZE, all = room_for_all(sp);

	*stay = sp->stay / sp->unit_pages;
	if (*stay + all >= sp->units.nr)
		return 0;
	*stay = sp->units.nr - all;
	if (*stay <= sp->main_memory / unit_bytes)
		return 0;
	return gw_fail(-ENOSPC,
		       "the sub-hosts take %zu MiB of the VM's memory, in chunks of %zu KiB, and "
		       "the main host %llu MiB: that are %zu MiB too few; give a sub-host more "
		       "(HOST:PORT=SIZE), or the main host (--main-memory)",
		       all * unit_bytes >> 20, unit_bytes >> 10,
		       (unsigned long long)sp->main_memory >> 20,
		       ((*stay * unit_bytes - sp->main_memory) >> 20) + 1);
}

/* To whoever but @other has most room left, so that all are as full in the end. */
static unsigned int deal(struct gw_spread *sp, unsigned int other)
{
	unsigned int to = GW_NO_HOLDER;
	size_t best = 0;

	for (unsigned int k = 0; k < sp->nr; k++) {
		size_t left;

		if (k == other)
			continue;
		left = room(sp, &sp->subs[k]) - sp->subs[k].units;
		if (left <= best)
			continue;
		best = left;
		to = k;
	}
	if (to != GW_NO_HOLDER)
		sp->subs[to].units++;
	return to;
}

static void assign(struct gw_spread *sp, const struct gw_bitmap *stay)
{
	for (size_t unit = 0; unit < sp->units.nr; unit++) {
		const bool stays = gw_bitmap_test(stay, unit);
		const unsigned int owner = stays ? GW_SPREAD_MAIN : deal(sp, GW_NO_HOLDER);
		const unsigned int second = stays || !sp->seconds ? GW_NO_HOLDER : deal(sp, owner);
		size_t first, count = gw_unit_pages(&sp->units, unit, &first);

		for (size_t page = first; page < first + count; page += GW_CHUNK_PAGES) {
			sp->owners[page / GW_CHUNK_PAGES] = (uint8_t)owner;
			if (sp->seconds)
				sp->seconds[page / GW_CHUNK_PAGES] = (uint8_t)second;
		}
	}
}

/* Units of which something is memory: the others would take its place at the main host. */
static int find_filled(struct gw_source *s, struct gw_bitmap *filled)
{
	const struct gw_units *units = &s->spread->units;
	struct gw_memory_walk walk = gw_memory_walk(s->memory);
	size_t first, stop;
	int rc;

	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		const size_t unit = gw_unit_of(units, first), last = gw_unit_of(units, stop - 1);

		gw_bitmap_set_range(filled, unit, last - unit + 1);
	}
	return rc;
}

/* What it has used of late stays with it; decided once (IV-C). */
static int plan(struct gw_source *s)
{
	struct gw_spread *sp = s->spread;
	struct gw_bitmap stay = { 0 }, filled = { 0 };
	struct gw_ageing ageing;
	size_t most = 0;
	int rc;

	_Static_assert(GW_UNIT_PAGES_MAX % GW_CHUNK_PAGES == 0, "a chunk is of one unit");
	gw_units_init(&sp->units, s->memory, sp->unit_pages);
	sp->owners = calloc(s->memory->nr_pages / GW_CHUNK_PAGES + 1, 1);
	if (sp->copies > 1)
		sp->seconds = calloc(s->memory->nr_pages / GW_CHUNK_PAGES + 1, 1);
	if (!sp->owners || (sp->copies > 1 && !sp->seconds))
		return gw_fail(-ENOMEM, "no memory to note which page is whose");
	rc = count_units(sp, &most);
	if (rc)
		return rc;
	rc = gw_ageing_init(&ageing, s->memory, sp->unit_pages);
	if (!rc)
		rc = gw_bitmap_init(&stay, sp->units.nr);
	if (!rc)
		rc = gw_bitmap_init(&filled, sp->units.nr);
	if (!rc)
		rc = find_filled(s, &filled);
	sp->history_ns = s->ops->now(s->env);
	sp->sampling = true;
	s->ops->report(s->env);
	if (!rc && s->ran)
		rc = s->ops->history(s->env, &ageing);
	sp->sampling = false;
	sp->history_ns = s->ops->now(s->env) - sp->history_ns;
	/* It goes along: by that the main host chooses what leaves next. */
	if (!rc)
		rc = gw_tell_history(s, ageing.unit, ageing.units.nr);
	if (!rc) {
		gw_ageing_split(&ageing, &filled, most, &stay);
		assign(sp, &stay);
	}
	gw_bitmap_free(&stay);
	gw_bitmap_free(&filled);
	gw_ageing_free(&ageing);
	return rc;
}

int gw_spread_open(struct gw_source *s)
{
	struct gw_spread *sp = s->spread;
	int rc = 0;

	if (!gw_holder_has(&s->holder, GW_FEATURE_SPLIT) ||
	    !gw_holder_has(&s->holder, GW_FEATURE_AGAIN))
		return gw_fail(
			-ENOTSUP,
			"host '%s' cannot run a guest whose memory lies on several hosts: its "
			"godwitd is older; move it without --split",
			s->holder.host);
	if (sp->copies > 1 && !gw_holder_has(&s->holder, GW_FEATURE_CARRIED))
		return gw_fail(-ENOTSUP,
			       "host '%s' cannot have each page at two sub-hosts: its godwitd is "
			       "older; move it without --replicas",
			       s->holder.host);
	for (unsigned int k = 0; !rc && k < sp->nr; k++) {
		rc = open_sub(s, &sp->subs[k]);
		if (rc)
			rc = gw_fail_prefix(rc == -EREMOTEIO ? rc : -EHOSTUNREACH,
					    "sub-host %s: ", sp->subs[k].address);
	}
	return rc ? rc : plan(s);
}

static int dismiss(struct gw_source *s, struct gw_sub *sub)
{
	int rc;

	/* What was under way there has been ended, or was the main host's: begin anew. */
	gw_sub_close(sub);
	rc = ask(s, sub, GW_ANSWER_NS);
	if (!rc)
		rc = gw_frame_send(sub->conns[GW_MEMORY_REQUESTS], GW_MSG_DISMISS, 0, NULL, 0);
	if (!rc)
		rc = expect(s, sub, GW_MSG_DISMISSED, GW_ANSWER_NS);
	gw_sub_close(sub);
	return rc;
}

void gw_spread_dismiss(struct gw_source *s)
{
	for (unsigned int k = 0; s->spread && k < s->spread->nr; k++) {
		struct gw_sub *sub = &s->spread->subs[k];

		if (!sub->asked)
			continue;
		if (dismiss(s, sub)) {
			gw_warn("sub-host %s keeps what it holds of the VM, until somebody there "
				"drops it (godwit held): %s",
				sub->address, gw_error());
			gw_error_clear();
		}
		sub->asked = false;
	}
}
