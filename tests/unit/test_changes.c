// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_changes.c - what changes of a split VM, for who moves it, and what stays as it is once that
 * one has frozen it; on a real userfaultfd (split_world.h).
 *
 * The oracle: whoever takes what has changed, and copies it as the main host to be would have it
 * (what is away is zeros there), has all of memory once the guest stands still.
 */
#include "split_world.h"

#include "changes.h"

static int make_moving(void **state)
{
	struct world *w;

	make_world(state, true);
	w = *state;
	for (size_t page = 0; page < PAGES; page += 2)
		*word_of(w, page) = page + 1;
	return gw_changes_begin(&w->split);
}

/* The guest goes on before it is noted that it does; whoever is about to holds a lock. */
static void settle(struct world *w)
{
	for (size_t unit = 0; unit < UNITS; unit++) {
		gw_locked(gw_split_stripe(&w->split, unit));
	}
}

/* Pages [first, first + count) have changed, and no others; that is taken once. */
static void assert_changed(struct world *w, size_t first, size_t count)
{
	for (int i = 0; i < 4; i++) {
		struct gw_bitmap due;

		settle(w);
		assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
		if (i < 2)
			gw_changes_peek(&w->split, 0, PAGES, &due);
		else
			assert_int_equal(gw_changes_take(&w->split, 0, PAGES, &due), 0);
		if (i == 3)
			count = 0;
		assert_int_equal(gw_bitmap_count(&due, 0, PAGES), count);
		assert_int_equal(gw_bitmap_count(&due, first, count), count);
		gw_bitmap_free(&due);
	}
}

/* After that a write is seen, to each of them. */
static void assert_seen_again(struct world *w, size_t first, size_t count)
{
	for (size_t page = first; page < first + count; page++) {
		*word_of(w, page) += 1;
		assert_changed(w, page, 1);
	}
}

static void written(void **state)
{
	struct world *w = *state;

	assert_changed(w, 0, 0);
	*word_of(w, 4) = 9;
	assert_changed(w, 4, 1);
	assert_seen_again(w, 4, 1);
	(void)*word_of(w, 6);
	assert_changed(w, 0, 0);
	for (size_t page = UNIT - 2; page < UNIT + 2; page++)
		*word_of(w, page) = 5;
	assert_changed(w, UNIT - 2, 4);
	/* Who looks for some only forgets no others. */
	*word_of(w, 3) = 5;
	*word_of(w, 70) = 5;
	settle(w);
	assert_int_equal(gw_changes_take(&w->split, 4, 66, NULL), 0);
	assert_int_equal(gw_changes_take(&w->split, 71, PAGES, NULL), 0);
	assert_int_equal(gw_changes_take(&w->split, 70, 1, NULL), 0);
	assert_changed(w, 3, 1);
	assert_seen_again(w, 70, 1);
}

static void came(void **state)
{
	struct world *w = *state;

	assert_true(send_out(w, 2) > 0);
	assert_changed(w, 2 * UNIT, UNIT);
	assert_int_equal(*word_of(w, 2 * UNIT + 4), 2 * UNIT + 5);
	assert_changed(w, 2 * UNIT + 4, 1);
	/* Nor if it is written as it comes. */
	*word_of(w, 2 * UNIT + 6) += 1;
	assert_changed(w, 2 * UNIT + 6, 1);
	assert_seen_again(w, 2 * UNIT, UNIT);
}

/* A page of zeros is, and it is so whoever touches it. */
static void touched_zeros(void **state)
{
	struct world *w = *state;
	size_t pages[GW_UNIT_PAGES_MAX];
	struct vcpu v;

	assert_int_equal(*word_of(w, 5), 0);
	assert_changed(w, 5, 1);
	assert_seen_again(w, 5, 1);
	*word_of(w, 7) = 3;
	assert_changed(w, 7, 1);
	/* And one that its server has as zeros. */
	assert_true(send_out(w, 0) > 0);
	assert_changed(w, 0, UNIT);
	set_silent(w, true);
	touch(&v, w, 4, 0);
	until_put_off(w);
	set_silent(w, false);
	assert_int_equal(gw_split_rest(&w->split, 1, 4, 1, pages), 1);
	gw_split_place(&w->split, 4, 1, NULL);
	pthread_join(v.thread, NULL);
	assert_int_equal(v.saw, 0);
	assert_changed(w, 4, 1);
	assert_seen_again(w, 4, 1);
}

