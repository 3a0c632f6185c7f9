// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_runs.c - a set of pages from a peer into gw_runs_take().
 *
 * The first two bytes are the number of pages that there are. Runs must be
 * ascending, apart and of pages that exist, and come out of a bitmap again as a set
 * of the same pages.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "runs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t out[GW_RUNS_MAX * GW_RUN_LEN];
	size_t end, first = 0, count = 0, last = 0, total = 0, at = 0, pages;
	struct gw_bitmap map;
	struct gw_reader r;
	int rc;

	if (size < 2)
		return 0;
	end = gw_get16(data) + 1UL;
	r = (struct gw_reader){ data + 2, size - 2 };
	if (gw_bitmap_init(&map, end))
		abort();
	while ((rc = gw_runs_take(&r, end, &first, &count)) > 0) {
		if (first < last || !count || first + count > end)
			abort();
		last = first + count;
		total += count;
		gw_bitmap_set_range(&map, first, count);
	}
	if (rc != 0 && rc != -EPROTO)
		abort();
	while (gw_runs_put(&map, &at, SIZE_MAX, &pages, out)) {
		if (pages > total)
			abort();
		total -= pages;
	}
	if (total)
		abort();
	gw_bitmap_free(&map);
	return 0;
}
