// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dest_host.c - the destination: its QEMU, its daemon, and the machine's ops on them.
 *
 * The ops' env is the process that calls them, as in source_host.c. They
 * follow daemon/worker_dest.c and daemon/jobs.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "feature.h"
#include "sim.h"

#define START_NS (50 * GW_MS) /* of QEMU */
#define LOAD_NS	 (4 * GW_MS)

static int64_t op_now(void *env)
{
	(void)env;
	return sim_now();
}

static int op_journal(void *env, enum gw_dest_phase phase)
{
	static const enum journal journals[] = {
		[GW_DEST_PHASE_RECEIVING] = JOURNAL_RECEIVING,
		[GW_DEST_PHASE_COMMITTED] = JOURNAL_COMMITTED,
		[GW_DEST_PHASE_RUNNING] = JOURNAL_RUNNING,
	};
	int rc = sim_step(env, "destination journal", STEP_FAILS | STEP_DISK);

	if (rc || !sim.dst.left_behind)
		return rc; /* before prepare there is nothing to put right */
	if (phase == GW_DEST_PHASE_COMMITTED)
		sim_check(sim.src.journal == JOURNAL_COMMITTING,
			  "the destination takes over without the source's word");
	sim.dst.journal = journals[phase];
	sim.dst.run = sim.dst.d.run;
	if (phase == GW_DEST_PHASE_RUNNING)
		sim.dst.settled = GW_OUTCOME_RUNNING;
	if (phase != GW_DEST_PHASE_RECEIVING && !sim.dst.run)
		sim.dst.took_over = true;
	return 0;
}

static int heed(void)
{
	if (sim.dst.d.committed)
		return 0;
	if (sim.dst.qemu == QEMU_ENDED)
		return gw_fail(-ECHILD, "QEMU ended on host 'B'");
	return gw_dest_heed(&sim.dst.d);
}

static int on_wake(void *arg)
{
	(void)arg;
	sim.wake[WAKE_DEST] = false;
	return heed();
}

/* What the image's pages are compared by, and how long one part takes. */
#define COMPARE_PART	(GW_CHUNK_PAGES / 4)
#define COMPARE_PART_NS (6 * GW_MS)
#define COMPARE_SLOW_NS GW_S
#define COMPARE_BY_NS	(8 * GW_S) /* less than what hangs */

static bool is_absent(size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	/* Padding, which is beyond every file, is zero. */
	return gw_memory_read(sim.dst.memory, page, 1, bytes) ||
	       !gw_digest_equal(gw_key_page(kept_key(), bytes), sim.dst.kept.digests[page]);
}

/*
 * The threads that compare the image. One that fails has not looked at its part; what
 * was placed there meanwhile makes nonsense of what they say, as it does in truth.
 */
static void comparer(void *arg, unsigned int i)
{
	struct process *process = arg;
	struct dest_host *d = &sim.dst;
	const size_t pages = d->kept.nr_pages;

	(void)i;
	while (d->compared < pages && !d->compare_ended) {
		const int rc = sim_step(process, "compare", STEP_FAILS | STEP_DISK);
		const size_t end = d->compared + COMPARE_PART;

		fiber_sleep_until(sim_now() +
				  (sim.sc->slow_compare ? COMPARE_SLOW_NS : COMPARE_PART_NS));
		if (process->dead || d->compare_ended || sim_now() > d->compare_by)
			break;
		for (size_t page = d->compared; page < end && page < pages; page++)
			if (rc || is_absent(page))
				gw_bitmap_set(&d->absent, page);
		d->compared = end < pages ? end : pages;
		d->notified = true;
		if (d->compared == pages && sim.src.s.nr_rounds)
			sim_rare(RARE_COMPARED_LATER);
	}
}

static size_t op_compared(void *env, size_t from, struct gw_bitmap *absent)
{
	struct dest_host *d = &sim.dst;
	const size_t pages = d->kept.nr_pages;

	(void)env;
	for (size_t page = from; absent && page < d->compared; page++)
		if (gw_bitmap_test(&d->absent, page))
			gw_bitmap_set(absent, page);
	if (d->compared == pages || sim_now() <= d->compare_by)
		return d->compared;
	sim_rare(RARE_COMPARED_NEVER);
	if (absent)
		gw_bitmap_set_range(absent, d->compared, pages - d->compared);
	return pages;
}

static void op_compare_end(void *env)
{
	(void)env;
	sim.dst.compare_ended = true;
}

