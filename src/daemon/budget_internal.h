/* SPDX-License-Identifier: GPL-2.0-or-later */
/* budget_internal.h - what budget.c (VMs of this host) and budget_held.c (of others) share. */
#ifndef GW_BUDGET_INTERNAL_H
#define GW_BUDGET_INTERNAL_H

#include "budget.h"

/* What the VMs of this host were promised, and what they have; but for one of them. */
struct gw_account {
	uint64_t promised;     /* by Godwit: not to those that were attached */
	uint64_t used;	       /* of it */
	uint64_t expected[2];  /* and not used yet, in ram and ram_small */
	uint64_t expected_all; /* attached VMs included */
	uint64_t held;	       /* of what was promised: to VMs of other hosts */
	/* On disks, beside all that: at all, and in the folder that is in use. */
	uint64_t swapped, swapped_here;
};

static inline uint64_t gw_at_least_zero(uint64_t from, uint64_t what)
{
	return from > what ? from - what : 0;
}

/** gw_budget_stock() - of all VMs but @except (may be NULL). Asks no disk. */
void gw_budget_stock(const struct gw_paths *p, const char *except, struct gw_account *a);

/**
 * gw_budget_lock() - held while it is looked at what is free, and written down who gets it.
 *
 * Return: a descriptor that holds it until closed; -EBUSY; -errno.
 */
int gw_budget_lock(const struct gw_paths *p);

/**
 * gw_budget_room() - what may be promised of one of the folders of RAM files.
 * @used: bytes of it that whoever asks has already
 * @a: what others have
 * @except: whose image goes
 */
uint64_t gw_budget_room(const struct gw_paths *p, bool discards, const char *except,
			const struct gw_account *a, uint64_t used);

#endif
