// SPDX-License-Identifier: GPL-2.0-or-later
/* jobs.c - the daemon's view of its workers; see jobs.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "dest.h"
#include "error.h"
#include "io.h"
#include "jobs_internal.h"
#include "log.h"
#include "promise.h"
#include "worker.h"

/* Packets of a worker that are read at a time. */
#define PACKETS 64

#define STRANGERS_MAX 64

/* After the end of its packets a worker ends as soon as its memory is given back, or hangs. */
#define HANGS_NS (5 * GW_S)

/* Memory servers at a time. */
#define HOLDERS_MAX 1024

typedef int (*job_fn)(struct gw_worker *w, const json_t *args, json_t **result);

static const struct {
	const char *command;
	job_fn fn;
	bool migrates;
} commands[] = {
	{ "run", gw_worker_run_vm, false },	{ "attach", gw_worker_attach, false },
	{ "stop", gw_worker_stop_vm, false },	{ "list", gw_worker_list, false },
	{ "migrate", gw_worker_migrate, true }, { "recover", gw_worker_recover, false },
	{ "images", gw_worker_images, false },	{ "plan", gw_worker_plan, false },
	{ "check", gw_worker_check, false },	{ "page", gw_worker_page, true },
	{ "serve", gw_worker_serve, true },	{ "split", gw_worker_split, true },
	{ "merge", gw_worker_merge, false },	{ "held", gw_worker_held, false },
	{ "hosts", gw_worker_hosts, false },	{ "evacuate", gw_worker_evacuate, false },
};

bool gw_job_is(const struct gw_job *job, const char *command)
{
	return job->args && !strcmp(commands[job->command].command, command);
}

struct gw_jobs *gw_jobs_new(struct gw_loop *loop, const struct gw_paths *paths, const char *host)
{
	struct gw_jobs *jobs = calloc(1, sizeof(*jobs));

	if (!jobs)
		return NULL;
	jobs->loop = loop;
	jobs->paths = paths;
	jobs->host = host;
	jobs->last = json_object();
	jobs->care = gw_care_new(loop, paths);
	jobs->retries = json_object();
	return jobs;
}

void gw_job_free(struct gw_job *job)
{
	gw_loop_remove(job->jobs->loop, job->watch_pid);
	gw_loop_remove(job->jobs->loop, job->watch_ctl);
	if (job->pidfd >= 0)
		close(job->pidfd);
	if (job->ctl >= 0)
		close(job->ctl);
	if (job->file >= 0)
		close(job->file);
	while (job->cancellers) {
		struct canceller *c = job->cancellers;

		job->cancellers = c->next;
		free(c);
	}
	json_decref(job->result);
	json_decref(job->args);
	if (job->heir_of)
		gw_job_free(job->heir_of);
	free(job);
}

static void straggler_free(struct straggler *s)
{
	struct straggler **at = &s->jobs->stragglers;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	gw_loop_remove(s->jobs->loop, s->watch);
	if (s->pidfd >= 0)
		close(s->pidfd);
	free(s);
}

void gw_jobs_free(struct gw_jobs *jobs)
{
	while (jobs->list) {
		struct gw_job *job = jobs->list;

		jobs->list = job->next;
		gw_job_free(job);
	}
	while (jobs->stragglers)
		straggler_free(jobs->stragglers);
	gw_care_free(jobs->care);
	json_decref(jobs->last);
	json_decref(jobs->retries);
	free(jobs);
}

struct gw_job *gw_jobs_of(struct gw_jobs *jobs, const char *name)
{
	struct gw_job *found = NULL;

	for (struct gw_job *job = jobs->list; job; job = job->next)
		if (name[0] && !strcmp(job->name, name))
			found = job; /* the oldest: younger ones wait for it */
	return found;
}

