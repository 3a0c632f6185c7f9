// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * greet.c - the beginning of each dialogue with a memory server: what it is to hold of the VM,
 * which pages must be there by the page table, and which of them are not (messages.h, servers.h).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "frame.h"
#include "hold.h"
#include "log.h"
#include "runs.h"
#include "servers_internal.h"

/* What is held is walked over first (10 ms a GiB), and images may have to give way. */
#define ANSWER_NS (60 * GW_S)
#define LIST_NS	  (60 * GW_S)

int gw_server_take_absent(struct gw_server *s, const struct gw_frame *f)
{
	struct gw_reader r = { f->payload, f->len };
	size_t first = 0, count = 0, lost = 0, dropped = 0, n;
	int rc;

	while ((rc = gw_runs_take(&r, gw_server_split(s)->table.nr_pages, &first, &count)) > 0) {
		lost += gw_split_absent(gw_server_split(s), s->index, first, count, &n);
		dropped += n;
	}
	gw_server_has_less(s, dropped);
	if (dropped)
		gw_warn("memory server %s has lost %zu pages of the VM, which another has",
			s->address, dropped);
	if (lost)
		gw_err("memory server %s has lost %zu pages of the VM", s->address, lost);
	s->lost += lost;
	return rc;
}

int gw_server_expect(struct gw_server *s, struct gw_frame *f, unsigned int type)
{
	int rc = gw_frame_recv(s->conns[GW_MEMORY_REQUESTS], f, gw_server_now(s) + ANSWER_NS);

	if (!rc && f->type == GW_MSG_ERROR)
		rc = gw_fail(-EREMOTEIO, "%.*s", (int)f->len, (const char *)f->payload);
	else if (!rc && type && f->type != type)
		rc = gw_fail(-EPROTO, "a %s frame where %s is due", gw_message_name(f->type),
			     gw_message_name(type));
	return rc;
}

static int say_hold(struct gw_server *s)
{
	const struct gw_servers *v = s->all;
	gw_autofree char *text = gw_hold_text(v->name, v->host, v->split->memory, s->size,
					      v->carried);

	if (!text)
		return gw_fail(-ENOMEM, "no memory to call a memory server");
	s->conns[GW_MEMORY_REQUESTS]->send_by = gw_server_now(s) + GW_CONNECT_NS;
	return gw_frame_send_buf(s->conns[GW_MEMORY_REQUESTS], GW_MSG_HOLD, 0, text, strlen(text));
}

bool gw_server_has_any(const struct gw_server *s)
{
	const struct gw_netpt *t = &s->all->split->table;

	for (size_t unit = 0; unit < t->units.nr; unit++) {
		const int slot = gw_netpt_slot(t, unit, s->index);

		if (slot >= 0 && gw_netpt_has_any(t, unit, (unsigned int)slot))
			return true;
	}
	return false;
}

/*
 * A host that has two names would drop, as one of them, what it holds as the other. So who has
 * nothing waits until it is known what those are called who have something: which of two it was is
 * not known to a process that takes over.
 */
static int check_alone(struct gw_server *s, const char *host)
{
	const bool empty = !gw_server_has_any(s);

	for (unsigned int i = 0; i < s->all->nr; i++) {
		struct gw_server *other = &s->all->servers[i];

		if (other == s || other->gone)
			continue;
		gw_locked(&other->lock);
		s->alias = empty && !other->host[0] && gw_server_has_any(other);
		if (s->alias)
			return gw_fail(-EAGAIN, "%s is called first, which may be the same host",
				       other->address);
		if (strcmp(other->host, host) != 0)
			continue;
		s->alias = true;
		return gw_fail(-EEXIST,
			       "it is host '%s', and so is %s: each is to be named once, and two "
			       "hosts must not have one name",
			       host, other->address);
	}
	s->alias = false;
	return 0;
}

/* Called @host from here on; none: by nobody. */
static void call_it(struct gw_server *s, const char *host)
{
	gw_locked(&s->lock);

	snprintf(s->host, sizeof(s->host), "%s", host);
}

/* What it is called, and which pages' records it reads. */
static int heed_holding(struct gw_server *s, const struct gw_frame *f,
			struct gw_page_options *options)
{
	char host[GW_HOST_MAX];
	uint32_t stages = 0, features = 0;
	int rc = gw_holding_parse(f->payload, f->len, host, &stages, &features);

