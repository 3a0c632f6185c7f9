// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * converge.c - when to switch over: by what finishing now would cost.
 *
 * cost = wire bytes of the due pages / bandwidth + the final scan + device state
 * + resume + the answers that are waited for. Device state is what QEMU sends by
 * itself, a display's memory too; what it takes besides, with stop and resume, the VM's
 * last moves have shown (wire/legs.h).
 * Pages that do not travel because they did not change must still be read and
 * hashed, so it is at least what that took. All measured, in the rounds so far.
 *
 * The first cost within the limit need not be the last: a round that takes less
 * than the limit costs the guest nothing, so there are more of them as long as
 * each lowers the cost by a fifth.
 */
#include <errno.h>

#include "clock.h"
#include "error.h"
#include "internal.h"

/* Rounds without an improvement of a tenth after which there will be none... */
#define PATIENCE 12

/* ...and where giving up costs no more than the guest's waiting for some of its pages. */
#define PATIENCE_POSTCOPY 2

/* Rounds beyond the first within the limit. */
#define EXTRA_MAX 8

/* Rounds after which a display whose memory does not fit will not be cleared any more. */
#define HEAVY_MAX 3

/* Without a measurement; a round that tells has at least a MiB. */
#define BANDWIDTH_ASSUMED 100e6

/* GW_SOURCE_FIXED_MS has room for the scan of a small guest. */
#define SCAN_INCLUDED_NS (5 * GW_MS)

/* GW_SOURCE_FIXED_MS has room for the answers of a local network. */
#define ANSWERS_INCLUDED_NS (2 * GW_MS)

static int64_t answers_ns(const struct gw_source *s)
{
	const int64_t ns = (int64_t)((double)s->holder.round_trip * GW_SWITCHOVER_TRIPS);

	return ns > ANSWERS_INCLUDED_NS ? ns - ANSWERS_INCLUDED_NS : 0;
}

static double bandwidth_of(const struct gw_holder *h)
{
	return h->bandwidth ? (double)h->bandwidth : BANDWIDTH_ASSUMED;
}

static int64_t device_ns(const struct gw_source *s)
{
	return (int64_t)((double)s->device_weight / bandwidth_of(&s->holder) * GW_S);
}

/*
 * What the last moves took beyond @known, in the middle. They were on other hosts and
 * networks: at most half of what is left of the limit, so that they forbid no move.
 */
static int64_t legs_ns(const struct gw_source *s, int64_t known)
{
	const int64_t limit = s->params.downtime_limit_ms * GW_MS;
	const int64_t room = limit > known ? (limit - known) / 2 : 0;
	const int64_t more = gw_legs_median(&s->legs) * GW_US - GW_SOURCE_FIXED_MS * GW_MS;

	return more <= 0 ? 0 : more < room ? more : room;
}

/* What was written to disks that are copied, and is not there yet. */
static int64_t storage_ns(const struct gw_source *s)
{
	return (int64_t)((double)s->storage_left / bandwidth_of(&s->holder) * GW_S);
}

int64_t gw_converge_fixed(const struct gw_source *s)
{
	const int64_t scan = s->scan_ns > SCAN_INCLUDED_NS ? s->scan_ns - SCAN_INCLUDED_NS : 0;
	const int64_t known = GW_SOURCE_FIXED_MS * GW_MS + device_ns(s) + scan + answers_ns(s);

	return known + legs_ns(s, known) + storage_ns(s);
}

uint64_t gw_converge_leg(const struct gw_source *s, int64_t handover)
{
	const int64_t scan = s->scan_ns < SCAN_INCLUDED_NS ? s->scan_ns : SCAN_INCLUDED_NS;
	const int64_t state = handover > device_ns(s) ? handover - device_ns(s) : 0;
	const int64_t us = (s->stop_ns + scan + state) / GW_US;

	if (!s->runs) /* it missed nothing, and may have been saved before */
		return 0;
	return us < 1 ? 1 : us < GW_LEG_US_MAX ? (uint64_t)us : GW_LEG_US_MAX;
}

int64_t gw_converge_cost(const struct gw_source *s, uint64_t pages)
{
	double bytes = (double)pages *
		       (s->holder.wire_per_page > 0 ? s->holder.wire_per_page : GW_PAGE_SIZE);
	double wire = bytes / bandwidth_of(&s->holder) * GW_S,
	       work = (double)pages * s->holder.page_ns;

	return gw_converge_fixed(s) + (int64_t)(wire > work ? wire : work);
}

