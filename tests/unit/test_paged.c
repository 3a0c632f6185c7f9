// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_paged.c - a real process whose memory is paged by another, which is killed at each step.
 *
 * The guest is tracked.h's: it writes a byte of a page, which shows in the file whether it saw the
 * page's new bytes. The pager is a process of its own that brings what is asked for, or told.
 */
#include "tracked.h"

#include <poll.h>

#include "missing.h"
#include "pager.h"
#include "place.h"
#include "uffd.h"
#include "watch.h"

#define MISSING 2048UL /* the first pages of the big file, and all of the small one */
#define OLD	0x11
#define NEW	0x22
#define NOWHERE (-1)

struct order {
	size_t page; /* bring it; SIZE_MAX: bring all */
};

struct paged {
	struct guest g;
	struct gw_memory_watch watch;
	char dir[64], path[96];
	uint8_t id[GW_ID_LEN];
	pid_t pager;
	int orders; /* to the pager; it says a byte when it is ready, and when it is done */
};

/* In the pager. */
static struct gw_pager pager;
static struct gw_paged paged;
static struct gw_page_in in;
static int die_at = NOWHERE;

static int64_t op_now(void *env)
{
	(void)env;
	return 1;
}

static int op_map(void *env, size_t page, size_t count, size_t *mapped)
{
	(void)env;
	return gw_uffd_map(&paged, page, count, mapped);
}

static int op_map_zero(void *env, size_t page)
{
	(void)env;
	return gw_uffd_map_zero(&paged, page);
}

static void op_wake(void *env, size_t page, size_t count)
{
	(void)env;
	gw_uffd_wake(&paged, page, count);
}

static void bring(size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	memset(bytes, NEW, sizeof(bytes));
	if (in.sink.place(&in.sink, page, 1, bytes))
		_exit(3);
}

static void op_request(void *env, const size_t *pages, unsigned int n)
{
	(void)env;
	while (n--)
		bring(*pages++);
}

static void op_notify(void *env)
{
	(void)env;
}

static void op_park(void *env, enum gw_park where, size_t page)
{
	(void)env;
	(void)page;
	if ((int)where == die_at)
		kill(getpid(), SIGKILL);
}

static const struct gw_pager_ops ops = {
	.now = op_now,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.request = op_request,
	.notify = op_notify,
	.park = op_park,
};

static void bring_all(void)
{
	size_t at = 0, first, n;

	while ((n = gw_missing_next(&pager.missing, &at, &first)))
		for (size_t i = 0; i < n; i++)
			bring(first + i);
}

static _Noreturn void page(const struct paged *p, int sock, int at)
{
	struct gw_faults faults;
	struct order o;
	unsigned int n;

	die_at = at;
	pager.ops = &ops;
	pager.memory = &p->g.ram.memory;
	gw_page_in_init(&in, &pager, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || gw_pager_init(&pager) ||
	    gw_missing_open(&pager.missing, p->path, pager.memory, p->id, &n) ||
	    gw_watch_open(&p->watch, p->g.pid, &paged) ||
	    gw_faults_start(&faults, gw_pager_hear, &pager, &paged))
		_exit(2);
	while (write(sock, "", 1) == 1 && read(sock, &o, sizeof(o)) == sizeof(o)) {
		if (o.page == SIZE_MAX)
			bring_all();
		else
			bring(o.page);
	}
	_exit(0);
}

