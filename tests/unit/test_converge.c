// SPDX-License-Identifier: GPL-2.0-or-later
/* test_converge.c - what a switchover would cost, and when there is no hope of a cheap one. */
#include "unit.h"

#include <errno.h>

#include "clock.h"
#include "internal.h"

static int make(void **state)
{
	struct gw_source *s = calloc(1, sizeof(*s));

	*state = s;
	if (!s)
		return -1;
	s->params.downtime_limit_ms = 300;
	return 0;
}

static int drop(void **state)
{
	free(*state);
	return 0;
}

static struct gw_converge fresh(void)
{
	return (struct gw_converge){ .best = INT64_MAX };
}

static void cost_follows_what_was_measured(void **state)
{
	struct gw_source *s = *state;
	int64_t fixed = gw_converge_cost(s, 0);

	assert_true(fixed > 0 && fixed < 100 * GW_MS);
	s->holder.bandwidth = 1000000000;
	s->holder.wire_per_page = 4000;
	assert_int_equal(gw_converge_cost(s, 0), fixed);
	assert_int_equal(gw_converge_cost(s, 250000), fixed + GW_S);
	s->holder.wire_per_page = 2000;
	assert_int_equal(gw_converge_cost(s, 250000), fixed + GW_S / 2);
	s->holder.bandwidth /= 10;
	assert_int_equal(gw_converge_cost(s, 250000), fixed + 5 * GW_S);
}

/* Answers take their time: each is waited for while the guest stands still. */
static void a_far_destination_costs(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();
	const int64_t near = gw_converge_fixed(s);

	s->holder.round_trip = GW_MS / 2;
	assert_int_equal(gw_converge_fixed(s), near);
	s->holder.round_trip = 100 * GW_MS;
	assert_in_range(gw_converge_fixed(s) - near, 245 * GW_MS, 250 * GW_MS);
	assert_int_equal(gw_converge_check(s, &c, gw_converge_cost(s, 0)), 0);
	s->holder.round_trip = 200 * GW_MS;
	assert_int_equal(gw_converge_check(s, &c, gw_converge_cost(s, 0)), -ERANGE);
	assert_message("200 ms away");
	assert_message("at least 523 ms where 300 ms are allowed; use --downtime-limit 1046");
}

/* Pages that do not change cost no bandwidth, and yet somebody has to look at them. */
static void cost_of_looking(void **state)
{
	struct gw_source *s = *state;
	int64_t fixed = gw_converge_cost(s, 0);

	s->holder.bandwidth = 1000000000;
	s->holder.wire_per_page = 4;
	s->holder.page_ns = 400;
	assert_int_equal(gw_converge_cost(s, 1000000), fixed + 400 * GW_MS);
	s->holder.page_ns = 1;
	assert_int_equal(gw_converge_cost(s, 1000000), fixed + 4 * GW_MS);
}

/* Before anything was measured, whole pages over a slow network: never nothing. */
static void cost_without_measurements(void **state)
{
	struct gw_source *s = *state;
	int64_t one_gib = gw_converge_cost(s, 1 << 18);

	assert_true(one_gib > 5 * GW_S && one_gib < 60 * GW_S);
	assert_true(gw_converge_cost(s, 1ULL << 30) > one_gib); /* 4 TiB: no overflow */
}

/* While rounds get cheaper, however slowly at first, it goes on. */
static void improvement_is_patience(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();
	int64_t cost = 1000 * GW_S;

	for (int i = 0; i < 100; i++) {
		assert_int_equal(gw_converge_check(s, &c, cost), 0);
		assert_int_equal(c.best, cost);
		cost -= cost / 8;
	}
}

static int rounds_until_failure(const struct gw_source *s, struct gw_converge *c, int64_t cost)
{
	for (int rounds = 1; rounds < 1000; rounds++)
		if (gw_converge_check((struct gw_source *)(uintptr_t)s, c, cost))
			return rounds;
	return -1;
}

