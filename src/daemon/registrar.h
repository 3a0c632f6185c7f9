/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * registrar.h - the daemon's dealings with registries, each in a process of its own.
 *
 * It reports: every GW_REPORT_S, and when VMs have come or gone, a process tells
 * the registry of this host (--registry) how the host is, and compares the VMs
 * that are here with those that the registry has here. That puts right whatever
 * was not told in time: by a worker that died, while the registry was away, or
 * by a QEMU that ended by itself.
 *
 * It serves: where that registry is a database on this host, other hosts may
 * use it (OPEN of kind registry), a process for each connection, with a short
 * life, and GW_REGISTRY_CLIENTS of them at most.
 *
 * Rules: the daemon waits for none of them, and they end with it. Each event is
 * logged once, not every GW_REPORT_S.
 */
#ifndef GW_REGISTRAR_H
#define GW_REGISTRAR_H

#include <stdint.h>

#include "paths.h"

#define GW_REPORT_S	    10
#define GW_REGISTRY_CLIENTS 64

/*
 * A folder that is gone may belong to a VM that has just left, whose claim its
 * worker is about to hand on: claims are left alone for so long after a change.
 */
#define GW_CALM_S 3

struct gw_registrar;

/**
 * gw_registrar_new() - begin to report.
 * @host: this host's name
 * @address: where it listens, NULL: nowhere
 *
 * NULL only without memory. Both, and @paths, must live as long.
 */
struct gw_registrar *gw_registrar_new(const struct gw_paths *paths, const char *host,
				      const char *address);

/** gw_registrar_free() - end its processes. */
void gw_registrar_free(struct gw_registrar *r);

/** gw_registrar_tick() - now and then: start what is due, see what has ended. */
void gw_registrar_tick(struct gw_registrar *r);

/**
 * gw_registrar_serve() - answer the queries of a connection that began with OPEN.
 * @conn: owned by it from here
 *
 * Return: 0, or -errno with what the caller may be told; @conn is open then.
 */
int gw_registrar_serve(struct gw_registrar *r, int conn, uint16_t version);

#endif
