// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_split.c - pages that come and units that leave, on a real userfaultfd: threads of this
 * process are the guest, which counts in each page, and an array is what a memory server holds.
 *
 * Every race is held at its point (enum gw_split_park): the one who works there stands still, or
 * is taken for dead, and the guest goes on.
 */
#include "split_world.h"

#include <sys/wait.h>

static void leaves_and_comes_back(void **state)
{
	struct world *w = *state;
	struct gw_split_stats s;

	for (size_t page = 0; page < 2 * UNIT; page += 2)
		*word_of(w, page) = page + 1;
	*word_of(w, 6) = 0; /* all zero, and in the file */
	assert_int_equal(gw_split_here(&w->split), UNIT);
	assert_int_equal(send_out(w, 0), UNIT / 2);
	assert_int_equal(gw_split_here(&w->split), UNIT / 2);
	assert_int_equal(w->split.table.away, UNIT / 2 - 1);
	assert_true(gw_netpt_is_away(&w->split.table, 0) && !gw_netpt_is_away(&w->split.table, 6));
	for (size_t page = 0; page < 2 * UNIT; page++)
		assert_int_equal(*word_of(w, page), page % 2 || page == 6 ? 0 : page + 1);
	s = stats_at(w, UNIT / 2 - 1);
	assert_int_equal(w->split.table.away, 0);
	while (w->split.coming) /* the last page of zeros is seen before it is counted */
		sched_yield();
	assert_true(s.page_ins == UNIT / 2 - 1 && s.page_outs == UNIT / 2 && s.units_out == 1 &&
		    !s.units_kept && s.faults.faults == UNIT / 2 - 1);
	assert_int_equal(w->released, UNIT / 2 - 1);
	/* Nothing is left protected: this would wait for ever. */
	for (size_t page = 0; page < 2 * UNIT; page++)
		*word_of(w, page) = page;
}

static void written_as_it_leaves(void **state)
{
	static const int where[] = { GW_SPLIT_LEAVING, GW_SPLIT_STORED };
	struct world *w = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(where); i++) {
		struct act a = { .w = w, .unit = 3 };
		struct vcpu v;
		const size_t page = 3 * UNIT + 5;
		struct gw_split_stats s;

		*word_of(w, page) = 40;
		*word_of(w, page + 1) = 50;
		stop_at(w, GW_SPLIT_STORED);
		assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
		until_stopped(w);
		/* Its holder has it, and the guest writes it. */
		touch(&v, w, page, 2);
		pthread_join(v.thread, NULL);
		assert_int_equal(v.saw, 40);
		go_on(w);
		pthread_join(a.thread, NULL);
		assert_int_equal(*word_of(w, page), 42);
		assert_true(in_file(w, page) && in_file(w, page + 1));
		assert_int_equal(w->split.table.away, 0);
		assert_false(w->held[page] || w->held[page + 1]);
		gw_split_stats(&w->split, &s);
		assert_int_equal(s.units_kept, i + 1);
		/* And now it goes. */
		assert_true(send_out(w, 3) > 0);
		assert_false(in_file(w, page));
		assert_int_equal(*word_of(w, page), 42);
		assert_int_equal(*word_of(w, page + 1), 50);
	}
}

/* Whatever is done to it then, it waits, and sees the newest bytes. */
static void touched_as_it_goes(void **state)
{
	static const int where[] = { GW_SPLIT_PROTECTED, GW_SPLIT_AWAY, GW_SPLIT_PUNCHED };
	struct world *w = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(where); i++) {
		for (uint64_t adds = 0; adds < 2; adds++) {
			struct act a = { .w = w, .unit = 2 };
			struct vcpu v;
			const size_t page = 2 * UNIT;

			*word_of(w, page) = 70;
			stop_at(w, where[i]);
			assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
			until_stopped(w);
			touch(&v, w, page, adds);
			go_on(w);
			pthread_join(a.thread, NULL);
			pthread_join(v.thread, NULL);
			assert_int_equal(v.saw, 70);
			assert_int_equal(*word_of(w, page), 70 + adds);
		}
	}
}

