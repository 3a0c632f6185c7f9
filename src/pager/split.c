// SPDX-License-Identifier: GPL-2.0-or-later
/* split.c - pages that come to a split VM; see split.h. Units that leave it: split_leave.c. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "changes.h"
#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "split_internal.h"

/* The kernel asks for patience while QEMU changes its mappings. */
#define PATIENCE 1000

int gw_split_init(struct gw_split *s, unsigned int threads)
{
	s->threads = threads;
	s->bits_len = gw_shared_bits_len(s->memory->nr_pages);
	s->units_len = s->table.units.nr;
	s->wanted = gw_shared_bits_new(s->bits_len);
	s->asked = gw_shared_bits_new(s->bits_len);
	s->lost = gw_shared_bits_new(s->bits_len);
	if (gw_netpt_copies_max(&s->table) > 1)
		s->second = gw_shared_bits_new(s->bits_len);
	s->leaving = (_Atomic uint8_t *)gw_shared_bits_new(s->units_len);
	if (s->moves) {
		s->changed = gw_shared_bits_new(s->bits_len);
		s->table.moved = gw_shared_bits_new(gw_shared_bits_len(s->units_len));
	}
	pthread_mutex_init(&s->lock, NULL);
	for (unsigned int i = 0; i < GW_SPLIT_RECENT; i++)
		s->recent[i] = s->table.units.nr;
	gw_fault_times_init(&s->times);
	for (unsigned int i = 0; i < GW_NETPT_STRIPES; i++)
		pthread_mutex_init(&s->stripes[i], NULL);
	return s->wanted && s->asked && s->lost && s->leaving &&
			       ((s->changed && s->table.moved) || !s->moves) &&
			       (s->second || gw_netpt_copies_max(&s->table) == 1)
		       ? 0
		       : gw_fail(-ENOMEM, "no memory to page with");
}

void gw_split_free(struct gw_split *s)
{
	if (!s->bits_len)
		return;
	gw_shared_bits_free(s->wanted, s->bits_len);
	gw_shared_bits_free(s->asked, s->bits_len);
	gw_shared_bits_free(s->lost, s->bits_len);
	gw_shared_bits_free(s->changed, s->bits_len);
	gw_shared_bits_free(s->table.moved, gw_shared_bits_len(s->units_len));
	gw_shared_bits_free(s->second, s->bits_len);
	gw_shared_bits_free((gw_shared_word *)s->leaving, s->units_len);
	for (unsigned int i = 0; i < GW_NETPT_STRIPES; i++)
		pthread_mutex_destroy(&s->stripes[i]);
	gw_fault_times_free(&s->times);
	pthread_mutex_destroy(&s->lock);
	s->bits_len = 0;
	gw_netpt_close(&s->table);
}

uint64_t gw_split_here(const struct gw_split *s)
{
	return gw_memory_resident(s->memory) / GW_PAGE_SIZE;
}

/*
 * Whether one page more may come now, that somebody waits for (invariant 8): it counts as coming
 * from here on. What is here is what the file says, not what we believe.
 */
static bool reserve(struct gw_split *s)
{
	const uint64_t most = s->limit + (uint64_t)s->threads * s->table.units.pages;

	if (++s->coming + gw_split_here(s) <= most || s->quiesces || s->frozen)
		return true;
	s->coming--;
	return false;
}

bool gw_split_has_room(const struct gw_split *s)
{
	return gw_split_here(s) + s->coming + s->table.units.pages <= s->limit;
}

void gw_split_unprotect(struct gw_split *s, size_t page, size_t count)
{
	const int rc = s->ops->unprotect(s->env, page, count);

	gw_changes_note(s, page, count);
	if (rc == -ESRCH)
		s->gone = true;
	else if (rc)
		s->ops->wake(s->env, page, count);
}

void gw_split_keep(struct gw_split *s, size_t unit)
{
	size_t first, count = gw_unit_pages(&s->table.units, unit, &first);

	s->leaving[unit] = s->leaving[unit] == GW_UNIT_LEAVES ? GW_UNIT_WRITTEN : GW_UNIT_STAYS;
	gw_split_unprotect(s, first, count);
	s->ops->touched(s->env, first, count);
}

void gw_split_release(struct gw_split *s, unsigned int holder, size_t page, size_t count)
{
	if (s->frozen)
		s->owes = true;
	else
		s->ops->release(s->env, holder, page, count);
}

/*
 * What the kernel would not do, and nobody but this host can help. Who looks now and then has it
 * tried again; told at once, he would have it tried without end.
 */
