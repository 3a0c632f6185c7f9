/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * legs.h - what the last moves of a VM took while it stood still, beyond its pages.
 *
 * The list travels with the VM (DEFINE) and lies in its record: what stopping it, its
 * device state and resuming it take is a matter of its devices more than of its hosts.
 *
 * Rules: a hint, and no more. It comes from a peer, so what is out of bounds is left out
 * (invariant 10), and nothing that is believed of it forbids a move (converge.c).
 */
#ifndef GW_LEGS_H
#define GW_LEGS_H

#include <jansson.h>
#include <stdint.h>

/* Of the last so many moves, each at most so long, in µs. */
#define GW_LEGS_MAX   5
#define GW_LEG_US_MAX 60000000

/** struct gw_legs - newest first, in µs. */
struct gw_legs {
	unsigned int nr;
	uint32_t us[GW_LEGS_MAX];
};

/** gw_legs_add() - one more, as the newest; the oldest is forgotten. 0 and what is absurd: not. */
void gw_legs_add(struct gw_legs *l, uint64_t us);

/** gw_legs_median() - in µs; 0: there are none. Of two in the middle the lower. */
uint32_t gw_legs_median(const struct gw_legs *l);

/** gw_legs_json() - the list as it travels, and is written down; the caller's, NULL: no memory. */
json_t *gw_legs_json(const struct gw_legs *l);

/** gw_legs_parse() - the reverse, of anything whatever: what is none is left out. */
void gw_legs_parse(struct gw_legs *l, const json_t *list);

#endif
