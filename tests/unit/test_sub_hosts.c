// SPDX-License-Identifier: GPL-2.0-or-later
/* test_sub_hosts.c - memory servers that nobody has named. */
#include "unit.h"

#include <errno.h>

#include "sub_hosts.h"

#define MIB (1ULL << 20)
#define NOW 1795000000

static const struct gw_host_record hosts[] = {
	{ .name = "own", .address = "h0:1", .server_free = 9000 * MIB, .reported = NOW },
	{ .name = "b", .address = "h1:1", .server_free = 100 * MIB, .reported = NOW },
	{ .name = "c", .address = "h2:1", .server_free = 1000 * MIB, .reported = NOW - 60 },
	{ .name = "d", .address = "h3:1", .server_free = 500 * MIB, .reported = NOW - 5 },
	{ .name = "silent", .address = "h4:1", .server_free = 9000 * MIB, .reported = NOW - 61 },
	{ .name = "deaf", .server_free = 9000 * MIB, .reported = NOW },
	{ .name = "none", .address = "h6:1", .reported = NOW },
};

static int choose(unsigned int count, const char *main, uint64_t need, json_t **to)
{
	*to = json_array();
	return gw_sub_hosts_choose(hosts, GW_ARRAY_SIZE(hosts), count, "own", main, need, NOW, *to);
}

static uint64_t size_of(const json_t *to, const char *address)
{
	const json_t *one;
	size_t i;

	json_array_foreach(to, i, one) {
		if (!strcmp(json_string_value(json_object_get(one, "address")), address))
			return (uint64_t)json_integer_value(json_object_get(one, "size"));
	}
	return 0;
}

static void those_with_most_room(void **state)
{
	json_t *to;

	(void)state;
	assert_int_equal(choose(1, NULL, 77, &to), 0);
	assert_int_equal(json_array_size(to), 1);
	assert_int_equal(size_of(to, "h2:1"), 2 * MIB);
	json_decref(to);
	assert_int_equal(choose(2, NULL, 700 * MIB, &to), 0);
	assert_int_equal(size_of(to, "h2:1"), 350 * MIB);
	assert_int_equal(size_of(to, "h3:1"), 350 * MIB);
	json_decref(to);
	/* Who has less than its share is asked for what it has. */
	assert_int_equal(choose(3, NULL, 1500 * MIB, &to), 0);
	assert_int_equal(size_of(to, "h1:1"), 100 * MIB);
	assert_int_equal(size_of(to, "h3:1"), 500 * MIB);
	assert_int_equal(size_of(to, "h2:1"), 900 * MIB);
	json_decref(to);
	/* Where it goes is no sub-host, by name or by address. */
	assert_int_equal(choose(1, "h2:1", 100 * MIB, &to), 0);
	assert_int_equal(size_of(to, "h3:1"), 100 * MIB);
	json_decref(to);
	assert_int_equal(choose(1, "c", 100 * MIB, &to), 0);
	assert_int_equal(size_of(to, "h3:1"), 100 * MIB);
	json_decref(to);
}

/* A disk is asked only where the memory of as many hosts is not enough. */
static void disks_come_last(void **state)
{
	static const struct gw_host_record some[] = {
		{ .name = "a",
		  .address = "h1:1",
		  .server_free = 200 * MIB,
		  .swap_free = 900 * MIB,
		  .reported = NOW },
		{ .name = "b", .address = "h2:1", .server_free = 300 * MIB, .reported = NOW },
		{ .name = "c", .address = "h3:1", .swap_free = 9000 * MIB, .reported = NOW },
	};
	json_t *to = json_array();

	(void)state;
	assert_int_equal(gw_sub_hosts_choose(some, 3, 2, "own", NULL, 500 * MIB, NOW, to), 0);
	assert_int_equal(size_of(to, "h1:1"), 200 * MIB);
	assert_int_equal(size_of(to, "h2:1"), 300 * MIB);
	json_array_clear(to);
	/* Then it is who has most in one place. */
	assert_int_equal(gw_sub_hosts_choose(some, 3, 2, "own", NULL, 502 * MIB, NOW, to), 0);
	assert_int_equal(size_of(to, "h3:1"), 250 * MIB);
	assert_int_equal(size_of(to, "h1:1"), 252 * MIB);
	json_array_clear(to);
	assert_int_equal(gw_sub_hosts_choose(some, 3, 3, "own", NULL, 10200 * MIB, NOW, to), 0);
	assert_int_equal(size_of(to, "h1:1"), 900 * MIB);
	assert_int_equal(size_of(to, "h2:1"), 300 * MIB);
	assert_int_equal(size_of(to, "h3:1"), 9000 * MIB);
	json_array_clear(to);
	assert_int_equal(gw_sub_hosts_choose(some, 3, 3, "own", NULL, 10202 * MIB, NOW, to),
			 -ENOSPC);
	assert_message("10200 MiB left");
	json_decref(to);
}

static void too_few(void **state)
{
	json_t *to;

	(void)state;
	assert_int_equal(choose(4, NULL, MIB, &to), -ENOSPC);
	assert_message("3 other hosts");
	assert_int_equal(json_array_size(to), 0);
	json_decref(to);
	assert_int_equal(choose(2, NULL, 1501 * MIB, &to), -ENOSPC);
	assert_message("1500 MiB left; 1502 MiB");
	json_decref(to);
	assert_int_equal(choose(3, NULL, 1600 * MIB, &to), 0);
	json_decref(to);
	*state = json_array();
	assert_int_equal(gw_sub_hosts_choose(NULL, 0, 1, "own", NULL, 1, NOW, *state), -ENOSPC);
	json_decref(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(those_with_most_room),
		cmocka_unit_test(disks_come_last),
		cmocka_unit_test(too_few),
	};

	return cmocka_run_group_tests_name("sub_hosts", tests, NULL, NULL);
}
