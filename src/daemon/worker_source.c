// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_source.c - the source machine's ops on a real QEMU, and the workers
 * that use them: migrate and recover.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "crew.h"
#include "departure.h"
#include "error.h"
#include "inject.h"
#include "io.h"
#include "log.h"
#include "source.h"
#include "worker.h"

#define REPORT_MS	  100
#define DEVICE_SOCKET_BUF (8 << 20) /* QEMU saves without waiting for us */
#define QUIT_MS		  10000

struct env {
	struct gw_worker *w;
	struct gw_source s;
	struct gw_vm vm;
	struct gw_ram ram;
	struct gw_guest_facts facts;
	struct gw_qmp *qmp;
	struct gw_crew crew;
	struct gw_journal journal;
	struct gw_departure departure;
	int device;  /* our end of QEMU's device state, -1 outside the switchover */
	bool saving; /* QEMU's migrate was issued */
	int64_t reported;
};

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
	struct env *e = env;

	e->journal.phase = phase;
	return gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
}

static int op_cancelled(void *env)
{
	struct env *e = env;

	gw_worker_heed(e->w, NULL, NULL);
	if (e->s.committed)
		return 0; /* too late: the outcome is the destination's now */
	if (e->w->cancelled)
		return gw_fail(-ECANCELED, "cancelled");
	if (e->w->orphaned)
		return gw_fail(-EPIPE, "godwitd on this host ended during the migration");
	return 0;
}

static int on_wake(void *arg)
{
	struct env *e = arg;
	int rc = op_cancelled(e);

	if (e->s.control && e->w->ctl < 0)
		e->s.control->wake_fd = -1;
	return rc;
}

static struct gw_transport *op_connect(void *env, int64_t deadline)
{
	struct env *e = env;
	struct gw_transport *t = gw_tcp_connect(e->journal.peer, deadline);

	if (t && !e->s.control) {
		t->wake_fd = e->w->ctl;
		t->on_wake = on_wake;
		t->wake_arg = e;
	}
	return t;
}

static struct gw_tracker *op_track(void *env, bool *resumed, bool *since_arrival)
{
	struct env *e = env;
	struct gw_track_range ranges[GW_TRACK_RANGES];
	struct gw_tracker *t;
	int uffd;

	for (unsigned int i = 0; i < e->ram.nr_files; i++)
		ranges[i] = (struct gw_track_range){ .hva = e->ram.files[i].hva,
						     .first_page = e->ram.files[i].first_page,
						     .nr_pages = e->ram.files[i].nr_pages };
	t = gw_departure_resume(e->w->paths, &e->vm, ranges, e->ram.nr_files, since_arrival);
	*resumed = t;
	if (t)
		return t;
	if (gw_track_has_uffd()) {
		uffd = gw_inject_userfaultfd(e->vm.process.pid);
		return uffd < 0 ? NULL
				: gw_tracker_uffd(e->vm.process.pid, uffd, ranges, e->ram.nr_files);
	}
	if (gw_track_has_softdirty())
		return gw_tracker_softdirty(e->vm.process.pid, ranges, e->ram.nr_files);
	gw_fail(-ENOTSUP, "this kernel cannot track a process' writes (neither asynchronous "
			  "write-protection nor soft-dirty bits); see godwit check");
	return NULL;
}

static int op_guest_stop(void *env)
{
	return gw_qmp_call(((struct env *)env)->qmp, "stop", NULL, NULL);
}

/* Make QEMU forget a migration that was begun, so that it can run on. */
static int end_saving(struct env *e)
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
	struct env *e = env;
	int rc = end_saving(e);

	return rc ? rc : gw_qmp_call(e->qmp, "cont", NULL, NULL);
}

static void quit_qemu(struct env *e)
{
	struct pollfd pfd = { .events = POLLIN };
	gw_autofd int fd = gw_process_open(&e->vm.process);

	pfd.fd = fd;
	if (fd < 0)
		return;
	/* The guest may run on this very machine, or others do: they come first. */
	gw_process_yield(&e->vm.process);
	if (gw_qmp_call(e->qmp, "quit", NULL, NULL) || poll(&pfd, 1, QUIT_MS) <= 0) {
		gw_warn("QEMU (process %d) does not quit: %s; killing it", (int)e->vm.process.pid,
			gw_error());
		gw_process_kill(&e->vm.process);
	}
}

