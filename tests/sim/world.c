// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * world.c - one run: what may befall it, and what must hold whatever does; see sim.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "away.h"
#include "carried.h"
#include "clock.h"
#include "disks.h"
#include "error.h"
#include "feature.h"
#include "sim.h"
#include "storage.h"

/* Shorter than the silence that ends a connection, so it must only cost time. */
#define STALL_NS (3 * GW_S)

/*
 * What a guest may stand still beyond its limit for a migration that is then taken
 * back: until whoever waits looks and has resumed it; and for one that fails, because
 * the destination does not load what it has been given.
 */
#define LOOK_NS (4 * GW_TICK_NS)
#define LATE_NS (2 * GW_S + LOOK_NS)

/* Longer than anybody waits before he acts: COMMIT's answer, three tries, an operator. */
#define STILL_NS (100 * GW_S)

#define RUN_MAX_NS (400 * GW_S)

/* A link that is cut while memory follows the guest; an operator who comes by himself. */
#define CUT_NS	 (20 * GW_S)
#define DOUBT_NS (10 * GW_S)

/* What a slow disk takes for each op, and one in so many steps of a host that lags. */
#define SLOW_NS	   (3 * GW_S)
#define LAG_ONE_IN 20
#define LAG_NS	   (4 * GW_S)

struct sim sim;

static const char *const fault_names[FAULT_KINDS] = {
	[FAULT_NONE] = "none",
	[FAULT_CUT] = "cut",
	[FAULT_CUT_SETTLE] = "cut-settle",
	[FAULT_STALL] = "stall",
	[FAULT_DAMAGE] = "damage",
	[FAULT_KILL_SOURCE] = "kill-source",
	[FAULT_KILL_DEST] = "kill-dest",
	[FAULT_KILL_BOTH] = "kill-both",
	[FAULT_QEMU_DEST] = "qemu-dest",
	[FAULT_CANCEL] = "cancel",
	[FAULT_OP] = "op",
	[FAULT_OP_LATE] = "op-late",
	[FAULT_REFUSE] = "refuse",
	[FAULT_STILL] = "still",
	[FAULT_HANG] = "hang",
	[FAULT_HANG_FAIL] = "hang-fail",
	[FAULT_HANG_LATE] = "hang-late",
	[FAULT_STOP_SOURCE] = "stop-source",
	[FAULT_STOP_DEST] = "stop-dest",
	[FAULT_SLOW_SOURCE] = "slow-source",
	[FAULT_SLOW_DEST] = "slow-dest",
	[FAULT_STILL_SOURCE] = "still-source",
	[FAULT_LAG] = "lag",
	[FAULT_CUT_ONE] = "cut-one",
	[FAULT_PAUSE] = "pause",
	[FAULT_HALT] = "halt",
};

const char *sim_fault_name(enum fault_kind kind)
{
	return fault_names[kind];
}

void sim_wrong(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FAILED at step %u, %.3f ms: ", sim.steps, (double)sim_now() / GW_MS);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  source: %s, error '%s'\n  destination: state %d, error '%s'\n",
		gw_source_state_name(sim.src.s.state), sim.src.s.error, (int)sim.dst.d.state,
		sim.dst.d.error);
	fprintf(stderr, "  repeat: sim --scenario %s --seed %llu", sim.sc->name,
		(unsigned long long)sim.seed);
	for (int i = 0; i < 2; i++)
		if (sim.faults[i].kind)
			fprintf(stderr, " --fault %s:%u", sim_fault_name(sim.faults[i].kind),
				sim.faults[i].step);
	fprintf(stderr, " --trace\n");
	exit(1);
}

