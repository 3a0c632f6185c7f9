// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split_move.c - a split guest moves to another main host, and its sub-hosts keep what they
 * have: what carry.c does around source/carried.h, and dest_split.c around dest/away.h, both of
 * them real; see sim_split.h.
 *
 *   source    rounds; stop, freeze, last round, leave (AWAY_END), LOAD    commit ──> it is gone
 *   there     AWAY ... sealed; pages, as another's still; LOADED          owns it, and goes on
 *
 * Pages travel by magic: each is written there as it was read here. Whether the guest runs here or
 * there is decided in one step; who is in doubt is tried in sim.c. Whatever fails before that, or
 * nothing does, and the source has thought better of it: it goes on here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "frame.h"
#include "sim_split.h"

#include "source.h"

#include "../../src/dest/away.h" /* there is one of sim.c's, too */
#include "changes.h"
#include "feature.h"

#define MOVES_MOST 4
#define TRIES_MOST 12
#define STOP_NS	   (2 * GW_S)
#define ANSWER_NS  (5 * GW_S)
#define TOUCH_NS   (300 * GW_MS)
#define PART	   128UL /* pages that are looked at in one go */

static struct sim_split *const w = &sim_split;

struct move {
	struct split_pager *p, *there;
	struct gw_source s;
	struct gw_carried carried;
	struct gw_batch batch;
	uint8_t history[SPLIT_PAGES];
};

static unsigned int draw(unsigned int below)
{
	return (unsigned int)rng_below(&w->movers, below);
}

static bool is_dead(const struct split_pager *p)
{
	return p->process.dead;
}

static bool are_up(const struct split_pager *p)
{
	for (unsigned int i = 0; i < w->nr_subs; i++)
		if (!p->servers[i].gone && !p->servers[i].up)
			return false;
	return true;
}

static int check_servers(const struct split_pager *p)
{
	for (unsigned int i = 0; i < w->nr_subs; i++)
		if (gw_bitmap_count(&w->subs[i].lost, 0, p->memory.nr_pages))
			return gw_fail(-EIO, "one has lost pages");
	return are_up(p) ? 0 : gw_fail(-EHOSTUNREACH, "one is not there");
}

/* What source/carried.h asks for. */

static int op_freeze(void *env)
{
	struct move *m = env;
	int rc = check_servers(m->p);

	gw_split_freeze(&m->p->split);
	return rc;
}

static int op_leave(void *env)
{
	struct move *m = env;
	int rc = check_servers(m->p);

	if (rc)
		return rc;
	gw_servers_stop(&m->p->all);
	m->p->let_go = !is_dead(m->p);
	return 0;
}

static void op_thaw(void *env)
{
	struct move *m = env;
	struct split_pager *p = m->p;
	const bool owes = split_pager_thaw(p), let_go = p->let_go;

	p->let_go = false;
	if (is_dead(p))
		return;
	if (let_go && gw_servers_start(&p->all))
		abort();
	if (owes && !let_go)
		gw_servers_compare(&p->all);
	if (let_go)
		split_road(ROAD_LET_GO);
	if (owes)
		split_road(ROAD_CAME_FROZEN);
}

static const struct gw_source_ops source_ops = {
	.carried_freeze = op_freeze,
	.carried_leave = op_leave,
	.carried_thaw = op_thaw,
};

/* Rounds. */

static int scan(struct move *m)
{
	int rc = 0;

	for (size_t first = 0; !rc && first < m->p->memory.nr_pages; first += PART) {
		rc = gw_changes_take(&m->p->split, first, PART, &m->s.due);
		if (!rc)
			gw_carried_due(&m->s, first, PART);
	}
	return rc;
}

static int copy(struct move *m)
{
	struct gw_batch *b = &m->batch;
	unsigned int at = 0, first, count;
	int rc = 0;

	while (!rc && (count = gw_pageset_run(&b->left, &at, &first))) {
		for (unsigned int n; !rc && count; first += n, count -= n) {
			n = 1 + draw(24);
			n = n < count ? n : count;
			rc = gw_memory_read(&m->p->memory, b->chunk * GW_CHUNK_PAGES + first, n,
					    b->bytes + first * GW_PAGE_SIZE);
		}
	}
	return rc;
}

