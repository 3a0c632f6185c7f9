// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_hold.c - the memory servers of a godwitd: what they promise, that they outlive it, and
 * what an operator sees and drops. The daemon's loop turns in this process; its workers are
 * others.
 */
#include "memserver.h"
#include "served.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "budget.h"
#include "promise.h"
#include "worker.h"

#define MIB(n) ((uint64_t)(n) << 20)

struct site {
	struct served d;
	struct host *h; /* a main host */
	json_t *answer;
};

static int make(void **state)
{
	struct site *s = calloc(1, sizeof(*s));

	*state = s;
	if (!s || served_init(&s->d) || host_make((void **)&s->h))
		return -1;
	s->d.paths.server_limit = MIB(16);
	s->h->hold.size = MIB(2);
	return served_start(&s->d);
}

static int drop(void **state)
{
	struct site *s = *state;

	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&s->h->main[i]);
	served_drop(&s->d);
	json_decref(s->answer);
	host_drop((void **)&s->h);
	free(s);
	return 0;
}

static bool has_said(void *arg)
{
	struct pollfd pfd = { .fd = ((struct gw_transport *)arg)->poll_fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

/* Connection @i of split @id, as far as the daemon goes; what it says is to be heard. */
static void dial(struct site *s, unsigned int i, unsigned int id)
{
	gw_autofree char *address = gw_path("127.0.0.1:%u", s->d.port);
	struct gw_open open = { .version_min = GW_VERSION_MIN,
				.version_max = GW_VERSION,
				.kind = GW_OPEN_MEMORY,
				.stream = i,
				.id = { (uint8_t)id, 1 } };
	uint8_t wire[GW_OPEN_LEN];
	struct gw_transport *t = gw_tcp_dial(address, SOON, NULL);

	assert_non_null(t);
	gw_open_encode(&open, wire);
	assert_int_equal(gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire)), 0);
	gw_transport_close(&s->h->main[i]);
	s->h->main[i] = t;
	run_until(&s->d, has_said, t);
}

static void open_both(struct site *s, unsigned int id)
{
	s->h->frames = 0;
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		dial(s, i, id);
		hear(s->h, i, GW_MSG_ACCEPT);
		assert_int_equal(s->h->f.arg, GW_VERSION);
	}
}

/* What lies there is what page 0 and those behind it have left. */
static void begin_at(struct site *s, unsigned int id, size_t pages)
{
	open_both(s, id);
	assert_int_equal(say_hold(s->h), pages);
	if (pages)
		say_run(s->h, 0, GW_MSG_MISSING, 0, pages);
	say(s->h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(s->h, 0, GW_MSG_HOLDING);
	assert_int_equal(s->h->f.arg, pages);
}

static void close_both(struct site *s)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&s->h->main[i]);
}

/* Who was promised nothing leaves, and what is called then is somebody else. */
static bool no_strangers(void *arg)
{
	for (const struct gw_job *job = ((struct site *)arg)->d.jobs->list; job; job = job->next)
		if (job->holds && !job->promised)
			return false;
	return true;
}

/* HOLD is refused, and @why. */
static void refused(struct site *s, unsigned int id, const char *why)
{
	json_t *json = gw_hold_json(&s->h->hold);
	gw_autofree char *text = json_dumps(json, 0);

	json_decref(json);
	dial(s, 0, id);
	hear(s->h, 0, GW_MSG_ACCEPT);
	say(s->h, 0, GW_MSG_HOLD, text, strlen(text));
	hear(s->h, 0, GW_MSG_ERROR);
	assert_non_null(memmem(s->h->f.payload, s->h->f.len, why, strlen(why)));
	gw_transport_close(&s->h->main[0]);
	run_until(&s->d, no_strangers, s);
}

static void on_end(void *arg, json_t *result)
{
	struct site *s = arg;

	json_decref(s->answer);
	s->answer = json_incref(result);
}

static bool answered(void *arg)
{
	return ((struct site *)arg)->answer != NULL;
}

/* `godwit held`, with @args, which are taken over. Return: what it says, borrowed. */
static const json_t *held(struct site *s, json_t *args)
{
	json_decref(s->answer);
	s->answer = NULL;
	assert_non_null(gw_jobs_start(s->d.jobs, "held", args,
				      (struct gw_job_client){ .on_end = on_end, .arg = s }));
	json_decref(args);
	run_until(&s->d, answered, s);
	return json_object_get(s->answer, "return");
}

static const json_t *list(struct site *s)
{
	return json_object_get(held(s, json_object()), "held");
}

static bool is_idle(void *arg)
{
	return !((struct site *)arg)->d.jobs->list;
}

static bool is_gone(void *arg)
{
	struct site *s = arg;

	return !gw_promise_connected(&s->d.paths, "01010000000000000000000000000000");
}

static void holds_and_dismisses(void **state)
{
	struct site *s = *state;
	gw_autofree char *folder = gw_promise_store(&s->d.paths,
						    "01010000000000000000000000000000");
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
		folder = gw_promise_store(&paths, "ab");
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

#define site_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

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