static int op_guest_quit(void *env, struct gw_ledger *keep)
{
	struct env *e = env;

	quit_qemu(e);
	gw_departure_keep(&e->departure, e->w->paths, &e->vm.def, keep);
	return gw_vm_remove(e->w->paths, &e->vm.def, e->vm.attached);
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	struct env *e = env;

	gw_worker_yield(); /* the guest has left */
	return gw_departure_ledger(&e->departure, e->w->paths, &e->vm, nr_pages, l);
}

static int op_device_begin(void *env)
{
	struct env *e = env;
	int pair[2], size = DEVICE_SOCKET_BUF, rc;

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
	return rc;
}

static long op_device_read(void *env, void *buf, size_t len)
{
	struct env *e = env;
	struct pollfd pfd = { .fd = e->device, .events = POLLIN };
	ssize_t n;

	if (poll(&pfd, 1, GW_QMP_TIMEOUT_MS) == 0)
		return gw_fail(-ETIMEDOUT, "QEMU does not hand out its device state");
	n = recv(e->device, buf, len, 0);
	return n < 0 ? gw_fail(-errno, "device state: %s", strerror(errno)) : n;
}

static int op_device_end(void *env)
{
	struct env *e = env;
	int rc = gw_qmp_wait_migration(e->qmp, "completed", gw_now() + 10 * GW_S);

	if (!rc)
		e->saving = false;
	return rc;
}

static void op_report(void *env)
{
	struct env *e = env;

	e->reported = gw_now();
	gw_worker_progress(e->w, gw_source_json(&e->s, e->reported));
}

static int op_parallel(void *env, unsigned int n, int (*fn)(void *arg, unsigned int i), void *arg,
		       void (*halt)(void *arg))
{
	struct env *e = env;
	bool halted = false;
	int rc = gw_crew_start(&e->crew, n, fn, arg);

	if (rc)
		halt(arg);
	while (!rc && e->crew.running) {
		struct pollfd fds[3] = {
			{ .fd = e->crew.event, .events = POLLIN },
			{ .fd = halted ? -1 : e->s.control->poll_fd, .events = POLLIN },
			{ .fd = halted ? -1 : e->w->ctl, .events = POLLIN },
		};
		int ready = poll(fds, GW_ARRAY_SIZE(fds), REPORT_MS);

		gw_crew_quiet(&e->crew);
		/* The destination speaks during a round only to end it. */
		if (!halted && (gw_crew_failed(&e->crew) || (ready > 0 && fds[1].revents) ||
				op_cancelled(e))) {
			halted = true;
			halt(arg);
		}
		if (gw_now() - e->reported >= REPORT_MS * GW_MS)
			op_report(e);
	}
	return gw_crew_join(&e->crew);
}

static const struct gw_source_ops ops = {
	.now = op_now,
	.sleep_until = op_sleep_until,
	.journal = op_journal,
	.connect = op_connect,
	.track = op_track,
	.guest_stop = op_guest_stop,
	.guest_resume = op_guest_resume,
	.guest_quit = op_guest_quit,
	.ledger = op_ledger,
	.device_begin = op_device_begin,
	.device_read = op_device_read,
	.device_end = op_device_end,
	.parallel = op_parallel,
	.cancelled = op_cancelled,
	.report = op_report,
};

static void env_free(struct env *e)
{
	if (e->device >= 0)
		close(e->device);
	gw_qmp_close(e->qmp);
	gw_ram_close(&e->ram);
	gw_vm_free(&e->vm);
	gw_departure_free(&e->departure);
	free(e);
}

/* The VM's monitor and, with @lock, the right to work on it. */
static struct env *env_new(struct gw_worker *w, const char *name, int *lock)
{
	struct env *e = calloc(1, sizeof(*e));
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
	if (!rc && !gw_process_alive(&e->vm.process))
		rc = gw_fail(-ESRCH, "the QEMU of VM '%s' has ended", name);
	if (!rc) {
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
		rc = e->qmp ? 0 : -EPIPE;
	}
	if (rc) {
		env_free(e);
		return NULL;
	}
	return e;
}

