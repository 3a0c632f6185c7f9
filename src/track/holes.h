/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holes.h - pages emptied behind the tracker's back (F8). */
#ifndef GW_HOLES_H
#define GW_HOLES_H

#include "bitmap.h"
#include "digest.h"
#include "ram.h"

/**
 * gw_holes_due() - find pages that became holes and that the destination does not hold as zero.
 * @unmapped: pages without an entry in QEMU's page table, from the same scan;
 *            a page with an entry cannot be a hole
 * @held: what the destination holds
 * @due: their bits are set here (invariant 4)
 *
 * Cost: nothing for mapped pages and for pages held as zero; one SEEK_DATA
 * per run of the rest.
 */
void gw_holes_due(const struct gw_ram *ram, const struct gw_bitmap *unmapped,
		  const struct gw_digests *held, struct gw_bitmap *due);

#endif
