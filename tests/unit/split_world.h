/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_world.h - for test_split.c: a pager on a real userfaultfd, an array that is what a memory
 * server holds, and a thread of that server.
 *
 * What happens to either is held by its lock; a test has the pager stand still at one of its points
 * (enum gw_split_park).
 */
#ifndef TEST_SPLIT_WORLD_H
#define TEST_SPLIT_WORLD_H

#include "split_guest.h"

#define NOBODY (-1)

struct world {
	struct split_guest g;
	char path[96];
	_Atomic unsigned int told;
	_Atomic bool poor; /* the host has no memory */
	_Atomic int fails; /* nothing can be protected */
	bool moves;
	struct gw_faults faults;
	struct gw_split split;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint8_t *store;
	bool *held, silent;
	size_t asked[PAGES];
	unsigned int nr_asked, released;
	size_t fetched, nr_fetched;
	int stop_at; /* enum gw_split_park; NOBODY */
	bool stopped, go_on;
	pthread_t server;
	bool serves;
};

static int op_request(void *env, unsigned int holder, const size_t *pages, unsigned int n)
{
	struct world *w = env;
	gw_locked(&w->lock);

	assert_int_equal(holder, 1);
	if (w->silent)
		return -ENOTCONN;
	memcpy(w->asked + w->nr_asked, pages, n * sizeof(pages[0]));
	w->nr_asked += n;
	pthread_cond_broadcast(&w->changed);
	return 0;
}

static void op_fetch(void *env, unsigned int holder, size_t first, size_t count)
{
	struct world *w = env;
	gw_locked(&w->lock);

	(void)holder;
	w->fetched = first;
	w->nr_fetched = count;
}

static void op_release(void *env, unsigned int holder, size_t page, size_t count)
{
	struct world *w = env;
	gw_locked(&w->lock);

	(void)holder;
	memset(w->held + page, 0, count);
	memset(w->store + page * GW_PAGE_SIZE, 0xee, count * GW_PAGE_SIZE);
	w->released += (unsigned int)count;
}

static void op_touched(void *env, size_t page, size_t count)
{
	(void)env;
	(void)page;
	(void)count;
}

static int op_zero_if_rich(void *env, size_t page)
{
	return ((struct world *)env)->poor ? -ENOMEM : op_zero(env, page);
}

static int op_copy_if_rich(void *env, size_t page, size_t count, const void *bytes, size_t *copied)
{
	*copied = 0;
	return ((struct world *)env)->poor ? -ENOMEM : op_copy(env, page, count, bytes, copied);
}

static int op_protect_if_well(void *env, size_t page, size_t count)
{
	return ((struct world *)env)->fails ?: op_protect(env, page, count);
}

static void op_notify(void *env)
{
	((struct world *)env)->told++;
}

static void op_park(void *env, enum gw_split_park where, size_t page)
{
	struct world *w = env;
	gw_locked(&w->lock);

	(void)page;
	if ((int)where != w->stop_at)
		return;
	w->stop_at = NOBODY;
	w->stopped = true;
	pthread_cond_broadcast(&w->changed);
	while (!w->go_on)
		pthread_cond_wait(&w->changed, &w->lock);
}

static const struct gw_split_ops ops = {
	.now = op_now,
	.copy = op_copy_if_rich,
	.zero = op_zero_if_rich,
	.protect = op_protect_if_well,
	.unprotect = op_unprotect,
	.wake = op_wake,
	.present = op_present,
	.request = op_request,
	.fetch = op_fetch,
	.release = op_release,
	.touched = op_touched,
	.notify = op_notify,
	.park = op_park,
};

/* What is asked for comes, a page after the other. */
static void *serve(void *arg)
{
	struct world *w = arg;
	uint8_t bytes[GW_PAGE_SIZE];

	for (;;) {
		size_t page;

		{
			gw_locked(&w->lock);
			while (w->serves && !w->nr_asked)
				pthread_cond_wait(&w->changed, &w->lock);
			if (!w->serves)
				return NULL;
			page = w->asked[0];
			memmove(w->asked, w->asked + 1, --w->nr_asked * sizeof(w->asked[0]));
			assert_true(w->held[page]);
			memcpy(bytes, w->store + page * GW_PAGE_SIZE, sizeof(bytes));
		}
		gw_split_place(&w->split, page, 1, bytes);
	}
}

static void hear(void *env, const struct gw_fault *faults, unsigned int n)
{
	gw_split_fault(&((struct world *)env)->split, faults, n);
}

static void begin(struct world *w, bool took_over)
{
	static const uint8_t id[GW_ID_LEN] = { 7 };

	memset(&w->split, 0, sizeof(w->split));
	w->split.ops = &ops;
	w->split.env = w;
	w->split.memory = &w->g.ram.memory;
	w->split.limit = PAGES;
	w->split.moves = w->moves;
	if (took_over)
		assert_int_equal(gw_netpt_open(&w->split.table, w->path, &w->g.ram.memory, id), 0);
	else
		assert_int_equal(
			gw_netpt_create(&w->split.table, w->path, &w->g.ram.memory, id, UNIT), 0);
	assert_int_equal(gw_split_init(&w->split, 1), 0);
	if (took_over)
		assert_int_equal(gw_split_mend(&w->split), 0);
	assert_int_equal(gw_faults_start(&w->faults, hear, w, &w->g.paged), 0);
	w->serves = true;
	assert_int_equal(pthread_create(&w->server, NULL, serve, w), 0);
}