/* Whether the image is of a departure that the source knows; then what of it is whole. */
static int find_kept(const json_t *reuse, struct gw_dest_kept *kept)
{
	const struct gw_ledger *l = &sim.dst.kept;
	char id[2 * GW_ID_LEN + 1];
	const json_t *one;
	uint8_t bytes[GW_PAGE_SIZE];
	size_t i;

	if (!sim.sc->reuse || !reuse)
		return 0;
	gw_id_format(gw_ledger_id(l, 1), id);
	json_array_foreach(json_object_get(reuse, "ids"), i, one)
		if (!strcmp(json_string_value(one), id))
			kept->departure = 1;
	if (!kept->departure || gw_bitmap_init(&kept->absent, l->nr_pages))
		return 0;
	kept->ledger = l;
	kept->later = sim.dst.d.features >> GW_FEATURE_LATER & 1;
	if (kept->later) {
		if (gw_bitmap_init(&sim.dst.absent, l->nr_pages))
			return -ENOMEM;
		sim.dst.compare_by = sim_now() + COMPARE_BY_NS;
		fiber_new(&sim.dst.worker, "comparer", comparer, &sim.dst.worker, 0);
		return 0;
	}
	for (size_t page = 0; page < l->nr_pages; page++) {
		if (gw_memory_read(sim.dst.memory, page, 1, bytes))
			return -EIO;
		if (!gw_digest_equal(gw_key_page(kept_key(), bytes), l->digests[page]))
			gw_bitmap_set(&kept->absent, page);
	}
	return 0;
}

static int op_disks(void *env, struct gw_samples *s)
{
	(void)env;
	for (size_t i = 0; i < s->nr; i++)
		s->at[i].digest = (struct gw_digest)SIM_BLOCK;
	return 0;
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	int rc = sim_step(env, "ledger at the destination", STEP_FAILS | STEP_DISK);

	return rc ? rc : gw_ledger_create(l, kept_path(), nr_pages);
}

static int op_prepare(void *env, const json_t *definition, uint64_t resident, const json_t *reuse,
		      const struct gw_memory **memory, struct gw_dest_kept *kept)
{
	struct process *process = env;
	const json_t *entry;
	size_t i;
	int rc = sim_step(env, "prepare", STEP_FAILS | STEP_DISK);

	if (rc)
		return rc;
	if (!json_array_size(definition))
		return gw_fail(-EINVAL, "a VM definition with fields missing or out of range");
	sim_check(resident <= gw_memory_bytes(sim.guest.memory), "more resident than there is");
	sim.dst.left_behind = true;
	sim.dst.journal = JOURNAL_RECEIVING;
	sim.dst.run = sim.dst.d.run;
	if (sim.dst.kept.head && reuse && sim.sc->reuse != REUSE_STRANGER) {
		sim.dst.memory = &sim.dst.image.memory;
	} else {
		sim.dst.memory = &sim.dst.made.memory;
		json_array_foreach(definition, i, entry) {
			if (buffers_add(
				    &sim.dst.made, json_string_value(json_object_get(entry, "id")),
				    (uint64_t)json_integer_value(json_object_get(entry, "size"))))
				return -ENOMEM;
		}
	}
	*memory = sim.dst.memory;
	rc = find_kept(reuse, kept);
	sim.dst.qemu = QEMU_WAITING;
	for (unsigned int s = 0; s < sim.sc->start_s && !process->dead; s += 2) {
		fiber_sleep_until(sim_now() + GW_DEST_WAIT_MS * GW_MS);
		if (!process->dead)
			gw_dest_wait(&sim.dst.d, "starting QEMU");
	}
	fiber_sleep_until(sim_now() + START_NS);
	return process->dead ? gw_fail(-ESHUTDOWN, "killed") : rc;
}

static bool stream_ready(void *arg, int64_t *when)
{
	struct process *process = arg;

	return sim.dst.nr_accepted || process->dead || sim.dst.qemu == QEMU_ENDED ||
	       net_readable(sim.dst.d.control, when);
}

static struct gw_transport *op_stream(void *env, unsigned int *index, int64_t deadline)
{
	struct process *process = env;
	struct dest_stream next;

	if (sim_step(env, "stream", STEP_FAILS))
		return NULL;
	if (!fiber_wait(stream_ready, process, deadline)) {
		gw_fail(-ETIMEDOUT, "the source did not open its streams");
		return NULL;
	}
	if (process->dead || heed())
		return NULL;
	if (!sim.dst.nr_accepted) {
		gw_fail(-EPROTO, "the source gave up before its streams were open");
		return NULL;
	}
	next = sim.dst.accepted[--sim.dst.nr_accepted];
	net_give(next.t, process);
	*index = next.index;
	if (gw_frame_send(next.t, GW_MSG_ACCEPT, sim.dst.d.version, NULL, 0))
		gw_transport_close(&next.t);
	return next.t;
}

struct spawned {
	void (*fn)(void *arg, unsigned int i);
	void *arg;
};

static struct spawned spawned;

static void receiver(void *arg, unsigned int i)
{
	struct spawned *s = arg;

	s->fn(s->arg, i);
	sim.dst.receivers--;
}

