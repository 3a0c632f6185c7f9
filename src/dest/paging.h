/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paging.h - the destination's half of post-copy: a guest that runs here, or is about to, and
 * whose memory is still at its source (decision 28).
 *
 *   MISSING, MISSING_END    gw_page_heed(): the table (pager/missing.h); from here on memory
 *                           faults, and what comes on the paging connections is placed
 *   COMMIT                  machine.c
 *   paging <──> paused      gw_page_serve(): until nothing is missing. After COMMIT no lost
 *                           connection ends it: the source connects again
 *   running                 memory like any other's; COMPLETE, and the ledger
 *
 * What is pushed may have to be read from a disk of this host first (teleport.h); who touches a
 * page meanwhile has it asked for like any other.
 *
 * A process that takes over finds table and watch, and goes on from there (gw_page_take_over()).
 */
#ifndef GW_PAGE_IN_H
#define GW_PAGE_IN_H

#include "dest.h"
#include "pager.h"
#include "urgency.h"

/** struct gw_dest_page_ops - how the pages of a real QEMU, or a simulated one, are reached. */
struct gw_dest_page_ops {
	/* Where the table lies, or is to. */
	const char *(*table)(void *env);
	/*
	 * Memory faults from here on; gw_pager_fault() is told, by threads that may begin
	 * with faults that somebody else was told before. Until halt.
	 */
	int (*start)(void *env, struct gw_pager *p);
	void (*halt)(void *env);
	/* Nothing is missing: memory does not fault any more. */
	int (*stop)(void *env);
	/* As in struct gw_pager_ops. */
	int (*map)(void *env, size_t page, size_t count, size_t *mapped);
	int (*map_zero)(void *env, size_t page);
	void (*wake)(void *env, size_t page, size_t count);
	/* Everybody who waits tries again. */
	void (*wake_all)(void *env);
	/* Of how many vCPUs the faults are told apart. */
	unsigned int (*vcpus)(void *env);
	/* The calling thread's; in a simulation it means nothing. */
	void (*urgency)(void *env, enum gw_urgency urgency);
	/*
	 * The source's paging connections 0 to @n - 1, answered already, once all of them have
	 * come; whatever came before is closed. False: they are not all there.
	 */
	bool (*connections)(void *env, struct gw_transport **t, unsigned int n);
	/* Whether all of them have come. */
	bool (*called)(void *env, unsigned int n);
	/*
	 * Whether to go on: 0; -ECHILD: QEMU was killed, or crashed; -ECANCELED: its guest has
	 * powered off, or it was told to end here, and has; -ESTALE: another process is to go on.
	 * With a message.
	 */
	int (*look)(void *env);
};

/** gw_page_heed() - a MISSING or MISSING_END is in the inbox. 0 or -errno. */
int gw_page_heed(struct gw_dest *d);

/** gw_page_failed() - before COMMIT: 0, or why it cannot go on. */
int gw_page_failed(struct gw_dest *d);

/** gw_page_sealed() - whether all that is missing was said, so that memory faults. */
bool gw_page_sealed(const struct gw_dest *d);

/** gw_page_missing() - whether memory faults at @page. */
bool gw_page_missing(const struct gw_dest *d, size_t page);

/**
 * gw_page_pump() - serve, and mend connections, until @deadline (ns), or with GW_FOREVER until
 * nothing is missing. Return: 0, or -errno: as ops->look().
 */
int gw_page_pump(struct gw_dest *d, int64_t deadline);

/**
 * gw_page_serve() - serve a guest that runs here until nothing is missing, then tell the source,
 * and take the ledger.
 * Return: 0: the VM is like any other; or as ops->look(), and its memory may not be whole.
 */
int gw_page_serve(struct gw_dest *d);

/**
 * gw_page_take_over() - serve what another process has left. @d->memory is set.
 * Return: 0 or -errno; gw_page_end() in the first case.
 */
int gw_page_take_over(struct gw_dest *d);

/** gw_page_end() - end all that works for it. Harmless where nothing does. */
void gw_page_end(struct gw_dest *d);

/** struct gw_page_status - how it stands. */
struct gw_page_status {
	size_t missing; /* pages */
	bool connected;
	uint64_t received; /* bytes, in this process */
	uint64_t faults[GW_FAULT_NUMBERS];
};

/** gw_page_status() - false: there is no post-copy. Any thread that may call ops->report. */
bool gw_page_status(const struct gw_dest *d, struct gw_page_status *status);

#endif