/* Where pages may be pinned nothing leaves that was not protected before. */
static void only_what_was_prepared(void **state)
{
	struct world *w = *state;
	size_t pages[GW_UNIT_PAGES_MAX];

	w->split.pinned = true;
	*word_of(w, 0) = 3;
	*word_of(w, UNIT) = 4;
	assert_int_equal(send_out(w, 0), 0);
	assert_true(gw_split_prepare(&w->split, 0) && gw_split_prepare(&w->split, 0));
	assert_true(gw_split_prepare(&w->split, 1) && gw_split_prepare(&w->split, 9));
	*word_of(w, 1) = 5; /* whoever pins one does as much */
	assert_int_equal(send_out(w, 0), 0);
	assert_int_equal(send_out(w, 1), 1);
	assert_int_equal(send_out(w, 9), 0);
	assert_true(in_file(w, 0) && !in_file(w, UNIT));
	/* What comes to it would not be protected, so it may leave no more; and all can come. */
	assert_true(gw_split_prepare(&w->split, 1));
	assert_int_equal(gw_split_rest(&w->split, 1, UNIT, UNIT, pages), 1);
	assert_int_equal(send_out(w, 1), 0);
	gw_split_unask(&w->split, 1);
	*word_of(w, 9 * UNIT) = 1;
	assert_int_equal(*word_of(w, UNIT), 4);
}

/* Around pages that lie apart little is fetched; all of a unit beside the last ones. */
static void what_lies_around(void **state)
{
	static const struct {
		size_t page, fetched, count;
	} faults[] = {
		{ 1 * UNIT + 20, 1 * UNIT + GW_AHEAD_PAGES, GW_AHEAD_PAGES },
		{ 7 * UNIT, 7 * UNIT, GW_AHEAD_PAGES },
		{ 4 * UNIT + 31, 4 * UNIT + GW_AHEAD_PAGES, GW_AHEAD_PAGES },
		{ 5 * UNIT + 3, 5 * UNIT, UNIT },
	};
	struct world *w = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(faults); i++) {
		const size_t unit = faults[i].page / UNIT;
		const struct gw_fault fault = { .page = faults[i].page };

		for (size_t page = unit * UNIT; page < (unit + 1) * UNIT; page++)
			*word_of(w, page) = page + 1;
		assert_true(send_out(w, unit) > 0);
		gw_split_fault(&w->split, &fault, 1);
		assert_int_equal(w->fetched, faults[i].fetched);
		assert_int_equal(w->nr_fetched, faults[i].count);
	}
}

/* Two on one page, which is asked for once. */
static void two_on_one_page(void **state)
{
	struct world *w = *state;
	struct gw_split_stats s;
	struct vcpu v[2];

	*word_of(w, 9) = 1;
	assert_true(send_out(w, 0) > 0);
	stop_at(w, GW_SPLIT_NOTED);
	touch(&v[0], w, 9, 1);
	until_stopped(w);
	touch(&v[1], w, 9, 0);
	go_on(w);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(v[i].thread, NULL);
	assert_int_equal(*word_of(w, 9), 2);
	s = stats_at(w, 1);
	assert_int_equal(s.page_ins, 1);
}

/* What was not asked for, and what is here, is not placed. */
static void unasked(void **state)
{
	struct world *w = *state;
	uint8_t bytes[GW_PAGE_SIZE];

	memset(bytes, 0x77, sizeof(bytes));
	*word_of(w, 1) = 5;
	gw_split_place(&w->split, 1, 1, bytes);
	gw_split_place(&w->split, 2, 1, bytes);
	assert_int_equal(*word_of(w, 1), 5);
	assert_int_equal(*word_of(w, 2), 0);
	assert_true(send_out(w, 0) > 0);
	gw_split_place(&w->split, 1, 1, bytes);
	assert_true(gw_netpt_is_away(&w->split.table, 1));
	assert_int_equal(*word_of(w, 1), 5);
}

/* No more is here than may be: whoever wants more waits until a unit has left. */
static void no_room(void **state)
{
	struct world *w = *state;
	struct vcpu v[3];

	w->split.limit = UNIT;
	for (size_t page = 0; page < 2 * UNIT; page++)
		*word_of(w, page) = page + 1;
	assert_int_equal(gw_split_here(&w->split), 2 * UNIT);
	touch(&v[0], w, 5 * UNIT, 1);
	until_deferred(w, 1);
	for (unsigned int i = 0; i < 3; i++)
		gw_split_ask(&w->split);
	assert_false(v[0].done);
	assert_int_equal(w->told, 1); /* and not again and again */
	assert_true(send_out(w, 0) > 0);
	pthread_join(v[0].thread, NULL);
	touch(&v[1], w, 3, 1); /* away */
	pthread_join(v[1].thread, NULL);
	assert_int_equal(v[1].saw, 4);
	while (w->split.coming) /* whoever placed it goes on later than who waited for it */
		sched_yield();
	for (size_t page = 6 * UNIT; gw_split_here(&w->split) < 2 * UNIT; page++)
		*word_of(w, page) = 1;
	touch(&v[2], w, UNIT - 1, 0);
	until_deferred(w, 2);
	assert_false(v[2].done);
	assert_true(send_out(w, 1) > 0);
	pthread_join(v[2].thread, NULL);
	assert_int_equal(v[2].saw, UNIT);
}

