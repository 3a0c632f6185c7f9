// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * converge.c - when to switch over: by what finishing now would cost.
 *
 * cost = wire bytes of the due pages / bandwidth + device state + resume.
 * Pages that do not travel because they did not change must still be read and
 * hashed, so it is at least what that took. All measured, in the rounds so far.
 */
#include <errno.h>

#include "clock.h"
#include "error.h"
#include "internal.h"

/* Rounds without an improvement of a tenth after which there will be none. */
#define PATIENCE 12

int64_t gw_converge_cost(const struct gw_source *s, uint64_t pages)
{
	double bytes = (double)pages * (s->wire_per_page > 0 ? s->wire_per_page : GW_PAGE_SIZE);
	double bandwidth = s->bandwidth ? (double)s->bandwidth : 100e6;
	double wire = bytes / bandwidth * GW_S, work = (double)pages * s->page_ns;

	return GW_SOURCE_FIXED_MS * GW_MS + (int64_t)(wire > work ? wire : work);
}

int gw_converge_check(struct gw_source *s, struct gw_converge *c, int64_t cost)
{
	if (c->best == INT64_MAX || cost < c->best - c->best / 10) {
		c->best = cost;
		c->idle = 0;
		return 0;
	}
	/* Rounds within the limit (quiesced ones) end by themselves. */
	if (cost <= s->params.downtime_limit_ms * GW_MS || ++c->idle < PATIENCE)
		return 0;
	return gw_fail(-ETIME,
		       "the guest writes memory faster than it can be moved: %.0f MiB/s against "
		       "%.0f MiB/s, so the downtime would be %lld ms where %u ms are allowed; use "
		       "--downtime-limit %lld, more bandwidth, or a quieter moment",
		       s->dirty_rate * GW_PAGE_SIZE / 1048576, (double)s->bandwidth / 1048576,
		       (long long)(c->best / GW_MS), s->params.downtime_limit_ms,
		       (long long)(c->best / GW_MS * 3 / 2));
}