/* What must hold at every moment. */
static void check_always(void)
{
	const enum journal here = sim.src.journal, there = sim.dst.journal;

	sim_check(sim.src.qemu != QEMU_RUNNING || sim.dst.qemu != QEMU_RUNNING,
		  "the guest runs on both hosts");
	sim_check(sim.guest.running == (sim.src.qemu == QEMU_RUNNING), "the model is broken");
	sim_check(sim.src.qemu != QEMU_RUNNING || here == JOURNAL_NONE || here == JOURNAL_MOVING,
		  "the guest runs at the source, whose journal says that it left");
	sim_check(sim.dst.qemu != QEMU_RUNNING || there != JOURNAL_RECEIVING,
		  "the guest runs at the destination, whose journal says that it has not come");
	sim_check(sim.src.qemu != QEMU_ENDED || sim.dst.took_over,
		  "the source has let go of a guest that is nowhere else");
	sim_check(sim.src.qemu != QEMU_ENDED || !sim.dst.paged.watched ||
			  sim.dst.qemu == QEMU_ENDED,
		  "the source has let go of memory that the guest still lacks");
	sim_check(sim_now() < RUN_MAX_NS, "no end in sight");
}

static void recover_source(void *arg, unsigned int i)
{
	(void)arg;
	(void)i;
	source_recover();
}

static void recover_dest(void *arg, unsigned int i)
{
	(void)arg;
	(void)i;
	dest_recover();
}

void sim_kill(struct process *process)
{
	const bool source = process == &sim.src.worker;

	if (process->dead || (source ? sim.src.ended : sim.dst.ended))
		return;
	process->dead = true;
	process->stopped_until = 0;
	net_leave(process);
	if (source)
		fiber_new(&sim.src.daemon, "source recovery", recover_source, NULL, 0);
	else
		fiber_new(&sim.dst.daemon, "destination recovery", recover_dest, NULL, 0);
}

static void strike(enum fault_kind kind)
{
	switch (kind) {
	case FAULT_CUT_SETTLE:
		sim.settle_at_once = true;
		/* fall through */
	case FAULT_CUT:
		net_cut();
		break;
	case FAULT_STALL:
		net_stall(STALL_NS);
		break;
	case FAULT_DAMAGE:
		net_damage();
		break;
	case FAULT_CUT_ONE:
		net_cut_one();
		break;
	case FAULT_KILL_SOURCE:
		sim_kill(&sim.src.worker);
		break;
	case FAULT_KILL_DEST:
		sim_kill(&sim.dst.worker);
		break;
	case FAULT_KILL_BOTH:
		sim_kill(&sim.src.worker);
		sim_kill(&sim.dst.worker);
		break;
	case FAULT_QEMU_DEST:
		dest_qemu_dies();
		break;
	case FAULT_CANCEL:
		sim.cancelled = true;
		sim.cancelled_in_time = !sim.src.committing;
		sim.wake[WAKE_SOURCE] = true;
		break;
	case FAULT_REFUSE:
		sim.dst.refuses = true;
		break;
	case FAULT_STILL:
		/* An operator who asks while it does, or one who comes later. */
		sim.settle_at_once = sim.steps % 2;
		sim.dst.still_until = sim_now() + STILL_NS;
		break;
	case FAULT_STOP_SOURCE:
		sim.src.worker.stopped_until = sim_now() + HANG_NS;
		break;
	case FAULT_STOP_DEST:
		sim.dst.worker.stopped_until = sim_now() + HANG_NS;
		break;
	case FAULT_SLOW_SOURCE:
		sim.slow_source = true;
		break;
	case FAULT_SLOW_DEST:
		sim.slow_dest = true;
		break;
	case FAULT_STILL_SOURCE:
		sim.src.still_until = sim_now() + STILL_NS;
		break;
	case FAULT_LAG:
		sim.lagging = true;
		break;
	case FAULT_PAUSE:
		source_user();
		break;
	case FAULT_HALT:
		source_halt();
		break;
	case FAULT_HANG: /* step() sees to these */
	case FAULT_HANG_FAIL:
	case FAULT_HANG_LATE:
	case FAULT_OP:
	case FAULT_OP_LATE:
	case FAULT_NONE:
	default:
		break;
	}
}

int sim_late(void)
{
	const bool late = sim.late;

	sim.late = false;
	if (sim.hang_late) {
		sim.hang_late = false;
		fiber_sleep_until(sim_now() + HANG_NS);
	}
	return late ? gw_fail(-ETIMEDOUT, "QEMU's monitor does not answer") : 0;
}

/* FNV-1a, of what must be the same when a run is repeated. */
static void mix(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len--)
		sim.hash = (sim.hash ^ *at++) * 0x100000001b3ULL;
}

