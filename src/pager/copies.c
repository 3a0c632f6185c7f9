// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * copies.c - for whom a unit leaves, and where each page is stored twice, what that takes: a unit
 * that two servers are sent, and copies that are missing (servers.h).
 *
 *   both are up         it leaves for both, each sent by its own thread, and is away once both have
 *                       it. One that fails meanwhile has not got it, by the page table
 *   one is not          it leaves for one, so that nobody waits; it is waited for as long as one is
 *                       that was there just now
 *   a copy is missing   of what one has and the other lacks, is about to leave, or was not seen for
 *                       long: it comes back to the main host as there is room (bulk.c), and leaves
 *                       again, for two that take it. While there are not two it stays as it is
 *
 * Locks: a server's own for what it is to be sent. Whoever is the last of a departure to be done
 * ends it, and no lock is held then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "servers_internal.h"

#define BOTH ((1U << GW_COPIES_MAX) - 1)

/* Servers that may hold just what there is are full for a moment, and for longer if they are. */
#define SHORT_NS (1 * GW_S)

/* How long one may owe something and say nothing, and how often that is looked at. */
#define SILENT_NS (5 * GW_S)
#define LISTEN_NS (500 * GW_MS)

/* One that was there so shortly ago is not to be missed yet. */
#define BACK_NS (500 * GW_MS)

static bool is_twice(const struct gw_servers *v)
{
	return gw_netpt_copies_max(&v->split->table) > 1;
}

static int64_t away_for(const struct gw_server *s)
{
	return gw_server_now(s) - s->down_since;
}

static uint64_t room(const struct gw_servers *v, unsigned int server)
{
	const struct gw_server *s = &v->servers[server];
	const uint64_t has = s->away * GW_PAGE_SIZE;

	if (!s->up || s->leaves || (is_twice(v) && gw_server_now(s) < s->refused_until))
		return 0;
	return s->size > has ? s->size - has : 0;
}

static size_t held(const struct gw_netpt *t, size_t unit)
{
	size_t first, run, n, count = gw_unit_pages(&t->units, unit, &first), at = first, all = 0;

	while ((n = gw_netpt_next(t, &at, first + count, &run)))
		all += n;
	return all;
}

/* Bytes that are to leave of @unit at most. */
static uint64_t needs(const struct gw_netpt *t, size_t unit, size_t has)
{
	size_t first;

	return (gw_unit_pages(&t->units, unit, &first) - has) * GW_PAGE_SIZE;
}

/* Who has most room, and is none of @but. Return: GW_NO_HOLDER: nobody has any. */
static unsigned int most_room(const struct gw_servers *v, const unsigned int but[GW_COPIES_MAX])
{
	unsigned int most = GW_NO_HOLDER;

	for (unsigned int i = 0; i < v->nr; i++)
		if (i != but[0] && i != but[1] && room(v, i) &&
		    (most == GW_NO_HOLDER || room(v, i) > room(v, most)))
			most = i;
	return most;
}

/* For want of room there are not two: is that new? */
static bool is_short(struct gw_servers *v)
{
	const int64_t now = v->tasks->now(v->env);
	int64_t since = 0;

	return atomic_compare_exchange_strong(&v->short_since, &since, now) ||
	       now - since < SHORT_NS;
}

/* Whether one is away that may be back before anybody misses it. */
static bool any_late(const struct gw_servers *v)
{
	for (unsigned int i = 0; i < v->nr; i++) {
		const struct gw_server *s = &v->servers[i];

		if (!s->up && !s->gone && !s->leaves && away_for(s) < BACK_NS)
			return true;
	}
	return false;
}

static bool is_asked(const struct gw_server *s)
{
	const struct gw_split *split = s->all->split;

	for (size_t i = 0; i < split->bits_len / sizeof(uint64_t); i++)
		for (uint64_t word = split->asked[i]; word; word &= word - 1)
			if (gw_asked_of(split, i * 64 + (size_t)__builtin_ctzll(word)) == s->index)
				return true;
	return false;
}

static bool has_leaving(struct gw_server *s)
{
	gw_locked(&s->lock);

	return s->nr_leaving;
}

int gw_server_listen(struct gw_server *s)
{
	const int64_t now = gw_server_now(s);

	if (!is_twice(s->all) || now < s->next_listen)
		return 0;
	s->next_listen = now + LISTEN_NS;
	if (!has_leaving(s) && !is_asked(s))
		s->heard = now;
	return now - s->heard < SILENT_NS ? 0
					  : gw_fail(-ETIMEDOUT, "it has not answered for %lld s",
						    (long long)(SILENT_NS / GW_S));
}

/* Whether one that is none of @but would be one if it had room. */
static bool any_full(const struct gw_servers *v, const unsigned int but[GW_COPIES_MAX])
{
	for (unsigned int i = 0; i < v->nr; i++)
		if (i != but[0] && i != but[1] && v->servers[i].up && !v->servers[i].leaves)
			return true;
	return false;
}

