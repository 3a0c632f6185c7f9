// SPDX-License-Identifier: GPL-2.0-or-later
/* test_window.c - a window over links of all kinds, in virtual time. */
#include "unit.h"

#include <errno.h>

#include "clock.h"
#include "page.h"
#include "window.h"

/* One queue, one wire, a destination that places what arrives and says so. */
struct link {
	double rate;	/* bytes/s */
	int64_t trip;	/* there and back, ns */
	int64_t make;	/* to make a frame, ns */
	int64_t stall;	/* the destination does nothing from then on ... */
	int64_t stalls; /* ... for so long */
};

struct run {
	double used;   /* of what the link could take */
	int64_t queue; /* longest time before a frame on the wire, after @from */
};

#define EVENTS 4096

static struct run run(const struct link *l, double hint, unsigned int wire_page, int64_t from,
		      int64_t until)
{
	static struct {
		int64_t at;
		uint64_t bytes;
	} told[EVENTS];
	struct gw_window w;
	struct run result = { 0 };
	int64_t now = 0, free_at = 0;
	uint64_t sent = 0, before = 0;
	size_t head = 0, tail = 0;

	gw_window_init(&w, hint);
	while (now < until) {
		if (gw_window_open(&w)) {
			uint64_t len = (uint64_t)gw_window_pages(&w) * wire_page;
			int64_t leaves, arrives;

			now += l->make;
			if (now >= from && !before)
				before = sent;
			leaves = now > free_at ? now : free_at;
			if (now >= from && leaves - now > result.queue)
				result.queue = leaves - now;
			free_at = leaves + (int64_t)((double)len * GW_S / l->rate);
			arrives = free_at + l->trip;
			if (arrives >= l->stall && arrives < l->stall + l->stalls)
				arrives = l->stall + l->stalls;
			sent += len;
			gw_window_sent(&w, sent, now);
			assert_true(tail - head < GW_WINDOW_FRAMES);
			told[tail % EVENTS].at = arrives;
			told[tail++ % EVENTS].bytes = sent;
		}
		while (head < tail && (told[head % EVENTS].at <= now || !gw_window_open(&w))) {
			if (told[head % EVENTS].at > now)
				now = told[head % EVENTS].at;
			assert_int_equal(gw_window_placed(&w, told[head % EVENTS].bytes, now), 0);
			head++;
		}
	}
	result.used = (double)(sent - before) * GW_S / ((double)(until - from) * l->rate);
	return result;
}

static const double rates[] = { 1.25e6, 12.5e6, 125e6, 1.25e9 };
static const int64_t trips[] = { 20 * GW_US, 200 * GW_US, 2 * GW_MS, 20 * GW_MS };

static void fills_links_of_all_kinds(void **state)
{
	(void)state;
	for (unsigned int r = 0; r < 4; r++) {
		for (unsigned int t = 0; t < 4; t++) {
			struct link l = { .rate = rates[r], .trip = trips[t], .make = 10 * GW_US };
			int64_t frame = (int64_t)(8 * GW_PAGE_SIZE * GW_S / l.rate);
			int64_t may = l.trip / 4 > 500 * GW_US ? l.trip / 4 : 500 * GW_US;
			struct run got = run(&l, 0, GW_PAGE_SIZE, GW_S, 2 * GW_S);

			if (got.used < 0.95)
				fail_msg("%.0f bytes/s, trip %lld us: %.3f used", l.rate,
					 (long long)l.trip / 1000, got.used);
			/* Or one frame of the smallest, which is no choice of its. */
			if (got.queue > may + may / 4 + frame)
				fail_msg("%.0f bytes/s, trip %lld us: waits %lld us", l.rate,
					 (long long)l.trip / 1000, (long long)got.queue / 1000);
		}
	}
}

static void grows_within_some_round_trips(void **state)
{
	struct link l = { .rate = 125e6, .trip = 200 * GW_US, .make = 10 * GW_US };
	struct link far = { .rate = 125e6, .trip = 20 * GW_MS, .make = 10 * GW_US };

	(void)state;
	assert_true(run(&l, 0, GW_PAGE_SIZE, 1, 20 * GW_MS).used > 0.9);
	assert_true(run(&far, 0, GW_PAGE_SIZE, 500 * GW_MS, GW_S).used > 0.9);
	/* Who knows the rate begins with it. */
	assert_true(run(&far, 125e6, GW_PAGE_SIZE, 200 * GW_MS, GW_S).used > 0.9);
}

/* One that is not scheduled for a while is as fast as before right after it. */
static void outlives_a_stall(void **state)
{
	struct link l = { .rate = 125e6,
			  .trip = 200 * GW_US,
			  .make = 10 * GW_US,
			  .stall = 50 * GW_MS,
			  .stalls = 50 * GW_MS };

	(void)state;
	assert_true(run(&l, 0, GW_PAGE_SIZE, 105 * GW_MS, 150 * GW_MS).used > 0.9);
}

/* Pages of zeros are small on the wire: frames are what is counted then. */
static void small_frames_are_bounded(void **state)
{
	struct link l = { .rate = 125e6, .trip = GW_MS, .make = 2 * GW_US };

	(void)state;
	run(&l, 0, 8, GW_MS, 100 * GW_MS); /* asserts it at each frame */
}

static void believes_no_nonsense(void **state)
{
	struct gw_window w;

	(void)state;
	gw_window_init(&w, 0);
	gw_window_sent(&w, 1000, 10);
	gw_window_sent(&w, 2000, 20);
	assert_int_equal(gw_window_placed(&w, 2001, 30), -EPROTO);
	assert_int_equal(gw_window_placed(&w, 1000, 30), 0);
	assert_int_equal(gw_window_placed(&w, 999, 40), -EPROTO);
	/* Of a time that stands still nothing is learned. */
	assert_int_equal(gw_window_placed(&w, 2000, 20), 0);
	assert_true(w.rate < 1e12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_links_of_all_kinds),
		cmocka_unit_test(grows_within_some_round_trips),
		cmocka_unit_test(outlives_a_stall),
		cmocka_unit_test(small_frames_are_bounded),
		cmocka_unit_test(believes_no_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