/* A pager that dies when it comes to @at. */
static void start_pager(struct paged *p, int at)
{
	int socks[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	p->pager = fork();
	if (p->pager == 0) {
		close(socks[0]);
		page(p, socks[1], at);
	}
	close(socks[1]);
	p->orders = socks[0];
}

static void ready(struct paged *p)
{
	char byte;

	assert_int_equal(read(p->orders, &byte, 1), 1);
}

static void order(struct paged *p, size_t at)
{
	const struct order o = { at };

	assert_int_equal(write(p->orders, &o, sizeof(o)), sizeof(o));
}

static void await_death(struct paged *p)
{
	int status;

	assert_int_equal(waitpid(p->pager, &status, 0), p->pager);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(p->orders);
}

static void stop_pager(struct paged *p)
{
	int status;

	shutdown(p->orders, SHUT_WR);
	assert_int_equal(waitpid(p->pager, &status, 0), p->pager);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(p->orders);
}

/* The guest begins to write @page; answered() when it has. */
static void touch(struct paged *p, size_t at)
{
	struct command c = { WRITE, at, 1, 1 };

	assert_int_equal(write(p->g.sock, &c, sizeof(c)), sizeof(c));
}

static void answered(struct paged *p)
{
	struct pollfd pfd = { .fd = p->g.sock, .events = POLLIN };
	char byte;

	assert_int_equal(poll(&pfd, 1, 60000), 1);
	assert_int_equal(read(p->g.sock, &byte, 1), 1);
}

static bool waits(struct paged *p)
{
	struct pollfd pfd = { .fd = p->g.sock, .events = POLLIN };

	return poll(&pfd, 1, 0) == 0;
}

/* It holds new bytes, and the guest's one write, if there was one. */
static void assert_page(const struct paged *p, size_t at, bool written)
{
	uint8_t bytes[GW_PAGE_SIZE], expected[GW_PAGE_SIZE];

	memset(expected, NEW, sizeof(expected));
	expected[at % GW_PAGE_SIZE] += written;
	assert_int_equal(gw_memory_read(&p->g.ram.memory, at, 1, bytes), 0);
	assert_memory_equal(bytes, expected, sizeof(bytes));
}

static void begin(struct paged *p)
{
	struct gw_missing m;
	struct gw_paged here;
	uint8_t old[GW_PAGE_SIZE];

	memset(p, 0, sizeof(*p));
	memset(old, OLD, sizeof(old));
	start(&p->g, true);
	snprintf(p->dir, sizeof(p->dir), "/tmp/unit-paged-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/missing", p->dir);
	/* Every third page is a hole. */
	for (size_t k = 0; k < MISSING; k++)
		if (k % 3)
			assert_int_equal(gw_memory_write(&p->g.ram.memory, k, 1, old), 0);
	assert_int_equal(gw_watch_begin(&p->watch, p->g.pid, &p->g.ram, 3), 0);
	assert_int_equal(gw_missing_create(&m, p->path, &p->g.ram.memory, p->id, 2), 0);
	assert_int_equal(gw_missing_add(&m, &p->g.ram.memory, 0, MISSING), 0);
	assert_int_equal(gw_missing_add(&m, &p->g.ram.memory, FIRST, SMALL), 0);
	gw_missing_seal(&m);
	gw_missing_close(&m);
	assert_int_equal(gw_watch_open(&p->watch, p->g.pid, &here), 0);
	assert_int_equal(here.nr_uffds, 3);
	assert_int_equal(gw_watch_page(&p->watch, &here), 0);
	assert_true(p->watch.mode == GW_WATCH_PAGING);
	gw_watch_close(&here);
}

static int save(void *arg)
{
	(void)arg;
	return 0;
}

/* Nothing is missing: it is tracked, and what it did not touch was not written. */
static void finish(struct paged *p, const struct gw_bitmap *touched)
{
	struct gw_paged here;
	struct gw_missing m;
	bool resumed, since;
	unsigned int n;

	assert_int_equal(gw_missing_open(&m, p->path, &p->g.ram.memory, p->id, &n), 0);
	assert_int_equal(m.left, 0);
	gw_missing_close(&m);
	for (size_t at = 0; at < MISSING; at++)
		assert_page(p, at, gw_bitmap_test(touched, at));
	assert_int_equal(gw_watch_open(&p->watch, p->g.pid, &here), 0);
	assert_int_equal(gw_watch_unpage(&p->watch, &here), 0);
	gw_watch_close(&here);
	/* Nobody pages: it waits for nobody. */
	tell(&p->g, READ, 0, MISSING, 1);
	tell(&p->g, WRITE, MISSING + 7, 1, 1);
	p->g.t = gw_watch_track(&p->watch, p->g.pid, &p->g.ram, save, NULL, &resumed, &since);
	assert_true(p->g.t && resumed && since);
	scan(&p->g);
	for (size_t at = 0; at < PAGES; at++) {
		bool near = false;

		for (size_t k = at & ~(size_t)(GW_FAULT_AROUND - 1); k <= at; k++)
			near = near || (k < MISSING && gw_bitmap_test(touched, k));
		if (at == MISSING + 7 || (at < MISSING && gw_bitmap_test(touched, at)))
			assert_true(gw_bitmap_test(&p->g.due, at));
		else if (!near)
			assert_false(gw_bitmap_test(&p->g.due, at));
	}
	unlink(p->path);
	rmdir(p->dir);
	end(&p->g);
}

static void killed_at_each_step(void **state)
{
	static const enum gw_park steps[] = { GW_PARK_FAULT,   GW_PARK_WANTED, GW_PARK_CLAIMED,
					      GW_PARK_WRITTEN, GW_PARK_PLACED, GW_PARK_MAPPED };
	struct gw_bitmap touched;
	struct paged p;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	begin(&p);
	assert_int_equal(gw_bitmap_init(&touched, PAGES), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(steps) * 6; i++) {
		const size_t at = i * 53 + 1;
		const enum gw_park step = steps[i % GW_ARRAY_SIZE(steps)];
		/* The guest asks for it; or it is pushed, and then the guest wants it. */
		const bool pushed = i >= 3 * GW_ARRAY_SIZE(steps) && step >= GW_PARK_CLAIMED &&
				    step < GW_PARK_MAPPED;

		start_pager(&p, (int)step);
		ready(&p);
		if (pushed)
			order(&p, at);
		else
			touch(&p, at);
		await_death(&p);
		if (pushed)
			touch(&p, at);
		if (step != GW_PARK_MAPPED)
			assert_true(waits(&p)); /* for the next */
		start_pager(&p, NOWHERE);
		answered(&p);
		gw_bitmap_set(&touched, at);
		assert_page(&p, at, true);
		ready(&p);
		stop_pager(&p);
	}
	start_pager(&p, NOWHERE);
	ready(&p);
	order(&p, SIZE_MAX);
	ready(&p);
	stop_pager(&p);
	finish(&p, &touched);
	gw_bitmap_free(&touched);
}

/* The guest goes over all of it while all of it is pushed. */
static void pushed_and_wanted(void **state)
{
	struct gw_bitmap touched;
	struct paged p;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	begin(&p);
	assert_int_equal(gw_bitmap_init(&touched, PAGES), 0);
	start_pager(&p, NOWHERE);
	ready(&p);
	order(&p, SIZE_MAX);
	tell(&p.g, WRITE, 5, MISSING - 5, 7);
	for (size_t at = 5; at < MISSING; at += 7)
		gw_bitmap_set(&touched, at);
	ready(&p);
	stop_pager(&p);
	finish(&p, &touched);
	gw_bitmap_free(&touched);
}

/* Back and forth, and a record of what is not there. */
static void two_changes(void **state)
{
	struct gw_memory_watch watch;
	struct gw_paged here;
	struct guest g;

	(void)state;
	if (!gw_track_has_uffd())
		skip();
	start(&g, true);
	assert_int_equal(gw_watch_begin(&watch, g.pid, &g.ram, 2), 0);
	assert_int_equal(gw_watch_open(&watch, g.pid, &here), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(gw_watch_page(&watch, &here), 0);
		assert_int_equal(gw_watch_page(&watch, &here), 0); /* harmless */
		assert_int_equal(gw_watch_unpage(&watch, &here), 0);
	}
	gw_watch_close(&here);
	tell(&g, WRITE, 3, 1, 1);
	watch.numbers[1] = 999;
	assert_int_equal(gw_watch_open(&watch, g.pid, &here), -ENOENT);
	watch.nr_ranges = 0;
	assert_int_equal(gw_watch_open(&watch, g.pid, &here), -ENOTSUP);
	end(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_each_step),
		cmocka_unit_test(pushed_and_wanted),
		cmocka_unit_test(two_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
