// SPDX-License-Identifier: GPL-2.0-or-later
/* runs.c - sets of pages in messages; see runs.h. */
#include <errno.h>

#include "error.h"
#include "runs.h"

size_t gw_runs_put(const struct gw_bitmap *map, size_t *at, size_t most, size_t *pages,
		   uint8_t *out)
{
	size_t len = 0, start, stop;

	*pages = 0;
	while (len < GW_RUNS_MAX * GW_RUN_LEN && *pages < most) {
		start = gw_bitmap_next(map, *at, map->bits, true);
		if (start == map->bits)
			break;
		stop = gw_bitmap_next(map, start, map->bits, false);
		if (stop - start > most - *pages)
			stop = start + most - *pages;
		gw_run_put(out + len, start, stop - start);
		len += GW_RUN_LEN;
		*pages += stop - start;
		*at = stop;
	}
	return len;
}

size_t gw_runs_list(const size_t *pages, unsigned int n, uint8_t *out)
{
	size_t len = 0;

	for (unsigned int i = 0, count; i < n; i += count, len += GW_RUN_LEN) {
		for (count = 1; i + count < n && pages[i + count] == pages[i] + count;)
			count++;
		gw_run_put(out + len, pages[i], count);
	}
	return len;
}

int gw_runs_take(struct gw_reader *r, size_t end, size_t *first, size_t *count)
{
	const uint8_t *run = gw_take(r, GW_RUN_LEN);
	const size_t least = *first + *count;

	if (!run && !r->left)
		return 0;
	*first = run ? gw_get64(run) : 0;
	*count = run ? gw_get32(run + 8) : 0;
	if (!run || !*count || *first < least || *first >= end || *count > end - *first)
		return gw_fail(-EPROTO, "a set of pages that cannot be");
	return 1;
}
