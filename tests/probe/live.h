/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * live.h - what the probes of a running QEMU share: track_guest.c, page_guest.c.
 *
 * They attach to it by its monitor, as Godwit does, and say what they found on
 * standard output; whether the guest suffered, its own console tells
 * (guests.py).
 */
#ifndef GW_PROBE_LIVE_H
#define GW_PROBE_LIVE_H

#include <stdbool.h>
#include <sys/types.h>

#include "attach.h"
#include "qmp.h"
#include "ram.h"
#include "tracker.h"

struct live {
	struct gw_qmp *qmp;
	pid_t pid;
	struct gw_ram ram;
	uint8_t *mem; /* our mapping of the first RAM file */
	uint64_t hva; /* QEMU's */
	size_t pages;
	struct gw_track_range range;
};

/** live_attach() - attach to the QEMU at monitor socket @path, or end with a message. */
void live_attach(struct live *l, const char *path);

/** live_need() - end with the recorded message if @rc is a failure. */
void live_need(int rc, const char *what);

/** live_assert() - end with @complaint unless @good. */
void live_assert(bool good, const char *complaint, ...) __attribute__((format(printf, 2, 3)));

#endif
