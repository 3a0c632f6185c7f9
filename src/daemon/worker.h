/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker.h - a process that does one thing to one VM, away from the daemon.
 *
 * godwitd forks a worker for whatever may block or crash: starting a QEMU,
 * each migration's end on this host, recovery. They share a SOCK_SEQPACKET:
 *
 *   daemon -> worker   {"cancel":true}
 *                      {"stream":N} with the accepted connection
 *   worker -> daemon   {"progress":{...}}
 *                      {"return":...} or {"error":"text","status":{...}?}, once, last
 *
 * When the daemon dies the packet socket ends: a worker that has not passed
 * COMMIT gives up, one that has carries on to the end by itself.
 */
#ifndef GW_WORKER_H
#define GW_WORKER_H

#include <jansson.h>
#include <stdbool.h>

#include "messages.h"
#include "paths.h"
#include "record.h"

struct gw_worker {
	const struct gw_paths *paths;
	const char *host; /* this host's name */
	int ctl;	  /* packet socket to godwitd; -1 once it is gone */
	bool cancelled;	  /* the user asked to end it */
	bool orphaned;	  /* godwitd is gone */
};

/** gw_ctl_send() - one packet with an optional descriptor (-1: none). 0 or -EPIPE. */
int gw_ctl_send(int ctl, json_t *json, int fd);

/**
 * gw_ctl_recv() - the next packet, without waiting.
 * @fd: a passed descriptor, owned by the caller, or -1
 * Return: 0, -EAGAIN, or -EPIPE when the other end is gone.
 */
int gw_ctl_recv(int ctl, json_t **json, int *fd);

/** gw_worker_progress() - tell the daemon how it stands; @status is taken over. */
void gw_worker_progress(struct gw_worker *w, json_t *status);

/**
 * gw_worker_heed() - read what the daemon says; sets cancelled and orphaned.
 * @stream: if not NULL, a passed connection is stored there and @index set
 */
void gw_worker_heed(struct gw_worker *w, int *stream, unsigned int *index);

/**
 * gw_worker_yield() - what is left to do is housekeeping: guests come first, above all
 * the one that has just moved, perhaps to this very host. This thread only.
 */
void gw_worker_yield(void);

/*
 * The jobs. Each returns 0 with *result set, or -errno with the message
 * recorded and perhaps *result as "status".
 */
int gw_worker_run_vm(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_attach(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_stop_vm(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_list(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_images(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_migrate(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_recover(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_plan(struct gw_worker *w, const json_t *args, json_t **result);

/**
 * gw_worker_receive() - the destination's end of a migration.
 * @conn: the control connection, past OPEN; owned by the worker
 */
int gw_worker_receive(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version);

/** gw_dest_put_right() - recover an arriving VM whose worker died. Holds no lock itself. */
enum gw_outcome gw_dest_put_right(struct gw_worker *w, const char *name,
				  const struct gw_journal *j);

#endif
