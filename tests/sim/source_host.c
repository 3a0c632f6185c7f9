// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * source_host.c - the source: its QEMU, its daemon, and the machine's ops on them.
 *
 * The ops' env is the process that calls them: the worker, or the daemon when
 * it puts things right. They follow daemon/worker_source.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "carried.h"
#include "clock.h"
#include "disks.h"
#include "error.h"
#include "sim.h"
#include "storage.h"

#define JOURNAL_NS (2 * GW_MS) /* enough for a peer's reset to come in between */
#define STOP_NS	   (1 * GW_MS)
#define RESUME_NS  (1 * GW_MS)
#define MONITOR_NS (10 * GW_S) /* after which an answer is no longer waited for */

static int64_t op_now(void *env)
{
	(void)env;
	return sim_now();
}

static void op_sleep_until(void *env, int64_t when)
{
	/* Even for the dead: their code may look at the clock until it is over. */
	sim_step(env, "sleep_until", 0);
	fiber_sleep_until(when);
}

static int op_journal(void *env, enum gw_source_phase phase)
{
	struct process *process = env;
	int rc;

	if (phase == GW_SOURCE_COMMITTING)
		sim.src.committing = true;
	rc = sim_step(process, "source journal", STEP_FAILS | STEP_DISK);
	if (rc)
		return rc;
	fiber_sleep_until(sim_now() + JOURNAL_NS);
	if (process->dead)
		return gw_fail(-ESHUTDOWN, "killed");
	sim.src.journal = phase == GW_SOURCE_MOVING    ? JOURNAL_MOVING
			  : phase == GW_SOURCE_LEFT    ? JOURNAL_LEFT
			  : phase == GW_SOURCE_SERVING ? JOURNAL_SERVING
						       : JOURNAL_COMMITTING;
	if (process == &sim.src.worker)
		sim.src.resume = sim.src.s.stopped;
	return 0;
}

/* Three blocks that nobody writes; the destination's are the same (dest_host.c). */
static int op_disks(void *env, struct gw_samples *s, bool pick)
{
	const struct gw_digest digest = SIM_BLOCK;

	(void)env;
	if (pick) {
		s->images = json_pack("[{s:s,s:i,s:s}]", "disk", "d0", "depth", 0, "file", "/d0");
		for (s->nr = 0; s->nr < 3; s->nr++)
			s->at[s->nr] = (struct gw_sample){ .offset = s->nr * GW_SAMPLE_SIZE,
							   .digest = digest,
							   .first = digest };
	}
	return 0;
}

static int op_cancelled(void *env)
{
	(void)env;
	if (!sim.cancelled || sim.src.s.committed)
		return 0;
	return gw_fail(-ECANCELED, "cancelled");
}

static int on_wake(void *arg)
{
	sim.wake[WAKE_SOURCE] = false;
	return op_cancelled(arg);
}

static struct gw_transport *op_connect(void *env, int64_t deadline)
{
	struct gw_transport *t, *peer;

	if (sim_step(env, "connect", STEP_FAILS))
		return NULL;
	t = net_open(env, &sim.dst.daemon, &peer, deadline);
	if (!t)
		return NULL;
	if (!sim.src.s.holder.control && !sim.src.s.committed) {
		t->wake_fd = WAKE_SOURCE;
		t->on_wake = on_wake;
		t->wake_arg = env;
	}
	if (sim.impostor)
		fiber_new(&sim.dst.daemon, "impostor", sim.impostor, peer, 0);
	else
		dest_accept(peer);
	return t;
}

static struct gw_tracker *op_track(void *env, bool *resumed, bool *since_arrival)
{
	if (sim_step(env, "track", STEP_FAILS))
		return NULL;
	*resumed = sim.sc->reuse && !sim.guest.b->needs_quiesce;
	*since_arrival = *resumed && sim.sc->reuse != REUSE_UNTRACKED;
	return *resumed ? guest_resume_tracking(&sim.guest) : guest_track(&sim.guest);
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	int rc = sim_step(env, "ledger at the source", STEP_FAILS | STEP_DISK);