static void left(void **state)
{
	struct world *w = *state;

	assert_true(send_out(w, 1) > 0);
	assert_changed(w, UNIT, UNIT);
	assert_true(send_out(w, 1) == 0);
	assert_changed(w, 0, 0);
	assert_seen_again(w, UNIT, UNIT);
	/* One that nobody could store. */
	{
		struct gw_leaving l;

		assert_true(gw_split_leave(&w->split, 1, 1, &l) > 0);
		assert_changed(w, 0, 0);
		assert_int_equal(gw_split_left(&w->split, &l, false), 0);
	}
	assert_changed(w, UNIT, UNIT);
	assert_seen_again(w, UNIT, UNIT);
}

static void stayed(void **state)
{
	struct world *w = *state;
	struct act a = { .w = w, .unit = 3 };

	stop_at(w, GW_SPLIT_STORED);
	assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
	until_stopped(w);
	assert_changed(w, 0, 0);
	*word_of(w, 3 * UNIT + 2) = 77;
	assert_changed(w, 3 * UNIT, UNIT);
	/* It is protected again, and not because it leaves. */
	*word_of(w, 3 * UNIT + 4) = 78;
	assert_changed(w, 3 * UNIT + 4, 1);
	go_on(w);
	pthread_join(a.thread, NULL);
	assert_int_equal(w->split.table.away, 0);
	assert_changed(w, 0, 0);
	assert_seen_again(w, 3 * UNIT, UNIT);
}

/* What cannot be protected now is taken, and looked at again. */
static void not_now(void **state)
{
	struct world *w = *state;
	struct gw_bitmap due;

	assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
	*word_of(w, 8) = 1;
	settle(w);
	w->fails = -EAGAIN;
	assert_int_equal(gw_changes_take(&w->split, 0, PAGES, &due), 0);
	assert_int_equal(gw_bitmap_count(&due, 0, PAGES), 1);
	*word_of(w, 8) = 2;
	w->fails = 0;
	assert_changed(w, 8, 1);
	assert_seen_again(w, 8, 1);
	*word_of(w, 8) = 3;
	settle(w);
	w->fails = -ESRCH;
	assert_int_equal(gw_changes_take(&w->split, 0, PAGES, &due), -ESRCH);
	assert_message("QEMU has ended");
	assert_true(w->split.gone);
	w->fails = 0;
	w->split.gone = false;
	assert_changed(w, 8, 1);
	gw_bitmap_free(&due);
}

/* Who comes to a page's new home finds it noted: told as here, it is sent. */
static void noted_before_it_is_here(void **state)
{
	struct world *w = *state;
	struct gw_bitmap changed;
	struct vcpu v;

	assert_int_equal(gw_bitmap_init(&changed, PAGES), 0);
	assert_true(send_out(w, 0) > 0);
	assert_changed(w, 0, UNIT);
	stop_at(w, GW_SPLIT_COPIED);
	touch(&v, w, 2, 0);
	until_stopped(w);
	assert_true(gw_netpt_is_away(&w->split.table, 2));
	gw_changes_peek(&w->split, 0, PAGES, &changed);
	assert_true(gw_bitmap_test(&changed, 2));
	go_on(w);
	pthread_join(v.thread, NULL);
	assert_changed(w, 2, 1);
	gw_bitmap_free(&changed);
}

/* Who moves it: what has changed is copied. */
struct taker {
	struct world *w;
	struct rng rng;
	uint8_t *copy;
	_Atomic bool ended;
	_Atomic unsigned int rounds;
	pthread_t thread;
};

static void take_some(struct taker *t, size_t first, size_t count)
{
	const struct gw_memory *m = &t->w->g.ram.memory;
	struct gw_bitmap due;

	assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
	assert_int_equal(gw_changes_take(&t->w->split, first, count, &due), 0);
	for (size_t page = gw_bitmap_next(&due, 0, PAGES, true); page < PAGES;
	     page = gw_bitmap_next(&due, page + 1, PAGES, true))
		assert_int_equal(gw_memory_read(m, page, 1, t->copy + page * GW_PAGE_SIZE), 0);
	gw_bitmap_free(&due);
	t->rounds++;
}

static void *take_on(void *arg)
{
	struct taker *t = arg;

	do {
		const size_t first = rng_below(&t->rng, PAGES);

		take_some(t, first, rng_below(&t->rng, PAGES));
	} while (!t->ended);
	return NULL;
}

static void taker_make(struct taker *t, struct world *w)
{
	*t = (struct taker){ .w = w, .rng = { 5 }, .copy = calloc(PAGES, GW_PAGE_SIZE) };
	assert_non_null(t->copy);
	assert_int_equal(gw_memory_read(&w->g.ram.memory, 0, PAGES, t->copy), 0);
}

static void taker_start(struct taker *t)
{
	t->ended = false;
	assert_int_equal(pthread_create(&t->thread, NULL, take_on, t), 0);
}

static void taker_end(struct taker *t)
{
	t->ended = true;
	pthread_join(t->thread, NULL);
}

