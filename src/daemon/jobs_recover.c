// SPDX-License-Identifier: GPL-2.0-or-later
/* jobs_recover.c - what workers left to be put right, and what became of migrations; see jobs.h. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "frame.h"
#include "io.h"
#include "jobs_internal.h"
#include "log.h"
#include "peers.h"
#include "qemu_log.h"
#include "dest.h"
#include "source.h"

/* A source asks for 40 s (worker_recover.c): it is to hear something by then. */
#define SETTLE_NS (30 * GW_S)

/* Between two tries to put a VM right, in seconds: 1, 2, 4, ... */
#define RETRY_MOST 30

/* Keepers that die at once, one after the other, before the next has to wait. */
#define KEEPERS_AT_ONCE 3

static void say_all(int conn, unsigned int type, uint64_t arg, const char *text, size_t len)
{
	struct gw_transport *t = gw_peer_accept(conn);

	if (t && gw_frame_send_buf(t, type, arg, text, len))
		gw_error_clear();
	gw_transport_close(&t);
}

static void say(int conn, unsigned int type, uint64_t arg, const char *text)
{
	say_all(conn, type, arg, text, strlen(text));
}

static void answer(int conn, enum gw_outcome outcome)
{
	static const char *const texts[] = {
		[GW_OUTCOME_UNKNOWN] = "nothing is known here of that migration; this host may "
				       "have been booted since",
		[GW_OUTCOME_ABORTED] = "the guest never ran here and never will",
		[GW_OUTCOME_RUNNING] = "the guest was resumed here",
		[GW_OUTCOME_LOST] = "the guest was committed to this host, but its QEMU is gone",
		[GW_OUTCOME_PAGING] = "the guest runs here, and waits for memory that its source "
				      "still has",
		[GW_OUTCOME_ENDED] = "the guest ran here, and its QEMU ended before all of its "
				     "memory had come",
	};

	say(conn, GW_MSG_SETTLED, outcome, texts[outcome]);
}

/* There is no trace of it, and whose word that is. */
static void answer_nothing(struct gw_jobs *jobs, int conn)
{
	static const char text[] = "nothing is known here of that migration; this host may have "
				   "been booted since";
	gw_autofree char *all = gw_path("%s%c%s", text, '\0', jobs->host);

	say_all(conn, GW_MSG_SETTLED, GW_OUTCOME_UNKNOWN, all, sizeof(text) + strlen(jobs->host));
}