static unsigned int unsigned_arg(const json_t *args, const char *key, unsigned int otherwise)
{
	const json_t *value = json_object_get(args, key);

	return json_is_integer(value) ? (unsigned int)json_integer_value(value) : otherwise;
}

static bool is_true(const json_t *args, const char *key)
{
	return json_is_true(json_object_get(args, key));
}

/*
 * Streams are also the threads that hash and compress. Half of the processors,
 * because guests need them too, and never so many that a big host opens dozens.
 */
static unsigned int default_streams(void)
{
	unsigned int half = 0;
	cpu_set_t cpus;

	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		half = (unsigned int)CPU_COUNT(&cpus) / 2;
	return half < GW_STREAMS_LEAST	? GW_STREAMS_LEAST
	       : half > GW_STREAMS_MOST ? GW_STREAMS_MOST
					: half;
}

/* How the pages are to travel: every technique can be switched off alone. */
static int page_options(struct gw_page_options *o, const json_t *args)
{
	const char *hash = json_string_value(json_object_get(args, "hash"));
	const char *compress = json_string_value(json_object_get(args, "compress"));
	const json_t *cache = json_object_get(args, "delta-cache");
	int rc = 0;

	o->compress = GW_COMPRESS_AUTO;
	o->delta_cache = cache ? (uint64_t)json_integer_value(cache) : GW_DELTA_CACHE_DEFAULT;
	if (hash)
		rc = gw_hash_parse(hash, &o->hash);
	if (!rc && compress)
		rc = gw_compress_parse(compress, &o->compress);
	if (is_true(args, "no-zero"))
		o->off |= 1U << GW_STAGE_ZERO;
	if (is_true(args, "no-fake-dirty"))
		o->off |= 1U << GW_STAGE_SAME;
	if (is_true(args, "no-duplicate"))
		o->off |= 1U << GW_STAGE_DUPLICATE;
	if (!o->delta_cache)
		o->off |= 1U << GW_STAGE_DELTA;
	if (o->compress == GW_COMPRESS_NONE)
		o->off |= 1U << GW_STAGE_COMPRESS;
	return rc;
}

/* The destination numbers pages by the definition: it must say what QEMU says. */
static int check_memory(const struct env *e)
{
	const struct gw_definition *def = &e->vm.def;
	bool same = def->nr_memory == e->ram.nr_files;

	for (unsigned int i = 0; same && i < def->nr_memory; i++)
		same = !strcmp(def->memory[i].id, e->ram.files[i].id) &&
		       def->memory[i].size == e->ram.files[i].size;
	if (!same)
		return gw_fail(-ENOTSUP,
			       "VM '%s' has other memory backends than when it was started "
			       "(hot-plugged memory?); that cannot be moved",
			       def->name);
	if (gw_ram_has_huge_pages(&e->ram) && (e->facts.discards || !gw_track_has_uffd()))
		return gw_fail(-ENOTSUP,
			       "the RAM file of VM '%s' lies on a file system with huge "
			       "pages, which %s: start it with its RAM file on a tmpfs "
			       "mounted with huge=never",
			       def->name,
			       e->facts.discards ? "a balloon can empty unseen"
						 : "this kernel's soft-dirty bits do not survive");
	return 0;
}

