// SPDX-License-Identifier: GPL-2.0-or-later
/* sim_split_world.c - one run: what may befall it, and what must hold whatever does; see
 * sim_split.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "sim_split.h"

#define STEPS_MOST 100000U
#define RUN_MAX_NS (4000 * GW_S)

/* So that none of the seeds of before has any; of what came later likewise. */
#define EVACUATIONS 0x65766165ULL
#define MOVES	    0x6d6f7667ULL
#define REPLICAS    0x7265706cULL
#define MOVES_TWICE 0x74776967ULL /* with which the kept seeds are what they were */

/* Nobody waits for longer for one of two servers, and one that stands still does for longer. */
#define PATIENCE_NS (20 * GW_S)
#define STILL_NS    (600 * GW_S)

struct sim_split sim_split;

static struct sim_split *const w = &sim_split;

static unsigned int roads[ROAD_COUNT];

void split_road(enum split_road road)
{
	roads[road]++;
}

void split_check_roads(void)
{
	static const char *const names[ROAD_COUNT] = {
		[ROAD_WRITTEN] = "written while it left",
		[ROAD_DEFERRED] = "a fault waited for room",
		[ROAD_AHEAD] = "came ahead",
		[ROAD_TORN_CAME] = "pager dead, and a page had come",
		[ROAD_TORN_PART] = "pager dead, and some pages had come",
		[ROAD_TORN_LEFT] = "pager dead, and a unit was not punched",
		[ROAD_ABSENT] = "pages lost",
		[ROAD_FOUND] = "and found",
		[ROAD_ENOSPC] = "a server full",
		[ROAD_REFUSED] = "no memory at the main host",
		[ROAD_PUNCH] = "not punched",
		[ROAD_OVERRUN] = "releases overrun",
		[ROAD_RECONNECTED] = "connected again",
		[ROAD_MENDED] = "taken over",
		[ROAD_MEND_DIED] = "dead while it mended",
		[ROAD_MERGED] = "merged, and split again",
		[ROAD_FINISHED] = "merged, but for what left just then",
		[ROAD_MERGE_DIED] = "dead while all came back",
		[ROAD_DEVICE_KEPT] = "a device pinned what was to leave",
		[ROAD_DISMISSED] = "dismissed twice",
		[ROAD_EVACUATED] = "evacuated",
		[ROAD_ADDED] = "evacuated, and needed again",
		[ROAD_PART_DIED] = "dead while one was evacuated",
		[ROAD_ROUNDS] = "began to move, and stayed",
		[ROAD_MOVED] = "moved",
		[ROAD_CAME_FROZEN] = "came while frozen, and stayed",
		[ROAD_LET_GO] = "let go, and stayed",
		[ROAD_CAME_THERE] = "came to the main host to be",
		[ROAD_CARRIED] = "owned by a successor",
		[ROAD_MOVER_DIED] = "dead with the guest stopped to move",
		[ROAD_THERE_DIED] = "dead at the main host to be",
		[ROAD_TWICE] = "left for two servers",
		[ROAD_SINGLE] = "left for one of two",
		[ROAD_DROPPED] = "lost, and another had it",
		[ROAD_GONE] = "a server gone for ever",
		[ROAD_MOVED_TWICE] = "moved with two copies of each page",
		[ROAD_TOLD_SINGLE] = "told of what one of two lacks",
		[ROAD_REMADE] = "second copies made again",
	};
	bool all = true;

	for (unsigned int i = 0; i < ROAD_COUNT; i++) {
		printf("%6u  %s\n", roads[i], names[i]);
		all = all && roads[i];
	}
	if (!all) {
		fprintf(stderr, "FAILED: the runs no longer take every road that they must\n");
		exit(1);
	}
}

