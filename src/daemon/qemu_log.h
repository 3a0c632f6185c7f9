/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu_log.h - what a QEMU said can be read when its VM's folder is gone.
 *
 *   RUN/vm/NAME/qemu.log    while its VM is here
 *   RUN/log/NAME-TIME.log   the end of it, of a QEMU that ended otherwise than its user wanted;
 *                           TIME (UTC) is when it was started, so that one QEMU has one log
 *
 * Of those so many are kept, for so long (qemu_log.c); who makes too many of them loses the
 * oldest.
 */
#ifndef GW_QEMU_LOG_H
#define GW_QEMU_LOG_H

#include "paths.h"

/** gw_qemu_log_keep() - keep the log of VM @name's QEMU. Its path, free(); NULL: it said nothing.
 */
char *gw_qemu_log_keep(const struct gw_paths *p, const char *name);

/**
 * gw_qemu_said() - keep the log of VM @name's QEMU, and tell in words: "It said: ...; its
 * whole log is HOST:PATH". To follow a sentence. free().
 * @host: our name
 */
char *gw_qemu_said(const struct gw_paths *p, const char *host, const char *name);

/** gw_qemu_logs_prune() - remove what is too old, or too many. */
void gw_qemu_logs_prune(const struct gw_paths *p);

#endif
