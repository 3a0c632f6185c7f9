// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dest_host.c - the destination: its QEMU, and the machine's ops on it. Its daemon is
 * dest_daemon.c.
 *
 * The ops' env is the process that calls them, as in source_host.c. They follow
 * daemon/worker_dest.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "away.h"
#include "carried.h"
#include "clock.h"
#include "disks.h"
#include "error.h"
#include "feature.h"
#include "sim.h"
#include "storage.h"

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

int dest_on_wake(void *arg)
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
	kept->unchecked = sim.dst.d.unchecked;
	kept->later = !kept->unchecked && sim.dst.d.features >> GW_FEATURE_LATER & 1;
	if (kept->unchecked)
		return 0;
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
	if (sim.dst.d.wants_disks && sim.sc->guest.caches)
		sim.dst.d.disks = json_pack("[s,s]", "vda", "vdb");
	rc = find_kept(reuse, kept);
	if (!rc && sim.dst.d.wants_split)
		rc = away_prepare(&sim.dst.d, sim.dst.memory);
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

	if (sim_now() >= began + HANG_NS)
		*(sim.dst.d.inbox.type == GW_MSG_WANT ? &sim.dst.hung_answering
						      : &sim.dst.hung_verifying) = true;
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
	if (sim.sc->carried) {
		carried_compare();
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
	if (!sim.dst.loading) {
		sim.dst.loading = true;
		fiber_sleep_until(sim_now() + LOAD_NS);
	}
	if (process->dead)
		return gw_fail(-ESHUTDOWN, "killed");
	if (sim.sc->carried)
		carried_load();
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
	/* The code of one that is dead must come to its end. */
	if (sim_step(env, "guest_ran", 0))
		return ((struct process *)env)->dead ? GW_DEST_RAN_GONE : GW_DEST_RAN_UNKNOWN;
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
	sim.dst.fenced = true;
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
	if (!sim.dst.took_over)
		storage_check();
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

const struct gw_dest_ops dest_ops = {
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
	.storage_sealed = storage_sealed,
	.fetch = disks_fetch,
	.fetch_end = disks_fetch_end,
	.compared = op_compared,
	.compare_end = op_compare_end,
	.split = away_split,
	.discard = op_discard,
	.report = op_report,
};
