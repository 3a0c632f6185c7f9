// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * paging.c - a guest that runs here while its memory is still to come; see paging.h.
 *
 * Threads: the machine's own mends connections; those of ops->spawn receive, one for each
 * connection; those behind ops->start bring faults, and ask for pages on connection 0.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "kept.h"
#include "log.h"
#include "paging_internal.h"
#include "runs.h"

#define JOIN_NS (10 * GW_S) /* until all connections are there, before the guest runs */
#define LOOK_NS (1 * GW_S)
#define LIST_NS (60 * GW_S)

static int64_t op_now(void *env)
{
	return gw_page_now(env);
}

static int op_map(void *env, size_t page, size_t count, size_t *mapped)
{
	const struct gw_page *g = env;

	return gw_page_ops_of(g)->map(g->d->page_env, page, count, mapped);
}

static int op_map_zero(void *env, size_t page)
{
	const struct gw_page *g = env;

	return gw_page_ops_of(g)->map_zero(g->d->page_env, page);
}

static void op_wake(void *env, size_t page, size_t count)
{
	const struct gw_page *g = env;

	gw_page_ops_of(g)->wake(g->d->page_env, page, count);
}

static void op_notify(void *env)
{
	const struct gw_page *g = env;

	g->d->ops->notify(g->d->env);
}

static void note_failure(struct gw_page *g, int rc)
{
	{
		gw_locked(&g->lock);
		if (!g->failed) {
			g->rc = rc;
			snprintf(g->message, sizeof(g->message), "%s", gw_error());
		}
		g->failed = true;
	}
	op_notify(g);
}

/* What cannot be asked is wanted all the same: connect() asks for it. */
static void op_request(void *env, const size_t *pages, unsigned int n)
{
	struct gw_page *g = env;
	uint8_t runs[GW_FAULTS_MAX * GW_RUN_LEN];
	int rc = 0;

	{
		gw_locked(&g->lock);
		if (!g->up)
			return;
		g->conns[0]->send_by = op_now(g) + ASK_NS;
		rc = gw_frame_send_buf(g->conns[0], GW_MSG_REQUEST, 0, runs,
				       gw_runs_list(pages, n, runs));
	}
	if (rc)
		note_failure(g, rc);
}

/* What the image's ledger says of them. */
static void op_compare(void *env, size_t page, unsigned int count, bool *right)
{
	const struct gw_page *g = env;
	const struct gw_dest *d = g->d;
	const struct gw_digest *must = &d->kept.ledger->digests[page];
	uint8_t bytes[GW_COMPARED_MAX * GW_PAGE_SIZE];
	bool zeros = true;
	int rc;

	for (unsigned int i = 0; i < count; i++)
		zeros = zeros && gw_digest_is_zero(must[i]);
	memset(right, zeros, count * sizeof(*right));
	if (zeros && gw_memory_is_hole(d->memory, page, count) == 1)
		return;
	rc = gw_memory_read(d->memory, page, count, bytes);
	if (rc) /* the source has it */
		gw_error_clear();
	for (unsigned int i = 0; i < count; i++)
		right[i] = !rc &&
			   gw_digest_equal(gw_key_page(&d->key, bytes + i * GW_PAGE_SIZE), must[i]);
}

/* Not more than one sends on connection @i, which pushes. Lost: who connects tells it again. */
static int send_on_push(struct gw_page *g, unsigned int i, unsigned int type, uint64_t arg,
			const void *payload, size_t len)
{
	gw_locked(&g->push_locks[i]);
	if (!g->open[i])
		return 0;
	g->conns[i]->send_by = op_now(g) + ASK_NS;
	return gw_frame_send_buf(g->conns[i], type, arg, payload, len);
}

/* What lies here is wrong. On a connection that pushes: what is asked for comes first. */
static int refuse(struct gw_page *g, size_t page, size_t count)
{
	const unsigned int i = 1 + (unsigned int)(page / GW_CHUNK_PAGES % (g->n - 1));
	uint8_t run[GW_RUN_LEN];
	int rc;

	gw_run_put(run, page, count);
	rc = send_on_push(g, i, GW_MSG_REFUSED, 0, run, sizeof(run));
	if (rc)
		note_failure(g, rc);
	return rc;
}

static void op_refuse(void *env, size_t page, unsigned int count)
{
	refuse(env, page, count);
}

static const struct gw_pager_ops pager_ops = {
	.now = op_now,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.request = op_request,
	.compare = op_compare,
	.refuse = op_refuse,
	.notify = op_notify,
};

