// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_hold.c - a memory server for one VM of another host (decision 32; memserver/serve.h).
 *
 *   waiting ── connection 0 ──> talking: a thread for each connection
 *      ^                           │ one is lost, or a new 0 has come
 *      └───────────────────────────┘
 *
 * It lives until the VM's main host dismisses it; a lost main host is waited for. When its
 * godwitd dies it goes on; it leaves when a younger one answers, which hands connections to a
 * worker of its own. What lies here lies in files (promise.h), so nothing is lost by that. Where it
 * lies on a disk that is slow, or hangs, so does this process, and nobody but the VM waits for it.
 *
 * Threads: this one takes connections from the daemon; those of the two crews talk.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "crew.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "promise.h"
#include "serve.h"
#include "urgency.h"
#include "worker.h"

#define ACCEPT_NS (5 * GW_S)
#define LOCK_NS	  (5 * GW_S) /* for a worker of an earlier godwitd to leave */
#define LOOK_MS	  500	     /* for a younger godwitd */

struct holder {
	struct gw_worker *w;
	char id[GW_ID_TEXT];
	uint16_t version;
	struct gw_memserve serve;
	struct gw_memstore store;
	bool open; /* the store */
	int lock;  /* of the promise; -1: there is none yet */
	int main;  /* says that the main host is connected; -1: it is not */
	struct gw_transport *next[GW_MEMORY_CONNECTIONS]; /* that nobody has taken */
	struct gw_transport *conns[GW_MEMORY_CONNECTIONS];
	struct gw_crew crews[GW_MEMORY_CONNECTIONS];
	_Atomic bool promised, compared, dismissed;
	bool told;
	int64_t next_look; /* for a younger godwitd (ns) */
};

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

/* In the thread of connection 0; while it runs the other does nothing. */
static int op_hold(void *env, const struct gw_hold *hold, struct gw_memstore **store)
{
	struct holder *h = env;
	const struct gw_paths *p = h->w->paths;
	gw_autofree char *folder = NULL;
	struct gw_promise promise;
	int rc = 0;

	if (h->lock < 0)
		h->lock = gw_promise_lock(p, h->id, gw_now() + LOCK_NS);
	if (h->lock < 0)
		return h->lock;
	rc = gw_budget_promise(p, h->w->host, h->id, hold);
	if (!rc)
		rc = gw_promise_load(p, h->id, &promise);
	if (rc)
		return rc;
	if (!h->promised) {
		gw_autofree char *who = gw_path("godwitd[hold %s]", hold->name);

		gw_log_rename(who);
	}
	h->promised = true;
	h->main = gw_promise_connect(p, h->id);
	if (h->main < 0)
		return h->main;
	if (!promise.swap[0])
		gw_budget_make_room(p, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
	if (!h->open) {
		folder = gw_promise_store(p, h->id, &promise);
		rc = gw_memstore_open(&h->store, folder, hold);
		h->open = !rc;
		if (rc)
			gw_memstore_close(&h->store);
	}
	if (rc)
		return rc;
	gw_memstore_resize(&h->store, hold->size);
	*store = &h->store;
	gw_info("VM '%s' of host '%s': %zu of its pages lie here%s%s", hold->name, hold->host,
		(size_t)h->store.pages, promise.swap[0] ? ", in " : "", promise.swap);
	return 0;
}

static const struct gw_memserve_ops ops = { .now = op_now, .hold = op_hold };

static int talk(void *arg, unsigned int i)
{
	struct holder *h = arg;
	struct gw_transport *t = h->conns[GW_MEMORY_REQUESTS];
	int rc;

	(void)i;
	rc = gw_memserve_begin(&h->serve, t);
	if (!rc) {
		h->compared = true;
		gw_crew_notify(&h->crews[GW_MEMORY_REQUESTS]);
		gw_thread_urgency(GW_URGENT);
		rc = gw_memserve_requests(&h->serve, t);
	}
	if (rc != GW_MEMSERVE_DISMISSED)
		return rc;
	h->dismissed = true;
	return 0;
}

static int store(void *arg, unsigned int i)
{
	struct holder *h = arg;

	(void)i;
	gw_thread_urgency(GW_BULK);
	return gw_memserve_bulk(&h->serve, h->conns[GW_MEMORY_BULK]);
}

/*
 * Answer the connections that the daemon has handed on; the newest of each are the ones. The
 * first comes before the other: what is there of that is of an attempt that was given up.
 */
static void take_connections(struct holder *h)
{
	struct gw_transport *t;
	unsigned int i;

	while ((t = gw_worker_caller(h->w, &i))) {
		if (i == GW_MEMORY_REQUESTS)
			gw_transport_close(&h->next[GW_MEMORY_BULK]);
		if (i >= GW_MEMORY_CONNECTIONS) {
			gw_transport_close(&t);
			continue;
		}
		t->send_by = gw_now() + ACCEPT_NS;
		if (gw_frame_send(t, GW_MSG_ACCEPT, h->version, NULL, 0))
			gw_transport_close(&t);
		if (!t)
			continue;
		t->send_by = 0;
		gw_transport_close(&h->next[i]);
		h->next[i] = t;
	}
}

/* All talk ends; the connections stay until they are closed. 0, or what ended it. */
static int join(struct holder *h)
{
	char why[GW_ERROR_MAX] = "";
	int rc = 0;

	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		if (h->conns[i] && !(h->dismissed && i == GW_MEMORY_REQUESTS))
			h->conns[i]->ops->shutdown(h->conns[i]);
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		const int one = h->conns[i] ? gw_crew_join(&h->crews[i]) : 0;

		/* Who found a fault ended the other, which only knows that it was ended. */
		if (!one || (rc && gw_transport_lost(one)))
			continue;
		rc = one;
		snprintf(why, sizeof(why), "%s", gw_error());
	}
	return rc ? gw_fail(rc, "%s", why) : 0;
}

