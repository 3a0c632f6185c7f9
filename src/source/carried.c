// SPDX-License-Identifier: GPL-2.0-or-later
/* carried.c - a split VM moves, and what its sub-hosts hold stays there; see carried.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "carried.h"
#include "error.h"
#include "feature.h"
#include "internal.h"

static unsigned int copies(const struct gw_carried *c)
{
	return c->seconds ? GW_COPIES_MAX : 1;
}

int gw_carried_open(struct gw_source *s)
{
	struct gw_carried *c = s->carried;
	const char *to = s->holder.host;
	int rc;

	if (!gw_holder_has(&s->holder, GW_FEATURE_CARRIED) ||
	    !gw_holder_has(&s->holder, GW_FEATURE_AGAIN) ||
	    !(s->holder.stages & 1U << GW_STAGE_ZERO))
		return gw_fail(-ENOTSUP,
			       "host '%s' cannot take a VM over whose memory is split already: its "
			       "godwitd is older; bring the memory back with 'godwit merge' before",
			       to);
	for (unsigned int k = 0; k < c->nr; k++)
		if (!strcmp(c->subs[k].host, to))
			return gw_fail(-ENOTSUP,
				       "host '%s' is a sub-host of the VM itself: have what lies "
				       "there go elsewhere before, with 'godwit evacuate %s'",
				       to, c->subs[k].address);
	/* What is away must be a hole there, which only that stage makes. */
	s->params.pages.off &= ~(1U << GW_STAGE_ZERO);
	rc = gw_told_init(&c->told, s->memory->nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&c->owed, s->memory->nr_pages);
	for (unsigned int slot = 0; !rc && slot < copies(c); slot++) {
		c->at[slot] = calloc(c->units->nr, 1);
		if (!c->at[slot])
			rc = gw_fail(-ENOMEM, "no memory to tell what is where");
		if (!rc && c->seconds)
			rc = gw_bitmap_init(&c->lacked[slot], s->memory->nr_pages);
	}
	gw_shared_bits_set(c->moved, 0, c->units->nr);
	return rc ? rc : gw_tell_history(s, c->history, c->units->nr);
}

/* The @slot-th holder of unit @unit, or GW_NO_HOLDER. */
static uint8_t holder(const struct gw_carried *c, size_t unit, unsigned int slot)
{
	const uint8_t second = slot ? atomic_load(&c->seconds[unit]) : 0;

	if (!slot)
		return atomic_load(&c->holders[unit]);
	return second ? second - 1 : GW_NO_HOLDER;
}

/* Pages of word @i that the @slot-th holder of their unit has; and as the main host was told. */
static uint64_t has(const struct gw_carried *c, unsigned int slot, size_t i)
{
	const uint64_t away = atomic_load(&c->away[i]);

	return c->seconds ? away & ~atomic_load(&c->lacks[slot][i]) : away;
}

static uint64_t had(const struct gw_carried *c, unsigned int slot, size_t i)
{
	const uint64_t away = c->told.away.words[i];

	return c->seconds ? away & ~c->lacked[slot].words[i] : away;
}

/* Of word @i, what somebody had and has no more; @any: what is away now. */
static uint64_t lost(const struct gw_carried *c, size_t i, uint64_t *any)
{
	uint64_t gone = 0;

	*any = 0;
	for (unsigned int slot = 0; slot < copies(c); slot++) {
		const uint64_t now = has(c, slot, i);

		gone |= had(c, slot, i) & ~now;
		*any |= now;
	}
	return gone;
}

/*
 * What is not where it was of [first, end), or with @all all of it, comes back. @again: before
 * anything of it is told as away.
 */
static int tell_back(struct gw_source *s, size_t first, size_t end, bool all, bool *again)
{
	struct gw_carried *c = s->carried;
	int rc = 0;

	for (size_t i = first / 64; !rc && i * 64 < end; i++) {
		uint64_t any, gone = lost(c, i, &any);

		gone = (all ? c->told.away.words[i] : gone) & gw_bits_within(i, first, end);
		*again = *again || (all ? gone : gone & any);
		c->owed.words[i] |= gone;
		for (; !rc && gone; gone &= gone - 1)
			rc = gw_tell_back(s, &c->told, i * 64 + (size_t)__builtin_ctzll(gone));
	}
	return rc;
}

/* What the @slot-th holder of their unit has of word @i, and was not told yet. */
static int tell_gained(struct gw_source *s, unsigned int slot, uint8_t at, size_t i,
		       uint64_t gained)
{
	struct gw_carried *c = s->carried;
	int rc = 0;

	if (c->seconds)
		c->lacked[slot].words[i] &= ~gained;
	for (; !rc && gained; gained &= gained - 1)
		rc = gw_tell_away(s, &c->told, at, i * 64 + (size_t)__builtin_ctzll(gained));
	return rc;
}