static void mix_number(uint64_t n)
{
	mix(&n, sizeof(n));
}

static void mix_text(const char *text)
{
	mix(text, strlen(text) + 1);
}

static int mix_result(int rc)
{
	mix_number((uint64_t)sim_now());
	mix_number((uint64_t)rc);
	return rc;
}

/* What a run came to; memory is what the guest's numbers have made of it. */
static void mix_end(void)
{
	mix_text(sim.src.s.error);
	mix_text(sim.dst.d.error);
	mix_number(sim.guest.rng.state);
	mix_number(sim.src.s.state);
	mix_number(sim.src.s.holder.transferred);
	mix_number(sim.src.s.nr_rounds);
	mix_result(sim.src.rc);
}

static bool hangs(enum fault_kind kind, unsigned int traits)
{
	return kind == FAULT_HANG || (kind == FAULT_HANG_FAIL && traits & STEP_FAILS) ||
	       (kind == FAULT_HANG_LATE && traits & STEP_LATE) || kind == FAULT_STOP_SOURCE ||
	       kind == FAULT_STOP_DEST;
}

/* Time passes, little if nothing is wrong. */
static void pause_step(const struct process *process, enum fault_kind strikes, unsigned int traits)
{
	const bool source = process == &sim.src.worker || process == &sim.src.daemon;
	int64_t ns = 0;

	if (hangs(strikes, traits)) {
		sim.hung_here |= source;
		if (sim.src.qemu == QEMU_STOPPED)
			sim_rare(RARE_HUNG_STOPPED);
		if (sim.src.journal == JOURNAL_COMMITTING)
			sim_rare(RARE_HUNG_COMMITTING);
	}
	if ((strikes == FAULT_HANG || strikes == FAULT_HANG_FAIL) && hangs(strikes, traits))
		ns = HANG_NS;
	if (traits & STEP_DISK && (source ? sim.slow_source : sim.slow_dest))
		ns += SLOW_NS;
	if (sim.lagging && rng_one_in(&sim.lags, LAG_ONE_IN))
		ns += (int64_t)rng_below(&sim.lags, LAG_NS);
	if (ns)
		fiber_sleep_until(sim_now() + ns);
	else
		fiber_yield();
}

static int step(struct process *process, const char *what, unsigned int traits)
{
	enum fault_kind strikes = FAULT_NONE;

	if (process->dead)
		return gw_fail(-ESHUTDOWN, "%s is dead", process->name);
	sim_check(++sim.steps < STEPS_MAX, "no end in sight");
	if (sim.src.journal == JOURNAL_COMMITTING)
		traits |= STEP_COMMITTING;
	if (sim.dst.qemu != QEMU_NONE)
		traits |= STEP_QEMU;
	sim.traits[sim.steps] = (uint8_t)traits;
	if (sim.trace)
		fprintf(stderr, "%5u %10.3f ms  %s: %s\n", sim.steps, (double)sim_now() / GW_MS,
			process->name, what);
	for (int i = 0; i < 2; i++)
		if (sim.faults[i].kind && sim.faults[i].step == sim.steps) {
			strikes = sim.faults[i].kind;
			strike(strikes);
		}
	pause_step(process, strikes, traits);
	check_always();
	if (process->dead)
		return gw_fail(-ESHUTDOWN, "%s is dead", process->name);
	sim.late = strikes == FAULT_OP_LATE && traits & STEP_LATE;
	sim.hang_late = strikes == FAULT_HANG_LATE && traits & STEP_LATE;
	return (strikes == FAULT_OP || strikes == FAULT_HANG_FAIL) && traits & STEP_FAILS
		       ? gw_fail(-EIO, "%s fails", what)
		       : 0;
}

int sim_step(struct process *process, const char *what, unsigned int traits)
{
	mix_number((uint64_t)sim_now());
	mix_text(process->name);
	mix_text(what);
	return mix_result(step(process, what, traits));
}

/*
 * `godwit recover`, by an operator who does as he is told: where the destination does not
 * know, he would have the guest back; where it is dead there, he looks whether it had run.
 */