static void note_progress(struct gw_job *job, json_t *status)
{
	const char *incoming = json_string_value(json_object_get(status, "incoming"));
	const char *is = json_string_value(json_object_get(status, "status")) ?: "";

	job->promised = job->promised || json_is_true(json_object_get(status, "promised"));
	/* An incoming worker learns its VM's name from the source. */
	if (job->incoming && incoming && !job->name[0])
		snprintf(job->name, sizeof(job->name), "%s", incoming);
	if (job->incoming) {
		job->paging = !strncmp(is, "postcopy-", 9);
		job->arrived = job->arrived || job->paging || !strcmp(is, "completed");
		/* One whose memory lies on several hosts: its guest runs, and who received it keeps
		 * it. */
		job->keeper = !strncmp(is, "split-", 6);
		job->incoming = !job->keeper;
	}
	job->serving = !job->incoming && !strncmp(is, "postcopy-", 9);
	job->splits = !strncmp(is, "split-", 6);
	job->interrupted = job->serving && !strcmp(is, "postcopy-paused");
	job->lost = (job->serving || job->paging) && json_object_get(status, "error-desc");
	if (job->migrates && job->name[0])
		json_object_set(job->jobs->last, job->name, status);
	if (job->client.on_progress)
		job->client.on_progress(job->client.arg, status);
	/* Who has asked its keeper for something waits. */
	for (const struct gw_job *one = job->jobs->list; job->splits && one; one = one->next)
		if (!one->pid && one->client.on_progress && !strcmp(one->name, job->name))
			one->client.on_progress(one->client.arg, status);
}

static void on_ctl(void *arg)
{
	struct gw_job *job = arg;

	/* So many at a time: one worker must not keep the daemon from the others. */
	for (int i = 0; i < PACKETS; i++) {
		json_t *json, *status;
		int fd, rc = gw_ctl_recv(job->ctl, &json, &fd);

		if (fd >= 0)
			close(fd);
		if (rc == -EPIPE) {
			gw_loop_remove(job->jobs->loop, job->watch_ctl);
			job->watch_ctl = NULL;
			job->closed = gw_now();
		}
		if (rc)
			return;
		status = json_object_get(json, "progress");
		if (status)
			note_progress(job, status);
		gw_job_heed_answer(job, json);
		if (json_is_true(json_object_get(json, "late"))) {
			job->late = true;
			gw_job_answer_cancellers(job, gw_job_too_late(job));
		}
		json_decref(json);
	}
}

static void on_worker_end(void *arg)
{
	struct gw_job *job = arg;
	int status = 0;

	/* Readable means ended, so this does not wait; and it must not, whatever comes. */
	if (waitpid(job->pid, &status, WNOHANG) == 0)
		return;
	while (job->watch_ctl)
		on_ctl(job); /* its last words, and then the end */
	gw_job_end(job, status);
}

static void on_straggler_end(void *arg)
{
	struct straggler *s = arg;

	if (waitpid(s->pid, NULL, WNOHANG) != 0)
		straggler_free(s);
}

/* Somebody has to wait for the process of @job, which is none of its business any more. */
static int leave_behind(const struct gw_job *job)
{
	struct straggler *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->jobs = job->jobs;
	s->pid = job->pid;
	s->pidfd = fcntl(job->pidfd, F_DUPFD_CLOEXEC, 0);
	s->watch = s->pidfd < 0 ? NULL : gw_loop_add(s->jobs->loop, s->pidfd, on_straggler_end, s);
	s->next = s->jobs->stragglers;
	s->jobs->stragglers = s;
	if (s->watch)
		return 0;
	straggler_free(s);
	return -EAGAIN;
}

static struct gw_job *hanging_job(const struct gw_jobs *jobs)
{
	for (struct gw_job *job = jobs->list; job; job = job->next)
		if (job->closed && gw_now() - job->closed > HANGS_NS && job->pidfd >= 0)
			return job;
	return NULL;
}

