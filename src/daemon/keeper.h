/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keeper.h - who looks after a VM whose memory is only in part here (keeper.c), and the ops of its
 * pager (pager/split.h, pager/servers.h) on a real QEMU and real hosts (split_env.c).
 */
#ifndef GW_KEEPER_H
#define GW_KEEPER_H

#include "accessed.h"
#include "ageing.h"
#include "place.h"
#include "servers.h"
#include "split_record.h"
#include "uffd.h"
#include "worker.h"

/* Units that are chosen at a time. */
#define GW_VICTIMS 64

struct gw_keeper {
	struct gw_worker *w;
	struct gw_vm vm;
	struct gw_split_record record;
	struct gw_ram ram;
	struct gw_paged paged;
	struct gw_faults faults;
	struct gw_split split;
	struct gw_split_in in;
	struct gw_server servers[GW_HOLDERS_MAX];
	struct gw_servers all;
	struct gw_accessed accessed;
	struct gw_ageing ageing;
	struct gw_bitmap sampled;
	uint8_t *maps[GW_MEMORY_BLOCKS_MAX]; /* of the RAM files, to see what is in them */
	char *table;
	int qemu; /* pidfd */
	int event;
	int64_t next_look, next_sample, next_report, next_prepare, next_merge, counted_ns;
	uint64_t counted, per_s;
	uint64_t sampled_faults;
	unsigned int periods;
	bool watched, told, sampling;
	struct gw_missing_copies missing; /* as of when they were counted */
	int64_t next_count;
	int64_t failed_at;    /* a sub-host could not be called, and who asked is to hear */
	int64_t next_unstick; /* units that could leave for nobody may be tried again */
	bool arrives;	      /* no more is here than may be */
	/* Of a sub-host that is to take another's place: that one's, and one more (evacuate.c). */
	uint8_t joins[GW_HOLDERS_MAX];
	char *why;		 /* it is undone, because of that */
	_Atomic bool known;	 /* what is cold, as far as it can be */
	_Atomic bool stuck;	 /* some units could leave for nobody, and are not looked for */
	pthread_mutex_t lock;	 /* of what follows */
	struct gw_bitmap filled; /* units that may have something here */
	size_t victims[GW_VICTIMS];
	unsigned int nr_victims;
};

extern const struct gw_split_ops gw_split_live_ops;
extern const struct gw_servers_ops gw_servers_live_ops;

/* There was nothing left to keep. */
#define GW_KEEPER_MERGED 1

/** gw_keeper_new() - one for VM @name, whose lock is held. NULL with a message. */
struct gw_keeper *gw_keeper_new(struct gw_worker *w, const char *name);
/** gw_keeper_free() - and stop all that works for it; what is away stays where it is. */
void gw_keeper_free(struct gw_keeper *k);

/** gw_keeper_open() - load the VM's record, and find its QEMU. 0; -ESRCH: it has ended; -errno. */
int gw_keeper_open(struct gw_keeper *k, const char *name);

/**
 * gw_keeper_watch() - have the memory of @vm, as @k->ram has it, watched as a split VM's is. Sets
 * its watch, for the caller to save. 0 or -errno.
 */
int gw_keeper_watch(struct gw_keeper *k, struct gw_vm *vm, struct gw_qmp *qmp);

/** gw_keeper_take_over() - where another process has paged. 0 or -errno. */
int gw_keeper_take_over(struct gw_keeper *k);

/**
 * gw_keeper_start() - from here on faults are heard, and servers called. Nothing leaves before
 * gw_keeper_keep().
 * @took_over: what another process has left is mended first
 *
 * Return: 0; GW_KEEPER_MERGED: there is nothing to do; -errno.
 */
int gw_keeper_start(struct gw_keeper *k, bool took_over);

/**
 * gw_keeper_keep() - until all memory is here, and the VM is like any other; or its guest has
 * ended, and nobody holds anything of it. 0; -ESTALE: another process is to go on; -errno.
 */
int gw_keeper_keep(struct gw_keeper *k);

/** gw_carry_check() - whether VM @name, split like that, may move (carry.c). 0, or -errno. */
int gw_carry_check(const struct gw_split_record *r, const char *name);

/** struct gw_beside - a thread that does what gw_keeper_keep() does all the time. */
struct gw_beside {
	struct gw_keeper *keeper;
	pthread_t thread;
	bool runs;
	_Atomic bool ended;
};

/**
 * gw_beside_start() - beside a caller who moves the VM, or waits for somebody else: room is made
 * for who waits for it. What the guest uses is not looked at meanwhile, and no direct I/O is
 * quiesced. 0 or -EAGAIN; gw_beside_stop() either way.
 */
int gw_beside_start(struct gw_beside *b, struct gw_keeper *k);
void gw_beside_stop(struct gw_beside *b);

/**
 * gw_keeper_bury() - its QEMU has ended while nobody kept it: nobody needs to hold anything of it,
 * and its record says no more that it is split. 0 or -errno.
 */
int gw_keeper_bury(struct gw_keeper *k);

/** gw_keeper_status() - how it stands; the caller's. */
json_t *gw_keeper_status(struct gw_keeper *k);

/**
 * gw_keeper_evacuate() - what lies at the sub-hosts that its user has named (worker.h) goes to
 * others from here on; who asked hears when it has, or why it does not (evacuate.c).
 */
void gw_keeper_evacuate(struct gw_keeper *k);

/** gw_keeper_look_at_servers() - heed which sub-hosts have come, and gone. 0 or -errno. */
int gw_keeper_look_at_servers(struct gw_keeper *k);

/**
 * gw_keeper_quiesce_by() - of a VM with direct I/O, if something is to leave: have it stand still
 * for a moment, so that it may (keeper_quiesce.c). A failure is logged.
 * @monitor: its monitor, if the caller has that; NULL: it is opened
 */
void gw_keeper_quiesce_by(struct gw_keeper *k, struct gw_qmp *monitor);

/** gw_keeper_save() - write its record down. 0 or -errno. */
int gw_keeper_save(struct gw_keeper *k);

/** gw_keeper_end() - nothing is away any more: the VM is like any other. 0 or -errno. */
int gw_keeper_end(struct gw_keeper *k);

/** gw_keeper_dismiss() - nobody needs to hold anything of it any more. */
void gw_keeper_dismiss(struct gw_keeper *k);

/** gw_keeper_spare() - pages that are kept free for what is fetched ahead. */
uint64_t gw_keeper_spare(const struct gw_keeper *k);

/** gw_keeper_aim() - pages: what is here beyond that leaves, so that there is room to fetch. */
uint64_t gw_keeper_aim(const struct gw_keeper *k);

#endif
