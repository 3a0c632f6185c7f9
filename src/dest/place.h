/* SPDX-License-Identifier: GPL-2.0-or-later */
/* place.h - the only code that installs a page of guest memory. */
#ifndef GW_PLACE_H
#define GW_PLACE_H

#include "memory.h"
#include "stage.h"

/** struct gw_place - a sink that writes into memory while the guest does not run. */
struct gw_place {
	struct gw_sink sink;
	const struct gw_memory *memory;
};

/** gw_place_init() - a sink for @memory, which must outlive it. */
void gw_place_init(struct gw_place *p, const struct gw_memory *memory);

#endif
