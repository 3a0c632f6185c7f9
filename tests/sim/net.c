// SPDX-License-Identifier: GPL-2.0-or-later
/* net.c - connections in memory; see net.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "net.h"
#include "step.h"

#define ENDS_MAX 64

struct segment {
	struct segment *next;
	int64_t arrives; /* INT64_MAX: lost */
	size_t len, at;
	uint8_t bytes[];
};

/* One direction. */
struct way {
	struct segment *first, **last;
	size_t inside;	      /* bytes between the two programs */
	int64_t last_arrival; /* order is kept */
	int64_t fin;	      /* when the end of file arrives; INT64_MAX: none */
	bool cut;
};

struct conn {
	struct way to[2];
	int64_t dead_at; /* both ends find silence */
	unsigned int refs;
};

struct end {
	struct gw_transport t;
	struct conn *conn;
	int side;
	struct process *process;
	bool shut;
};

static struct {
	struct net_link link;
	int64_t stalled_until, cut_at;
	struct rng rng;
	bool cut, damage, cut_one;
	struct end *ends[ENDS_MAX];
	unsigned int n;
} net;

void net_init(const struct net_link *link)
{
	net.link = *link;
	net.rng.state = link->seed;
	net.stalled_until = 0;
	net.cut = net.damage = net.cut_one = false;
	net.n = 0;
}

static uint64_t rate_now(void)
{
	return net.link.rate_now ? net.link.rate_now(net.link.rate) : net.link.rate;
}

static struct end *end_of(struct gw_transport *t)
{
	return (struct end *)t;
}

static int64_t arrival(struct way *w, size_t len)
{
	int64_t at = sim_now() + net.link.latency;

	if (net.link.uneven)
		at += (int64_t)rng_below(&net.rng, (uint64_t)net.link.uneven);
	if (net.cut || w->cut)
		return INT64_MAX;
	if (at < net.stalled_until)
		at = net.stalled_until;
	if (at < w->last_arrival)
		at = w->last_arrival;
	w->last_arrival = at + (int64_t)(len * GW_S / rate_now());
	return w->last_arrival;
}

static void put(struct way *w, const void *bytes, size_t len)
{
	struct segment *s = malloc(sizeof(*s) + len);

	if (!s)
		abort();
	memcpy(s->bytes, bytes, len);
	if (net.damage) {
		s->bytes[len / 2] ^= 0x10;
		net.damage = false;
	}
	s->next = NULL;
	s->len = len;
	s->at = 0;
	s->arrives = arrival(w, len);
	*w->last = s;
	w->last = &s->next;
	w->inside += len;
}

/* Take what has arrived, at most @len bytes. */
static size_t take(struct way *w, uint8_t *buf, size_t len)
{
	size_t taken = 0;

	while (taken < len && w->first && w->first->arrives <= sim_now()) {
		struct segment *s = w->first;
		size_t n = s->len - s->at < len - taken ? s->len - s->at : len - taken;

		memcpy(buf + taken, s->bytes + s->at, n);
		s->at += n;
		taken += n;
		w->inside -= n;
		if (s->at < s->len)
			break;
		w->first = s->next;
		if (!w->first)
			w->last = &w->first;
		free(s);
	}
	return taken;
}

static void sooner(int64_t *when, int64_t at)
{
	if (at < *when)
		*when = at;
}

static bool over(const struct end *e, int64_t *when)
{
	sooner(when, e->conn->dead_at);
	return e->process->dead || e->shut || e->conn->dead_at <= sim_now();
}

static bool arrived(const struct end *e, int64_t *when)
{
	const struct way *w = &e->conn->to[e->side];
	int64_t next = w->first ? w->first->arrives : w->fin;

	sooner(when, next);
	return next <= sim_now();
}

bool net_readable(struct gw_transport *t, int64_t *when)
{
	return over(end_of(t), when) || arrived(end_of(t), when);
}

static bool recv_ready(void *arg, int64_t *when)
{
	struct end *e = arg;

	if (e->t.wake_fd >= 0 && net.link.wake[e->t.wake_fd])
		return true;
	return over(e, when) || arrived(e, when);
}

