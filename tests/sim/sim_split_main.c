// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split_main.c - the main host's pager: what worker_split.c does around split.h and servers.h,
 * and the latter's ops; see sim_split.h.
 *
 * Who is dead has no effect any more: what he still writes into his page table, which he had
 * mapped, goes into a file that nobody else has; a copy of how it was is what the next one finds.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "sim_split.h"

#define LOOK_NS	   (100 * GW_MS)
#define TRIES	   8
#define DISMISS_NS (5 * GW_S)
#define QUIESCE_NS (10 * GW_S)

static struct sim_split *const w = &sim_split;

static bool is_dead(const struct split_pager *p)
{
	return p->process.dead;
}

/* Tasks. */

struct task {
	void (*fn)(void *arg);
	void *arg;
	bool ended;
};

static void run_task(void *arg, unsigned int i)
{
	struct task *t = arg;

	(void)i;
	t->fn(t->arg);
	t->ended = true;
}

static void *op_spawn(void *env, void (*fn)(void *arg), void *arg)
{
	struct task *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->fn = fn;
	t->arg = arg;
	fiber_new(&((struct split_pager *)env)->process, "task", run_task, t, 0);
	return t;
}

static bool has_ended(void *arg, int64_t *when)
{
	(void)when;
	return ((const struct task *)arg)->ended;
}

static void op_join(void *env, void *task)
{
	(void)env;
	if (!((struct task *)task)->ended)
		fiber_wait(has_ended, task, GW_FOREVER);
	free(task);
}

static unsigned int rester(const struct split_pager *p, const pthread_cond_t *cond)
{
	unsigned int i = 0;

	while (&p->servers[i].work != cond)
		i++;
	return i;
}

static bool is_signalled(void *arg, int64_t *when)
{
	(void)when;
	return *(const bool *)arg;
}

static void op_rest(void *env, pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until)
{
	struct split_pager *p = env;
	bool *signalled = &p->signalled[rester(p, cond)];

	*signalled = false;
	pthread_mutex_unlock(lock);
	fiber_wait(is_signalled, signalled, until);
	pthread_mutex_lock(lock);
}

static void op_signal(void *env, pthread_cond_t *cond)
{
	struct split_pager *p = env;

	p->signalled[rester(p, cond)] = true;
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	(void)urgency;
}

static const struct gw_task_ops tasks = {
	.now = split_now,
	.urgency = op_urgency,
	.spawn = op_spawn,
	.join = op_join,
	.rest = op_rest,
	.signal = op_signal,
};

/* Servers. */

static struct gw_transport *op_connect(void *env, const struct gw_server *server,
				       unsigned int index, int64_t deadline)
{
	struct split_pager *p = env;
	struct split_sub *s = &w->subs[server->index];
	struct split_server *there = s->server;
	struct gw_transport *t = NULL, *peer;

	if (sim_step(&p->process, "connect", STEP_FAILS))
		return NULL;
	sim_check(!p->let_go, "sub-host %s is called by who let go of it", s->name);
	if (sim_now() < s->away_until)
		fiber_sleep_until(s->away_until < deadline ? s->away_until : deadline);
	there = s->server;
	if (!there || sim_now() >= deadline)
		gw_fail(-ECONNREFUSED, "nobody is there");
	else
		t = net_open(&p->process, &there->process, &peer, deadline);
	if (t)
		split_sub_call(there, index, peer);
	return t;
}

static uint64_t spare(void)
{
	const uint64_t some = 4ULL * w->unit_pages;

	return w->target > 8 * some ? some : w->target / 8;
}

static uint64_t aim(void)
{
	return w->target - spare();
}

/* A unit that may have something here, at random. Return: the number of units: there is none. */
static size_t some_filled(const struct split_pager *p)
{
	const size_t nr = p->split.table.units.nr, from = rng_below(&w->rng, nr);
	const size_t unit = gw_bitmap_next(&p->filled, from, nr, true);

	return unit < nr ? unit : gw_bitmap_next(&p->filled, 0, nr, true);
}

static bool may_leave(struct split_pager *p, unsigned int server, size_t unit)
{
	if (!gw_servers_may_leave(&p->all, server, unit))
		return false;
	gw_bitmap_clear(&p->filled, unit);
	return true;
}

