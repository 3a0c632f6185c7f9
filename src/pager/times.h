/* SPDX-License-Identifier: GPL-2.0-or-later */
/* times.h - somebody waits for a page of a guest, and for how long. */
#ifndef GW_TIMES_H
#define GW_TIMES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "faults.h"

/* Faults that one read of a userfaultfd brings at most. */
#define GW_FAULTS_MAX 64

#define GW_LATENCIES GW_FAULT_LATENCIES

/** struct gw_fault - somebody waits for a page: a vCPU, or whoever else in QEMU. */
struct gw_fault {
	size_t page;
	unsigned int vcpu;
	bool protected; /* it is there, and may not be written */
};

#define GW_NO_VCPU (~0U)

/** struct gw_fault_stats - latencies: from fault to going on. */
struct gw_fault_stats {
	uint64_t faults;   /* the same page once */
	uint64_t measured; /* of these, for how many the latency is known */
	uint64_t sum_ns, most_ns;
	uint64_t latency[GW_LATENCIES];
	struct {
		uint64_t measured, sum_ns;
	} vcpus[GW_FAULT_VCPUS_MAX]; /* of a page, whoever waited first */
};

#define GW_FAULTS_TIMED 256

/** struct gw_fault_times - the faults that somebody waits for just now, as many as there is room.
 */
struct gw_fault_times {
	pthread_mutex_t lock; /* of all */
	struct gw_fault_stats stats;
	struct {
		struct gw_fault fault;
		int64_t since; /* 0: free */
	} timed[GW_FAULTS_TIMED];
};

void gw_fault_times_init(struct gw_fault_times *t);
void gw_fault_times_free(struct gw_fault_times *t);

/** gw_fault_begins() - at @now (ns). Any thread, as the next two. */
void gw_fault_begins(struct gw_fault_times *t, const struct gw_fault *fault, int64_t now);

/** gw_fault_ends() - who waited for @page goes on. */
void gw_fault_ends(struct gw_fault_times *t, size_t page, int64_t now);

/** gw_fault_stats() - a copy. */
void gw_fault_stats(struct gw_fault_times *t, struct gw_fault_stats *stats);

#endif
