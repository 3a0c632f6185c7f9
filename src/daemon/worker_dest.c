// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_dest.c - the destination machine's ops on a real QEMU, and the worker
 * that uses them.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activate.h"
#include "arrival.h"
#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "crew.h"
#include "dest.h"
#include "error.h"
#include "images.h"
#include "feature.h"
#include "io.h"
#include "live.h"
#include "log.h"
#include "qemu_log.h"
#include "teller.h"
#include "vm_folder.h"
#include "worker.h"

#define START_MS  60000
#define ENDING_MS 2000
#define KILL_MS	  10000
#define CLAIM_NS  (5 * GW_S)

struct env {
	struct gw_worker *w;
	struct gw_dest d;
	struct gw_vm vm;
	struct gw_ram ram;
	struct gw_qmp *qmp;
	json_t *settings; /* of QEMU, changed and to be put back (invariant 14) */
	struct gw_crew crew;
	struct gw_teller teller;
	struct gw_journal journal;
	struct gw_arrival arrival;
	int lock;      /* of the VM; -1 until its folder is ours */
	int device;    /* our end of QEMU's device state */
	int qemu;      /* pidfd */
	int wake;      /* epoll of ctl, qemu and crew: what the control connection heeds */
	bool log_kept; /* of QEMU (qemu_log.h) */
	bool asked;    /* recovery: the source waits for what becomes of it, or somebody knows */
	char from[NI_MAXHOST]; /* whence the source called */
	void (*spawned)(void *arg, unsigned int i);
	void *spawned_arg;
};

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static int op_journal(void *env, enum gw_dest_phase phase)
{
	struct env *e = env;

	e->journal.phase = phase;
	e->journal.was_running = e->d.run;
	if (e->lock < 0)
		return 0; /* nothing is here yet that anybody would have to remove */
	if (phase == GW_DEST_PHASE_RUNNING) {
		int rc = gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_RUNNING);

		if (rc)
			return rc;
	}
	return gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
}

static int ended(struct env *e)
{
	gw_autofree char *said = gw_qemu_said(e->w->paths, e->w->host, e->vm.def.name);

	e->log_kept = true;
	return gw_fail(-ECHILD, "QEMU ended on host '%s'. %s", e->w->host, said);
}

/* @rc, unless the monitor closed because QEMU ended: its log says why, better. */
static int because(struct env *e, int rc)
{
	return rc == -EPIPE && gw_process_ended(&e->vm.process, ENDING_MS) ? ended(e) : rc;
}

/* Whether to go on, by what the daemon has said and how QEMU is. 0: go on. */
static int attend(struct env *e)
{
	struct pollfd pfd = { .fd = e->qemu, .events = POLLIN };

	if (e->d.committed) {
		gw_worker_late(e->w);
		return 0;
	}
	if (e->qemu >= 0 && poll(&pfd, 1, 0) > 0)
		return ended(e);
	if (e->w->orphaned)
		return gw_fail(-EPIPE, "godwitd on host '%s' ended during the migration",
			       e->w->host);
	if (e->w->cancelled)
		return gw_fail(-ECANCELED, "cancelled on host '%s'", e->w->host);
	return gw_dest_heed(&e->d);
}

/* Something besides the source wants to be heard. 0: go on. */
static int heed(struct env *e)
{
	int ctl = e->w->ctl;

	gw_crew_quiet(&e->crew);
	gw_worker_heed(e->w, NULL, NULL);
	if (ctl >= 0 && e->w->ctl < 0)
		epoll_ctl(e->wake, EPOLL_CTL_DEL, ctl, NULL);
	return attend(e);
}

static int on_wake(void *arg)
{
	return heed(arg);
}

static void watch(struct env *e, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (fd >= 0 && epoll_ctl(e->wake, EPOLL_CTL_ADD, fd, &ev))
		gw_warn("epoll: %s", strerror(errno));
}

/* Where the source answers questions: recovery asks it before it resumes the guest. */
static void note_source(struct env *e)
{
	static const char *const anywhere[] = { "", "0.0.0.0", "[::]", "*" };
	const char *listen = e->d.listen, *port = strrchr(listen, ':');
	char *peer = e->journal.peer;
	bool any = false;

	if (!port || !port[1])
		return;
	for (size_t i = 0; i < GW_ARRAY_SIZE(anywhere); i++)
		any = any || (strlen(anywhere[i]) == (size_t)(port - listen) &&
			      !strncmp(listen, anywhere[i], strlen(anywhere[i])));
	if (!any)
		snprintf(peer, sizeof(e->journal.peer), "%s", listen);
	else if (e->from[0])
		snprintf(peer, sizeof(e->journal.peer),
			 strchr(e->from, ':') ? "[%.90s]%.8s" : "%.90s%.8s", e->from, port);
}

