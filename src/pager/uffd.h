/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uffd.h - a pager's faults and its page table entries on a real QEMU: a thread for each
 * userfaultfd of the watch (track/watch.h), and the ioctls behind struct gw_pager_ops and
 * struct gw_split_ops.
 */
#ifndef GW_UFFD_H
#define GW_UFFD_H

#include <pthread.h>

#include "times.h"
#include "watch.h"

struct gw_faults;

struct gw_fault_thread {
	struct gw_faults *faults;
	int uffd;
	pthread_t thread;
};

struct gw_faults {
	void (*hear)(void *env, const struct gw_fault *faults, unsigned int n);
	void *env;
	const struct gw_paged *paged;
	int stop; /* eventfd */
	struct gw_fault_thread threads[GW_TRACK_RANGES];
	unsigned int nr;
};

/**
 * gw_faults_start() - hear the faults of @paged, which is in a mode that has any.
 * @hear: is told of them, GW_FAULTS_MAX at most, by any of the threads
 *
 * What an earlier process has heard is heard again. Return: 0 or -errno with a message, and
 * nothing runs.
 */
int gw_faults_start(struct gw_faults *f,
		    void (*hear)(void *env, const struct gw_fault *faults, unsigned int n),
		    void *env, const struct gw_paged *paged);

/** gw_faults_stop() - and wait for its threads. Who faults from here on waits. */
void gw_faults_stop(struct gw_faults *f);

/** gw_uffd_map(), gw_uffd_map_zero(), gw_uffd_wake() - as in struct gw_pager_ops. */
int gw_uffd_map(const struct gw_paged *paged, size_t page, size_t count, size_t *mapped);
int gw_uffd_map_zero(const struct gw_paged *paged, size_t page);
void gw_uffd_wake(const struct gw_paged *paged, size_t page, size_t count);

/** gw_uffd_copy() - as in struct gw_split_ops. */
int gw_uffd_copy(const struct gw_paged *paged, size_t page, size_t count, const void *bytes,
		 size_t *copied);

/** gw_uffd_protect() - or unprotect, and wake: all of [page, page + count). 0 or -errno. */
int gw_uffd_protect(const struct gw_paged *paged, size_t page, size_t count, bool on);

#endif
