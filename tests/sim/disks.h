/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disks.h - disks of which a guest caches blocks, and who says which page holds which.
 *
 * The guest reads blocks into pages, and writes some of them later: to the page alone, or to the
 * page and the disk. The source is told where it read them, truly or not; the destination's disks
 * are the same but for some blocks, slow now and then, and may fail or hang.
 */
#ifndef SIM_DISKS_H
#define SIM_DISKS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"
#include "hints.h"

/** disks_init() - with the guest's memory there, of which some becomes what disks hold. */
void disks_init(void);
void disks_free(void);

/** disks_fill() - the guest reads a block into @page. */
void disks_fill(struct guest *g, size_t page);

/** disks_changed() - it has written @bytes to @page, and perhaps to the disk, too. */
void disks_changed(struct guest *g, size_t page);

/* Ops of the two hosts. */
int disks_hints(void *env, const json_t *disks, uint64_t due, struct gw_hints *hints);
void disks_hints_again(void *env, int64_t ns, int64_t left_ns);
void disks_fetch(void *env, unsigned int disk, uint64_t offset, size_t len,
		 void (*done)(void *arg, const uint8_t *bytes), void *arg);
void disks_fetch_end(void *env);

#endif