static bool op_victim(void *env, unsigned int server, size_t *unit)
{
	struct split_pager *p = env;

	if (is_dead(p) || w->merging || p->split.frozen || split_here() <= aim())
		return false;
	for (unsigned int i = 0; w->pinned && i < p->nr_prepared; i++) {
		*unit = p->prepared[i];
		if (!may_leave(p, server, *unit))
			continue;
		p->prepared[i] = p->prepared[--p->nr_prepared];
		return true;
	}
	for (unsigned int i = 0; !w->pinned && i < TRIES; i++) {
		*unit = some_filled(p);
		if (*unit < p->split.table.units.nr && may_leave(p, server, *unit))
			return true;
	}
	return false;
}

static const struct gw_servers_ops servers_ops = {
	.connect = op_connect,
	.victim = op_victim,
	.notify = split_notify,
};

/* The keeper. */

static bool hears(const struct split_pager *p, unsigned int part)
{
	struct gw_fault none[GW_FAULTS_MAX];

	return p->halting || is_dead(p) || split_faults(part, none, false);
}

static bool hears_first(void *arg, int64_t *when)
{
	(void)when;
	return hears(arg, 0);
}

static bool hears_second(void *arg, int64_t *when)
{
	(void)when;
	return hears(arg, 1);
}

static void listen(void *arg, unsigned int part)
{
	struct split_pager *p = arg;

	while (!p->halting && !is_dead(p)) {
		struct gw_fault faults[GW_FAULTS_MAX];
		unsigned int n;

		fiber_wait(part ? hears_second : hears_first, p, GW_FOREVER);
		n = p->halting || is_dead(p) ? 0 : split_faults(part, faults, true);
		if (n && !sim_step(&p->process, "faults", 0))
			gw_split_fault(&p->split, faults, n);
	}
	p->listeners--;
}

static bool is_silent(void *arg, int64_t *when)
{
	(void)when;
	return !((const struct split_pager *)arg)->listeners;
}

static void halt(struct split_pager *p)
{
	p->halting = true;
	if (p->listeners)
		fiber_wait(is_silent, p, GW_FOREVER);
}

static bool is_drained(void *arg, int64_t *when)
{
	(void)when;
	return (!w->pins && w->device.state == SPLIT_RUNS) || is_dead(arg);
}

/* Of a guest whose pages may be pinned: what leaves next is protected while none is. */
static void prepare(struct split_pager *p)
{
	const int64_t by = sim_now() + QUIESCE_NS;

	if (!w->pinned || w->merging || p->nr_prepared || split_here() <= aim())
		return;
	p->split.quiesces = true;
	gw_split_ask(&p->split);
	if (!is_dead(p))
		w->quiesced = true;
	while (!is_dead(p) && !is_drained(p, NULL) && sim_now() < by)
		fiber_wait(is_drained, p, w->pins ? w->pinned_until : by);
	for (unsigned int i = 0; i < TRIES && !is_dead(p) && is_drained(p, NULL); i++) {
		const size_t unit = some_filled(p);
		bool is = unit == p->split.table.units.nr;

		for (unsigned int k = 0; k < p->nr_prepared; k++)
			is = is || p->prepared[k] == unit;
		if (!is && gw_split_prepare(&p->split, unit))
			p->prepared[p->nr_prepared++] = unit;
	}
	if (!is_dead(p))
		w->quiesced = false;
	w->most_quiesced = split_here() + p->split.coming;
	p->split.quiesces = false;
	gw_servers_wake(&p->all);
}

static void lower_limit(struct split_pager *p)
{
	const uint64_t least = split_here() + p->split.coming + spare();

	if (w->merging || least >= p->split.limit || p->split.limit <= w->target)
		return;
	p->split.limit = least > w->target ? least : w->target;
}

/* Its user has second thoughts. */
static void change(struct split_pager *p)
{
	const uint64_t all = w->host->file.memory.nr_pages;

	if (p->moving)
		return;
	w->merging |= w->steps > w->life;
	if (sim_now() < w->next_change)
		return;
	w->next_change = sim_now() + (int64_t)rng_below(&w->rng, 40) * GW_MS;
	w->target = 4 * w->unit_pages + rng_below(&w->rng, all / (1 + rng_below(&w->rng, 5)));
	if (!w->merging && p->split.limit < w->target)
		p->split.limit = w->target;
	w->merging |= rng_one_in(&w->rng, w->moves ? 400 : 40);
}

