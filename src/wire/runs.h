/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * runs.h - a set of pages in a message: runs of pages in a row, ascending.
 *
 *   bytes
 *       8  first page
 *       4  how many, at least 1
 */
#ifndef GW_RUNS_H
#define GW_RUNS_H

#include "bitmap.h"
#include "codec.h"

#define GW_RUN_LEN  12UL
#define GW_RUNS_MAX 4096UL /* in one message */

/**
 * gw_runs_put() - the next pages of @map, as a message's payload.
 * @at: where to begin; moves behind them
 * @most: pages at most
 * @pages: set to how many they are
 * @out: GW_RUNS_MAX * GW_RUN_LEN bytes
 *
 * Return: bytes; 0 if no page is left.
 */
size_t gw_runs_put(const struct gw_bitmap *map, size_t *at, size_t most, size_t *pages,
		   uint8_t *out);

/** gw_run_put() - one run, GW_RUN_LEN bytes at @out. */
static inline void gw_run_put(uint8_t *out, size_t first, size_t count)
{
	gw_put64(out, first);
	gw_put32(out + 8, (uint32_t)count);
}

/**
 * gw_runs_list() - @n pages, ascending, as a message's payload.
 * @out: n * GW_RUN_LEN bytes
 * Return: bytes.
 */
size_t gw_runs_list(const size_t *pages, unsigned int n, uint8_t *out);

/**
 * gw_runs_take() - the next run of a payload.
 * @end: number of pages that there are
 * @first, @count: the run before (0 and 0 at the start), then this one
 *
 * Return: 1, 0 at the payload's end, or -EPROTO with a message.
 */
int gw_runs_take(struct gw_reader *r, size_t end, size_t *first, size_t *count);

#endif
