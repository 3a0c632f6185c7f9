/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * activate.h - the disks of a guest that came here and has not run here yet.
 *
 * With late-block-activate, which Godwit needs so that two QEMUs never hold one
 * image open for writing, QEMU leaves them inactive until `cont`. A paused guest
 * may never see one: its next migration, and a snapshot, then end in a failed
 * assertion of QEMU's (7.2: bdrv_inactivate_recurse) and the guest is lost.
 */
#ifndef GW_ACTIVATE_H
#define GW_ACTIVATE_H

#include "qmp.h"

/**
 * gw_disks_activate() - make a paused guest's disks as usable as if it had run.
 *
 * Only for a guest that belongs here (invariant 1): QEMU takes the images'
 * locks. Harmless where they are active. No instruction of the guest runs.
 */
int gw_disks_activate(struct gw_qmp *q);

#endif