static int name_taken(const struct env *e)
{
	const char *name = e->vm.def.name;
	struct gw_journal there;

	/* The very migration that this is: its source is this host. */
	if (!gw_journal_load(e->w->paths, name, &there) &&
	    !memcmp(there.id, e->journal.id, GW_ID_LEN))
		return gw_fail(-EEXIST,
			       "VM '%s' is on host '%s' already: the address is that of the host "
			       "that it is to leave",
			       name, e->w->host);
	return gw_fail(-EEXIST, "host '%s' already has a VM '%s'", e->w->host, name);
}

/* RAM files may take a little more than their size: metadata, huge pages. */
static bool can_be_resident(const struct gw_definition *def, uint64_t bytes)
{
	const uint64_t all = gw_definition_bytes(def);

	return bytes <= all + all / 8;
}

/* Make the VM's folder ours alone, and have its memory promised to us. */
static int claim(struct env *e, uint64_t resident)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc;

	if (!can_be_resident(&e->vm.def, resident))
		return gw_fail(-EPROTO, "source: a VM that uses more memory than it has");
	e->lock = gw_vm_claim(e->w->paths, e->w->host, e->vm.def.name);
	if (e->lock == -EEXIST)
		return name_taken(e);
	rc = e->lock < 0 ? e->lock : op_journal(e, GW_DEST_PHASE_RECEIVING);
	/* Recorded before there is anything to find: whoever finds us dead knows what to remove. */
	e->vm.qmp = gw_vm_qmp_path(dir);
	return rc ? rc : gw_budget_reserve(e->w->paths, e->w->host, &e->vm, resident);
}

/* Its memory: what was kept of it, if that is of use, and room for the rest. */
static int make_ram(struct env *e, const json_t *reuse, char *const paths[])
{
	int rc = gw_vm_make_ram_folder(e->w->paths, &e->vm.def);

	if (rc)
		return rc;
	gw_arrival_take(&e->arrival, e->w->paths, &e->vm.def, reuse, e->d.keyed ? &e->d.key : NULL,
			paths);
	return gw_vm_make_ram(e->w->paths, &e->vm.def, e->arrival.took, &e->ram);
}

static int start_qemu(struct env *e, char *const ram_paths[])
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc = gw_launch(&e->vm.def, dir, ram_paths, true, &e->vm.process);

	if (rc)
		return gw_fail_prefix(rc, "host '%s': ", e->w->host);
	rc = gw_vm_save(e->w->paths, &e->vm);
	if (!rc) {
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + START_MS * GW_MS);
		rc = e->qmp ? 0 : -EPIPE;
	}
	/* It closes its monitor a moment before it ends. */
	if (rc && gw_process_ended(&e->vm.process, ENDING_MS)) {
		gw_autofree char *said = gw_qemu_said(e->w->paths, e->w->host, e->vm.def.name);

		e->log_kept = true;
		return gw_fail(-ECHILD,
			       "QEMU does not start on host '%s'. %s. Everything the VM "
			       "names (binary, machine version, disks, networks) must "
			       "exist there too",
			       e->w->host, said);
	}
	if (rc)
		return rc;
	e->qemu = gw_process_open(&e->vm.process);
	watch(e, e->qemu);
	return e->qemu < 0 ? e->qemu : 0;
}

/* Have QEMU wait for its device state on a socket of ours. */
static int await_state(struct env *e)
{
	static const char *const capabilities[] = { "x-ignore-shared", "late-block-activate",
						    "events", NULL };
	int pair[2], rc = gw_settings_find(e->qmp, capabilities, &e->settings);

	if (!rc)
		rc = gw_settings_format(e->settings, e->journal.settings);
	if (!rc)
		rc = gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
	if (!rc)
		rc = gw_settings_apply(e->qmp, e->settings);
	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return gw_fail(-errno, "socketpair: %s", strerror(errno));
	e->device = pair[0];
	rc = gw_qmp_send_fd(e->qmp, "godwit-device", pair[1]);
	close(pair[1]);
	if (!rc)
		rc = gw_qmp_call(e->qmp, "migrate-incoming",
				 json_pack("{s:s}", "uri", "fd:godwit-device"), NULL);
	return rc;
}

