/* SPDX-License-Identifier: GPL-2.0-or-later */
/* spread_internal.h - what spread.c (pages) and spread_open.c (hosts, the plan) share. */
#ifndef GW_SPREAD_INTERNAL_H
#define GW_SPREAD_INTERNAL_H

#include "spread.h"

/** gw_sub_close() - its connections. */
void gw_sub_close(struct gw_sub *sub);

#endif
