// SPDX-License-Identifier: GPL-2.0-or-later
/* servers.c - the memory servers of a split VM; see servers.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "frame.h"
#include "log.h"
#include "runs.h"
#include "servers_internal.h"

/* A fault's request is some bytes: a connection that does not take them is of no use. */
#define ASK_NS	       (200 * GW_MS)
#define DISMISS_NS     (5 * GW_S)
#define RETRY_LEAST_NS (100 * GW_MS)
#define RETRY_MOST_NS  (5 * GW_S)
/* For one that would not store what it was sent. */
#define REFUSED_NS     (5 * GW_S)
/* How often somebody looks who was not woken. */
#define LOOK_NS	       (50 * GW_MS)

static void note_failure(struct gw_server *s, int rc)
{
	{
		gw_locked(&s->lock);
		if (!s->failed) {
			snprintf(s->error, sizeof(s->error), "%.255s", gw_error());
			s->dropped = gw_transport_lost(rc);
		}
		s->failed = true;
		gw_server_signal(s);
	}
	s->all->ops->notify(s->all->env);
}

int gw_servers_request(struct gw_servers *v, unsigned int server, const size_t *pages,
		       unsigned int n)
{
	struct gw_server *s = &v->servers[server];
	uint8_t runs[GW_FAULTS_MAX * GW_RUN_LEN];
	int rc;

	if (server >= v->nr)
		return -ENODEV;
	{
		gw_locked(&s->send);
		if (!s->up || s->failed)
			return -ENOTCONN;
		s->conns[GW_MEMORY_REQUESTS]->send_by = gw_server_now(s) + ASK_NS;
		rc = gw_frame_send_buf(s->conns[GW_MEMORY_REQUESTS], GW_MSG_REQUEST, 0, runs,
				       gw_runs_list(pages, n, runs));
	}
	if (rc)
		note_failure(s, rc);
	return rc;
}

void gw_servers_fetch(struct gw_servers *v, unsigned int server, size_t first, size_t count)
{
	struct gw_server *s = &v->servers[server];

	if (server >= v->nr || !s->up)
		return;
	gw_locked(&s->lock);
	for (unsigned int i = 0; i < s->nr_fetches; i++)
		if (s->fetches[i].first <= first &&
		    s->fetches[i].first + s->fetches[i].count >= first + count)
			return;
	if (s->nr_fetches < GW_FETCHES_MAX)
		s->fetches[s->nr_fetches++] = (struct gw_fetch){ first, count };
	gw_server_signal(s);
}

void gw_servers_release(struct gw_servers *v, unsigned int server, size_t page, size_t count)
{
	struct gw_server *s = &v->servers[server];

	if (server >= v->nr)
		return;
	gw_locked(&s->lock);
	if (!s->up && !s->told) /* it is told what is away once it is there again */
		return;
	if (s->releases.n == GW_RELEASES_MAX) {
		s->overrun = true;
		return;
	}
	s->releases.runs[s->releases.n].first = page;
	s->releases.runs[s->releases.n++].count = (uint32_t)count;
	if (s->releases.n == GW_RELEASES_MAX / 2)
		gw_server_signal(s);
}

void gw_servers_wake(struct gw_servers *v)
{
	for (unsigned int i = 0; i < v->nr; i++) {
		gw_locked(&v->servers[i].lock);
		gw_server_signal(&v->servers[i]);
	}
}

void gw_servers_compare(struct gw_servers *v)
{
	for (unsigned int i = 0; i < v->nr; i++) {
		gw_locked(&v->servers[i].lock);
		v->servers[i].overrun = true;
		gw_server_signal(&v->servers[i]);
	}
}

/* Units that its holder has: they are here no more. */
static int take_stored(struct gw_server *s, uint64_t frames)
{
	for (;;) {
		struct gw_departure *shared;
		struct gw_leaving l;
		int rc;

		{
			gw_locked(&s->lock);
			if (frames > s->frames_sent || frames < s->frames_stored)
				return gw_fail(-EPROTO, "has stored more than it was sent");
			s->frames_stored = frames;
			if (!s->nr_leaving || s->leaving[s->first_leaving].frames > frames)
				break;
			l = s->leaving[s->first_leaving].l;
			shared = s->leaving[s->first_leaving].shared;
			s->first_leaving = (s->first_leaving + 1) % GW_LEAVING_MAX;
			s->nr_leaving--;
			gw_server_signal(s);
		}
		rc = gw_departure_end(s, shared, &l, true);
		if (rc)
			return rc;
	}
	return 0;
}