static void close_all(struct holder *h)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&h->conns[i]);
	gw_memserve_free(&h->serve);
	if (h->main >= 0)
		close(gw_steal_fd(&h->main));
	h->compared = false;
}

/* Whoever holds it later is not told by the kernel. */
static void note_failure(struct holder *h)
{
	const struct gw_paths *p = h->w->paths;
	struct gw_promise promise;
	int rc = gw_promise_load(p, h->id, &promise);

	if (!rc && promise.failed)
		return;
	promise.failed = true;
	if (!rc)
		rc = gw_promise_save(p, h->id, &promise);
	gw_err("the disk has lost some of what VM '%s' of host '%s' had here, in %s: it gets nothing "
	       "from here any more%s%s",
	       promise.hold.name, promise.hold.host, promise.swap, rc ? ": " : "",
	       rc ? gw_error() : "");
}

static void end_session(struct holder *h)
{
	const int rc = h->conns[GW_MEMORY_REQUESTS] ? join(h) : 0;

	if (rc && h->promised)
		gw_warn("VM '%s' of host '%s': %s. What lies here stays until it connects again",
			h->serve.hold.name, h->serve.hold.host, gw_error());
	else if (rc)
		gw_warn("a VM of another host is not held here: %s", gw_error());
	if (h->open && h->store.failed)
		note_failure(h);
	close_all(h);
}

/* It has dismissed what it has here. */
static int remove_all(struct holder *h)
{
	const struct gw_paths *p = h->w->paths;
	struct gw_transport *t = h->conns[GW_MEMORY_REQUESTS];
	int rc;

	join(h);
	gw_info("VM '%s' of host '%s' has dismissed what it had here", h->serve.hold.name,
		h->serve.hold.host);
	/* The files are open, so that nobody waits until the kernel has freed all of them. */
	rc = gw_promise_remove(p, h->id);
	t->send_by = gw_now() + ACCEPT_NS;
	if (rc)
		gw_frame_send_buf(t, GW_MSG_ERROR, 0, gw_error(), strlen(gw_error()));
	else
		gw_memserve_dismissed(t);
	close_all(h);
	return rc;
}