void gw_jobs_unhang(struct gw_jobs *jobs)
{
	struct gw_job *job;

	while ((job = hanging_job(jobs))) {
		json_t *result = gw_worker_result_load(job->file);

		/* Without one it is not at its end: whoever kills it waits for that. */
		job->closed = 0;
		if (result && !leave_behind(job)) {
			gw_warn("process %d of VM '%s' has done its work and does not end, as if "
				"some storage did not answer",
				(int)job->pid, job->name);
			gw_job_end(job, 0);
		}
		json_decref(result);
	}
}

/* In the worker: everything of the daemon's is closed but what it was given. */
static void become_worker(const struct gw_worker *w, const char *what, const char *name, int conn)
{
	gw_autofree char *who = gw_path("godwitd[%s%s%s]", what, name[0] ? " " : "", name);
	sigset_t none;

	gw_log_rename(who);
	gw_close_all_but((const int[]){ w->ctl, w->result, conn }, 3);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Ctrl-C on a daemon in the foreground is not meant for its migrations. */
	setsid();
}

static _Noreturn void worker_end(struct gw_worker *w, int rc, json_t *result)
{
	json_t *last = rc ? json_pack("{s:s}", "error", gw_error())
			  : json_pack("{s:o?}", "return", result);

	if (rc && result)
		json_object_set_new(last, "status", result);
	if (gw_worker_result(w, last))
		gw_err("the result cannot be told: %s", gw_error());
	/*
	 * A thread that hangs in storage keeps the process until that answers. Not what is open,
	 * locks above all, and the daemon sees that this is the end (gw_jobs_unhang()).
	 */
	gw_close_all_but(NULL, 0);
	_exit(rc ? 1 : 0);
}

/* A listed job, without a process yet. NULL with a message. */
static struct gw_job *new_job(struct gw_jobs *jobs, const char *name)
{
	struct gw_job *job = calloc(1, sizeof(*job));

	if (!job) {
		gw_fail(-ENOMEM, "no memory for another job");
		return NULL;
	}
	job->jobs = jobs;
	job->pidfd = job->ctl = job->file = -1;
	job->began = gw_now();
	snprintf(job->name, sizeof(job->name), "%s", name);
	job->next = jobs->list;
	jobs->list = job;
	gw_care_wake(jobs->care, name);
	return job;
}

void gw_job_unlist(struct gw_job *job)
{
	struct gw_job **at = &job->jobs->list;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	gw_care_wake(job->jobs->care, job->name);
}

/* The VMs that are put right now, for who looks at them from a worker. */
static json_t *recovering(const struct gw_jobs *jobs)
{
	json_t *names = json_object();

	for (const struct gw_job *job = jobs->list; job; job = job->next)
		if (job->recovers && job->pid)
			json_object_set_new(names, job->name, json_true());
	return names;
}

/*
 * Fork @job's worker. Return: 1 in the worker, with @w ready; 0 in the daemon;
 * -errno if there is none.
 */
