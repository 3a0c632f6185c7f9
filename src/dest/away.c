// SPDX-License-Identifier: GPL-2.0-or-later
/* away.c - which pages of an arriving VM are at sub-hosts; see away.h. */
#include <errno.h>
#include <string.h>

#include "away.h"
#include "error.h"
#include "frame.h"
#include "runs.h"

/* What may be here beyond what was promised: what a round is about to punch. */
#define SLACK (8UL * GW_UNIT_PAGES_MAX * GW_PAGE_SIZE)

static int cannot_be(size_t page, const char *why)
{
	return gw_fail(-EPROTO, "source: page %zu %s", page, why);
}

/* As which of its holders unit @unit has sub-host @k from here on. Or -EPROTO without a message. */
static int place_of(struct gw_netpt *t, size_t unit, unsigned int k)
{
	int slot = gw_netpt_slot(t, unit, k);

	/* Each page at one: who has nothing of it is no holder of it. */
	if (slot >= 0)
		return slot;
	for (slot = 0; slot < (int)gw_netpt_copies_max(t); slot++) {
		if (gw_netpt_has_any(t, unit, (unsigned int)slot))
			continue;
		gw_netpt_put(t, unit, (unsigned int)slot, k);
		return slot;
	}
	return -EPROTO;
}

/* Of [first, end), of one unit: all are at its @slot-th holder, too. 0 or -EPROTO: some were. */
static int note(struct gw_netpt *t, unsigned int slot, size_t first, size_t end)
{
	size_t at = first, had, one, run, n;

	for (; first < end; first = run + n) {
		n = gw_netpt_next(t, &at, end, &run);
		if (run > first)
			gw_netpt_leaves_for(t, first, run - first, 1U << slot);
		had = run;
		if (gw_netpt_next_at(t, slot, &had, run + n, &one))
			return -EPROTO;
		if (n)
			gw_netpt_gain(t, run, n, slot);
	}
	return 0;
}

/* @count pages from @first, of unit @unit, lie at sub-host @k, where none of them was. */
static int leave(struct gw_dest *d, unsigned int k, size_t unit, size_t first, size_t count)
{
	struct gw_dest_split *s = &d->split;
	struct gw_netpt *t = s->table;
	const int slot = place_of(t, unit, k);
	const size_t before = t->away;
	size_t base, end = gw_unit_pages(&t->units, unit, &base);

	end += base;
	if (slot < 0)
		return cannot_be(first, "is at another sub-host than what lies around it");
	if (note(t, (unsigned int)slot, first, first + count))
		return cannot_be(first, "leaves twice");
	s->pages[k] += count;
	/* What comes back before others leave may be told after them. */
	if (!s->carried && s->pages[k] * GW_PAGE_SIZE > s->size[k])
		return cannot_be(first, "is more than its sub-host may hold");
	/* What left where it was split before came as zeros, or will; and beside it may be others.
	 */
	if (s->carried || t->away == before)
		return 0;
	/* As a whole: of a huge page a part may stay, as zeros (decision 4). It has nothing else.
	 */
	return gw_memory_punch(d->memory, base, end - base);
}

/* They lie nowhere any more: they are zero. */
static int come_back(struct gw_dest *d, size_t unit, size_t first, size_t count)
{
	struct gw_dest_split *s = &d->split;
	const size_t before = s->table->away;

	for (unsigned int slot = 0; slot < gw_netpt_copies_max(s->table); slot++) {
		size_t at = first, run, n;

		while ((n = gw_netpt_next_at(s->table, slot, &at, first + count, &run)))
			s->pages[gw_netpt_at(s->table, unit, slot)] -= n;
	}
	gw_netpt_placed(s->table, unit, first, count);
	return before - s->table->away == count ? 0
						: cannot_be(first, "comes from where it is not");
}

/* A run, which may be of several units, and of several blocks. */
static int take(struct gw_dest *d, uint64_t holder, size_t first, size_t count)
{
	const struct gw_units *units = &d->split.table->units;
	int rc = 0;

	while (!rc && count) {
		size_t base, n, unit;

		if (!gw_memory_block_of(d->memory, first))
			return cannot_be(first, "is no memory");
		unit = gw_unit_of(units, first);
		n = gw_unit_pages(units, unit, &base) + base - first;
		n = n < count ? n : count;
		rc = holder == GW_HOLDERS_MAX ? come_back(d, unit, first, n)
					      : leave(d, (unsigned int)holder, unit, first, n);
		first += n;
		count -= n;
	}
	return rc;
}

/* All is told: @pages are away, and no sub-host has more than it may. */
static int seal(struct gw_dest *d, uint64_t pages)
{
	struct gw_dest_split *s = &d->split;

	if (pages != s->table->away)
		return gw_fail(-EPROTO, "source: says that %llu pages are away, and told of %zu",
			       (unsigned long long)pages, (size_t)s->table->away);
	for (unsigned int k = 0; k < s->nr; k++)
		if (s->pages[k] * GW_PAGE_SIZE > s->size[k])
			return gw_fail(-EPROTO,
				       "source: sub-host %u has %llu pages, more than it may hold",
				       k, (unsigned long long)s->pages[k]);
	s->sealed = true;
	return 0;
}

int gw_away_heed(struct gw_dest *d)
{
	const struct gw_frame *f = &d->inbox;
	struct gw_reader r = { f->payload, f->len };
	size_t first = 0, count = 0;
	int rc;

	d->split.sealed = false;
	if (f->type == GW_MSG_AWAY_END)
		return seal(d, f->arg);
	if (f->arg != GW_HOLDERS_MAX && f->arg >= d->split.nr)
		return gw_fail(-EPROTO, "source: pages of sub-host %llu, of %u",
			       (unsigned long long)f->arg, d->split.nr);
	while ((rc = gw_runs_take(&r, d->memory->nr_pages, &first, &count)) > 0) {
		rc = take(d, f->arg, first, count);
		if (rc)
			break;
	}
	return rc;
}

int gw_away_history(struct gw_dest *d)
{
	const size_t nr = d->split.table->units.nr;
	const struct gw_frame *f = &d->inbox;

	if (f->arg >= nr || f->len > nr - f->arg)
		return gw_fail(-EPROTO, "source: a history of memory that there is not");
	memcpy(d->split.history + f->arg, f->payload, f->len);
	return 0;
}

int gw_away_check(const struct gw_dest *d)
{
	if (!d->split.table || gw_memory_resident(d->memory) <= d->split.main_memory + SLACK)
		return 0;
	return gw_fail(-EPROTO,
		       "source: more of the VM's memory comes here than the %llu MiB that "
		       "it said",
		       (unsigned long long)d->split.main_memory >> 20);
}
