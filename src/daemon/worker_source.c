// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_source.c - the source machine's ops on a real QEMU; see source_env.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "hinter.h"
#include "images.h"
#include "io.h"
#include "live.h"
#include "log.h"
#include "saved.h"
#include "peers.h"
#include "process.h"
#include "source_env.h"

#define ENDING_MS	  2000
#define REPORT_MS	  100
#define DEVICE_SOCKET_BUF (8 << 20) /* QEMU saves without waiting for us */
#define QUIT_MS		  10000
#define STOP_NS		  GW_S /* that what goes to other hosts may keep a QEMU */

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static void op_sleep_until(void *env, int64_t when)
{
	struct timespec ts = { when / GW_S, when % GW_S };

	(void)env;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int op_journal(void *env, enum gw_source_phase phase)
{
	struct gw_source_env *e = env;

	e->journal.phase = phase;
	e->journal.was_running = e->s.stopped;
	e->journal.paging = e->s.params.postcopy ? e->s.paging : e->journal.paging;
	e->journal.max_bandwidth = e->s.params.max_bandwidth;
	if (e->s.holder.host[0])
		gw_copy_whole(e->journal.host, sizeof(e->journal.host), e->s.holder.host);
	if (phase == GW_SOURCE_COMMITTING) {
		e->journal.keeps = e->s.params.reuse;
		e->journal.image = e->s.holder.image;
	}
	if (phase == GW_SOURCE_SERVING && !e->journal.since)
		e->journal.since = time(NULL);
	if (phase == GW_SOURCE_GONE) {
		e->journal.lost = e->s.lost;
		snprintf(e->journal.why, sizeof(e->journal.why), "%.*s",
			 (int)sizeof(e->journal.why) - 1, e->s.error);
	}
	return gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
}

static int op_cancelled(void *env)
{
	struct gw_source_env *e = env;

	gw_worker_heed(e->w, NULL, NULL);
	if (e->s.committed) {
		gw_worker_late(e->w); /* the outcome is the destination's now */
		return 0;
	}
	if (e->w->cancelled)
		return gw_fail(-ECANCELED, "cancelled");
	if (e->w->orphaned)
		return gw_fail(-EPIPE, "godwitd on this host ended during the migration");
	return 0;
}

static int on_wake(void *arg)
{
	struct gw_source_env *e = arg;
	int rc = op_cancelled(e);

	if (e->s.holder.control && e->w->ctl < 0)
		e->s.holder.control->wake_fd = -1;
	return rc;
}

static struct gw_transport *op_connect(void *env, int64_t deadline)
{
	struct gw_source_env *e = env;
	const struct gw_peer peer = { .address = e->journal.peer,
				      .wake = { e->w->ctl, on_wake, e } };
	struct gw_transport *t = gw_peer_connect(&peer, deadline);

	/* Paging connections belong to threads of their own, which hear nobody else. */
	if (t && !e->s.holder.control && !e->s.serve) {
		t->wake_fd = e->w->ctl;
		t->on_wake = on_wake;
		t->wake_arg = e;
	}
	return t;
}

static int save_vm(void *env)
{
	struct gw_source_env *e = env;

	return gw_vm_save(e->w->paths, &e->vm);
}

static struct gw_tracker *op_track(void *env, bool *resumed, bool *since_arrival)
{
	struct gw_source_env *e = env;

	*resumed = *since_arrival = false;
	if (e->carry)
		return gw_carry_track(e);
	return gw_watch_track(&e->vm.watch, e->vm.process.pid, &e->ram, save_vm, e, resumed,
			      since_arrival);
}

/*
 * What QEMU's run states are to a move. In those that are kept QEMU moves the
 * state by itself, by its name, since nothing of ours stops or resumes such a
 * guest. The others cannot move. A sleeping guest: QEMU 7.2 to 8.2 wakes it when it
 * saves its state, and a later one aborts if it is to go on at the source after its
 * state was saved (decision 22). And what a processor that gave up is in, another
 * QEMU may not load.
 */
#define ASLEEP                                                                             \
	"it sleeps (S3), and would be woken up, or lost if the move failed: wake it with " \
	"'system_wakeup' in its monitor"

static const struct state {
	const char *name;
	enum {
		RUNS,
		STANDS,
		CANNOT
	} kind;
	const char *why;
} states[] = {
	{ "running", RUNS, NULL },
	{ "paused", STANDS, NULL },
	{ "prelaunch", STANDS, NULL },
	{ "postmigrate", STANDS, NULL },
	{ "io-error", STANDS, NULL },
	{ "guest-panicked", STANDS, NULL },
	{ "watchdog", STANDS, NULL },
	{ "shutdown", STANDS, NULL },
	{ "suspended", CANNOT, ASLEEP },
	{ "internal-error", CANNOT,
	  "QEMU could not go on with it: see its log, then use 'system_reset' and 'cont' in its "
	  "monitor" },
};

static int op_guest_look(void *env, bool *runs)
{
	struct gw_source_env *e = env;
	char status[32];
	int rc = gw_qmp_status(e->qmp, status, sizeof(status));

	e->resumes = gw_qmp_resumes(e->qmp);
	*runs = false;
	if (rc)
		return rc;
	/* A state that was saved is the guest's as long as it does not run. */
	if (strcmp(status, "postmigrate") != 0 && e->saved) {
		close(e->device);
		e->device = -1;
		e->saved = false;
		gw_saved_drop(e);
	} else if (!strcmp(status, "postmigrate") && !e->saved) {
		return gw_fail(-ENOTSUP, "the guest cannot be moved: somebody else has had QEMU "
					 "save its state; continue it first");
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(states); i++) {
		if (strcmp(states[i].name, status) != 0)
			continue;
		*runs = states[i].kind == RUNS;
		return states[i].kind != CANNOT
			       ? 0
			       : gw_fail(-ENOTSUP, "the guest cannot be moved: %s", states[i].why);
	}
	return gw_fail(-EBUSY, "the guest is in state '%s' just now; it must run or be paused",
		       status);
}

static int op_guest_stop(void *env, bool *ours)
{
	struct gw_source_env *e = env;
	char status[32];
	bool runs;
	int rc;

	/* It waits for what is under way to its disks. */
	gw_storage_within(e, gw_now() + e->s.params.downtime_limit_ms * GW_MS + STOP_NS / 4);
	rc = gw_qmp_call(e->qmp, "stop", NULL, NULL);
	gw_storage_within(e, GW_FOREVER);
	if (!rc)
		rc = gw_qmp_status(e->qmp, status, sizeof(status));
	if (rc)
		return rc;
	e->resumes = gw_qmp_resumes(e->qmp);
	/* QEMU 9 and later call one paused that fell asleep before; to resume it is no harm yet. */
	if (!strcmp(status, "paused") && gw_qmp_asleep(e->qmp))
		return gw_fail(-ENOTSUP, "the guest cannot be moved: %s", ASLEEP);
	if (!strcmp(status, "paused"))
		return 0;
	/* It was faster, and stands still for a reason of its own. */
	*ours = false;
	rc = op_guest_look(e, &runs);
	return !rc && runs ? gw_fail(-EAGAIN, "somebody else continued the guest") : rc;
}

static int op_guest_stayed(void *env)
{
	struct gw_source_env *e = env;
	char status[32];
	int rc = gw_qmp_status(e->qmp, status, sizeof(status));

	/*
	 * One that has ended will not be continued, and its state may be saved
	 * already. It closes its monitor a moment before it ends.
	 */
	if (rc == -EPIPE && gw_process_ended(&e->vm.process, ENDING_MS))
		rc = 0;
	if (!rc && gw_qmp_resumes(e->qmp) != e->resumes)
		rc = gw_fail(-EAGAIN, "the guest was continued by somebody else in the moment "
				      "when it stood still to be moved");
	return rc;
}

int gw_source_end_saving(struct gw_source_env *e)
{
	int rc;

	if (e->device >= 0)
		close(e->device);
	e->device = -1;
	if (!e->saving)
		return 0;
	for (;;) {
		json_t *answer = NULL;
		char status[32];

		rc = gw_qmp_call(e->qmp, "migrate_cancel", NULL, NULL);
		if (!rc)
			rc = gw_qmp_call(e->qmp, "query-migrate", NULL, &answer);
		if (rc)
			return rc;
		snprintf(status, sizeof(status), "%s",
			 json_string_value(json_object_get(answer, "status")) ?: "none");
		json_decref(answer);
		if (!strcmp(status, "completed") || !strcmp(status, "failed") ||
		    !strcmp(status, "cancelled") || !strcmp(status, "none"))
			break;
		/* An event comes with every change of status; either of these ends it. */
		rc = gw_qmp_wait_migration(e->qmp, "completed", gw_now() + 10 * GW_S);
		if (rc && rc != -EREMOTEIO)
			return rc;
	}
	e->saving = false;
	return 0;
}

static int op_guest_resume(void *env)
{
	struct gw_source_env *e = env;
	int rc = gw_source_end_saving(e);

	if (!rc)
		rc = op_guest_stayed(e);
	if (!rc) {
		rc = gw_qmp_call(e->qmp, "cont", NULL, NULL);
	} else if (rc == -EAGAIN) { /* its user had it run, and may have paused it again */
		gw_error_clear();
		rc = 0;
	}
	/* After, so that the guest does not wait for it; and even if it does not run. */
	gw_settings_put_back(e->qmp, &e->settings, e->vm.def.name);
	gw_storage_within(e, GW_FOREVER);
	return rc;
}

static void quit_qemu(struct gw_source_env *e)
{
	struct pollfd pfd = { .events = POLLIN };
	gw_autofd int fd = gw_process_open(&e->vm.process);

	pfd.fd = fd;
	if (fd < 0)
		return;
	/* The guest may run on this very machine, or others do: they come first. */
	gw_process_yield(&e->vm.process);
	if (!e->qmp)
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + ENDING_MS * GW_MS);
	if (!e->qmp || gw_qmp_call(e->qmp, "quit", NULL, NULL) || poll(&pfd, 1, QUIT_MS) <= 0) {
		gw_warn("QEMU (process %d) does not quit: %s; killing it", (int)e->vm.process.pid,
			gw_error());
		gw_process_kill(&e->vm.process);
	}
}