static unsigned int staying(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < w->nr_subs; i++)
		n += !w->leaves[i] && !w->gone[i];
	return n;
}

/* What is at one of them is to go to the others; or it is there again. */
static void change_servers(struct split_pager *p)
{
	const unsigned int i = (unsigned int)rng_below(&w->evacuations, w->nr_subs);

	if (w->gone[i] && !w->subs[i].dead && rng_one_in(&w->evacuations, 8)) {
		w->gone[i] = false;
		w->subs[i].dismissed_of = 0;
		if (gw_servers_add(&p->all, i))
			abort();
		split_road(ROAD_ADDED);
	} else if (!w->gone[i] && staying() > w->copies && rng_one_in(&w->evacuations, 16)) {
		w->leaves[i] = p->servers[i].leaves = true;
	}
}

static void evacuate(struct split_pager *p)
{
	if (!w->evacuates || w->merging || p->moving || is_dead(p))
		return;
	change_servers(p);
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		if (!w->leaves[i] || !gw_servers_is_gone(&p->all, i) || is_dead(p))
			continue;
		w->leaves[i] = false;
		w->gone[i] = true;
		split_road(ROAD_EVACUATED);
	}
}

static bool is_called(void *arg, int64_t *when)
{
	const struct split_pager *p = arg;

	(void)when;
	return p->notified || is_dead(p);
}

static void look_at_copies(struct split_pager *p)
{
	const struct gw_netpt *t = &p->split.table;
	struct gw_missing_copies m;

	gw_servers_missing(&p->all, &m);
	if (t->away > t->single)
		split_road(ROAD_TWICE);
	if (t->single)
		split_road(ROAD_SINGLE);
	if (p->was_single && !m.single && t->away && !w->merging)
		split_road(ROAD_REMADE);
	p->was_single = m.single;
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		const struct split_sub *s = &w->subs[i];
		size_t page = gw_bitmap_next(&s->lost, 0, t->nr_pages, true);

		for (; page < t->nr_pages;
		     page = gw_bitmap_next(&s->lost, page + 1, t->nr_pages, true))
			if (gw_netpt_is_away(t, page) && !split_sub_is_at(s, page))
				split_road(ROAD_DROPPED);
	}
}

static void look_at_servers(struct split_pager *p)
{
	struct gw_split_stats stats;

	gw_split_stats(&p->split, &stats);
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		const struct gw_server *s = &p->servers[i];

		if (strstr(s->error, "not told of all"))
			split_road(ROAD_OVERRUN);
		if (s->lost)
			split_road(ROAD_ABSENT);
		if (s->up && p->was_down[i])
			split_road(ROAD_RECONNECTED);
		p->was_up[i] |= s->up;
		p->was_down[i] = p->was_up[i] && !s->up;
	}
	if (w->copies > 1)
		look_at_copies(p);
	if (stats.units_kept)
		split_road(ROAD_WRITTEN);
	if (stats.deferred)
		split_road(ROAD_DEFERRED);
	if (stats.ahead)
		split_road(ROAD_AHEAD);
}

static void keep(struct split_pager *p)
{
	while (!is_dead(p)) {
		fiber_wait(is_called, p, sim_now() + LOOK_NS);
		p->notified = false;
		if (sim_step(&p->process, "keep", 0))
			return;
		look_at_servers(p);
		change(p);
		evacuate(p);
		if (atomic_exchange(&p->split.retry, false) && !is_dead(p))
			split_wake(0, SIZE_MAX);
		lower_limit(p);
		if (w->merging) {
			p->split.limit = w->host->file.memory.nr_pages;
			p->all.merging = true;
			gw_servers_wake(&p->all);
		}
		gw_split_ask(&p->split);
		if (split_here() > aim())
			gw_servers_wake(&p->all);
		prepare(p);
		if (!w->merging || is_dead(p) || p->split.table.away)
			continue;
		if (gw_servers_finish(&p->all))
			return;
		split_road(ROAD_FINISHED);
	}
}

static void new_path(char path[64])
{
	snprintf(path, 64, "/dev/shm/godwit-sim_split.%d.%u", (int)getpid(), w->tables++);
}

