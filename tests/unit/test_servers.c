// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_servers.c - a guest whose pages are at two memory servers, all of it real but for hosts and
 * networks: pager, protocol and stores work as they always do, over sockets in this process.
 *
 * Connections are cut and servers restarted at random while the guest counts in its pages, so
 * that a page that is lost, old or torn shows.
 */
#include "servers_world.h"

static void there_and_back(void **state)
{
	struct world *w = *state;

	fill(w);
	until_up(w);
	narrow(w, LEAST);
	assert_true(w->split.table.away > PAGES / 2);
	assert_true(w->servers[0].away && w->servers[1].away);
	w->split.limit = ALL; /* what is touched comes, and its unit with it */
	check_filled(w);
	widen(w);
	check_filled(w);
	/* And what has come is not kept there. */
	for (unsigned int i = 0; i < SUBS; i++)
		while (w->subs[i].store.pages)
			sched_yield();
}

static void *let_go(void *arg)
{
	struct world *w = arg;

	while (!w->servers[0].stop)
		sched_yield();
	w->holds = false;
	return NULL;
}

/* All is here, it seems, while a unit leaves: that is not the end. */
static void leaves_at_the_end(void **state)
{
	struct world *w = *state;
	pthread_t thread;

	fill(w);
	until_up(w);
	w->holds = true;
	w->split.limit = LEAST;
	gw_servers_wake(&w->all);
	while (!w->held)
		sched_yield();
	w->split.limit = ALL;
	w->all.merging = true;
	assert_int_equal(w->split.table.away, 0);
	assert_int_equal(pthread_create(&thread, NULL, let_go, w), 0);
	assert_int_equal(gw_servers_finish(&w->all), 0);
	pthread_join(thread, NULL);
	assert_true(w->split.table.away > 0);
	/* Who merges looks for no victim, and widen() waits until each has. */
	w->all.merging = false;
	widen(w);
	check_filled(w);
	assert_int_equal(gw_servers_finish(&w->all), 1);
}

/* A process that has called nobody dismisses what another had called. */
static void dismissed_by_another(void **state)
{
	struct world *w = *state;
	struct gw_server one = { .address = "sub0:1", .size = PAGES * GW_PAGE_SIZE };
	struct gw_servers none = {
		.ops = w->all.ops, .tasks = w->all.tasks, .env = w, .name = "web1", .host = "A"
	};

	none.servers = &one;
	none.nr = 1;
	none.split = &w->split;
	until_up(w);
	gw_servers_stop(&w->all);
	gw_servers_dismiss(&none, gw_now() + 60 * GW_S);
	assert_null(one.conns[GW_MEMORY_REQUESTS]);
	assert_string_equal(one.error, "");
	assert_int_equal(gw_servers_start(&w->all), 0);
	until_up(w);
}

/* Nobody is sent more than he has promised, and a unit is in one place. */
static void room(void **state)
{
	struct world *w = *state;
	struct gw_server *s = w->servers;
	size_t at = 0, first, unit;
	unsigned int holder;

	until_up(w);
	assert_true(gw_servers_may_leave(&w->all, 0, 5) && gw_servers_may_leave(&w->all, 1, 5));
	s[0].size = (UNIT - 1) * GW_PAGE_SIZE;
	assert_false(gw_servers_may_leave(&w->all, 0, 5));
	s[1].size = s[0].size;
	assert_false(gw_servers_may_leave(&w->all, 1, 5));
	s[0].size = s[1].size = PAGES * GW_PAGE_SIZE;
	fill(w);
	narrow(w, LEAST);
	w->split.limit = ALL; /* nothing leaves any more */
	assert_true(gw_netpt_next(&w->split.table, &at, PAGES, &first) > 0);
	unit = first / UNIT;
	holder = gw_netpt_holder(&w->split.table, unit);
	assert_false(gw_servers_may_leave(&w->all, !holder, unit));
	/* Its pages of zeros are here, and may become others. */
	s[holder].size = s[holder].away * GW_PAGE_SIZE;
	assert_false(gw_servers_may_leave(&w->all, holder, unit));
	s[holder].size = ALL * GW_PAGE_SIZE;
	assert_true(gw_servers_may_leave(&w->all, holder, unit));
	widen(w);
}