size_t gw_converge_fits(const struct gw_source *s)
{
	const int64_t room = s->params.downtime_limit_ms * GW_MS - gw_converge_fixed(s);
	const double page = (double)(gw_converge_cost(s, 1000) - gw_converge_fixed(s)) / 1000;

	return room > 0 && page > 0 ? (size_t)((double)room / page) : 0;
}

bool gw_converge_enough(const struct gw_source *s, struct gw_converge *c, int64_t cost)
{
	const int64_t before = c->within;

	c->within = cost;
	/* All that is due is less than a fifth: no round can win that much. */
	if (cost - gw_converge_fixed(s) < cost / 5)
		return true;
	if (before && (cost > before - before / 5 || c->extra >= EXTRA_MAX))
		return true;
	c->extra++;
	return false;
}

static int too_heavy(const struct gw_source *s, int64_t fixed)
{
	return gw_fail(-ERANGE,
		       "QEMU itself has %.1f MiB to send while the guest stands still, memory of "
		       "a display for the most part: at %.0f MiB/s the downtime would be %lld ms "
		       "where %u ms are allowed; use --downtime-limit %lld, more bandwidth, or a "
		       "display with less memory",
		       (double)s->device_weight / 1048576, (double)s->holder.bandwidth / 1048576,
		       (long long)(fixed / GW_MS), s->params.downtime_limit_ms,
		       (long long)(fixed / GW_MS * 3 / 2));
}

static int too_far(const struct gw_source *s, int64_t least)
{
	return gw_fail(-ERANGE,
		       "the destination is %lld ms away (there and back), so that the downtime "
		       "would be at least %lld ms where %u ms are allowed; use --downtime-limit "
		       "%lld",
		       (long long)(s->holder.round_trip / GW_MS), (long long)(least / GW_MS),
		       s->params.downtime_limit_ms, (long long)(least / GW_MS * 2));
}

/*
 * What a guest writes again in a time grows with it, but ever slower. So if in the time for
 * which it may stand still it writes more than is sent, each round leaves more than fits.
 */
bool gw_converge_never(const struct gw_source *s, int64_t ns, int64_t since_scan, uint64_t written)
{
	const double share = (double)ns / (double)since_scan;

	return ns >= s->params.downtime_limit_ms * GW_MS &&
	       (double)written * share > (double)s->done_pages;
}

bool gw_converge_behind(const struct gw_source *s, const struct gw_converge *c, int64_t now,
			uint64_t written)
{
	const unsigned int rounds = s->nr_rounds < GW_ROUNDS_KEPT ? s->nr_rounds : GW_ROUNDS_KEPT;

	return s->params.postcopy == GW_POSTCOPY_AUTO && rounds &&
	       gw_converge_never(s, s->rounds[rounds - 1].ns, now - c->last_scan, written);
}

int gw_converge_check(struct gw_source *s, struct gw_converge *c, int64_t cost)
{
	const int64_t limit = s->params.downtime_limit_ms * GW_MS, fixed = gw_converge_fixed(s);
	const int64_t least = GW_SOURCE_FIXED_MS * GW_MS + answers_ns(s);
	const bool postcopy = s->params.postcopy == GW_POSTCOPY_AUTO;
	int64_t least_cost;

	if (answers_ns(s) && least > limit)
		return too_far(s, least);
	/* It was within the limit and is no longer: next time it is taken at once. */
	if (c->within && cost > limit)
		c->extra = EXTRA_MAX;
	c->heavy = s->holder.bandwidth && s->device_weight && fixed - storage_ns(s) > limit
			   ? c->heavy + 1
			   : 0;
	if (c->heavy > HEAVY_MAX)
		return too_heavy(s, fixed);
	if (c->best == INT64_MAX || cost < c->best - c->best / 10) {
		c->best = cost;
		c->idle = 0;
		return 0;
	}
	/* Rounds within the limit (quiesced ones) end by themselves. */
	if (cost <= limit || ++c->idle < (postcopy && !c->heavy ? PATIENCE_POSTCOPY : PATIENCE))
		return 0;
	/* It may have been within the limit once, and was to be lower. */
	least_cost = c->best > limit ? c->best : cost;
	return gw_fail(-ETIME,
		       "the guest writes memory%s faster than it can be moved: %.0f MiB/s against "
		       "%.0f MiB/s, so the downtime would be %lld ms where %u ms are allowed; use "
		       "--downtime-limit %lld, more bandwidth, or a quieter moment",
		       s->storage_left ? ", and its disks," : "",
		       s->dirty_rate * GW_PAGE_SIZE / 1048576,
		       (double)s->holder.bandwidth / 1048576, (long long)(least_cost / GW_MS),
		       s->params.downtime_limit_ms, (long long)(least_cost / GW_MS * 3 / 2));
}