	return rc ? rc : gw_ledger_create(l, NULL, nr_pages);
}

/*
 * QEMU's monitor, with a storage that hangs: its callers give up, and what they
 * said is forgotten with their connection.
 */
static int monitor(void)
{
	int64_t until = sim.src.still_until;

	if (until <= sim_now())
		return 0;
	fiber_sleep_until(until < sim_now() + MONITOR_NS ? until : sim_now() + MONITOR_NS);
	return sim.src.still_until > sim_now() ? gw_fail(-ETIMEDOUT, "QEMU does not answer") : 0;
}

static void stand_still(void)
{
	guest_stop(&sim.guest);
	storage_stops();
	sim.src.qemu = QEMU_STOPPED;
	sim.src.stopped_at = sim_now();
}

static void run_on(void)
{
	sim.src.qemu = QEMU_RUNNING;
	sim.src.resumes++;
	guest_run(&sim.guest);
}

/*
 * While it stands still for its migration QEMU cannot tell that its user wanted
 * that, too. Once it may have left, continuing it here is nothing to be helped.
 */
void source_user(void)
{
	if (sim.src.qemu == QEMU_RUNNING) {
		/* Written down a moment ago: if we die now, it is taken for ours and resumed. */
		sim.src.pause_lost = sim.src.resume;
		stand_still();
		sim.src.will = GUEST_PAUSED;
	} else if (sim.src.qemu == QEMU_STOPPED && sim.src.will != GUEST_OFF &&
		   !sim.src.committing) {
		run_on();
		sim.src.will = GUEST_RUNS;
	}
}

void source_halt(void)
{
	if (sim.src.qemu != QEMU_RUNNING)
		return;
	stand_still();
	sim.src.will = GUEST_OFF;
}

bool source_disturbed(void)
{
	return sim.src.resumes != sim.src.resumes_seen;
}

static int look(bool *runs)
{
	sim.src.resumes_seen = sim.src.resumes;
	*runs = sim.src.qemu == QEMU_RUNNING;
	return sim.src.will == GUEST_OFF ? gw_fail(-ENOTSUP, "the guest has powered off") : 0;
}

static int op_guest_look(void *env, bool *runs)
{
	int rc = sim_step(env, "guest_look", STEP_FAILS);

	return rc ? rc : look(runs);
}

static void note_waiting(const struct gw_source *s)
{
	if (!s->defer.waiting.nr_waits)
		return;
	sim_rare(RARE_WAITED);
	if (s->postcopy)
		sim_rare(RARE_WAITED_POSTCOPY);
}

static int op_guest_stop(void *env, bool *ours)
{
	int rc = sim_step(env, "guest_stop", STEP_FAILS | STEP_LATE);
	bool runs;

	if (rc)
		return rc;
	rc = sim_late();
	if (sim.src.qemu != QEMU_RUNNING) {
		*ours = false;
		return look(&runs);
	}
	stand_still();
	note_waiting(&sim.src.s);
	sim.src.resumes_seen = sim.src.resumes;
	fiber_sleep_until(sim_now() + STOP_NS);
	/* The processors stand still at once; it is the drain of the disks that hangs. */
	return rc ? rc : monitor();
}

static int op_guest_stayed(void *env)
{
	int rc = sim_step(env, "guest_stayed", STEP_FAILS);

	if (!rc && source_disturbed())
		rc = gw_fail(-EAGAIN, "the guest was continued by somebody else");
	return rc;
}

static int op_guest_resume(void *env)
{
	int64_t stop;
	int rc = sim_step(env, "guest_resume at the source", STEP_FAILS | STEP_LATE);

	if (!rc)
		rc = monitor();
	if (rc)
		return rc;
	sim_check(sim.src.qemu == QEMU_STOPPED || sim.src.qemu == QEMU_RUNNING,
		  "the source resumes a guest that it has not got any more");
	sim.src.saving = false;
	if (env == &sim.src.worker && source_disturbed())
		return sim_late();
	if (env == &sim.src.daemon && sim.src.pause_lost)
		sim.src.will = GUEST_RUNS;
	sim_check(sim.src.will == GUEST_RUNS, "the source resumes a guest that its user paused");
	stop = sim_now() - sim.src.stopped_at;
	if (sim.src.qemu == QEMU_STOPPED && stop > sim.src.longest_stop)
		sim.src.longest_stop = stop;
	run_on();
	return sim_late();
}

