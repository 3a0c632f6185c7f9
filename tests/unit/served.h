/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * served.h - a godwitd in this process, whose loop turns when the test says so; its workers are
 * other processes. Whatever makes it wait makes the test hang.
 */
#ifndef UNIT_SERVED_H
#define UNIT_SERVED_H

#include "unit.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "clock.h"
#include "control.h"
#include "jobs_internal.h"
#include "peer.h"
#include "transport.h"

/* What run_until() waits for is to be soon; this ends a test that hangs. */
#define SERVED_SOON (120 * GW_S)

struct served {
	char *root;
	struct gw_paths paths;
	struct gw_loop *loop;
	struct gw_jobs *jobs;
	struct gw_control *control;
	struct gw_registrar *registrar;
	struct gw_peers *peers;
	unsigned short port;
};

/* Its folders, and a port that was free. */
static inline int served_init(struct served *d)
{
	gw_autofree char *ram = NULL;
	gw_autofd int probe = gw_tcp_listen("127.0.0.1:0");
	struct sockaddr_in addr = { 0 };
	socklen_t len = sizeof(addr);

	if (unit_folder((void **)&d->root) || gw_paths_init(&d->paths, d->root) ||
	    getsockname(probe, (struct sockaddr *)&addr, &len))
		return -1;
	d->port = ntohs(addr.sin_port);
	ram = gw_path("%s/ram-files", d->root);
	return gw_paths_ram(&d->paths, ram, 0);
}

static inline int served_start(struct served *d)
{
	gw_autofree char *address = gw_path("127.0.0.1:%u", d->port);

	d->loop = gw_loop_new();
	d->jobs = gw_jobs_new(d->loop, &d->paths, "B");
	d->registrar = gw_registrar_new(&d->paths, "B", address);
	d->control = gw_control_new(d->loop, d->jobs, &d->paths);
	d->peers = gw_peers_new(d->loop, d->jobs, d->registrar, address);
	return d->control && d->peers ? 0 : -1;
}

/* As godwitd ends: workers are left alone. */
static inline void served_stop(struct served *d)
{
	gw_control_free(d->control);
	gw_peers_free(d->peers);
	gw_jobs_free(d->jobs);
	gw_registrar_free(d->registrar);
	gw_loop_free(d->loop);
}

/* With its workers, and all that is left of it. */
static inline void served_drop(struct served *d)
{
	for (struct gw_job *job = d->jobs->list; job; job = job->next)
		if (job->pid) {
			kill(job->pid, SIGKILL);
			waitpid(job->pid, NULL, 0);
		}
	served_stop(d);
	gw_paths_free(&d->paths);
	unit_folder_remove((void **)&d->root);
}

struct until {
	struct gw_loop *loop;
	bool (*done)(void *arg);
	void *arg;
	int64_t end;
};

static inline void until_tick(void *arg)
{
	struct until *u = arg;

	if ((u->done && u->done(u->arg)) || gw_now() > u->end)
		gw_loop_quit(u->loop);
}

/* Let the daemon run until @done. */
static inline void run_until(struct served *d, bool (*done)(void *arg), void *arg)
{
	struct until u = { d->loop, done, arg, gw_now() + SERVED_SOON };

	gw_loop_run(d->loop, 2, until_tick, &u);
	assert_true(done(arg));
}

#endif