static void refused(struct gw_split *s, size_t page, int rc)
{
	if (rc == -ESRCH) {
		s->gone = true;
		s->ops->notify(s->env);
		return;
	}
	s->retry = true;
	/* Once, until there is some again. */
	if (!atomic_exchange(&s->told_short, true))
		gw_err("the guest waits for page %zu for want of memory on this host: %s", page,
		       strerror(-rc));
}

/* A page that is a hole, and here. Its stripe is locked. */
static void give_zeros(struct gw_split *s, size_t page)
{
	int rc = -EAGAIN;

	for (int i = 0; i < PATIENCE && rc == -EAGAIN; i++) {
		rc = s->ops->zero(s->env, page);
		if (rc == -EAGAIN)
			sched_yield();
	}
	/* Another has come first; or it is not watched any more. */
	if (rc == -EEXIST || rc == -ENOENT || rc == -EAGAIN)
		s->ops->wake(s->env, page, 1);
	else if (rc)
		refused(s, page, rc);
	else
		s->told_short = false;
	gw_changes_note(s, page, 1);
}

static bool is_present(struct gw_split *s, size_t page)
{
	uint64_t bits[GW_UNIT_WORDS] = { 0 };

	return !s->ops->present(s->env, page, 1, bits) && bits[0] & 1;
}

/* @page is wanted, and was not asked for: gw_split_ask() is to. s->lock is held. */
static void ask_later(struct gw_split *s, size_t page)
{
	if (s->nr_deferred < GW_SPLIT_DEFERRED)
		s->deferred[s->nr_deferred++] = page;
	else
		s->overflown = true;
}

/* There is no room for it now; @first: nor was there before. Its stripe is locked. */
static void defer(struct gw_split *s, size_t page, bool first)
{
	{
		gw_locked(&s->lock);
		s->stats.deferred += first;
		ask_later(s, page);
	}
	if (first)
		s->ops->notify(s->env);
}

/* It will not come as it was asked for; if somebody waits for it, again. Its stripe is locked. */
static void forget(struct gw_split *s, size_t page)
{
	if (gw_shared_bit_clear(s->asked, page))
		s->coming--;
	if (!gw_shared_bit(s->wanted, page))
		return;
	gw_locked(&s->lock);
	ask_later(s, page);
}

/* Whoever waits for them goes on. Their stripe is locked. Return: how many were waited for. */
static unsigned int satisfied(struct gw_split *s, size_t page, size_t count)
{
	unsigned int n = 0;

	for (size_t i = page; i < page + count; i++) {
		if (gw_shared_bit_clear(s->asked, i))
			s->coming--;
		if (!gw_shared_bit_clear(s->wanted, i))
			continue;
		gw_fault_ends(&s->times, i, s->ops->now(s->env));
		n++;
	}
	return n;
}

/*
 * @page is wanted; @first: as of now. Return: whether it is to be asked for by us, now. Its stripe
 * is locked.
 */
static bool serve(struct gw_split *s, size_t page, bool first)
{
	const bool away = gw_netpt_is_away(&s->table, page);

	if (away && (gw_shared_bit(s->asked, page) || gw_shared_bit(s->lost, page)))
		return false;
	if (!away && is_present(s, page)) {
		satisfied(s, page, 1);
		s->ops->wake(s->env, page, 1);
		return false;
	}
	if (!reserve(s)) {
		defer(s, page, first);
		return false;
	}
	if (!away) {
		give_zeros(s, page);
		s->coming--;
		satisfied(s, page, 1);
		return false;
	}
	gw_shared_bit_set(s->asked, page);
	/* Both holders have work, and neighbours are asked of the same one. */
	gw_ask_of(s, page, gw_unit_of(&s->table.units, page) % GW_COPIES_MAX);
	return true;
}

/* Whether its page is to be asked for by us. */
static bool heed(struct gw_split *s, const struct gw_fault *fault)
{
	const size_t page = fault->page;
	size_t unit;
	bool first;

	if (page >= s->table.nr_pages || !gw_memory_block_of(s->memory, page))
		return false;
	gw_split_park(s, GW_SPLIT_FAULT, page);
	unit = gw_unit_of(&s->table.units, page);
	gw_locked(gw_split_stripe(s, unit));
	if (s->leaving[unit] == GW_UNIT_LEAVES || s->leaving[unit] == GW_UNIT_PREPARED)
		gw_split_keep(s, unit);
	else if (fault->protected)
		gw_split_unprotect(s, page, 1);
	if (fault->protected)
		return false;
	first = !gw_shared_bit_set(s->wanted, page);
	if (first && gw_netpt_is_away(&s->table, page))
		gw_fault_begins(&s->times, fault, s->ops->now(s->env));
	return serve(s, page, first);
}

