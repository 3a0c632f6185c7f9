// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_dest.c - the destination machine's ops on a real QEMU; see dest_env.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "activate.h"
#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "fetch.h"
#include "images.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "qemu_log.h"
#include "vm_folder.h"

#define KILL_MS	 10000
#define CLAIM_NS (5 * GW_S)

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

int gw_dest_journal(void *env, enum gw_dest_phase phase)
{
	struct gw_dest_env *e = env;

	e->journal.phase = phase;
	e->journal.was_running = e->d.run;
	if (e->lock < 0)
		return 0; /* nothing is here yet that anybody would have to remove */
	gw_storage_committed(e->w->paths, e->vm.def.name, phase != GW_DEST_PHASE_RECEIVING);
	if (phase == GW_DEST_PHASE_RUNNING) {
		int rc;

		e->paged = e->d.page;
		rc = gw_settled_save(e->w->paths, e->journal.id,
				     e->d.page ? GW_OUTCOME_PAGING : GW_OUTCOME_RUNNING);

		if (rc)
			return rc;
	}
	return gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
}

int gw_dest_ended(struct gw_dest_env *e)
{
	gw_autofree char *said = gw_qemu_said(e->w->paths, e->w->host, e->vm.def.name);

	e->log_kept = true;
	return gw_fail(-ECHILD, "QEMU ended on host '%s'. %s", e->w->host, said);
}

/* @rc, unless the monitor closed because QEMU ended: its log says why, better. */
int gw_dest_because(struct gw_dest_env *e, int rc)
{
	return rc == -EPIPE && e->vm.process.pid > 0 &&
			       gw_process_ended(&e->vm.process, GW_DEST_ENDING_MS)
		       ? gw_dest_ended(e)
		       : rc;
}

/* Whether to go on, by what the daemon has said and how QEMU is. 0: go on. */
static int attend(struct gw_dest_env *e)
{
	struct pollfd pfd = { .fd = e->qemu, .events = POLLIN };

	if (e->d.committed) {
		gw_worker_late(e->w);
		return 0;
	}
	if (e->qemu >= 0 && poll(&pfd, 1, 0) > 0)
		return gw_dest_ended(e);
	if (e->w->orphaned)
		return gw_fail(-EPIPE, "godwitd on host '%s' ended during the migration",
			       e->w->host);
	if (e->w->cancelled)
		return gw_fail(-ECANCELED, "cancelled on host '%s'", e->w->host);
	return gw_dest_heed(&e->d);
}

/* Something besides the source wants to be heard. 0: go on. */
static int heed(struct gw_dest_env *e)
{
	int ctl = e->w->ctl;

	gw_crew_quiet(&e->crew);
	gw_worker_heed(e->w, NULL, NULL);
	gw_pages_heed(&e->pages);
	gw_storage_heed(e);
	if (ctl >= 0 && e->w->ctl < 0)
		epoll_ctl(e->wake, EPOLL_CTL_DEL, ctl, NULL);
	return attend(e);
}

int gw_dest_on_wake(void *arg)
{
	return heed(arg);
}

void gw_dest_heed_fd(struct gw_dest_env *e, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (fd >= 0 && epoll_ctl(e->wake, EPOLL_CTL_ADD, fd, &ev))
		gw_warn("epoll: %s", strerror(errno));
}

void gw_dest_notify(void *env)
{
	gw_crew_notify(&((struct gw_dest_env *)env)->crew);
}

static size_t op_compared(void *env, size_t from, struct gw_bitmap *absent)
{
	return gw_arrival_compared(&((struct gw_dest_env *)env)->arrival, from, absent);
}

static void op_compare_end(void *env)
{
	gw_arrival_compare_end(&((struct gw_dest_env *)env)->arrival);
}

static void op_fetch(void *env, unsigned int disk, uint64_t offset, size_t len,
		     void (*done)(void *arg, const uint8_t *bytes), void *arg)
{
	gw_fetch_read(((struct gw_dest_env *)env)->fetch, disk, offset, len, done, arg);
}

static void op_fetch_end(void *env)
{
	struct gw_dest_env *e = env;

	gw_fetch_close(e->fetch);
	e->fetch = NULL;
}

