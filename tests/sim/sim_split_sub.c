// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split_sub.c - a sub-host: a memory server as worker_hold.c runs it, on files of a tmpfs that
 * outlive it; see sim_split.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "sim_split.h"

static struct sim_split *const w = &sim_split;

static void unmap(struct split_sub *s)
{
	for (unsigned int i = 0; s->store && i < s->store->ram.memory.nr_blocks; i++)
		munmap(s->maps[i], s->store->ram.memory.blocks[i].size);
	s->store = NULL;
}

/* Whoever is dead may still have the one before open. */
static int open_store(struct split_sub *s, const struct gw_hold *hold)
{
	struct gw_memstore *store = calloc(1, sizeof(*store));
	int rc;

	if (!store || w->nr_stores == SPLIT_PROCS)
		abort();
	w->stores[w->nr_stores++] = store;
	rc = gw_memstore_open(store, s->folder, hold);
	if (rc)
		return rc;
	unmap(s);
	s->store = store;
	for (unsigned int i = 0; i < store->ram.memory.nr_blocks; i++) {
		s->maps[i] = mmap(NULL, store->ram.memory.blocks[i].size, PROT_READ, MAP_SHARED,
				  store->ram.files[i].fd, 0);
		if (s->maps[i] == MAP_FAILED)
			abort();
	}
	return 0;
}

static int64_t op_now(void *env)
{
	(void)env;
	return sim_now();
}

static int op_hold(void *env, const struct gw_hold *hold, struct gw_memstore **store)
{
	struct split_server *v = env;
	int rc = sim_step(&v->process, "hold", STEP_FAILS);

	if (!rc && !v->serve.store)
		rc = open_store(v->sub, hold);
	if (rc)
		return rc;
	v->sub->promised = hold->size / GW_PAGE_SIZE;
	v->sub->dismissed = false;
	v->sub->was_full = v->sub->full;
	gw_memstore_resize(v->sub->store, hold->size);
	split_sub_fill_up(v->sub, v->sub->full);
	*store = v->sub->store;
	return 0;
}

static const struct gw_memserve_ops ops = { .now = op_now, .hold = op_hold };

static void talk(void *arg, unsigned int i)
{
	struct split_server *v = arg;
	int rc = 0;

	if (i == GW_MEMORY_REQUESTS) {
		rc = gw_memserve_begin(&v->serve, v->conns[i]);
		v->compared = !rc;
		if (!rc)
			rc = gw_memserve_requests(&v->serve, v->conns[i]);
		v->dismissed = rc == GW_MEMSERVE_DISMISSED;
	} else {
		rc = gw_memserve_bulk(&v->serve, v->conns[i]);
		sim_check(rc != -ENOSPC || v->sub->was_full || v->process.dead,
			  "memory server %s was sent more than it has promised", v->sub->name);
		if (rc == -ENOSPC)
			split_road(ROAD_ENOSPC);
	}
	v->running[i] = false;
}

static bool is_silent(void *arg, int64_t *when)
{
	const struct split_server *v = arg;

	(void)when;
	return !v->running[0] && !v->running[1];
}

static void join(struct split_server *v)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		if (v->conns[i] && !(v->dismissed && i == GW_MEMORY_REQUESTS))
			v->conns[i]->ops->shutdown(v->conns[i]);
	while (!is_silent(v, NULL))
		fiber_wait(is_silent, v, GW_FOREVER);
}

static void close_all(struct split_server *v)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&v->conns[i]);
	gw_memserve_free(&v->serve);
	v->compared = v->dismissed = false;
}

static void end_session(struct split_server *v)
{
	if (v->conns[GW_MEMORY_REQUESTS])
		join(v);
	close_all(v);
}

static void start(struct split_server *v, unsigned int i)
{
	v->conns[i] = v->next[i];
	v->next[i] = NULL;
	v->running[i] = true;
	fiber_new(&v->process, i ? "bulk" : "requests", talk, v, i);
}

static void remove_files(struct split_sub *s)
{
	for (unsigned int i = 0; i < w->host->file.memory.nr_blocks; i++) {
		gw_autofree char *path = gw_path("%s/%s", s->folder,
						 w->host->file.memory.blocks[i].id);

		unlink(path);
	}
	unmap(s);
}