static const char *const fault_names[SPLIT_FAULTS_END] = {
	[SPLIT_NONE] = "none",
	[SPLIT_CUT_ONE] = "cut-one",
	[SPLIT_CUT] = "cut",
	[SPLIT_CUT_ALL] = "cut-all",
	[SPLIT_STALL] = "stall",
	[SPLIT_DAMAGE] = "damage",
	[SPLIT_HANG] = "hang",
	[SPLIT_KILL] = "kill",
	[SPLIT_FULL] = "full",
	[SPLIT_LOSE] = "lose",
	[SPLIT_KILL_PAGER] = "kill-pager",
	[SPLIT_HANG_PAGER] = "hang-pager",
	[SPLIT_KILL_ALL] = "kill-all",
	[SPLIT_NO_MEMORY] = "no-memory",
	[SPLIT_PUNCH] = "punch",
	[SPLIT_OVERRUN] = "overrun",
	[SPLIT_DIE] = "die",
};

const char *split_fault_name(enum split_fault kind)
{
	return fault_names[kind];
}

/* What lies on this machine's tmpfs. */
static void remove_files(void)
{
	char folder[64];

	unlink(w->table_path);
	for (unsigned int i = 0; i < w->nr_subs; i++)
		split_sub_remove(&w->subs[i]);
	snprintf(folder, sizeof(folder), "/dev/shm/godwit-sim_split.%d", (int)getpid());
	rmdir(folder);
}

void sim_wrong(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FAILED at step %u, %.3f ms: ", w->steps, (double)sim_now() / GW_MS);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  repeat: sim_split --seed %llu", (unsigned long long)w->seed);
	if (w->only)
		fprintf(stderr, " --death %d:%u", w->strikes[0].where, w->strikes[0].step);
	for (unsigned int i = 0; i < w->nr_strikes; i++)
		fprintf(stderr, "%s %s:%u:%d:%u", i ? "," : " # ", fault_names[w->strikes[i].kind],
			w->strikes[i].step, w->strikes[i].where, w->strikes[i].sub);
	fprintf(stderr, "\n");
	remove_files();
	exit(1);
}

/* The page is noted as being placed. */
static bool is_noted(const struct gw_netpt *t, size_t page)
{
	size_t first;
	const size_t n = gw_netpt_torn(
		t, (unsigned int)(gw_unit_of(&t->units, page) % GW_NETPT_STRIPES), &first);

	return n && page >= first && page < first + n;
}

static bool is_safe(const struct gw_netpt *t, const struct split_host *host, size_t page)
{
	const bool in = split_is_in(host, page), away = gw_netpt_is_away(t, page);
	const bool here = in ? split_seems(split_bytes_at(host, page), page, w->must[page])
			     : !w->must[page];
	const unsigned int copies = away ? gw_netpt_copies(t, page) : 0;
	const size_t unit = gw_unit_of(&t->units, page);
	bool any = false;

	if (!away || (in && is_noted(t, page)))
		return here;
	for (unsigned int slot = 0; slot < GW_COPIES_MAX; slot++) {
		const struct split_sub *s;

		if (!(copies & 1U << slot))
			continue;
		s = &w->subs[gw_netpt_at(t, unit, slot)];
		if (s->dead)
			continue;
		if (!split_sub_has(s, page, w->must[page]) && !gw_bitmap_test(&s->lost, page))
			return false;
		any = true;
	}
	return any;
}

/* Nothing leaves it, so nothing of it is both away and here. */
static bool is_safe_next(size_t page)
{
	const struct gw_netpt *t = &w->next->split.table;

	return is_safe(t, w->next->host, page) &&
	       (!gw_netpt_is_away(t, page) || !split_is_in(w->next->host, page) ||
		is_noted(t, page));
}

/* While all that is at one goes to others, a page may be with one of two only. */
static bool is_at_hand(size_t page)
{
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		const struct split_sub *s = &w->subs[i];

		if (!s->dead && s->server && s->server->process.stopped_until <= sim_now() &&
		    split_sub_is_at(s, page))
			return true;
	}
	return !gw_netpt_is_away(&w->table, page);
}