static int open_table(struct split_pager *p, bool took_over)
{
	int rc;

	if (took_over)
		return gw_netpt_open(&p->split.table, w->table_path, &p->memory, w->id);
	new_path(p->table_path);
	rc = gw_netpt_create_for(&p->split.table, p->table_path, &p->memory, w->id, w->unit_pages,
				 w->copies);
	if (rc || p->from)
		return rc;
	memcpy(w->table_path, p->table_path, sizeof(w->table_path));
	return gw_netpt_open(&w->table, w->table_path, &p->memory, w->id);
}

static void make(struct split_pager *p, bool took_over)
{
	p->process.name = p->host == &w->hosts[0] ? "A" : "E";
	p->memory = p->host->file.memory;
	p->memory.ops = &split_memory_ops;
	p->split.ops = &split_ops;
	p->split.env = p;
	p->split.memory = &p->memory;
	p->split.pinned = w->pinned;
	p->split.moves = w->moves;
	p->split.frozen = w->carried || p->from;
	p->split.limit = p->memory.nr_pages;
	if (open_table(p, took_over) || gw_bitmap_init(&p->filled, p->split.table.units.nr) ||
	    gw_split_init(&p->split, 2 * w->nr_subs))
		abort();
	gw_bitmap_set_range(&p->filled, 0, p->split.table.units.nr);
	gw_split_in_init(&p->in, &p->split);
	p->all = (struct gw_servers){ .ops = &servers_ops,
				      .tasks = &tasks,
				      .env = p,
				      .name = "web1",
				      .host = p->process.name,
				      .split = &p->split,
				      .sink = &p->in.sink,
				      .options = { .compress = w->compress },
				      .missed_ns = w->missed_ns,
				      .servers = p->servers,
				      .nr = w->nr_subs,
				      .merging = w->merging,
				      .carried = p->split.frozen };
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		snprintf(p->servers[i].address, sizeof(p->servers[i].address), "%s",
			 w->subs[i].name);
		p->servers[i].size = w->sizes[i];
		p->servers[i].leaves = w->leaves[i];
		p->servers[i].gone = w->gone[i];
	}
}

/* All of it is here: the VM is like any other; or is split again, until its time has come. */
static void end_split(struct split_pager *p)
{
	gw_servers_dismiss(&p->all, sim_now() + DISMISS_NS);
	halt(p);
	w->at_park = SPLIT_UNSPLIT;
	if (sim_step(&p->process, "unsplit", 0))
		return;
	split_check();
	w->watched = false;
	w->merging = false;
	memset(w->leaves, 0, sizeof(w->leaves));
	memset(w->gone, 0, sizeof(w->gone));
	split_wake(0, SIZE_MAX);
	gw_netpt_close(&w->table);
	unlink(w->table_path);
	w->pager = NULL;
	if (w->steps > w->life) {
		w->over = true;
		return;
	}
	split_road(ROAD_MERGED);
	split_pager_start(false);
}

bool split_pager_thaw(struct split_pager *p)
{
	bool owes;

	if (p == w->pager)
		w->most_quiesced = UINT64_MAX;
	owes = gw_split_thaw(&p->split);
	if (p == w->pager)
		w->most_quiesced = split_here() + p->split.coming;
	return owes;
}

/* The guest runs here: the sub-hosts are this host's from here on. */
static void own_it(struct split_pager *p)
{
	if (!w->carried || sim_step(&p->process, "owns", 0))
		return;
	w->carried = false;
	if (!p->from)
		split_road(ROAD_CARRIED);
	if (sim_step(&p->process, "owned", 0))
		return;
	p->all.carried = false;
	gw_servers_compare(&p->all);
	if (split_pager_thaw(p))
		gw_servers_compare(&p->all);
}

void split_pager_end(struct split_pager *p)
{
	gw_servers_stop(&p->all);
	if (!is_dead(p) && p == w->pager)
		end_split(p);
	halt(p);
	gw_split_free(&p->split);
	gw_bitmap_free(&p->filled);
}

void split_pager_work(struct split_pager *p)
{
	for (unsigned int part = 0; part < SPLIT_LISTENERS && !is_dead(p); part++) {
		p->listeners++;
		fiber_new(&p->process, "faults", listen, p, part);
	}
	if (!is_dead(p)) {
		w->watched = true;
		split_wake(0, SIZE_MAX); /* what another was told */
		if (!p->all.started && gw_servers_start(&p->all))
			abort();
		own_it(p);
		split_mover_start(p);
		keep(p);
	}
	split_pager_end(p);
}

