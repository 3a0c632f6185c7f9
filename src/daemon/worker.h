/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker.h - a process that does one thing to one VM, away from the daemon.
 *
 * godwitd forks a worker for whatever may block or crash: starting a QEMU,
 * each migration's end on this host, recovery. They share a SOCK_SEQPACKET and
 * a file without a name (a memfd):
 *
 *   daemon -> worker   {"cancel":true}
 *                      {"stream":N} with the accepted connection
 *                      {"paging":N} likewise, for missing pages (post-copy), or to a
 *                      memory server
 *                      {"storage":N} likewise, for a disk that is copied
 *                      {"stop":true}: end the VM that it pages
 *                      {"retry":true}: try now what is tried again and again
 *                      {"give-up":true}: do not try it any more
 *                      {"merge":true}: all of its memory is to come back
 *                      {"yield":true}: another process is to page the VM
 *                      {"evacuate":{...}}: what lies at one host, to go to others
 *   worker -> daemon   {"progress":{...}}
 *                      {"answer":{...}}: what its client waits for; it goes on by itself
 *                      {"refused":"text","of":"merge","who":...}: why it does not do what
 *                      others wait for, who called that command (of that "address")
 *                      {"done":{...},"of":"evacuate","who":...}: it has, and goes on
 *   the file           {"return":...} or {"error":"text","status":{...}?}, when it ends
 *
 * Neither waits for the other, who may be stopped or asleep (invariant 16): a
 * worker drops progress that finds no room, but for the newest, which it offers
 * again; its result, of any size, waits in the file. The daemon refuses a stream
 * that finds no room.
 *
 * When the daemon dies the packet socket ends: a worker that has not passed
 * COMMIT gives up, one that has carries on to the end by itself.
 */
#ifndef GW_WORKER_H
#define GW_WORKER_H

#include <jansson.h>
#include <stdbool.h>

#include "dest.h"
#include "messages.h"
#include "paths.h"
#include "record.h"

/* Each attempt of a peer leaves one at most. */
#define GW_CALLERS_KEPT 16

struct gw_worker {
	const struct gw_paths *paths;
	const char *host;   /* this host's name */
	int ctl;	    /* packet socket to godwitd; -1 once it is gone */
	int result;	    /* the file */
	json_t *recovering; /* VM name -> true: was being put right when this worker began */
	json_t *unsaid;	    /* progress that found no room */
	bool cancelled;	    /* the user asked to end it */
	bool late;	    /* ... and was told that it was too late */
	bool orphaned;	    /* godwitd is gone */
	bool stop;	    /* the VM is to end */
	bool retry;	    /* what is tried again and again is to be tried now */
	bool give_up;	    /* ... or not any more */
	bool merge;	    /* the memory of a split VM is to come back */
	bool yield;	    /* another process is to page it */
	json_t *evacuate;   /* an array: what lies at these hosts is to go to others; not yet heeded
			     */
	/* Connections for pages that nobody has taken, in the order in which they came. */
	struct gw_caller {
		int fd;
		unsigned int index;
	} callers[GW_CALLERS_KEPT];
	unsigned int nr_callers;
	int storage[GW_CALLERS_KEPT]; /* likewise, for disks that are copied */
	unsigned int nr_storage;
};

/**
 * gw_ctl_send() - one packet with an optional descriptor (-1: none), without waiting.
 * @json: taken over
 *
 * Return: 0, -EAGAIN without room for it, -EMSGSIZE, or -EPIPE. No message.
 */
int gw_ctl_send(int ctl, json_t *json, int fd);

/**
 * gw_ctl_recv() - the next packet, without waiting.
 * @fd: a passed descriptor, owned by the caller, or -1
 * Return: 0, -EAGAIN, or -EPIPE when the other end is gone.
 */
int gw_ctl_recv(int ctl, json_t **json, int *fd);

/** gw_worker_result() - leave the result in the file; @json is taken over. 0 or -errno. */
int gw_worker_result(struct gw_worker *w, json_t *json);

/** gw_worker_result_load() - what a worker that has ended left there; NULL: nothing, or a part. */
json_t *gw_worker_result_load(int fd);

/** gw_worker_progress() - tell the daemon how it stands; @status is taken over. */
void gw_worker_progress(struct gw_worker *w, json_t *status);

/** gw_worker_answer() - give its client the result, and go on; @json is taken over. */
void gw_worker_answer(struct gw_worker *w, json_t *json);

/**
 * gw_worker_refuse() - tell those who wait for @command why it is not done.
 * @who: only those who said "address" @who; NULL: all
 */