/*
 * A disk does not have what pages should be, or not in time. What has come by now is of no
 * interest to anybody.
 */
static void refuse_missing(void *arg, uint64_t page, unsigned int count)
{
	struct gw_page *g = arg;
	const size_t end = page + count;

	for (size_t at = page, n; at < end; at += n) {
		const bool missing = gw_missing_test(&g->pager.missing, at);

		for (n = 1; at + n < end && gw_missing_test(&g->pager.missing, at + n) == missing;)
			n++;
		/* What cannot be told is on the list when the source calls again. */
		if (missing && refuse(g, at, n))
			gw_error_clear();
	}
}

static int fetch(struct gw_sink *sink, uint64_t page, unsigned int count, struct gw_hint at,
		 const uint8_t *digests)
{
	struct gw_pager *p = ((struct gw_page_in *)sink)->pager;
	struct gw_page *g = p->env;
	int rc = gw_teleport_put(g->d->teleport, page, count, at, digests);

	/* Who waits for one of them has asked when the source took it for on its way. */
	for (size_t i = page; !rc && i < page + count; i++)
		if (gw_shared_bit(p->wanted, i))
			op_request(g, &i, 1);
	return rc;
}

static int make(struct gw_dest *d)
{
	struct gw_page *g = calloc(1, sizeof(*g));

	if (!g)
		return gw_fail(-ENOMEM, "no memory to page with");
	g->d = d;
	g->n = d->paging;
	pthread_mutex_init(&g->lock, NULL);
	for (unsigned int i = 0; i < GW_PAGING_MAX; i++)
		pthread_mutex_init(&g->push_locks[i], NULL);
	g->pager.ops = &pager_ops;
	g->pager.env = g;
	g->pager.memory = d->memory;
	gw_page_in_init(&g->in, &g->pager, d->keyed ? &d->key : NULL);
	if (d->teleport) {
		g->in.sink.fetch = fetch;
		gw_teleport_follow(d->teleport, &g->in.sink, refuse_missing, g);
	}
	d->page = g;
	return gw_pager_init(&g->pager);
}

/* A frame of connection @i. Return: 1: it is not ours any more; 0; -errno. */
static int take(struct gw_page *g, unsigned int i, struct gw_frame *f)
{
	struct gw_transport *t = g->conns[i];
	int rc;

	if (!i && !g->pager.missing.left &&
	    (f->type == GW_MSG_LEDGER || f->type == GW_MSG_LEDGER_END)) {
		g->first = *f;
		memset(f, 0, sizeof(*f));
		g->handed = true;
		op_notify(g);
		return 1;
	}
	if (!i && f->type == GW_MSG_ERROR && f->arg == GW_ERROR_LOST)
		return gw_fail(-ENODATA, "%.*s", (int)f->len, (const char *)f->payload);
	if (f->type == GW_MSG_ERROR || f->type == GW_MSG_CANCEL)
		return gw_fail(-EREMOTEIO, "source: %.*s", (int)f->len, (const char *)f->payload);
	if (f->type != GW_MSG_PAGES)
		return gw_fail(-EPROTO, "a %s frame on a paging connection",
			       gw_message_name(f->type));
	rc = gw_pipeline_decode(&g->decoders[i], f->arg, f->payload, f->len);
	if (rc || !i)
		return rc;
	return send_on_push(g, i, GW_MSG_PLACED, t->received, NULL, 0);
}

static void receive(void *arg, unsigned int i)
{
	struct gw_page *g = arg;
	struct gw_frame f = { 0 };
	int rc = 0;

	gw_page_ops_of(g)->urgency(g->d->page_env, i ? GW_BULK : GW_URGENT);
	while (!rc) {
		rc = gw_frame_recv(g->conns[i], &f, GW_FOREVER);
		if (!rc)
			rc = take(g, i, &f);
	}
	gw_frame_free(&f);
	/* Who was told that nothing is missing needs those that push no more. */
	if (i && gw_transport_lost(rc) && !g->pager.missing.left)
		gw_error_clear();
	else if (rc < 0)
		note_failure(g, rc);
}

