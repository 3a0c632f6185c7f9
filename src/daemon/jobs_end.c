// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * jobs_end.c - how a job ends, by itself or because somebody wants it to, and what those hear
 * who wait for it; see jobs.h. What it leaves to be put right is for jobs_recover.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "jobs_internal.h"
#include "source.h"
#include "worker.h"

/* A keeper that lived so long did not die of what it found. */
#define KEPT_NS (10 * GW_S)

void gw_job_answer_cancellers(struct gw_job *job, json_t *result)
{
	while (job->cancellers) {
		struct canceller *c = job->cancellers;

		job->cancellers = c->next;
		c->client.on_end(c->client.arg, result);
		free(c);
	}
	json_decref(result);
}

json_t *gw_job_too_late(const struct gw_job *job)
{
	json_t *text =
		job->serving
			? json_sprintf(
				  "too late to cancel: VM '%s' runs at the destination already, and "
				  "some of its memory is only here, so to end this would lose the "
				  "guest; 'godwit status %s' shows how much is left",
				  job->name, job->name)
			: json_sprintf("too late to cancel: %s has been told to take VM '%s' over; "
				       "'godwit status %s' shows how it ends",
				       job->incoming ? "this host" : "the destination", job->name,
				       job->name);

	return json_pack("{s:o}", "error", text);
}

/* How a worker ended that said nothing; free(). */
static char *unexpected_end(int status)
{
	return WIFSIGNALED(status)
		       ? gw_path("the worker process was killed (signal %d)", WTERMSIG(status))
		       : gw_path("the worker process ended unexpectedly");
}

/* What became of the guest of a migration whose worker ended so. */
static json_t *fate(const struct gw_job *job, const char *how)
{
	struct gw_journal j;

	if (!job->migrates || job->incoming)
		return json_string(how);
	if (gw_journal_load(job->jobs->paths, job->name, &j) || j.role != GW_ROLE_SOURCE)
		return json_sprintf("%s; 'godwit list' shows where the guest is", how);
	if (j.phase == GW_SOURCE_COMMITTING)
		return json_sprintf("%s when the destination may have taken over, so the guest "
				    "stays stopped here; settle it with 'godwit recover %s'",
				    how, job->name);
	if (j.phase == GW_SOURCE_SERVING)
		return json_sprintf("%s; the guest runs at its destination, and another worker "
				    "brings what it lacks of its memory: see 'godwit status %s'",
				    how, job->name);
	return json_sprintf("%s; what it left is being put right: see 'godwit list'", how);
}

/* The same, now that its recovery @job has ended. */
static void tell_client(const struct gw_job *job, struct gw_job *dead)
{
	const char *how = json_string_value(json_object_get(dead->result, "how"));
	const char *failed = json_string_value(json_object_get(job->result, "error"));
	const char *is = json_string_value(
		json_object_get(json_object_get(job->result, "return"), "outcome"));
	json_t *text;

	if (failed)
		text = json_sprintf(
			"%s, and what it left could not be put right yet: %s. The guest "
			"may be stopped; godwitd keeps trying",
			how, failed);
	else if (is && !strcmp(is, "serving"))
		text = json_sprintf("%s; the guest runs at its destination, and another worker "
				    "brings what it lacks of its memory: see 'godwit status %s'",
				    how, job->name);
	else
		text = json_sprintf("%s; the guest %s", how,
				    is && !strcmp(is, "moved") ? "runs at its destination"
							       : "runs on here");
	json_object_set_new(job->jobs->last, dead->name,
			    json_pack("{s:s,s:O}", "status", "failed", "error-desc", text));
	json_object_set_new(dead->result, "error", text);
	json_object_del(dead->result, "how");
	if (dead->client.on_end)
		dead->client.on_end(dead->client.arg, dead->result);
}

/* What became of the wish that it may end. */
static json_t *cancel_outcome(const struct gw_job *job)
{
	const char *error = json_string_value(json_object_get(job->result, "error"));
	struct gw_journal j;

	if (!error)
		return gw_job_too_late(job);
	if (!job->incoming && !gw_journal_load(job->jobs->paths, job->name, &j) &&
	    j.role == GW_ROLE_SOURCE &&
	    (j.phase == GW_SOURCE_COMMITTING || j.phase == GW_SOURCE_GONE))
		return json_pack("{s:s}", "error", error); /* in doubt, or lost */
	return json_pack("{s:{}}", "return");
}

static void finish(struct gw_job *job, int status)
{
	struct gw_jobs *jobs = job->jobs;
	json_t *state;
	bool failed;

	if (job->file >= 0)
		job->result = gw_worker_result_load(job->file);
	if (!job->result) {
		gw_autofree char *how = unexpected_end(status);

		job->result = json_pack("{s:o,s:s}", "error", fate(job, how), "how", how);
	}
	/* The final status, with its error, is what `godwit status` shows from now on. */
	state = json_object_get(job->result, "status");
	if (!state)
		state = json_object_get(job->result, "return");
	if (job->migrates && job->name[0]) {
		if (!json_object_get(state, "status"))
			json_object_set_new(jobs->last, job->name,
					    json_pack("{s:s,s:O?}", "status", "failed",
						      "error-desc",
						      json_object_get(job->result, "error")));
		else
			json_object_set(jobs->last, job->name, state);
	}
	/* Who keeps something and lived for long did not die of what it found. */
	failed = json_object_get(job->result, "error") &&
		 !(job->keeper && gw_now() - job->began >= KEPT_NS);
	if ((job->recovers || job->keeper) && !failed)
		json_object_del(jobs->retries, job->name);
	else if (job->keeper || (job->recovers && !job->client.on_end))
		gw_jobs_tried(jobs, job);
}

/*
 * A worker ended without a word, and left something that is being put right: its
 * client hears of it when that is known. The recovery, or NULL.
 */