static int spawn(struct gw_job *job, struct gw_worker *w, const char *what, int keep)
{
	struct gw_jobs *jobs = job->jobs;
	int pair[2];

	job->file = memfd_create("godwit-result", MFD_CLOEXEC);
	if (job->file < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return gw_fail(-errno, "cannot start a worker: %s", strerror(errno));
	job->pid = fork();
	if (job->pid == 0) {
		*w = (struct gw_worker){ .paths = jobs->paths,
					 .host = jobs->host,
					 .ctl = pair[1],
					 .result = job->file,
					 .recovering = recovering(jobs) };
		become_worker(w, what, job->name, keep);
		return 1;
	}
	close(pair[1]);
	job->ctl = pair[0];
	if (job->pid > 0)
		job->pidfd = (int)syscall(SYS_pidfd_open, job->pid, 0);
	if (job->pidfd >= 0)
		job->watch_pid = gw_loop_add(jobs->loop, job->pidfd, on_worker_end, job);
	job->watch_ctl = gw_loop_add(jobs->loop, job->ctl, on_ctl, job);
	if (job->watch_pid && job->watch_ctl)
		return 0;
	if (job->pid > 0) {
		kill(job->pid, SIGKILL);
		waitpid(job->pid, NULL, 0);
	}
	return gw_fail(-EAGAIN, "cannot start a worker");
}

/* Start the worker of a job of the control socket. 0 or -errno. */
static int launch(struct gw_job *job)
{
	struct gw_worker w;
	json_t *result = NULL;
	int rc = spawn(job, &w, commands[job->command].command, -1);

	if (rc <= 0)
		return rc;
	rc = commands[job->command].fn(&w, job->args, &result);
	worker_end(&w, rc, result);
}

void gw_jobs_next(struct gw_jobs *jobs, const char *name)
{
	struct gw_job *next = gw_jobs_of(jobs, name);
	json_t *result;

	if (!next || next->pid || !launch(next))
		return;
	result = json_pack("{s:s}", "error", gw_error());
	gw_job_unlist(next);
	if (next->client.on_end)
		next->client.on_end(next->client.arg, result);
	json_decref(result);
	gw_job_free(next);
}

/* Of a VM whose memory is lost: what became of it. */
static int tell_lost(const struct gw_job *job)
{
	const json_t *status = json_object_get(job->jobs->last, job->name);

	return gw_fail(-EBUSY, "%s", json_string_value(json_object_get(status, "error-desc")));
}

static int refuse_paging(const struct gw_job *job)
{
	return job->lost ? tell_lost(job)
			 : gw_fail(-EBUSY,
				   "VM '%s' is busy: it runs here, and some of its memory is still "
				   "to come; 'godwit status %s' shows how much",
				   job->name, job->name);
}

/* What is served is settled only where nobody can be reached any more, and by order. */
static int give_up(const struct gw_job *job, const json_t *args)
{
	const char *wish = json_string_value(json_object_get(args, "outcome")) ?: "";

	if (job->lost && strcmp(wish, "discard") != 0)
		return tell_lost(job);
	if (!job->lost && (!job->interrupted || !json_is_true(json_object_get(args, "confirm"))))
		return gw_fail(-EBUSY,
			       "VM '%s' runs at its destination, and some of its memory is only "
			       "here, so it is neither resumed nor discarded; 'godwit status %s' "
			       "shows how much is left. %s",
			       job->name, job->name,
			       job->interrupted
				       ? "Its host cannot be reached now, and is called until it "
					 "can. If that will never be again, use --discard --confirm"
				       : "That ends by itself");
	return gw_ctl_send(job->ctl, json_pack("{s:b}", "give-up", 1), -1)
		       ? gw_fail(-EBUSY, "the worker of VM '%s' does not listen; try again",
				 job->name)
		       : 0;
}

/* What can be done to a VM whose memory is at other hosts, its keeper does. */
static int ask_keeper(const struct gw_job *keeper, job_fn fn, const json_t *args)
{
	json_t *ask = fn == gw_worker_stop_vm	 ? json_pack("{s:b}", "stop", 1)
		      : fn == gw_worker_migrate	 ? json_pack("{s:b}", "yield", 1)
		      : fn == gw_worker_merge	 ? json_pack("{s:b}", "merge", 1)
		      : fn == gw_worker_evacuate ? json_pack("{s:O}", "evacuate", args)
						 : NULL;

	if (!ask)
		return gw_fail(-EBUSY,
			       "some memory of VM '%s' is at other hosts, where 'godwit status %s' "
			       "says: bring it back with 'godwit merge %s' before",
			       keeper->name, keeper->name, keeper->name);
	json_object_set_new((json_t *)(uintptr_t)args, "waited", json_true());
	return gw_ctl_send(keeper->ctl, ask, -1)
		       ? gw_fail(-EBUSY, "the worker of VM '%s' does not listen; try again",
				 keeper->name)
		       : 0;
}

static struct gw_job *holder_of(struct gw_jobs *jobs, const uint8_t id[GW_ID_LEN])
{
	for (struct gw_job *job = jobs->list; job; job = job->next)
		if (job->holds && !memcmp(job->id, id, GW_ID_LEN))
			return job;
	return NULL;
}

/* What is to be dropped has a keeper, perhaps, which leaves unless it is in use. */
static void free_held(struct gw_jobs *jobs, const json_t *args)
{
	const char *text = json_string_value(json_object_get(args, "drop"));
	uint8_t id[GW_ID_LEN];
	const struct gw_job *job = text && !gw_id_parse(text, id) ? holder_of(jobs, id) : NULL;

	if (job && gw_ctl_send(job->ctl, json_pack("{s:b}", "stop", 1), -1))
		gw_debug("a memory server does not listen"); /* and holds its lock */
}

/*
 * Who is asked for in the moments in which another godwitd's keeper gives way has one of ours,
 * which waits for that. One whose migration is to be put right first has none.
 */
static struct gw_job *keeper_for(struct gw_jobs *jobs, job_fn fn, const char *name)
{
	struct gw_job *keeper = NULL;
	struct gw_journal j;
	struct gw_vm vm;

	if ((fn != gw_worker_merge && fn != gw_worker_migrate && fn != gw_worker_evacuate) ||
	    !gw_journal_load(jobs->paths, name, &j) || gw_vm_load(jobs->paths, name, &vm)) {
		gw_error_clear();
		return NULL;
	}
	gw_error_clear();
	if (vm.split && gw_process_alive(&vm.process))
		keeper = gw_jobs_keep_split(jobs, name);
	gw_vm_free(&vm);
	return keeper;
}

struct gw_job *gw_jobs_start(struct gw_jobs *jobs, const char *command, const json_t *args,
			     struct gw_job_client client)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_job *job, *busy;
	bool given_up;
	size_t i;

	for (i = 0; i < GW_ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].command, command))
			break;
	if (i == GW_ARRAY_SIZE(commands) ||
	    ((commands[i].fn == gw_worker_page || commands[i].fn == gw_worker_serve) &&
	     client.on_end)) {
		gw_fail(-EINVAL, "unknown command '%s'", command);
		return NULL;
	}
	if (commands[i].fn == gw_worker_held)
		free_held(jobs, args);
	if (commands[i].fn == gw_worker_list || commands[i].fn == gw_worker_images ||
	    commands[i].fn == gw_worker_held || commands[i].fn == gw_worker_hosts)
		name = "";
	else if (!gw_name_ok(name))
		return NULL;
	busy = gw_jobs_of(jobs, name) ?: keeper_for(jobs, commands[i].fn, name);
	if (busy && busy->paging) {
		/* The one thing that can be done to it, and its keeper does it. */
		if (commands[i].fn != gw_worker_stop_vm ||
		    gw_ctl_send(busy->ctl, json_pack("{s:b}", "stop", 1), -1)) {
			refuse_paging(busy);
			return NULL;
		}
	}
	if (busy && busy->splits && ask_keeper(busy, commands[i].fn, args))
		return NULL;
	given_up = busy && busy->serving && commands[i].fn == gw_worker_recover;
	if (given_up && give_up(busy, args))
		return NULL;
	if (busy && !given_up && !busy->splits &&
	    (!busy->pid || (busy->migrates && !busy->arrived))) {
		gw_fail(-EBUSY, "VM '%s' is busy: %s of it is under way%s", name,
			busy->migrates ? "a migration" : "another operation",
			busy->migrates ? "; see 'godwit status', or end it with 'godwit cancel'"
				       : "; try again");
		return NULL;
	}
	job = new_job(jobs, name);
	if (!job)
		return NULL;
	job->client = client;
	job->command = i;
	job->args = json_incref((json_t *)(uintptr_t)args);
	job->migrates = commands[i].migrates;
	job->recovers = commands[i].fn == gw_worker_recover;
	if (job->migrates)
		json_object_del(jobs->last, name);
	/* What is under way takes moments: the job that follows waits for its end. */
	if (!busy && launch(job)) {
		gw_job_unlist(job);
		gw_job_free(job);
		return NULL;
	}
	return job;
}

