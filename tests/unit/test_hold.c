// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_hold.c - the memory servers of a godwitd: what they promise, that they outlive it, and
 * what an operator sees and drops. The daemon's loop turns in this process; its workers are
 * others.
 */
#include "hold_site.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct gw_promise in_memory = { .swap = "" };

static void holds_and_dismisses(void **state)
{
	struct site *s = *state;
	gw_autofree char *folder = gw_promise_store(&s->d.paths, "01010000000000000000000000000000",
						    &in_memory);
	const json_t *one;

	begin_at(s, 1, 0);
	leave(s->h, 0, 100);
	one = json_array_get(list(s), 0);
	assert_string_equal(json_string_value(json_object_get(one, "name")), "web1");
	assert_string_equal(json_string_value(json_object_get(one, "host")), "A");
	assert_int_equal(json_integer_value(json_object_get(one, "size")), MIB(2));
	assert_int_equal(json_integer_value(json_object_get(one, "held")), 100 * GW_PAGE_SIZE);
	assert_true(json_is_true(json_object_get(one, "connected")));
	say_run(s->h, 0, GW_MSG_REQUEST, 3, 1);
	assert_int_equal(hear_pages(s->h, 0), 1);
	/* One is lost, and then the other. */
	gw_transport_close(&s->h->main[1]);
	assert_int_equal(gw_frame_recv(s->h->main[0], &s->h->f, SOON), -ECONNRESET);
	begin_at(s, 1, 100);
	/* A main host that forgot the ones that it has made. */
	begin_at(s, 1, 100);
	say_run(s->h, 1, GW_MSG_REQUEST, 0, 100);
	assert_int_equal(hear_pages(s->h, 1), 100);
	say(s->h, 0, GW_MSG_DISMISS, NULL, 0);
	hear(s->h, 0, GW_MSG_DISMISSED);
	run_until(&s->d, is_idle, s);
	assert_int_equal(json_array_size(list(s)), 0);
	assert_int_not_equal(access(folder, F_OK), 0);
}

/* Its godwitd dies: it goes on. A younger one comes: what lies here is served by another. */
static void outlives_the_daemon(void **state)
{
	struct site *s = *state;
	pid_t pid;

	begin_at(s, 1, 0);
	leave(s->h, 0, 50);
	pid = s->d.jobs->list->pid;
	served_stop(&s->d);
	leave(s->h, 50, 50);
	say_run(s->h, 0, GW_MSG_REQUEST, 60, 1);
	assert_int_equal(hear_pages(s->h, 0), 1);
	assert_int_equal(served_start(&s->d), 0);
	/* A new one is asked for when the old one has hung up; here nobody waits for that. */
	begin_at(s, 1, 100);
	assert_int_not_equal(s->d.jobs->list->pid, pid);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	say_run(s->h, 0, GW_MSG_REQUEST, 0, 100);
	assert_int_equal(hear_pages(s->h, 0), 100);
}

/* However it dies, all that was acknowledged is there. */
static void outlives_its_worker(void **state)
{
	struct site *s = *state;

	begin_at(s, 1, 0);
	for (unsigned int n = 1; n < 6; n++) {
		leave(s->h, 20UL * (n - 1), 20);
		kill(s->d.jobs->list->pid, SIGKILL);
		run_until(&s->d, is_idle, s);
		begin_at(s, 1, 20UL * n);
	}
	say_run(s->h, 0, GW_MSG_REQUEST, 0, 100);
	assert_int_equal(hear_pages(s->h, 0), 100);
}

/* Against the limit of what is held, and of all memory here, and so that nobody else gets it. */
static void promises_add_up(void **state)
{
	struct site *s = *state;

	s->d.paths.limit = MIB(32);
	s->h->hold.size = MIB(3);
	s->d.paths.server_limit = MIB(7);
	assert_int_equal(gw_budget_free(&s->d.paths, NULL), MIB(32));
	begin_at(s, 1, 0);
	leave(s->h, 0, 100);
	close_both(s);
	begin_at(s, 2, 0);
	close_both(s);
	assert_int_equal(gw_budget_free(&s->d.paths, NULL), MIB(26));
	refused(s, 3,
		"holds 7.0 MiB for VMs of other hosts at most, of which 6.0 MiB were promised; "
		"'web1' needs 3.0 MiB more");
	s->h->hold.size = MIB(1);
	begin_at(s, 3, 0);
	/* More of what it has: only the difference is asked for. */
	s->h->hold.size = MIB(2);
	refused(s, 3, "'web1' needs 1.0 MiB more");
	s->d.paths.server_limit = MIB(16);
	s->d.paths.limit = MIB(9);
	s->h->hold.size = MIB(3);
	refused(s, 4,
		"host 'B' has 2.0 MiB of memory for VMs of other hosts, 'web1' needs 3.0 MiB "
		"more");
	assert_int_equal(json_array_size(list(s)), 3);
}

/* Of two that fit one at a time one wins. */
static void two_that_fit_singly(void **state)
{
	struct site *s = *state;
	struct gw_hold hold = s->h->hold;

	hold.size = MIB(3);
	s->d.paths.server_limit = MIB(5);
	for (unsigned int n = 0; n < 20; n++) {
		int go_on[2], winners = 0, status;

		assert_int_equal(pipe(go_on), 0);
		for (unsigned int i = 0; i < 4; i++) {
			const char id[] = { '0', (char)('1' + i), '\0' };
			gw_autofree char *text = gw_path("%s%030d", id, 0);
			char byte;

			if (fork())
				continue;
			close(go_on[1]);
			if (read(go_on[0], &byte, 1)) /* until all are there */
				_exit(2);
			if (gw_promise_lock(&s->d.paths, text, SOON) < 0)
				_exit(3);
			_exit(gw_budget_promise(&s->d.paths, "B", text, &hold) != 0);
		}
		close(go_on[0]);
		close(go_on[1]);
		while (wait(&status) > 0) {
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
			winners += !WEXITSTATUS(status);
		}
		assert_int_equal(winners, 1);
		for (unsigned int i = 0; i < 4; i++) {
			gw_autofree char *text = gw_path("0%u%030d", 1 + i, 0);

			assert_int_equal(gw_promise_remove(&s->d.paths, text), 0);
		}
	}
}