/*
 * They could not be asked of @holder. Return: how many are to be asked of another, @others, which
 * is NULL where that one was asked; what is left was not asked for, after all.
 */
static unsigned int unask(struct gw_split *s, unsigned int holder, const size_t *pages,
			  unsigned int n, size_t *others)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < n; i++) {
		gw_locked(gw_split_stripe(s, gw_unit_of(&s->table.units, pages[i])));

		if (s->second &&
		    (!gw_shared_bit(s->asked, pages[i]) || gw_asked_of(s, pages[i]) != holder))
			continue; /* who ends what it has with that holder has seen to it */
		if (others && s->second && gw_ask_of(s, pages[i], !gw_asked_slot(s, pages[i])))
			others[nr++] = pages[i];
		else
			forget(s, pages[i]);
	}
	return nr;
}

/* How many pages are fetched where one of @unit is: as many as those before it lay near. */
static size_t ahead(struct gw_split *s, size_t unit)
{
	unsigned int near = 0;
	gw_locked(&s->lock);

	for (unsigned int i = 0; i < GW_SPLIT_RECENT; i++)
		near += s->recent[i] == unit || s->recent[i] + 1 == unit;
	s->recent[s->next_recent++ % GW_SPLIT_RECENT] = unit;
	return near > 1 ? GW_UNIT_PAGES_MAX : near ? GW_AHEAD_NEAR : GW_AHEAD_PAGES;
}

/* What lies around @page, which is asked for, is worth fetching. */
static void fetch(struct gw_split *s, unsigned int holder, size_t page)
{
	const size_t unit = gw_unit_of(&s->table.units, page);
	size_t first, count = gw_unit_pages(&s->table.units, unit, &first);
	const size_t most = ahead(s, unit);

	if (most < count) {
		const size_t skip = (page - first) / most * most;

		first += skip;
		count = count - skip < most ? count - skip : most;
	}
	s->ops->fetch(s->env, holder, first, count);
}

/* Ask for @pages, ascending, each of its holder. Return: as unask(). */
static unsigned int request_of(struct gw_split *s, const size_t *pages, unsigned int n,
			       size_t *others)
{
	unsigned int nr = 0;

	while (n) {
		const unsigned int holder = gw_asked_of(s, pages[0]);
		unsigned int k = 1;
		bool asked;

		while (k < n && gw_asked_of(s, pages[k]) == holder)
			k++;
		asked = !s->ops->request(s->env, holder, pages, k);

		if (!asked)
			nr += unask(s, holder, pages, k, others ? others + nr : NULL);
		for (unsigned int i = 0; asked && i < k; i++)
			if (!i || gw_unit_of(&s->table.units, pages[i]) !=
					  gw_unit_of(&s->table.units, pages[i - 1]))
				fetch(s, holder, pages[i]);
		pages += k;
		n -= k;
	}
	return nr;
}

/* GW_FAULTS_MAX at most. */
static void request(struct gw_split *s, const size_t *pages, unsigned int n)
{
	size_t others[GW_FAULTS_MAX];
	const unsigned int nr = request_of(s, pages, n, others);

	if (nr)
		request_of(s, others, nr, NULL);
}

/* Insert @page into the @n ascending @pages. */
static void insert(size_t *pages, unsigned int n, size_t page)
{
	for (; n && pages[n - 1] > page; n--)
		pages[n] = pages[n - 1];
	pages[n] = page;
}

void gw_split_fault(struct gw_split *s, const struct gw_fault *faults, unsigned int n)
{
	size_t ask[GW_FAULTS_MAX];
	unsigned int nr = 0;

	for (unsigned int i = 0; i < n; i++)
		if (heed(s, &faults[i]))
			insert(ask, nr++, faults[i].page);
	if (nr)
		request(s, ask, nr);
}

/* Ask for @page if it is wanted still. */
static void ask_one(struct gw_split *s, size_t page)
{
	const size_t unit = gw_unit_of(&s->table.units, page);
	bool ask;

	{
		gw_locked(gw_split_stripe(s, unit));
		ask = gw_shared_bit(s->wanted, page) && serve(s, page, false);
	}
	if (ask)
		request(s, &page, 1);
}

