/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * saved.h - the device state of a guest that is paused, kept until it has moved.
 *
 * Once QEMU has saved its device state, a guest that did not run is in state
 * `postmigrate`, and QEMU does not save it again. If the move fails after that,
 * the state that was saved stays the guest's state as long as it does not run:
 * it lies in the VM's folder, in device.state, with device.json beside it, and
 * the next migration sends it.
 *
 * device.json says of which moment it is: the process, QEMU's own account of
 * that migration, the processors' registers, and the devices and disks
 * (vm/live.h). If any of it has changed, the state is not used.
 */
#ifndef GW_SAVED_H
#define GW_SAVED_H

#include "source_env.h"

/**
 * gw_saved_make() - read the device state that QEMU saves now to its end, and keep it.
 *
 * @e->device becomes the file, at its beginning. The guest does not run, so
 * nobody waits.
 */
int gw_saved_make(struct gw_source_env *e);

/**
 * gw_saved_find() - the state that was kept, if it is still the guest's.
 *
 * Return: an open file, or -ENOENT with a message.
 */
int gw_saved_find(const struct gw_source_env *e);

/** gw_saved_drop() - the guest has run since, or may run. */
void gw_saved_drop(const struct gw_source_env *e);

#endif