static struct gw_job *recovery_of(const struct gw_job *dead)
{
	struct gw_job *job = gw_jobs_of(dead->jobs, dead->name);

	return dead->migrates && !dead->incoming && json_object_get(dead->result, "how") && job &&
			       job->recovers && !job->heir_of
		       ? job
		       : NULL;
}

void gw_job_end(struct gw_job *job, int status)
{
	struct gw_jobs *jobs = job->jobs;
	struct gw_job *recovery;
	char name[GW_NAME_MAX];
	bool left;

	finish(job, status);
	gw_job_unlist(job);
	snprintf(name, sizeof(name), "%s", job->name);
	/* Put right what it left before anybody hears that it ended. */
	gw_jobs_sweep(jobs);
	recovery = recovery_of(job);
	if (recovery) {
		gw_loop_remove(jobs->loop, job->watch_pid);
		gw_loop_remove(jobs->loop, job->watch_ctl);
		job->watch_pid = job->watch_ctl = NULL;
		recovery->heir_of = job;
		gw_job_answer_cancellers(job, cancel_outcome(job));
		return;
	}
	json_object_del(job->result, "how");
	if (job->heir_of)
		tell_client(job, job->heir_of);
	if (job->client.on_end)
		job->client.on_end(job->client.arg, job->result);
	gw_job_answer_cancellers(job, cancel_outcome(job));
	left = job->migrates && !json_object_get(job->result, "error");
	gw_job_free(job);
	gw_jobs_next(jobs, name);
	if (left)
		gw_jobs_tidy(jobs);
	gw_jobs_answer_settles(jobs);
}

void gw_jobs_detach(struct gw_job *job, const void *arg)
{
	struct canceller **at = &job->cancellers;

	if (job->client.arg == arg)
		memset(&job->client, 0, sizeof(job->client));
	while (*at) {
		struct canceller *c = *at;

		if (c->client.arg != arg) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		free(c);
	}
}

/* The job that waits for the VM's present one to end, or NULL. */
static struct gw_job *waiting_job(struct gw_jobs *jobs, const char *name)
{
	for (struct gw_job *job = jobs->list; job; job = job->next)
		if (!job->pid && !job->recovers && !strcmp(job->name, name))
			return job;
	return NULL;
}

/* End a job that has no worker, with @result, which is taken over. */
static void settle(struct gw_job *job, json_t *result)
{
	gw_job_unlist(job);
	job->result = result;
	finish(job, 0);
	if (job->client.on_end)
		job->client.on_end(job->client.arg, job->result);
	gw_job_free(job);
}

/* End a job that has not begun: nothing was done, so nothing is to be undone. */
static void call_off(struct gw_job *job, const char *why)
{
	settle(job, json_pack("{s:s,s:{s:s,s:s}}", "error", why, "status", "status", "cancelled",
			      "error-desc", why));
}

/* What @job was asked to do while it goes on is done, or will not be: who waits for that hears. */
static void answer_waiting(struct gw_job *job, const json_t *json)
{
	const char *refused = json_string_value(json_object_get(json, "refused"));
	const char *of = json_string_value(json_object_get(json, "of"));
	const char *who = json_string_value(json_object_get(json, "who"));
	json_t *done = json_object_get(json, "done");

	for (struct gw_job *one = job->jobs->list, *next; of && (refused || done) && one;
	     one = next) {
		const char *said = json_string_value(json_object_get(one->args, "address"));

		next = one->next;
		if (one->pid || strcmp(one->name, job->name) != 0 || !gw_job_is(one, of) ||
		    (who && (!said || strcmp(said, who) != 0)))
			continue;
		if (refused)
			call_off(one, refused);
		else
			settle(one, json_pack("{s:O}", "return", done));
	}
}

void gw_job_heed_answer(struct gw_job *job, const json_t *json)
{
	json_t *answer = json_object_get(json, "answer");

	if (answer && job->client.on_end) {
		json_t *result = json_pack("{s:O}", "return", answer);

		job->client.on_end(job->client.arg, result);
		json_decref(result);
		memset(&job->client, 0, sizeof(job->client));
	}
	job->keeper = job->keeper || answer;
	answer_waiting(job, json);
}

int gw_jobs_cancel(struct gw_jobs *jobs, const char *name, struct gw_job_client client,
		   struct gw_job **waits)
{
	struct gw_job *job = waiting_job(jobs, name);
	struct canceller *c;
	struct gw_journal j;
	json_t *done;
	int rc = 0;

	*waits = NULL;
	if (job) {
		call_off(job, "cancelled before it began");
		done = json_pack("{s:{}}", "return");
		client.on_end(client.arg, done);
		json_decref(done);
		return 0;
	}
	job = gw_jobs_of(jobs, name);
	if (!job || !job->migrates || (job->splits && job->keeper))
		return gw_fail(-ENOENT, "no migration of VM '%s' is under way", name);
	/* Neither end heeds it from COMMIT on: phase 0 is the one before, at both. */
	if (!gw_journal_load(jobs->paths, name, &j) && j.phase != 0)
		job->late = true;
	if (!job->cancelled && !job->late)
		rc = gw_ctl_send(job->ctl, json_pack("{s:b}", "cancel", 1), -1);
	if (rc)
		return gw_fail(rc,
			       "the worker of that migration (process %d) does not listen; end "
			       "it, and the guest runs on where it runs",
			       (int)job->pid);
	job->cancelled = true;
	if (job->late) {
		done = gw_job_too_late(job);
		client.on_end(client.arg, done);
		json_decref(done);
		return 0;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return gw_fail(-ENOMEM, "no memory");
	c->client = client;
	c->next = job->cancellers;
	job->cancellers = c;
	*waits = job;
	return 0;
}