int gw_servers_choose(struct gw_servers *v, size_t unit, unsigned int to[GW_COPIES_MAX])
{
	const struct gw_netpt *t = &v->split->table;
	const uint64_t need = needs(t, unit, held(t, unit));
	unsigned int holders[GW_COPIES_MAX] = { GW_NO_HOLDER, GW_NO_HOLDER };
	bool full = false;
	int n = 0;

	to[0] = to[1] = GW_NO_HOLDER;
	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
		if (!gw_netpt_has_any(t, unit, slot))
			continue;
		holders[slot] = gw_netpt_at(t, unit, slot);
		if (room(v, holders[slot]) >= need)
			to[n++] = holders[slot];
		else /* of one that leaves all is coming back, and its place is another's then */
			full = full || v->servers[holders[slot]].up;
	}
	/* Places of those who have nothing of it. */
	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
		unsigned int most;

		if (holders[slot] != GW_NO_HOLDER)
			continue;
		most = most_room(v, holders);
		if (most != GW_NO_HOLDER && room(v, most) >= need)
			to[n++] = most;
		else
			full = full || any_full(v, holders);
		holders[slot] = most;
	}
	if (n == GW_COPIES_MAX)
		v->short_since = 0;
	return n < GW_COPIES_MAX && ((full && is_short(v)) || any_late(v)) ? -EAGAIN : n;
}

bool gw_servers_may_leave(struct gw_servers *v, unsigned int server, size_t unit)
{
	const struct gw_netpt *t = &v->split->table;
	const size_t has = held(t, unit);
	unsigned int to[GW_COPIES_MAX] = { server, GW_NO_HOLDER };

	if (is_twice(v))
		return gw_servers_choose(v, unit, to) > 0 && (to[0] == server || to[1] == server);
	for (unsigned int i = 0; !has && i < v->nr; i++)
		if (room(v, i) > room(v, to[0]))
			to[0] = i;
	if (v->servers[server].leaves || (has && gw_netpt_holder(t, unit) != server))
		return false;
	return to[0] == server && room(v, server) >= needs(t, unit, has);
}

bool gw_servers_is_stuck(struct gw_servers *v, size_t unit)
{
	unsigned int to[GW_COPIES_MAX];

	if (is_twice(v))
		return !gw_servers_choose(v, unit, to);
	for (unsigned int i = 0; i < v->nr; i++)
		if (gw_servers_may_leave(v, i, unit))
			return false;
	return true;
}

/* Whether a copy there is one. */
static bool counts(const struct gw_server *s)
{
	return !s->leaves && !s->gone && (s->up || away_for(s) < s->all->missed_ns);
}

bool gw_servers_may_remake(const struct gw_servers *v)
{
	bool missing = v->split->table.single;

	for (unsigned int i = 0; is_twice(v) && !missing && i < v->nr; i++)
		missing = !v->servers[i].gone && v->servers[i].away && !counts(&v->servers[i]);
	return is_twice(v) && missing && !v->merging;
}

/* How many pages of @unit that are away its @slot-th holder has. */
static size_t has_of(const struct gw_netpt *t, size_t unit, unsigned int slot)
{
	size_t first, run, n, count = gw_unit_pages(&t->units, unit, &first), at = first, all = 0;

	while ((n = gw_netpt_next_at(t, slot, &at, first + count, &run)))
		all += n;
	return all;
}

/* Whether a page of @unit is at its @slot-th holder, and nowhere else. */
static bool any_single(const struct gw_servers *v, size_t unit, unsigned int slot)
{
	const struct gw_netpt *t = &v->split->table;
	const unsigned int other = gw_netpt_at(t, unit, !slot);
	size_t first, run, n, count = gw_unit_pages(&t->units, unit, &first), at = first;
	const bool alone = other == GW_NO_HOLDER || !counts(&v->servers[other]);

	while ((n = gw_netpt_next_at(t, slot, &at, first + count, &run)))
		if (alone || gw_shared_bits_next(t->lacks[!slot], run, run + n, true) < run + n)
			return true;
	return false;
}

bool gw_servers_remakes(const struct gw_servers *v, const struct gw_server *by, size_t unit)
{
	const struct gw_netpt *t = &v->split->table;
	const int slot = gw_netpt_slot(t, unit, by->index);
	unsigned int other;

	if (slot < 0 || by->leaves || !any_single(v, unit, (unsigned int)slot))
		return false;
	other = gw_netpt_at(t, unit, !slot);
	for (unsigned int i = 0; i < v->nr; i++) {
		const size_t has = i == other ? has_of(t, unit, !slot) : 0;

		if (i != by->index && room(v, i) && room(v, i) >= needs(t, unit, has))
			return true;
	}
	return false;
}