static int op_guest_quit(void *env, struct gw_ledger *keep)
{
	struct gw_source_env *e = env;

	quit_qemu(e);
	gw_departure_keep(&e->departure, e->w->paths, &e->vm.def, keep);
	return gw_vm_remove(e->w->paths, &e->vm.def, e->vm.attached);
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	struct gw_source_env *e = env;

	gw_thread_urgency(GW_BACKGROUND); /* the guest has left */
	return gw_departure_ledger(&e->departure, e->w->paths, &e->vm, nr_pages, l);
}

static int64_t sooner(int64_t deadline, int64_t other)
{
	return deadline < other ? deadline : other;
}

const char *const gw_source_capabilities[] = { "x-ignore-shared", "events", NULL };

/*
 * Look at QEMU's migration settings, and write them down before they are changed.
 * Not at the start of the move: whoever else uses this QEMU may change them meanwhile.
 */
static int find_settings(struct gw_source_env *e)
{
	char text[GW_SETTINGS_MAX] = "";
	int rc;

	if (e->settings) /* of an attempt before this one, and still ours */
		return 0;
	rc = gw_settings_find(e->qmp, gw_source_capabilities, &e->settings);
	if (!rc)
		rc = gw_settings_format(e->settings, text);
	if (rc || !strcmp(text, e->journal.settings))
		return rc;
	memcpy(e->journal.settings, text, sizeof(text));
	return gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
}