/* Arrivals of which nothing is known yet: anybody can begin one. */
static unsigned int strangers(const struct gw_jobs *jobs)
{
	unsigned int n = 0;

	for (const struct gw_job *job = jobs->list; job; job = job->next)
		n += job->incoming && !job->name[0];
	return n;
}

int gw_jobs_receive(struct gw_jobs *jobs, int conn, const struct gw_open *open, uint16_t version)
{
	struct gw_worker w;
	struct gw_job *job;
	int rc;

	if (strangers(jobs) >= STRANGERS_MAX)
		return gw_fail(-EAGAIN,
			       "%d migrations begin on host '%s' at this moment; try again",
			       STRANGERS_MAX, jobs->host);
	job = new_job(jobs, "");
	if (!job)
		return -ENOMEM;
	job->incoming = job->migrates = true;
	memcpy(job->id, open->id, GW_ID_LEN);
	rc = spawn(job, &w, "in", conn);
	if (rc > 0) {
		rc = gw_worker_receive(&w, conn, open, version);
		if (rc)
			gw_warn("incoming migration failed: %s", gw_error());
		worker_end(&w, rc, rc ? NULL : json_pack("{s:s}", "status", "completed"));
	}
	if (rc) {
		gw_job_unlist(job);
		gw_job_free(job);
		return rc;
	}
	close(conn);
	return 0;
}