static void op_notify(void *env)
{
	gw_crew_notify(&((struct env *)env)->crew);
}

/* Write down what its memory looks like, while no guest waits for the monitor. */
static int describe(struct env *e, bool tracked)
{
	struct gw_guest_facts facts;
	struct gw_ram ram;

	if (gw_attach(e->qmp, e->vm.process.pid, &ram, &facts)) {
		gw_warn("VM '%s' could not leave again: %s", e->vm.def.name, gw_error());
		return 0;
	}
	gw_vm_describe(&e->vm, &ram);
	if (tracked)
		gw_arrival_track(&e->vm, &ram);
	gw_ram_close(&ram);
	return gw_vm_save(e->w->paths, &e->vm);
}

/* QEMU has what it has at the source, or the move is refused before a page moves (invariant 14). */
static int compare_live(struct env *e, const json_t *theirs)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *ours = NULL;
	int rc = theirs ? gw_live_describe(e->qmp, e->vm.process.pid, dir, &ours) : 0;

	if (!rc && theirs)
		rc = gw_live_carry(e->qmp, e->vm.process.pid, dir, theirs, &ours);
	if (!rc)
		rc = gw_live_compare(theirs, ours, e->w->host);
	json_decref(ours);
	return rc;
}

static int prepare(struct env *e, const json_t *definition, uint64_t resident, const json_t *reuse,
		   struct gw_dest_kept *kept)
{
	char *ram_paths[GW_MEMORY_BLOCKS_MAX] = { NULL };
	int rc = gw_definition_parse(&e->vm.def, definition);

	note_source(e);
	e->vm.has_secret = e->d.keyed;
	memcpy(e->vm.secret, e->d.secret, sizeof(e->vm.secret));
	for (unsigned int i = 0; !rc && i < e->vm.def.nr_memory; i++)
		ram_paths[i] = gw_vm_ram_path(e->w->paths, &e->vm.def, i);
	if (!rc)
		rc = claim(e, resident);
	if (!rc)
		rc = make_ram(e, reuse, ram_paths);
	gw_teller_now(&e->teller, "starting QEMU");
	if (!rc) /* while QEMU starts, and the rounds go on */
		rc = gw_arrival_compare(&e->arrival, &e->ram.memory, kept, op_notify, e);
	if (!rc)
		rc = start_qemu(e, ram_paths);
	if (!rc)
		rc = compare_live(e, json_object_get(definition, "live"));
	if (!rc)
		rc = describe(e, reuse && !e->w->paths->store.untracked);
	if (!rc)
		rc = await_state(e);
	kept->later = kept->departure && e->d.features >> GW_FEATURE_LATER & 1;
	if (!rc && !kept->later) {
		gw_teller_now(&e->teller, "looking at what it kept of the VM's memory");
		gw_arrival_compare_all(&e->arrival, &kept->absent);
	}
	for (unsigned int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		free(ram_paths[i]);
	return rc;
}

static size_t op_compared(void *env, size_t from, struct gw_bitmap *absent)
{
	return gw_arrival_compared(&((struct env *)env)->arrival, from, absent);
}

static void op_compare_end(void *env)
{
	gw_arrival_compare_end(&((struct env *)env)->arrival);
}

static int op_disks(void *env, struct gw_samples *s)
{
	struct env *e = env;
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	const struct gw_samples_from from = {
		.pid = e->vm.process.pid, .dir = dir, .key = &e->d.key, .ns = GW_DISKS_NS
	};
	json_t *ours = NULL;
	int rc = because(e, gw_images_find(e->qmp, &ours));

	gw_samples_here(s, ours);
	json_decref(ours);
	if (!rc)
		rc = gw_samples_read(s, &from);
	if (s->why[0] && e->d.samples == 1)
		gw_warn("not all of the disks of VM '%s' are compared with its source's: %s",
			e->vm.def.name, s->why);
	return rc;
}

static void tell_source(void *arg, const char *what)
{
	gw_dest_wait(&((struct env *)arg)->d, what);
}

/* It may take minutes: memory to be freed, an image on disk to be read, a slow QEMU. */
static int op_prepare(void *env, const json_t *definition, uint64_t resident, const json_t *reuse,
		      const struct gw_memory **memory, struct gw_dest_kept *kept)
{
	struct env *e = env;
	int rc;

	gw_teller_start(&e->teller, GW_DEST_WAIT_MS, tell_source, e, "making room for its memory");
	*memory = &e->ram.memory;
	rc = because(e, prepare(e, definition, resident, reuse, kept));
	gw_teller_stop(&e->teller);
	return rc;
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	struct env *e = env;
	gw_autofree char *path = gw_vm_ledger_path(e->w->paths, e->vm.def.name);

	gw_worker_yield(); /* the guest runs */
	return gw_ledger_create(l, path, nr_pages);
}

static struct gw_transport *op_stream(void *env, unsigned int *index, int64_t deadline)
{
	struct env *e = env;
	struct gw_transport *t;
	int fd = -1;

