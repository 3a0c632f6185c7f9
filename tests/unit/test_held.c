// SPDX-License-Identifier: GPL-2.0-or-later
/* test_held.c - device state that waits: whole, in order, bounded. */
#include "unit.h"

#include <errno.h>

#include "held.h"
#include "rng.h"

static struct gw_held held;

struct reader {
	struct rng rng;
	size_t len;
};

static int same(void *arg, const void *bytes, size_t len)
{
	struct reader *r = arg;
	const uint8_t *at = bytes;

	r->len += len;
	for (size_t i = 0; i < len; i++)
		if (at[i] != (uint8_t)rng_next(&r->rng))
			return -EBADMSG;
	return 0;
}

/* Whatever the frames, and beyond the end of a part; and again after it was forgotten. */
static void comes_out_as_it_came(void **state)
{
	static uint8_t bytes[300000];

	(void)state;
	for (uint64_t seed = 1; seed < 4; seed++) {
		struct rng rng = { seed }, cut = { seed };
		struct reader r = { .rng = { seed } };
		size_t sum = 0;

		while (sum < 2 * GW_HELD_PART + 5) {
			const size_t n = 1 + rng_below(&cut, sizeof(bytes));

			for (size_t i = 0; i < n; i++)
				bytes[i] = (uint8_t)rng_next(&rng);
			assert_int_equal(gw_held_add(&held, bytes, n), 0);
			sum += n;
		}
		assert_int_equal(gw_held_give(&held, same, &r), 0);
		assert_int_equal(r.len, sum);
		gw_held_drop(&held);
		assert_int_equal(held.len, 0);
	}
}

static int fails(void *arg, const void *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	++*(int *)arg;
	return -EIO;
}

static void who_takes_it_may_fail(void **state)
{
	static uint8_t bytes[GW_HELD_PART];
	int calls = 0;

	(void)state;
	assert_int_equal(gw_held_give(&held, fails, &calls), 0);
	assert_int_equal(gw_held_add(&held, bytes, sizeof(bytes)), 0);
	assert_int_equal(gw_held_add(&held, bytes, 1), 0);
	assert_int_equal(gw_held_give(&held, fails, &calls), -EIO);
	assert_int_equal(calls, 1);
	gw_held_drop(&held);
}

/* Nothing is allocated for what is refused. */
static void there_is_a_bound(void **state)
{
	(void)state;
	held.len = GW_HELD_MAX - 4;
	assert_int_equal(gw_held_add(&held, "12345", 5), -E2BIG);
	assert_message("more than 1024 MiB of device state");
	assert_null(held.parts[GW_HELD_MAX / GW_HELD_PART - 1]);
	assert_int_equal(gw_held_add(&held, "", SIZE_MAX), -E2BIG);
	held.len = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_out_as_it_came),
		cmocka_unit_test(who_takes_it_may_fail),
		cmocka_unit_test(there_is_a_bound),
	};

	return cmocka_run_group_tests_name("held", tests, NULL, NULL);
}
