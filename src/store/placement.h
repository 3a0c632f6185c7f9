/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * placement.h - what moving a VM to a host would cost, and which host is best.
 *
 * Pure functions of what the registry knows; nothing here asks anybody.
 *
 * The formula is that of pre-copy as everybody models it (Liu et al.,
 * "Performance and Energy Modeling for Live Migration of Virtual Machines",
 * HPDC 2011, equations 1 to 5), with two changes: round 1 leaves out what the
 * destination has kept, and a page costs the bytes that it was measured to cost
 * on the wire, not its size: in round 1, where older versions were kept, what such
 * pages cost, if a move has shown that. With
 *
 *   P  pages with data       w  bytes on the wire for a page
 *   R  of these, reused      B  bandwidth, bytes per second
 *   D  pages written per second, none counted twice
 *
 * round 1 sends (P - R) w bytes in t1 = (P - R) w / B. Meanwhile D t1 pages are
 * written, which round 2 sends, and so on: each round takes q = D w / B times as
 * long as the one before, a geometric series. The last round is the first one
 * with t_n + fixed <= downtime limit, by the same estimate that
 * source/converge.c makes of a migration under way. With q >= 1 there may be
 * none: then the guest writes faster than its memory can be moved.
 *
 * Each round ends with a round trip of the link, the setup takes
 * GW_PLACEMENT_SETUP_TRIPS of them, and the switchover GW_SWITCHOVER_TRIPS.
 */
#ifndef GW_PLACEMENT_H
#define GW_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry.h"

/* A link that nobody has measured, where no other was measured either: 1 Gbit/s. */
#define GW_PLACEMENT_BANDWIDTH 125000000ULL

/* Connections, OPEN, DEFINE and the streams' own, one after the other. */
#define GW_PLACEMENT_SETUP_TRIPS 8

/*
 * Bytes of a kept image that its host compares with the ledger in a second, before
 * the first page travels: of 1.1 GiB on two processors (doc/measurements/).
 */
#define GW_PLACEMENT_COMPARED 4e9

/* Rounds after which a plan stops counting. */
#define GW_PLACEMENT_ROUNDS 64

/** struct gw_placement_vm - the VM to be moved. */
struct gw_placement_vm {
	const char *host;		  /* where it is */
	uint64_t pages;			  /* with data: what travels, and what must be free there */
	const struct gw_history *history; /* of these pages: what each departure would find */
	double dirty_rate;		  /* pages per second */
	double setup_ms;		  /* before the first page travels */
	uint64_t device_bytes;
	double wire_per_page;	 /* bytes; 0: not measured, as if nothing were compressed */
	double wire_per_changed; /* where an older version was kept; 0: not measured, as others */
	unsigned int device_ms;	 /* stop, device state, resume */
	unsigned int downtime_limit_ms;
};

/** enum gw_placement_obstacle - why a host cannot take it, in the order of ranking. */
enum gw_placement_obstacle {
	GW_PLACEMENT_FINE,
	GW_PLACEMENT_NEVER_ENDS, /* the guest writes faster than the link */
	GW_PLACEMENT_SILENT,	 /* the host has not reported for GW_REGISTRY_SILENT_S */
	GW_PLACEMENT_NO_MEMORY,
	GW_PLACEMENT_NO_ADDRESS, /* it does not listen */
};

/** struct gw_placement_link - the link to a host. */
struct gw_placement_link {
	uint64_t bandwidth;   /* bytes per second */
	double round_trip_ms; /* 0: not measured */
	bool assumed;	      /* nobody has measured it */
};

/** struct gw_placement - the prediction for one host. */
struct gw_placement {
	const struct gw_host_record *host;
	uint64_t reused; /* pages that it has kept */
	uint64_t travel; /* pages that travel, all rounds together; if that never ends, round 1's */
	uint64_t wire_bytes; /* that they make */
	unsigned int rounds;
	double total_ms, downtime_ms;
	struct gw_placement_link link;
	bool stale; /* it keeps an image that is not in the VM's history */
	enum gw_placement_obstacle obstacle;
};

/**
 * gw_placement_link() - what to take for the link to host @to.
 * @links: all that lead from the VM's host; if that one was never measured the slowest counts
 */
struct gw_placement_link gw_placement_link(const struct gw_link_record *links, size_t nr,
					   const char *to);

/**
 * gw_placement_predict() - what moving @vm to @host would cost.
 * @image: what @host has kept of it, or NULL
 * @link: of gw_placement_link()
 * @now: seconds of the wall clock
 *
 * An image counts only if its departure's number and id are in the VM's history.
 */
struct gw_placement gw_placement_predict(const struct gw_placement_vm *vm,
					 const struct gw_host_record *host,
					 const struct gw_image_record *image,
					 struct gw_placement_link link, int64_t now);

/**
 * gw_placement_rank() - predict for all hosts but the VM's own, best first.
 * @out: as many as there are hosts
 *
 * Those with an obstacle come last, in the order of the obstacles; among equals
 * the shorter total time is better, then the name decides. Return: how many.
 */
size_t gw_placement_rank(const struct gw_placement_vm *vm, const struct gw_host_record *hosts,
			 size_t nr_hosts, const struct gw_image_record *images, size_t nr_images,
			 const struct gw_link_record *links, size_t nr_links, int64_t now,
			 struct gw_placement *out);

/** gw_placement_note() - the obstacle, and what was assumed, in words, into @text. */
const char *gw_placement_note(const struct gw_placement *p, char *text, size_t len);

#endif