void gw_worker_refuse(struct gw_worker *w, const char *command, const char *who, const char *why);

/** gw_worker_done() - the same to those for whom it is; @json is taken over. */
void gw_worker_done(struct gw_worker *w, const char *command, const char *who, json_t *json);

/**
 * gw_worker_replaced() - whether our godwitd is gone, and a younger one answers: it cannot hand us
 * connections, and starts another in our place as soon as we are gone, too.
 * @next: when to look again (ns)
 */
bool gw_worker_replaced(const struct gw_worker *w, int64_t *next);

/** gw_worker_late() - answer a cancellation that came when it could not be heeded any more. */
void gw_worker_late(struct gw_worker *w);

/**
 * gw_worker_caller() - the next connection for pages that the daemon has handed on.
 * Return: its transport, the caller's, and its number in *@index; NULL: there is none.
 */
struct gw_transport *gw_worker_caller(struct gw_worker *w, unsigned int *index);

/** gw_worker_storage() - the next connection for a disk that is copied, the caller's; -1: none. */
int gw_worker_storage(struct gw_worker *w);

/**
 * gw_worker_heed() - read what the daemon says; sets cancelled and orphaned.
 * @stream: if not NULL, a passed connection is stored there and @index set
 */
void gw_worker_heed(struct gw_worker *w, int *stream, unsigned int *index);

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
int gw_worker_check(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_held(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_hosts(struct gw_worker *w, const json_t *args, json_t **result);
/* A keeper at the source of a guest that left before its memory, which it brings (serve.c). */
int gw_worker_serve(struct gw_worker *w, const json_t *args, json_t **result);
/* A keeper: goes on bringing memory to a guest that came here before it (dest/paging.h). */
int gw_worker_page(struct gw_worker *w, const json_t *args, json_t **result);
/* A keeper: of a VM whose memory is only in part here (pager/split.h). */
int gw_worker_split(struct gw_worker *w, const json_t *args, json_t **result);
/* Whoever asked a split VM's keeper to merge it waits for its end; this says how that was. */
int gw_worker_merge(struct gw_worker *w, const json_t *args, json_t **result);
int gw_worker_evacuate(struct gw_worker *w, const json_t *args, json_t **result);

/**
 * gw_worker_receive() - the destination's end of a migration.
 * @conn: the control connection, past OPEN; owned by the worker
 */
int gw_worker_receive(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version);

/**
 * gw_worker_hold() - a memory server for one VM of another host: until that dismisses it, or a
 * younger godwitd is there (decision 32).
 * @conn: connection 0, past OPEN; owned by the worker
 */
int gw_worker_hold(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version);

/** struct gw_said - what another host says of a migration. */
struct gw_said {
	enum gw_outcome outcome;
	char text[512]; /* to people */
	/* That it has no trace of it, and is called so; "": nothing of the kind. */
	char host[GW_HOST_MAX];
};

/**
 * gw_ask() - ask another host about migration @id, on a connection of its own.
 * @kind: GW_OPEN_SETTLE, _FORBID or _CLAIM
 * @ns: how long it may take to answer
 *
 * Return: 0; -EREMOTEIO: it refuses to answer, or is too old for the question; -errno: it
 * cannot be reached, or does not answer.
 */
int gw_ask(const char *address, enum gw_open_kind kind, const uint8_t id[GW_ID_LEN], int64_t ns,
	   struct gw_said *said);

/**
 * gw_ask_of_served() - the same of a guest that has run at its destination, for certain.
 * @j: its journal; UNKNOWN becomes GW_OUTCOME_FORGOTTEN where its host has no trace of it
 *
 * Return: as gw_ask(); -EREMOTEIO also: another host answers there.
 */
int gw_ask_of_served(const struct gw_journal *j, bool forbid, struct gw_said *said);

/* Who wants a VM put right that was arriving. */
struct gw_recovery {
	bool asked;	/* the source, which waits for the answer */
	bool forbid;	/* and would have it back; or somebody here wants to be rid of it */
	bool confirmed; /* somebody here, who says that it runs nowhere else */
};

/**
 * gw_dest_put_right() - recover an arriving VM whose worker died. Holds no lock itself.
 * @j: its journal, as it was
 *
 * Return: as gw_dest_recover(); UNKNOWN also while its worker lives.
 */
enum gw_outcome gw_dest_put_right(struct gw_worker *w, const char *name, struct gw_journal *j,
				  const struct gw_recovery *why);

#endif
