/* SPDX-License-Identifier: GPL-2.0-or-later */
/* host.h - what this host says of itself: to the registry, and to "godwit hosts". */
#ifndef GW_DAEMON_HOST_H
#define GW_DAEMON_HOST_H

#include "paths.h"
#include "registry.h"

/**
 * gw_host_look() - how this host stands now.
 * @name: what it calls itself
 * @address: where others reach it; "": nowhere
 *
 * What cannot be told is 0: it serves predictions.
 */
void gw_host_look(const struct gw_paths *p, const char *name, const char *address,
		  struct gw_host_record *host);

#endif