static void arrives(const struct move *m, size_t page, const uint8_t *bytes)
{
	const struct gw_memory *there = &m->there->host->file.memory;

	if (gw_page_is_zero(bytes) ? gw_memory_punch(there, page, 1)
				   : gw_memory_write(there, page, 1, bytes))
		abort();
}

static int send_chunk(struct move *m, size_t chunk)
{
	const size_t base = chunk * GW_CHUNK_PAGES, nr = m->p->memory.nr_pages;
	struct gw_batch *b = &m->batch;
	int rc;

	b->chunk = chunk;
	memset(&b->left, 0, sizeof(b->left));
	for (unsigned int i = 0; i < GW_CHUNK_PAGES && base + i < nr; i++)
		if (gw_bitmap_test(&m->s.due, base + i))
			gw_pageset_set(&b->left, i);
	rc = copy(m);
	if (rc)
		return rc;
	gw_carried_hide(&m->s, b);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&b->left, i))
			continue;
		gw_bitmap_clear(&m->s.due, base + i);
		arrives(m, base + i, b->bytes + i * GW_PAGE_SIZE);
	}
	return 0;
}

static int send_due(struct move *m)
{
	int rc = 0;

	for (size_t chunk = 0; !rc && chunk * GW_CHUNK_PAGES < m->p->memory.nr_pages; chunk++)
		rc = send_chunk(m, chunk);
	return rc;
}

/* The guest runs, and is told of between two of them. */
static int send_rounds(struct move *m)
{
	const struct gw_memory *memory = &m->p->memory;
	int rc = gw_carried_open(&m->s);

	if (!rc)
		rc = gw_changes_begin(&m->p->split);
	for (unsigned int i = 0; i < memory->nr_blocks; i++)
		gw_bitmap_set_range(&m->s.due, memory->blocks[i].first_page,
				    memory->blocks[i].nr_pages);
	for (unsigned int n = 1 + draw(3); !rc && n; n--) {
		rc = send_due(m);
		if (!rc)
			rc = gw_carried_tell(&m->s);
		fiber_sleep_until(sim_now() + (int64_t)draw(20) * GW_MS);
		if (!rc && n > 1)
			rc = scan(m);
	}
	return rc;
}

static bool stands_still(void *arg, int64_t *when)
{
	bool is = true;

	(void)when;
	for (unsigned int i = 0; i < SPLIT_CPUS; i++)
		is = is && w->cpu[i].state == SPLIT_RUNS;
	return is || is_dead(arg);
}

static int stop_guest(struct move *m)
{
	int rc = sim_step(&m->p->process, "stop", 0);

	if (rc)
		return rc;
	w->quiesced = true;
	if (!stands_still(m->p, NULL))
		fiber_wait(stands_still, m->p, sim_now() + STOP_NS);
	return !is_dead(m->p) && stands_still(m->p, NULL) ? 0 : gw_fail(-ETIME, "it runs on");
}

/* From the guest's stop until all is there, and the other has said so. */
static int hand_over(struct move *m)
{
	struct gw_frame f = { 0 };
	int rc = stop_guest(m);

	if (!rc)
		rc = gw_carried_freeze(&m->s);
	if (!rc)
		rc = scan(m);
	if (!rc)
		rc = send_due(m);
	if (!rc && !draw(5))
		rc = gw_fail(-ECANCELED, "cancelled");
	if (!rc)
		rc = gw_carried_leave(&m->s);
	if (!rc)
		rc = gw_frame_send(m->s.holder.control, GW_MSG_LOAD, 0, NULL, 0);
	if (!rc)
		rc = gw_frame_recv(m->s.holder.control, &f, sim_now() + ANSWER_NS);
	if (!rc && f.type != GW_MSG_LOADED)
		rc = -EPROTO;
	if (!rc && !draw(4))
		rc = gw_fail(-ECANCELED, "cancelled");
	gw_frame_free(&f);
	return rc;
}

