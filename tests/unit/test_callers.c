// SPDX-License-Identifier: GPL-2.0-or-later
/* test_callers.c - sets of connections, and what is left of attempts that were given up. */
#include "unit.h"

#include <stdlib.h>

#include "callers.h"

static unsigned int open_now;

static void shut(struct gw_transport *t)
{
	open_now--;
	free(t);
}

static const struct gw_transport_ops ops = { .close = shut };

static struct gw_transport *call(void)
{
	struct gw_transport *t = calloc(1, sizeof(*t));

	t->ops = &ops;
	open_now++;
	return t;
}

static void a_set(void **state)
{
	struct gw_callers c = { 0 };
	struct gw_transport *mine[3], *taken[3];

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		assert_false(gw_callers_take(&c, taken, 3));
		mine[i] = call();
		assert_true(gw_callers_add(&c, mine[i], i));
	}
	assert_true(gw_callers_add(&c, call(), 3)); /* one more than anybody asked for */
	assert_true(gw_callers_take(&c, taken, 3));
	assert_int_equal(open_now, 3);
	assert_false(gw_callers_take(&c, taken, 3));
	for (unsigned int i = 0; i < 3; i++) {
		assert_ptr_equal(taken[i], mine[i]);
		gw_transport_close(&taken[i]);
	}
}

/*
 * Another process hears the last connection of an attempt, of which the first ones died with its
 * predecessor: the next attempt, and all after it, would have a dead one among them.
 */
static void left_of_an_attempt(void **state)
{
	struct gw_callers c = { 0 };
	struct gw_transport *taken[3];

	(void)state;
	assert_false(gw_callers_add(&c, call(), 2));
	assert_int_equal(open_now, 0);
	for (unsigned int i = 0; i < 3; i++) {
		assert_false(gw_callers_take(&c, taken, 3));
		assert_true(gw_callers_add(&c, call(), i));
	}
	assert_true(gw_callers_take(&c, taken, 3));
	for (unsigned int i = 0; i < 3; i++)
		gw_transport_close(&taken[i]);
	assert_int_equal(open_now, 0);
}

static void begun_anew(void **state)
{
	struct gw_callers c = { 0 };
	struct gw_transport *taken[2], *again;

	(void)state;
	assert_true(gw_callers_add(&c, call(), 0));
	assert_true(gw_callers_add(&c, call(), 1));
	again = call();
	assert_true(gw_callers_add(&c, again, 0));
	assert_int_equal(open_now, 1);
	assert_false(gw_callers_take(&c, taken, 2));
	assert_false(gw_callers_add(&c, call(), 2));
	assert_false(gw_callers_add(&c, call(), GW_PAGING_MAX));
	assert_false(gw_callers_add(&c, call(), UINT32_MAX));
	assert_true(gw_callers_take(&c, taken, 1));
	assert_ptr_equal(taken[0], again);
	gw_transport_close(&taken[0]);
	gw_callers_drop(&c);
	assert_int_equal(open_now, 0);
}

static void never_too_many(void **state)
{
	struct gw_callers c = { 0 };

	(void)state;
	for (unsigned int i = 0; i < GW_PAGING_MAX; i++)
		assert_true(gw_callers_add(&c, call(), i));
	assert_false(gw_callers_add(&c, call(), GW_PAGING_MAX));
	assert_int_equal(open_now, GW_PAGING_MAX);
	gw_callers_drop(&c);
	assert_int_equal(open_now, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set),
		cmocka_unit_test(left_of_an_attempt),
		cmocka_unit_test(begun_anew),
		cmocka_unit_test(never_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
