/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_env.h - what the keeper of a split VM has (worker_split.c), and the ops of its pager
 * (pager/split.h, pager/servers.h) on a real QEMU and real hosts (split_env.c).
 */
#ifndef GW_SPLIT_ENV_H
#define GW_SPLIT_ENV_H

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
	char *why;		 /* it is undone, because of that */
	_Atomic bool known;	 /* what is cold, as far as it can be */
	pthread_mutex_t lock;	 /* of what follows */
	struct gw_bitmap filled; /* units that may have something here */
	size_t victims[GW_VICTIMS];
	unsigned int nr_victims;
};

extern const struct gw_split_ops gw_split_live_ops;
extern const struct gw_servers_ops gw_servers_live_ops;

/** gw_keeper_spare() - pages that are kept free for what is fetched ahead. */
uint64_t gw_keeper_spare(const struct gw_keeper *k);

/** gw_keeper_aim() - pages: what is here beyond that leaves, so that there is room to fetch. */
uint64_t gw_keeper_aim(const struct gw_keeper *k);

#endif