/* The VM of migration @id at this end of it, and its journal. False: there is none. */
static bool find_journal(struct gw_jobs *jobs, const uint8_t id[GW_ID_LEN], enum gw_role role,
			 char name[GW_NAME_MAX], struct gw_journal *j)
{
	gw_autofree char *path = gw_path("%s/vm", jobs->paths->run);
	DIR *dir = opendir(path);
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		found = e->d_name[0] != '.' && strlen(e->d_name) < GW_NAME_MAX &&
			!gw_journal_load(jobs->paths, e->d_name, j) && j->role == role &&
			!memcmp(j->id, id, GW_ID_LEN);
		if (found)
			snprintf(name, GW_NAME_MAX, "%.*s", GW_NAME_MAX - 1, e->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/*
 * It cannot be settled now. Said only once it is written down, under the VM's lock:
 * nobody is just about to resume it, and whoever comes next reads it first.
 */
static void answer_unknown(struct gw_jobs *jobs, const struct settle *s, const char *name)
{
	gw_autofd int lock = gw_vm_lock(jobs->paths, name);

	if (lock < 0 || gw_settled_save(jobs->paths, s->id, GW_OUTCOME_UNKNOWN))
		say(s->conn, GW_MSG_ERROR, 0,
		    "what became of the guest is still being found out there; try again");
	else
		say(s->conn, GW_MSG_SETTLED, GW_OUTCOME_UNKNOWN,
		    "the guest was committed to this host, and its QEMU does not answer");
}

/* Whether VM @name, whose journal is @j, has memory that is still to come. */
static bool pages(struct gw_jobs *jobs, const char *name, const struct gw_journal *j)
{
	struct gw_vm vm;
	bool is;

	if (j->role != GW_ROLE_DEST || j->phase == GW_DEST_PHASE_RECEIVING ||
	    gw_vm_load(jobs->paths, name, &vm))
		return false;
	is = vm.watch.mode == GW_WATCH_PAGING && gw_process_alive(&vm.process);
	gw_vm_free(&vm);
	return is;
}

/* The guest of @id runs here, and its memory is not here yet: that is all there is to say. */
static bool answer_paging(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN])
{
	char name[GW_NAME_MAX];
	struct gw_journal j;

	if (!find_journal(jobs, id, GW_ROLE_DEST, name, &j) || j.phase != GW_DEST_PHASE_RUNNING ||
	    !pages(jobs, name, &j))
		return false;
	answer(conn, GW_OUTCOME_PAGING);
	return true;
}

static struct gw_job *start_recovery(struct gw_jobs *jobs, const char *name, const struct settle *s)
{
	json_t *args = json_pack("{s:s,s:b,s:b}", "name", name, "asked", s != NULL, "forbid",
				 s && s->forbid);
	struct gw_journal j;
	struct gw_job *job;

	if (!gw_journal_load(jobs->paths, name, &j) &&
	    (pages(jobs, name, &j) || (j.role == GW_ROLE_SOURCE && j.phase == GW_SOURCE_SERVING)))
		job = gw_jobs_keep(jobs, name, &j, s != NULL, s && s->forbid);
	else
		job = gw_jobs_start(jobs, "recover", args, (struct gw_job_client){ 0 });
	if (!job)
		gw_err("VM '%s': %s", name, gw_error());
	json_decref(args);
	if (job && s) {
		job->asked = true;
		job->forbids = s->forbid;
	}
	return job;
}

/* Whether @s has to wait on; otherwise it has been answered. */
static bool waits(struct gw_jobs *jobs, struct settle *s)
{
	const bool late = gw_now() > s->deadline;
	char name[GW_NAME_MAX];
	struct gw_journal j;

	if (answer_paging(jobs, s->conn, s->id))
		return false;
	if (gw_jobs_incoming(jobs, s->id) && !late)
		return true; /* it has been killed */
	if (!find_journal(jobs, s->id, GW_ROLE_DEST, name, &j)) {
		if (gw_settled_any(jobs->paths, s->id))
			answer(s->conn, gw_settled_load(jobs->paths, s->id));
		else
			answer_nothing(jobs, s->conn);
		return false;
	}
	if (s->tried || late) {
		answer_unknown(jobs, s, name);
		return false;
	}
	/* What is at it for another reason ends soon; then it is our turn. */
	if (!gw_jobs_of(jobs, name) && !start_recovery(jobs, name, s))
		s->tried = true;
	return true;
}

void gw_jobs_answer_settles(struct gw_jobs *jobs)
{
	struct settle **at = &jobs->settles;

	while (*at) {
		struct settle *s = *at;

		if (waits(jobs, s)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		free(s);
	}
}

void gw_jobs_settle(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN], bool forbid)
{
	struct settle *s;
	struct gw_job *job = gw_jobs_incoming(jobs, id);

	/* Its keeper lives on: nothing that is asked changes how the guest stands. */
	if (answer_paging(jobs, conn, id))
		return;
	s = calloc(1, sizeof(*s));
	if (!s) {
		close(conn);
		return;
	}
	s->conn = conn;
	s->forbid = forbid;
	s->deadline = gw_now() + SETTLE_NS;
	memcpy(s->id, id, GW_ID_LEN);
	s->next = jobs->settles;
	jobs->settles = s;
	if (job)
		kill(job->pid, SIGKILL); /* its end continues in on_worker_end() */
	gw_jobs_answer_settles(jobs);
}

void gw_jobs_claim(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN])
{
	char name[GW_NAME_MAX];
	struct gw_journal j;

	if (gw_settled_load(jobs->paths, id) == GW_OUTCOME_ABORTED)
		say(conn, GW_MSG_SETTLED, GW_OUTCOME_ABORTED, "it was resumed at its source");
	else if (!find_journal(jobs, id, GW_ROLE_SOURCE, name, &j))
		answer(conn, GW_OUTCOME_UNKNOWN);
	else if (j.phase == 0)
		say(conn, GW_MSG_SETTLED, GW_OUTCOME_ABORTED, "it belongs to its source");
	else
		say(conn, GW_MSG_SETTLED, GW_OUTCOME_RUNNING, "it was left to the destination");
}

