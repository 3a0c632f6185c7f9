/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * jobs_internal.h - what jobs.c (workers, their clients), jobs_end.c (how they end)
 * and jobs_recover.c (what they leave to be put right) share.
 */
#ifndef GW_JOBS_INTERNAL_H
#define GW_JOBS_INTERNAL_H

#include "care.h"
#include "jobs.h"
#include "record.h"

/* Somebody who wants the job's end, and to hear of it. */
struct canceller {
	struct canceller *next;
	struct gw_job_client client;
};

struct gw_job {
	struct gw_jobs *jobs;
	struct gw_job *next;
	char name[GW_NAME_MAX]; /* the VM; empty for none, or not known yet (incoming) */
	bool migrates;		/* its progress is a migration's status */
	bool incoming;
	bool recovers;
	bool asked, forbids;	/* recovers, because the source has asked; and wants it back */
	struct gw_job *heir_of; /* a migration that died, whose client waits for what we find */
	bool arrived;		/* incoming, and the guest runs here: only housekeeping is left */
	bool paging;		/* ... or its memory: whoever does that is a keeper (jobs.h) */
	bool keeper;		/* of one whose worker died */
	bool holds;		/* a memory server of a VM that runs elsewhere (promise.h) */
	bool promised;		/* ... to which something was promised */
	bool serving;		/* its guest runs elsewhere, and is served from here */
	bool interrupted;	/* ... and cannot be reached */
	bool lost;		/* serving or paging: what is missing is nowhere any more */
	bool splits;		/* some of its memory is at other hosts: its keeper pages */
	int64_t began;		/* ns */
	int64_t closed;		/* its worker's end of ctl, when; 0: not, or it was looked at */
	uint8_t id[GW_ID_LEN];
	pid_t pid;	/* 0: waits for the VM's present job to end */
	size_t command; /* index into commands, for a job of the control socket */
	json_t *args;
	int pidfd, ctl, file; /* of its worker (worker.h) */
	unsigned int streams; /* connections that were handed to it */
	bool cancelled;	      /* it has been asked to end */
	bool late;	      /* ... and that was too late */
	struct canceller *cancellers;
	struct gw_watch *watch_pid, *watch_ctl;
	json_t *result;
	struct gw_job_client client;
};

/* A source that waits to hear what became of a migration. */
struct settle {
	struct settle *next;
	int conn;
	uint8_t id[GW_ID_LEN];
	bool forbid; /* the guest is not to run here any more */
	bool tried;  /* and could not be settled */
	int64_t deadline;
};

/* What is left of a worker whose job has ended: a thread that waits for storage. */
struct straggler {
	struct gw_jobs *jobs;
	struct straggler *next;
	struct gw_watch *watch;
	pid_t pid;
	int pidfd;
};

struct gw_jobs {
	struct gw_loop *loop;
	const struct gw_paths *paths;
	const char *host;
	struct gw_job *list;
	struct settle *settles;
	struct straggler *stragglers;
	struct gw_care *care;
	json_t *last; /* VM name -> its last migration's status */
	/*
	 * VM name -> {"tries", "at", "why"}: what could not be put right, when it is tried
	 * again (ns), and what was said of it.
	 */
	json_t *retries;
};

/** gw_job_unlist() - @job is none of the daemon's jobs any more. */
void gw_job_unlist(struct gw_job *job);

/** gw_job_free() - of one that is not listed, and whose worker has ended. */
void gw_job_free(struct gw_job *job);

/** gw_jobs_next() - VM @name's job has ended: the next that waits for it, if any, may begin. */
void gw_jobs_next(struct gw_jobs *jobs, const char *name);

/** gw_job_is() - whether @job was begun by command @command of the control socket. */
bool gw_job_is(const struct gw_job *job, const char *command);

/**
 * gw_job_end() - @job's worker has ended, and nothing more will come from it: whoever waits for
 * it hears so, what it left is put right, and what waits for it begins.
 * @status: as of waitpid()
 */
void gw_job_end(struct gw_job *job, int status);

/**
 * gw_job_heed_answer() - a packet of @job's worker: what its client has waited for, or what those
 * wait for in vain who wait for its end (worker.h).
 */
void gw_job_heed_answer(struct gw_job *job, const json_t *json);

/** gw_job_too_late() - the answer to who would end @job when that cannot be; new reference. */
json_t *gw_job_too_late(const struct gw_job *job);

/** gw_job_answer_cancellers() - tell whoever asked for its end; @result is taken over. */
void gw_job_answer_cancellers(struct gw_job *job, json_t *result);

/** gw_jobs_tried() - @job's recovery has failed, as its result says: it is tried again later. */
void gw_jobs_tried(struct gw_jobs *jobs, const struct gw_job *job);

/**
 * gw_jobs_keep() - start a keeper for VM @name, which pages.
 * @j: its journal
 * @asked, @forbid: its source waits for the answer, and would have it back
 *
 * Return: the job, or NULL with a message.
 */
struct gw_job *gw_jobs_keep(struct gw_jobs *jobs, const char *name, const struct gw_journal *j,
			    bool asked, bool forbid);

/** gw_jobs_keep_split() - the same for one whose memory is at other hosts. */
struct gw_job *gw_jobs_keep_split(struct gw_jobs *jobs, const char *name);

/** gw_jobs_of() - the oldest job on VM @name, or NULL: younger ones wait for it. */
struct gw_job *gw_jobs_of(struct gw_jobs *jobs, const char *name);

/** gw_jobs_incoming() - the job that receives migration @id, or NULL. */
struct gw_job *gw_jobs_incoming(struct gw_jobs *jobs, const uint8_t id[GW_ID_LEN]);

/** gw_jobs_answer_settles() - answer whoever asked for a migration that is settled now. */
void gw_jobs_answer_settles(struct gw_jobs *jobs);

#endif