/* All that only the source has now, on connection 0, which nobody else uses yet. */
static int send_list(struct gw_page *g)
{
	gw_autofree uint8_t *runs = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	size_t at = 0, first, n, len = 0;
	int rc = 0;

	if (!runs)
		return gw_fail(-ENOMEM, "no memory for a list of pages");
	g->conns[0]->send_by = op_now(g) + LIST_NS;
	while (!rc && (n = gw_pager_lacking(&g->pager, &at, &first))) {
		for (size_t part; n; first += part, n -= part) {
			part = n > UINT32_MAX ? UINT32_MAX : n;
			gw_run_put(runs + len, first, part);
			len += GW_RUN_LEN;
			if (len < GW_RUNS_MAX * GW_RUN_LEN)
				continue;
			rc = gw_frame_send_buf(g->conns[0], GW_MSG_MISSING, 0, runs, len);
			len = 0;
		}
	}
	if (!rc && len)
		rc = gw_frame_send_buf(g->conns[0], GW_MSG_MISSING, 0, runs, len);
	g->known = g->known && !g->pager.torn;
	return rc ? rc : gw_frame_send(g->conns[0], GW_MSG_MISSING_END, g->known, NULL, 0);
}

static void ask_again(struct gw_page *g)
{
	size_t pages[GW_FAULTS_MAX], at = 0;
	unsigned int n;

	while ((n = gw_pager_wanted(&g->pager, &at, pages, GW_FAULTS_MAX)))
		op_request(g, pages, n);
}

/* What was found to be wrong while a list was made that may not have it. */
static int refuse_again(struct gw_page *g)
{
	size_t at = 0, first, n;
	int rc = 0;

	while (!rc && (n = gw_pager_refused(&g->pager, &at, &first)))
		for (size_t part; n && !rc; first += part, n -= part) {
			part = n > UINT32_MAX ? UINT32_MAX : n;
			rc = refuse(g, first, part);
		}
	return rc;
}

static void disconnect(struct gw_page *g)
{
	/* Who sends on it holds the lock. */
	for (unsigned int i = 0; i < g->n; i++)
		if (g->conns[i])
			g->conns[i]->ops->shutdown(g->conns[i]);
	for (unsigned int i = 0; i < g->n; i++) {
		gw_locked(&g->push_locks[i]);
		g->open[i] = false;
	}
	{
		gw_locked(&g->lock);
		g->up = false;
	}
	if (g->receives)
		g->d->ops->join(g->d->env);
	for (unsigned int i = 0; i < g->n; i++) {
		if (g->receives)
			gw_decoder_free(&g->decoders[i]);
		if (g->conns[i])
			g->received += g->conns[i]->received;
		gw_transport_close(&g->conns[i]);
	}
	g->receives = false;
	g->failed = g->handed = false;
	gw_frame_free(&g->first);
	memset(&g->first, 0, sizeof(g->first));
}

/* The connections in @g->conns are new: tell what is missing, and receive. */
static int connect(struct gw_page *g)
{
	int rc = 0;

	if (!g->conns[0])
		return gw_fail(-ENOTCONN, "it has not called");
	if (g->d->teleport)
		rc = gw_teleport_renew(g->d->teleport);
	if (!rc)
		rc = send_list(g);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < g->n; i++) {
		gw_locked(&g->push_locks[i]);
		gw_decoder_init(&g->decoders[i], &g->in.sink, g->d->memory->nr_pages);
		g->open[i] = true;
	}
	g->receives = true;
	rc = g->d->ops->spawn(g->d->env, g->n, receive, g);
	if (rc)
		return rc;
	{
		gw_locked(&g->lock);
		g->up = true;
	}
	ask_again(g);
	return refuse_again(g);
}

static bool all_there(void *arg)
{
	struct gw_page *g = arg;

	return gw_page_ops_of(g)->connections(g->d->page_env, g->conns, g->n);
}

/* MISSING_END: all that is missing was said. */
static int begin(struct gw_dest *d, struct gw_page *g)
{
	int rc = 0;

	if (!g)
		return gw_fail(-ENOMEM, "no memory to page with");
	if (d->inbox.arg != g->pager.missing.left)
		return gw_fail(-EPROTO,
			       "source: said that %zu pages are missing, and then that "
			       "%llu are",
			       (size_t)g->pager.missing.left, (unsigned long long)d->inbox.arg);
	if (d->kept.unchecked) {
		rc = gw_pager_check_rest(&g->pager);
		if (rc)
			return rc;
	}
	gw_missing_seal(&g->pager.missing);
	g->sealed = g->known = true;
	rc = d->ops->wait(d->env, all_there, g, d->ops->now(d->env) + JOIN_NS);
	if (rc)
		return gw_fail_prefix(rc, "paging connections: ");
	rc = gw_page_ops_of(g)->start(d->page_env, &g->pager);
	if (rc)
		return rc;
	g->started = true;
	return connect(g);
}