/* Wait until ready, or the next tick; then that. */
static int wait_ticking(struct end *e, fiber_ready ready, int64_t deadline)
{
	const int64_t tick = e->t.on_tick ? sim_now() + GW_TICK_NS : GW_FOREVER;

	if (!fiber_wait(ready, e, deadline < tick ? deadline : tick) && e->t.on_tick &&
	    !e->process->dead)
		return e->t.on_tick(e->t.tick_arg);
	return 0;
}

static int net_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct end *e = end_of(t);
	struct way *w = &e->conn->to[e->side];
	uint8_t *at = buf;
	int rc = sim_step(e->process, "recv", 0);

	while (!rc) {
		size_t n = e->process->dead ? 0 : take(w, at, len);

		t->received += n;
		at += n;
		len -= n;
		if (!len)
			break;
		if (e->process->dead)
			rc = gw_fail(-ESHUTDOWN, "%s is dead", e->process->name);
		else if (e->shut || (!w->first && w->fin <= sim_now()))
			rc = gw_fail(-ECONNRESET, "the peer closed the connection");
		else if (e->conn->dead_at <= sim_now())
			rc = gw_fail(-ETIMEDOUT, "the peer has not answered for 5 s");
		else if (t->wake_fd >= 0 && net.link.wake[t->wake_fd])
			rc = t->on_wake(t->wake_arg);
		else if (deadline <= sim_now())
			rc = gw_fail(-ETIMEDOUT, "the peer did not answer in time");
		else
			rc = wait_ticking(e, recv_ready, deadline);
	}
	return rc;
}

static bool send_ready(void *arg, int64_t *when)
{
	struct end *e = arg;

	sooner(when, e->conn->to[e->side].fin);
	return over(e, when) || e->conn->to[e->side].fin <= sim_now() ||
	       e->conn->to[!e->side].inside < NET_WINDOW;
}

/* From here on nothing arrives on it, either way, and nobody is told. */
static void cut_one(struct conn *c)
{
	for (int side = 0; side < 2; side++) {
		struct way *w = &c->to[side];

		w->cut = true;
		for (struct segment *s = w->first; s; s = s->next)
			if (s->arrives > sim_now())
				s->arrives = INT64_MAX;
		if (w->fin > sim_now())
			w->fin = INT64_MAX;
	}
	sooner(&c->dead_at, sim_now() + GW_TCP_SILENCE_MS * GW_MS);
}

/* Send some of @len bytes. Return: how many, or -errno. */
static long send_some(struct end *e, const uint8_t *bytes, size_t len)
{
	struct way *w = &e->conn->to[!e->side];
	bool full = w->inside >= NET_WINDOW;
	int64_t fin = e->conn->to[e->side].fin;

	if (e->process->dead)
		return gw_fail(-ESHUTDOWN, "%s is dead", e->process->name);
	if (e->shut)
		return gw_fail(-ECONNRESET, "the connection was closed here");
	/* The first bytes after the peer has gone are lost quietly; its reset stops the rest. */
	if (fin != INT64_MAX && (full ? fin : fin + 2 * net.link.latency) <= sim_now())
		return gw_fail(-ECONNRESET, "the peer closed the connection");
	if (e->conn->dead_at <= sim_now())
		return gw_fail(-ETIMEDOUT, "the peer has not answered for 5 s");
	if (full && e->t.send_by && e->t.send_by <= sim_now())
		return gw_fail(-ETIMEDOUT, "the peer takes nothing more");
	if (full)
		return wait_ticking(e, send_ready, e->t.send_by ? e->t.send_by : GW_FOREVER);
	if (len > NET_WINDOW - w->inside)
		len = NET_WINDOW - w->inside;
	if (net.cut_one)
		cut_one(e->conn);
	net.cut_one = false;
	put(w, bytes, len);
	e->t.sent += len;
	return (long)len;
}

static int net_send(struct gw_transport *t, struct iovec *iov, int n)
{
	struct end *e = end_of(t);
	int rc = sim_step(e->process, "send", STEP_SENDS);

	for (int i = 0; !rc && i < n; i++) {
		size_t done = 0;

		while (!rc && done < iov[i].iov_len) {
			long some = send_some(e, (const uint8_t *)iov[i].iov_base + done,
					      iov[i].iov_len - done);

			if (some < 0)
				rc = (int)some;
			else
				done += (size_t)some;
		}
	}
	return rc;
}