/* Everything that can be refused before the destination is even called. */
static int prepare(struct env *e, const json_t *args)
{
	static const char *const capabilities[] = { "x-ignore-shared", "events", NULL };
	const char *address = json_string_value(json_object_get(args, "address"));
	struct gw_source *s = &e->s;
	struct gw_journal found;
	char status[32] = "";
	int rc;

	if (!address || strlen(address) >= sizeof(e->journal.peer))
		return gw_fail(-EINVAL, "where to? write godwit migrate NAME IP:PORT");
	rc = gw_journal_load(e->w->paths, e->vm.def.name, &found);
	if (rc != -ENOENT)
		return gw_fail(-EBUSY,
			       "VM '%s' has an unsettled migration; first run godwit "
			       "recover %s",
			       e->vm.def.name, e->vm.def.name);
	snprintf(e->journal.peer, sizeof(e->journal.peer), "%s", address);
	e->journal.role = GW_ROLE_SOURCE;
	if (getrandom(e->journal.id, GW_ID_LEN, 0) != GW_ID_LEN)
		return gw_fail(-errno, "getrandom: %s", strerror(errno));
	rc = gw_attach(e->qmp, e->vm.process.pid, &e->ram, &e->facts);
	if (!rc)
		rc = check_memory(e);
	if (!rc)
		rc = gw_qmp_capabilities(e->qmp, capabilities);
	if (!rc)
		rc = gw_qmp_call(e->qmp, "migrate-set-parameters",
				 json_pack("{s:I}", "max-bandwidth", (json_int_t)1 << 40), NULL);
	if (!rc)
		rc = gw_qmp_status(e->qmp, status, sizeof(status));
	if (rc)
		return rc;
	s->was_running = !strcmp(status, "running");
	if (!s->was_running && strcmp(status, "paused") != 0)
		return gw_fail(-ENOTSUP, "the guest is in state '%s'; it must run or be paused",
			       status);
	e->journal.was_running = s->was_running;
	memcpy(s->id, e->journal.id, GW_ID_LEN);
	s->ops = &ops;
	s->env = e;
	s->ram = &e->ram;
	s->direct_io = e->facts.direct_io;
	s->params.max_bandwidth =
		(uint64_t)json_integer_value(json_object_get(args, "max-bandwidth"));
	s->params.downtime_limit_ms = unsigned_arg(args, "downtime-limit", 300);
	s->params.streams = unsigned_arg(args, "streams", default_streams());
	s->params.verify = is_true(args, "verify");
	rc = page_options(&s->params.pages, args);
	if (rc)
		return rc;
	/* Reuse goes by the digests of xxh3; the others are for measuring. */
	s->params.reuse = !is_true(args, "no-reuse") && s->params.pages.hash == GW_HASH_XXH3;
	if (s->params.reuse)
		s->ledger = gw_departure_recall(&e->departure, e->w->paths, e->vm.def.name,
						e->ram.nr_pages);
	if (!s->params.streams || s->params.streams > GW_STREAMS_MAX)
		return gw_fail(-EINVAL, "--streams must be 1 to %d", GW_STREAMS_MAX);
	if (s->params.downtime_limit_ms < GW_SOURCE_FIXED_MS)
		return gw_fail(-EINVAL,
			       "--downtime-limit must be at least %d ms: stopping the guest, its "
			       "device state and resuming it may take that long",
			       GW_SOURCE_FIXED_MS);
	return 0;
}

int gw_worker_migrate(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	gw_autofd int lock = -1;
	struct env *e = env_new(w, name, &lock);
	json_t *definition;
	int rc;

	if (!e)
		return -EINVAL;
	rc = prepare(e, args);
	if (!rc)
		rc = gw_crew_init(&e->crew);
	if (rc) {
		env_free(e);
		return rc;
	}
	definition = gw_definition_json(&e->vm.def);
	e->s.definition = definition;
	rc = gw_source_run(&e->s);
	/* In doubt, the journal is what `godwit recover` goes by. */
	if (e->s.state != GW_SOURCE_IN_DOUBT && e->s.state != GW_SOURCE_COMPLETED && !e->s.stopped)
		gw_journal_remove(w->paths, e->vm.def.name);
	*result = gw_source_json(&e->s, gw_now());
	if (rc)
		gw_fail(rc, "%s", e->s.error);
	else
		gw_departure_report(&e->departure, w, &e->s, e->vm.def.name, e->journal.peer);
	json_decref(definition);
	gw_crew_free(&e->crew);
	env_free(e);
	return rc;
}

