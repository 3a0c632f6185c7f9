// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * place.c - the only code that installs a page of guest memory.
 *
 * Before the guest runs here (invariant 6) pages go into the RAM file with
 * pwrite(): no mapping, so no fault and no page-table entry, and a page that
 * is written whole is not zeroed first; where the file system has huge pages
 * one allocation serves 512 pages. Per GiB on the development machine (medians
 * in doc/measurements/): pwrite 290 ms, populate and copy 407 ms; with huge
 * pages 142 ms and 180 ms.
 */
#include "place.h"

static int place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	return gw_memory_write(((struct gw_place *)sink)->memory, page, count, bytes);
}

static int zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	return gw_memory_punch(((struct gw_place *)sink)->memory, page, count);
}

static int read(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	return gw_memory_read(((struct gw_place *)sink)->memory, page, count, bytes);
}

void gw_place_init(struct gw_place *p, const struct gw_memory *memory)
{
	p->sink.place = place;
	p->sink.zero = zero;
	p->sink.read = read;
	p->memory = memory;
}