/* This host has no memory for it: who waits tries again, when somebody looks, and not at once. */
static void no_memory(void **state)
{
	struct world *w = *state;
	struct vcpu v;

	w->poor = true;
	touch(&v, w, 3, 1);
	while (!w->split.retry)
		sched_yield();
	assert_false(v.done);
	assert_int_equal(w->told, 0);
	w->poor = false;
	assert_int_equal(gw_watch_wake(&w->g.paged), 0);
	pthread_join(v.thread, NULL);
	assert_int_equal(*word_of(w, 3), 1);
	assert_int_equal(w->split.coming, 0);
}

/* Nor for pages of two units, that come together: each is asked for again. */
static void no_memory_for_two(void **state)
{
	struct world *w = *state;
	uint8_t bytes[2 * GW_PAGE_SIZE] = { 0 };
	size_t pages[GW_UNIT_PAGES_MAX];
	const size_t page = 2 * UNIT - 1;

	for (size_t i = page; i < page + 2; i++)
		*word_of(w, i) = i;
	assert_true(send_out(w, 1) > 0 && send_out(w, 2) > 0);
	assert_int_equal(gw_split_rest(&w->split, 1, UNIT, UNIT, pages), 1);
	assert_int_equal(gw_split_rest(&w->split, 1, 2 * UNIT, UNIT, pages), 1);
	w->poor = true;
	gw_split_place(&w->split, page, 2, bytes);
	assert_int_equal(w->split.coming, 0);
	w->poor = false;
	for (size_t i = page; i < page + 2; i++)
		assert_int_equal(*word_of(w, i), i);
}

/* A server that is not there: what is wanted is asked for when it is. */
static void silent_server(void **state)
{
	struct world *w = *state;
	struct vcpu v;

	*word_of(w, 4) = 8;
	assert_true(send_out(w, 0) > 0);
	set_silent(w, true);
	touch(&v, w, 4, 0);
	until_put_off(w);
	gw_split_ask(&w->split);
	until_put_off(w);
	assert_false(v.done);
	assert_int_equal(w->split.coming, 0);
	set_silent(w, false);
	gw_split_ask(&w->split);
	pthread_join(v.thread, NULL);
	assert_int_equal(v.saw, 8);
}

/* The same guest and memory server, and nobody of those who paged. */
static struct world *successor(struct world *w)
{
	struct world *n = calloc(1, sizeof(*n));
	const uint64_t one = 1;

	assert_true(n && write(w->faults.stop, &one, sizeof(one)) == sizeof(one));
	pthread_detach(w->faults.threads[0].thread);
	pthread_detach(w->server);
	n->g = w->g;
	n->store = w->store;
	n->held = w->held;
	memcpy(n->path, w->path, sizeof(n->path));
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->changed, NULL);
	n->stop_at = NOBODY;
	begin(n, true);
	return n;
}

/* What the dead one heard last, nobody else has. */
static void until_done(struct world *w, struct vcpu *v)
{
	while (pthread_tryjoin_np(v->thread, NULL)) {
		assert_int_equal(gw_watch_wake(&w->g.paged), 0);
		sched_yield();
	}
}

/* Whoever works dies at @where, and another takes over. */
static void die(struct world *w, int where, bool comes)
{
	const size_t page = UNIT + 3;
	struct act a = { .w = w, .unit = 1 };
	struct vcpu v, late;
	struct world *n;

	*word_of(w, page) = 11;
	*word_of(w, page + 1) = 12;
	if (comes)
		assert_true(send_out(w, 1) > 0);
	stop_at(w, where);
	if (comes)
		touch(&v, w, page, 1);
	else
		assert_int_equal(pthread_create(&a.thread, NULL, act_out, &a), 0);
	until_stopped(w);
	if (!comes)
		touch(&v, w, page, 1);
	if (!comes)
		pthread_detach(a.thread);
	n = successor(w);
	touch(&late, n, page + 1, 0);
	until_done(n, &late);
	until_done(n, &v);
	assert_int_equal(late.saw, 12);
	assert_int_equal(*word_of(n, page), 12);
	end(n);
}