void gw_servers_missing(const struct gw_servers *v, struct gw_missing_copies *m)
{
	const struct gw_netpt *t = &v->split->table;
	bool all_up = true;

	*m = (struct gw_missing_copies){ 0 };
	for (unsigned int i = 0; i < v->nr; i++) {
		all_up = all_up && (v->servers[i].up || !v->servers[i].away);
		m->none += v->servers[i].up || is_twice(v) ? 0 : v->servers[i].away;
	}
	for (size_t unit = 0; is_twice(v) && (!all_up || t->single) && unit < t->units.nr; unit++) {
		size_t first, count = gw_unit_pages(&t->units, unit, &first);
		unsigned int up = 0;

		for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
			const unsigned int i = gw_netpt_at(t, unit, slot);

			up |= i < v->nr && v->servers[i].up ? 1U << slot : 0;
		}
		for (size_t i = first / 64; i * 64 < first + count; i++) {
			const uint64_t away = t->words[i] & gw_bits_within(i, first, first + count);
			const uint64_t one = up & 1 ? away & ~t->lacks[0][i] : 0;
			const uint64_t other = up & 2 ? away & ~t->lacks[1][i] : 0;

			m->single += (size_t)__builtin_popcountll(away & ~(one & other));
			m->none += (size_t)__builtin_popcountll(away & ~(one | other));
		}
	}
}

/* It is to have so many more: two threads may have found the same room. */
static bool reserve(struct gw_server *s, size_t pages)
{
	if ((s->away += pages) * GW_PAGE_SIZE <= s->size)
		return true;
	gw_server_has_less(s, pages);
	return false;
}

/* @other is to be sent it as well. Return: whether it will. */
static bool add_part(struct gw_server *other, struct gw_departure *d)
{
	struct gw_departure **last = &other->parts;
	gw_locked(&other->lock);

	if (!other->up || other->failed || !reserve(other, gw_leaving_pages(&d->l)))
		return false;
	while (*last)
		last = &(*last)->next;
	*last = d;
	d->by->departing++;
	gw_server_signal(other);
	return true;
}

int gw_departure_begin(struct gw_server *s, const struct gw_leaving *l,
		       struct gw_departure **shared)
{
	const unsigned int other = l->to[0] == s->index ? l->to[1] : l->to[0];
	struct gw_departure *d;

	*shared = NULL;
	if (!is_twice(s->all))
		return 0;
	if (!reserve(s, gw_leaving_pages(l)))
		return -EAGAIN;
	d = other == GW_NO_HOLDER ? NULL : calloc(1, sizeof(*d));
	if (!d)
		return 0;
	d->l = *l;
	d->by = s;
	d->left = 2;
	if (add_part(&s->all->servers[other], d))
		*shared = d;
	else
		free(d);
	return 0;
}

struct gw_departure *gw_departure_take(struct gw_server *s)
{
	struct gw_departure *d = s->parts;

	if (d)
		s->parts = d->next;
	return d;
}

static void wake(struct gw_server *s)
{
	gw_locked(&s->lock);

	gw_server_signal(s);
}

/*
 * Who has it, of both. Where one has not, the other may be gone by now, too: then it stays, rather
 * than be where nobody finds it.
 */
static unsigned int who_has(const struct gw_departure *d)
{
	unsigned int has = d->stored;

	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++)
		if (d->sessions[slot] != d->by->all->servers[d->l.to[slot]].sessions)
			has &= ~(1U << slot);
	for (unsigned int slot = 0; has != BOTH && slot < GW_COPIES_MAX; slot++) {
		const struct gw_server *s = &d->by->all->servers[d->l.to[slot]];

		if (!s->up || s->failed)
			has &= ~(1U << slot);
	}
	return has;
}

/* Both are done with it. */
static int end_shared(struct gw_departure *d)
{
	struct gw_servers *v = d->by->all;
	int rc;

	memcpy(d->l.zero, d->zero[0], sizeof(d->l.zero));
	memcpy(d->l.zero_second, d->zero[1], sizeof(d->l.zero_second));
	{
		gw_locked(&v->ending);
		rc = gw_split_left(v->split, &d->l, who_has(d));
	}
	d->by->departing--;
	wake(d->by);
	free(d);
	return rc;
}

int gw_departure_end(struct gw_server *s, struct gw_departure *shared, const struct gw_leaving *l,
		     bool stored)
{
	const unsigned int slot = l->to[0] != s->index;
	struct gw_leaving all;

	if (!shared) {
		all = *l;
		memcpy(all.zero_second, l->zero, sizeof(l->zero));
		return gw_split_left(gw_server_split(s), &all, stored ? 1U << slot : 0);
	}
	memcpy(shared->zero[slot], l->zero, sizeof(l->zero));
	shared->sessions[slot] = s->sessions;
	shared->stored |= stored ? 1U << slot : 0;
	return --shared->left ? 0 : end_shared(shared);
}
