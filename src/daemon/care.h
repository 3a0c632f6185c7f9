/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * care.h - which VMs need no looking after for now.
 *
 * The daemon looks after its VMs twice a second (gw_jobs_sweep()). One whose QEMU runs,
 * that does not move and that nobody works on needs that only when its QEMU ends, which a
 * pidfd tells at once; and now and then, in case that something changed behind our back (a
 * worker of an earlier godwitd). So an idle host of a thousand VMs costs next to nothing.
 */
#ifndef GW_CARE_H
#define GW_CARE_H

#include <stdbool.h>

#include "loop.h"
#include "paths.h"

struct gw_care;

struct gw_care *gw_care_new(struct gw_loop *loop, const struct gw_paths *paths);
void gw_care_free(struct gw_care *care);

/** gw_care_idle() - whether no VM at all needs to be looked after now: then, no sweep. */
bool gw_care_idle(struct gw_care *care);

/** gw_care_wake() - something begins or ends on VM @name (empty: on one that is not known). */
void gw_care_wake(struct gw_care *care, const char *name);

/** gw_care_quiet() - whether VM @name need not be looked after now. */
bool gw_care_quiet(struct gw_care *care, const char *name);

/** gw_care_looked() - VM @name has just been looked after, and no job works on it. */
void gw_care_looked(struct gw_care *care, const char *name);

/** gw_care_forget() - the end of a sweep: VMs that it did not ask of are gone. */
void gw_care_forget(struct gw_care *care);

#endif