static int op_spawn(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg)
{
	int rc = sim_step(env, "spawn", STEP_FAILS);

	if (rc)
		return rc;
	spawned = (struct spawned){ fn, arg };
	for (unsigned int i = 0; i < n; i++) {
		sim.dst.receivers++;
		fiber_new(env, "receiver", receiver, &spawned, i);
	}
	return 0;
}

static bool none_left(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !sim.dst.receivers;
}

static void op_join(void *env)
{
	(void)env; /* also for a dead process: its fibers end by themselves */
	if (sim.dst.receivers)
		fiber_wait(none_left, NULL, GW_FOREVER);
}

static struct spawned computed;
static unsigned int computers;

static void computer(void *arg, unsigned int i)
{
	struct process *process = arg;
	const int64_t began = sim_now();

	const int rc = sim_step(process, "compute", 0);

	sim.dst.hung_computing |= sim_now() >= began + HANG_NS;
	if (!rc)
		computed.fn(computed.arg, i);
	computers--;
}

static int op_compute(void *env, void (*fn)(void *arg, unsigned int i), void *arg)
{
	int rc = sim_step(env, "computing", STEP_FAILS);

	if (rc)
		return rc;
	computed = (struct spawned){ fn, arg };
	for (unsigned int i = 0; i < 2; i++) {
		computers++;
		fiber_new(env, "computer", computer, env, i);
	}
	return 2;
}

static bool all_computed(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !computers;
}

static void op_compute_join(void *env)
{
	(void)env; /* as op_join() */
	if (computers)
		fiber_wait(all_computed, NULL, GW_FOREVER);
}

static bool look_again(void *arg, int64_t *when)
{
	struct process *process = arg;

	(void)when;
	return sim.dst.notified || sim.wake[WAKE_DEST] || process->dead;
}

static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	struct process *process = env;
	int rc = sim_step(env, "wait", STEP_FAILS);

	while (!rc) {
		sim.dst.notified = false;
		sim.wake[WAKE_DEST] = false;
		if (process->dead)
			return gw_fail(-ESHUTDOWN, "killed");
		rc = heed();
		if (!rc && done(arg))
			return 0;
		if (!rc && sim_now() >= deadline)
			rc = gw_fail(-ETIMEDOUT, "the streams do not deliver");
		if (!rc)
			fiber_wait(look_again, process, deadline);
	}
	return rc;
}

static void op_notify(void *env)
{
	if (sim_step(env, "notify", 0))
		return;
	sim.dst.notified = true;
	sim.wake[WAKE_DEST] = true;
}

static int qemu_gone(void)
{
	return sim.dst.qemu == QEMU_ENDED ? gw_fail(-EPIPE, "QEMU ended on host 'B'") : 0;
}

/* Where the guest may go on here, it must find what it left. */
static void check_memory(void)
{
	size_t page;

	if (sim.dst.paged.watched) {
		paged_check_held();
		return;
	}
	page = guest_compare(sim.guest.memory, sim.dst.memory);
	if (sim.sc->unequal)
		sim_check(page < sim.guest.memory->nr_pages, "memory is equal where it cannot be");
	else
		sim_check(page == sim.guest.memory->nr_pages, "page %zu differs between the hosts",
			  page);
}

static int op_device_write(void *env, const void *buf, size_t len)
{
	struct dest_host *d = &sim.dst;
	int rc = sim_step(env, "device_write", STEP_FAILS);

	if (!rc)
		rc = qemu_gone();
	if (rc)
		return rc;
	/* QEMU may look from here on; a source that gave up meanwhile does not matter. */
	if (!d->device_len && sim.src.qemu == QEMU_STOPPED && !source_disturbed())
		check_memory();
	sim_check(len <= sim.device_len - d->device_len &&
			  !memcmp(buf, sim.device_state + d->device_len, len),
		  "device state differs at %zu", d->device_len);
	d->device_len += len;
	return 0;
}

static int op_device_end(void *env, int64_t deadline)
{
	struct process *process = env;
	int rc = sim_step(env, "device_end at the destination", STEP_FAILS);

	if (rc)
		return rc;
	sim_check(sim.dst.device_len == sim.device_len, "QEMU loads %zu of %zu bytes",
		  sim.dst.device_len, sim.device_len);
	fiber_sleep_until(sim_now() + LOAD_NS);
	if (process->dead)
		return gw_fail(-ESHUTDOWN, "killed");
	rc = paged_load(process, deadline);
	if (!rc)
		rc = qemu_gone();
	if (!rc)
		sim.dst.qemu = QEMU_STOPPED;
	return rc;
}

#define MONITOR_NS (10 * GW_S)