/* From here on it runs there, and nobody of those here does anything any more. */
static int commit(struct move *m)
{
	struct split_pager *there = m->there;
	int rc = sim_step(&m->p->process, "commit", 0);

	if (rc)
		return rc;
	if (w->next != there)
		return gw_fail(-EPIPE, "it has ended there");
	split_check();
	m->p->process.dead = true;
	net_leave(&m->p->process);
	gw_netpt_close(&w->table);
	unlink(w->table_path);
	memcpy(w->table_path, there->table_path, sizeof(w->table_path));
	if (gw_netpt_open(&w->table, w->table_path, &w->host->file.memory, w->id))
		abort();
	w->pager = there;
	w->host = there->host;
	w->arrives = w->next = NULL;
	w->carried = true;
	w->quiesced = false;
	w->most_quiesced = split_here() + there->split.coming;
	w->moved++;
	split_road(ROAD_MOVED);
	if (w->copies > 1)
		split_road(ROAD_MOVED_TWICE);
	return 0;
}

/* There. */

static int heed(struct gw_dest *d, struct split_pager *p, bool *loads)
{
	const struct split_pager *from = p->from;
	int rc;

	if (sim_step(&p->process, "heeds", 0))
		return -ESHUTDOWN;
	switch (d->inbox.type) {
	case GW_MSG_HISTORY:
		return gw_away_history(d);
	case GW_MSG_AWAY:
	case GW_MSG_AWAY_END:
		rc = gw_away_heed(d);
		break;
	case GW_MSG_LOAD:
		*loads = true;
		return d->split.sealed ? 0 : gw_fail(-EPROTO, "not all is known");
	default:
		return gw_fail(-EPROTO, "a %s", gw_message_name(d->inbox.type));
	}
	sim_check(!rc || w->pager != from, "what was told cannot be: %s", gw_error());
	/* Its source may have thought better of it since. */
	if (!rc && d->split.sealed && w->pager == from && from->let_go)
		w->next = p;
	if (d->split.sealed && d->split.table->single)
		split_road(ROAD_TOLD_SINGLE);
	split_check();
	return rc;
}

struct waits {
	const struct split_pager *p;
	size_t page;
};

static bool is_here(void *arg, int64_t *when)
{
	const struct waits *v = arg;

	(void)when;
	return is_dead(v->p) || !gw_netpt_is_away(&v->p->split.table, v->page);
}

/* QEMU loads its devices' state, and reads and writes the guest's memory. */
static void load(struct split_pager *p)
{
	for (unsigned int n = draw(8); n && !is_dead(p); n--) {
		struct gw_fault fault = { .vcpu = GW_NO_VCPU };
		struct waits v = { .p = p };
		bool was;

		do
			fault.page = draw((unsigned int)p->memory.nr_pages);
		while (!gw_memory_block_of(&p->memory, fault.page));
		was = gw_netpt_is_away(&p->split.table, fault.page);
		if (!draw(3))
			fiber_sleep_until(sim_now() + (int64_t)draw(300) * GW_MS);
		gw_split_fault(&p->split, &fault, 1);
		v.page = fault.page;
		if (!is_here(&v, NULL))
			fiber_wait(is_here, &v, sim_now() + TOUCH_NS);
		/* They are called once more, as when what connects them is lost. */
		if (!draw(4))
			gw_servers_compare(&p->all);
		if (was && w->next == p && !gw_netpt_is_away(&p->split.table, fault.page))
			split_road(ROAD_CAME_THERE);
	}
}

static void arrive(void *arg, unsigned int i)
{
	struct split_pager *p = arg;
	struct gw_dest *d = calloc(1, sizeof(*d));
	uint8_t history[SPLIT_PAGES];
	bool loads = false;
	int rc = 0;

	(void)i;
	if (!d)
		abort();
	d->memory = &p->memory;
	d->split = (struct gw_dest_split){
		.table = &p->split.table, .nr = w->nr_subs, .history = history, .carried = true
	};
	for (unsigned int k = 0; k < w->nr_subs; k++)
		d->split.size[k] = w->gone[k] ? 0 : w->sizes[k];
	while (!rc && !loads) {
		rc = gw_frame_recv(p->control, &d->inbox, GW_FOREVER);
		if (!rc)
			rc = heed(d, p, &loads);
	}
	if (!rc && gw_servers_start(&p->all))
		abort();
	if (!rc)
		load(p);
	if (!rc)
		rc = gw_frame_send(p->control, GW_MSG_LOADED, 0, NULL, 0);
	/* Either it is the owner now, or nobody wants it. */
	while (!rc)
		rc = gw_frame_recv(p->control, &d->inbox, GW_FOREVER);
	gw_frame_free(&d->inbox);
	gw_transport_close(&p->control);
	free(d);
	if (w->pager == p) {
		split_pager_work(p);
		return;
	}
	split_pager_end(p);
	if (w->arrives == p)
		w->arrives = NULL;
	unlink(p->table_path);
}