static uint64_t op_device_weight(void *env)
{
	const struct gw_source_env *e = env;

	return gw_blocks_weigh(e->vm.process.pid, e->facts.others, e->facts.nr_others);
}

static int op_device_begin(void *env)
{
	struct gw_source_env *e = env;
	int pair[2], size = DEVICE_SOCKET_BUF, rc;

	if (e->saved) /* by a migration before this one */
		return 0;
	rc = find_settings(e);
	/* It gives its disks up, and has them write down what was copied. */
	gw_storage_within(e, sooner(e->s.deadline, gw_now() + STOP_NS) + STOP_NS / 4);
	/* Ours only now, with the guest stopped: savevm in the middle of a move saves memory. */
	if (!rc)
		rc = gw_settings_apply(e->qmp, e->settings);
	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return gw_fail(-errno, "socketpair: %s", strerror(errno));
	if (setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		gw_debug("device state through a small socket: %s", strerror(errno));
	e->device = pair[0];
	rc = gw_qmp_send_fd(e->qmp, "godwit-device", pair[1]);
	close(pair[1]);
	if (!rc) {
		e->saving = true;
		rc = gw_qmp_call(e->qmp, "migrate", json_pack("{s:s}", "uri", "fd:godwit-device"),
				 NULL);
	}
	/* QEMU saves a guest that did not run only once. */
	if (!rc && !e->s.stopped) {
		rc = gw_saved_make(e);
		e->saved = !rc;
	}
	return rc;
}

static long op_device_read(void *env, void *buf, size_t len, int64_t deadline)
{
	struct gw_source_env *e = env;
	struct pollfd pfd = { .fd = e->device, .events = POLLIN };
	ssize_t n;

	deadline = sooner(deadline, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	if (poll(&pfd, 1, gw_poll_ms(deadline)) == 0)
		return gw_fail(-ETIMEDOUT, "QEMU does not hand out its device state");
	n = read(e->device, buf, len);
	return n < 0 ? gw_fail(-errno, "device state: %s", strerror(errno)) : n;
}

static int op_device_end(void *env, int64_t deadline)
{
	struct gw_source_env *e = env;
	int rc = 0;

	deadline = sooner(deadline, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	if (!e->saved)
		rc = gw_qmp_wait_migration(e->qmp, "completed", deadline);
	if (!rc)
		e->saving = false;
	return rc;
}

static int op_disks(void *env, struct gw_samples *s, bool pick)
{
	struct gw_source_env *e = env;
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	const struct gw_samples_from from = {
		.pid = e->vm.process.pid, .dir = dir, .key = &e->s.key, .ns = GW_DISKS_NS
	};
	int rc = pick ? gw_images_find(e->qmp, &s->images) : 0;

	if (rc)
		return rc;
	if (pick)
		gw_storage_below(e, s->images);
	return pick ? gw_samples_pick(s, &from) : gw_samples_read(s, &from);
}

/* Whoever is asked may take seconds; who ends the migration does not wait for that. */
static int await_hints(struct gw_source_env *e)
{
	struct pollfd others[GW_HINTER_OTHERS];

	do {
		others[0] = (struct pollfd){ .fd = e->w->ctl, .events = POLLIN };
		others[1] = (struct pollfd){ .fd = e->s.holder.control->poll_fd, .events = POLLIN };
		if (gw_hinter_wait(e->hinter, others) != -EINTR)
			return 0;
	} while (!op_cancelled(e) && !others[1].revents);
	return -ECANCELED; /* the destination speaks before a round only to end it */
}

static int op_hints(void *env, const json_t *disks, uint64_t due, struct gw_hints *hints)
{
	struct gw_source_env *e = env;
	int rc;

	(void)due;
	if (!e->hinter)
		return gw_fail(-ENOTSUP, "nobody knows what its disks hold");
	rc = await_hints(e);
	if (rc)
		return rc;
	return gw_hinter_hints(e->hinter, disks, hints);
}

static void op_hints_again(void *env, int64_t ns, int64_t left_ns)
{
	struct gw_source_env *e = env;

	if (e->hinter)
		gw_hinter_again(e->hinter, ns, left_ns);
}

static int op_unchanged(void *env)
{
	struct gw_source_env *e = env;
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *now = NULL;
	int rc = gw_live_refuse_jobs(e->qmp);

	if (!rc)
		rc = gw_live_describe(e->qmp, e->vm.process.pid, dir, &now);
	if (!rc)
		rc = gw_live_unchanged(e->live, now);
	if (!rc) /* while the guest still runs: 1 ms */
		rc = find_settings(e);
	json_decref(now);
	return rc;
}

static void op_report(void *env)
{
	struct gw_source_env *e = env;

	json_t *status;

	e->reported = gw_now();
	status = gw_source_json(&e->s, e->reported);
	if (e->s.lost) {
		char text[GW_ERROR_MAX];

		gw_journal_gone_text(&e->journal, e->vm.def.name, text, sizeof(text));
		json_object_set_new(status, "error-desc", json_string(text));
	}
	gw_worker_progress(e->w, status);
}

static int op_parallel(void *env, unsigned int n, int (*fn)(void *arg, unsigned int i), void *arg,
		       void (*halt)(void *arg), void (*tick)(void *arg))
{
	struct gw_source_env *e = env;
	bool halted = false;
	int rc = gw_crew_start(&e->crew, n, fn, arg);

	if (rc)
		halt(arg);
	while (!rc && e->crew.running) {
		struct pollfd fds[3] = {
			{ .fd = e->crew.event, .events = POLLIN },
			{ .fd = halted ? -1 : e->s.holder.control->poll_fd, .events = POLLIN },
			{ .fd = halted ? -1 : e->w->ctl, .events = POLLIN },
		};
		int ready = poll(fds, GW_ARRAY_SIZE(fds), tick ? GW_TICK_NS / GW_MS : REPORT_MS);

		if (tick)
			tick(arg);
		gw_crew_quiet(&e->crew);
		/* The destination speaks during a round only to end it. */
		if (!halted && (gw_crew_failed(&e->crew) || (ready > 0 && fds[1].revents) ||
				op_cancelled(e))) {
			halted = true;
			halt(arg);
		}
		if (gw_now() - e->reported >= REPORT_MS * GW_MS)
			op_report(e);
		gw_carry_room(e);
	}
	return gw_crew_join(&e->crew);
}

static int run_server(void *arg, unsigned int i)
{
	struct gw_source_env *e = arg;

	e->serve(e->serve_arg, i);
	return 0;
}

static int op_spawn(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg)
{
	struct gw_source_env *e = env;

	e->serve = fn;
	e->serve_arg = arg;
	return gw_crew_start(&e->servers, n, run_server, e);
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	gw_thread_urgency(urgency);
}

static void op_join(void *env)
{
	gw_crew_join(&((struct gw_source_env *)env)->servers);
}

/* Nobody ends it any more: the guest is the destination's. */
static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	struct gw_source_env *e = env;

	for (;;) {
		struct pollfd fds[2] = { { .fd = e->servers.event, .events = POLLIN },
					 { .fd = e->w->ctl, .events = POLLIN } };

		gw_crew_quiet(&e->servers); /* before the look */
		op_cancelled(e);
		if (done(arg))
			return 0;
		if (e->w->give_up && e->s.state == GW_SOURCE_POSTCOPY_PAUSED)
			return gw_fail(-ECANCELED, "it could not be reached (%s), and was given up",
				       e->s.holder.waits_for);
		e->w->give_up = false;
		/* Its user does not want to wait for the next attempt. */
		if (e->w->retry || !poll(fds, GW_ARRAY_SIZE(fds), gw_poll_ms(deadline))) {
			e->w->retry = false;
			return gw_fail(-ETIMEDOUT, "the destination does not answer");
		}
	}
}

static void op_notify(void *env)
{
	gw_crew_notify(&((struct gw_source_env *)env)->servers);
}

static int op_processes(void *env, uint64_t *ids, size_t most)
{
	struct gw_source_env *e = env;
	gw_autofree char *text = gw_qmp_hmp(e->qmp, "info registers -a");

	return text ? (int)gw_process_parse(text, ids, most) : -EIO;
}

static int op_settle(void *env, enum gw_outcome *outcome)
{
	struct gw_source_env *e = env;
	struct gw_said said;
	int rc = gw_ask_of_served(&e->journal, false, &said);

	*outcome = said.outcome;
	return rc;
}

const struct gw_source_ops gw_source_live_ops = {
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
	.unchanged = op_unchanged,
	.sub_connect = gw_spread_connect,
	.history = gw_spread_history,
	.carried_freeze = gw_carry_freeze,
	.carried_leave = gw_carry_leave,
	.carried_thaw = gw_carry_thaw,
	.disks = op_disks,
	.storage_copy = gw_storage_copy,
	.storage_left = gw_storage_left,
	.storage_settle = gw_storage_settle,
	.hints = op_hints,
	.hints_again = op_hints_again,
	.processes = op_processes,
	.cancelled = op_cancelled,
	.report = op_report,
};

int gw_source_env_crews(struct gw_source_env *e)
{
	int rc = gw_crew_init(&e->crew);

	if (!rc)
		rc = gw_crew_init(&e->servers);
	e->crewed = !rc;
	return rc;
}

void gw_source_env_free(struct gw_source_env *e)
{
	if (e->crewed) {
		gw_crew_free(&e->crew);
		gw_crew_free(&e->servers);
	}
	if (e->device >= 0)
		close(e->device);
	gw_qmp_close(e->qmp);
	gw_hinter_stop(e->hinter);
	gw_storage_free(e->storage);
	gw_carry_end(e);
	json_decref(e->live);
	json_decref(e->split);
	json_decref(e->settings);
	gw_ram_close(&e->ram);
	gw_vm_free(&e->vm);
	gw_departure_free(&e->departure);
	free(e);
}

int gw_source_env_told(struct gw_source_env *e, int rc, json_t **result)
{
	struct gw_source *s = &e->s;
	const char *name = e->vm.def.name;

	if (e->journal.phase == GW_SOURCE_GONE)
		gw_journal_gone_text(&e->journal, name, s->error, sizeof(s->error));
	*result = gw_source_json(s, gw_now());
	if (rc)
		return gw_fail(rc, "%s", s->error);
	gw_departure_report(&e->departure, e->w, s, name, e->journal.peer);
	return 0;
}

static struct gw_source_env *new_env(struct gw_worker *w, const char *name, int *lock)
{
	struct gw_source_env *e = calloc(1, sizeof(*e));
	int rc;

	if (!e)
		return NULL;
	e->w = w;
	e->device = -1;
	*lock = -1;
	rc = gw_vm_load(w->paths, name, &e->vm);
	if (rc == -ENOENT)
		rc = gw_fail(-ENOENT, "no VM '%s' on this host; see godwit list", name);
	if (!rc) {
		*lock = gw_vm_lock(w->paths, name);
		rc = *lock < 0 ? *lock : 0;
	}
	if (rc) {
		gw_source_env_free(e);
		return NULL;
	}
	return e;
}

int gw_source_env_monitor(struct gw_source_env *e)
{
	if (!gw_process_alive(&e->vm.process))
		return gw_fail(-ESRCH, "the QEMU of VM '%s' has ended", e->vm.def.name);
	e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	return e->qmp ? gw_qmp_check(e->qmp, e->vm.process.pid) : -EPIPE;
}

struct gw_source_env *gw_source_env_new(struct gw_worker *w, const char *name, int *lock)
{
	struct gw_source_env *e = new_env(w, name, lock);
	int rc;

	if (!e)
		return NULL;
	rc = gw_source_env_monitor(e);
	if (rc) {
		gw_source_env_free(e);
		return NULL;
	}
	return e;
}

struct gw_source_env *gw_source_env_served(struct gw_worker *w, const char *name, int *lock)
{
	return new_env(w, name, lock);
}