void gw_split_ask(struct gw_split *s)
{
	size_t pages[GW_SPLIT_DEFERRED];
	unsigned int n;
	bool all;

	{
		gw_locked(&s->lock);
		n = s->nr_deferred;
		memcpy(pages, s->deferred, n * sizeof(pages[0]));
		all = s->overflown;
		s->nr_deferred = 0;
		s->overflown = false;
	}
	for (unsigned int i = 0; i < n; i++)
		ask_one(s, pages[i]);
	for (size_t i = 0; all && i < s->bits_len / sizeof(uint64_t); i++)
		for (uint64_t word = s->wanted[i] & ~s->asked[i]; word; word &= word - 1)
			ask_one(s, i * 64 + (size_t)__builtin_ctzll(word));
}

void gw_split_unask(struct gw_split *s, unsigned int holder)
{
	for (size_t i = 0; i < s->bits_len / sizeof(uint64_t); i++) {
		for (uint64_t word = s->asked[i] | s->lost[i]; word; word &= word - 1) {
			const size_t page = i * 64 + (size_t)__builtin_ctzll(word);
			const size_t unit = gw_unit_of(&s->table.units, page);
			gw_locked(gw_split_stripe(s, unit));
			const int slot = gw_netpt_slot(&s->table, unit, holder);
			const unsigned int whose = gw_shared_bit(s->asked, page)
							   ? 1U << gw_asked_slot(s, page)
							   : gw_netpt_copies(&s->table, page);

			if (slot < 0 || !(whose & 1U << slot))
				continue;
			gw_shared_bit_clear(s->lost, page);
			forget(s, page);
		}
	}
}

unsigned int gw_split_rest(struct gw_split *s, unsigned int holder, size_t first, size_t count,
			   size_t *pages)
{
	const size_t unit = gw_unit_of(&s->table.units, first);
	size_t at = first, run, n;
	unsigned int nr = 0;
	gw_locked(gw_split_stripe(s, unit));
	const int slot = gw_netpt_slot(&s->table, unit, holder);

	/* What comes is not protected, so it must not come to what leaves; nor to what may. */
	if (s->leaving[unit] == GW_UNIT_LEAVES || slot < 0)
		return 0;
	/* They count before it is known how many: others look for room at this moment, too. */
	s->coming += count;
	if (s->limit < s->table.nr_pages && gw_split_here(s) + s->coming > s->limit) {
		s->coming -= count;
		return 0;
	}
	while ((n = gw_netpt_next_at(&s->table, (unsigned int)slot, &at, first + count, &run)))
		for (size_t i = 0; i < n; i++) {
			if (gw_shared_bit(s->lost, run + i) || gw_shared_bit_set(s->asked, run + i))
				continue;
			gw_ask_of(s, run + i, (unsigned int)slot);
			pages[nr++] = run + i;
		}
	if (nr && s->leaving[unit] == GW_UNIT_PREPARED)
		gw_split_keep(s, unit);
	s->coming -= count - nr;
	return nr;
}

/*
 * Pages of one unit, all of them away and asked for, into the guest's memory. Its stripe is locked.
 * Return: how many; or -errno.
 */
static int copy(struct gw_split *s, size_t unit, size_t page, size_t count, const uint8_t *bytes)
{
	size_t copied = 0;
	int rc = -EAGAIN;

	gw_netpt_place(&s->table, unit, page, count);
	gw_split_park(s, GW_SPLIT_NOTED, page);
	for (int i = 0; i < PATIENCE && rc == -EAGAIN && !copied; i++) {
		rc = s->ops->copy(s->env, page, count, bytes, &copied);
		/* Away, so what is in the file there is nobody's. */
		if (rc == -EEXIST && !copied)
			rc = gw_memory_punch(s->memory, page, 1) ? -EIO : -EAGAIN;
		if (rc == -EAGAIN && !copied)
			sched_yield();
	}
	if (!copied) {
		gw_netpt_unplace(&s->table, unit);
		return rc ? rc : -EIO;
	}
	s->told_short = false;
	/* Before the table says so: who finds it here finds that it is new here, too. */
	gw_changes_note(s, page, copied);
	gw_split_park(s, GW_SPLIT_COPIED, page);
	gw_netpt_placed(&s->table, unit, page, copied);
	gw_split_park(s, GW_SPLIT_CAME, page);
	return (int)copied;
}

/* A page that was asked for is zero: it is a hole, and here. Its stripe is locked. */
static void came_zero(struct gw_split *s, size_t unit, size_t page)
{
	gw_changes_note(s, page, 1);
	gw_netpt_placed(&s->table, unit, page, 1);
	if (gw_shared_bit(s->wanted, page))
		give_zeros(s, page);
}