void split_arrival_kill(void)
{
	struct split_pager *p = w->arrives;

	if (!p || is_dead(p))
		return;
	if (w->next == p)
		split_road(ROAD_THERE_DIED);
	w->next = NULL;
	p->process.dead = true;
	p->process.stopped_until = 0;
	net_leave(&p->process);
}

/* Who moves it. */

static bool may_move(const struct split_pager *p)
{
	bool may = w->pager == p && !w->merging && !w->arrives && !w->carried && are_up(p) &&
		   w->steps < w->life && w->moved < MOVES_MOST && w->tries < TRIES_MOST;

	for (unsigned int i = 0; i < w->nr_subs; i++)
		may = may && !w->leaves[i];
	return may;
}

static struct move *move_new(struct split_pager *p)
{
	struct move *m = calloc(1, sizeof(*m));
	struct gw_carried *c;

	if (!m)
		abort();
	m->p = p;
	m->batch.bytes = malloc(GW_CHUNK_PAGES * GW_PAGE_SIZE);
	if (!m->batch.bytes || gw_bitmap_init(&m->s.due, p->memory.nr_pages))
		abort();
	m->s.ops = &source_ops;
	m->s.env = m;
	m->s.memory = &p->memory;
	m->s.carried = c = &m->carried;
	m->s.holder.features = GW_FEATURES_ALL;
	m->s.holder.stages = 1U << GW_STAGE_ZERO;
	c->away = p->split.table.words;
	c->holders = p->split.table.holders;
	c->seconds = p->split.table.seconds;
	memcpy(c->lacks, p->split.table.lacks, sizeof(c->lacks));
	c->moved = p->split.table.moved;
	c->units = &p->split.table.units;
	c->history = m->history;
	c->nr = w->nr_subs;
	for (unsigned int i = 0; i < c->nr; i++)
		strcpy(c->subs[i].host, w->gone[i] ? "" : w->subs[i].name);
	strcpy(m->s.holder.host, "E");
	return m;
}

static int connect_there(struct move *m)
{
	struct gw_transport *peer = NULL;

	m->s.holder.control = net_open(&m->p->process, &m->there->process, &peer,
				       sim_now() + ANSWER_NS);
	m->there->control = peer;
	if (!peer) {
		split_pager_end(m->there);
		unlink(m->there->table_path);
		w->arrives = NULL;
		return -EHOSTUNREACH;
	}
	fiber_new(&m->there->process, "arrives", arrive, m->there, 0);
	return 0;
}

static void move_end(struct move *m, int rc)
{
	struct split_pager *p = m->p;

	if (rc && w->pager == p) {
		w->next = NULL; /* it is not to be */
		split_road(ROAD_ROUNDS);
	}
	if (rc)
		gw_carried_thaw(&m->s);
	if (!is_dead(p))
		w->quiesced = false;
	gw_transport_close(&m->s.holder.control);
	gw_carried_free(&m->carried);
	gw_bitmap_free(&m->s.due);
	free(m->batch.bytes);
	free(m);
}

static void move(struct split_pager *p)
{
	struct move *m = move_new(p);
	int rc;

	p->moving = true;
	w->tries++;
	m->there = w->arrives = split_pager_arrives();
	rc = connect_there(m);
	if (!rc)
		rc = send_rounds(m);
	if (!rc)
		rc = hand_over(m);
	if (!rc)
		rc = commit(m);
	if (rc && w->trace)
		fprintf(stderr, "       does not move: %s\n", gw_error());
	move_end(m, rc);
	p->moving = false;
}

static bool is_over(const struct split_pager *p)
{
	return is_dead(p) || p->halting || w->merging || w->over;
}

static void mover(void *arg, unsigned int i)
{
	struct split_pager *p = arg;

	(void)i;
	while (!is_over(p)) {
		fiber_sleep_until(sim_now() + (int64_t)draw(8) * GW_MS);
		if (!is_over(p) && may_move(p))
			move(p);
	}
	p->listeners--;
}

void split_mover_start(struct split_pager *p)
{
	if (!w->moves || is_dead(p))
		return;
	p->listeners++;
	fiber_new(&p->process, "moves", mover, p, 0);
}