static void operate(void *arg, unsigned int i)
{
	enum gw_outcome outcome;

	(void)arg;
	(void)i;
	net_mend();
	while (dest_settle(false, &outcome)) {
		gw_error_clear();
		fiber_sleep_until(sim_now() + GW_S);
	}
	if (outcome == GW_OUTCOME_UNKNOWN) {
		sim_check(!sim.dst.took_over || sim.dst.still_until > sim_now(),
			  "a guest that runs is not known of");
		sim_rare(RARE_UNKNOWN);
		while (dest_settle(true, &outcome)) {
			gw_error_clear();
			fiber_sleep_until(sim_now() + GW_S);
		}
	}
	sim_check(outcome, "who is to have the guest is not known");
	sim_rare(outcome == GW_OUTCOME_RUNNING	? RARE_SETTLED_RUNNING
		 : outcome == GW_OUTCOME_PAGING ? RARE_SETTLED_PAGING
		 : outcome == GW_OUTCOME_LOST	? RARE_SETTLED_LOST
						: RARE_SETTLED_ABORTED);
	source_settle(outcome);
	if (outcome == GW_OUTCOME_LOST)
		source_settle(sim.dst.took_over ? GW_OUTCOME_RUNNING : GW_OUTCOME_ABORTED);
	/* The godwitd there is started again. */
	dest_recover();
	sim.called = false;
}

static void call_operator(void)
{
	sim.settle_at_once = false;
	sim.called = true;
	sim_rare(RARE_IN_DOUBT);
	fiber_new(&sim.dst.daemon, "operator", operate, NULL, 0);
}

static void tick(void *arg)
{
	(void)arg;
	guest_tick(&sim.guest);
	carried_tick();
	dest_tick();
	paged_tick();
	/* A guest whose memory is on the other side of a cut link waits until it is mended. */
	if (sim.src.journal == JOURNAL_SERVING && net_cut_for() > CUT_NS)
		net_mend();
	if (sim.src.in_doubt && sim.dst.paged.watched && sim_now() > sim.src.doubted_at + DOUBT_NS)
		sim.settle_at_once = true;
	if (sim.settle_at_once && sim.src.in_doubt && !sim.called)
		call_operator();
}

static bool struck(enum fault_kind kind)
{
	return sim.faults[0].kind == kind || sim.faults[1].kind == kind;
}

/*
 * Of post-copy: what no round counts is what was served. The source counts that anew with each
 * connection, and what it only asks about (an image that is not compared yet) is not sent.
 */
static void check_served(const struct gw_source *s, uint64_t served)
{
	const uint64_t done = s->done_pages;
	const bool once = !sim.faults[0].kind && !sim.faults[1].kind;

	/* A guest that has ended there needs no more of it. */
	sim_check(done == s->due_pages || sim.dst.qemu == QEMU_ENDED,
		  "%llu pages were missing, %llu have left", (unsigned long long)s->due_pages,
		  (unsigned long long)done);
	sim_check((served >= done || s->holder.unchecked) && (served <= done || !once),
		  "%llu pages served by stage, and %llu have left", (unsigned long long)served,
		  (unsigned long long)done);
}

/* Each page that was due was left out, unchanged or sent, and sent by one stage. */
static void check_counts(const struct gw_source *s)
{
	uint64_t handled = 0, counted = 0;

	for (unsigned int i = 0; i < s->nr_rounds; i++) {
		const struct gw_round_stats *r = &s->rounds[i];

		sim_check(r->pages == r->redirtied + r->same + r->reused + r->sent,
			  "round %u of %llu pages counts others", i + 1,
			  (unsigned long long)r->pages);
		handled += r->same + r->sent;
	}
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++) {
		counted += s->pages[id];
		sim_check(!(s->params.pages.off & 1U << id) || id == GW_STAGE_RAW || !s->pages[id],
			  "stage %u was off, and took %llu pages", id,
			  (unsigned long long)s->pages[id]);
	}
	if (s->postcopy)
		check_served(s, counted - handled);
	else
		sim_check(handled == counted, "%llu pages in rounds, %llu by stage",
			  (unsigned long long)handled, (unsigned long long)counted);
}