static int op_guest_quit(void *env, struct gw_ledger *keep)
{
	int rc = sim_step(env, "guest_quit", STEP_FAILS | STEP_LATE);

	if (rc)
		return rc;
	if (keep && !sim.src.left.head) {
		sim.src.left = *keep;
		memset(keep, 0, sizeof(*keep));
	}
	sim_check(sim.src.qemu != QEMU_RUNNING, "the source ends a QEMU whose guest runs");
	sim.src.qemu = QEMU_ENDED;
	sim.src.journal = JOURNAL_NONE;
	return sim_late();
}

static uint64_t op_device_weight(void *env)
{
	sim_step(env, "device_weight", 0);
	return sim.sc->device_weight;
}

static int op_device_begin(void *env)
{
	int rc = sim_step(env, "device_begin", STEP_FAILS | STEP_LATE);

	if (!rc)
		rc = monitor();
	if (rc)
		return rc;
	sim_check(sim.src.qemu == QEMU_STOPPED || source_disturbed(),
		  "device state is saved while the guest runs");
	sim.device_len = sim.sc->device_state
				 ? sim.sc->device_state
				 : 1 + rng_below(&sim.guest.rng, sizeof(sim.device_state));
	rng_fill(&sim.guest.rng, sim.device_state, sim.device_len);
	sim.src.device_read = 0;
	sim.src.saving = true;
	return sim_late();
}

static long op_device_read(void *env, void *buf, size_t len, int64_t deadline)
{
	size_t left = sim.device_len - sim.src.device_read;
	int rc = sim_step(env, "device_read", STEP_FAILS);

	(void)deadline;
	if (rc)
		return rc;
	if (len > left)
		len = left;
	memcpy(buf, sim.device_state + sim.src.device_read, len);
	sim.src.device_read += len;
	return (long)len;
}

static int op_device_end(void *env, int64_t deadline)
{
	int rc = sim_step(env, "device_end at the source", STEP_FAILS);

	(void)deadline;
	if (rc)
		return rc;
	sim_check(sim.src.saving && sim.src.device_read == sim.device_len,
		  "device state was not read to its end");
	sim.src.saving = false;
	return 0;
}

/* The live form of these is daemon/crew.c. */
struct crew {
	struct process *process;
	unsigned int running;
	bool halted;
	int (*fn)(void *arg, unsigned int i);
	void *arg;
	int rc;
	char message[GW_ERROR_MAX];
};

static void member(void *arg, unsigned int i)
{
	struct crew *c = arg;
	int rc = c->fn(c->arg, i);

	if (rc && !c->rc) {
		c->rc = rc;
		snprintf(c->message, sizeof(c->message), "%s", gw_error());
	}
	c->running--;
}

static bool crew_ready(void *arg, int64_t *when)
{
	struct crew *c = arg;

	if (!c->running)
		return true;
	return !c->halted && (c->rc || c->process->dead || sim.cancelled ||
			      net_readable(sim.src.s.holder.control, when));
}

static int op_parallel(void *env, unsigned int n, int (*fn)(void *arg, unsigned int i), void *arg,
		       void (*halt)(void *arg), void (*tick)(void *arg))
{
	struct crew c = { .process = env, .running = n, .fn = fn, .arg = arg };
	int rc = sim_step(env, "parallel", STEP_FAILS);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < n; i++)
		fiber_new(env, "stream", member, &c, i);
	while (c.running) {
		bool ready = fiber_wait(crew_ready, &c, tick ? sim_now() + GW_TICK_NS : GW_FOREVER);

		if (tick && !((struct process *)env)->dead)
			tick(arg);
		if (ready && c.running && !c.halted) {
			c.halted = true;
			halt(arg);
		}
	}
	return c.rc ? gw_fail(c.rc, "%s", c.message) : 0;
}