static json_int_t retry_field(const struct gw_jobs *jobs, const char *name, const char *field)
{
	return json_integer_value(json_object_get(json_object_get(jobs->retries, name), field));
}

/* Try again at @at (ns). What is new about it is logged. */
static void retry(struct gw_jobs *jobs, const char *name, json_int_t tries, int64_t at,
		  const char *why)
{
	const json_t *before = json_object_get(jobs->retries, name);
	const char *said = json_string_value(json_object_get(before, "why"));

	if (!said || strcmp(said, why) != 0)
		gw_err("VM '%s': %s", name, why);
	json_object_set_new(
		jobs->retries, name,
		json_pack("{s:I,s:I,s:s}", "tries", tries, "at", (json_int_t)at, "why", why));
}

void gw_jobs_tried(struct gw_jobs *jobs, const struct gw_job *job)
{
	const char *why = json_string_value(json_object_get(job->result, "error"));
	const json_int_t tries = retry_field(jobs, job->name, "tries");
	/* A guest waits for a keeper: the first ones follow at once. */
	const json_int_t step = job->keeper ? tries - KEEPERS_AT_ONCE : tries;
	const json_int_t pause = step < 0 ? 0 : step < 5 ? 1 << step : RETRY_MOST;

	retry(jobs, job->name, tries + 1, gw_now() + pause * GW_S, why ? why : "no reason");
	for (struct settle *s = job->asked ? jobs->settles : NULL; s; s = s->next) {
		char name[GW_NAME_MAX];
		struct gw_journal j;

		if (find_journal(jobs, s->id, GW_ROLE_DEST, name, &j) && !strcmp(name, job->name) &&
		    (job->forbids || !s->forbid))
			s->tried = true;
	}
}

/* A VM whose QEMU ended by itself: a guest's power-off, or a crash. */
static void bury(struct gw_jobs *jobs, struct gw_vm *vm)
{
	gw_autofree char *log = gw_qemu_log_keep(jobs->paths, vm->def.name);
	gw_autofree char *said = log ? gw_qemu_said(jobs->paths, jobs->host, vm->def.name) : NULL;

	gw_info("VM '%s' has ended%s%s", vm->def.name, said ? ". " : "", said ? said : "");
	if (gw_vm_remove(jobs->paths, &vm->def, vm->attached))
		gw_err("%s", gw_error());
}

/* A folder without a VM. */
static void remove_left(struct gw_jobs *jobs, const char *name)
{
	struct gw_definition def = { .nr_memory = 0 };

	snprintf(def.name, sizeof(def.name), "%s", name);
	if (gw_vm_remove(jobs->paths, &def, true))
		gw_err("%s", gw_error());
}

/*
 * A worker that was killed between starting QEMU and recording it leaves a QEMU
 * that nobody was told of. True: it was there, and has been told to end.
 */
static bool launched_unrecorded(const char *dir, const struct gw_vm *vm)
{
	struct gw_process process;
	gw_autofd int fd = -1;

	if (vm->process.pid)
		return false;
	if (gw_launch_find(dir, &process) || !gw_process_alive(&process)) {
		gw_error_clear();
		return false;
	}
	fd = gw_process_open(&process);
	return fd >= 0 && !syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
}

/* Whether a worker may just be making a folder, before it has told its VM's name. */
static bool arriving(const struct gw_jobs *jobs)
{
	for (const struct gw_job *job = jobs->list; job; job = job->next)
		if (job->incoming && !job->name[0])
			return true;
	return false;
}