/* What one has goes to the other; then it is not called any more, until it is needed again. */
static void evacuated(void **state)
{
	struct world *w = *state;
	struct gw_netpt *t = &w->split.table;
	size_t at = 0, first, n;

	fill(w);
	until_up(w);
	narrow(w, LEAST);
	assert_true(w->servers[0].away && w->servers[1].away);
	w->servers[0].leaves = true;
	assert_false(gw_servers_is_gone(&w->all, 0));
	for (size_t page = 0; !gw_servers_is_gone(&w->all, 0); page++) {
		/* The guest works on. */
		assert_int_equal(*word_in(&w->g, page % PAGES),
				 page % PAGES % 7 ? page % PAGES + 1 : 0);
		gw_split_ask(&w->split);
		gw_servers_wake(&w->all);
	}
	while ((n = gw_netpt_next(t, &at, PAGES, &first)))
		assert_int_equal(gw_netpt_holder(t, first / UNIT), 1);
	assert_int_equal(w->subs[0].store.pages, 0);
	assert_true(w->servers[1].away > PAGES / 2);
	for (size_t unit = 0; unit < UNITS; unit++)
		assert_false(gw_servers_may_leave(&w->all, 0, unit));
	w->servers[1].size = 0;
	assert_true(gw_servers_is_stuck(&w->all, 0));
	w->servers[1].size = PAGES * GW_PAGE_SIZE;
	w->split.limit = ALL;
	check_filled(w);
	assert_int_equal(gw_servers_add(&w->all, 0), 0);
	until_up(w);
	narrow(w, LEAST);
	assert_true(w->servers[0].away);
	widen(w);
	check_filled(w);
}

/* Of two addresses that may be of one host, who takes over calls first the one that has something.
 */
static void who_is_called_first(void **state)
{
	struct world *w = *state;
	char why[sizeof(w->servers[0].error)] = "";

	fill(w);
	until_up(w);
	w->servers[0].leaves = true; /* so that all goes to the other */
	while (!gw_servers_is_gone(&w->all, 0))
		gw_servers_wake(&w->all);
	narrow(w, LEAST);
	gw_servers_stop(&w->all);
	set_down(&w->subs[1], true);
	w->servers[0].gone = w->servers[0].leaves = false;
	w->servers[0].host[0] = w->servers[1].host[0] = '\0';
	assert_int_equal(gw_servers_start(&w->all), 0);
	while (!strstr(why, "may be the same host")) {
		gw_locked(&w->servers[0].lock);
		memcpy(why, w->servers[0].error, sizeof(why));
	}
	assert_false(w->servers[0].up);
	set_down(&w->subs[1], false);
	until_up(w);
	w->split.limit = ALL;
	check_filled(w);
	widen(w);
}

/* What a server says when it is called: for whoever waits for it to be there. */
static void refused(void **state)
{
	struct world *w = *state;
	char why[256] = "";

	until_up(w);
	w->subs[1].refuses = "no room for it";
	sub_end(&w->subs[1], false);
	while (!strstr(why, "no room for it")) {
		gw_locked(&w->servers[1].lock);
		memcpy(why, w->servers[1].error, sizeof(why));
	}
	w->subs[1].refuses = NULL;
	until_up(w);
}

/* One that is not there is called in its time, however much there is to do for it. */
static void away(void **state)
{
	struct world *w = *state;
	const int64_t until = gw_now() + 350 * GW_MS;
	struct sub *s = &w->subs[0];
	unsigned int refusals;

	until_up(w);
	set_down(s, true);
	sub_end(s, false);
	while (gw_now() < until)
		gw_servers_wake(&w->all);
	{
		gw_locked(&s->lock);
		refusals = s->refusals;
	}
	set_down(s, false);
	until_up(w);
	assert_in_range(refusals, 1, 4);
}

/* Cut and restarted again and again, and nothing is lost. */
static void in_bad_weather(void **state)
{
	struct gw_split_stats stats;
	static struct counter c[VCPUS];
	struct world *w = *state;
	struct rng rng = { 7 };
	unsigned int cuts = 0;

	until_up(w);
	w->split.limit = PAGES / 4;
	counters_start(c, &w->g, 2000);
	for (unsigned int done = 0; done < VCPUS;) {
		struct sub *s = &w->subs[rng_below(&rng, SUBS)];
		const int64_t until = gw_now() + (int64_t)rng_below(&rng, 30) * GW_MS;

		while (gw_now() < until)
			gw_split_ask(&w->split);
		if (rng_one_in(&rng, 2))
			hang_up(s);
		else
			sub_end(s, rng_one_in(&rng, 2));
		cuts++;
		until_up(w);
		if (!pthread_tryjoin_np(c[done].thread, NULL))
			done++;
	}
	assert_true(cuts > 3);
	assert_in_range(w->most, 0, PAGES / 4 + (uint64_t)w->split.threads * UNIT);
	gw_split_stats(&w->split, &stats);
	assert_true(stats.page_outs > PAGES);
	widen(w);
	counters_check(c, &w->g);
}

