// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_netpt.c - the network page table: what it says of each page, with one holder and with two,
 * it says when another process opens it, too; and a file that is none of its own is refused.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "error.h"
#include "netpt.h"

#define UNIT  16U
#define PAGES (8 * UNIT)
#define BOTH  3U

struct world {
	char path[64];
	struct gw_memory memory;
	struct gw_netpt t;
};

static const uint8_t id[GW_ID_LEN] = { 5 };

static void begin(struct world *w, unsigned int copies)
{
	assert_int_equal(gw_netpt_create_for(&w->t, w->path, &w->memory, id, UNIT, copies), 0);
}

static int again(struct world *w)
{
	gw_netpt_close(&w->t);
	return gw_netpt_open(&w->t, w->path, &w->memory, id);
}

static int make(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	snprintf(w->path, sizeof(w->path), "/tmp/gw-netpt-unit-%d", getpid());
	*state = w;
	return gw_memory_add(&w->memory, "ram", PAGES * GW_PAGE_SIZE) < 0;
}

static int drop(void **state)
{
	struct world *w = *state;

	gw_netpt_close(&w->t);
	unlink(w->path);
	free(w);
	return 0;
}

static void one_holder(void **state)
{
	struct world *w = *state;
	size_t at = 0, first;

	begin(w, 1);
	gw_netpt_assign(&w->t, 1, 4);
	gw_netpt_leaves(&w->t, UNIT + 2, 5);
	gw_netpt_place(&w->t, 1, UNIT + 3, 1);
	gw_netpt_placed(&w->t, 1, UNIT + 3, 1);
	assert_int_equal(again(w), 0);
	assert_true(w->t.away == 4 && !w->t.single && gw_netpt_copies_max(&w->t) == 1);
	assert_int_equal(gw_netpt_slot(&w->t, 1, 4), 0);
	assert_int_equal(gw_netpt_slot(&w->t, 1, 3), -ENOENT);
	assert_int_equal(gw_netpt_at(&w->t, 1, 1), GW_NO_HOLDER);
	assert_int_equal(gw_netpt_copies(&w->t, UNIT + 2), 1);
	assert_int_equal(gw_netpt_next_at(&w->t, 0, &at, PAGES, &first), 1);
	assert_int_equal(first, UNIT + 2);
	assert_int_equal(gw_netpt_next_at(&w->t, 0, &at, PAGES, &first), 3);
	assert_int_equal(first, UNIT + 4);
	assert_true(gw_netpt_has_any(&w->t, 1, 0) && !gw_netpt_has_any(&w->t, 1, 1));
	assert_false(gw_netpt_has_any(&w->t, 2, 0));
}

/* Each of two holders lacks some of a unit, and neither all of it. */
static void two_holders(void **state)
{
	struct world *w = *state;
	size_t at = 3 * UNIT, first;

	begin(w, 2);
	assert_int_equal(gw_netpt_at(&w->t, 3, 1), GW_NO_HOLDER);
	gw_netpt_put(&w->t, 3, 0, 7);
	gw_netpt_put(&w->t, 3, 1, 0);
	gw_netpt_leaves_for(&w->t, 3 * UNIT, 8, BOTH);
	gw_netpt_leaves_for(&w->t, 3 * UNIT + 8, 2, 1U << 1);
	gw_netpt_drop(&w->t, 3 * UNIT + 1, 1);
	for (int i = 0; i < 2; i++) {
		assert_true(w->t.away == 10 && w->t.single == 3);
		assert_int_equal(gw_netpt_slot(&w->t, 3, 7), 0);
		assert_int_equal(gw_netpt_slot(&w->t, 3, 0), 1);
		assert_int_equal(gw_netpt_copies(&w->t, 3 * UNIT), BOTH);
		assert_int_equal(gw_netpt_copies(&w->t, 3 * UNIT + 1), 1U << 0);
		assert_int_equal(gw_netpt_copies(&w->t, 3 * UNIT + 9), 1U << 1);
		assert_int_equal(again(w), 0);
	}
	assert_int_equal(gw_netpt_next_at(&w->t, 1, &at, 4 * UNIT, &first), 1);
	assert_int_equal(first, 3 * UNIT);
	assert_int_equal(gw_netpt_next_at(&w->t, 1, &at, 4 * UNIT, &first), 8);
	assert_int_equal(first, 3 * UNIT + 2);
	assert_int_equal(gw_netpt_next_at(&w->t, 1, &at, 4 * UNIT, &first), 0);
	/* What is here is nobody's; and what leaves again is not as it was before. */
	gw_netpt_placed(&w->t, 3, 3 * UNIT + 1, 9);
	assert_true(w->t.away == 1 && !w->t.single);
	gw_netpt_leaves_for(&w->t, 3 * UNIT + 1, 9, BOTH);
	assert_true(w->t.away == 10 && !w->t.single);
	gw_netpt_drop(&w->t, 3 * UNIT + 5, 0);
	gw_netpt_placed(&w->t, 3, 3 * UNIT, 10);
	assert_true(!w->t.away && !w->t.single);
	assert_false(gw_netpt_has_any(&w->t, 3, 0) || gw_netpt_has_any(&w->t, 3, 1));
	gw_netpt_put(&w->t, 3, 1, GW_NO_HOLDER);
	assert_int_equal(gw_netpt_at(&w->t, 3, 1), GW_NO_HOLDER);
}

/* The word of its head that says how many copies there are, and the file's length. */
#define COPIES_AT (3 * 8 + GW_ID_LEN + 8 * GW_NETPT_STRIPES)

static void set_copies(const struct world *w, uint64_t copies)
{
	gw_autofd int fd = open(w->path, O_RDWR | O_CLOEXEC);

	assert_int_equal(pwrite(fd, &copies, sizeof(copies), COPIES_AT), sizeof(copies));
}

/* A table of before there were two is one of one; and a length that does not fit is refused. */
static void whose_it_is(void **state)
{
	struct world *w = *state;

	begin(w, 1);
	gw_netpt_leaves(&w->t, 0, 3);
	set_copies(w, 0);
	assert_int_equal(again(w), 0);
	assert_int_equal(w->t.away, 3);
	for (uint64_t copies = 2; copies < 4; copies++) {
		set_copies(w, copies);
		assert_int_equal(again(w), -EINVAL);
		gw_error_clear();
	}
	begin(w, 2);
	set_copies(w, 1);
	assert_int_equal(again(w), -EINVAL);
	gw_error_clear();
	set_copies(w, 2);
	assert_int_equal(again(w), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_holder, make, drop),
		cmocka_unit_test_setup_teardown(two_holders, make, drop),
		cmocka_unit_test_setup_teardown(whose_it_is, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