	for (;;) {
		struct pollfd fds[2] = { { .fd = e->wake, .events = POLLIN },
					 { .fd = e->d.control->poll_fd, .events = POLLIN } };
		int n;

		gw_worker_heed(e->w, &fd, index);
		if (fd >= 0)
			break;
		if (attend(e)) /* not heed(): a stream may come at any moment */
			return NULL;
		n = poll(fds, 2, gw_poll_ms(deadline));
		if (n == 0) {
			gw_fail(-ETIMEDOUT, "the source did not open its streams");
			return NULL;
		}
		if (n > 0 && fds[1].revents) {
			gw_fail(-EPROTO, "the source gave up before its streams were open");
			return NULL;
		}
	}
	t = gw_tcp_adopt(fd);
	if (t && gw_frame_send(t, GW_MSG_ACCEPT, e->d.version, NULL, 0))
		gw_transport_close(&t);
	return t;
}

static int run_spawned(void *arg, unsigned int i)
{
	struct env *e = arg;

	e->spawned(e->spawned_arg, i);
	return 0;
}

static int op_spawn(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg)
{
	struct env *e = env;

	e->spawned = fn;
	e->spawned_arg = arg;
	return gw_crew_start(&e->crew, n, run_spawned, e);
}

static void op_join(void *env)
{
	gw_crew_join(&((struct env *)env)->crew);
}

static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	struct env *e = env;

	for (;;) {
		struct pollfd pfd = { .fd = e->wake, .events = POLLIN };
		int rc = heed(e); /* forgets notifications, so it comes before the look */

		if (rc)
			return rc;
		if (done(arg))
			return 0;
		if (poll(&pfd, 1, gw_poll_ms(deadline)) == 0)
			return gw_fail(
				-ETIMEDOUT,
				"the source's streams deliver nothing; check the network between "
				"the hosts");
	}
}