/* Every word that a user can see is one of query-migrate's, and an end is an end. */
static void op_report(void *env)
{
	static const char *const words[] = { "setup",	       "active",    "pre-switchover",
					     "device",	       "completed", "failed",
					     "cancelling",     "cancelled", "postcopy-active",
					     "postcopy-paused" };
	const char *name = gw_source_state_name(sim.src.s.state);

	if (((struct process *)env)->dead)
		return;
	sim_check(!sim.src.ended, "state %s after the end", name);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(name, words[i]))
			return;
	sim_wrong("'%s' is not a state of query-migrate", name);
}

static struct {
	void (*fn)(void *arg, unsigned int i);
	void *arg;
} spawned;

static void server(void *arg, unsigned int i)
{
	(void)arg;
	spawned.fn(spawned.arg, i);
	sim.src.servers--;
}

/* What is missing at the destination, and lies there as the encoder knows it. */
static size_t known_under_missing(void)
{
	const struct gw_encoder *e = &sim.src.s.holder.encoder;
	size_t start, stop, n = 0;

	gw_bitmap_for_each_run(&sim.src.s.due, 0, sim.src.s.memory->nr_pages, start, stop)
		for (size_t page = start; page < stop; page++)
			n += !gw_digest_is_zero(e->held.table[page]) &&
			     !gw_digest_equal(e->held.table[page], GW_DIGEST_UNKNOWN);
	return n;
}

static int op_spawn(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg)
{
	int rc = sim_step(env, "spawn at the source", STEP_FAILS);

	if (rc)
		return rc;
	spawned.fn = fn;
	spawned.arg = arg;
	if (sim.src.s.state == GW_SOURCE_POSTCOPY_PAUSED && known_under_missing())
		sim_rare(RARE_STILL_KNOWN);
	for (unsigned int i = 0; i < n; i++) {
		sim.src.servers++;
		fiber_new(env, "server", server, NULL, i);
	}
	return 0;
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	(void)urgency;
}

static bool none_left(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !sim.src.servers;
}

static void op_join(void *env)
{
	(void)env; /* also for a dead process: its fibers end by themselves */
	if (sim.src.servers)
		fiber_wait(none_left, NULL, GW_FOREVER);
}

static bool look_again(void *arg, int64_t *when)
{
	(void)when;
	return sim.src.notified || ((struct process *)arg)->dead;
}

static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	struct process *process = env;
	int rc = sim_step(env, "wait at the source", 0);

	while (!rc) {
		sim.src.notified = false;
		if (process->dead)
			rc = gw_fail(-ESHUTDOWN, "killed");
		else if (done(arg))
			break;
		else if (sim_now() >= deadline)
			rc = gw_fail(-ETIMEDOUT, "the destination does not answer");
		else
			fiber_wait(look_again, process, deadline);
	}
	return rc;
}

static void op_notify(void *env)
{
	if (!sim_step(env, "notify at the source", 0))
		sim.src.notified = true;
}

/* One or two processes on two vCPUs; now and then its monitor says nothing. */
static int op_processes(void *env, uint64_t *ids, size_t most)
{
	const uint64_t at = (uint64_t)sim_now() / (20 * GW_MS);
	int rc = sim_step(env, "processes", STEP_FAILS);

	if (rc || most < 2)
		return rc;
	ids[0] = (1 + at % 3) << 13;
	ids[1] = (1 + at / 2 % 3) << 13;
	return 2;
}

static int op_settle(void *env, enum gw_outcome *outcome)
{
	struct gw_transport *t, *peer;
	int rc = sim_step(env, "settle", STEP_FAILS);

	if (rc)
		return rc;
	t = net_open(env, &sim.dst.daemon, &peer, sim_now() + 5 * GW_S);
	if (!t)
		return -EHOSTUNREACH;
	gw_transport_close(&peer);
	gw_transport_close(&t);
	rc = dest_settle(false, outcome);
	if (!rc && *outcome == GW_OUTCOME_RUNNING && sim.src.journal == JOURNAL_SERVING)
		sim_rare(RARE_COMPLETE_LOST);
	return ((struct process *)env)->dead ? gw_fail(-ESHUTDOWN, "killed") : rc;
}