/* Whether QEMU answers. 0 or -ETIMEDOUT, after a while. */
static int ask_qemu(void)
{
	if (sim.dst.still_until <= sim_now())
		return 0;
	fiber_sleep_until(sim_now() + MONITOR_NS);
	return gw_fail(-ETIMEDOUT, "QEMU's monitor does not answer");
}

void dest_tick(void)
{
	if (!sim.dst.told_to_run || sim.dst.still_until > sim_now())
		return;
	sim.dst.told_to_run = false;
	if (sim.dst.qemu != QEMU_STOPPED)
		return;
	sim.dst.qemu = QEMU_RUNNING;
	sim.dst.took_over = true;
}

static enum gw_dest_ran op_guest_ran(void *env)
{
	if (sim_step(env, "guest_ran", 0))
		return GW_DEST_RAN_UNKNOWN;
	if (sim.dst.qemu == QEMU_ENDED)
		return GW_DEST_RAN_GONE;
	if (ask_qemu())
		return sim.dst.qemu == QEMU_ENDED ? GW_DEST_RAN_GONE : GW_DEST_RAN_UNKNOWN;
	dest_tick();
	return sim.dst.qemu == QEMU_RUNNING ? GW_DEST_RAN : GW_DEST_RAN_NEVER;
}

static void op_guest_kill(void *env)
{
	if (sim_step(env, "guest_kill", 0))
		return;
	/* One that was paused has gone no step further here. */
	if (sim.sc->paused)
		sim.dst.took_over = false;
	dest_qemu_dies();
}

static int op_claim(void *env)
{
	int rc = sim_step(env, "claim", STEP_FAILS);

	if (rc)
		return rc;
	if (sim.src.journal == JOURNAL_COMMITTING || sim.src.journal == JOURNAL_SERVING ||
	    sim.src.journal == JOURNAL_LEFT)
		return 0;
	return gw_fail(-ECANCELED, "the source has the guest again");
}

static int op_guest_resume(void *env)
{
	int rc = sim_step(env, "guest_resume at the destination", STEP_FAILS | STEP_LATE);

	if (!rc)
		rc = qemu_gone();
	if (!rc && sim.dst.still_until > sim_now()) {
		sim.dst.told_to_run = true;
		rc = ask_qemu();
	}
	if (!rc && sim.dst.refuses)
		rc = gw_fail(-EREMOTEIO, "QEMU refused cont: a disk is locked");
	if (rc)
		return rc;
	sim_check(sim.dst.qemu == QEMU_STOPPED || sim.dst.qemu == QEMU_RUNNING,
		  "the destination resumes a guest whose device state is not loaded");
	sim_check(sim.src.will == GUEST_RUNS, "the destination resumes a paused guest");
	sim_check(sim.src.qemu == QEMU_STOPPED || sim.dst.took_over,
		  "the destination resumes the guest while the source has it");
	if (!sim.dst.took_over)
		check_memory();
	sim.dst.qemu = QEMU_RUNNING;
	sim.dst.took_over = true;
	return sim_late();
}

static void op_guest_announce(void *env)
{
	if (!sim_step(env, "guest_announce", 0) && sim.dst.qemu != QEMU_ENDED)
		sim_check(sim.dst.qemu == QEMU_RUNNING, "a guest is announced that does not run");
}

static void op_discard(void *env)
{
	if (sim_step(env, "discard", STEP_DISK) || !sim.dst.left_behind)
		return;
	sim_check(sim.dst.journal == JOURNAL_RECEIVING,
		  "the destination throws away a guest that is its own");
	sim.dst.qemu = QEMU_ENDED;
	sim.dst.left_behind = false;
	sim.dst.settled = GW_OUTCOME_ABORTED;
	sim.dst.journal = JOURNAL_NONE;
}

static void op_report(void *env)
{
	(void)env;
}

static const struct gw_dest_ops ops = {
	.now = op_now,
	.journal = op_journal,
	.prepare = op_prepare,
	.stream = op_stream,
	.spawn = op_spawn,
	.join = op_join,
	.compute = op_compute,
	.compute_join = op_compute_join,
	.wait = op_wait,
	.notify = op_notify,
	.device_write = op_device_write,
	.device_end = op_device_end,
	.guest_resume = op_guest_resume,
	.guest_announce = op_guest_announce,
	.guest_ran = op_guest_ran,
	.guest_kill = op_guest_kill,
	.claim = op_claim,
	.ledger = op_ledger,
	.disks = op_disks,
	.compared = op_compared,
	.compare_end = op_compare_end,
	.discard = op_discard,
	.report = op_report,
};

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
	outcome = gw_dest_recover(&ops, &sim.dst.daemon, phases[sim.dst.journal], run, verdict);
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
		if (gw_frame_send(t, GW_MSG_ACCEPT, sim.dst.d.version, NULL, 0) ||
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
		t->on_wake = on_wake;
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
	sim.dst.d.ops = &ops;
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
