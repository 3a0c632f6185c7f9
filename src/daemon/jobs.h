/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * jobs.h - the daemon's view of its workers (worker.h has theirs).
 *
 *   start ──> running ──> ended: reply sent; a journal left behind starts a
 *                                recovery job; pending SETTLEs are answered
 *
 * A keeper is a job that lasts as long as its VM needs it: the worker that brings memory to a
 * guest that runs here before it (post-copy), or to and from other hosts (split). It outlives the
 * daemon; one that dies is followed by another at once, or, when those die at once, after a while.
 *
 * Rules: one job per VM at a time (a list job belongs to no VM). Nothing that a
 * worker, a peer or a client leaves undone makes the daemon wait (invariant 16),
 * and what peers can make it keep is bounded.
 */
#ifndef GW_JOBS_H
#define GW_JOBS_H

#include <jansson.h>

#include "loop.h"
#include "messages.h"
#include "paths.h"

struct gw_jobs;
struct gw_job;

/** struct gw_job_client - who wants to hear of a job; on_end is the last call. */
struct gw_job_client {
	void (*on_progress)(void *arg, json_t *status);
	/* {"return":...} or {"error":"..."}; borrowed */
	void (*on_end)(void *arg, json_t *result);
	void *arg;
};

struct gw_jobs *gw_jobs_new(struct gw_loop *loop, const struct gw_paths *paths, const char *host);

/** gw_jobs_free() - forget all jobs; the workers notice and finish by themselves. */
void gw_jobs_free(struct gw_jobs *jobs);

/**
 * gw_jobs_start() - fork a worker for a command of the control socket.
 * @command: "run", "attach", "stop", "list", "migrate", "recover", "plan", "images",
 *           "held", "hosts", "split", "merge", "evacuate"
 * @args: borrowed; args.name is the VM
 *
 * Return: the job, or NULL with a message (unknown command, VM busy).
 */
struct gw_job *gw_jobs_start(struct gw_jobs *jobs, const char *command, const json_t *args,
			     struct gw_job_client client);

/**
 * gw_jobs_receive() - fork a worker for an incoming migration.
 * @conn: closed when it was handed on; open after a failure
 */
int gw_jobs_receive(struct gw_jobs *jobs, int conn, const struct gw_open *open, uint16_t version);

/**
 * gw_jobs_stream() - hand a stream's connection to its migration.
 * @conn: closed when it was handed on; open after a failure
 *
 * Return: 0; -ENOENT; -EAGAIN if its worker has not taken those that came before.
 */
int gw_jobs_stream(struct gw_jobs *jobs, int conn, const struct gw_open *open);

/** gw_jobs_paging() - the same for a paging connection, to whoever pages that VM now. */
int gw_jobs_paging(struct gw_jobs *jobs, int conn, const struct gw_open *open);

/** gw_jobs_storage() - the same for a disk that is copied. */
int gw_jobs_storage(struct gw_jobs *jobs, int conn, const struct gw_open *open);

/**
 * gw_jobs_hold() - hand a connection of a VM whose memory lies here in part to its memory
 * server, which is started for the first (decision 32).
 * @conn: closed when it was handed on; open after a failure
 *
 * Return: 0; -EPERM: no memory is held here for others; -ENOENT; -EAGAIN.
 */
int gw_jobs_hold(struct gw_jobs *jobs, int conn, const struct gw_open *open, uint16_t version);

/**
 * gw_jobs_settle() - find out, once and for all, what became of migration @id.
 * A worker that still receives it is killed first.
 * @forbid: the source would have the guest: where it does not run here, it never will
 * @conn: answered with SETTLED and closed, perhaps later
 *
 * What cannot be settled in time is answered as unknown, and written down: from then on
 * nobody here resumes that guest by himself (invariant 1).
 */
void gw_jobs_settle(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN], bool forbid);

/**
 * gw_jobs_claim() - the destination of migration @id, which left here, is about to resume
 * its guest: whether it may. @conn: answered with SETTLED and closed
 */
void gw_jobs_claim(struct gw_jobs *jobs, int conn, const uint8_t id[GW_ID_LEN]);

/** gw_jobs_detach() - the client whose on_end has @arg has gone; the job goes on. */
void gw_jobs_detach(struct gw_job *job, const void *arg);

/**
 * gw_jobs_cancel() - ask the migration of VM @name to end, or whatever waits to begin.
 * @client: on_end says what became of it, perhaps at once: that it has ended, or
 *          that it is too late
 * @waits: the job if @client has to wait for it (gw_jobs_detach()), or NULL
 *
 * Return: 0, or -errno with a message, and @client is not called.
 */
int gw_jobs_cancel(struct gw_jobs *jobs, const char *name, struct gw_job_client client,
		   struct gw_job **waits);

/**
 * gw_jobs_retry() - VM @name's memory is served from here to where it runs: where that is
 * interrupted, connect again now. Return: 0, or -ENOENT if none is served, or it is lost, without
 * a message.
 */
int gw_jobs_retry(struct gw_jobs *jobs, const char *name);

/** gw_jobs_status() - last known progress or result of a migration of @name; new reference or NULL.
 */
json_t *gw_jobs_status(struct gw_jobs *jobs, const char *name);

/**
 * gw_jobs_tidy() - bring the kept images within their quotas, in the background, and
 * remove what earlier workers left half done of them. Called at the start, and
 * whenever a VM has left.
 */
void gw_jobs_tidy(struct gw_jobs *jobs);

/** gw_jobs_relieve() - memory is low: have images give way to guests, in the background. */
void gw_jobs_relieve(struct gw_jobs *jobs);

/**
 * gw_jobs_unhang() - end jobs whose workers have left their result and cannot end, since storage
 * hangs; now and then.
 */
void gw_jobs_unhang(struct gw_jobs *jobs);

/**
 * gw_jobs_sweep() - look after VMs that no job works on: recover journals
 * whose worker is dead, remove VMs whose QEMU has ended. Called now and then.
 */
void gw_jobs_sweep(struct gw_jobs *jobs);

#endif