static void a_writing_guest_is_given_up(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();
	int rounds;

	s->dirty_rate = 256000; /* 1000 MiB/s */
	s->holder.bandwidth = 500 << 20;
	rounds = rounds_until_failure(s, &c, 2 * GW_S);
	assert_true(rounds > 5 && rounds < 50);
	assert_message("faster than it can be moved: 1000 MiB/s against 500 MiB/s");
	assert_message("would be 2000 ms where 300 ms are allowed");
	assert_message("--downtime-limit 3000");
	/* Gains of less than a tenth are none. */
	c = fresh();
	for (int i = 0; i < rounds - 1; i++)
		assert_int_equal(gw_converge_check(s, &c, 2 * GW_S - i * GW_MS), 0);
	assert_int_equal(gw_converge_check(s, &c, 2 * GW_S - 190 * GW_MS), -ETIME);
	/* A tenth better just in time begins anew. */
	c = fresh();
	for (int i = 0; i < rounds - 1; i++)
		assert_int_equal(gw_converge_check(s, &c, 2 * GW_S), 0);
	assert_int_equal(gw_converge_check(s, &c, GW_S), 0);
	assert_int_equal(rounds_until_failure(s, &c, GW_S), rounds - 1);
}

/* Where post-copy waits behind rounds, they are not tried for long. */
/* Once it would have been within the limit, and one more round was to lower that: it did not. */
static void given_up_after_all(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();

	assert_int_equal(gw_converge_check(s, &c, 200 * GW_MS), 0);
	for (int i = 0; i < 11; i++)
		assert_int_equal(gw_converge_check(s, &c, 500 * GW_MS), 0);
	assert_int_equal(gw_converge_check(s, &c, 600 * GW_MS), -ETIME);
	assert_message("would be 600 ms where 300 ms are allowed");
}

static void post_copy_is_near(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();

	s->params.postcopy = GW_POSTCOPY_AUTO;
	assert_int_equal(rounds_until_failure(s, &c, 2 * GW_S), 3);
}

/* A guest that writes 160 MB/s round and round, over 120 MB/s; @pages: what it writes. */
static bool never_gets_there(struct gw_source *s, int64_t ns, uint64_t pages)
{
	const uint64_t written = (uint64_t)ns * 39062 / GW_S, sent = (uint64_t)ns * 29297 / GW_S;

	s->done_pages = sent;
	return gw_converge_never(s, ns, ns + s->scan_ns, written < pages ? written : pages);
}

/* Whether more rounds would help shows within the first that is long enough. */
static void what_is_hopeless(void **state)
{
	struct gw_source *s = *state;

	assert_false(never_gets_there(s, 299 * GW_MS, 25600)); /* too short to tell */
	assert_true(never_gets_there(s, 300 * GW_MS, 25600));
	assert_true(never_gets_there(s, 600 * GW_MS, 25600));
	/* What fits into the limit: a round of that ends it. */
	assert_false(never_gets_there(s, 300 * GW_MS, 8000));
	/* The scan took as long: half of what was written is this round's. */
	s->scan_ns = 300 * GW_MS;
	assert_false(never_gets_there(s, 300 * GW_MS, 25600));
}

/* After a round that sent @sent pages in @ms, @written are due. */
static bool is_behind(struct gw_source *s, int64_t ms, uint64_t sent, uint64_t written)
{
	const struct gw_converge c = { .last_scan = GW_S };

	s->nr_rounds = 2;
	s->rounds[1].ns = ms * GW_MS;
	s->done_pages = sent;
	return gw_converge_behind(s, &c, GW_S + (ms + 1) * GW_MS, written);
}

/*
 * Rounds of a guest that writes 160 MB/s over 1 Gbit/s, on processors that it shares: each
 * was cheaper than the one before by a tenth, and none would have been the last.
 */