/* The guest stands still: with what has changed since, all of it is there. */
static void taker_check(struct taker *t)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	struct world *w = t->w;

	settle(w);
	take_some(t, 0, PAGES);
	for (size_t page = 0; page < PAGES; page++) {
		const bool away = gw_netpt_is_away(&w->split.table, page);

		if (memcmp(t->copy + page * GW_PAGE_SIZE,
			   away ? zeros : w->g.file + page * GW_PAGE_SIZE, GW_PAGE_SIZE))
			fail_msg("page %zu, %s, is not what was taken", page,
				 away ? "away" : "here");
	}
}

/* Who takes beside a unit that leaves, or comes, and is written: whoever is held where. */
static void taken_beside(void **state)
{
	struct world *w = *state;
	struct taker t;

	taker_make(&t, w);
	for (int i = 0; i < 2 * (GW_SPLIT_LEFT + 1); i++) {
		const int where = i / 2;
		const size_t unit = (size_t)where, page = unit * UNIT + 2;
		const bool comes = where <= GW_SPLIT_CAME;
		struct act a = { .w = w, .unit = unit };
		struct vcpu v, other;

		*word_of(w, page) += 1;
		if (comes)
			assert_true(send_out(w, unit) > 0);
		stop_at(w, where);
		if (comes)
			touch(&v, w, page, i % 2);
		else
			assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
		until_stopped(w);
		if (!comes)
			touch(&v, w, page, i % 2);
		touch(&other, w, page + 2, 1);
		taker_start(&t);
		go_on(w);
		pthread_join(v.thread, NULL);
		pthread_join(other.thread, NULL);
		if (!comes)
			pthread_join(a.thread, NULL);
		taker_end(&t);
		taker_check(&t);
	}
	free(t.copy);
}

/* The guest counts while units leave. Return: how many did. */
static unsigned int work(struct world *w, struct rng *rng)
{
	static struct counter c[VCPUS];
	unsigned int out = 0;

	w->split.limit = PAGES;
	gw_split_ask(&w->split);
	for (size_t page = 0; page < PAGES; page++)
		*word_of(w, page) = 0;
	w->split.limit = PAGES / 4;
	counters_start(c, &w->g, 3000);
	for (unsigned int done = 0; done < VCPUS;) {
		out += send_out(w, rng_below(rng, UNITS)) > 0;
		if (!pthread_tryjoin_np(c[done].thread, NULL))
			done++;
	}
	w->split.limit = PAGES;
	gw_split_ask(&w->split);
	counters_check(c, &w->g);
	return out;
}

/* All at once, at random: as often as it takes for some to meet. */
static void everybody(void **state)
{
	struct world *w = *state;
	struct rng rng = { 98 };
	unsigned int out = 0;
	struct taker t;

	taker_make(&t, w);
	taker_start(&t);
	while (out <= 20 || t.rounds <= 20)
		out += work(w, &rng);
	taker_end(&t);
	taker_check(&t);
	assert_true(send_out(w, 5) > 0);
	taker_check(&t);
	free(t.copy);
}

static unsigned int released(struct world *w)
{
	gw_locked(&w->lock);

	return w->released;
}

static bool holds(struct world *w, size_t page)
{
	gw_locked(&w->lock);

	return w->held[page];
}

static void *freeze(void *arg)
{
	gw_split_freeze(&((struct world *)arg)->split);
	return NULL;
}

/* What is on its way out when all is frozen stays, or had left before: nothing does later. */
static void frozen_as_it_leaves(void **state)
{
	static const int where[] = { GW_SPLIT_PROTECTED, GW_SPLIT_LEAVING, GW_SPLIT_STORED,
				     GW_SPLIT_AWAY, GW_SPLIT_PUNCHED };
	struct world *w = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(where); i++) {
		const size_t page = i * UNIT + 2;
		struct act a = { .w = w, .unit = i };
		unsigned int before = released(w);
		pthread_t thread;
		bool away;

		stop_at(w, where[i]);
		assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
		until_stopped(w);
		assert_int_equal(pthread_create(&thread, NULL, freeze, w), 0);
		/* Who has its lock is waited for. */
		while (!w->split.frozen)
			sched_yield();
		if (where[i] == GW_SPLIT_STORED)
			pthread_join(thread, NULL);
		go_on(w);
		if (where[i] != GW_SPLIT_STORED)
			pthread_join(thread, NULL);
		away = gw_netpt_is_away(&w->split.table, page);
		pthread_join(a.thread, NULL);
		assert_int_equal(gw_netpt_is_away(&w->split.table, page), away);
		assert_int_equal(in_file(w, page), !away);
		assert_true(where[i] != GW_SPLIT_STORED || !away);
		assert_true(where[i] < GW_SPLIT_AWAY || away);
		assert_int_equal(released(w), before);
		assert_true(holds(w, page));
		assert_int_equal(send_out(w, UNITS - 1), 0);
		/* What its holder has and need not have. */
		assert_int_equal(gw_split_thaw(&w->split), !away);
		assert_false(gw_split_thaw(&w->split));
		assert_int_equal(*word_of(w, page), page + 1);
		settle(w);
	}
	assert_true(send_out(w, UNITS - 1) > 0);
}