/* What no page table of the VM names lies at each of them, as where a main host was frozen. */
static size_t leave_behind(struct world *w)
{
	static uint8_t bytes[GW_PAGE_SIZE] = { 1 };
	size_t page = 0, all = 0;

	for (unsigned int i = 0; i < SUBS; i++) {
		while (gw_netpt_is_away(&w->split.table, page))
			page++;
		assert_int_equal(gw_memstore_put(&w->subs[i].store, page++, 1, bytes), 0);
		all += w->subs[i].store.pages;
	}
	return all;
}

static size_t stored(const struct world *w)
{
	return w->subs[0].store.pages + w->subs[1].store.pages;
}

/* Who is not yet the main host reads, and whatever comes or is not named stays; then it goes. */
static void carried(void **state)
{
	struct world *w = *state;
	size_t page = 1, all, away;

	fill(w);
	until_up(w);
	assert_true(w->servers[0].carries && w->servers[1].carries);
	narrow(w, LEAST);
	settle(w); /* what is on its way there would be stored later */
	gw_servers_stop(&w->all);
	all = leave_behind(w);
	w->split.limit = ALL; /* nothing is to leave, and all can come */
	w->split.frozen = w->all.carried = true;
	assert_int_equal(gw_servers_start(&w->all), 0);
	until_up(w);
	while (!gw_netpt_is_away(&w->split.table, page))
		page++;
	assert_int_equal(*word_in(&w->g, page), page + 1);
	while (gw_netpt_is_away(&w->split.table, page))
		sched_yield();
	assert_int_equal(stored(w), all);
	w->all.carried = false;
	gw_servers_compare(&w->all);
	assert_true(gw_split_thaw(&w->split));
	/* What has not come yet is there, and nothing else. */
	do {
		away = w->split.table.away;
		sched_yield();
	} while (away != w->split.table.away || stored(w) != away);
	check_filled(w);
	widen(w);
	check_filled(w);
}

/* And so it does at one that is being called just then. */
static void owned_as_it_is_called(void **state)
{
	struct world *w = *state;

	fill(w);
	until_up(w);
	narrow(w, LEAST);
	gw_servers_stop(&w->all);
	leave_behind(w);
	w->split.limit = ALL;
	w->all.carried = true;
	w->subs[0].owned = &w->all;
	assert_int_equal(gw_servers_start(&w->all), 0);
	while (stored(w) != w->split.table.away)
		sched_yield();
	until_up(w);
	check_filled(w);
	widen(w);
}

/* A server that has lost what it held says so, and no more is believed to be there. */
static void lost(void **state)
{
	struct world *w = *state;
	struct sub *s = &w->subs[0];

	fill(w);
	until_up(w);
	narrow(w, LEAST);
	/* A page that nobody has any more. */
	set_down(s, true);
	sub_end(s, false);
	{
		size_t at = 0, first = 0;

		/* Of its units, whichever have left. */
		do
			assert_true(gw_netpt_next(&w->split.table, &at, PAGES, &first) > 0);
		while (gw_netpt_holder(&w->split.table, first / UNIT) != 0);
		assert_int_equal(gw_memstore_release(&s->store, first, 1), 0);
	}
	set_down(s, false);
	while (!w->servers[0].lost)
		sched_yield();
	assert_int_equal(w->servers[0].lost, 1);
	/* The guest would wait for it for ever; here nobody does. */
	w->split.limit = ALL;
	w->all.merging = true;
	while (w->split.table.away > 1) {
		gw_servers_wake(&w->all);
		sched_yield();
	}
	assert_int_equal(w->servers[0].lost, 1); /* however often it was asked for */
	w->all.merging = false;
}

/* It dies, and what it had with it. */
static void die(struct sub *s)
{
	set_down(s, true);
	sub_end(s, false);
	assert_int_equal(gw_memstore_release(&s->store, 0, PAGES), 0);
}

static void until_whole(struct world *w)
{
	struct gw_missing_copies m;

	do {
		gw_servers_wake(&w->all);
		gw_servers_missing(&w->all, &m);
		sched_yield();
	} while (m.single);
}

