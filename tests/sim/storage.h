/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * storage.h - a guest's disk that is copied with its memory: how much was written to it, and how
 * much of that the destination has. Jobs of QEMU's copy it while it is written to, fail, and take
 * their time.
 */
#ifndef SIM_STORAGE_H
#define SIM_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

struct gw_source_ops;

/** storage_init() - for this run; @wanted is DEFINE's, NULL where nothing is copied. */
void storage_init(void);
void storage_free(void);
const void *storage_wanted(void);

/** storage_stops() - the guest is stopped: it has written until now. */
void storage_stops(void);

/** storage_check() - it is about to run at the destination: all of it is there, for nobody else. */
void storage_check(void);

/* Ops of the two hosts. */
int storage_copy(void *env);
int storage_left(void *env, uint64_t *bytes);
int storage_settle(void *env, int64_t deadline);
int storage_sealed(void *env);

#endif