	if (!rc)
		rc = gw_stages_limit(options, stages);
	if (!rc)
		rc = check_alone(s, host);
	if (rc)
		return rc;
	s->carries = features >> GW_FEATURE_CARRIED & 1;
	/* Another may have looked as we did. */
	call_it(s, host);
	rc = check_alone(s, host);
	if (rc)
		call_it(s, "");
	return rc;
}

/* What of its units is not here, so must be there. */
static int send_list(struct gw_session *e)
{
	struct gw_server *s = e->s;
	const struct gw_netpt *table = &gw_server_split(s)->table;
	struct gw_transport *t = s->conns[GW_MEMORY_REQUESTS];
	size_t at = 0, first, n, len = 0;
	uint64_t away = 0;
	int rc = 0;

	t->send_by = gw_server_now(s) + LIST_NS;
	for (size_t unit = 0; !rc && unit < table->units.nr; unit++) {
		const int slot = gw_netpt_slot(table, unit, s->index);
		size_t count;

		if (slot < 0)
			continue;
		count = gw_unit_pages(&table->units, unit, &first);
		at = first;
		for (const size_t end = first + count;
		     !rc && (n = gw_netpt_next_at(table, (unsigned int)slot, &at, end, &first));) {
			gw_run_put(e->runs + len, first, n);
			len += GW_RUN_LEN;
			away += n;
			if (len < GW_RUNS_MAX * GW_RUN_LEN)
				continue;
			rc = gw_frame_send_buf(t, GW_MSG_MISSING, 0, e->runs, len);
			len = 0;
		}
	}
	if (!rc && len)
		rc = gw_frame_send_buf(t, GW_MSG_MISSING, 0, e->runs, len);
	s->away = away;
	return rc ? rc : gw_frame_send(t, GW_MSG_MISSING_END, away, NULL, 0);
}

/* Which of these it has not got. */
static int take_list(struct gw_server *s, struct gw_frame *f)
{
	int rc;

	s->lost = 0;
	while (!(rc = gw_server_expect(s, f, 0)) && f->type == GW_MSG_ABSENT) {
		rc = gw_server_take_absent(s, f);
		if (rc)
			return rc;
	}
	return !rc && f->type != GW_MSG_HOLDING
		       ? gw_fail(-EPROTO, "a %s frame where HOLDING is due",
				 gw_message_name(f->type))
		       : rc;
}

/* One of its connections, which gw_servers_stop() ends. */
static int connect_one(struct gw_server *s, unsigned int index, int64_t deadline)
{
	struct gw_transport *t = s->all->ops->connect(s->all->env, s, index, deadline);
	gw_locked(&s->lock);

	s->conns[index] = t;
	if (t && s->stop)
		t->ops->shutdown(t);
	return t ? 0 : -ECONNREFUSED;
}

int gw_server_hold(struct gw_server *s, struct gw_frame *f, int64_t deadline)
{
	int rc = connect_one(s, GW_MEMORY_REQUESTS, deadline);

	if (!rc)
		rc = say_hold(s);
	return rc ? rc : gw_server_expect(s, f, GW_MSG_HOLDING);
}

/* It is told what it is to hold: who asks for that later asks for another time. */
static void forget_overrun(struct gw_server *s)
{
	gw_locked(&s->lock);

	s->overrun = false;
}

/* What another brings from here on that it has, too, it need not keep. */
static void tell(struct gw_server *s)
{
	gw_server_forget_stored(s);
	gw_locked(&s->lock);

	s->releases.n = 0;
	s->told = true;
}

int gw_server_greet(struct gw_session *e)
{
	struct gw_server *s = e->s;
	struct gw_page_options options = s->all->options;
	struct gw_frame f = { 0 };
	int rc;

	forget_overrun(s);
	rc = gw_server_hold(s, &f, gw_server_now(s) + GW_CONNECT_NS);
	if (!rc)
		rc = heed_holding(s, &f, &options);
	if (!rc)
		rc = connect_one(s, GW_MEMORY_BULK, gw_server_now(s) + GW_CONNECT_NS);
	e->compared = !rc;
	if (!rc)
		tell(s);
	if (!rc)
		rc = send_list(e);
	if (!rc)
		rc = take_list(s, &f);
	gw_frame_free(&f);
	if (!rc)
		rc = gw_encoder_bare(&e->encoder, &options, s->all->tasks->now, s->all->env);
	if (!rc)
		rc = gw_batch_init(&e->batch, &e->encoder, 0);
	return rc;
}
