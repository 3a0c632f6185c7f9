// SPDX-License-Identifier: GPL-2.0-or-later
/* split_leave.c - units that leave a split VM; see split.h. What comes to it: split.c. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "split_internal.h"

static bool any_asked(const struct gw_split *s, size_t first, size_t count)
{
	for (size_t page = first; page < first + count; page++)
		if (gw_shared_bit(s->asked, page) || gw_shared_bit(s->wanted, page))
			return true;
	return false;
}

bool gw_split_prepare(struct gw_split *s, size_t unit)
{
	size_t first, count = gw_unit_pages(&s->table.units, unit, &first);
	gw_locked(gw_split_stripe(s, unit));

	if (s->leaving[unit] != GW_UNIT_STAYS || s->frozen || any_asked(s, first, count))
		return s->leaving[unit] == GW_UNIT_PREPARED;
	if (s->ops->protect(s->env, first, count))
		return false;
	s->leaving[unit] = GW_UNIT_PREPARED;
	return true;
}

int gw_split_leave_to(struct gw_split *s, size_t unit, const unsigned int to[GW_COPIES_MAX],
		      struct gw_leaving *l)
{
	int rc;
	gw_locked(gw_split_stripe(s, unit));

	memset(l, 0, sizeof(*l));
	l->unit = unit;
	l->count = gw_unit_pages(&s->table.units, unit, &l->first);
	if (s->leaving[unit] != (s->pinned ? GW_UNIT_PREPARED : GW_UNIT_STAYS) || s->frozen ||
	    any_asked(s, l->first, l->count))
		return 0;
	if (!gw_netpt_places(&s->table, unit, to, l->to))
		return 0;
	rc = s->ops->present(s->env, l->first, l->count, l->pages);
	if (rc || !gw_leaving_pages(l)) {
		if (s->leaving[unit] == GW_UNIT_PREPARED)
			gw_split_keep(s, unit);
		return rc;
	}
	for (unsigned int i = 0; i < GW_COPIES_MAX; i++)
		if (l->to[i] != GW_NO_HOLDER)
			gw_netpt_put(&s->table, unit, i, l->to[i]);
	rc = s->pinned ? 0 : s->ops->protect(s->env, l->first, l->count);
	if (rc) {
		s->ops->touched(s->env, l->first, l->count);
		return rc == -EAGAIN ? 0 : rc;
	}
	gw_split_park(s, GW_SPLIT_PROTECTED, l->first);
	s->leaving[unit] = GW_UNIT_LEAVES;
	gw_split_park(s, GW_SPLIT_LEAVING, l->first);
	return (int)gw_leaving_pages(l);
}

bool gw_split_stays(const struct gw_split *s, const struct gw_leaving *l)
{
	return s->leaving[l->unit] != GW_UNIT_LEAVES;
}

/*
 * All of it is stored, or zero: it is here no more. Its stripe is locked. What is zero is not away:
 * a hole that is here is a page of zeros. It is punched as a whole: a huge page is not torn.
 */
static int punch(struct gw_split *s, const struct gw_leaving *l, unsigned int stored)
{
	uint64_t away[GW_UNIT_WORDS];
	size_t at = 0, run, n;
	int rc;

	gw_leaving_sent(l, !(stored & 1), away);
	while ((n = gw_leaving_run(away, l->count, &at, &run)))
		gw_netpt_leaves_for(&s->table, l->first + run, n, stored);
	gw_split_park(s, GW_SPLIT_AWAY, l->first);
	rc = gw_memory_punch(s->memory, l->first, l->count);
	gw_split_park(s, GW_SPLIT_PUNCHED, l->first);
	/* They are here still, as they were, and protected. */
	for (at = 0; rc && (n = gw_leaving_run(away, l->count, &at, &run));)
		gw_netpt_placed(&s->table, l->unit, l->first + run, n);
	return rc;
}

/* It stays, and those who have stored it need not have. Its stripe is locked. */
static void take_back(struct gw_split *s, const struct gw_leaving *l, unsigned int stored)
{
	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
		uint64_t sent[GW_UNIT_WORDS];
		size_t at = 0, run, n;

		gw_leaving_sent(l, slot, sent);
		while ((stored & 1U << slot) && (n = gw_leaving_run(sent, l->count, &at, &run)))
			gw_split_release(s, l->to[slot], l->first + run, n);
	}
}

int gw_split_left(struct gw_split *s, const struct gw_leaving *l, unsigned int stored)
{
	bool left = false;
	int rc = 0;

	gw_split_park(s, GW_SPLIT_STORED, l->first);
	{
		gw_locked(gw_split_stripe(s, l->unit));
		if (stored && s->leaving[l->unit] == GW_UNIT_LEAVES) {
			rc = punch(s, l, stored);
			left = !rc;
		}
		if (s->leaving[l->unit] == GW_UNIT_LEAVES)
			gw_split_unprotect(s, l->first, l->count);
		if (!left)
			take_back(s, l, stored);
		s->leaving[l->unit] = GW_UNIT_STAYS;
		if (!left)
			s->ops->touched(s->env, l->first, l->count);
		gw_split_park(s, GW_SPLIT_LEFT, l->first);
	}
	{
		gw_locked(&s->lock);
		s->stats.units_out++;
		s->stats.units_kept += !left;
		s->stats.page_outs += left ? gw_leaving_pages(l) : 0;
	}
	gw_split_ask(s);
	s->ops->notify(s->env);
	return rc;
}

/* Who works under one of the locks has seen what was said before, or we see what he did. */
static void pass_locks(struct gw_split *s)
{
	for (size_t unit = 0; unit < GW_NETPT_STRIPES; unit++) {
		gw_locked(gw_split_stripe(s, unit));
	}
}

void gw_split_freeze(struct gw_split *s)
{
	s->frozen = true;
	pass_locks(s);
	for (size_t unit = 0; unit < s->table.units.nr; unit++) {
		if (s->leaving[unit] != GW_UNIT_LEAVES)
			continue;
		gw_locked(gw_split_stripe(s, unit));
		if (s->leaving[unit] == GW_UNIT_LEAVES)
			gw_split_keep(s, unit);
	}
	/* Whoever waits for room has it. */
	gw_split_ask(s);
}

bool gw_split_thaw(struct gw_split *s)
{
	s->frozen = false;
	pass_locks(s);
	return atomic_exchange(&s->owes, false);
}
