// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * paging_end.c - a guest that runs here, until all of its memory does: what is kept is compared
 * aside, the source hears that nothing is missing, and leaves its ledger; see paging.h.
 */
#include <errno.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "kept.h"
#include "log.h"
#include "paging_internal.h"

#define LEDGER_NS (10 * GW_S)

static bool ledger_begins(void *arg)
{
	struct gw_page *g = arg;

	return g->handed || g->failed || gw_page_ops_of(g)->look(g->d->page_env);
}

/*
 * Connection 0 goes on as the control connection did: the ledger comes on it. A source in place
 * of one that died has to hash all of its memory first.
 */
static int take_ledger(struct gw_page *g)
{
	struct gw_dest *d = g->d;
	int rc = d->ops->wait(d->env, ledger_begins, g,
			      d->ops->now(d->env) + LEDGER_NS + gw_memory_hash_ns(d->memory));

	if (rc)
		return rc;
	if (!g->handed)
		return g->failed ? gw_page_failure(g) : gw_fail(-ECANCELED, "the guest has ended");
	for (unsigned int i = 1; i < g->n; i++)
		g->conns[i]->ops->shutdown(g->conns[i]);
	d->ops->join(d->env);
	for (unsigned int i = 0; i < g->n; i++)
		gw_decoder_free(&g->decoders[i]);
	g->receives = false;
	{
		gw_locked(&g->lock);
		g->up = false;
	}
	d->control = g->conns[0];
	g->conns[0] = NULL;
	gw_frame_free(&d->inbox);
	d->inbox = g->first;
	memset(&g->first, 0, sizeof(g->first));
	d->held_back = true;
	rc = gw_kept_remember(d);
	gw_transport_close(&d->control);
	return rc;
}

static bool comes_again(void *arg)
{
	struct gw_page *g = arg;

	return gw_page_ops_of(g)->called(g->d->page_env, g->n) ||
	       gw_page_ops_of(g)->look(g->d->page_env);
}

static int say_complete(struct gw_page *g)
{
	gw_locked(&g->lock);
	if (!g->up)
		return gw_fail(-ENOTCONN, "the source cannot be reached");
	g->conns[0]->send_by = gw_page_now(g) + ASK_NS;
	return gw_frame_send(g->conns[0], GW_MSG_COMPLETE, 0, NULL, 0);
}

/*
 * Nothing is missing: the source may go, and leaves its ledger. One whose connections break just
 * now comes again, and is told again; one that is owed nothing but the news asks for it.
 */
static void complete(struct gw_page *g)
{
	struct gw_dest *d = g->d;
	const int64_t until = gw_page_now(g) + LEDGER_NS;
	int rc;

	gw_page_tell_faults(g);
	for (;;) {
		rc = say_complete(g);
		if (!rc && d->reuse)
			rc = take_ledger(g);
		/* One that calls and calls keeps nobody for longer. */
		if (!rc || !d->reuse || gw_page_now(g) >= until ||
		    d->ops->wait(d->env, comes_again, g, until) ||
		    !gw_page_ops_of(g)->called(d->page_env, g->n))
			break;
		gw_page_mend(g);
	}
	if (rc && d->reuse)
		gw_kept_unknown();
	gw_error_clear();
}

/* What is kept and nobody has touched yet. */
static void check_some(void *arg, unsigned int thread)
{
	struct gw_page *g = arg;
	const size_t pages = g->d->memory->nr_pages;
	size_t first;

	(void)thread;
	while (!g->checked && (first = g->next++ * GW_CHUNK_PAGES) < pages)
		gw_pager_check(&g->pager, first,
			       first + GW_CHUNK_PAGES < pages ? first + GW_CHUNK_PAGES : pages);
}

/* The guest needs its processors: a page that it touches is compared at once. */
static void check_aside(void *arg, unsigned int thread)
{
	struct gw_page *g = arg;

	gw_page_ops_of(g)->urgency(g->d->page_env, GW_BACKGROUND);
	check_some(g, thread);
}

static void check_begin(struct gw_page *g)
{
	int rc = g->pager.unchecked ? g->d->ops->compute(g->d->env, check_aside, g) : 0;

	g->checks = g->pager.unchecked;
	if (rc >= 0)
		return;
	gw_warn("what was kept of the VM's memory is compared by one thread: %s", gw_error());
	gw_error_clear();
	check_some(g, 0);
}

void gw_page_check_end(struct gw_page *g)
{
	g->checked = true;
	if (g->checks)
		g->d->ops->compute_join(g->d->env);
	g->checks = false;
}

int gw_page_serve(struct gw_dest *d)
{
	struct gw_page *g = d->page;
	int rc;

	gw_transport_close(&d->control);
	check_begin(g);
	do
		rc = gw_page_pump(d, GW_FOREVER);
	while (!rc && g->pager.missing.left);
	gw_page_check_end(g);
	if (!rc)
		rc = gw_page_ops_of(g)->stop(d->page_env);
	if (rc)
		return rc;
	g->started = false;
	complete(g);
	return 0;
}
