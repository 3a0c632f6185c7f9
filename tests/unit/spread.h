/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spread.h - a source that moves to a main host and two memory servers, all in this process: the
 * servers and what the main host hears are real, the guest is a file, and its tracker says what
 * the test wants.
 */
#ifndef TEST_SPREAD_H
#define TEST_SPREAD_H

#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "away.h"
#include "clock.h"
#include "feature.h"
#include "internal.h"
#include "ram.h"
#include "serve.h"

#define SUBS	     2U
#define UNIT	     256U
#define UNITS	     6UL
/* Two blocks: four units, and one and a half. */
#define FIRST_PAGES  (4 * UNIT)
#define SECOND_PAGES (UNIT + UNIT / 2)
#define PAGES	     (UNITS * UNIT)

struct server {
	struct gw_memserve serve;
	struct gw_memstore store;
	bool open;
	char *folder;
	struct gw_transport *conns[GW_MEMORY_CONNECTIONS];
	pthread_t threads[GW_MEMORY_CONNECTIONS];
	unsigned int nr;
	sem_t compared;
	int begun;
	const char *refuses;
	bool silent; /* its bulk connection is the test's: conns[1] */
};

struct world {
	struct gw_source s;
	struct gw_source_ops ops;
	struct gw_tracker tracker;
	struct gw_tracker_ops tracker_ops;
	struct gw_spread spread;
	struct gw_ram ram, main_ram;
	struct gw_bitmap rewritten; /* since the scan */
	json_t *definition;
	struct server servers[SUBS];
	struct gw_dest d;
	struct gw_netpt table;
	char path[96];
	uint8_t history[UNITS];
};

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static void op_report(void *env)
{
	(void)env;
}

static int server_hold(void *env, const struct gw_hold *hold, struct gw_memstore **store)
{
	struct server *v = env;
	int rc = 0;

	if (v->refuses)
		return gw_fail(-ENOMEM, "%s", v->refuses);
	if (!v->open)
		rc = gw_memstore_open(&v->store, v->folder, hold);
	v->open = true;
	gw_memstore_resize(&v->store, hold->size);
	*store = &v->store;
	return rc;
}

static const struct gw_memserve_ops server_ops = { .now = op_now, .hold = server_hold };

static void *server_requests(void *arg)
{
	struct server *v = arg;
	int rc;

	v->begun = gw_memserve_begin(&v->serve, v->conns[0]);
	sem_post(&v->compared);
	rc = v->begun ? v->begun : gw_memserve_requests(&v->serve, v->conns[0]);
	if (rc == GW_MEMSERVE_DISMISSED) {
		gw_memstore_release(&v->store, 0, v->store.ram.memory.nr_pages);
		gw_memserve_dismissed(v->conns[0]);
	}
	return NULL;
}

static void *server_bulk(void *arg)
{
	struct server *v = arg;

	while (sem_wait(&v->compared))
		;
	if (!v->begun && !v->silent)
		gw_memserve_bulk(&v->serve, v->conns[1]);
	return NULL;
}

static inline void server_end(struct server *v)
{
	for (unsigned int i = 0; i < v->nr; i++)
		v->conns[i]->ops->shutdown(v->conns[i]);
	for (unsigned int i = 0; i < v->nr; i++)
		pthread_join(v->threads[i], NULL);
	for (unsigned int i = 0; i < v->nr; i++)
		gw_transport_close(&v->conns[i]);
	while (!sem_trywait(&v->compared))
		;
	v->nr = 0;
}