/* Nor does what comes leave its holder, until it is told what it need not hold. */
static void comes_while_frozen(void **state)
{
	struct world *w = *state;
	struct gw_leaving l;

	assert_true(send_out(w, 0) > 0);
	gw_split_freeze(&w->split);
	assert_false(gw_split_thaw(&w->split));
	gw_split_freeze(&w->split);
	assert_int_equal(*word_of(w, 2), 3);
	stats_at(w, 1);
	assert_true(released(w) == 0 && holds(w, 2));
	assert_false(gw_netpt_is_away(&w->split.table, 2));
	/* What is here may be written, and so has changed. */
	assert_changed(w, 0, UNIT);
	assert_seen_again(w, 2, 1);
	assert_true(gw_split_thaw(&w->split));
	assert_false(gw_split_thaw(&w->split));
	assert_int_equal(released(w), 0);
	assert_int_equal(*word_of(w, 4), 5);
	stats_at(w, 2);
	settle(w);
	assert_true(released(w) == 1 && holds(w, 2) && !holds(w, 4));
	/* It leaves as ever. */
	assert_true(gw_split_leave(&w->split, 1, 1, &l) > 0);
	gw_split_freeze(&w->split);
	assert_true(gw_split_stays(&w->split, &l));
	assert_int_equal(gw_split_left(&w->split, &l, false), 0);
	assert_false(gw_split_thaw(&w->split)); /* nobody has stored it */
	assert_int_equal(send_out(w, 1), UNIT / 2);
	assert_int_equal(*word_of(w, UNIT), UNIT + 1);
}

/* Whatever the limit is: who waits does not as long as nothing leaves. */
static void frozen_beyond_the_limit(void **state)
{
	struct world *w = *state;
	struct vcpu v;

	assert_true(send_out(w, 0) > 0);
	w->split.limit = UNIT;
	touch(&v, w, 2, 1);
	until_deferred(w, 1);
	assert_false(v.done);
	gw_split_freeze(&w->split);
	pthread_join(v.thread, NULL);
	assert_int_equal(v.saw, 3);
	touch(&v, w, 4, 1);
	pthread_join(v.thread, NULL);
	touch(&v, w, 1, 1);
	pthread_join(v.thread, NULL);
	stats_at(w, 2);
	while (w->split.coming)
		sched_yield();
	assert_true(gw_split_thaw(&w->split));
	touch(&v, w, 6, 1);
	until_deferred(w, 2);
	assert_false(v.done);
	w->split.limit = PAGES;
	gw_split_ask(&w->split);
	pthread_join(v.thread, NULL);
}

static void *thaw(void *arg)
{
	return gw_split_thaw(&((struct world *)arg)->split) ? arg : NULL;
}

/* What comes just as it is thawed is released, or owed: there is no third. */
static void thawed_as_it_comes(void **state)
{
	static const int where[] = { GW_SPLIT_NOTED, GW_SPLIT_COPIED, GW_SPLIT_CAME };
	struct world *w = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(where); i++) {
		const size_t page = i * UNIT;
		const unsigned int before = released(w);
		pthread_t thread;
		struct vcpu v;
		void *owes;

		assert_true(send_out(w, i) > 0);
		gw_split_freeze(&w->split);
		stop_at(w, where[i]);
		touch(&v, w, page, 0);
		until_stopped(w);
		assert_int_equal(pthread_create(&thread, NULL, thaw, w), 0);
		if (i % 2)
			while (w->split.frozen)
				sched_yield();
		go_on(w);
		pthread_join(thread, &owes);
		pthread_join(v.thread, NULL);
		settle(w);
		assert_int_equal(released(w) - before, !owes);
	}
}

#define changes_test(fn) cmocka_unit_test_setup_teardown(fn, make_moving, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		changes_test(written),
		changes_test(came),
		changes_test(touched_zeros),
		changes_test(left),
		changes_test(stayed),
		changes_test(not_now),
		changes_test(noted_before_it_is_here),
		changes_test(taken_beside),
		changes_test(everybody),
		changes_test(frozen_as_it_leaves),
		changes_test(comes_while_frozen),
		changes_test(frozen_beyond_the_limit),
		changes_test(thawed_as_it_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