static void end(struct world *w)
{
	{
		gw_locked(&w->lock);
		w->serves = false;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_join(w->server, NULL);
	gw_faults_stop(&w->faults);
}

static int make_world(void **state, bool moves)
{
	struct world *w = calloc(1, sizeof(*w));

	w->moves = moves;
	split_guest_make(&w->g);
	w->store = calloc(PAGES, GW_PAGE_SIZE);
	w->held = calloc(PAGES, sizeof(*w->held));
	snprintf(w->path, sizeof(w->path), "/tmp/gw-netpt-%d", getpid());
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	w->stop_at = NOBODY;
	*state = w;
	begin(w, false);
	return 0;
}

static inline int make(void **state)
{
	return make_world(state, false);
}

static int drop(void **state)
{
	struct world *w = *state;

	end(w);
	gw_split_free(&w->split);
	split_guest_drop(&w->g);
	unlink(w->path);
	free(w->store);
	free(w->held);
	free(w);
	return 0;
}

static volatile uint64_t *word_of(struct world *w, size_t page)
{
	return word_in(&w->g, page);
}

/* As a memory server takes it. */
static int send_out(struct world *w, size_t unit)
{
	struct gw_leaving l;
	uint8_t bytes[GW_PAGE_SIZE];
	const int n = gw_split_leave(&w->split, unit, 1, &l);

	if (n <= 0)
		return n;
	for (size_t i = 0; i < l.count; i++) {
		if (!(l.pages[i / 64] >> i % 64 & 1))
			continue;
		assert_int_equal(gw_memory_read(&w->g.ram.memory, l.first + i, 1, bytes), 0);
		if (gw_page_is_zero(bytes)) {
			l.zero[i / 64] |= 1ULL << i % 64;
			continue;
		}
		gw_locked(&w->lock);
		memcpy(w->store + (l.first + i) * GW_PAGE_SIZE, bytes, sizeof(bytes));
		w->held[l.first + i] = true;
	}
	assert_int_equal(gw_split_left(&w->split, &l, true), 0);
	return n;
}

static inline bool in_file(const struct world *w, size_t page)
{
	unsigned char in;

	assert_int_equal(mincore(w->g.file + page * GW_PAGE_SIZE, GW_PAGE_SIZE, &in), 0);
	return in & 1;
}

/* Once so many have come: the guest goes on before they are counted. */
static inline struct gw_split_stats stats_at(struct world *w, uint64_t page_ins)
{
	struct gw_split_stats s;

	do
		gw_split_stats(&w->split, &s);
	while (s.page_ins < page_ins && !sched_yield());
	return s;
}

struct act {
	struct world *w;
	size_t unit;
	pthread_t thread;
};

static inline void *act_out(void *arg)
{
	struct act *a = arg;

	send_out(a->w, a->unit);
	return NULL;
}

static inline void stop_at(struct world *w, int where)
{
	gw_locked(&w->lock);

	w->stopped = w->go_on = false;
	w->stop_at = where;
}

static inline void until_stopped(struct world *w)
{
	gw_locked(&w->lock);

	while (!w->stopped)
		pthread_cond_wait(&w->changed, &w->lock);
}

static inline void go_on(struct world *w)
{
	gw_locked(&w->lock);

	w->go_on = true;
	pthread_cond_broadcast(&w->changed);
}

/* The guest, which reads or writes a page and may have to wait. */
struct vcpu {
	struct world *w;
	size_t page;
	uint64_t adds, saw;
	_Atomic bool done;
	pthread_t thread;
};

static inline void *access_page(void *arg)
{
	struct vcpu *v = arg;

	uint64_t *at = (uint64_t *)(uintptr_t)word_of(v->w, v->page);

	v->saw = __atomic_load_n(at, __ATOMIC_SEQ_CST);
	if (v->adds)
		__atomic_fetch_add(at, v->adds, __ATOMIC_SEQ_CST);
	v->done = true;
	return NULL;
}

static inline void touch(struct vcpu *v, struct world *w, size_t page, uint64_t adds)
{
	*v = (struct vcpu){ .w = w, .page = page, .adds = adds };
	assert_int_equal(pthread_create(&v->thread, NULL, access_page, v), 0);
}

static inline void until_deferred(struct world *w, uint64_t n)
{
	struct gw_split_stats s;

	do
		gw_split_stats(&w->split, &s);
	while (s.deferred < n && !sched_yield());
}

static inline void set_silent(struct world *w, bool silent)
{
	gw_locked(&w->lock);

	w->silent = silent;
}

/* A page is to be asked for later, and is not to be looked for. */
static inline void until_put_off(struct world *w)
{
	for (bool is = false; !is; sched_yield()) {
		gw_locked(&w->split.lock);
		is = w->split.nr_deferred == 1 && !w->split.overflown;
	}
}

#endif