/* A worker that ended by itself must have said the truth. */
static void check_result(void)
{
	const struct gw_source *s = &sim.src.s;
	const char *error = s->error;
	json_t *json;

	switch (s->state) {
	case GW_SOURCE_COMPLETED:
		sim_check(!sim.src.rc && sim.dst.took_over, "completed, and not moved");
		/* Who serves what another began does not know of it. */
		sim_check(s->verified == sim.sc->verify || (s->postcopy && sim.replaced),
			  "not verified");
		check_counts(s);
		break;
	case GW_SOURCE_FAILED:
	case GW_SOURCE_CANCELLED:
		sim_check(sim.src.rc && !s->committed && !sim.dst.took_over,
			  "failed, and yet moved");
		sim_check(!s->stopped || struck(FAULT_STILL_SOURCE) || struck(FAULT_OP) ||
				  struck(FAULT_OP_LATE) || struck(FAULT_HANG_FAIL),
			  "failed, and left the guest stopped");
		sim_check((s->state == GW_SOURCE_CANCELLED) == (sim.src.rc == -ECANCELED) &&
				  (s->state == GW_SOURCE_FAILED || sim.cancelled),
			  "'%s' (%d) where the user cancelled: %d", gw_source_state_name(s->state),
			  sim.src.rc, sim.cancelled);
		break;
	case GW_SOURCE_IN_DOUBT:
		sim_check(sim.src.rc && s->committed, "in doubt without COMMIT");
		break;
	default:
		sim_wrong("the machine ended in state '%s'", gw_source_state_name(s->state));
	}
	/* The user reads why, not what became of our threads. */
	if (sim.src.rc)
		sim_check(error[0] && !strstr(error, "was ended") && !strstr(error, "no error"),
			  "an error that says nothing");
	json = gw_source_json(s, sim_now());
	sim_check(!strcmp(json_string_value(json_object_get(json, "status")),
			  gw_source_state_name(s->state)) &&
			  !json_object_get(json, "error-desc") == !error[0],
		  "the JSON tells another story");
	json_decref(json);
}

static bool as_expected(int rc)
{
	if (sim.sc->result == SIM_MAY_BE_TOO_FAST)
		return !rc || rc == -ETIME;
	return rc == sim.sc->result;
}

/* The link stood still in the moment when nothing could be taken back any more. */
static bool unloaded(void)
{
	return sim.src.rc == -ETIMEDOUT && strstr(sim.src.s.error, "was not loaded within");
}

/* What only some faults promise. */
static void check_fault(void)
{
	const struct gw_source *s = &sim.src.s;
	const bool one = !sim.faults[1].kind;

	if ((one && !sim.faults[0].kind) || (one && struck(FAULT_STALL)))
		sim_check(sim.src.ended &&
				  (as_expected(sim.src.rc) || (struck(FAULT_STALL) && unloaded())),
			  "returns %d where %d was due", sim.src.rc, sim.sc->result);
	/* Pages and device state that hang keep nobody waiting (invariant 13). */
	if (one && struck(FAULT_STALL) && !unloaded() && !sim.sc->verify)
		sim_check(sim.src.longest_stop < sim.sc->downtime_limit_ms * GW_MS + LOOK_NS,
			  "the guest stood still for %.1f ms where %u are allowed",
			  (double)sim.src.longest_stop / GW_MS, sim.sc->downtime_limit_ms);
	if (one && struck(FAULT_CANCEL) && !sim.sc->result)
		sim_check(s->state == (sim.cancelled_in_time ? GW_SOURCE_CANCELLED
							     : GW_SOURCE_COMPLETED),
			  "a cancellation ended as '%s'", gw_source_state_name(s->state));
	/* A destination that verifies for long says so, if it can, and is waited for. */
	if (one && struck(FAULT_HANG) && sim.dst.hung_verifying && !sim.sc->result &&
	    gw_holder_has(&s->holder, GW_FEATURE_VERIFY))
		sim_check(s->state == GW_SOURCE_COMPLETED, "a slow verification ended as '%s'",
			  gw_source_state_name(s->state));
	/* And what only spares bytes is done without. */
	if (one && struck(FAULT_HANG) && sim.dst.hung_answering && !sim.sc->result)
		sim_check(s->state == GW_SOURCE_COMPLETED, "a slow answer to WANT ended as '%s'",
			  gw_source_state_name(s->state));
	/* The reason is the destination's, and it must get here. */
	if (one && struck(FAULT_QEMU_DEST) && s->state == GW_SOURCE_FAILED && !sim.sc->result)
		sim_check(strstr(s->error, "QEMU ended"), "the reason was lost");
	if (one && struck(FAULT_REFUSE) && !sim.sc->result && !sim.sc->paused && !sim.sc->version)
		sim_check(s->state == GW_SOURCE_COMPLETED ||
				  (s->state == GW_SOURCE_FAILED && strstr(s->error, "locked")),
			  "a refusal ended as '%s'", gw_source_state_name(s->state));
	if (one && struck(FAULT_DAMAGE) && s->state == GW_SOURCE_FAILED && !sim.sc->result)
		sim_check(strstr(s->error, "damaged") || strstr(s->error, "does not speak") ||
				  strstr(s->error, "unknown frame") ||
				  strstr(s->error, "more than") || strstr(s->error, "closed"),
			  "the reason was lost");
}

