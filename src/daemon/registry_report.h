/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * registry_report.h - what a worker tells the registry of its VM.
 *
 * Rules: only a claim that another host holds is a failure. Whatever else goes
 * wrong with a registry is logged and costs nothing but predictions, and at most
 * GW_REGISTRY_MS: one call that fails is the last. What was not told, or told in
 * the wrong order, registrar.c puts right within seconds.
 */
#ifndef GW_REGISTRY_REPORT_H
#define GW_REGISTRY_REPORT_H

#include <stdint.h>

#include "ledger.h"
#include "source.h"
#include "worker.h"

/**
 * gw_report_claim() - VM @name, whose folder is made, is to be on this host.
 *
 * Return: 0, also if the registry cannot be asked; -EEXIST: another host, which
 * the message names, has a VM of that name.
 */
int gw_report_claim(const struct gw_worker *w, const char *name);

/** gw_report_release() - VM @name is not on this host any more. Keeps the recorded message. */
void gw_report_release(const struct gw_worker *w, const char *name);

/**
 * gw_report_departure() - VM @name has left for good: its claim goes with it.
 * @s: the migration, completed; its memory still open
 * @address: where it went
 * @ledger: of this departure; NULL: none was kept, so that nothing can be reused
 * @image_bytes: that its image takes on this host; 0: no image was kept
 *
 * Tells too what the migration measured: the link, and what the next move will
 * cost. To a host that does not report to this registry nothing is handed on:
 * then the claim is released.
 */
void gw_report_departure(const struct gw_worker *w, const struct gw_source *s, const char *name,
			 const char *address, const struct gw_ledger *ledger, uint64_t image_bytes);

/** gw_report_image_gone() - this host keeps no image of VM @name any more. */
void gw_report_image_gone(const struct gw_worker *w, const char *name);

#endif