static void remove_all(struct split_server *v)
{
	join(v);
	if (!sim_step(&v->process, "remove", 0)) {
		if (v->sub->dismissed_of == w->splits)
			split_road(ROAD_DISMISSED);
		v->sub->dismissed_of = w->splits;
		remove_files(v->sub);
		v->sub->dismissed = true;
		gw_memserve_dismissed(v->conns[GW_MEMORY_REQUESTS]);
	}
	close_all(v);
}

static bool has_news(void *arg, int64_t *when)
{
	const struct split_server *v = arg;

	(void)when;
	return v->process.dead || w->over || v->next[GW_MEMORY_REQUESTS] || v->dismissed ||
	       (v->compared && v->next[GW_MEMORY_BULK] && !v->conns[GW_MEMORY_BULK]) ||
	       (v->conns[GW_MEMORY_REQUESTS] && !v->running[GW_MEMORY_REQUESTS]) ||
	       (v->conns[GW_MEMORY_BULK] && !v->running[GW_MEMORY_BULK]);
}

static void keep(void *arg, unsigned int i)
{
	struct split_server *v = arg;

	(void)i;
	while (!v->process.dead && !w->over) {
		if (v->next[GW_MEMORY_REQUESTS]) {
			end_session(v);
			gw_memserve_init(&v->serve, &ops, v, v->sub->name);
			if (v->next[GW_MEMORY_REQUESTS])
				start(v, GW_MEMORY_REQUESTS);
		}
		if (v->compared && v->next[GW_MEMORY_BULK] && !v->conns[GW_MEMORY_BULK])
			start(v, GW_MEMORY_BULK);
		if (v->dismissed)
			remove_all(v);
		else if ((v->conns[GW_MEMORY_REQUESTS] && !v->running[GW_MEMORY_REQUESTS]) ||
			 (v->conns[GW_MEMORY_BULK] && !v->running[GW_MEMORY_BULK]))
			end_session(v);
		if (!has_news(v, NULL))
			fiber_wait(has_news, v, GW_FOREVER);
	}
	v->dismissed = false;
	end_session(v);
	for (unsigned int k = 0; k < GW_MEMORY_CONNECTIONS; k++)
		gw_transport_close(&v->next[k]);
}

void split_sub_call(struct split_server *v, unsigned int index, struct gw_transport *t)
{
	if (v->process.dead || w->over) {
		gw_transport_close(&t);
		return;
	}
	gw_transport_close(&v->next[index]);
	/* A new first one is of a new session. */
	if (index == GW_MEMORY_REQUESTS)
		gw_transport_close(&v->next[GW_MEMORY_BULK]);
	v->next[index] = t;
}

void split_sub_start(struct split_sub *s)
{
	struct split_server *v = calloc(1, sizeof(*v));

	if (!v || w->nr_servers == SPLIT_PROCS)
		abort();
	w->servers[w->nr_servers++] = v;
	v->process.name = s->name;
	v->sub = s;
	s->server = v;
	gw_memserve_init(&v->serve, &ops, v, s->name);
	fiber_new(&v->process, "server", keep, v, 0);
}

void split_sub_kill(struct split_sub *s)
{
	if (!s->server)
		return;
	s->server->process.dead = true;
	s->server->process.stopped_until = 0;
	net_leave(&s->server->process);
	s->server = NULL;
}

bool split_sub_has(const struct split_sub *s, size_t page, uint64_t version)
{
	const struct gw_memory *m = s->store ? &s->store->ram.memory : NULL;
	const struct gw_memory_block *b = m ? gw_memory_block_of(m, page) : NULL;

	return b && gw_memstore_has(s->store, page) &&
	       split_seems(s->maps[b - m->blocks] + (page - b->first_page) * GW_PAGE_SIZE, page,
			   version);
}

void split_sub_fill_up(struct split_sub *s, bool full)
{
	s->full = full;
	s->was_full |= full;
	if (s->store)
		s->store->most = full ? s->store->pages : s->promised;
}