void split_check(void)
{
	const struct gw_memory *m = &w->host->file.memory;

	sim_check(sim_now() < RUN_MAX_NS && w->steps < STEPS_MOST, "no end in sight");
	for (unsigned int i = 0; w->dies_alone && i < SPLIT_CPUS; i++)
		sim_check(w->cpu[i].state == SPLIT_RUNS ||
				  sim_now() - w->cpu[i].since < PATIENCE_NS ||
				  (w->evacuates && !is_at_hand(w->cpu[i].page)),
			  "a vCPU waits for page %zu, which two servers have", w->cpu[i].page);
	for (unsigned int i = 0; w->table.head && i < m->nr_blocks; i++)
		for (size_t k = 0; k < m->blocks[i].nr_pages; k++) {
			const size_t page = m->blocks[i].first_page + k;

			sim_check(is_safe(&w->table, w->host, page),
				  "nobody has the newest bytes of page %zu (%s, %s the file)", page,
				  gw_netpt_is_away(&w->table, page) ? "away" : "here",
				  split_in_file(page) ? "in" : "not in");
			sim_check(!w->next || is_safe_next(page),
				  "the main host to be has not page %zu (%s, %s the file)", page,
				  gw_netpt_is_away(&w->next->split.table, page) ? "away" : "here",
				  split_is_in(w->next->host, page) ? "in" : "not in");
		}
}

static void start_again(void *arg, unsigned int ms)
{
	struct split_sub *s = arg;

	fiber_sleep_until(sim_now() + (int64_t)ms * GW_MS);
	if (!s->server && !s->dead && !w->over)
		split_sub_start(s);
}

static void find_again(void *arg, unsigned int ms)
{
	struct split_sub *s = arg;

	fiber_sleep_until(sim_now() + (int64_t)ms * GW_MS);
	if (s->dead)
		return;
	split_sub_kill(s);
	split_sub_find(s);
	if (!w->over)
		split_sub_start(s);
}

static void empty_again(void *arg, unsigned int ms)
{
	fiber_sleep_until(sim_now() + (int64_t)ms * GW_MS);
	split_sub_fill_up(arg, false);
}

static void kill_sub(struct split_sub *s, unsigned int ms)
{
	split_sub_kill(s);
	fiber_new(&w->daemon, "starts", start_again, s, ms);
}

/* As if so many pages had come from it that a queue is full. */
static void overrun(const struct split_strike *strike)
{
	struct split_pager *p = w->next ? w->next : w->pager;
	struct gw_server *s = p ? &p->servers[strike->sub] : NULL;

	if (!s || !s->up || !p->split.table.head)
		return;
	s->overrun = true;
}