static int tell_away(struct gw_source *s, size_t unit, size_t first, size_t end)
{
	struct gw_carried *c = s->carried;
	int rc = 0;

	for (size_t i = first / 64; !rc && i * 64 < end; i++) {
		const uint64_t mask = gw_bits_within(i, first, end);
		uint64_t gained[GW_COPIES_MAX] = { 0 }, fresh = 0;

		for (unsigned int slot = 0; slot < copies(c); slot++) {
			gained[slot] = has(c, slot, i) & ~had(c, slot, i) & mask;
			fresh |= gained[slot] & ~c->told.away.words[i];
		}
		for (unsigned int slot = 0; c->seconds && slot < copies(c); slot++)
			c->lacked[slot].words[i] |= fresh;
		for (unsigned int slot = 0; !rc && slot < copies(c); slot++)
			if (c->at[slot][unit] != GW_NO_HOLDER)
				rc = tell_gained(s, slot, c->at[slot][unit], i, gained[slot]);
	}
	return rc;
}

/* Whether the main host was told that the @slot-th holder has some of [first, end). */
static bool had_any(const struct gw_carried *c, unsigned int slot, size_t first, size_t end)
{
	for (size_t i = first / 64; i * 64 < end; i++)
		if (had(c, slot, i) & gw_bits_within(i, first, end))
			return true;
	return false;
}

static int tell_unit(struct gw_source *s, size_t unit)
{
	struct gw_carried *c = s->carried;
	size_t first, count = gw_unit_pages(c->units, unit, &first);
	bool moved = false, again = false;
	int rc;

	/* All that was another's came back in between: first that, and then it is elsewhere. */
	for (unsigned int slot = 0; slot < copies(c); slot++) {
		const uint8_t at = holder(c, unit, slot);

		if (at != c->at[slot][unit])
			moved = moved || had_any(c, slot, first, first + count);
		c->at[slot][unit] = at;
	}
	rc = tell_back(s, first, first + count, moved, &again);
	if (!rc && again)
		rc = gw_tell_flush(s, &c->told);
	return rc ? rc : tell_away(s, unit, first, first + count);
}

int gw_carried_tell(struct gw_source *s)
{
	const struct gw_carried *c = s->carried;
	int rc = 0;

	/* Cleared before it is looked at: what moves meanwhile is looked at once more. */
	for (size_t i = 0; !rc && i * 64 < c->units->nr; i++)
		for (uint64_t moved = atomic_exchange(&c->moved[i], 0); !rc && moved;
		     moved &= moved - 1)
			rc = tell_unit(s, i * 64 + (size_t)__builtin_ctzll(moved));
	return rc ? rc : gw_tell_flush(s, &s->carried->told);
}

void gw_carried_due(struct gw_source *s, size_t first, size_t count)
{
	struct gw_carried *c = s->carried;
	const size_t nr_pages = s->memory->nr_pages;
	const size_t end = count < nr_pages - first ? first + count : nr_pages;

	for (size_t i = first / 64; i * 64 < end; i++) {
		if (!c->owed.words[i])
			continue;
		s->due.words[i] |= c->owed.words[i];
		c->owed.words[i] = 0;
	}
}

void gw_carried_hide(struct gw_source *s, struct gw_batch *batch)
{
	const struct gw_carried *c = s->carried;
	const size_t base = batch->chunk * GW_CHUNK_PAGES;

	for (unsigned int i = 0; c->frozen && i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(&batch->left, i) && gw_bitmap_test(&c->told.away, base + i))
			memset(batch->bytes + i * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
}

int gw_carried_freeze(struct gw_source *s)
{
	int rc = s->ops->carried_freeze(s->env);

	s->carried->frozen = true;
	return rc ? rc : gw_carried_tell(s);
}

int gw_carried_leave(struct gw_source *s)
{
	int rc = s->ops->carried_leave(s->env);

	return rc ? rc
		  : gw_frame_send(s->holder.control, GW_MSG_AWAY_END, s->carried->told.pages, NULL,
				  0);
}

void gw_carried_thaw(struct gw_source *s)
{
	if (!s->carried || !s->carried->frozen)
		return;
	s->ops->carried_thaw(s->env);
	s->carried->frozen = false;
}

json_t *gw_carried_json(const struct gw_carried *c)
{
	json_t *holders = json_array();

	for (unsigned int k = 0; k < c->nr; k++)
		json_array_append_new(holders, json_pack("{s:s,s:s}", "address", c->subs[k].address,
							 "host", c->subs[k].host));
	return json_pack("{s:I,s:o}", "away-pages", (json_int_t)c->told.pages, "holders", holders);
}

void gw_carried_free(struct gw_carried *c)
{
	if (!c)
		return;
	gw_told_free(&c->told);
	gw_bitmap_free(&c->owed);
	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
		gw_bitmap_free(&c->lacked[slot]);
		free(c->at[slot]);
		c->at[slot] = NULL;
	}
}