/* What hangs here holds up those who would resume the guest; what hangs there must not. */
static int64_t stop_max(void)
{
	/* A peer that says nothing may be hashing all of the memory. */
	int64_t ns = sim.sc->downtime_limit_ms * GW_MS + LATE_NS +
		     (sim.sc->verify ? gw_memory_hash_ns(sim.guest.memory) : 0);

	for (int i = 0; i < 2; i++)
		switch (sim.faults[i].kind) {
		case FAULT_HANG:
		case FAULT_HANG_FAIL:
		case FAULT_HANG_LATE:
			ns += sim.hung_here ? HANG_NS : 0;
			break;
		case FAULT_STOP_SOURCE:
			ns += HANG_NS;
			break;
		case FAULT_STILL_SOURCE:
			ns += STILL_NS;
			break;
		case FAULT_SLOW_SOURCE:
		case FAULT_LAG:
			ns += 4 * SLOW_NS;
			break;
		default:
			break;
		}
	return ns;
}

/* What this leg took is with the VM, and no more than its guest stood still for. */
static void check_legs(void)
{
	const struct gw_dest *d = &sim.dst.d;
	const struct gw_source *s = &sim.src.s;
	const unsigned int nr = d->legs.nr;

	if (sim.replaced)
		return;
	sim_check(d->version < 2 || (nr && d->legs.us[nr - 1] == SIM_LEG_US),
		  "the VM's earlier legs are lost");
	/* One that hung after COMMIT counts what no source waits for. */
	if (nr > 1 && s->state == GW_SOURCE_COMPLETED)
		sim_check(d->legs.us[0] * GW_US <= s->resumed_ns - s->stopped_ns,
			  "a leg took longer than the guest stood still");
	if (!sim.faults[0].kind && !sim.faults[1].kind && d->run &&
	    gw_holder_has(&s->holder, GW_FEATURE_AGAIN))
		sim_check(nr == 2, "the leg was not written down");
}