static int op_disks(void *env, struct gw_samples *s)
{
	struct gw_dest_env *e = env;
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	const struct gw_samples_from from = {
		.pid = e->vm.process.pid, .dir = dir, .key = &e->d.key, .ns = GW_DISKS_NS
	};
	json_t *ours = NULL;
	int rc = gw_dest_because(e, gw_images_find(e->qmp, &ours));

	gw_storage_images(e, ours, true);
	gw_samples_here(s, ours);
	json_decref(ours);
	if (!rc)
		rc = gw_samples_read(s, &from);
	if (s->why[0] && e->d.samples == 1)
		gw_warn("not all of the disks of VM '%s' are compared with its source's: %s",
			e->vm.def.name, s->why);
	return rc;
}

static int op_ledger(void *env, size_t nr_pages, struct gw_ledger *l)
{
	struct gw_dest_env *e = env;
	gw_autofree char *path = gw_vm_ledger_path(e->w->paths, e->vm.def.name);

	gw_thread_urgency(GW_BACKGROUND); /* the guest runs */
	return gw_ledger_create(l, path, nr_pages);
}

static struct gw_transport *op_stream(void *env, unsigned int *index, int64_t deadline)
{
	struct gw_dest_env *e = env;
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
	t = gw_peer_accept(fd);
	if (t && gw_frame_send(t, GW_MSG_ACCEPT, e->d.version, NULL, 0))
		gw_transport_close(&t);
	return t;
}

static int run_spawned(void *arg, unsigned int i)
{
	struct gw_dest_env *e = arg;

	e->spawned(e->spawned_arg, i);
	return 0;
}

static int op_spawn(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg)
{
	struct gw_dest_env *e = env;

	e->spawned = fn;
	e->spawned_arg = arg;
	return gw_crew_start(&e->crew, n, run_spawned, e);
}

static void op_join(void *env)
{
	gw_crew_join(&((struct gw_dest_env *)env)->crew);
}

static int run_computed(void *arg, unsigned int i)
{
	struct gw_dest_computers *c = arg;

	c->fn(c->arg, i);
	return 0;
}

static int op_compute(void *env, void (*fn)(void *arg, unsigned int i), void *arg)
{
	struct gw_dest_computers *c = &((struct gw_dest_env *)env)->computers;
	int rc = gw_crew_init(&c->crew);

	if (rc)
		return rc;
	c->begun = true;
	c->fn = fn;
	c->arg = arg;
	rc = gw_crew_start(&c->crew, gw_crew_cores(), run_computed, c);
	return rc ? rc : (int)c->crew.n;
}

static void op_compute_join(void *env)
{
	struct gw_dest_computers *c = &((struct gw_dest_env *)env)->computers;

	if (!c->begun)
		return;
	gw_crew_join(&c->crew);
	gw_crew_free(&c->crew);
	c->begun = false;
}