static int take(struct gw_receiver *r, struct gw_decoder *decoder, const struct gw_frame *f)
{
	struct gw_server *s = r->s;

	switch (f->type) {
	case GW_MSG_PAGES:
		return gw_pipeline_decode(decoder, f->arg, f->payload, f->len);
	case GW_MSG_ABSENT:
		return gw_server_take_absent(s, f);
	case GW_MSG_STORED:
		if (r->index == GW_MEMORY_BULK)
			return take_stored(s, f->arg);
		break;
	case GW_MSG_ERROR:
		return gw_fail(-EREMOTEIO, "%.*s", (int)f->len, (const char *)f->payload);
	default:
		break;
	}
	return gw_fail(-EPROTO, "a %s frame from a memory server", gw_message_name(f->type));
}

static void receive(void *arg)
{
	struct gw_receiver *r = arg;
	struct gw_server *s = r->s;
	struct gw_decoder decoder;
	struct gw_frame f = { 0 };
	int rc = 0;

	s->all->tasks->urgency(s->all->env, r->index == GW_MEMORY_REQUESTS ? GW_URGENT : GW_BULK);
	gw_decoder_init(&decoder, s->all->sink, gw_server_split(s)->table.nr_pages);
	while (!rc) {
		rc = gw_frame_recv(s->conns[r->index], &f, GW_FOREVER);
		s->heard = gw_server_now(s);
		if (!rc)
			rc = take(r, &decoder, &f);
	}
	gw_frame_free(&f);
	gw_decoder_free(&decoder);
	if (rc == -EREMOTEIO)
		s->refused_until = gw_server_now(s) + REFUSED_NS;
	note_failure(s, rc);
}

/* From here on it is asked for what is wanted. */
static int begin(struct gw_session *e)
{
	struct gw_server *s = e->s;

	{
		gw_locked(&s->lock);
		s->frames_sent = s->frames_stored = 0;
		s->nr_leaving = s->nr_fetches = 0;
		s->heard = gw_server_now(s);
		s->failed = false;
		s->error[0] = '\0';
		s->up = true;
	}
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		struct gw_receiver *r = &e->receivers[i];

		r->s = s;
		r->index = i;
		r->task = s->all->tasks->spawn(s->all->env, receive, r);
		if (!r->task)
			return -EAGAIN;
	}
	gw_info("memory server %s ('%s') is there, and has %llu pages of the VM", s->address,
		s->host, (unsigned long long)s->away);
	gw_split_ask(gw_server_split(s));
	return 0;
}

/* Nobody uses them any more, or begins to. */
static void close_connections(struct gw_server *s)
{
	pthread_mutex_lock(&s->send);
	pthread_mutex_lock(&s->lock);
	if (s->up)
		s->down_since = gw_server_now(s);
	s->up = s->told = false;
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&s->conns[i]);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->send);
}

static struct gw_departure *take_part(struct gw_server *s)
{
	gw_locked(&s->lock);

	return gw_departure_take(s);
}

static void end(struct gw_session *e)
{
	struct gw_server *s = e->s;
	struct gw_departure *part;
	struct gw_leaving l;

	s->failed = true;
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		if (s->conns[i])
			s->conns[i]->ops->shutdown(s->conns[i]);
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		if (e->receivers[i].task)
			s->all->tasks->join(s->all->env, e->receivers[i].task);
	close_connections(s);
	while (s->nr_leaving) {
		part = s->leaving[s->first_leaving].shared;
		l = s->leaving[s->first_leaving].l;
		s->first_leaving = (s->first_leaving + 1) % GW_LEAVING_MAX;
		s->nr_leaving--;
		gw_departure_end(s, part, &l, false);
	}
	/* Nobody adds to them any more. */
	while ((part = take_part(s)))
		gw_departure_end(s, part, &part->l, false);
	if (e->compared)
		gw_split_unask(gw_server_split(s), s->index);
	/* Another may have what was asked of it. */
	if (e->compared && gw_netpt_copies_max(&gw_server_split(s)->table) > 1)
		gw_split_ask(gw_server_split(s));
	e->compared = false;
	gw_batch_free(&e->batch);
	gw_encoder_free(&e->encoder);
	memset(e->receivers, 0, sizeof(e->receivers));
}