/* Pages of one unit came, or were not needed: who has them need not keep them. */
static void release_all(struct gw_split *s, size_t unit, size_t first, size_t count)
{
	for (unsigned int slot = 0; slot < gw_netpt_copies_max(&s->table); slot++) {
		const gw_shared_word *lacks = s->table.lacks[slot];
		const unsigned int holder = gw_netpt_at(&s->table, unit, slot);
		size_t run = first, stop = first + count;

		while (holder != GW_NO_HOLDER && run < first + count) {
			if (lacks) {
				run = gw_shared_bits_next(lacks, run, first + count, false);
				stop = gw_shared_bits_next(lacks, run, first + count, true);
			}
			if (stop > run)
				gw_split_release(s, holder, run, stop - run);
			run = stop;
		}
	}
}

/* Pages of one unit. 0 or -errno without a message. */
static int place(struct gw_split *s, size_t unit, size_t page, size_t count, const uint8_t *bytes)
{
	size_t at = page, n;
	unsigned int wanted = 0, placed = 0;
	int rc = 0;

	{
		gw_locked(gw_split_stripe(s, unit));
		for (; rc >= 0 && at < page + count; at += n) {
			n = 1;
			if (!gw_netpt_is_away(&s->table, at) || !gw_shared_bit(s->asked, at))
				continue;
			while (bytes && at + n < page + count &&
			       gw_netpt_is_away(&s->table, at + n) &&
			       gw_shared_bit(s->asked, at + n))
				n++;
			if (bytes) {
				rc = copy(s, unit, at, n, bytes + (at - page) * GW_PAGE_SIZE);
				n = rc > 0 ? (size_t)rc : n;
			} else {
				came_zero(s, unit, at);
			}
			if (rc < 0)
				break;
			wanted += satisfied(s, at, n);
			placed += (unsigned int)n;
			release_all(s, unit, at, n);
		}
		for (; rc < 0 && at < page + count; at++)
			forget(s, at);
	}
	s->ops->touched(s->env, page, 1);
	gw_locked(&s->lock);
	s->stats.page_ins += placed;
	s->stats.ahead += placed - wanted;
	return rc < 0 ? rc : 0;
}

void gw_split_place(struct gw_split *s, size_t page, size_t count, const uint8_t *bytes)
{
	bool all = true;

	while (count) {
		const size_t unit = gw_unit_of(&s->table.units, page);
		size_t first, n = gw_unit_pages(&s->table.units, unit, &first);
		int rc;

		if (page >= first + n) /* padding: nobody asked for it */
			return;
		n = first + n - page;
		n = n < count ? n : count;
		rc = place(s, unit, page, n, bytes);
		if (rc)
			refused(s, page, rc);
		all = all && !rc;
		page += n;
		count -= n;
		bytes = bytes ? bytes + n * GW_PAGE_SIZE : NULL;
	}
	/* Whoever is told at once has what was refused tried again, without end. */
	if (all && (!s->table.away || !gw_split_has_room(s)))
		s->ops->notify(s->env);
}

/* Return: whether it is known for the first time. */
static bool lose(struct gw_split *s, size_t page)
{
	if (gw_shared_bit_clear(s->asked, page))
		s->coming--;
	return !gw_shared_bit_set(s->lost, page);
}

size_t gw_split_absent(struct gw_split *s, unsigned int holder, size_t page, size_t count,
		       size_t *dropped)
{
	size_t lost = 0;

	*dropped = 0;
	for (size_t i = page; i < page + count && i < s->table.nr_pages; i++) {
		const size_t unit = gw_unit_of(&s->table.units, i);
		gw_locked(gw_split_stripe(s, unit));
		const int slot = gw_netpt_slot(&s->table, unit, holder);
		const unsigned int copies = gw_netpt_copies(&s->table, i);

		if (!gw_netpt_is_away(&s->table, i) || slot < 0 || !(copies & 1U << slot))
			continue;
		if (copies == 1U << slot) {
			lost += lose(s, i);
			continue;
		}
		if (gw_shared_bit(s->asked, i) && gw_asked_slot(s, i) == (unsigned int)slot)
			forget(s, i);
		gw_netpt_drop(&s->table, i, (unsigned int)slot);
		++*dropped;
	}
	if (*dropped)
		gw_split_ask(s);
	return lost;
}

void gw_split_stats(struct gw_split *s, struct gw_split_stats *stats)
{
	struct gw_fault_stats faults;

	gw_fault_stats(&s->times, &faults);
	gw_locked(&s->lock);
	*stats = s->stats;
	stats->faults = faults;
}