static void strike(const struct split_strike *k)
{
	struct split_sub *s = &w->subs[k->sub];
	const unsigned int ms = (unsigned int)(k->ns / GW_MS);

	switch (k->kind) {
	case SPLIT_CUT_ONE:
		net_cut_one();
		break;
	case SPLIT_CUT:
		if (s->server)
			net_cut_of(&s->server->process);
		s->away_until = sim_now() + k->ns;
		break;
	case SPLIT_CUT_ALL:
		for (unsigned int i = 0; i < w->nr_subs; i++) {
			if (w->subs[i].server)
				net_cut_of(&w->subs[i].server->process);
			w->subs[i].away_until = sim_now() + k->ns;
		}
		break;
	case SPLIT_STALL:
		net_stall(k->ns / 4);
		break;
	case SPLIT_DAMAGE:
		net_damage();
		break;
	case SPLIT_HANG:
		if (s->server)
			s->server->process.stopped_until = sim_now() + k->ns;
		break;
	case SPLIT_KILL:
		kill_sub(s, ms);
		break;
	case SPLIT_FULL:
		split_sub_fill_up(s, true);
		fiber_new(&w->daemon, "has room", empty_again, s, ms);
		break;
	case SPLIT_LOSE:
		/* Which of two that may get the guest has found out is not modelled. */
		if (w->arrives)
			break;
		split_sub_kill(s);
		split_sub_lose(s);
		fiber_new(&w->daemon, "starts", start_again, s, ms / 8);
		fiber_new(&w->daemon, "finds", find_again, s, ms / 2 + 500);
		break;
	case SPLIT_KILL_ALL:
		for (unsigned int i = 0; i < w->nr_subs; i++)
			kill_sub(&w->subs[i], ms / (i + 1));
		split_pager_kill();
		break;
	case SPLIT_KILL_PAGER:
		if (w->arrives && ms % 2)
			split_arrival_kill();
		else
			split_pager_kill();
		break;
	case SPLIT_HANG_PAGER:
		if (w->arrives && ms % 2)
			w->arrives->process.stopped_until = sim_now() + k->ns;
		else if (w->pager)
			w->pager->process.stopped_until = sim_now() + k->ns;
		break;
	case SPLIT_NO_MEMORY:
		w->no_memory_until = sim_now() + k->ns / 8;
		break;
	case SPLIT_PUNCH:
		w->punch_fails = true;
		break;
	case SPLIT_OVERRUN:
		overrun(k);
		break;
	case SPLIT_DIE:
		split_sub_die(s);
		break;
	case SPLIT_NONE:
	case SPLIT_FAULTS_END:
	default:
		break;
	}
}

/* FNV-1a, of what must be the same when a run is repeated. */
static void mix(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len--)
		w->hash = (w->hash ^ *at++) * 0x100000001b3ULL;
}

static void mix_number(uint64_t n)
{
	mix(&n, sizeof(n));
}

static bool is_at(int place, int where)
{
	switch (place) {
	case SPLIT_FROZEN:
		return w->pager && w->pager->moving && w->pager->split.frozen;
	case SPLIT_NEXT:
		return w->next;
	case SPLIT_CARRIED:
		return w->carried;
	default:
		return place < 0 || place == where;
	}
}

/*
 * Two copies are worth nothing to who loses both. So what has one only, as another server fails, is
 * not to be lost; nor what is just about to have.
 */
static bool may_die(const struct split_sub *s)
{
	const struct split_pager *p = w->pager;

	if (w->dies_alone)
		return split_sub_is_spare(s);
	for (unsigned int i = 0; p && i < w->nr_subs; i++)
		if ((i != s->index && w->subs[i].dead) || p->servers[i].departing ||
		    p->servers[i].nr_leaving || p->servers[i].parts)
			return false;
	for (size_t unit = 0; p && unit < p->split.units_len; unit++)
		if (p->split.leaving[unit] > 1)
			return false;
	return p && split_sub_is_spare(s);
}

int sim_step(struct process *process, const char *what, unsigned int traits)
{
	const int where = w->pager && w->pager->mending ? SPLIT_MENDING : w->at_park;

	(void)traits;
	w->at_park = -1;
	mix_number((uint64_t)sim_now());
	mix(process->name, strlen(process->name) + 1);
	mix(what, strlen(what) + 1);
	if (process->dead)
		return gw_fail(-ESHUTDOWN, "%s is dead", process->name);
	w->steps++;
	if (w->trace)
		fprintf(stderr, "%6u %12.3f ms  %s: %s %d\n", w->steps, (double)sim_now() / GW_MS,
			process->name, what, where);
	for (unsigned int i = 0; i < w->nr_strikes; i++) {
		struct split_strike *k = &w->strikes[i];

		if (k->struck || w->steps < k->step || !is_at(k->where, where) ||
		    (k->kind == SPLIT_DIE && !may_die(&w->subs[k->sub])))
			continue;
		if (w->trace)
			fprintf(stderr, "       %s of %s\n", fault_names[k->kind],
				w->subs[k->sub].name);
		k->struck = true;
		strike(k);
	}
	fiber_yield();
	split_check();
	return process->dead ? gw_fail(-ESHUTDOWN, "%s is dead", process->name) : 0;
}