int gw_page_heed(struct gw_dest *d)
{
	struct gw_reader r = { d->inbox.payload, d->inbox.len };
	size_t first = 0, count = 0;
	int rc = 0;

	if (d->page && d->page->sealed)
		return gw_fail(-EPROTO, "source: sent %s, which is not due now",
			       gw_message_name(d->inbox.type));
	if (!d->page) {
		rc = make(d);
		if (!rc)
			rc = gw_missing_create(&d->page->pager.missing,
					       d->page_ops->table(d->page_env), d->memory, d->id,
					       d->paging);
	}
	if (rc)
		return rc;
	if (d->inbox.type == GW_MSG_MISSING_END)
		return begin(d, d->page);
	while ((rc = gw_runs_take(&r, d->memory->nr_pages, &first, &count)) > 0) {
		rc = gw_missing_add(&d->page->pager.missing, d->memory, first, count);
		if (rc)
			break;
	}
	return rc ? gw_fail_prefix(rc, "source: ") : 0;
}

int gw_page_failure(struct gw_page *g)
{
	gw_locked(&g->lock);
	return gw_fail(g->rc, "%s", g->message);
}

int gw_page_failed(struct gw_dest *d)
{
	return d->page && d->page->failed ? gw_page_failure(d->page) : 0;
}

bool gw_page_sealed(const struct gw_dest *d)
{
	return d->page && d->page->sealed;
}

bool gw_page_missing(const struct gw_dest *d, size_t page)
{
	return d->page && gw_missing_test(&d->page->pager.missing, page);
}

static bool wants_a_look(void *arg)
{
	struct gw_page *g = arg;

	return (!g->pager.missing.left && g->until_whole) || (g->failed && g->receives) ||
	       g->pager.gone || gw_page_ops_of(g)->look(g->d->page_env) ||
	       gw_page_ops_of(g)->called(g->d->page_env, g->n);
}

static void count(struct gw_page *g, uint64_t faults[GW_FAULT_NUMBERS])
{
	struct gw_fault_stats s;

	gw_fault_stats(&g->pager.times, &s);
	faults[GW_FAULT_ALL] = s.faults;
	faults[GW_FAULT_LOCAL] = g->pager.local;
	faults[GW_FAULT_MEASURED] = s.measured;
	faults[GW_FAULT_SUM_NS] = s.sum_ns;
	faults[GW_FAULT_MOST_NS] = s.most_ns;
	faults[GW_FAULT_PER_S] = g->per_s;
	memcpy(faults + GW_FAULT_LATENCY, s.latency, sizeof(s.latency));
	faults[GW_FAULT_VCPUS] = gw_page_ops_of(g)->vcpus(g->d->page_env);
	for (unsigned int i = 0; i < GW_FAULT_VCPUS_MAX; i++)
		faults[GW_FAULT_VCPU_NS + i] = s.vcpus[i].measured
						       ? s.vcpus[i].sum_ns / s.vcpus[i].measured
						       : 0;
}

/* The source shows it, too. */
void gw_page_tell_faults(struct gw_page *g)
{
	uint64_t faults[GW_FAULT_NUMBERS];
	uint8_t wire[GW_FAULTS_LEN];

	count(g, faults);
	gw_faults_encode(faults, wire);
	gw_locked(&g->lock);
	if (!g->up)
		return;
	g->conns[0]->send_by = op_now(g) + ASK_NS;
	/* Who receives on it hears of its end. */
	if (gw_frame_send_buf(g->conns[0], GW_MSG_FAULTS, 0, wire, sizeof(wire)))
		gw_error_clear();
}

static void count_rate(struct gw_page *g)
{
	const int64_t now = op_now(g), past = now - g->counted_ns;
	struct gw_fault_stats s;

	if (past < LOOK_NS)
		return;
	gw_fault_stats(&g->pager.times, &s);
	g->per_s = g->counted_ns ? (s.faults - g->counted) * GW_S / (uint64_t)past : 0;
	g->counted = s.faults;
	g->counted_ns = now;
	gw_page_tell_faults(g);
}

/* How the guest stands that runs here. */
static void tell(struct gw_page *g)
{
	struct gw_dest *d = g->d;

	count_rate(g);
	if (d->state == GW_DEST_PAGING || d->state == GW_DEST_PAUSED)
		d->state = g->up ? GW_DEST_PAGING : GW_DEST_PAUSED;
	d->ops->report(d->env);
}

