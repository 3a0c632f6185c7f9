/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * source_env.h - what the source's machine works on in a worker: a VM of this
 * host, its QEMU and its monitor. worker_source.c holds the ops; the workers
 * that use them are worker_migrate.c and worker_recover.c.
 */
#ifndef GW_SOURCE_ENV_H
#define GW_SOURCE_ENV_H

#include "crew.h"
#include "departure.h"
#include "source.h"
#include "storage.h"
#include "worker.h"

struct gw_source_env {
	struct gw_worker *w;
	struct gw_source s;
	struct gw_vm vm;
	struct gw_ram ram;
	struct gw_guest_facts facts;
	struct gw_qmp *qmp;
	struct gw_crew crew, servers; /* of a round; of post-copy */
	bool crewed;		      /* they are there */
	void (*serve)(void *arg, unsigned int i);
	void *serve_arg;
	struct gw_journal journal;
	struct gw_departure departure;
	int device;	  /* our end of QEMU's device state, -1 outside the switchover */
	bool saving;	  /* QEMU's migrate was issued */
	bool saved;	  /* the device state comes from a file (saved.h) */
	json_t *settings; /* of QEMU, changed and to be put back (invariant 14) */
	/* A migration to several hosts: s.spread is this, or NULL; what DEFINE says of it. */
	struct gw_spread spread;
	json_t *split;
	unsigned int period_ms;	    /* between two looks which memory the guest uses */
	struct gw_hinter *hinter;   /* knows what its disks hold; NULL: nobody does */
	struct gw_storage *storage; /* its disks are copied; NULL: they are not */
	struct gw_carry *carry; /* a VM that is split already: who pages it meanwhile (carry.c) */
	json_t *live;		/* what QEMU had when the destination was told (vm/live.h) */
	unsigned int resumes;	/* of the guest, when it was last seen or made to stand still */
	int64_t reported;
};

/**
 * gw_source_env_new() - the VM's monitor, and the right to work on it.
 * @lock: set to the VM's lock, for the caller to close
 *
 * Return: gw_source_env_free(), or NULL with a message.
 */
struct gw_source_env *gw_source_env_new(struct gw_worker *w, const char *name, int *lock);
void gw_source_env_free(struct gw_source_env *e);

/** gw_source_env_served() - the same for a VM that is served from here, which needs no QEMU. */
struct gw_source_env *gw_source_env_served(struct gw_worker *w, const char *name, int *lock);

/** gw_source_env_monitor() - open that VM's monitor, if its QEMU lives. 0 or -errno. */
int gw_source_env_monitor(struct gw_source_env *e);

/**
 * gw_serve_note() - write down which files the memory of @e's VM is, for whoever serves it when
 * its QEMU is gone, too. 0 or -errno.
 */
int gw_serve_note(struct gw_source_env *e);

/**
 * gw_serve_gone() - whether the memory of @e's VM is lost: neither its files are there, nor its
 * QEMU. Then with a message that says so.
 */
bool gw_serve_gone(struct gw_source_env *e);

/** gw_source_env_crews() - what the ops that begin threads need. 0 or -errno. */
int gw_source_env_crews(struct gw_source_env *e);

/** gw_source_end_saving() - make QEMU forget a migration that was begun, so that it can run on. */
int gw_source_end_saving(struct gw_source_env *e);

/**
 * gw_source_env_told() - the end of a job: what the machine says, for the daemon (@result), the
 * user, and the registry. @rc: the machine's. Return: @rc, with its message.
 */
int gw_source_env_told(struct gw_source_env *e, int rc, json_t **result);

/**
 * gw_spread_ask() - a migration to several hosts, if that is what @args of the command "migrate"
 * say. Sets e->s.spread and what the journal keeps of it. 0, or -EINVAL with a message.
 */
int gw_spread_ask(struct gw_source_env *e, const json_t *args);

/**
 * gw_spread_give_up() - the guest whose migration e->journal tells of stays here for certain: the
 * sub-hosts that it was to have need to hold nothing of it.
 */
void gw_spread_give_up(struct gw_source_env *e);

/** gw_spread_connect(), gw_spread_history() - ops; see source.h. */
struct gw_transport *gw_spread_connect(void *env, unsigned int sub, unsigned int index,
				       int64_t deadline);
int gw_spread_history(void *env, struct gw_ageing *ageing);

/**
 * gw_carry_begin() - page a VM that is split already, beside whatever is done to it here, until
 * gw_carry_end(). Before its monitor is opened: its QEMU may wait for a page.
 * @moves: it is to move; else it is only to be put right
 *
 * Return: 0 or -errno with a message; gw_carry_end() either way.
 */
int gw_carry_begin(struct gw_source_env *e, bool moves);
void gw_carry_end(struct gw_source_env *e);

/** gw_carry_keep() - it did not move, and godwitd is gone: keep it until there is another. */
void gw_carry_keep(struct gw_source_env *e);

/** gw_carry_note() - it moves, as the command's @args say. 0, or -EINVAL with a message. */
int gw_carry_note(struct gw_source_env *e, const json_t *args);

/**
 * gw_carry_room() - now and then in a round, by the thread that has the monitor: of a VM with
 * direct I/O units leave that were protected while it stood still for a moment.
 */
void gw_carry_room(struct gw_source_env *e);

/** gw_carry_track(), gw_carry_freeze(), ... - ops; see source.h. */
struct gw_tracker *gw_carry_track(struct gw_source_env *e);
int gw_carry_freeze(void *env);
int gw_carry_leave(void *env);
void gw_carry_thaw(void *env);

/** What QEMU needs so that only its device state travels (F5). */
extern const char *const gw_source_capabilities[];

extern const struct gw_source_ops gw_source_live_ops;

#endif
