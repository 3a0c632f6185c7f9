/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * carried.h - a guest that is split before it moves (source/carried.h): a model of its pager at the
 * source, and of what its sub-hosts hold. Units leave and pages come at any moment that the real
 * one allows; what the destination is told must be what lies there when the guest has left.
 */
#ifndef SIM_CARRIED_H
#define SIM_CARRIED_H

#include "source.h"

#define CARRIED_SUBS 2
#define CARRIED_UNIT 64

/** carried_init() - after the guest's memory, of a scenario that is carried. */
void carried_init(void);
void carried_free(void);

/** carried_of() - for the source machine; NULL: it is not carried. */
struct gw_carried *carried_of(void);

/** carried_touch() - the guest, or its QEMU, is about to look at @page. */
void carried_touch(size_t page);

/** carried_tick() - let its pager work up to the present. */
void carried_tick(void);

/** carried_back() - another process pages it here from now on, as if nothing had been frozen. */
void carried_back(void);

/** carried_compare() - whether the destination has all of it, here or at the sub-hosts. */
void carried_compare(void);

/** carried_load() - the destination's QEMU looks at some pages, which come from the sub-hosts. */
void carried_load(void);

/** carried_check() - whether all of it is somewhere, and nothing is frozen that runs here. */
void carried_check(void);

/* Ops. */
int carried_freeze(void *env);
int carried_leave(void *env);
void carried_thaw(void *env);

#endif
