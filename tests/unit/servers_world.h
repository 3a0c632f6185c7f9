/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * servers_world.h - for test_servers.c: a pager on a real userfaultfd, and two memory servers in
 * threads of this process, on sockets, which are cut, restarted, or cannot be reached.
 */
#ifndef TEST_SERVERS_WORLD_H
#define TEST_SERVERS_WORLD_H

#include "split_guest.h"

#include <semaphore.h>
#include <sys/socket.h>

#include "place.h"
#include "serve.h"
#include "servers_internal.h"

#define SUBS  2U
#define LEAST (2 * UNIT)
#define ALL   (2 * PAGES) /* more than that is nothing */

struct sub {
	struct gw_memserve serve;
	struct gw_memstore store;
	const char *name;
	bool open;
	char *folder;
	pthread_mutex_t ending; /* one does at a time */
	pthread_mutex_t lock;	/* of what follows */
	bool down, busy;	/* whoever calls is refused */
	unsigned int refusals;
	struct gw_transport *conns[GW_MEMORY_CONNECTIONS];
	pthread_t threads[GW_MEMORY_CONNECTIONS];
	unsigned int nr;
	sem_t compared;
	int begun;
	_Atomic(const char *) refuses;
	struct gw_servers *owned; /* by who calls it from now on, when it is called */
};

struct world {
	struct split_guest g;
	char path[96];
	struct gw_faults faults;
	struct gw_split split;
	struct gw_split_in in;
	struct gw_servers all;
	struct gw_server servers[SUBS];
	struct sub subs[SUBS];
	_Atomic size_t next;	  /* victim */
	_Atomic bool holds, held; /* what is stored is not away yet */
	_Atomic uint64_t most;
	_Atomic unsigned int victims[GW_HOLDERS_MAX]; /* how often each has looked for one */
};

/* The sub-host. */

static int64_t sub_now(void *env)
{
	(void)env;
	return gw_now();
}

static int sub_hold(void *env, const struct gw_hold *hold, struct gw_memstore **store)
{
	struct sub *s = env;
	int rc = 0;

	if (s->refuses)
		return gw_fail(-ENOMEM, "%s", atomic_load(&s->refuses));
	if (s->owned) {
		s->owned->carried = false;
		gw_servers_compare(s->owned);
		s->owned = NULL;
	}
	if (!s->open)
		rc = gw_memstore_open(&s->store, s->folder, hold);
	s->open = true;
	gw_memstore_resize(&s->store, hold->size);
	*store = &s->store;
	return rc;
}

static const struct gw_memserve_ops sub_ops = { .now = sub_now, .hold = sub_hold };

static void hang_up(struct sub *s)
{
	gw_locked(&s->lock);

	for (unsigned int i = 0; i < s->nr; i++)
		s->conns[i]->ops->shutdown(s->conns[i]);
}

static void *sub_requests(void *arg)
{
	struct sub *s = arg;
	int rc;

	s->begun = gw_memserve_begin(&s->serve, s->conns[0]);
	sem_post(&s->compared);
	rc = s->begun ? s->begun : gw_memserve_requests(&s->serve, s->conns[0]);
	if (rc == GW_MEMSERVE_DISMISSED) {
		gw_memstore_release(&s->store, 0, PAGES);
		gw_memserve_dismissed(s->conns[0]);
	}
	hang_up(s);
	return NULL;
}

static void *sub_bulk(void *arg)
{
	struct sub *s = arg;

	while (sem_wait(&s->compared))
		;
	if (!s->begun)
		gw_memserve_bulk(&s->serve, s->conns[1]);
	hang_up(s);
	return NULL;
}

/* Return: how many connections it has, and no more while it is busy. */
static unsigned int set_busy(struct sub *s)
{
	gw_locked(&s->lock);

	s->busy = true;
	return s->nr;
}

static void set_down(struct sub *s, bool down)
{
	gw_locked(&s->lock);

	s->down = down;
}

/* Whoever hangs up finds none of them any more. */
static void close_all(struct sub *s)
{
	gw_locked(&s->lock);

	for (unsigned int i = 0; i < s->nr; i++)
		gw_transport_close(&s->conns[i]);
	s->nr = 0;
}