static void start_session(struct holder *h)
{
	end_session(h);
	h->conns[GW_MEMORY_REQUESTS] = h->next[GW_MEMORY_REQUESTS];
	h->next[GW_MEMORY_REQUESTS] = NULL;
	gw_memserve_init(&h->serve, &ops, h, h->w->host);
	if (gw_crew_start(&h->crews[GW_MEMORY_REQUESTS], 1, talk, h))
		end_session(h);
}

static void start_bulk(struct holder *h)
{
	h->conns[GW_MEMORY_BULK] = h->next[GW_MEMORY_BULK];
	h->next[GW_MEMORY_BULK] = NULL;
	if (gw_crew_start(&h->crews[GW_MEMORY_BULK], 1, store, h))
		end_session(h);
}

/* A thread of the session has ended, and so does the session. */
static bool over(const struct holder *h)
{
	return !h->crews[GW_MEMORY_REQUESTS].running ||
	       (h->conns[GW_MEMORY_BULK] && !h->crews[GW_MEMORY_BULK].running);
}

/* Nobody is served, and nobody can come, or is to. */
static bool is_done(const struct holder *h)
{
	if (h->conns[GW_MEMORY_REQUESTS] || h->next[GW_MEMORY_REQUESTS])
		return false;
	return !h->promised || h->w->stop || h->w->orphaned;
}

static void wait_for_news(struct holder *h)
{
	struct pollfd fds[] = {
		{ .fd = h->w->ctl, .events = POLLIN },
		{ .fd = h->crews[GW_MEMORY_REQUESTS].event, .events = POLLIN },
		{ .fd = h->crews[GW_MEMORY_BULK].event, .events = POLLIN },
	};

	poll(fds, GW_ARRAY_SIZE(fds), h->w->orphaned ? LOOK_MS : -1);
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_crew_quiet(&h->crews[i]);
}

static int keep(struct holder *h)
{
	struct gw_worker *w = h->w;

	for (;;) {
		gw_worker_heed(w, NULL, NULL);
		take_connections(h);
		if (h->promised && !h->told)
			gw_worker_progress(w, json_pack("{s:b}", "promised", 1));
		h->told = h->promised;
		if (h->next[GW_MEMORY_REQUESTS])
			start_session(h);
		if (h->compared && h->next[GW_MEMORY_BULK] && !h->conns[GW_MEMORY_BULK])
			start_bulk(h);
		if (h->dismissed)
			return remove_all(h);
		if (h->conns[GW_MEMORY_REQUESTS] && over(h))
			end_session(h);
		if (is_done(h))
			return 0;
		/* What is in use is not dropped, so nobody waits for us. */
		w->stop = false;
		if (gw_worker_replaced(w, &h->next_look)) {
			end_session(h);
			return 0;
		}
		wait_for_news(h);
	}
}

/* Nothing was promised: the folder was for its lock. What was promised before this one stays. */
static void leave_no_folder(const struct holder *h)
{
	struct gw_promise promise;

	if (gw_promise_load(h->w->paths, h->id, &promise) == -ENOENT &&
	    gw_promise_remove(h->w->paths, h->id))
		gw_error_clear();
}

int gw_worker_hold(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version)
{
	struct holder h = { .w = w, .version = version, .lock = -1, .main = -1 };
	int rc;

	gw_id_format(open->id, h.id);
	w->callers[w->nr_callers++] = (struct gw_caller){ conn, GW_MEMORY_REQUESTS };
	rc = gw_crew_init(&h.crews[GW_MEMORY_REQUESTS]);
	if (!rc)
		rc = gw_crew_init(&h.crews[GW_MEMORY_BULK]);
	if (!rc)
		rc = keep(&h);
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&h.next[i]);
	if (h.open)
		gw_memstore_close(&h.store);
	if (h.lock >= 0 && !h.promised)
		leave_no_folder(&h);
	if (h.lock >= 0)
		close(h.lock);
	return rc; /* the crews end with the process */
}
