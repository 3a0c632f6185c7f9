/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paged.h - a guest that runs at the destination before its memory is there, and what a kernel
 * does for it: who touches a page that no page table has waits, and whoever listens is told.
 *
 * All of memory is compared with what it must be whenever somebody looks at a page of it: what
 * it was when the guest left its source, and what the guest has written since.
 */
#ifndef SIM_PAGED_H
#define SIM_PAGED_H

#include <stdbool.h>
#include <stdint.h>

#include "bitmap.h"
#include "buffers.h"
#include "callers.h"
#include "fiber.h"
#include "messages.h"
#include "rng.h"
#include "transport.h"

#define PAGED_CPUS 3

struct gw_pager;
struct gw_dest_page_ops;

struct paged {
	bool watched;		 /* memory faults */
	unsigned int resumes;	 /* of the source's guest, when it began */
	struct gw_bitmap mapped; /* what page tables have */
	struct buffers must;	 /* what memory is to be */
	struct rng rng;
	int64_t ran_until;
	double debt;
	struct paged_cpu {
		enum paged_state {
			CPU_RUNS,
			CPU_FAULTS, /* and nobody has been told */
			CPU_WAITS,  /* until somebody is woken who knows */
		} state;
		size_t page;
		bool writes;
	} cpu[PAGED_CPUS];
	struct gw_pager *pager; /* who is told */
	bool halting;
	unsigned int listeners;
	struct gw_callers callers; /* connections that the worker has not taken */
	bool connected;		   /* once, at least */
	uint64_t faults, touched, written;
};

extern const struct gw_dest_page_ops paged_ops;

/** paged_tick() - the guest runs up to the present, where it runs here. */
void paged_tick(void);

/** paged_load() - QEMU looks at a page of the guest's. 0, or -errno: it has to wait too long. */
int paged_load(struct process *process, int64_t deadline);

/** paged_missing() - whether @page has not come yet. */
bool paged_missing(size_t page);

/** paged_fits() - whether a connection for pages is to be answered; paged_call() then. */
bool paged_fits(unsigned int index);
void paged_call(struct gw_transport *t, unsigned int index);

/** paged_forget() - connections that nobody has taken. */
void paged_forget(void);

/** paged_check_held() - what is not missing is as the guest left it. */
void paged_check_held(void);

/** paged_check() - memory is whole, and what it must be. */
void paged_check(void);

void paged_free(void);

#endif