/* Until there is something to do. */
static void rest(struct gw_server *s)
{
	const int64_t until = gw_server_now(s) + LOOK_NS;
	gw_locked(&s->lock);
	const bool part = s->parts && s->nr_leaving < GW_LEAVING_MAX;

	if (!s->stop && !s->failed && !s->nr_fetches && !part)
		s->all->tasks->rest(s->all->env, &s->work, &s->lock, until);
}

/* Whatever there is to do, nobody is there to do it with. */
static void pause_until(struct gw_server *s, int64_t until)
{
	gw_locked(&s->lock);

	while (!s->stop && gw_server_now(s) < until)
		s->all->tasks->rest(s->all->env, &s->work, &s->lock, until);
}

static int dismiss(struct gw_server *s, int64_t deadline)
{
	struct gw_frame f = { 0 };
	int rc;

	rc = gw_server_hold(s, &f, deadline);
	if (!rc)
		rc = gw_frame_send(s->conns[GW_MEMORY_REQUESTS], GW_MSG_DISMISS, 0, NULL, 0);
	if (!rc)
		rc = gw_server_expect(s, &f, GW_MSG_DISMISSED);
	gw_frame_free(&f);
	gw_transport_close(&s->conns[GW_MEMORY_REQUESTS]);
	return rc;
}

static void try_to_dismiss(struct gw_server *s, int64_t deadline)
{
	if (!dismiss(s, deadline))
		return;
	gw_warn("memory server %s keeps what it holds of the VM, until somebody there drops it: "
		"%s",
		s->address, gw_error());
	gw_error_clear();
}

/* Of one that leaves: nothing is there, and nothing is on its way. */
static bool is_done(struct gw_server *s)
{
	{
		gw_locked(&s->lock);
		if (!s->leaves || s->nr_leaving || s->parts)
			return false;
	}
	return !gw_server_has_any(s);
}

static int serve(struct gw_session *e)
{
	struct gw_server *s = e->s;
	int rc = 0;

	while (!rc && !s->failed && !s->stop) {
		bool did = false;

		rc = gw_bulk_step(e, &did);
		if (!rc)
			rc = gw_server_listen(s);
		if (rc || did)
			continue;
		if (is_done(s))
			break;
		rest(s);
	}
	return rc;
}

/*
 * Nobody hears it any more, so what it had stored when it was heard last is away by now, if
 * anything was. Whether it can be reached does not matter then. Return: whether it is gone.
 */
static bool leave(struct gw_server *s)
{
	if (s->stop || !s->leaves)
		return false;
	gw_server_forget_stored(s);
	if (gw_server_has_any(s))
		return false;
	if (!s->alias)
		try_to_dismiss(s, gw_server_now(s) + DISMISS_NS);
	if (s->stop)
		return false;
	s->gone = true;
	s->all->ops->notify(s->all->env);
	return true;
}

static void keep_up(void *arg)
{
	struct gw_server *s = arg;
	struct gw_session e = { .s = s, .runs = malloc(GW_RUNS_MAX * GW_RUN_LEN) };
	int64_t pause = RETRY_LEAST_NS;
	char said[sizeof(s->error)] = "";

	s->all->tasks->urgency(s->all->env, GW_BULK);
	while (!s->stop && e.runs) {
		int rc = gw_server_greet(&e);

		s->failed = false;
		if (!rc)
			rc = begin(&e);
		if (!rc) /* whoever waits for its pages waits no longer than need be */
			pause = RETRY_LEAST_NS;
		if (!rc)
			rc = serve(&e);
		if (rc)
			note_failure(s, rc);
		end(&e);
		if (leave(s))
			break;
		/* It is only to be told anew, which nobody is to wait for longer than need be. */
		if (rc == -ENOBUFS) {
			s->failed = false;
			continue;
		}
		/* One that is away for long is not told of each time. */
		if (!s->stop && (!rc || strcmp(said, s->error) != 0))
			gw_warn("memory server %s: %s", s->address, s->error);
		memcpy(said, s->error, sizeof(said));
		s->failed = false;
		pause_until(s, gw_server_now(s) + pause);
		pause = pause * 2 < RETRY_MOST_NS ? pause * 2 : RETRY_MOST_NS;
	}
	free(e.runs);
}