struct gw_job *gw_jobs_incoming(struct gw_jobs *jobs, const uint8_t id[GW_ID_LEN])
{
	for (struct gw_job *job = jobs->list; job; job = job->next)
		if (job->incoming && !memcmp(job->id, id, GW_ID_LEN))
			return job;
	return NULL;
}

int gw_jobs_stream(struct gw_jobs *jobs, int conn, const struct gw_open *open)
{
	struct gw_job *job = gw_jobs_incoming(jobs, open->id);
	int rc;

	if (!job)
		return gw_fail(-ENOENT, "a stream for a migration that is not under way");
	/* A migration has as many at most, so more are somebody's mischief. */
	if (job->streams == GW_DEST_STREAMS_MAX)
		return gw_fail(-E2BIG, "more than %d streams for one migration",
			       GW_DEST_STREAMS_MAX);
	rc = gw_ctl_send(job->ctl, json_pack("{s:i}", "stream", (int)open->stream), conn);
	if (rc)
		return gw_fail(rc, "that migration does not take its streams now");
	job->streams++;
	close(conn);
	return 0;
}

/* Hand @conn on to whoever receives migration @open->id, as its @word; @what: for people. */
static int hand_on(struct gw_jobs *jobs, int conn, const struct gw_open *open, const char *word,
		   const char *what)
{
	struct gw_job *job = gw_jobs_incoming(jobs, open->id);
	int rc;

	if (!job)
		return gw_fail(-ENOENT, "%s for a migration that is not under way", what);
	rc = gw_ctl_send(job->ctl, json_pack("{s:i}", word, (int)open->stream), conn);
	if (rc)
		return gw_fail(rc, "that migration does not take its connections now");
	close(conn);
	return 0;
}

int gw_jobs_paging(struct gw_jobs *jobs, int conn, const struct gw_open *open)
{
	return hand_on(jobs, conn, open, "paging", "pages");
}

int gw_jobs_storage(struct gw_jobs *jobs, int conn, const struct gw_open *open)
{
	return hand_on(jobs, conn, open, "storage", "disks");
}