/* Ask the destination what became of the migration; its answer is final. */
static int ask(const struct gw_journal *j, enum gw_outcome *outcome, char *text, size_t len)
{
	struct gw_open open = { .version_min = GW_VERSION_MIN,
				.version_max = GW_VERSION,
				.kind = GW_OPEN_SETTLE };
	int64_t deadline = gw_now() + 30 * GW_S;
	struct gw_transport *t = gw_tcp_connect(j->peer, gw_now() + 5 * GW_S);
	uint8_t wire[GW_OPEN_LEN];
	struct gw_frame f = { 0 };
	int rc;

	if (!t)
		return -EHOSTUNREACH;
	memcpy(open.id, j->id, GW_ID_LEN);
	gw_open_encode(&open, wire);
	rc = gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire));
	if (!rc)
		rc = gw_frame_recv(t, &f, deadline);
	if (!rc && f.type != GW_MSG_SETTLED)
		rc = gw_fail(-EPROTO, "%s answered with %s", j->peer, gw_message_name(f.type));
	if (!rc) {
		*outcome = (enum gw_outcome)f.arg;
		snprintf(text, len, "%.*s", (int)f.len, (const char *)f.payload);
	}
	gw_frame_free(&f);
	gw_transport_close(&t);
	return rc;
}

/* What the user or the destination says became of a guest in doubt. */
static int find_outcome(const json_t *args, const struct gw_journal *j, enum gw_outcome *outcome)
{
	const char *said = json_string_value(json_object_get(args, "outcome"));
	char text[512] = "";
	int rc;

	*outcome = said && !strcmp(said, "resume")    ? GW_OUTCOME_ABORTED
		   : said && !strcmp(said, "discard") ? GW_OUTCOME_RUNNING
						      : 0;
	if (*outcome)
		return 0;
	rc = ask(j, outcome, text, sizeof(text));
	if (rc)
		return gw_fail_prefix(rc, "the destination cannot be asked; look there, then use "
					  "--resume (it does not run there) or --discard (it "
					  "does). Reason: ");
	gw_info("the destination says: %s", text);
	return 0;
}

static int recover_source(struct gw_worker *w, const json_t *args, const char *name,
			  const struct gw_journal *j, json_t **result)
{
	gw_autofd int lock = -1;
	struct env *e = env_new(w, name, &lock);
	enum gw_outcome outcome = GW_OUTCOME_ABORTED;
	int rc = 0;

	if (!e)
		return -EIO;
	e->journal = *j;
	e->saving = true; /* it may have been under way; ending none is harmless */
	e->s.stopped = j->was_running;
	if (j->phase == GW_SOURCE_COMMITTING) {
		rc = find_outcome(args, j, &outcome);
		if (!rc && outcome == GW_OUTCOME_ABORTED && !j->was_running)
			rc = end_saving(e);
		else if (!rc)
			rc = gw_source_settle(&ops, e, outcome);
	} else {
		rc = j->was_running ? gw_source_recover(&ops, e, GW_SOURCE_MOVING) : end_saving(e);
	}
	if (!rc && outcome != GW_OUTCOME_RUNNING)
		gw_journal_remove(w->paths, name);
	if (!rc)
		*result = json_pack("{s:s}", "outcome",
				    outcome == GW_OUTCOME_RUNNING ? "moved" : "resumed");
	env_free(e);
	return rc;
}

int gw_worker_recover(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_journal j;
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	rc = gw_journal_load(w->paths, name, &j);
	if (rc == -ENOENT)
		return gw_fail(rc, "VM '%s' has no migration to settle", name);
	if (rc)
		return rc;
	if (j.role == GW_ROLE_SOURCE)
		return recover_source(w, args, name, &j, result);
	switch (gw_dest_put_right(w, name, &j)) {
	case GW_OUTCOME_RUNNING:
		*result = json_pack("{s:s}", "outcome", "running");
		return 0;
	case GW_OUTCOME_ABORTED:
		*result = json_pack("{s:s}", "outcome", "removed");
		return 0;
	case GW_OUTCOME_LOST:
		return gw_fail(-ESRCH,
			       "VM '%s' was committed to this host, but its guest cannot be "
			       "resumed: %s",
			       name, gw_error());
	default:
		return gw_fail(-EBUSY,
			       "what became of VM '%s' cannot be told now: it still "
			       "arrives, or its QEMU does not answer; try again",
			       name);
	}
}
