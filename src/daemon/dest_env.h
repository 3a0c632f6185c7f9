/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dest_env.h - what the destination's machine works on in a worker: a VM that arrives, its
 * QEMU and its monitor. worker_dest.c holds the ops, of which preparation is in
 * dest_prepare.c; worker_receive.c receives a migration with them, and
 * worker_dest_recover.c goes on where one of those died.
 */
#ifndef GW_DEST_ENV_H
#define GW_DEST_ENV_H

#include <netdb.h>

#include "arrival.h"
#include "crew.h"
#include "dest.h"
#include "keeper.h"
#include "replica.h"
#include "storage.h"
#include "teller.h"
#include "worker.h"
#include "worker_pages.h"

/* A QEMU closes its monitor a moment before it ends. */
#define GW_DEST_ENDING_MS 2000

struct gw_dest_env {
	struct gw_worker *w;
	struct gw_dest d;
	struct gw_vm vm;
	struct gw_ram ram;
	struct gw_qmp *qmp;
	json_t *settings; /* of QEMU, changed and to be put back (invariant 14) */
	struct gw_crew crew;
	struct gw_dest_computers {
		struct gw_crew crew;
		bool begun;
		void (*fn)(void *arg, unsigned int i);
		void *arg;
	} computers;
	struct gw_teller teller;
	struct gw_journal journal;
	struct gw_arrival arrival;
	struct gw_pages pages;
	struct gw_storage_here *storage; /* its disks are copied here; NULL: they are not */
	struct gw_fetch *fetch;		 /* reads its disks instead of pages; NULL: nobody does */
	struct gw_replicas replicas;	 /* or these instead of those */
	uint8_t *history;		 /* of its units */
	struct gw_keeper *keeper;	 /* of an arrival whose memory lies on several hosts */
	int lock;			 /* of the VM; -1 until its folder is ours */
	int device;			 /* our end of QEMU's device state */
	int qemu;			 /* pidfd */
	int wake;      /* epoll of ctl, qemu and crew: what the control connection heeds */
	bool log_kept; /* of QEMU (qemu_log.h) */
	bool paged;    /* it runs here and some of its memory does not, or did not, yet */
	bool asked;    /* recovery: the source waits for what becomes of it, or somebody knows */
	char from[NI_MAXHOST]; /* whence the source called */
	void (*spawned)(void *arg, unsigned int i);
	void *spawned_arg;
};

extern const struct gw_dest_ops gw_dest_live_ops;

/** gw_dest_env_new() - one for a VM that is not known yet. NULL with a message. */
struct gw_dest_env *gw_dest_env_new(struct gw_worker *w);
void gw_dest_env_free(struct gw_dest_env *e);

/** gw_dest_ended() - fail because QEMU has ended, with what it said. */
int gw_dest_ended(struct gw_dest_env *e);

/** gw_dest_because() - @rc, unless the monitor closed because QEMU ended: then that. */
int gw_dest_because(struct gw_dest_env *e, int rc);

/** gw_dest_heed_fd() - have the control connection wake for @fd (-1: none), too. */
void gw_dest_heed_fd(struct gw_dest_env *e, int fd);

/** gw_dest_on_wake() - the control connection woke: whether to go on waiting (transport.h). */
int gw_dest_on_wake(void *arg);

/** gw_dest_put_back() - the VM lives on here, in a QEMU like any other (invariant 14). */
void gw_dest_put_back(struct gw_dest_env *e);

/**
 * gw_dest_env_paged() - post-copy is over here, or was ended: @rc is gw_dest_run()'s, or
 * gw_dest_page_on()'s for a guest that runs. Return: 0, or @rc: somebody else is to go on.
 */
int gw_dest_env_paged(struct gw_dest_env *e, int rc);

/**
 * gw_dest_split_ask() - a migration to several hosts, as DEFINE's @split says: what @e's VM is to
 * be, before its memory is promised. 0 or -errno with a message.
 */
int gw_dest_split_ask(struct gw_dest_env *e, const json_t *split);

/** gw_dest_split_reach() - whether this host reaches all sub-hosts; it names the one that not. */
int gw_dest_split_reach(struct gw_dest_env *e);

/**
 * gw_dest_split_prepare() - its table, and the watch over the memory of the QEMU that waits for
 * device state. @ram: as QEMU maps it, from here on the keeper's. 0 or -errno.
 */
int gw_dest_split_prepare(struct gw_dest_env *e, struct gw_ram *ram,
			  const struct gw_guest_facts *facts);

/** gw_dest_split_take_over() - serve a guest whose arrival another process has left. 0 or -errno.
 */
int gw_dest_split_take_over(struct gw_dest_env *e);

/** gw_dest_split_keep() - the guest runs here: go on as its keeper (keeper.c). */
int gw_dest_split_keep(struct gw_dest_env *e);

/** gw_dest_split_stop() - no sub-host is called any more. Harmless where none is. */
void gw_dest_split_stop(struct gw_dest_env *e);

/**
 * gw_dest_split_end() - nobody pages for it any more. @dismiss: it does not run here and never
 * will, so the sub-hosts need to hold nothing of it. Harmless where none is split.
 */
void gw_dest_split_end(struct gw_dest_env *e, bool dismiss);

/** gw_dest_journal(), ... - ops; see dest.h. */
int gw_dest_split(void *env);
int gw_dest_journal(void *env, enum gw_dest_phase phase);
void gw_dest_notify(void *env);
int gw_dest_prepare(void *env, const json_t *definition, uint64_t resident, const json_t *reuse,
		    const struct gw_memory **memory, struct gw_dest_kept *kept);

#endif