/* While it moves either side may die, or hang. */
static void draw_strike_of_move(struct split_strike *k)
{
	k->where = SPLIT_PLACES + (int)rng_below(&w->movers, SPLIT_MOVE_PLACES - SPLIT_PLACES);
	if (rng_one_in(&w->movers, 2))
		k->kind = rng_one_in(&w->movers, 3) ? SPLIT_HANG_PAGER : SPLIT_KILL_PAGER;
}

/* Where a pager may die: so that each is reached, however rarely it is come to. */
static void draw_strike(struct rng *rng, struct split_strike *k)
{
	k->kind = (enum split_fault)(1 + rng_below(rng, SPLIT_DRAWN - 1));
	k->step = 20 + (unsigned int)rng_below(rng, w->life);
	k->where = -1;
	if (k->kind == SPLIT_KILL_PAGER || k->kind == SPLIT_KILL_ALL || rng_one_in(rng, 4))
		k->where = (int)rng_below(rng, SPLIT_PLACES);
	if (rng_one_in(rng, 3))
		k->where = -1;
	if (k->kind == SPLIT_KILL_PAGER && rng_one_in(rng, 4))
		k->where = SPLIT_UNSPLIT;
	if (w->moves && rng_one_in(&w->movers, 2))
		draw_strike_of_move(k);
	k->sub = (unsigned int)rng_below(rng, w->nr_subs);
	k->ns = (int64_t)rng_below(rng, rng_one_in(rng, 3) ? 30000 : 500) * GW_MS;
}

static struct split_strike late_strike(struct rng *rng, enum split_fault kind)
{
	return (struct split_strike){
		.kind = kind,
		.step = 100 + (unsigned int)rng_below(rng, w->life),
		.where = -1,
		.sub = (unsigned int)rng_below(rng, w->nr_subs),
		.ns = (int64_t)rng_below(rng, 500) * GW_MS,
	};
}

/* Each page is stored twice, and a server may be gone for ever. */
static void init_replicas(bool faults)
{
	struct rng *rng = &w->replicas, movers = { .state = w->seed ^ MOVES_TWICE };

	if (w->moves)
		w->copies = rng_one_in(&movers, 3) ? 2 : 1;
	else
		w->copies = rng_one_in(rng, 3) ? 1 : 2;
	w->missed_ns = (int64_t)(20 + rng_below(rng, 800)) * GW_MS;
	w->naps = w->copies > 1 && rng_one_in(rng, 2);
	w->life += w->copies > 1 ? (unsigned int)rng_below(rng, 2000) : 0;
	if (w->copies == 1 || !faults || rng_one_in(rng, 4))
		return;
	if (rng_one_in(rng, 3)) {
		w->strikes[w->nr_strikes == SPLIT_FAULTS ? 0 : w->nr_strikes++] =
			late_strike(rng, SPLIT_LOSE);
		return;
	}
	w->dies_alone = rng_one_in(rng, 2);
	for (unsigned int i = 0; w->dies_alone && i < w->nr_subs; i++)
		w->sizes[i] = w->host->file.memory.nr_pages * GW_PAGE_SIZE;
	if (w->dies_alone || w->nr_strikes == SPLIT_FAULTS)
		w->nr_strikes = 0;
	w->strikes[w->nr_strikes] = late_strike(rng, SPLIT_DIE);
	if (w->dies_alone && rng_one_in(rng, 2)) {
		w->strikes[w->nr_strikes].kind = SPLIT_HANG;
		w->strikes[w->nr_strikes].ns = STILL_NS;
	}
	w->nr_strikes++;
}