static const struct gw_source_ops ops = {
	.now = op_now,
	.sleep_until = op_sleep_until,
	.journal = op_journal,
	.connect = op_connect,
	.track = op_track,
	.guest_look = op_guest_look,
	.guest_stop = op_guest_stop,
	.guest_stayed = op_guest_stayed,
	.guest_resume = op_guest_resume,
	.guest_quit = op_guest_quit,
	.ledger = op_ledger,
	.device_weight = op_device_weight,
	.device_begin = op_device_begin,
	.device_read = op_device_read,
	.device_end = op_device_end,
	.parallel = op_parallel,
	.spawn = op_spawn,
	.urgency = op_urgency,
	.join = op_join,
	.wait = op_wait,
	.notify = op_notify,
	.settle = op_settle,
	.processes = op_processes,
	.storage_copy = storage_copy,
	.storage_left = storage_left,
	.storage_settle = storage_settle,
	.hints = disks_hints,
	.hints_again = disks_hints_again,
	.cancelled = op_cancelled,
	.disks = op_disks,
	.report = op_report,
	.carried_freeze = carried_freeze,
	.carried_leave = carried_leave,
	.carried_thaw = carried_thaw,
};

static void keep(void *arg, unsigned int i);
static void set_up(void);

static bool at_rest(void *arg, int64_t *when)
{
	(void)when;
	return !*(bool *)arg;
}

/* Another worker in place of one that died: it brings what the guest lacks. */
static void start_keeper(void)
{
	struct source_host *src = &sim.src;

	uint32_t image;

	fiber_wait(at_rest, &src->working, GW_FOREVER);
	image = src->s.holder.image; /* the journal has it */
	memset(&src->s, 0, sizeof(src->s));
	set_up();
	src->s.holder.image = image;
	src->s.paging = sim.sc->streams + 1;
	src->worker.dead = src->ended = false;
	src->working = true;
	sim_rare(RARE_SERVES_ON);
	if (!sim.serves_on && sim.pages_on)
		sim_rare(RARE_BOTH_ON);
	sim.serves_on = true;
	sim.replaced = true;
	fiber_new(&src->worker, "source's keeper", keep, src, 0);
}

/* The daemon finds a journal without a worker. */
void source_recover(void)
{
	int rc = 0;

	if (sim.src.journal == JOURNAL_NONE || sim.src.qemu == QEMU_ENDED)
		return;
	if (sim.src.journal == JOURNAL_SERVING) {
		start_keeper();
		return;
	}
	if (sim.src.journal == JOURNAL_MOVING)
		carried_back();
	/* The daemon tries until it is settled. */
	for (int try = 0;; try++) {
		enum gw_source_phase phase = sim.src.journal == JOURNAL_MOVING ? GW_SOURCE_MOVING
					     : sim.src.journal == JOURNAL_LEFT
						     ? GW_SOURCE_LEFT
						     : GW_SOURCE_COMMITTING;

		sim_rare(try ? RARE_RETRIED : RARE_SOURCE_RECOVERS);
		rc = !sim.src.resume && phase == GW_SOURCE_MOVING
			     ? 0
			     : gw_source_recover(&ops, &sim.src.daemon, phase);
		if (!rc || rc == -EINPROGRESS)
			break;
		fiber_sleep_until(sim_now() + GW_S);
	}
	if (rc) {
		sim.src.in_doubt = true;
		sim.src.doubted_at = sim_now();
	} else {
		sim.src.journal = JOURNAL_NONE;
	}
}

