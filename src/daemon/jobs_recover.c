// SPDX-License-Identifier: GPL-2.0-or-later
/* jobs_recover.c - what workers left to be put right, and what became of migrations; see jobs.h. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "frame.h"
#include "io.h"
#include "jobs_internal.h"
#include "log.h"
#include "transport.h"

static void answer(struct settle *s, enum gw_outcome outcome)
{
	static const char *const texts[] = {
		[GW_OUTCOME_UNKNOWN] = "nothing is known here of that migration",
		[GW_OUTCOME_ABORTED] = "the guest never ran here and never will",
		[GW_OUTCOME_RUNNING] = "the guest was resumed here",
		[GW_OUTCOME_LOST] = "the guest was committed to this host, but its QEMU is gone",
	};
	struct gw_transport *t = gw_tcp_adopt(s->conn);

	if (t)
		gw_frame_send_buf(t, GW_MSG_SETTLED, outcome, texts[outcome],
				  strlen(texts[outcome]));
	gw_transport_close(&t);
}

/* Whether somebody still has to put migration @id right here. */
static bool unsettled(struct gw_jobs *jobs, const uint8_t id[GW_ID_LEN])
{
	gw_autofree char *path = gw_path("%s/vm", jobs->paths->run);
	DIR *dir = opendir(path);
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		struct gw_journal j;

		found = e->d_name[0] != '.' && !json_object_get(jobs->given_up, e->d_name) &&
			!gw_journal_load(jobs->paths, e->d_name, &j) && j.role == GW_ROLE_DEST &&
			!memcmp(j.id, id, GW_ID_LEN);
	}
	if (dir)
		closedir(dir);
	return found;
}

void gw_jobs_answer_settles(struct gw_jobs *jobs)
{
	struct settle **at = &jobs->settles;

	while (*at) {
		struct settle *s = *at;

		if (gw_jobs_incoming(jobs, s->id) || unsettled(jobs, s->id)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		answer(s, gw_settled_load(jobs->paths, s->id));
		free(s);
	}
}

void gw_jobs_settle(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN])
{
	struct settle *s = calloc(1, sizeof(*s));
	struct gw_job *job = gw_jobs_incoming(jobs, id);

	if (!s) {
		close(conn);
		return;
	}
	s->conn = conn;
	memcpy(s->id, id, GW_ID_LEN);
	s->next = jobs->settles;
	jobs->settles = s;
	if (job)
		kill(job->pid, SIGKILL); /* its end continues in on_worker_end() */
	gw_jobs_sweep(jobs);
}

static void start_recovery(struct gw_jobs *jobs, const char *name)
{
	json_t *args = json_pack("{s:s}", "name", name);
	struct gw_job *job;

	gw_info("VM '%s': putting an interrupted migration right", name);
	job = gw_jobs_start(jobs, "recover", args, (struct gw_job_client){ 0 });
	if (!job)
		gw_err("VM '%s': %s", name, gw_error());
	json_decref(args);
}

/* A VM whose QEMU ended by itself: a guest's power-off, or a crash. */
static void bury(struct gw_jobs *jobs, struct gw_vm *vm)
{
	gw_autofree char *dir = gw_vm_dir(jobs->paths, vm->def.name);
	gw_autofree char *reason = vm->attached ? NULL : gw_launch_reason(dir);

	gw_info("VM '%s' has ended%s%s", vm->def.name, reason ? ": " : "", reason ? reason : "");
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
	bool given_up = json_object_get(jobs->given_up, name), moving, ended;
	gw_autofree char *dir = gw_vm_dir(jobs->paths, name);
	gw_autofree char *record = gw_path("%s/vm.json", dir);
	struct gw_journal j;
	struct gw_vm vm;
	gw_autofd int lock = -1;
	int rc;

	if (gw_jobs_of(jobs, name) || (arriving(jobs) && access(record, F_OK)))
		return;
	lock = gw_vm_lock(jobs->paths, name);
	if (lock < 0)
		return; /* a worker of an earlier godwitd is still at it */
	moving = !gw_journal_load(jobs->paths, name, &j);
	rc = gw_vm_load(jobs->paths, name, &vm);
	ended = !rc && !gw_process_alive(&vm.process);
	/*
	 * A dead QEMU leaves nothing to settle, but an arrival's outcome is written down.
	 * A source without vm.json was in removal.
	 */
	if (moving && (j.role == GW_ROLE_DEST || (!ended && rc != -ENOENT))) {
		close(gw_steal_fd(&lock));
		/* In doubt, or after a failure, the user decides. */
		if (!given_up && (j.role == GW_ROLE_DEST || j.phase == 0))
			start_recovery(jobs, name);
	} else if (ended && !launched_unrecorded(dir, &vm)) {
		bury(jobs, &vm);
		json_object_del(jobs->given_up, name);
	} else if (rc && rc != -ENOENT && !given_up) {
		gw_err("VM '%s' is left alone: %s", name, gw_error());
		json_object_set_new(jobs->given_up, name, json_true());
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
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			look_after(jobs, e->d_name);
	if (dir)
		closedir(dir);
	gw_vm_sweep(jobs->paths);
	gw_jobs_answer_settles(jobs);
}