static void init(uint64_t seed, bool faults, const struct split_strike *only)
{
	const bool trace = w->trace;
	struct net_link link = { .seed = seed };
	struct rng *rng = &w->rng;

	memset(w, 0, sizeof(*w));
	w->trace = trace;
	w->seed = seed;
	w->hash = 0xcbf29ce484222325ULL;
	rng->state = seed;
	w->at_park = -1;
	w->daemon.name = "daemon";
	w->life = 400 + (unsigned int)rng_below(rng, 2000);
	w->nr_subs = 2 + (unsigned int)rng_below(rng, SPLIT_SUBS - 1);
	w->unit_pages = 4U << rng_below(rng, 3);
	w->touches_per_ms = 20 + (unsigned int)rng_below(rng, 200);
	w->zeros = 2 + (unsigned int)rng_below(rng, 8);
	w->pinned = rng_one_in(rng, 4);
	w->compress = (enum gw_compress)rng_below(rng, 4);
	w->evacuations.state = seed ^ EVACUATIONS;
	w->replicas.state = seed ^ REPLICAS;
	w->evacuates = rng_one_in(&w->evacuations, 3);
	w->movers.state = seed ^ MOVES;
	w->moves = !w->pinned && rng_one_in(&w->movers, 2);
	w->life += w->moves ? 5000 : 0;
	w->sleeps = w->evacuates && rng_one_in(&w->evacuations, 2);
	link.latency = (int64_t)(20 + rng_below(rng, 300)) * GW_US;
	link.uneven = (int64_t)rng_below(rng, 3) * GW_MS;
	link.rate = 12500000ULL << rng_below(rng, 8);
	fibers_init(seed);
	net_init(&link);
	split_guest_init();
	w->target = w->host->file.memory.nr_pages / 3;
	for (unsigned int i = 0; i < w->nr_subs; i++) {
		w->sizes[i] = w->host->file.memory.nr_pages / (1 + rng_below(rng, 12)) *
			      GW_PAGE_SIZE;
		split_sub_init(i);
	}
	w->nr_strikes = faults ? (unsigned int)rng_below(rng, SPLIT_FAULTS) : 0;
	for (unsigned int i = 0; i < w->nr_strikes; i++)
		draw_strike(rng, &w->strikes[i]);
	init_replicas(faults);
	w->only = only;
	if (only)
		w->strikes[w->nr_strikes++] = *only;
}

static void check_end(void)
{
	for (size_t page = 0; page < w->host->file.memory.nr_pages; page++)
		sim_check(!gw_memory_block_of(&w->host->file.memory, page) ||
				  split_is(split_bytes(page), page, w->must[page]),
			  "page %zu is not what it must be in the end", page);
	/* One that could not be reached keeps what it has, until somebody there drops it. */
	for (unsigned int i = 0; i < w->nr_subs; i++)
		sim_check(w->subs[i].dismissed || w->nr_strikes,
			  "memory server %s was not told that all is done", w->subs[i].name);
	sim_check(!net_ends(), "%u connections were never closed", net_ends());
	sim_check(w->touched > 50, "the guest has hardly run");
}

static void tick(void *arg)
{
	(void)arg;
	split_tick();
}

void split_run(uint64_t seed, bool faults, const struct split_strike *only)
{
	init(seed, faults, only);
	split_pager_start(false);
	if (!fibers_run(tick, NULL)) {
		fibers_dump();
		sim_wrong("everybody waits for ever");
	}
	check_end();
	mix_number(w->rng.state);
	mix_number(w->version);
	mix(w->must, sizeof(w->must));
	for (unsigned int i = 0; i < w->nr_pagers; i++)
		free(w->pagers[i]);
	for (unsigned int i = 0; i < w->nr_servers; i++)
		free(w->servers[i]);
	remove_files();
	for (unsigned int i = 0; i < w->nr_subs; i++)
		gw_bitmap_free(&w->subs[i].lost);
	for (unsigned int i = 0; i < w->nr_stores; i++) {
		gw_memstore_close(w->stores[i]);
		free(w->stores[i]);
	}
	split_guest_free();
}