static void none_is_held_unless_told(void **state)
{
	struct site *s = *state;

	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	close_both(s);
	run_until(&s->d, is_gone, s);
	s->d.paths.server_limit = 0;
	dial(s, 0, 2);
	hear(s->h, 0, GW_MSG_ERROR);
	assert_non_null(memmem(s->h->f.payload, s->h->f.len, "--memory-server-limit SIZE", 26));
	/* What was promised before is kept. */
	kill(s->d.jobs->list->pid, SIGKILL);
	run_until(&s->d, is_idle, s);
	begin_at(s, 1, 10);
}

/* What is no main host of a release that knows memory servers, or not whole. */
static void connections_that_are_refused(void **state)
{
	struct site *s = *state;

	dial(s, 1, 1);
	hear(s->h, 1, GW_MSG_ERROR);
	gw_transport_close(&s->h->main[1]);
	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	/* The same split, of another VM. */
	snprintf(s->h->hold.blocks[0].id, GW_MEMORY_ID_MAX, "other");
	refused(s, 1, "whose memory is not the same");
	snprintf(s->h->hold.blocks[0].id, GW_MEMORY_ID_MAX, "ram");
	s->h->hold.size = 9 * GW_PAGE_SIZE;
	refused(s, 1, "lie on host 'B' already");
	/* Nor does one that was never answered anything else drop what lies here. */
	kill(s->d.jobs->list->pid, SIGKILL);
	run_until(&s->d, is_idle, s);
	refused(s, 1, "lie on host 'B' already");
	run_until(&s->d, is_idle, s);
	s->h->hold.size = 10 * GW_PAGE_SIZE;
	begin_at(s, 1, 10);
}

/* Not what is in use, and not by mistake. */
static void dropped_by_hand(void **state)
{
	static const char id[] = "01010000000000000000000000000000";
	struct site *s = *state;
	const char *error;
	pid_t pid;

	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	assert_null(held(s, json_pack("{s:s,s:b}", "drop", id, "confirm", 1)));
	error = json_string_value(json_object_get(s->answer, "error"));
	assert_non_null(strstr(error, "its main host 'A' is connected"));
	/* Nor does its server leave later for that. */
	pid = s->d.jobs->list->pid;
	close_both(s);
	run_until(&s->d, is_gone, s);
	begin_at(s, 1, 10);
	assert_int_equal(s->d.jobs->list->pid, pid);
	close_both(s);
	run_until(&s->d, is_gone, s);
	assert_null(held(s, json_pack("{s:s}", "drop", id)));
	error = json_string_value(json_object_get(s->answer, "error"));
	assert_non_null(strstr(error, "40.0 KiB of the memory of VM 'web1' lie here"));
	assert_non_null(strstr(error, "--confirm"));
	/* Its server, which was told to leave, comes back when it is called. */
	run_until(&s->d, is_idle, s);
	begin_at(s, 1, 10);
	close_both(s);
	run_until(&s->d, is_gone, s);
	assert_int_equal(
		json_integer_value(json_object_get(
			held(s, json_pack("{s:s,s:b}", "drop", id, "confirm", 1)), "freed")),
		10 * GW_PAGE_SIZE);
	assert_int_equal(json_array_size(list(s)), 0);
	assert_null(held(s, json_pack("{s:s,s:b}", "drop", id, "confirm", 1)));
	assert_null(held(s, json_pack("{s:s}", "drop", "../../x")));
	error = json_string_value(json_object_get(s->answer, "error"));
	assert_non_null(strstr(error, "nothing is held here under the id"));
	begin_at(s, 1, 0);
}

/* What lies here outlives a godwitd that ends, and its mounts with it. */
static void stays_mounted(void **state)
{
	struct site *s = *state;
	struct gw_paths paths;
	gw_autofree char *root = gw_path("%s/other", s->d.root);

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		skip();
	for (unsigned int n = 0; n < 3; n++) {
		struct gw_memstore store;
		gw_autofree char *folder = NULL;

		assert_int_equal(gw_paths_init(&paths, root), 0);
		assert_int_equal(gw_paths_ram(&paths, NULL, 0), 0);
		folder = gw_promise_store(&paths, "ab", &in_memory);
		assert_int_equal(gw_memstore_open(&store, folder, &s->h->hold), 0);
		assert_int_equal(store.pages, n ? 1 : 0);
		page_bytes(1, s->h->batch.bytes);
		assert_int_equal(gw_memstore_put(&store, 1, 1, s->h->batch.bytes), 0);
		gw_memstore_close(&store);
		if (n == 2)
			assert_int_equal(gw_remove_tree(folder), 0);
		gw_paths_unmount(&paths);
		assert_int_equal(access(paths.ram_small, F_OK), n == 2 ? -1 : 0);
		gw_paths_free(&paths);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		site_test(holds_and_dismisses),
		site_test(outlives_the_daemon),
		site_test(outlives_its_worker),
		site_test(promises_add_up),
		site_test(two_that_fit_singly),
		site_test(none_is_held_unless_told),
		site_test(connections_that_are_refused),
		site_test(dropped_by_hand),
		site_test(stays_mounted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
