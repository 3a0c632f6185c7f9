/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * faults.h - what a destination tells of the pages that its guest has waited for: FAULTS.
 *
 * A list of numbers, of 64 bits each. A later release may append some, which are not read; those
 * that an older one does not tell are 0.
 *
 * Rules: only shown to people; nothing is decided by it, since it comes from a peer (invariant 10).
 */
#ifndef GW_FAULTS_H
#define GW_FAULTS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Latencies of [2^n, 2^(n+1)) us; the first is of all below 2, the last of all from 2^23 on. */
#define GW_FAULT_LATENCIES 24

/* The first vCPUs: whose latency is told by itself. */
#define GW_FAULT_VCPUS_MAX 64

enum gw_fault_number {
	GW_FAULT_ALL,	   /* pages that were missing and that somebody touched */
	GW_FAULT_LOCAL,	   /* faults on pages that were there */
	GW_FAULT_MEASURED, /* of the first, for how many it is known how long that took */
	GW_FAULT_SUM_NS,   /* how long, together */
	GW_FAULT_MOST_NS,
	GW_FAULT_PER_S, /* of the first, in the last second */
	GW_FAULT_LATENCY,
	/* Of each vCPU's, the mean in ns (0: none), and how many of these there are. */
	GW_FAULT_VCPUS = GW_FAULT_LATENCY + GW_FAULT_LATENCIES,
	GW_FAULT_VCPU_NS,
	GW_FAULT_NUMBERS = GW_FAULT_VCPU_NS + GW_FAULT_VCPUS_MAX,
};

#define GW_FAULTS_LEN	(8UL * GW_FAULT_NUMBERS)
#define GW_FAULTS_LEAST (8UL * GW_FAULT_VCPUS) /* what the first release told */

/** gw_faults_encode() - @numbers as they travel. */
void gw_faults_encode(const uint64_t numbers[GW_FAULT_NUMBERS], uint8_t wire[GW_FAULTS_LEN]);

/** gw_faults_decode() - the reverse; each is at most INT64_MAX. 0, or -EPROTO with a message. */
int gw_faults_decode(const uint8_t *wire, size_t len, uint64_t numbers[GW_FAULT_NUMBERS]);

/** gw_faults_json() - add what QEMU's query-migrate has of it, and ours, to @ram. */
void gw_faults_json(const uint64_t numbers[GW_FAULT_NUMBERS], json_t *ram);

#endif