/* Once: who has a fault to serve uses the locks while all others are ended, and begin again. */
static void init(struct gw_servers *v, unsigned int n)
{
	struct gw_server *s = &v->servers[n];

	s->all = v;
	s->index = n;
	pthread_mutex_init(&s->send, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
}

static int start(struct gw_servers *v, unsigned int i)
{
	struct gw_server *s = &v->servers[i];

	s->stop = s->failed = false;
	s->down_since = gw_server_now(s);
	s->task = v->tasks->spawn(v->env, keep_up, s);
	return s->task ? 0 : gw_fail(-EAGAIN, "no thread to call memory server %s", s->address);
}

int gw_servers_start(struct gw_servers *v)
{
	int rc = 0;

	if (!v->servers[0].all)
		pthread_mutex_init(&v->ending, NULL);
	v->started = true;
	for (unsigned int i = 0; i < v->nr; i++)
		if (!v->servers[i].all)
			init(v, i);
	/* Each looks at the others, too. */
	for (unsigned int i = 0; !rc && i < v->nr; i++)
		if (!v->servers[i].gone)
			rc = start(v, i);
	if (rc)
		gw_servers_stop(v);
	return rc;
}

int gw_servers_add(struct gw_servers *v, unsigned int index)
{
	struct gw_server *s = &v->servers[index];

	if (!s->all)
		init(v, index);
	s->gone = s->leaves = s->alias = false;
	s->away = s->lost = 0;
	s->host[0] = s->error[0] = '\0';
	s->dropped = false;
	s->next = 0;
	s->next_remake = 0;
	s->refused_until = 0;
	if (index == v->nr)
		v->nr++;
	return start(v, index);
}

/* They are told first, so that nobody waits for another. */
static void tell_to_stop(struct gw_server *s)
{
	gw_locked(&s->lock);

	s->stop = s->failed = true;
	gw_server_signal(s);
	for (unsigned int k = 0; k < GW_MEMORY_CONNECTIONS; k++)
		if (s->conns[k])
			s->conns[k]->ops->shutdown(s->conns[k]);
}

static void join(struct gw_server *s)
{
	s->all->tasks->join(s->all->env, s->task);
	s->task = NULL;
}

bool gw_servers_is_gone(struct gw_servers *v, unsigned int index)
{
	struct gw_server *s = &v->servers[index];

	if (s->gone && s->task)
		join(s);
	return s->gone;
}

void gw_servers_stop(struct gw_servers *v)
{
	if (!v->started)
		return;
	v->started = false;
	for (unsigned int i = 0; i < v->nr; i++)
		if (v->servers[i].task)
			tell_to_stop(&v->servers[i]);
	for (unsigned int i = 0; i < v->nr; i++)
		if (v->servers[i].task)
			join(&v->servers[i]);
}

int gw_servers_finish(struct gw_servers *v)
{
	int rc;

	gw_servers_stop(v);
	if (!v->split->table.away)
		return 1;
	rc = gw_servers_start(v);
	return rc < 0 ? rc : 0;
}

void gw_servers_dismiss(struct gw_servers *v, int64_t deadline)
{
	for (unsigned int i = 0; i < v->nr; i++) {
		if (v->servers[i].gone)
			continue;
		if (!v->servers[i].all)
			init(v, i);
		v->servers[i].stop = false; /* its thread has ended */
		try_to_dismiss(&v->servers[i], deadline);
	}
}

json_t *gw_servers_json(struct gw_servers *v)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < v->nr; i++) {
		struct gw_server *s = &v->servers[i];

		if (s->gone)
			continue;
		gw_locked(&s->lock);
		json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:b,s:I,s:I,s:I,s:s}",
						      "address", s->address, "host", s->host,
						      "connected", (int)s->up, "leaves",
						      (int)s->leaves, "pages", (json_int_t)s->away,
						      "size", (json_int_t)s->size, "lost",
						      (json_int_t)s->lost, "error-desc", s->error));
	}
	return list;
}
