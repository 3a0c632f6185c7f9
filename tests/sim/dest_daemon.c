// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dest_daemon.c - the destination's daemon: who is called, what its workers leave, and
 * what the source is told of it. It follows daemon/jobs.c and jobs_recover.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "feature.h"
#include "sim.h"

void dest_close_streams(void)
{
	while (sim.dst.nr_accepted)
		gw_transport_close(&sim.dst.accepted[--sim.dst.nr_accepted].t);
}

static void set_up(void);

/* One try at what a worker left; whether it is settled now. */
static bool try_recovery(enum gw_dest_verdict verdict)
{
	static const enum gw_dest_phase phases[] = {
		[JOURNAL_RECEIVING] = GW_DEST_PHASE_RECEIVING,
		[JOURNAL_COMMITTED] = GW_DEST_PHASE_COMMITTED,
		[JOURNAL_RUNNING] = GW_DEST_PHASE_RUNNING,
	};
	const bool run = sim.dst.run;
	enum gw_outcome outcome;

	if (verdict == GW_DEST_FINISH && sim.dst.doubted)
		verdict = GW_DEST_LOOK;
	sim_rare(RARE_DEST_RECOVERS);
	outcome = gw_dest_recover(&dest_ops, &sim.dst.daemon, phases[sim.dst.journal], run,
				  verdict);
	if (!outcome) {
		sim_rare(RARE_RETRIED);
		return false;
	}
	sim.dst.settled = outcome;
	sim.dst.journal = JOURNAL_NONE;
	if (outcome == GW_OUTCOME_LOST)
		sim.dst.left_behind = false; /* swept, as any VM whose QEMU has ended */
	return true;
}

static bool at_rest(void *arg, int64_t *when)
{
	(void)when;
	return !*(bool *)arg;
}

/* Its memory is still to come: that takes a worker that stays. */
static bool lacks_pages(void)
{
	return sim.dst.paged.watched && sim.dst.journal >= JOURNAL_COMMITTED &&
	       sim.dst.qemu != QEMU_ENDED;
}

static void keep(void *arg, unsigned int verdict)
{
	static const enum gw_dest_phase phases[] = {
		[JOURNAL_COMMITTED] = GW_DEST_PHASE_COMMITTED,
		[JOURNAL_RUNNING] = GW_DEST_PHASE_RUNNING,
	};
	struct dest_host *dst = arg;
	enum gw_outcome outcome;
	int rc = gw_dest_page_on(&dst->d, phases[dst->journal], (enum gw_dest_verdict)verdict,
				 &outcome);

	dst->working = false;
	paged_forget();
	if (dst->worker.dead)
		return;
	dst->ended = true;
	dst->tried = true;
	sim_check(!rc || dst->d.error[0], "the destination's keeper fails without a reason");
	if (rc == -ECHILD)
		outcome = GW_OUTCOME_RUNNING;
	if (rc && rc != -ECHILD) {
		dest_recover();
		return;
	}
	dst->settled = outcome;
	dst->journal = JOURNAL_NONE;
	if (outcome == GW_OUTCOME_LOST)
		dst->left_behind = false;
}

static void start_keeper(enum gw_dest_verdict verdict)
{
	struct dest_host *dst = &sim.dst;
	const bool run = dst->run;

	fiber_wait(at_rest, &dst->working, GW_FOREVER);
	if (!lacks_pages())
		return;
	if (verdict == GW_DEST_FINISH && dst->doubted)
		verdict = GW_DEST_LOOK;
	paged_forget();
	memset(&dst->d, 0, sizeof(dst->d));
	set_up();
	dst->d.version = GW_VERSION;
	dst->d.run = run;
	dst->d.memory = dst->memory;
	dst->worker.dead = dst->ended = dst->tried = false;
	dst->working = true;
	sim_rare(RARE_PAGES_ON);
	if (!sim.pages_on && sim.serves_on)
		sim_rare(RARE_BOTH_ON);
	sim.pages_on = true;
	sim.replaced = true;
	fiber_new(&dst->worker, "destination's keeper", keep, dst, verdict);
}