static inline void pair(struct gw_transport **one, struct gw_transport **other)
{
	int socks[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	*one = gw_tcp_adopt(socks[0]);
	*other = gw_tcp_adopt(socks[1]);
	assert_true(*one && *other);
}

static struct gw_transport *op_sub_connect(void *env, unsigned int sub, unsigned int index,
					   int64_t deadline)
{
	struct server *v = &((struct world *)env)->servers[sub];
	struct gw_transport *t;

	(void)deadline;
	if (!index)
		server_end(v); /* as a daemon does, which hands the new one on */
	assert_int_equal(v->nr, index);
	pair(&v->conns[index], &t);
	assert_int_equal(
		pthread_create(&v->threads[index], NULL, index ? server_bulk : server_requests, v),
		0);
	v->nr = index + 1;
	return t;
}

static int op_peek(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *written)
{
	const struct world *w = (struct world *)((char *)t - offsetof(struct world, tracker));

	for (size_t page = first; page < first + count; page++)
		if (gw_bitmap_test(&w->rewritten, page))
			gw_bitmap_set(written, page);
	return 0;
}

/* Unit 1 was used most, unit 4 a little. */
static int op_history(void *env, struct gw_ageing *ageing)
{
	(void)env;
	gw_ageing_touch(ageing, 4UL * UNIT, 1);
	gw_ageing_shift(ageing);
	gw_ageing_touch(ageing, 1UL * UNIT + 3, 1);
	return 0;
}

static inline void make_ram(struct gw_ram *ram)
{
	static const size_t pages[] = { FIRST_PAGES, SECOND_PAGES };
	static const char *const ids[] = { "more", "ram" };

	for (unsigned int i = 0; i < 2; i++) {
		const int fd = memfd_create(ids[i], MFD_CLOEXEC);

		assert_true(fd >= 0 && !ftruncate(fd, (off_t)(pages[i] * GW_PAGE_SIZE)));
		assert_int_equal(gw_ram_add(ram, ids[i], fd, pages[i] * GW_PAGE_SIZE, 0), 0);
	}
}

static inline bool is_memory(size_t page)
{
	return page < FIRST_PAGES + SECOND_PAGES;
}

/* The guest writes into @page; 0: zeros. */
static inline void write_page(struct world *w, size_t page, uint64_t value)
{
	uint64_t bytes[GW_PAGE_SIZE / sizeof(uint64_t)];

	for (size_t i = 0; i < GW_ARRAY_SIZE(bytes); i++)
		bytes[i] = value ? value * (i + 1) : 0;
	assert_int_equal(gw_memory_write(&w->ram.memory, page, 1, bytes), 0);
	gw_bitmap_set(&w->s.due, page);
}

static const struct gw_dest_ops main_ops = { .now = op_now };

static inline int world_make(void **state)
{
	static const uint8_t id[GW_ID_LEN] = { 7 };
	struct world *w = calloc(1, sizeof(*w));
	struct gw_source *s = &w->s;

	*state = w;
	make_ram(&w->ram);
	make_ram(&w->main_ram);
	w->ops = (struct gw_source_ops){ .now = op_now,
					 .report = op_report,
					 .sub_connect = op_sub_connect,
					 .history = op_history };
	w->tracker_ops.peek = op_peek;
	w->tracker.ops = &w->tracker_ops;
	w->definition = json_pack("{s:s}", "name", "web1");
	s->ops = &w->ops;
	s->env = w;
	s->memory = &w->ram.memory;
	s->definition = w->definition;
	s->tracker = &w->tracker;
	s->ran = true;
	s->params.streams = 1;
	s->params.pages = (struct gw_page_options){ .hash = GW_HASH_XXH3,
						    .compress = GW_COMPRESS_LZ4 };
	s->holder.features = GW_FEATURES_ALL;
	s->holder.stages = gw_stages_read();
	s->holder.ops = s->ops;
	s->holder.env = w;
	s->spread = &w->spread;
	w->spread.unit_pages = UNIT;
	w->spread.main_memory = 2 * UNIT * GW_PAGE_SIZE;
	w->spread.stay = 2UL * UNIT;
	w->spread.nr = SUBS;
	for (unsigned int i = 0; i < SUBS; i++) {
		struct server *v = &w->servers[i];

		sem_init(&v->compared, 0, 0);
		assert_int_equal(unit_folder((void **)&v->folder), 0);
		gw_memserve_init(&v->serve, &server_ops, v, i ? "C" : "B");
		snprintf(w->spread.subs[i].address, GW_ADDRESS_MAX, "sub%u:1", i);
		w->spread.subs[i].size = (i + 1UL) * 2 * UNIT * GW_PAGE_SIZE;
	}
	snprintf(w->path, sizeof(w->path), "/tmp/gw-netpt-spread-%d", getpid());
	w->d.ops = &main_ops;
	w->d.memory = &w->main_ram.memory;
	w->d.split.table = &w->table;
	w->d.split.nr = SUBS;
	w->d.split.history = w->history;
	w->d.split.main_memory = w->spread.main_memory;
	for (unsigned int i = 0; i < SUBS; i++)
		w->d.split.size[i] = w->spread.subs[i].size;
	pair(&s->holder.control, &w->d.control);
	return gw_netpt_create(&w->table, w->path, &w->main_ram.memory, id, UNIT) ||
	       gw_bitmap_init(&s->due, PAGES) || gw_bitmap_init(&s->again, PAGES) ||
	       gw_bitmap_init(&w->rewritten, PAGES) || gw_holes_open(&s->holes, s->memory, false) ||
	       gw_round_start(s);
}

static inline int world_drop(void **state)
{
	struct world *w = *state;

	gw_spread_free(&w->spread);
	gw_round_stop(&w->s);
	gw_holes_close(w->s.holes);
	gw_transport_close(&w->s.holder.control);
	gw_transport_close(&w->d.control);
	gw_frame_free(&w->d.inbox);
	for (unsigned int i = 0; i < SUBS; i++) {
		struct server *v = &w->servers[i];

		server_end(v);
		gw_memserve_free(&v->serve);
		if (v->open)
			gw_memstore_close(&v->store);
		assert_int_equal(unit_folder_remove((void **)&v->folder), 0);
		sem_destroy(&v->compared);
	}
	gw_netpt_close(&w->table);
	unlink(w->path);
	gw_bitmap_free(&w->s.due);
	gw_bitmap_free(&w->s.again);
	gw_bitmap_free(&w->rewritten);
	gw_ram_close(&w->ram);
	gw_ram_close(&w->main_ram);
	json_decref(w->definition);
	free(w);
	return 0;
}

#define world_test(fn) cmocka_unit_test_setup_teardown(fn, world_make, world_drop)

#endif