bool split_sub_is_at(const struct split_sub *s, size_t page)
{
	const int slot = gw_netpt_slot(&w->table, gw_unit_of(&w->table.units, page), s->index);

	return slot >= 0 && gw_netpt_copies(&w->table, page) & 1U << slot;
}

static bool loses(void)
{
	return w->copies > 1 ? rng_one_in(&w->replicas, 2) : rng_one_in(&w->rng, 20);
}

bool split_sub_is_spare(const struct split_sub *s)
{
	const struct gw_memory *m = &w->host->file.memory;

	for (size_t page = 0; w->table.head && page < m->nr_pages; page++) {
		bool elsewhere = false;

		if (!gw_memory_block_of(m, page) || !gw_netpt_is_away(&w->table, page) ||
		    !split_sub_is_at(s, page))
			continue;
		for (unsigned int i = 0; i < w->nr_subs; i++)
			elsewhere = elsewhere || (i != s->index && !w->subs[i].dead &&
						  split_sub_is_at(&w->subs[i], page) &&
						  split_sub_has(&w->subs[i], page, w->must[page]));
		if (!elsewhere)
			return false;
	}
	return true;
}

void split_sub_die(struct split_sub *s)
{
	split_sub_kill(s);
	remove_files(s);
	gw_bitmap_zero(&s->lost);
	s->dead = true;
	split_road(ROAD_GONE);
}

/* Two copies are worth nothing to who loses both, for a while or for ever. */
static bool is_last(const struct split_sub *s, size_t page)
{
	bool dead = false;

	for (unsigned int i = 0; i < w->nr_subs; i++)
		dead = dead || (w->subs[i].dead && split_sub_is_at(&w->subs[i], page));
	return dead && split_sub_is_at(s, page);
}

void split_sub_lose(struct split_sub *s)
{
	for (size_t page = 0; s->store && page < w->host->file.memory.nr_pages; page++) {
		if (!gw_memory_block_of(&w->host->file.memory, page) ||
		    !gw_netpt_is_away(&w->table, page) || split_in_file(page) ||
		    !split_sub_is_at(s, page) || is_last(s, page) || !loses())
			continue;
		gw_bitmap_set(&s->lost, page);
		if (gw_memstore_release(s->store, page, 1))
			abort();
	}
}

void split_sub_find(struct split_sub *s)
{
	const size_t nr = w->host->file.memory.nr_pages;
	uint8_t bytes[GW_PAGE_SIZE];
	bool any = false;

	for (size_t page = gw_bitmap_next(&s->lost, 0, nr, true); page < nr;
	     page = gw_bitmap_next(&s->lost, page + 1, nr, true)) {
		gw_bitmap_clear(&s->lost, page);
		/* Another had it, and so it is not looked for here any more. */
		if (w->copies > 1 &&
		    (!gw_netpt_is_away(&w->table, page) || split_in_file(page) ||
		     !split_sub_is_at(s, page) || split_sub_has(s, page, w->must[page])))
			continue;
		any = true;
		split_fill(bytes, page, w->must[page]);
		sim_check(gw_netpt_is_away(&w->table, page) && !split_in_file(page),
			  "page %zu, which was lost, has come", page);
		s->store->most = SIZE_MAX;
		if (gw_memstore_put(s->store, page, 1, bytes))
			abort();
	}
	if (any)
		split_road(ROAD_FOUND);
	split_sub_fill_up(s, s->full);
}

void split_sub_init(unsigned int index)
{
	struct split_sub *s = &w->subs[index];

	memset(s, 0, sizeof(*s));
	s->index = index;
	snprintf(s->name, sizeof(s->name), "%c", 'B' + (char)index);
	snprintf(s->folder, sizeof(s->folder), "/dev/shm/godwit-sim_split.%d", (int)getpid());
	if (mkdir(s->folder, 0700) && errno != EEXIST)
		abort();
	snprintf(s->folder, sizeof(s->folder), "/dev/shm/godwit-sim_split.%d/%c", (int)getpid(),
		 'B' + (char)index);
	if (gw_bitmap_init(&s->lost, w->host->file.memory.nr_pages))
		abort();
	split_sub_start(s);
}

void split_sub_remove(struct split_sub *s)
{
	remove_files(s);
	rmdir(s->folder);
}