static void look_after(struct gw_jobs *jobs, const char *name)
{
	const bool due = gw_now() >= retry_field(jobs, name, "at");
	gw_autofree char *dir = gw_vm_dir(jobs->paths, name);
	gw_autofree char *record = gw_path("%s/vm.json", dir);
	bool moving, ended, serves, spreads;
	struct gw_journal j;
	struct gw_vm vm;
	gw_autofd int lock = -1;
	int rc;

	if (gw_jobs_of(jobs, name) || (arriving(jobs) && access(record, F_OK)))
		return;
	lock = gw_vm_lock(jobs->paths, name);
	if ((lock == -EPERM || lock == -ELOOP) && due)
		retry(jobs, name, 0, gw_now() + RETRY_MOST * GW_S, gw_error());
	if (lock < 0)
		return; /* as a rule a worker of an earlier godwitd is still at it */
	moving = !gw_journal_load(jobs->paths, name, &j);
	rc = gw_vm_load(jobs->paths, name, &vm);
	ended = !rc && !gw_process_alive(&vm.process);
	/*
	 * A dead QEMU leaves nothing to settle, but an arrival's outcome is written down.
	 * A source without vm.json was in removal. What is served needs no QEMU, nor what may be;
	 * and what was lost is told of until its user has settled it.
	 */
	serves = moving && !rc && j.role == GW_ROLE_SOURCE &&
		 (j.phase == GW_SOURCE_SERVING || j.phase == GW_SOURCE_GONE ||
		  (j.phase == GW_SOURCE_COMMITTING && j.paging));
	/* Sub-hosts may hold a part of what moved, until they are told. */
	spreads = moving && ended && j.role == GW_ROLE_SOURCE && j.phase == GW_SOURCE_MOVING &&
		  j.split_to[0];
	if (moving && (j.role == GW_ROLE_DEST || serves || spreads || (!ended && rc != -ENOENT))) {
		close(gw_steal_fd(&lock));
		/*
		 * In doubt, the user decides; but where the guest may run there and wait for its
		 * memory, the destination is asked, as the worker would have.
		 */
		if (due && (j.role == GW_ROLE_DEST ||
			    (j.phase == GW_SOURCE_COMMITTING ? j.paging > 0
							     : j.phase != GW_SOURCE_GONE))) {
			if (!retry_field(jobs, name, "tries"))
				gw_info("VM '%s': putting an interrupted migration right", name);
			start_recovery(jobs, name, NULL);
		}
	} else if (!rc && vm.split && !(moving && j.phase != GW_SOURCE_MOVING)) {
		/* Where its QEMU has ended others hold its memory still, until they are told. What
		 * they hold of one that has left is its destination's. */
		close(gw_steal_fd(&lock));
		if (due && !gw_jobs_keep_split(jobs, name))
			gw_err("VM '%s': %s", name, gw_error());
	} else if (ended && !launched_unrecorded(dir, &vm)) {
		bury(jobs, &vm);
		json_object_del(jobs->retries, name);
	} else if (rc && rc != -ENOENT && due) {
		retry(jobs, name, 0, INT64_MAX, gw_error());
	} else if (rc == -ENOENT) {
		/* Made, and left at once: nothing was started in it. */
		remove_left(jobs, name);
	}
	if (!rc)
		gw_vm_free(&vm);
}

void gw_jobs_sweep(struct gw_jobs *jobs)
{
	gw_autofree char *path = gw_path("%s/vm", jobs->paths->run);
	const bool idle = gw_care_idle(jobs->care);
	DIR *dir = idle ? NULL : opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || gw_care_quiet(jobs->care, e->d_name))
			continue;
		look_after(jobs, e->d_name);
		if (!gw_jobs_of(jobs, e->d_name))
			gw_care_looked(jobs->care, e->d_name);
	}
	if (dir)
		closedir(dir);
	if (!idle) {
		gw_care_forget(jobs->care);
		gw_vm_sweep(jobs->paths);
	}
	gw_jobs_answer_settles(jobs);
}