static void finish(struct end *e)
{
	struct way *w = &e->conn->to[!e->side];

	if (e->shut)
		return;
	e->shut = true;
	w->fin = arrival(w, 0);
}

static void net_shutdown(struct gw_transport *t)
{
	if (!end_of(t)->process->dead)
		finish(end_of(t));
}

static void conn_put(struct conn *c)
{
	if (--c->refs)
		return;
	for (int side = 0; side < 2; side++) {
		while (c->to[side].first) {
			struct segment *s = c->to[side].first;

			c->to[side].first = s->next;
			free(s);
		}
	}
	free(c);
}

static void net_close(struct gw_transport *t)
{
	struct end *e = end_of(t);

	finish(e);
	for (unsigned int k = 0; k < net.n; k++)
		if (net.ends[k] == e)
			net.ends[k] = net.ends[--net.n];
	conn_put(e->conn);
	free(e);
}

static const struct gw_transport_ops net_ops = {
	.send = net_send,
	.recv = net_recv,
	.shutdown = net_shutdown,
	.close = net_close,
};

static struct end *end_new(struct conn *c, int side, struct process *process)
{
	struct end *e = calloc(1, sizeof(*e));

	if (!e || net.n == ENDS_MAX)
		abort();
	e->t.ops = &net_ops;
	e->t.poll_fd = -1;
	e->t.wake_fd = -1;
	e->conn = c;
	e->side = side;
	e->process = process;
	c->refs++;
	net.ends[net.n++] = e;
	return e;
}

struct gw_transport *net_open(struct process *here, struct process *there,
			      struct gw_transport **peer, int64_t deadline)
{
	int64_t done = sim_now() + 2 * net.link.latency;
	struct conn *c;

	if (done < net.stalled_until)
		done = net.stalled_until;
	if (net.cut || done > deadline) {
		fiber_sleep_until(deadline);
		gw_fail(-ETIMEDOUT, "cannot reach the peer");
		return NULL;
	}
	fiber_sleep_until(done);
	if (here->dead || net.cut) {
		gw_fail(-ETIMEDOUT, "cannot reach the peer");
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	for (int side = 0; side < 2; side++) {
		c->to[side].last = &c->to[side].first;
		c->to[side].fin = INT64_MAX;
	}
	c->dead_at = INT64_MAX;
	*peer = &end_new(c, 1, there)->t;
	return &end_new(c, 0, here)->t;
}

void net_give(struct gw_transport *t, struct process *process)
{
	end_of(t)->process = process;
}

void net_leave(const struct process *process)
{
	for (unsigned int k = 0; k < net.n; k++)
		if (net.ends[k]->process == process)
			finish(net.ends[k]);
}

/* Call @change for the arrival of everything under way. */
static void under_way(void (*change)(int64_t *when))
{
	for (unsigned int k = 0; k < net.n; k++) {
		struct way *w = &net.ends[k]->conn->to[net.ends[k]->side];

		for (struct segment *s = w->first; s; s = s->next)
			if (s->arrives > sim_now())
				change(&s->arrives);
		if (w->fin != INT64_MAX && w->fin > sim_now())
			change(&w->fin);
	}
}

static void lose(int64_t *when)
{
	*when = INT64_MAX;
}

static void delay(int64_t *when)
{
	if (*when < net.stalled_until)
		*when = net.stalled_until;
}

void net_cut(void)
{
	if (!net.cut)
		net.cut_at = sim_now();
	net.cut = true;
	under_way(lose);
	for (unsigned int k = 0; k < net.n; k++)
		sooner(&net.ends[k]->conn->dead_at, sim_now() + GW_TCP_SILENCE_MS * GW_MS);
}

void net_cut_of(const struct process *process)
{
	for (unsigned int k = 0; k < net.n; k++)
		if (net.ends[k]->process == process)
			cut_one(net.ends[k]->conn);
}

void net_mend(void)
{
	net.cut = false;
}

int64_t net_cut_for(void)
{
	return net.cut ? sim_now() - net.cut_at : 0;
}

void net_stall(int64_t ns)
{
	net.stalled_until = sim_now() + ns;
	under_way(delay);
}

void net_cut_one(void)
{
	net.cut_one = true;
}

void net_damage(void)
{
	net.damage = true;
}

unsigned int net_ends(void)
{
	return net.n;
}