static void run(void *arg, unsigned int took_over)
{
	struct split_pager *p = arg;

	p->mending = took_over;
	if (took_over && gw_split_mend(&p->split) && !is_dead(p))
		split_pager_kill(); /* another tries */
	p->mending = false;
	if (took_over && !is_dead(p))
		split_road(ROAD_MENDED);
	split_pager_work(p);
}

static struct split_pager *new_pager(void)
{
	struct split_pager *p = calloc(1, sizeof(*p));

	if (!p || w->nr_pagers == SPLIT_PROCS)
		abort();
	w->pagers[w->nr_pagers++] = p;
	return p;
}

void split_pager_start(bool took_over)
{
	struct split_pager *p = new_pager();

	w->pager = p;
	p->host = w->host;
	if (!took_over) {
		w->merge_early = rng_one_in(&w->rng, 4);
		w->splits++;
		memcpy(w->id, &w->splits, sizeof(w->splits));
	}
	make(p, took_over);
	lower_limit(p);
	fiber_new(&p->process, "keeper", run, p, took_over);
}

/* What lay there the last time has gone with the one who left. */
static void empty(struct split_host *host)
{
	const struct gw_memory *m = &host->file.memory;

	for (unsigned int i = 0; i < m->nr_blocks; i++)
		if (gw_memory_punch(m, m->blocks[i].first_page, m->blocks[i].nr_pages))
			abort();
	gw_bitmap_zero(&host->protected);
}

struct split_pager *split_pager_arrives(void)
{
	struct split_pager *p = new_pager();

	p->from = w->pager;
	p->host = &w->hosts[w->host == &w->hosts[0]];
	empty(p->host);
	make(p, false);
	p->split.limit = w->target;
	return p;
}

static void follow(void *arg, unsigned int ms)
{
	(void)arg;
	fiber_sleep_until(sim_now() + (int64_t)ms * GW_MS);
	split_pager_start(true);
}

/* What is both here and away, and whether it was coming. */
static void note_torn(void)
{
	const struct gw_memory *m = &w->host->file.memory;
	size_t noted = 0, both = 0, came = 0;

	for (unsigned int i = 0; i < GW_NETPT_STRIPES; i++) {
		size_t first, n = gw_netpt_torn(&w->table, i, &first);

		noted += n;
		for (size_t page = first; page < first + n; page++)
			came += gw_netpt_is_away(&w->table, page) && split_in_file(page);
	}
	for (size_t page = 0; page < m->nr_pages; page++)
		both += gw_memory_block_of(m, page) && gw_netpt_is_away(&w->table, page) &&
			split_in_file(page);
	if (came)
		split_road(came < noted ? ROAD_TORN_PART : ROAD_TORN_CAME);
	if (both > came)
		split_road(ROAD_TORN_LEFT);
}

/* The table as it is now is the next one's. */
static void copy_table(void)
{
	char was[sizeof(w->table_path)];
	gw_autofree char *bytes = NULL;
	gw_autofd int fd = -1;
	size_t len = 0;

	memcpy(was, w->table_path, sizeof(was));
	bytes = gw_read_file(was, 1 << 20, &len);
	new_path(w->table_path);
	fd = open(w->table_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (!bytes || fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		abort();
	unlink(was);
	gw_netpt_close(&w->table);
	if (gw_netpt_open(&w->table, w->table_path, &w->host->file.memory, w->id))
		abort();
}

void split_pager_kill(void)
{
	struct split_pager *p = w->pager;

	if (!p || is_dead(p))
		return;
	if (p->mending)
		split_road(ROAD_MEND_DIED);
	if (w->merging)
		split_road(ROAD_MERGE_DIED);
	if (p->moving && w->quiesced)
		split_road(ROAD_MOVER_DIED);
	for (unsigned int i = 0; i < w->nr_subs; i++)
		if (w->leaves[i])
			split_road(ROAD_PART_DIED);
	p->process.dead = true;
	p->process.stopped_until = 0;
	net_leave(&p->process);
	note_torn();
	copy_table();
	w->pager = w->next = NULL;
	/* Who stopped the guest has it go on, or his successor does. */
	w->quiesced = false;
	fiber_new(&w->daemon, "follows", follow, NULL, (unsigned int)rng_below(&w->rng, 50));
}