static int op_device_write(void *env, const void *buf, size_t len)
{
	struct env *e = env;
	struct timeval limit = { .tv_sec = GW_QMP_TIMEOUT_MS / 1000 };

	setsockopt(e->device, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	while (len) {
		ssize_t n = send(e->device, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/* QEMU ends on a state that it cannot load, and its log says why. */
		if (n < 0 && gw_process_ended(&e->vm.process, errno == EPIPE ? ENDING_MS : 0))
			return ended(e);
		if (n < 0)
			return gw_fail(-EIO, "QEMU does not take its device state");
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

static int op_device_end(void *env, int64_t deadline)
{
	struct env *e = env;
	int rc;

	shutdown(e->device, SHUT_WR);
	rc = gw_qmp_wait_migration(e->qmp, "completed", deadline);
	/* A QEMU that ended says why in its log, better than its monitor did. */
	if ((rc == -EPIPE || rc == -EREMOTEIO) && gw_process_ended(&e->vm.process, ENDING_MS / 4))
		return ended(e);
	return rc;
}

static int op_guest_resume(void *env)
{
	struct env *e = env;

	return because(e, gw_qmp_call(e->qmp, "cont", NULL, NULL));
}

/*
 * The VM lives on here, in a QEMU like any other (invariant 14): its migration
 * settings, and where it does not run yet its disks, which wait for that otherwise.
 */
static void put_back(struct env *e)
{
	char status[32];

	if (!gw_qmp_status(e->qmp, status, sizeof(status)) && strcmp(status, "running") != 0 &&
	    gw_disks_activate(e->qmp))
		gw_warn("the disks of VM '%s' stay inactive until it runs: %s", e->vm.def.name,
			gw_error());
	gw_settings_put_back(e->qmp, &e->settings, e->vm.def.name);
}

static enum gw_dest_ran op_guest_ran(void *env)
{
	/* With -incoming and -S; a guest that has run may be paused too, but then cont works. */
	static const char *const never[] = { "inmigrate", "prelaunch", "paused" };
	struct env *e = env;
	char status[32] = "";
	int rc;

	if (gw_process_ended(&e->vm.process, 0))
		return GW_DEST_RAN_GONE;
	rc = e->qmp ? gw_qmp_status(e->qmp, status, sizeof(status)) : -EPIPE;
	if (rc == -EPIPE && gw_process_ended(&e->vm.process, ENDING_MS))
		return GW_DEST_RAN_GONE;
	if (rc)
		return GW_DEST_RAN_UNKNOWN;
	for (size_t i = 0; i < GW_ARRAY_SIZE(never); i++)
		if (!strcmp(status, never[i]))
			return GW_DEST_RAN_NEVER;
	return GW_DEST_RAN;
}

static void op_guest_kill(void *env)
{
	gw_process_end(&((struct env *)env)->vm.process, KILL_MS);
}

static int op_claim(void *env)
{
	struct env *e = env;
	enum gw_outcome outcome;
	char text[256];
	int rc;

	if (!e->journal.peer[0])
		return 0;
	rc = gw_ask(e->journal.peer, GW_OPEN_CLAIM, e->journal.id, CLAIM_NS, &outcome, text,
		    sizeof(text));
	if (!rc && outcome == GW_OUTCOME_ABORTED)
		return gw_fail(-ECANCELED, "the source has the guest again: %s", text);
	if (!rc && outcome == GW_OUTCOME_RUNNING)
		return 0;
	/* It waits for our answer, so it has it stopped, whether or not we can call it. */
	if (e->asked)
		return 0;
	return rc ? gw_fail_prefix(rc, "whether its source still leaves it to this host is not "
				       "known: ")
		  : gw_fail(-EAGAIN, "its source does not know the migration any more: %s", text);
}

static void op_guest_announce(void *env)
{
	struct env *e = env;

	if (gw_qmp_call(e->qmp, "announce-self",
			json_pack("{s:i,s:i,s:i,s:i}", "initial", 50, "max", 550, "rounds", 5,
				  "step", 50),
			NULL))
		gw_warn("the network was not told that '%s' has moved: %s", e->vm.def.name,
			gw_error());
	gw_settings_put_back(e->qmp, &e->settings, e->vm.def.name);
}

static void op_discard(void *env)
{
	struct env *e = env;

	if (e->lock < 0)
		return;
	/* One that hangs in the kernel never runs the guest again. */
	if (!gw_process_end(&e->vm.process, KILL_MS))
		gw_warn("QEMU (process %d) of VM '%s' was killed, and still hangs in the kernel",
			(int)e->vm.process.pid, e->vm.def.name);
	if (gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_ABORTED))
		gw_err("%s", gw_error());
	/* Whatever failed, it may have said why. */
	if (!e->log_kept && !e->w->cancelled) {
		gw_autofree char *log = gw_qemu_log_keep(e->w->paths, e->vm.def.name);

		if (log)
			gw_info("what the QEMU of VM '%s' said here is in %s", e->vm.def.name, log);
	}
	gw_arrival_give_back(e->w->paths, &e->vm.def);
	if (gw_vm_remove(e->w->paths, &e->vm.def, false))
		gw_err("removing VM '%s': %s", e->vm.def.name, gw_error());
	close(e->lock);
	e->lock = -1;
}

static void op_report(void *env)
{
	static const char *const names[] = {
		[GW_DEST_SETUP] = "setup",	 [GW_DEST_RECEIVING] = "active",
		[GW_DEST_LOADING] = "device",	 [GW_DEST_LOADED] = "device",
		[GW_DEST_RUNNING] = "completed", [GW_DEST_FAILED] = "failed",
	};
	struct env *e = env;

	gw_worker_progress(e->w, json_pack("{s:s,s:s}", "status", names[e->d.state], "incoming",
					   e->vm.def.name));
}

static const struct gw_dest_ops ops = {
	.now = op_now,
	.journal = op_journal,
	.prepare = op_prepare,
	.compared = op_compared,
	.compare_end = op_compare_end,
	.disks = op_disks,
	.stream = op_stream,
	.spawn = op_spawn,
	.join = op_join,
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
	.discard = op_discard,
	.report = op_report,
};

static int env_init(struct env *e, struct gw_worker *w)
{
	int rc;

	e->w = w;
	e->lock = e->device = e->qemu = -1;
	e->wake = epoll_create1(EPOLL_CLOEXEC);
	if (e->wake < 0)
		return gw_fail(-errno, "epoll: %s", strerror(errno));
	rc = gw_crew_init(&e->crew);
	if (rc)
		return rc;
	watch(e, w->ctl);
	watch(e, e->crew.event);
	return 0;
}

static void env_free(struct env *e)
{
	const int fds[] = { e->lock, e->device, e->qemu, e->wake };

	for (size_t i = 0; i < GW_ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	gw_qmp_close(e->qmp);
	json_decref(e->settings);
	gw_arrival_free(&e->arrival);
	gw_vm_free(&e->vm);
	gw_crew_free(&e->crew);
	gw_ram_close(&e->ram);
	free(e);
}

static void note_caller(struct env *e, int conn)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (getpeername(conn, (struct sockaddr *)&addr, &len) ||
	    getnameinfo((struct sockaddr *)&addr, len, e->from, sizeof(e->from), NULL, 0,
			NI_NUMERICHOST))
		e->from[0] = '\0';
}

int gw_worker_receive(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version)
{
	struct env *e = calloc(1, sizeof(*e));
	int rc = e ? env_init(e, w) : -ENOMEM;

	if (rc) {
		free(e);
		close(conn);
		return rc;
	}
	e->d.ops = &ops;
	e->d.env = e;
	e->d.version = version;
	e->d.host = w->host;
	e->journal.role = GW_ROLE_DEST;
	memcpy(e->journal.id, open->id, GW_ID_LEN);
	memcpy(e->d.id, open->id, GW_ID_LEN);
	note_caller(e, conn);
	e->d.control = gw_tcp_adopt(conn);
	if (!e->d.control) {
		env_free(e);
		return -ENOMEM;
	}
	e->d.control->wake_fd = e->wake;
	e->d.control->on_wake = on_wake;
	e->d.control->wake_arg = e;
	rc = gw_dest_run(&e->d);
	if (!rc) {
		put_back(e);
		/* Its memory is the VM's now. */
		gw_image_drop(&w->paths->store, e->vm.def.name);
		gw_journal_remove(w->paths, e->vm.def.name);
	} else {
		gw_fail(rc, "%s", e->d.error);
	}
	env_free(e);
	return rc;
}

static enum gw_dest_verdict verdict(const struct gw_recovery *why, bool doubted)
{
	if (why->forbid)
		return GW_DEST_FORBID;
	if (!doubted || why->confirmed)
		return GW_DEST_FINISH;
	return why->asked ? GW_DEST_ASKED : GW_DEST_LOOK;
}

enum gw_outcome gw_dest_put_right(struct gw_worker *w, const char *name, struct gw_journal *j,
				  const struct gw_recovery *why)
{
	gw_autofree char *dir = gw_vm_dir(w->paths, name);
	struct env *e = calloc(1, sizeof(*e));
	enum gw_outcome outcome;
	int rc = e ? env_init(e, w) : -ENOMEM;

	if (rc) {
		free(e);
		return GW_OUTCOME_UNKNOWN;
	}
	e->lock = gw_vm_lock(w->paths, name);
	/* It may have been settled before we had the lock. */
	if (e->lock < 0 || gw_journal_load(w->paths, name, j)) {
		env_free(e);
		return GW_OUTCOME_UNKNOWN;
	}
	e->journal = *j;
	e->d.run = j->was_running;
	e->settings = gw_settings_parse(j->settings);
	e->asked = why->asked || why->confirmed;
	/* Without vm.json its QEMU was never started; the folder still goes. */
	rc = gw_vm_load(w->paths, name, &e->vm);
	if (rc)
		snprintf(e->vm.def.name, sizeof(e->vm.def.name), "%s", name);
	else if (!e->vm.process.pid && gw_launch_find(dir, &e->vm.process))
		gw_error_clear(); /* not started yet: nothing to end */
	if (!rc && j->phase != GW_DEST_PHASE_RECEIVING)
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	outcome = gw_dest_recover(&ops, e, (enum gw_dest_phase)j->phase, j->was_running,
				  verdict(why, gw_settled_doubted(w->paths, j->id)));
	if (outcome == GW_OUTCOME_LOST && gw_settled_save(w->paths, j->id, outcome))
		outcome = GW_OUTCOME_UNKNOWN; /* to be written down in another try */
	if (outcome == GW_OUTCOME_RUNNING && e->qmp)
		put_back(e);
	if (outcome == GW_OUTCOME_RUNNING || outcome == GW_OUTCOME_LOST) {
		gw_image_drop(&w->paths->store, name);
		gw_journal_remove(w->paths, name);
	}
	env_free(e);
	return outcome;
}