static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	struct gw_dest_env *e = env;

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
	struct gw_dest_env *e = env;
	struct timeval limit = { .tv_sec = GW_QMP_TIMEOUT_MS / 1000 };

	setsockopt(e->device, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	while (len) {
		ssize_t n = send(e->device, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/* QEMU ends on a state that it cannot load, and its log says why. */
		if (n < 0 &&
		    gw_process_ended(&e->vm.process, errno == EPIPE ? GW_DEST_ENDING_MS : 0))
			return gw_dest_ended(e);
		if (n < 0)
			return gw_fail(-EIO, "QEMU does not take its device state");
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

static int op_device_end(void *env, int64_t deadline)
{
	struct gw_dest_env *e = env;
	int rc;

	shutdown(e->device, SHUT_WR);
	rc = gw_qmp_wait_migration(e->qmp, "completed", deadline);
	/* A QEMU that ended says why in its log, better than its monitor did. */
	if ((rc == -EPIPE || rc == -EREMOTEIO) &&
	    gw_process_ended(&e->vm.process, GW_DEST_ENDING_MS / 4))
		return gw_dest_ended(e);
	return rc;
}

static int op_guest_resume(void *env)
{
	struct gw_dest_env *e = env;

	return gw_dest_because(e, gw_qmp_call(e->qmp, "cont", NULL, NULL));
}

/*
 * The VM lives on here, in a QEMU like any other (invariant 14): its migration
 * settings, and where it does not run yet its disks, which wait for that otherwise.
 */
void gw_dest_put_back(struct gw_dest_env *e)
{
	char status[32];

	if (!gw_qmp_status(e->qmp, status, sizeof(status)) && strcmp(status, "running") != 0 &&
	    gw_disks_activate(e->qmp))
		gw_warn("the disks of VM '%s' stay inactive until it runs: %s", e->vm.def.name,
			gw_error());
	gw_settings_put_back(e->qmp, &e->settings, e->vm.def.name);
	gw_storage_keep(e->w->paths, e->vm.def.name);
}

static enum gw_dest_ran op_guest_ran(void *env)
{
	/* With -incoming and -S; a guest that has run may be paused too, but then cont works. */
	static const char *const never[] = { "inmigrate", "prelaunch", "paused" };
	struct gw_dest_env *e = env;
	char status[32] = "";
	int rc;

	if (gw_process_ended(&e->vm.process, 0))
		return GW_DEST_RAN_GONE;
	/* Of a QEMU that waits for a page the monitor does, too. */
	if (!e->qmp && (e->d.page || e->keeper))
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_DEST_ENDING_MS * GW_MS);
	rc = e->qmp ? gw_qmp_status(e->qmp, status, sizeof(status)) : -EPIPE;
	if (rc == -EPIPE && gw_process_ended(&e->vm.process, GW_DEST_ENDING_MS))
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
	gw_process_end(&((struct gw_dest_env *)env)->vm.process, KILL_MS);
}

static int op_claim(void *env)
{
	struct gw_dest_env *e = env;
	struct gw_said said;
	int rc;

	if (!e->journal.peer[0])
		return 0;
	rc = gw_ask(e->journal.peer, GW_OPEN_CLAIM, e->journal.id, CLAIM_NS, &said);
	if (!rc && said.outcome == GW_OUTCOME_ABORTED)
		return gw_fail(-ECANCELED, "the source has the guest again: %s", said.text);
	if (!rc && said.outcome == GW_OUTCOME_RUNNING)
		return 0;
	/* It waits for our answer, so it has it stopped, whether or not we can call it. */
	if (e->asked)
		return 0;
	return rc ? gw_fail_prefix(rc, "whether its source still leaves it to this host is not "
				       "known: ")
		  : gw_fail(-EAGAIN, "its source does not know the migration any more: %s",
			    said.text);
}

static void op_guest_announce(void *env)
{
	struct gw_dest_env *e = env;

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
	struct gw_dest_env *e = env;

	if (e->lock < 0)
		return;
	/* One that hangs in the kernel never runs the guest again. */
	if (!gw_process_end(&e->vm.process, KILL_MS))
		gw_warn("QEMU (process %d) of VM '%s' was killed, and still hangs in the kernel",
			(int)e->vm.process.pid, e->vm.def.name);
	if (gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_ABORTED))
		gw_err("%s", gw_error());
	gw_dest_split_stop(e); /* and dismissed once the source has been told */
	/* Whatever failed, it may have said why. */
	if (!e->log_kept && !e->w->cancelled) {
		gw_autofree char *log = gw_qemu_log_keep(e->w->paths, e->vm.def.name);

		if (log)
			gw_info("what the QEMU of VM '%s' said here is in %s", e->vm.def.name, log);
	}
	/* Who died while it was committed may have said so of the images only. */
	if (e->journal.phase == GW_DEST_PHASE_RECEIVING)
		gw_storage_undo(e->w->paths, e->vm.def.name);
	gw_arrival_give_back(e->w->paths, &e->vm.def);
	if (gw_vm_remove(e->w->paths, &e->vm.def, false))
		gw_err("removing VM '%s': %s", e->vm.def.name, gw_error());
	close(e->lock);
	e->lock = -1;
}

static json_t *paging_status(const struct gw_page_status *p, uint64_t total)
{
	json_t *ram = json_pack("{s:I,s:I,s:I,s:I}", "total", (json_int_t)total, "remaining",
				(json_int_t)p->missing * (json_int_t)GW_PAGE_SIZE, "received",
				(json_int_t)p->received, "postcopy-requests",
				(json_int_t)p->faults[GW_FAULT_ALL]);

	gw_faults_json(p->faults, ram);
	return ram;
}

/* For `list`, and for whoever pages after us. */
static void note_lost(struct gw_dest_env *e)
{
	gw_copy_whole(e->journal.why, sizeof(e->journal.why), e->d.lost);
	if (e->lock >= 0 && gw_journal_save(e->w->paths, e->vm.def.name, &e->journal))
		gw_error_clear();
}

static void op_report(void *env)
{
	static const char *const names[] = {
		[GW_DEST_SETUP] = "setup",
		[GW_DEST_RECEIVING] = "active",
		[GW_DEST_LOADING] = "device",
		[GW_DEST_LOADED] = "device",
		[GW_DEST_PAGING] = "postcopy-active",
		[GW_DEST_PAUSED] = "postcopy-paused",
		[GW_DEST_RUNNING] = "completed",
		[GW_DEST_FAILED] = "failed",
	};
	struct gw_dest_env *e = env;
	struct gw_page_status p;
	const bool pages = gw_page_status(&e->d, &p);
	const bool keeps = e->keeper && e->d.state == GW_DEST_RUNNING;
	char lost[GW_ERROR_MAX] = "";

	if (pages && strcmp(e->journal.why, e->d.lost) != 0)
		note_lost(e);
	if (e->d.lost[0])
		gw_journal_gone_text(&e->journal, e->vm.def.name, lost, sizeof(lost));
	gw_worker_progress(e->w,
			   json_pack("{s:s,s:s,s:o*,s:s*}", "status",
				     keeps ? "split-active" : names[e->d.state], "incoming",
				     e->vm.def.name, "ram",
				     pages ? paging_status(&p, gw_memory_bytes(e->d.memory)) : NULL,
				     "error-desc", lost[0] ? lost : NULL));
}

const struct gw_dest_ops gw_dest_live_ops = {
	.now = op_now,
	.journal = gw_dest_journal,
	.prepare = gw_dest_prepare,
	.compared = op_compared,
	.compare_end = op_compare_end,
	.split = gw_dest_split,
	.disks = op_disks,
	.storage_sealed = gw_storage_sealed,
	.fetch = op_fetch,
	.fetch_end = op_fetch_end,
	.stream = op_stream,
	.spawn = op_spawn,
	.join = op_join,
	.compute = op_compute,
	.compute_join = op_compute_join,
	.wait = op_wait,
	.notify = gw_dest_notify,
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

struct gw_dest_env *gw_dest_env_new(struct gw_worker *w)
{
	struct gw_dest_env *e = calloc(1, sizeof(*e));
	int rc;

	if (!e) {
		gw_fail(-ENOMEM, "no memory for an arrival");
		return NULL;
	}
	e->w = w;
	e->lock = e->device = e->qemu = -1;
	gw_pages_init(&e->pages, w, &e->vm, &e->qmp, GW_VERSION);
	e->d.ops = &gw_dest_live_ops;
	e->d.env = e;
	e->d.page_ops = &gw_pages_ops;
	e->d.page_env = &e->pages;
	e->d.host = w->host;
	e->wake = epoll_create1(EPOLL_CLOEXEC);
	rc = e->wake < 0 ? gw_fail(-errno, "epoll: %s", strerror(errno)) : gw_crew_init(&e->crew);
	if (rc) {
		if (e->wake >= 0)
			close(e->wake);
		free(e);
		return NULL;
	}
	gw_dest_heed_fd(e, w->ctl);
	gw_dest_heed_fd(e, e->crew.event);
	return e;
}

void gw_dest_env_free(struct gw_dest_env *e)
{
	const int fds[] = { e->lock, e->device, e->qemu, e->wake };

	for (size_t i = 0; i < GW_ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	gw_fetch_close(e->fetch);
	gw_storage_here_free(e->storage);
	gw_replicas_close(&e->replicas);
	gw_dest_split_end(e, false);
	gw_pages_free(&e->pages);
	gw_qmp_close(e->qmp);
	json_decref(e->settings);
	gw_arrival_free(&e->arrival);
	gw_vm_free(&e->vm);
	gw_crew_free(&e->crew);
	gw_ram_close(&e->ram);
	free(e);
}