static void set_free(struct sub *s)
{
	gw_locked(&s->lock);

	s->busy = false;
}

/* Its process ends; what it has stored stays. */
static void sub_end(struct sub *s, bool restart)
{
	gw_locked(&s->ending);
	const unsigned int nr = set_busy(s);

	hang_up(s);
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(s->threads[i], NULL);
	close_all(s);
	while (!sem_trywait(&s->compared))
		;
	if (restart) {
		gw_memserve_free(&s->serve);
		if (s->open)
			gw_memstore_close(&s->store);
		s->open = false;
		gw_memserve_init(&s->serve, &sub_ops, s, s->name);
	}
	set_free(s);
}

/* The main host. */

static struct gw_transport *op_connect(void *env, const struct gw_server *server,
				       unsigned int index, int64_t deadline)
{
	struct sub *s = &((struct world *)env)->subs[server->index];
	struct gw_transport *t;
	int socks[2];

	(void)deadline;
	if (!index)
		sub_end(s, false); /* as a daemon does, which hands the new ones on */
	gw_locked(&s->lock);
	if (s->down || s->busy || s->nr != index) {
		s->refusals++;
		gw_fail(-ECONNREFUSED, "nobody is there");
		return NULL;
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	s->conns[index] = gw_tcp_adopt(socks[0]);
	t = gw_tcp_adopt(socks[1]);
	assert_true(s->conns[index] && t);
	assert_int_equal(
		pthread_create(&s->threads[index], NULL, index ? sub_bulk : sub_requests, s), 0);
	s->nr = index + 1;
	return t;
}

static bool op_victim(void *env, unsigned int server, size_t *unit)
{
	struct world *w = env;
	const uint64_t here = gw_split_here(&w->split);

	w->victims[server]++;
	if (here > w->most)
		w->most = here;
	if (here + 2 * UNIT <= w->split.limit)
		return false;
	*unit = w->next++ % UNITS;
	if (gw_netpt_copies_max(&w->split.table) > 1)
		return gw_servers_may_leave(&w->all, server, *unit);
	/* Of another one's nothing leaves to it. */
	return (w->servers[0].leaves || w->servers[0].gone ? 1 : *unit % SUBS) == server;
}

static void op_notify(void *env)
{
	gw_split_ask(&((struct world *)env)->split);
}

static const struct gw_servers_ops servers_ops = {
	.connect = op_connect,
	.victim = op_victim,
	.notify = op_notify,
};

static int op_request(void *env, unsigned int holder, const size_t *pages, unsigned int n)
{
	return gw_servers_request(&((struct world *)env)->all, holder, pages, n);
}

static void op_fetch(void *env, unsigned int holder, size_t first, size_t count)
{
	gw_servers_fetch(&((struct world *)env)->all, holder, first, count);
}

static void op_release(void *env, unsigned int holder, size_t page, size_t count)
{
	gw_servers_release(&((struct world *)env)->all, holder, page, count);
}

static void op_touched(void *env, size_t page, size_t count)
{
	(void)env;
	(void)page;
	(void)count;
}

static void op_park(void *env, enum gw_split_park where, size_t page)
{
	struct world *w = env;

	(void)page;
	if (where != GW_SPLIT_STORED)
		return;
	w->held = w->holds;
	while (w->holds)
		sched_yield();
}

static void op_quiet(void *env)
{
	(void)env;
}

static const struct gw_split_ops split_ops = {
	.now = op_now,
	.copy = op_copy,
	.zero = op_zero,
	.protect = op_protect,
	.unprotect = op_unprotect,
	.wake = op_wake,
	.present = op_present,
	.request = op_request,
	.fetch = op_fetch,
	.release = op_release,
	.touched = op_touched,
	.notify = op_quiet,
	.park = op_park,
};

static void hear(void *env, const struct gw_fault *faults, unsigned int n)
{
	gw_split_fault(&((struct world *)env)->split, faults, n);
}

static int make_for(void **state, unsigned int copies)
{
	static const uint8_t id[GW_ID_LEN] = { 9 };
	struct world *w = calloc(1, sizeof(*w));

	split_guest_make(&w->g);
	snprintf(w->path, sizeof(w->path), "/tmp/gw-netpt-servers-%d", getpid());
	w->split.ops = &split_ops;
	w->split.env = w;
	w->split.memory = &w->g.ram.memory;
	w->split.limit = ALL;
	assert_int_equal(
		gw_netpt_create_for(&w->split.table, w->path, &w->g.ram.memory, id, UNIT, copies),
		0);
	assert_int_equal(gw_split_init(&w->split, 2 * SUBS), 0);
	gw_split_in_init(&w->in, &w->split);
	w->all = (struct gw_servers){ .ops = &servers_ops,
				      .tasks = &gw_threads,
				      .env = w,
				      .name = "web1",
				      .host = "A",
				      .split = &w->split,
				      .sink = &w->in.sink,
				      .options = { .compress = GW_COMPRESS_LZ4 },
				      .missed_ns = 60 * GW_S,
				      .servers = w->servers,
				      .nr = SUBS };
	for (unsigned int i = 0; i < SUBS; i++) {
		struct sub *s = &w->subs[i];

		pthread_mutex_init(&s->lock, NULL);
		pthread_mutex_init(&s->ending, NULL);
		sem_init(&s->compared, 0, 0);
		assert_int_equal(unit_folder((void **)&s->folder), 0);
		s->name = i ? "C" : "B";
		gw_memserve_init(&s->serve, &sub_ops, s, s->name);
		snprintf(w->servers[i].address, sizeof(w->servers[i].address), "sub%u:1", i);
		w->servers[i].size = PAGES * GW_PAGE_SIZE;
	}
	assert_int_equal(gw_faults_start(&w->faults, hear, w, &w->g.paged), 0);
	assert_int_equal(gw_servers_start(&w->all), 0);
	*state = w;
	return 0;
}

static int make(void **state)
{
	return make_for(state, 1);
}

static int make_twice(void **state)
{
	return make_for(state, 2);
}

static void until_up(struct world *w)
{
	for (unsigned int i = 0; i < SUBS; i++)
		while (!w->servers[i].up)
			sched_yield();
}

static int drop(void **state)
{
	struct world *w = *state;

	gw_servers_stop(&w->all);
	gw_servers_dismiss(&w->all, gw_now() + 10 * GW_S);
	for (unsigned int i = 0; i < SUBS; i++) {
		struct sub *s = &w->subs[i];

		assert_int_equal(s->store.pages, 0);
		sub_end(s, true);
		gw_memserve_free(&s->serve);
		assert_int_equal(unit_folder_remove((void **)&s->folder), 0);
	}
	gw_faults_stop(&w->faults);
	gw_split_free(&w->split);
	split_guest_drop(&w->g);
	unlink(w->path);
	free(w);
	return 0;
}

static void narrow(struct world *w, uint64_t limit)
{
	w->split.limit = limit;
	gw_servers_wake(&w->all);
	while (gw_split_here(&w->split) > limit)
		gw_servers_wake(&w->all);
}

/* Whether a unit is on its way out: it may be away in a moment. */
static bool any_leaves(const struct world *w)
{
	for (size_t unit = 0; unit < w->split.units_len; unit++)
		if (w->split.leaving[unit] > 1)
			return true;
	return false;
}

/* From here on nothing leaves, and what was leaving has left. */
static void settle(struct world *w)
{
	w->split.limit = ALL;
	for (unsigned int i = 0; i < SUBS; i++) {
		const unsigned int before = w->victims[i];

		/* Who has chosen a unit has it leave before it looks for another. */
		while (w->servers[i].up && !w->servers[i].leaves && w->victims[i] == before) {
			gw_servers_wake(&w->all);
			sched_yield();
		}
	}
	while (any_leaves(w))
		sched_yield();
}

static void widen(struct world *w)
{
	settle(w);
	w->all.merging = true;
	gw_split_ask(&w->split);
	gw_servers_wake(&w->all);
	while (w->split.table.away) {
		gw_split_ask(&w->split);
		sched_yield();
	}
	w->all.merging = false;
}

static void fill(struct world *w)
{
	for (size_t page = 0; page < PAGES; page++)
		*word_in(&w->g, page) = page % 7 ? page + 1 : 0;
}

static void check_filled(struct world *w)
{
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(*word_in(&w->g, page), page % 7 ? page + 1 : 0);
}

#endif
