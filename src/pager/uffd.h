/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uffd.h - the pager's faults and its page table entries on a real QEMU: a thread for each
 * userfaultfd of the watch (track/watch.h), and the ioctls behind struct gw_pager_ops.
 */
#ifndef GW_UFFD_H
#define GW_UFFD_H

#include <pthread.h>

#include "pager.h"
#include "watch.h"

struct gw_faults;

struct gw_fault_thread {
	struct gw_faults *faults;
	int uffd;
	pthread_t thread;
};

struct gw_faults {
	struct gw_pager *pager;
	const struct gw_paged *paged;
	int stop; /* eventfd */
	struct gw_fault_thread threads[GW_TRACK_RANGES];
	unsigned int nr;
};

/**
 * gw_faults_start() - hear the faults of @paged, which is in mode paging, and hand them to
 * @pager. Both stay the caller's. What an earlier process has heard is heard again.
 *
 * Return: 0 or -errno with a message, and nothing runs.
 */
int gw_faults_start(struct gw_faults *f, struct gw_pager *pager, const struct gw_paged *paged);

/** gw_faults_stop() - and wait for its threads. Who faults from here on waits. */
void gw_faults_stop(struct gw_faults *f);

/** gw_uffd_map(), gw_uffd_map_zero(), gw_uffd_wake() - as in struct gw_pager_ops. */
int gw_uffd_map(const struct gw_paged *paged, size_t page, size_t count, size_t *mapped);
int gw_uffd_map_zero(const struct gw_paged *paged, size_t page);
void gw_uffd_wake(const struct gw_paged *paged, size_t page, size_t count);

#endif