/* The daemon finds a journal without a worker; it tries until it is settled, or asked. */
void dest_recover(void)
{
	if (sim.dst.working && !sim.dst.worker.dead)
		return; /* somebody is at it */
	dest_close_streams();
	sim.dst.busy = true;
	fiber_wait(at_rest, &sim.dst.working, GW_FOREVER);
	while (sim.dst.journal != JOURNAL_NONE && !sim.dst.asked) {
		if (lacks_pages()) {
			start_keeper(GW_DEST_FINISH);
			if (sim.dst.working)
				break;
			continue;
		}
		if (try_recovery(GW_DEST_FINISH))
			break;
		fiber_sleep_until(sim_now() + GW_S);
	}
	sim.dst.busy = false;
}

static bool idle(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !sim.dst.busy;
}

#define SETTLE_NS (30 * GW_S)
#define TRIES	  3 /* before a source hears that nothing is known */

/* It runs here, and somebody is at work for its memory: that is all there is to say. */
static bool answers_paging(void)
{
	return lacks_pages() && sim.dst.journal == JOURNAL_RUNNING;
}

static bool keeper_done(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !sim.dst.working || answers_paging();
}

/* One that was committed and whose pages are to come: whoever brings them finds out. */
static int settle_paging(bool forbid, enum gw_outcome *outcome)
{
	start_keeper(forbid ? GW_DEST_FORBID : sim.dst.doubted ? GW_DEST_ASKED : GW_DEST_FINISH);
	fiber_wait(keeper_done, NULL, sim_now() + SETTLE_NS);
	sim.dst.asked = false;
	if (answers_paging())
		*outcome = GW_OUTCOME_PAGING;
	else if (sim.dst.journal == JOURNAL_NONE)
		*outcome = sim.dst.settled;
	else if (!sim.dst.working)
		return gw_fail(-EAGAIN, "its keeper has ended; ask again");
	else
		return gw_fail(-EREMOTEIO, "it is still being found out");
	return 0;
}

static enum gw_outcome settle(bool forbid);

int dest_settle(bool forbid, enum gw_outcome *outcome)
{
	if (answers_paging()) {
		*outcome = GW_OUTCOME_PAGING;
		return 0;
	}
	if (lacks_pages()) {
		sim.dst.asked = true;
		if (!sim.dst.ended && !sim.dst.worker.dead)
			sim_kill(&sim.dst.worker);
		fiber_wait(idle, NULL, GW_FOREVER);
		if (lacks_pages())
			return settle_paging(forbid, outcome);
	}
	*outcome = settle(forbid);
	return 0;
}

static enum gw_outcome settle(bool forbid)
{
	sim.dst.asked = true;
	if (!sim.dst.ended && !sim.dst.worker.dead)
		sim_kill(&sim.dst.worker);
	fiber_wait(idle, NULL, GW_FOREVER);
	dest_close_streams();
	for (int try = 0; try < TRIES && sim.dst.journal != JOURNAL_NONE; try++)
		try_recovery(forbid	       ? GW_DEST_FORBID
			     : sim.dst.doubted ? GW_DEST_ASKED
					       : GW_DEST_FINISH);
	sim.dst.asked = false;
	if (sim.dst.journal != JOURNAL_NONE) {
		sim.dst.doubted = true;
		return GW_OUTCOME_UNKNOWN;
	}
	return sim.dst.settled ? sim.dst.settled : GW_OUTCOME_ABORTED;
}