static void who_has_fallen_behind(void **state)
{
	struct gw_source *s = *state;

	s->params.postcopy = GW_POSTCOPY_AUTO;
	assert_false(is_behind(s, 766, 22277, 19115));
	assert_true(is_behind(s, 512, 15216, 18148));
	assert_false(is_behind(s, 616, 18079, 10098));
	assert_false(is_behind(s, 200, 6000, 7000)); /* a round like that is the last */
	s->params.postcopy = GW_POSTCOPY_NEVER;
	assert_false(is_behind(s, 512, 15216, 18148));
	s->params.postcopy = GW_POSTCOPY_AUTO;
	s->nr_rounds = 0;
	assert_false(gw_converge_behind(s, &(struct gw_converge){ 0 }, GW_S, 18148));
}

/* Rounds within the limit never count against the guest. */
static void within_the_limit_is_fine(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();

	assert_int_equal(rounds_until_failure(s, &c, 300 * GW_MS), -1);
	c = fresh();
	assert_true(rounds_until_failure(s, &c, 300 * GW_MS + 1) > 0);
	s->params.downtime_limit_ms = UINT32_MAX;
	c = fresh();
	assert_int_equal(rounds_until_failure(s, &c, 3600 * GW_S), -1);
}

/* What QEMU sends itself, and a scan that takes long, cost the guest's time like its pages. */
static void cost_of_what_no_round_lowers(void **state)
{
	struct gw_source *s = *state;
	int64_t fixed = gw_converge_fixed(s);

	s->holder.bandwidth = 12500000; /* 100 Mbit/s */
	s->holder.wire_per_page = 4096;
	assert_int_equal(gw_converge_cost(s, 0), fixed);
	s->device_weight = 60 << 20;
	assert_in_range(gw_converge_fixed(s) - fixed, 5 * GW_S, 5100 * GW_MS);
	s->device_weight = 0;
	s->scan_ns = 800 * GW_MS; /* a TiB */
	assert_in_range(gw_converge_fixed(s) - fixed, 780 * GW_MS, 800 * GW_MS);
	assert_int_equal(gw_converge_cost(s, 0), gw_converge_fixed(s));
}

/* Moves that took longer than assumed are believed in the middle, and forbid none. */
static void legs_are_remembered(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();
	const int64_t assumed = gw_converge_fixed(s);

	gw_legs_add(&s->legs, 9000); /* below what is assumed: no less */
	assert_int_equal(gw_converge_fixed(s), assumed);
	gw_legs_add(&s->legs, 80000);
	gw_legs_add(&s->legs, 70000);
	assert_int_equal(gw_converge_fixed(s), 70 * GW_MS);
	gw_legs_add(&s->legs, GW_LEG_US_MAX);
	gw_legs_add(&s->legs, 60000);
	assert_int_equal(gw_converge_fixed(s), 70 * GW_MS);
	/* What else is known comes on top. */
	s->scan_ns = 45 * GW_MS;
	s->holder.round_trip = 20 * GW_MS;
	assert_int_equal(gw_converge_fixed(s), (70 + 40 + 48) * GW_MS);
	/* Half of what is left at most, so that there is always a cost that will do. */
	s->scan_ns = s->holder.round_trip = 0;
	for (int i = 0; i < GW_LEGS_MAX; i++)
		gw_legs_add(&s->legs, GW_LEG_US_MAX);
	assert_int_equal(gw_converge_fixed(s), assumed + (300 * GW_MS - assumed) / 2);
	for (unsigned int ms = GW_SOURCE_FIXED_MS; ms < 1000; ms++) {
		s->params.downtime_limit_ms = ms;
		c = fresh();
		assert_true(gw_converge_cost(s, 0) <= ms * GW_MS);
		assert_int_equal(gw_converge_check(s, &c, gw_converge_cost(s, 0)), 0);
	}
	s->holder.round_trip = 1000 * GW_MS; /* no room at all */
	assert_true(gw_converge_fixed(s) < 2600 * GW_MS);
}