/* Another memory server, for who has connection 0. */
static int start_holder(struct gw_jobs *jobs, int conn, const struct gw_open *open,
			uint16_t version)
{
	unsigned int new = 0, all = 0;
	struct gw_worker w;
	struct gw_job *job;
	int rc;

	for (job = jobs->list; job; job = job->next) {
		new += job->holds && !job->promised;
		all += job->holds;
	}
	if (new >= STRANGERS_MAX || all >= HOLDERS_MAX)
		return gw_fail(-EAGAIN, "host '%s' serves memory to too many VMs; try again",
			       jobs->host);
	job = new_job(jobs, "");
	if (!job)
		return -ENOMEM;
	job->holds = true;
	memcpy(job->id, open->id, GW_ID_LEN);
	rc = spawn(job, &w, "hold", conn);
	if (rc > 0)
		worker_end(&w, gw_worker_hold(&w, conn, open, version), NULL);
	if (rc) {
		gw_job_unlist(job);
		gw_job_free(job);
		return rc;
	}
	close(conn);
	return 0;
}

int gw_jobs_hold(struct gw_jobs *jobs, int conn, const struct gw_open *open, uint16_t version)
{
	const struct gw_job *job = holder_of(jobs, open->id);
	char id[GW_ID_TEXT];
	struct gw_promise promise;
	int rc = 0;

	gw_id_format(open->id, id);
	if (version < 2 || open->stream >= GW_MEMORY_CONNECTIONS)
		return gw_fail(-EPROTO, "connection %u to a memory server", open->stream);
	if (!job && open->stream != GW_MEMORY_REQUESTS)
		return gw_fail(-ENOENT, "a connection to what is not held here at this moment");
	/* What was promised is kept, whatever the limit is now. */
	if (!job && gw_promise_load(jobs->paths, id, &promise))
		rc = gw_budget_serves(jobs->paths, jobs->host);
	if (rc)
		return rc;
	if (!job)
		return start_holder(jobs, conn, open, version);
	rc = gw_ctl_send(job->ctl, json_pack("{s:i}", "paging", (int)open->stream), conn);
	if (rc)
		return gw_fail(rc, "that memory server does not take its connections now");
	close(conn);
	return 0;
}

struct gw_job *gw_jobs_keep(struct gw_jobs *jobs, const char *name, const struct gw_journal *j,
			    bool asked, bool forbid)
{
	json_t *args = json_pack("{s:s,s:b,s:b}", "name", name, "asked", asked, "forbid", forbid);
	const bool arrives = j->role == GW_ROLE_DEST;
	struct gw_job *job = gw_jobs_start(jobs, arrives ? "page" : "serve", args,
					   (struct gw_job_client){ 0 });

	json_decref(args);
	if (!job)
		return NULL;
	job->keeper = true;
	job->incoming = job->arrived = job->paging = arrives;
	job->asked = asked;
	job->forbids = forbid;
	memcpy(job->id, j->id, GW_ID_LEN);
	return job;
}

struct gw_job *gw_jobs_keep_split(struct gw_jobs *jobs, const char *name)
{
	json_t *args = json_pack("{s:s,s:b}", "name", name, "resumed", 1);
	struct gw_job *job = gw_jobs_start(jobs, "split", args, (struct gw_job_client){ 0 });

	json_decref(args);
	if (job)
		job->keeper = job->splits = true;
	return job;
}

int gw_jobs_retry(struct gw_jobs *jobs, const char *name)
{
	const struct gw_job *job = gw_jobs_of(jobs, name);

	if (!job || !job->serving || gw_ctl_send(job->ctl, json_pack("{s:b}", "retry", 1), -1))
		return -ENOENT;
	return job->lost ? -ENOENT : 0;
}

json_t *gw_jobs_status(struct gw_jobs *jobs, const char *name)
{
	return json_incref(json_object_get(jobs->last, name));
}

static void start_images(struct gw_jobs *jobs, const char *action)
{
	json_t *args = json_pack("{s:s}", "action", action);

	if (!gw_jobs_start(jobs, "images", args, (struct gw_job_client){ 0 }))
		gw_warn("kept images: %s", gw_error());
	json_decref(args);
}

void gw_jobs_tidy(struct gw_jobs *jobs)
{
	start_images(jobs, "gc");
}

void gw_jobs_relieve(struct gw_jobs *jobs)
{
	start_images(jobs, "yield");
}