static void check_end(void)
{
	const struct source_host *src = &sim.src;
	const struct dest_host *dst = &sim.dst;
	const enum qemu alive = src->will == GUEST_RUNS ? QEMU_RUNNING : QEMU_STOPPED;

	check_always();
	paged_check();
	carried_check();
	if (sim.sc->carried && dst->took_over)
		sim_rare(RARE_CARRIED);
	sim_check(!dst->paged.watched || dst->qemu == QEMU_ENDED, "memory never came");
	if (dst->paged.must.memory.nr_pages && dst->took_over)
		sim_rare(RARE_POSTCOPY);
	sim_check(!src->in_doubt && src->journal == JOURNAL_NONE && dst->journal == JOURNAL_NONE,
		  "somebody still has to put this right");
	if (dst->took_over && src->s.pages[GW_STAGE_TELEPORT])
		sim_rare(RARE_TELEPORTED);
	if (dst->took_over && src->s.teleport.lacked)
		sim_rare(RARE_LACKED);
	if (dst->took_over) {
		sim_check(src->qemu == QEMU_ENDED, "the source holds on to a guest that has left");
		sim_check(dst->qemu == alive || struck(FAULT_QEMU_DEST) || dst->fenced,
			  "the guest came here and does not run");
		check_legs();
		sim_check(dst->settled == GW_OUTCOME_RUNNING ||
				  (dst->settled == GW_OUTCOME_LOST &&
				   (struck(FAULT_QEMU_DEST) || dst->fenced)),
			  "the destination would answer %d", (int)dst->settled);
	} else {
		sim_check(src->qemu == alive, "the guest is nowhere");
		sim_check((dst->qemu == QEMU_NONE || dst->qemu == QEMU_ENDED) && !dst->left_behind,
			  "something stays behind at the destination");
		sim_check(dst->settled != GW_OUTCOME_RUNNING, "the destination lies");
	}
	/* Once COMMIT may have left it waits for an answer, or for an operator. */
	sim_check(src->longest_stop < stop_max() || src->committing || struck(FAULT_STILL),
		  "the guest stood still for %.1f s in vain", (double)src->longest_stop / GW_S);
	sim_check(!sim.sc->device_weight || !src->longest_stop,
		  "the guest was stopped for a switchover that cannot be");
	if (src->s.attempts && dst->took_over)
		sim_rare(RARE_AGAIN);
	if (src->longest_stop)
		sim_rare(src->s.state == GW_SOURCE_CANCELLED ? RARE_CANCELLED_LATE
							     : RARE_TAKEN_BACK);
}

static json_t *definition(void)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < sim.guest.memory->nr_blocks; i++)
		json_array_append_new(
			list, json_pack("{s:s,s:I}", "id", sim.guest.memory->blocks[i].id, "size",
					(json_int_t)sim.guest.memory->blocks[i].size));
	return list;
}

static uint64_t rate_now(uint64_t rate)
{
	return sim.sc->stopped_rate && sim.src.qemu == QEMU_STOPPED ? sim.sc->stopped_rate : rate;
}

void sim_begin(const struct scenario *sc, uint64_t seed, const struct fault faults[2])
{
	struct rng rng = { seed };
	struct net_link link = { .seed = seed,
				 .uneven = sc->uneven,
				 .rate = sc->link_rate ? sc->link_rate : 125000000,
				 .rate_now = rate_now,
				 .wake = sim.wake };

	sim.sc = sc;
	sim.seed = seed;
	memcpy(sim.faults, faults, sizeof(sim.faults));
	sim.steps = 0;
	sim.hash = 0xcbf29ce484222325ULL;
	sim.device_len = 0;
	sim.late = sim.hang_late = sim.slow_source = sim.slow_dest = sim.lagging = sim.hung_here =
		false;
	sim.lags.state = seed + 1;
	sim.settle_at_once = sc->hasty;
	sim.called = sim.replaced = sim.serves_on = sim.pages_on = false;
	sim.cancelled = sim.cancelled_in_time = false;
	sim.impostor = NULL;
	memset(sim.wake, 0, sizeof(sim.wake));
	fibers_init(seed);
	link.latency = (int64_t)(20 + rng_below(&rng, 300)) * 1000;
	net_init(&link);
	guest_init(&sim.guest, &sc->guest, seed);
	carried_init();
	storage_init();
	sim.definition = definition();
	source_init();
	dest_init();
	disks_init();
	kept_init();
	if (!sc->paused)
		guest_run(&sim.guest);
}

void sim_go(void)
{
	if (fibers_run(tick, NULL))
		return;
	fibers_dump();
	sim_wrong("everybody waits for ever");
}

void sim_end(void)
{
	sim_check(!net_ends(), "%u connections were never closed", net_ends());
	json_decref(sim.definition);
	dest_free();
	away_drop();
	kept_free();
	carried_free();
	disks_free();
	storage_free();
	guest_free(&sim.guest);
}

int sim_run(const struct scenario *sc, uint64_t seed, const struct fault faults[2])
{
	sim_begin(sc, seed, faults);
	source_start();
	sim_go();
	if (sim.src.in_doubt) {
		call_operator();
		sim_go();
	}
	if (sim.src.ended)
		check_result();
	if (!faults[0].kind && !faults[1].kind && !sim.src.rc)
		kept_check();
	check_fault();
	check_end();
	mix_end();
	sim_end();
	return sim.src.rc;
}