/* What one leaves for the next is what the estimate has no other figure for. */
static void a_leg_is_measured(void **state)
{
	struct gw_source *s = *state;

	s->stop_ns = 30 * GW_MS;
	s->scan_ns = 200 * GW_MS; /* 195 of them are a figure of its own */
	s->holder.bandwidth = 12500000;
	assert_int_equal(gw_converge_leg(s, 15 * GW_MS), 0); /* it was paused */
	s->runs = true;
	assert_int_equal(gw_converge_leg(s, 15 * GW_MS), 50000);
	s->device_weight = 1250000; /* 100 ms */
	assert_int_equal(gw_converge_leg(s, 115 * GW_MS), 50000);
	assert_int_equal(gw_converge_leg(s, 60 * GW_MS), 35000);
	assert_int_equal(gw_converge_leg(s, 1000 * GW_S), GW_LEG_US_MAX);
	s->stop_ns = s->scan_ns = 0;
	assert_int_equal(gw_converge_leg(s, 0), 1); /* 0 is none */
}

/* A display that does not fit is named, with the figures, before the guest is stopped. */
static void a_heavy_display_is_named(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();
	int rounds;

	s->holder.bandwidth = 12500000;
	s->device_weight = 60 << 20;
	rounds = rounds_until_failure(s, &c, gw_converge_cost(s, 0));
	assert_in_range(rounds, 2, 5);
	assert_message("60.0 MiB to send");
	assert_message("12 MiB/s");
	assert_message("5058 ms where 300 ms are allowed; use --downtime-limit 7587");
	/* Once is not for ever: a screen may be cleared. */
	c = fresh();
	assert_int_equal(gw_converge_check(s, &c, 6 * GW_S), 0);
	s->device_weight = 1 << 10;
	for (int i = 0; i < 5; i++)
		assert_int_equal(gw_converge_check(s, &c, (6 - i) * GW_S), 0);
}

/* Rounds within the limit go on while each of them wins a fifth. */
static void cheap_rounds_lower_the_cost(void **state)
{
	struct gw_source *s = *state;
	struct gw_converge c = fresh();

	assert_false(gw_converge_enough(s, &c, 290 * GW_MS));
	assert_false(gw_converge_enough(s, &c, 150 * GW_MS));
	assert_true(gw_converge_enough(s, &c, 140 * GW_MS));
	/* What no round lowers is most of it. */
	c = fresh();
	assert_true(gw_converge_enough(s, &c, gw_converge_fixed(s) + GW_MS));
	/* A guest that wrote more meanwhile: the next chance is taken. */
	c = fresh();
	assert_false(gw_converge_enough(s, &c, 290 * GW_MS));
	assert_int_equal(gw_converge_check(s, &c, 400 * GW_MS), 0);
	assert_true(gw_converge_enough(s, &c, 200 * GW_MS));
	/* And there is an end to it, whatever it wins. */
	c = fresh();
	for (int64_t cost = 100 * GW_S, rounds = 0; !gw_converge_enough(s, &c, cost); cost /= 2)
		assert_true(rounds++ < 20);
}

#define converge_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		converge_test(cost_follows_what_was_measured),
		converge_test(a_far_destination_costs),
		converge_test(cost_of_looking),
		converge_test(cost_without_measurements),
		converge_test(improvement_is_patience),
		converge_test(a_writing_guest_is_given_up),
		converge_test(given_up_after_all),
		converge_test(post_copy_is_near),
		converge_test(what_is_hopeless),
		converge_test(who_has_fallen_behind),
		converge_test(within_the_limit_is_fine),
		converge_test(cost_of_what_no_round_lowers),
		converge_test(legs_are_remembered),
		converge_test(a_leg_is_measured),
		converge_test(a_heavy_display_is_named),
		converge_test(cheap_rounds_lower_the_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