void source_settle(enum gw_outcome outcome)
{
	int rc = -EAGAIN;

	if (outcome == GW_OUTCOME_ABORTED)
		carried_back();
	/* So does the operator, or the daemon once it has an answer. */
	while (rc && rc != -EINPROGRESS)
		rc = !sim.src.resume && outcome == GW_OUTCOME_ABORTED
			     ? 0
			     : gw_source_settle(&ops, &sim.src.daemon, outcome);
	sim_check((rc == -EINPROGRESS) == (outcome == GW_OUTCOME_LOST) &&
			  (!rc || rc == -EINPROGRESS),
		  "settling by outcome %d returns %d: %s", (int)outcome, rc, gw_error());
	if (rc)
		return;
	sim_step(&sim.src.daemon, "journal removed", STEP_DISK);
	sim.src.in_doubt = false;
	if (sim.src.journal == JOURNAL_SERVING)
		start_keeper();
	else
		sim.src.journal = JOURNAL_NONE;
}

/* The worker has ended by itself. */
static void worked(struct source_host *src, int rc)
{
	src->rc = rc;
	src->ended = true;
	sim_check(!src->s.stopped || src->s.committed || !source_disturbed(),
		  "a guest that its user has continued is to be resumed by the daemon");
	/* Also a completed one that could not be removed here: recover does. */
	if (src->journal == JOURNAL_LEFT || src->journal == JOURNAL_SERVING)
		source_recover();
	else if (src->s.state == GW_SOURCE_IN_DOUBT ||
		 (src->s.state == GW_SOURCE_COMPLETED && src->journal != JOURNAL_NONE))
		src->in_doubt = true;
	else if (src->s.state != GW_SOURCE_COMPLETED && !src->s.stopped)
		src->journal = JOURNAL_NONE;
	else if (src->s.state != GW_SOURCE_COMPLETED)
		source_recover();
	if (src->in_doubt)
		src->doubted_at = sim_now();
}

static void work(void *arg, unsigned int i)
{
	struct source_host *src = arg;
	int rc = gw_source_run(&src->s);

	(void)i;
	src->working = false;
	if (!src->worker.dead)
		worked(src, rc);
}

static void keep(void *arg, unsigned int i)
{
	struct source_host *src = arg;
	int rc = gw_source_serve(&src->s);

	(void)i;
	src->working = false;
	if (!src->worker.dead)
		worked(src, rc);
}

/* As the daemon does: what has nothing to work with is off. */
static struct gw_page_options page_options(void)
{
	struct gw_page_options options = sim.sc->pages;

	if (!options.delta_cache)
		options.off |= 1U << GW_STAGE_DELTA;
	if (options.compress == GW_COMPRESS_NONE)
		options.off |= 1U << GW_STAGE_COMPRESS;
	return options;
}

/* What the worker is told. */
static void set_up(void)
{
	struct source_host *src = &sim.src;

	src->s.ops = &ops;
	src->s.env = &src->worker;
	src->s.params.max_bandwidth = sim.sc->max_bandwidth;
	src->s.params.downtime_limit_ms = sim.sc->downtime_limit_ms;
	src->s.params.streams = sim.sc->streams;
	src->s.params.verify = sim.sc->verify;
	src->s.params.pages = page_options();
	memcpy(src->s.secret, sim_secret, sizeof(src->s.secret));
	src->s.params.reuse = sim.sc->reuse && !src->s.params.pages.hash;
	src->s.memory = sim.guest.memory;
	src->s.definition = sim.definition;
	gw_legs_add(&src->s.legs, SIM_LEG_US);
	src->s.direct_io = sim.sc->direct_io;
	src->s.discards = sim.sc->guest.punches;
	src->s.params.postcopy = sim.sc->postcopy;
	src->s.params.postcopy_after = sim.sc->postcopy_after;
	src->s.params.working_set = sim.sc->working_set;
	src->s.params.preprocess_ms = 300;
	src->s.carried = carried_of();
	src->s.storage = storage_wanted();
}

void source_init(void)
{
	struct source_host *src = &sim.src;

	memset(src, 0, sizeof(*src));
	src->worker.name = "source worker";
	src->daemon.name = "source daemon";
	set_up();
	src->will = sim.sc->paused ? GUEST_PAUSED : GUEST_RUNS;
	src->qemu = sim.sc->paused ? QEMU_STOPPED : QEMU_RUNNING;
}

void source_start(void)
{
	sim.src.working = true;
	fiber_new(&sim.src.worker, "source", work, &sim.src, 0);
}
