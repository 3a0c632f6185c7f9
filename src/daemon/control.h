/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control.h - the daemon's end of RUN/control.sock, which the CLI speaks to.
 *
 * One JSON object per line, as in QMP:
 *
 *   {"execute":"migrate","arguments":{"name":"web1","address":"10.0.0.2:7373"}}
 *   <- {"progress":{...}}           any number, for migrate
 *   <- {"return":...} or {"error":"text","status":{...}?}    once
 *
 * Commands: those of jobs.h, and "status", "cancel", "version", which the
 * daemon answers itself. A client may go at any time; what it began goes on. One that
 * does not read loses progress, and finds its answer when it reads again; its next
 * request waits until then.
 */
#ifndef GW_CONTROL_H
#define GW_CONTROL_H

#include "jobs.h"
#include "loop.h"
#include "paths.h"

struct gw_control;

/** gw_control_new() - listen. NULL with a message. */
struct gw_control *gw_control_new(struct gw_loop *loop, struct gw_jobs *jobs,
				  const struct gw_paths *paths);
void gw_control_free(struct gw_control *c);

#endif
