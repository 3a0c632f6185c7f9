// SPDX-License-Identifier: GPL-2.0-or-later
/* test_index_refresh.c - which parts of an image are read, and when, whoever asks or fails. */
#include "indexed.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void interrupted_and_continued(void **state)
{
	struct gw_index *x = opened(*state);
	struct gw_index_refreshed done;
	size_t read = 0;

	fill(1);
	/* No time at all. */
	assert_int_equal(gw_index_refresh(x, &source, 1, gw_now(), &done), 0);
	assert_int_equal(done.left, SEGMENTS);
	assert_int_equal(disk.reads, 0);
	for (size_t n = 0; read < SEGMENTS; n++) {
		done = refreshed(x, 1, n);
		for (size_t i = 0; i < done.read; i++)
			assert_int_equal(disk.order[i], read + i);
		read += done.read;
		assert_int_equal(done.left, SEGMENTS - read);
		assert_found(x, 0, read * SEGMENT);
		assert_not_found(x, read * SEGMENT, BLOCKS);
		if (n % 2) {
			gw_index_close(x);
			x = opened(*state);
		}
	}
	gw_index_close(x);
}

static void kill_at_the_fifth(struct disk *d)
{
	if (d->reads == 5)
		raise(SIGKILL);
}

static void killed_and_continued(void **state)
{
	static const size_t rest[] = { 4, 5, 6, 7, 8, 9, 10, 11 };
	struct gw_index_refreshed done;
	struct gw_index *x;
	pid_t child;
	int status;

	fill(1);
	child = fork();
	if (child == 0) {
		disk.at_read = kill_at_the_fifth;
		gw_index_refresh(opened(*state), &source, 1, GW_FOREVER, &done);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	x = opened(*state);
	assert_int_equal(gw_index_prepare(x), 0);
	assert_found(x, 0, 4 * SEGMENT);
	refreshed(x, 1, FOREVER);
	assert_order(rest, GW_ARRAY_SIZE(rest));
	assert_found(x, 0, BLOCKS);
	gw_index_close(x);
}

static void oldest_first(void **state)
{
	static const size_t first[] = { 0, 1, 2 }, second[] = { 3, 4, 5, 6, 7, 8 },
			    third[] = { 9, 10, 11, 0, 1, 2, 3, 4 },
			    fourth[] = { 5, 6, 7, 8, 0, 1, 2, 3, 4, 9, 10, 11 };
	struct gw_index *x = opened(*state);

	fill(1);
	refreshed(x, 1, GW_ARRAY_SIZE(first));
	assert_order(first, GW_ARRAY_SIZE(first));
	refreshed(x, 2, GW_ARRAY_SIZE(second));
	assert_order(second, GW_ARRAY_SIZE(second));
	refreshed(x, 3, GW_ARRAY_SIZE(third));
	assert_order(third, GW_ARRAY_SIZE(third));
	gw_index_close(x);
	x = opened(*state);
	refreshed(x, 1, FOREVER); /* a state may come back */
	assert_order(fourth, GW_ARRAY_SIZE(fourth));
	gw_index_close(x);
}

static void refused_blocks(void **state)
{
	static const size_t one[] = { 5 }, two[] = { 5, 7, 0 }, three[] = { 9, 11, 1 };
	struct gw_index *x = opened(*state), *other;
	struct gw_index_refreshed done;

	fill(1);
	refreshed(x, 1, FOREVER);
	gw_index_stale(x, 5 * SEGMENT + 3);
	gw_index_stale(x, 5 * SEGMENT + 4);
	assert_not_found(x, 5 * SEGMENT + 3, 2);
	assert_found(x, 5 * SEGMENT + 5, BLOCKS);
	done = refreshed(x, 1, FOREVER);
	assert_int_equal(done.left, 0);
	assert_order(one, 1);
	assert_found(x, 0, BLOCKS);
	/* Whoever comes next begins with it, even if most was never read. */
	gw_index_stale(x, 7 * SEGMENT);
	gw_index_stale(x, 5 * SEGMENT);
	gw_index_close(x);
	x = opened(*state);
	refreshed(x, 2, 3);
	assert_order(two, 3);
	/* But not if it was read again since: 2 is, 9 and 11 are not. */
	other = opened(*state);
	gw_index_stale(x, 2 * SEGMENT);
	refreshed(x, 2, 1);
	gw_index_stale(other, 2 * SEGMENT);
	gw_index_stale(other, 9 * SEGMENT);
	gw_index_stale(other, 11 * SEGMENT);
	refreshed(x, 3, 3);
	assert_order(three, 3);
	gw_index_close(other);
	gw_index_close(x);
}

static void stale_before_never_read(void **state)
{
	static const size_t first[] = { 1, 3, 4 };
	struct gw_index *x = opened(*state);

	fill(1);
	refreshed(x, 1, 3);
	gw_index_stale(x, SEGMENT);
	refreshed(x, 1, 3);
	assert_order(first, 3);
	gw_index_close(x);
}

static void bad_sectors(void **state)
{
	static const size_t bad[] = { 6 };
	struct gw_index *x = opened(*state);
	struct gw_index_refreshed done;

	fill(1);
	disk.bad = 6;
	done = refreshed(x, 1, FOREVER);
	assert_int_equal(done.read, SEGMENTS - 1);
	assert_int_equal(done.failed, 1);
	assert_int_equal(done.left, 0);
	assert_found(x, 0, 6 * SEGMENT);
	assert_not_found(x, 6 * SEGMENT, SEGMENT);
	assert_found(x, 7 * SEGMENT, BLOCKS);
	/* It is tried again, and not before those that wait for longer. */
	refreshed(x, 1, FOREVER);
	assert_order(bad, 1);
	disk.bad = FOREVER;
	refreshed(x, 2, FOREVER);
	assert_int_equal(disk.order[SEGMENTS - 1], 6);
	assert_found(x, 0, BLOCKS);
	/* What was known of it is not lost. */
	disk.bad = 6;
	assert_int_equal(refreshed(x, 3, FOREVER).failed, 1);
	assert_found(x, 0, BLOCKS);
	gw_index_close(x);
	x = opened(*state);
	assert_int_equal(gw_index_prepare(x), 0);
	assert_found(x, 0, BLOCKS);
	disk.bad = FOREVER;
	refreshed(x, 3, FOREVER);
	assert_order(bad, 1);
	gw_index_close(x);
}

static void no_state(void **state)
{
	struct gw_index *x = opened(*state);
	struct gw_index_refreshed done;

	fill(1);
	assert_int_equal(gw_index_refresh(x, &source, 0, GW_FOREVER, &done), -EINVAL);
	assert_int_equal(disk.reads, 0);
	gw_index_close(x);
}

static int64_t no_data(void *env, uint64_t offset)
{
	(void)env;
	(void)offset;
	return gw_fail(-EIO, "a block device has no holes");
}

static void where_holes_are_not_known(void **state)
{
	struct gw_index_source from = source;
	struct gw_index *x = opened(*state);
	struct gw_index_refreshed done;

	fill_as_images_are(4);
	from.data = no_data;
	assert_int_equal(gw_index_refresh(x, &from, 1, GW_FOREVER, &done), 0);
	assert_int_equal(done.read, SEGMENTS);
	assert_int_equal(gw_index_prepare(x), 0);
	assert_found(x, 0, BLOCKS);
	gw_index_close(x);
}

static void other_tries(struct disk *d)
{
	struct gw_index_refreshed done;

	assert_int_equal(gw_index_refresh(d->other, &source, 1, GW_FOREVER, &done), -EBUSY);
	assert_message("another process");
	assert_int_equal(done.read, 0);
}

static void other_begins_anew(struct disk *d)
{
	struct gw_index *x;

	assert_int_equal(gw_index_open(d->path, SIZE / 2, &x), -EBUSY);
	assert_null(x);
}

static void two_at_once(void **state)
{
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	struct gw_index *x = opened(*state), *other = opened(*state);

	fill(1);
	refreshed(x, 1, 3);
	disk.at_read = other_tries;
	disk.other = other;
	refreshed(x, 1, 1);
	disk.at_read = other_begins_anew;
	disk.path = path;
	refreshed(x, 1, 1);
	disk.at_read = NULL;
	/* It has what the first one has done when it is its turn, and does the rest. */
	assert_int_equal(refreshed(other, 1, FOREVER).read, SEGMENTS - 5);
	assert_found(other, 0, BLOCKS);
	assert_int_equal(refreshed(x, 1, FOREVER).read, 0);
	assert_found(x, 0, BLOCKS);
	gw_index_close(other);
	gw_index_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_folder_test(interrupted_and_continued),
		unit_folder_test(killed_and_continued),
		unit_folder_test(oldest_first),
		unit_folder_test(refused_blocks),
		unit_folder_test(stale_before_never_read),
		unit_folder_test(bad_sectors),
		unit_folder_test(no_state),
		unit_folder_test(where_holes_are_not_known),
		unit_folder_test(two_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
