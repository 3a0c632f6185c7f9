// SPDX-License-Identifier: GPL-2.0-or-later
/* carried.c - a split VM moves, and what its sub-hosts hold stays there; see carried.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "carried.h"
#include "error.h"
#include "feature.h"
#include "internal.h"

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
	c->at = calloc(c->units->nr, 1);
	if (!rc && !c->at)
		rc = gw_fail(-ENOMEM, "no memory to tell what is where");
	return rc ? rc : gw_tell_history(s, c->history, c->units->nr);
}

/* Bits of word @i that are pages of [first, end). */
static uint64_t within(size_t i, size_t first, size_t end)
{
	uint64_t mask = UINT64_MAX;

	if (first > i * 64)
		mask &= UINT64_MAX << (first - i * 64);
	if (end < i * 64 + 64)
		mask &= UINT64_MAX >> (i * 64 + 64 - end);
	return mask;
}

/* What differs of [first, end), all at @holder. */
static int tell_range(struct gw_source *s, unsigned int holder, size_t first, size_t end, bool none)
{
	struct gw_carried *c = s->carried;
	int rc = 0;

	for (size_t i = first / 64; !rc && i * 64 < end; i++) {
		const uint64_t is = none ? 0 : atomic_load(&c->away[i]);
		uint64_t differ = (is ^ c->told.away.words[i]) & within(i, first, end);

		c->owed.words[i] |= differ & c->told.away.words[i];
		for (; !rc && differ; differ &= differ - 1)
			rc = gw_tell_page(s, &c->told, holder,
					  i * 64 + (size_t)__builtin_ctzll(differ));
	}
	return rc;
}

static int tell_unit(struct gw_source *s, size_t unit)
{
	struct gw_carried *c = s->carried;
	const uint8_t holder = atomic_load(&c->holders[unit]);
	size_t first, count = gw_unit_pages(c->units, unit, &first);
	int rc = 0;

	/* All of it was here in between: first it comes back, and then it is elsewhere. */
	if (holder != c->at[unit]) {
		rc = tell_range(s, c->at[unit], first, first + count, true);
		if (!rc)
			rc = gw_tell_flush(s, &c->told);
	}
	c->at[unit] = holder;
	return rc ? rc : tell_range(s, holder, first, first + count, false);
}

int gw_carried_tell(struct gw_source *s)
{
	int rc = 0;

	for (size_t unit = 0; !rc && unit < s->carried->units->nr; unit++)
		rc = tell_unit(s, unit);
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
	free(c->at);
	c->at = NULL;
}