/* The connections broke, or the source has said that it has not got what is missing either. */
static void note_lost(struct gw_page *g)
{
	struct gw_dest *d = g->d;

	if (g->rc != -ENODATA) {
		gw_warn("the source of the guest's memory is lost: %s. What is missing of it is "
			"waited for; the source connects again",
			g->message);
		return;
	}
	snprintf(d->lost, sizeof(d->lost), "%.*s", (int)sizeof(d->lost) - 1, g->message);
	gw_err("what is missing of the guest's memory is lost: %s. Who touches it waits for ever",
	       d->lost);
}

/* Connections that have come, in place of those that are there. */
void gw_page_mend(struct gw_page *g)
{
	struct gw_transport *conns[GW_PAGING_MAX] = { NULL };

	if (g->failed) {
		note_lost(g);
		disconnect(g);
	}
	if (!gw_page_ops_of(g)->connections(g->d->page_env, conns, g->n))
		return;
	disconnect(g);
	memcpy(g->conns, conns, sizeof(conns));
	if (connect(g)) {
		gw_warn("the source of the guest's memory: %s", gw_error());
		disconnect(g);
		return;
	}
	g->d->lost[0] = '\0';
	gw_info("the source of the guest's memory is there again: %zu pages are missing",
		(size_t)g->pager.missing.left);
}

int gw_page_pump(struct gw_dest *d, int64_t deadline)
{
	struct gw_page *g = d->page;

	/* Who waits for something else, too, such as QEMU's answer, looks in between. */
	g->until_whole = deadline == GW_FOREVER;
	while ((g->pager.missing.left || !g->until_whole) && d->ops->now(d->env) < deadline) {
		const int64_t tick = d->ops->now(d->env) + LOOK_NS;
		int rc = d->ops->wait(d->env, wants_a_look, g, tick < deadline ? tick : deadline);

		if (rc == -ETIMEDOUT) {
			gw_error_clear();
			rc = 0;
		}
		if (!rc)
			rc = gw_page_ops_of(g)->look(d->page_env);
		if (rc)
			return rc;
		/* Once a tick: what frees memory takes a while. */
		if (atomic_exchange(&g->pager.retry, false))
			gw_page_ops_of(g)->wake_all(d->page_env);
		gw_page_mend(g);
		if (d->teleport)
			gw_teleport_look(d->teleport);
		tell(g);
	}
	return 0;
}

int gw_page_take_over(struct gw_dest *d)
{
	struct gw_page *g;
	int rc = make(d);

	if (!rc)
		rc = gw_missing_open(&d->page->pager.missing, d->page_ops->table(d->page_env),
				     d->memory, d->id, &d->paging);
	if (!rc && (d->paging < GW_PAGING_MIN || d->paging > GW_PAGING_MAX))
		rc = gw_fail(-EINVAL, "a table of missing pages of %u connections", d->paging);
	if (!rc)
		rc = gw_page_ops_of(d->page)->start(d->page_env, &d->page->pager);
	if (rc) {
		gw_page_end(d);
		return rc;
	}
	g = d->page;
	g->n = d->paging;
	g->started = g->sealed = true;
	return 0;
}

void gw_page_end(struct gw_dest *d)
{
	struct gw_page *g = d->page;

	if (!g)
		return;
	gw_page_check_end(g);
	disconnect(g);
	/* Until here some of it may still have come, of no use by now. */
	gw_teleport_close(d->teleport);
	d->teleport = NULL;
	if (g->started)
		gw_page_ops_of(g)->halt(d->page_env);
	gw_pager_free(&g->pager);
	pthread_mutex_destroy(&g->lock);
	for (unsigned int i = 0; i < GW_PAGING_MAX; i++)
		pthread_mutex_destroy(&g->push_locks[i]);
	free(g);
	d->page = NULL;
}

bool gw_page_status(const struct gw_dest *d, struct gw_page_status *status)
{
	struct gw_page *g = d->page;

	if (!g || !g->started)
		return false;
	status->missing = g->pager.missing.left;
	status->missing -= g->pager.unchecked_left < status->missing ? g->pager.unchecked_left
								     : status->missing;
	status->connected = g->up;
	status->received = g->received;
	for (unsigned int i = 0; i < g->n; i++)
		if (g->conns[i])
			status->received += g->conns[i]->received;
	count(g, status->faults);
	return true;
}