/* Each page is at both; one dies with all that it has, and then the other. */
static void stored_twice(void **state)
{
	const struct gw_netpt *t;
	struct gw_missing_copies m;
	struct world *w = *state;
	size_t at = 0, first, n;

	t = &w->split.table;
	fill(w);
	until_up(w);
	narrow(w, LEAST);
	settle(w);
	assert_true(t->away > PAGES / 2 && !t->single);
	while ((n = gw_netpt_next(t, &at, PAGES, &first)))
		for (size_t page = first; page < first + n; page++)
			assert_true(gw_memstore_has(&w->subs[0].store, page) &&
				    gw_memstore_has(&w->subs[1].store, page));
	for (unsigned int i = 0; i < SUBS; i++) {
		die(&w->subs[i]);
		settle(w);
		check_filled(w);
		narrow(w, LEAST); /* for one, as there are not two */
		settle(w);
		gw_servers_missing(&w->all, &m);
		assert_int_equal(m.none, 0);
		assert_int_equal(m.single, t->away);
		assert_true(t->away > PAGES / 2);
		set_down(&w->subs[i], false);
		until_up(w);
		w->split.limit = 2 * LEAST;
		do /* what came for its other copy leaves again */
			until_whole(w);
		while (t->away <= PAGES / 4);
	}
	settle(w);
	check_filled(w);
	widen(w);
	check_filled(w);
}

/* One that is full is waited for, but not for ever; and one that leaves is not. */
static void room_for_two(void **state)
{
	unsigned int to[GW_COPIES_MAX];
	struct world *w = *state;
	struct gw_servers *v = &w->all;
	int64_t end;

	until_up(w);
	assert_int_equal(gw_servers_choose(v, 5, to), 2);
	assert_true(gw_servers_may_leave(v, 0, 5) && gw_servers_may_leave(v, 1, 5));
	w->servers[1].size = (UNIT - 1) * GW_PAGE_SIZE;
	assert_int_equal(gw_servers_choose(v, 5, to), -EAGAIN);
	assert_false(gw_servers_may_leave(v, 0, 5) || gw_servers_is_stuck(v, 5));
	end = gw_now() + 60 * GW_S;
	while (!gw_servers_may_leave(v, 0, 5) && gw_now() < end)
		sched_yield();
	assert_int_equal(gw_servers_choose(v, 5, to), 1);
	assert_int_equal(to[0], 0);
	w->servers[1].size = PAGES * GW_PAGE_SIZE;
	assert_int_equal(gw_servers_choose(v, 5, to), 2);
	w->servers[0].size = 0;
	w->servers[1].leaves = true;
	assert_int_equal(gw_servers_choose(v, 5, to), -EAGAIN);
	w->servers[1].leaves = false;
}

/* A unit of which a part is coming from one that leaves has a place for another soon. */
static void waits_for_a_place(void **state)
{
	unsigned int to[GW_COPIES_MAX];
	struct world *w = *state;
	struct gw_servers *v = &w->all;
	struct gw_netpt *t = &w->split.table;
	size_t first, at = 0;
	int64_t end;

	gw_servers_stop(v);
	for (unsigned int i = 0; i < SUBS; i++)
		w->servers[i].up = true;
	assert_int_equal(gw_netpt_next(t, &at, t->nr_pages, &first), 0);
	assert_true(gw_unit_pages(&t->units, 5, &first) > 0);
	gw_netpt_put(t, 5, 0, 1);
	gw_netpt_leaves_for(t, first, 1, 1U << 0);
	w->servers[1].leaves = true;
	v->short_since = 0;
	assert_int_equal(gw_servers_choose(v, 5, to), -EAGAIN);
	/* If nothing has room before that, it leaves for one. */
	end = gw_now() + 60 * GW_S;
	while (gw_servers_choose(v, 5, to) == -EAGAIN && gw_now() < end)
		sched_yield();
	assert_int_equal(gw_servers_choose(v, 5, to), 1);
	assert_int_equal(to[0], 0);
	/* One that cannot be reached is not waited for. */
	v->short_since = 0;
	w->servers[1].up = false;
	assert_int_equal(gw_servers_choose(v, 5, to), 1);
	gw_netpt_placed(t, 5, first, 1);
	w->servers[1].leaves = false;
	w->servers[0].up = false;
}

#define servers_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)
#define twice_test(fn)	 cmocka_unit_test_setup_teardown(fn, make_twice, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		servers_test(there_and_back),
		servers_test(room),
		servers_test(leaves_at_the_end),
		servers_test(evacuated),
		servers_test(who_is_called_first),
		servers_test(refused),
		servers_test(away),
		servers_test(in_bad_weather),
		servers_test(lost),
		servers_test(carried),
		servers_test(owned_as_it_is_called),
		servers_test(dismissed_by_another),
		twice_test(there_and_back),
		twice_test(stored_twice),
		twice_test(room_for_two),
		twice_test(waits_for_a_place),
		twice_test(leaves_at_the_end),
		twice_test(in_bad_weather),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