static void in_a_child(void (*fn)(struct world *w, int where, bool comes), void **state, int where,
		       bool comes)
{
	const pid_t pid = fork();
	int status;

	if (!pid) {
		struct world *w;
		void *made;

		alarm(120);
		(void)state;
		make(&made);
		w = made;
		fn(w, where, comes);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("who dies at %d%s: %#x", where, comes ? ", as a page comes" : "", status);
}

static void deaths(void **state)
{
	for (int where = GW_SPLIT_PROTECTED; where <= GW_SPLIT_PUNCHED; where++)
		in_a_child(die, state, where, false);
	for (int where = GW_SPLIT_NOTED; where <= GW_SPLIT_CAME; where++)
		in_a_child(die, state, where, true);
}

/* Everybody at once, at random: each page counts what was added to it. */
static void everybody(void **state)
{
	static struct counter c[VCPUS];
	struct world *w = *state;
	struct rng rng = { 99 };
	unsigned int left = 0;

	w->split.limit = PAGES / 4;
	counters_start(c, &w->g, 6000);
	for (unsigned int done = 0; done < VCPUS;) {
		left += send_out(w, rng_below(&rng, UNITS)) > 0;
		assert_true(gw_split_here(&w->split) <= PAGES / 4 + UNIT);
		if (!pthread_tryjoin_np(c[done].thread, NULL))
			done++;
	}
	assert_true(left > 20);
	w->split.limit = PAGES;
	gw_split_ask(&w->split);
	counters_check(c, &w->g);
}

static void units(void **state)
{
	struct gw_memory m = { .nr_blocks = 2, .nr_pages = 1024 };
	struct gw_units u;
	size_t first;

	(void)state;
	m.blocks[0].nr_pages = 700;
	m.blocks[1].first_page = 768;
	m.blocks[1].nr_pages = 100;
	gw_units_init(&u, &m, 512);
	assert_int_equal(u.nr, 3);
	assert_int_equal(gw_unit_of(&u, 699), 1);
	assert_int_equal(gw_unit_of(&u, 768), 2);
	assert_int_equal(gw_unit_pages(&u, 1, &first), 188);
	assert_int_equal(first, 512);
	assert_int_equal(gw_unit_pages(&u, 2, &first), 100);
	assert_int_equal(first, 768);
}

static void damaged_tables(void **state)
{
	static const uint8_t id[GW_ID_LEN] = { 7 }, other[GW_ID_LEN] = { 8 };
	struct world *w = *state;
	struct gw_netpt t;
	gw_autofd int fd = -1;

	assert_int_equal(gw_netpt_open(&t, w->path, &w->g.ram.memory, other), -EINVAL);
	gw_netpt_close(&t);
	assert_int_equal(gw_netpt_open(&t, w->path, &w->g.ram.memory, id), 0);
	gw_netpt_close(&t);
	fd = open(w->path, O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, GW_PAGE_SIZE + 5), 0);
	assert_int_equal(gw_netpt_open(&t, w->path, &w->g.ram.memory, id), -EINVAL);
	gw_netpt_close(&t);
	assert_int_equal(ftruncate(fd, 5), 0);
	assert_int_equal(gw_netpt_open(&t, w->path, &w->g.ram.memory, id), -EINVAL);
	gw_netpt_close(&t);
	assert_int_equal(gw_netpt_open(&t, "/tmp/gw-no-such", &w->g.ram.memory, id), -ENOENT);
	gw_netpt_close(&t);
	assert_int_equal(ftruncate(fd, (off_t)w->split.table.len), 0);
}

#define split_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(units),
		split_test(leaves_and_comes_back),
		split_test(written_as_it_leaves),
		split_test(touched_as_it_goes),
		split_test(only_what_was_prepared),
		split_test(two_on_one_page),
		split_test(unasked),
		split_test(no_room),
		split_test(no_memory),
		split_test(what_lies_around),
		split_test(no_memory_for_two),
		split_test(silent_server),
		split_test(everybody),
		split_test(damaged_tables),
		cmocka_unit_test(deaths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
