/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * swap.h - a folder on a disk for what was promised of VMs' memory and finds no room in this
 * host's (decision 32; promise.h says what lies there).
 *
 *   SWAP/run      a link that says whose it is: the godwitd's RUN
 *   SWAP/ID/      the pages of a promise, in sparse files as on the tmpfs (memserver/store.h)
 *
 * It is memory, and nobody's file: what lies there is as old as the guests, so nothing is synced,
 * and what the host's boot leaves is garbage: a folder without a record in RUN/held, which are made
 * and removed the other way round.
 */
#ifndef GW_SWAP_H
#define GW_SWAP_H

#include "paths.h"

/**
 * gw_swap_open() - use folder @dir, which is made if need be, for @limit bytes.
 *
 * It must be ours (own.h) and no other godwitd's, on a file system that is no memory, and
 * that frees pages of a file one by one and tells which are there.
 *
 * Return: 0 or -errno, with what to do.
 */
int gw_swap_open(struct gw_paths *p, const char *dir, uint64_t limit);

/** gw_swap_tidy() - remove what lies there of promises that there are no more. */
void gw_swap_tidy(const struct gw_paths *p);

/** gw_swap_free() - bytes that its file system has left, beside a reserve. */
uint64_t gw_swap_free(const struct gw_paths *p);

#endif