static void work(void *arg, unsigned int i)
{
	struct dest_host *dst = arg;
	int rc;

	(void)i;
	rc = gw_dest_run(&dst->d);
	dst->working = false;
	paged_forget();
	if (dst->worker.dead)
		return;
	dst->ended = true;
	sim_check(!rc || dst->d.error[0], "the destination fails without a reason");
	if (rc == -ECHILD && dst->d.committed) {
		/* It has run here, and does no more: its source needs to keep nothing. */
		dst->settled = GW_OUTCOME_RUNNING;
		rc = 0;
	}
	if (rc && dst->d.committed) {
		dest_recover();
		return;
	}
	dst->journal = JOURNAL_NONE;
	dest_close_streams();
}

static void accept_paging(struct gw_transport *t, unsigned int index)
{
	static const char nobody[] = "nobody waits for memory of that migration here";

	t->send_by = sim_now() + GW_S;
	if (sim.dst.ended || sim.dst.worker.dead || !sim.dst.working ||
	    sim.dst.qemu == QEMU_ENDED) {
		if (gw_frame_send_buf(t, GW_MSG_ERROR, 0, nobody, sizeof(nobody) - 1))
			gw_error_clear();
		gw_transport_close(&t);
	} else {
		net_give(t, &sim.dst.worker);
		t->sent = t->received = 0; /* it is another process that counts */
		if (!paged_fits(index) ||
		    gw_frame_send(t, GW_MSG_ACCEPT, sim.dst.d.version, NULL, 0) ||
		    sim.dst.worker.dead || !sim.dst.working)
			gw_transport_close(&t);
		else
			paged_call(t, index);
	}
}

/* What the daemon does with a connection: its first frame says whose it is. */
static void greet(void *arg, unsigned int i)
{
	struct gw_transport *t = arg;
	struct gw_frame f = { 0 };
	struct gw_open open;
	uint16_t version = 0;
	bool fits;

	(void)i;
	fits = !gw_frame_recv(t, &f, sim_now() + 5 * GW_S) && f.type == GW_MSG_OPEN &&
	       !gw_open_decode(f.payload, f.len, &open, &version);
	gw_frame_free(&f);
	if (fits && open.kind == GW_OPEN_MIGRATE && !sim.dst.d.control) {
		sim.dst.d.version = sim.sc->version ? sim.sc->version : version;
		sim.dst.d.control = t;
		net_give(t, &sim.dst.worker);
		t->wake_fd = WAKE_DEST;
		t->on_wake = dest_on_wake;
		sim.dst.working = true;
		fiber_new(&sim.dst.worker, "destination", work, &sim.dst, 0);
	} else if (fits && open.kind == GW_OPEN_STREAM && !sim.dst.ended && !sim.dst.worker.dead &&
		   sim.dst.nr_accepted < GW_DEST_STREAMS_MAX) {
		sim.dst.accepted[sim.dst.nr_accepted++] = (struct dest_stream){ t, open.stream };
	} else if (fits && open.kind == GW_OPEN_PAGING) {
		accept_paging(t, open.stream);
	} else {
		gw_transport_close(&t);
	}
}

void dest_accept(struct gw_transport *t)
{
	fiber_new(&sim.dst.daemon, "greeter", greet, t, 0);
}

void dest_qemu_dies(void)
{
	if (sim.dst.qemu == QEMU_NONE || sim.dst.qemu == QEMU_ENDED)
		return;
	sim.dst.qemu = QEMU_ENDED;
	sim.dst.told_to_run = false;
	sim.wake[WAKE_DEST] = true;
}

/* What the worker is told. */
static void set_up(void)
{
	sim.dst.d.ops = &dest_ops;
	sim.dst.d.env = &sim.dst.worker;
	sim.dst.d.host = "B";
	if (!sim.sc->version) {
		sim.dst.d.page_ops = &paged_ops;
		sim.dst.d.page_env = &sim.dst.worker;
	}
}

void dest_init(void)
{
	memset(&sim.dst, 0, sizeof(sim.dst));
	sim.dst.worker.name = "destination worker";
	sim.dst.daemon.name = "destination daemon";
	set_up();
}

void dest_free(void)
{
	paged_free();
	buffers_free(&sim.dst.made);
	gw_bitmap_free(&sim.dst.absent);
}
