// SPDX-License-Identifier: GPL-2.0-or-later
/* test_predict.c - splay trees, the cache of processes, and what is expected of simulated guests.
 */
#include "unit.h"

#include <errno.h>

#include "lru.h"
#include "marks.h"
#include "process.h"
#include "rng.h"
#include "waiting.h"
#include "working_set.h"

#define MOST 4000U

/* In order, without recursion: turn left children up. Says whether it is a search tree. */
static size_t in_order(const struct gw_forest *f, uint32_t tree, uint64_t *pages)
{
	uint32_t *stack = calloc(f->most + 1, sizeof(*stack));
	size_t depth = 0, n = 0;

	assert_non_null(stack);
	while (tree || depth) {
		for (; tree; tree = f->nodes[tree].left) {
			assert_true(depth <= f->most);
			stack[depth++] = tree;
		}
		tree = stack[--depth];
		pages[n++] = f->nodes[tree].page;
		tree = f->nodes[tree].right;
	}
	free(stack);
	return n;
}

static int by_page(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool has(const uint64_t *model, size_t n, uint64_t page)
{
	for (size_t i = 0; i < n; i++)
		if (model[i] == page)
			return true;
	return false;
}

/* Against a sorted array, of two trees that share their nodes. */
static void a_set(void **state)
{
	static uint64_t model[2][MOST], found[MOST];
	const unsigned int room = 300;

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rng rng = { seed };
		struct gw_forest f;
		uint32_t tree[2] = { GW_SPLAY_NONE, GW_SPLAY_NONE };
		size_t n[2] = { 0, 0 };

		assert_int_equal(gw_forest_init(&f, room), 0);
		for (unsigned int step = 0; step < 4000; step++) {
			const unsigned int k = (unsigned int)rng_below(&rng, 2);
			const uint64_t page = rng_below(&rng, 400);
			const bool known = has(model[k], n[k], page);
			const bool full = n[0] + n[1] == room;

			if (rng_one_in(&rng, 400)) {
				gw_splay_drop(&f, &tree[k]);
				n[k] = 0;
				continue;
			}
			if (rng_one_in(&rng, 3)) {
				assert_int_equal(gw_splay_find(&f, &tree[k], page), known);
				continue;
			}
			assert_int_equal(gw_splay_add(&f, &tree[k], page), known  ? 0
									   : full ? -ENOSPC
										  : 1);
			if (known || !full)
				assert_int_equal(f.nodes[tree[k]].page, page);
			if (!known && !full)
				model[k][n[k]++] = page;
		}
		for (unsigned int k = 0; k < 2; k++) {
			qsort(model[k], n[k], sizeof(model[k][0]), by_page);
			assert_int_equal(in_order(&f, tree[k], found), n[k]);
			assert_memory_equal(found, model[k], n[k] * sizeof(found[0]));
		}
		gw_forest_free(&f);
	}
}

/* Zig, zig-zig and zig-zag, on trees small enough to draw (paper, Fig. 2). */
static void steps(void **state)
{
	struct gw_forest f;
	uint32_t tree = GW_SPLAY_NONE;

	(void)state;
	assert_int_equal(gw_forest_init(&f, 8), 0);
	/* Each is the greatest so far: a path to the left, 3 - 2 - 1. */
	for (uint64_t page = 1; page <= 3; page++)
		assert_int_equal(gw_splay_add(&f, &tree, page), 1);
	assert_int_equal(f.nodes[f.nodes[tree].left].page, 2);
	assert_true(gw_splay_find(&f, &tree, 2)); /* zig: 1 - 2 - 3 */
	assert_int_equal(f.nodes[f.nodes[tree].left].page, 1);
	assert_int_equal(f.nodes[f.nodes[tree].right].page, 3);
	assert_true(gw_splay_find(&f, &tree, 3));
	assert_true(gw_splay_find(&f, &tree, 1)); /* zig-zig: 1, then 2, then 3 to the right */
	assert_int_equal(f.nodes[tree].page, 1);
	assert_int_equal(f.nodes[f.nodes[tree].right].page, 2);
	assert_int_equal(f.nodes[f.nodes[f.nodes[tree].right].right].page, 3);
	assert_true(gw_splay_find(&f, &tree, 3));
	assert_int_equal(f.nodes[f.nodes[tree].left].page, 2);
	/* Zig-zag: 3 with 1 at its left and 2 at the right of that. */
	gw_splay_drop(&f, &tree);
	for (const uint64_t *page = (const uint64_t[]){ 2, 3, 1, 3, 0 }; *page; page++)
		gw_splay_add(&f, &tree, *page);
	assert_int_equal(f.nodes[tree].page, 3);
	assert_true(gw_splay_find(&f, &tree, 2));
	assert_int_equal(f.nodes[f.nodes[tree].left].page, 1);
	assert_int_equal(f.nodes[f.nodes[tree].right].page, 3);
	/* What is not there leaves beside it at the root, and is not added. */
	assert_false(gw_splay_find(&f, &tree, 9));
	assert_int_equal(f.nodes[tree].page, 3);
	gw_forest_free(&f);
}

/* Nodes on the way to @page. */
static size_t path(const struct gw_forest *f, uint32_t tree, uint64_t page)
{
	size_t n = 0;

	for (; tree; n++)
		tree = page < f->nodes[tree].page   ? f->nodes[tree].left
		       : page > f->nodes[tree].page ? f->nodes[tree].right
						    : GW_SPLAY_NONE;
	return n;
}

static size_t log2_of(size_t n)
{
	size_t bits = 0;

	while (n >>= 1)
		bits++;
	return bits;
}

/*
 * The amortised bound: m operations visit O((m + n) log n) nodes, in whatever order, though one
 * of them may visit n. In order, they visit but a few each (the scanning theorem).
 */
static void cheap(void **state)
{
	static const char *const orders[] = { "ascending", "descending", "at random",
					      "to and fro" };
	const size_t n = MOST, bound = 3 * log2_of(MOST) + 1;

	(void)state;
	for (unsigned int order = 0; order < 4; order++) {
		struct rng rng = { 7 };
		struct gw_forest f;
		uint32_t tree = GW_SPLAY_NONE;
		size_t visited = 0;

		assert_int_equal(gw_forest_init(&f, MOST), 0);
		for (size_t page = 0; page < n; page++)
			gw_splay_add(&f, &tree, page);
		assert_int_equal(path(&f, tree, 0), n); /* as high as it can be */
		for (size_t i = 0; i < 4 * n; i++) {
			const uint64_t page = order == 0   ? i % n
					      : order == 1 ? n - 1 - i % n
					      : order == 2 ? rng_below(&rng, n)
					      : i % 2	   ? i / 2 % n
							   : n - 1 - i / 2 % n;

			visited += path(&f, tree, page);
			assert_true(gw_splay_find(&f, &tree, page));
		}
		if (visited > 5 * n * bound || (order < 2 && visited > 5 * n * 6))
			fail_msg("%s: %zu nodes for %zu calls", orders[order], visited, 4 * n);
		gw_forest_free(&f);
	}
}

static bool first_three(void *arg, uint64_t page)
{
	uint64_t *n = arg;

	n[++n[0]] = page;
	return n[0] < 3;
}

/* What was asked for last is nearest to the root. */
static void nearest_first(void **state)
{
	struct gw_forest f;
	uint32_t tree = GW_SPLAY_NONE;
	uint64_t near[4] = { 0 };

	(void)state;
	assert_int_equal(gw_forest_init(&f, 100), 0);
	for (uint64_t page = 0; page < 100; page++)
		gw_splay_add(&f, &tree, page);
	gw_splay_find(&f, &tree, 40);
	gw_splay_find(&f, &tree, 70);
	assert_int_equal(gw_splay_near(&f, tree, first_three, near), 3);
	assert_int_equal(near[1], 70);
	assert_true(near[2] == 40 || near[3] == 40);
	assert_int_equal(gw_splay_near(&f, GW_SPLAY_NONE, first_three, near), 0);
	gw_forest_free(&f);
}

/* Fig. 5, with room for three processes. */
static void cache_of_processes(void **state)
{
	struct gw_bitmap set;
	struct gw_lru c;

	(void)state;
	assert_int_equal(gw_lru_init(&c, 3, 100), 0);
	assert_int_equal(gw_bitmap_init(&set, 1000), 0);
	for (uint64_t process = 1; process <= 3; process++)
		for (uint64_t page = 0; page < 4; page++)
			gw_lru_request(&c, process, process * 100 + page);
	gw_lru_request(&c, 1, 150); /* line 16: to the top */
	assert_int_equal(gw_lru_working_set(&c, 1, NULL, 1000, &set), 5);
	assert_true(gw_bitmap_test(&set, 100) && gw_bitmap_test(&set, 150));
	gw_lru_request(&c, 4, 400); /* line 12: the last one, which is 2, is removed */
	gw_bitmap_zero(&set);
	assert_int_equal(gw_lru_working_set(&c, 9, NULL, 1000, &set), 10);
	assert_false(gw_bitmap_test(&set, 200));
	assert_true(gw_bitmap_test(&set, 400) && gw_bitmap_test(&set, 303));
	/* The topmost first, and of them only what counts. */
	gw_bitmap_zero(&set);
	assert_int_equal(gw_lru_working_set(&c, 9, NULL, 3, &set), 3);
	assert_true(gw_bitmap_test(&set, 400) && gw_bitmap_test(&set, 150));
	{
		struct gw_bitmap only;

		assert_int_equal(gw_bitmap_init(&only, 1000), 0);
		gw_bitmap_set_range(&only, 300, 2);
		gw_bitmap_zero(&set);
		assert_int_equal(gw_lru_working_set(&c, 9, &only, 1000, &set), 2);
		gw_bitmap_free(&only);
	}
	gw_bitmap_free(&set);
	gw_lru_free(&c);
}

/* It never has more than it was made for, whatever a guest does. */
static void bounded(void **state)
{
	struct rng rng = { 3 };
	struct gw_bitmap set;
	struct gw_lru c;

	(void)state;
	assert_int_equal(gw_lru_init(&c, 5, 50), 0);
	assert_int_equal(gw_bitmap_init(&set, 1000), 0);
	for (unsigned int i = 0; i < 20000; i++) {
		const uint64_t page = rng_below(&rng, 1000);

		gw_lru_request(&c, rng_below(&rng, 8), page);
		assert_true(c.nr <= 5 && c.forest.used <= 50);
		gw_bitmap_zero(&set);
		assert_int_equal(gw_lru_working_set(&c, 1, NULL, 1, &set), 1);
		assert_true(gw_bitmap_test(&set, page));
	}
	/* One process alone: it begins anew. */
	for (uint64_t page = 0; page < 120; page++)
		gw_lru_request(&c, 99, page);
	gw_bitmap_zero(&set);
	assert_in_range(gw_lru_working_set(&c, 1, NULL, 1000, &set), 1, 50);
	assert_true(gw_bitmap_test(&set, 119));
	gw_bitmap_free(&set);
	gw_lru_free(&c);
}

static void processes(void **state)
{
	static const char text[] = "CPU#0\nRAX=0000000000000000 RBX=1\n"
				   "CR0=80050033 CR2=00007f CR3=000000000a4f1806 CR4=000006f0\n"
				   "CPU#1\nCR0=80050033 CR2=0 CR3=800000000a4f0001 CR4=0\n"
				   "CPU#2\nCR0=8 CR2=0 CR3=zz CR3=000000001fe0e000 CR4=0\n";
	uint64_t ids[8];

	(void)state;
	assert_int_equal(gw_process_parse(text, ids, 8), 3);
	/* The kernel's and the user's table of one process, whatever their identifiers. */
	assert_int_equal(ids[0], 0xa4f0000);
	assert_int_equal(ids[1], 0xa4f0000);
	assert_int_equal(ids[2], 0x1fe0e000);
	assert_int_equal(gw_process_parse(text, ids, 1), 1);
	assert_int_equal(gw_process_parse("", ids, 8), 0);
	assert_int_equal(gw_process_region(511), gw_process_region(0));
	assert_true(gw_process_region(512) != gw_process_region(0));
	/* No region is called like an address space. */
	assert_true(gw_process_of(gw_process_region(4096)) != gw_process_region(4096));
}

#define PAGES 10000UL

static void marks(void **state)
{
	struct gw_bitmap used, largest;
	struct gw_marks m;

	(void)state;
	assert_int_equal(gw_marks_init(&m, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&used, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&largest, PAGES), 0);
	/* More windows than a byte has numbers: the order of the last ones stays. */
	for (size_t window = 0; window < 1000; window++) {
		gw_bitmap_zero(&used);
		gw_bitmap_set(&used, window);
		gw_bitmap_set(&used, 5000);
		gw_marks_stamp(&m, &used);
	}
	assert_int_equal(gw_marks_largest(&m, NULL, 20, &largest), 20);
	assert_true(gw_bitmap_test(&largest, 5000));
	assert_int_equal(gw_bitmap_count(&largest, 981, 19), 19);
	gw_marks_free(&m);
	/* Last and most often, of those that count, and never one that was not used at all. */
	assert_int_equal(gw_marks_init(&m, PAGES), 0);
	for (size_t window = 0; window < 4; window++) {
		gw_bitmap_zero(&used);
		gw_bitmap_set(&used, window);
		gw_bitmap_set(&used, 9999);
		gw_marks_shift(&m, &used);
	}
	assert_int_equal(m.page[9999], 0xf0);
	assert_int_equal(m.page[3], 0x80);
	gw_bitmap_zero(&largest);
	assert_int_equal(gw_marks_largest(&m, NULL, 2, &largest), 2);
	assert_true(gw_bitmap_test(&largest, 9999) && gw_bitmap_test(&largest, 3));
	gw_bitmap_zero(&largest);
	assert_int_equal(gw_marks_largest(&m, NULL, PAGES, &largest), 5);
	gw_bitmap_zero(&used);
	gw_bitmap_set_range(&used, 0, 3);
	gw_bitmap_zero(&largest);
	assert_int_equal(gw_marks_largest(&m, &used, PAGES, &largest), 3);
	assert_int_equal(gw_marks_largest(&m, &used, 0, &largest), 0);
	gw_bitmap_free(&used);
	gw_bitmap_free(&largest);
	gw_marks_free(&m);
}

/* Guests that access pages in ways of which the best answer is known. */
enum load {
	UNIFORM,
	ZIPF,
	PHASES,
	SCAN
};

/* Page of rank r is accessed as often as 1 / r. */
static size_t zipf(struct rng *rng)
{
	static double sum[PAGES];
	double at;
	size_t low = 0, high = PAGES - 1;

	for (size_t i = 0; !sum[PAGES - 1] && i < PAGES; i++)
		sum[i] = (i ? sum[i - 1] : 0) + 1.0 / (double)(i + 1);
	at = (double)rng_below(rng, 1 << 24) / (1 << 24) * sum[PAGES - 1];
	while (low < high) {
		const size_t middle = (low + high) / 2;

		if (sum[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Window @n of @load, by process @process. */
static void window_of(enum load load, size_t n, struct rng *rng, struct gw_bitmap *used,
		      uint64_t *process)
{
	gw_bitmap_zero(used);
	*process = 0x1000;
	for (size_t i = 0; i < 500; i++) {
		/* Two processes of a thousand pages, ten windows each. */
		const size_t of = n / 10 % 2;

		switch (load) {
		case UNIFORM:
			gw_bitmap_set(used, rng_below(rng, PAGES));
			break;
		case ZIPF:
			gw_bitmap_set(used, zipf(rng));
			break;
		case PHASES:
			*process = (of + 1) << 13;
			gw_bitmap_set(used, of * 5000 + rng_below(rng, 1000));
			break;
		case SCAN:
		default:
			gw_bitmap_set(used, (n * 500 + i) % PAGES);
		}
	}
}

/* Of @most pages that are predicted: the share that the next window uses. */
static double hits(enum gw_predictor predictor, enum load load, size_t windows, size_t most)
{
	struct rng rng = { 11 };
	struct gw_working_set ws;
	struct gw_bitmap used, set;
	size_t predicted, hit = 0;
	uint64_t process;

	assert_int_equal(gw_working_set_init(&ws, predictor, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&used, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&set, PAGES), 0);
	ws.processes = 1;
	for (size_t n = 0; n < windows; n++) {
		const struct gw_seen w = { .accessed = &used,
					   .written = &used,
					   .processes = &process,
					   .nr_processes = 1 };

		window_of(load, n, &rng, &used, &process);
		gw_working_set_add(&ws, &w);
	}
	predicted = gw_working_set_take(&ws, NULL, most, &set);
	assert_int_equal(predicted, gw_bitmap_count(&set, 0, PAGES));
	assert_true(predicted && predicted <= most);
	window_of(load, windows, &rng, &used, &process);
	for (size_t page = 0; page < PAGES; page++)
		hit += gw_bitmap_test(&set, page) && gw_bitmap_test(&used, page);
	gw_working_set_free(&ws);
	gw_bitmap_free(&used);
	gw_bitmap_free(&set);
	return (double)hit / (double)predicted;
}

static void known_answers(void **state)
{
	static const enum gw_predictor all[] = { GW_PREDICT_LRU, GW_PREDICT_LRU_SPLAY,
						 GW_PREDICT_WRITTEN };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		/* Nobody knows more than that one in twenty is used again. */
		assert_true(hits(all[i], UNIFORM, 40, 300) < 0.15);
		/* A scan does not come back for what was used last. */
		assert_true(hits(all[i], SCAN, 15, 300) == 0);
	}
	/* The first thirty ranks are used in nearly every window: who counts finds them. */
	assert_true(hits(GW_PREDICT_WRITTEN, ZIPF, 40, 30) > 0.8);
	/*
	 * In the middle of a phase: who groups by process expects its thousand pages, of which the
	 * next window uses 393. Just after a change, those of the process that runs now, most of
	 * which it has known since its last phase.
	 */
	assert_true(hits(GW_PREDICT_LRU_SPLAY, PHASES, 25, 1000) > 0.3);
	assert_true(hits(GW_PREDICT_LRU_SPLAY, PHASES, 21, 1000) > 0.3);
	assert_true(hits(GW_PREDICT_LRU, PHASES, 21, 1000) < 0.3);
}

/* Where no process is known, what lies together belongs together. */
static void regions(void **state)
{
	const uint64_t two[2] = { 0x2000, 0x4000 };
	struct gw_working_set ws;
	struct gw_bitmap used, set;
	struct gw_seen w = { .accessed = &used };

	(void)state;
	assert_int_equal(gw_working_set_init(&ws, GW_PREDICT_LRU_SPLAY, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&used, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&set, PAGES), 0);
	ws.processes = 1;
	gw_bitmap_set_range(&used, 0, 100);
	gw_bitmap_set_range(&used, 6000, 100);
	gw_working_set_add(&ws, &w);
	assert_int_equal(ws.mixed, 1);
	assert_int_equal(gw_working_set_take(&ws, NULL, PAGES, &set), 200);
	w.processes = two;
	w.nr_processes = 2;
	gw_bitmap_zero(&used);
	gw_bitmap_set(&used, 6050);
	gw_working_set_add(&ws, &w);
	assert_int_equal(ws.mixed, 2);
	gw_bitmap_zero(&set);
	assert_int_equal(gw_working_set_take(&ws, NULL, PAGES, &set), 100);
	assert_true(gw_bitmap_test(&set, 6099));
	w.nr_processes = 1;
	gw_working_set_add(&ws, &w);
	assert_int_equal(ws.mixed, 2);
	gw_working_set_free(&ws);
	gw_bitmap_free(&used);
	gw_bitmap_free(&set);
}

static size_t count(const struct gw_bitmap *map)
{
	return gw_bitmap_count(map, 0, PAGES);
}

static void waits(void **state)
{
	struct gw_waiting w;
	struct gw_bitmap due, none;

	(void)state;
	assert_int_equal(gw_waiting_init(&w, PAGES, false), 0);
	assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&none, PAGES), 0);
	/* First round: all but the hot ones that are due at all. */
	gw_bitmap_set_range(&due, 0, 100);
	gw_bitmap_set_range(&w.hot, 90, 20);
	gw_waiting_first(&w, &due);
	assert_int_equal(count(&due), 90);
	assert_int_equal(gw_waiting_count(&w, &none), 10);
	assert_true(w.nr_waits == 10 && w.nr_predicted == 10 && w.nr_seen == 0);
	/* 90 to 94 were written again and wait on, 95 to 99 have cooled; 200 is written, not hot.
	 */
	gw_bitmap_zero(&due);
	gw_bitmap_set_range(&due, 90, 5);
	gw_bitmap_set(&due, 100);
	gw_bitmap_set(&due, 200);
	assert_int_equal(gw_waiting_count(&w, &due), 5);
	gw_waiting_scan(&w, &due, NULL, SIZE_MAX);
	assert_true(gw_bitmap_count(&due, 95, 5) == 5 && gw_bitmap_test(&due, 200));
	assert_true(count(&due) == 6 && count(&w.waits) == 6 && gw_bitmap_test(&w.waits, 100));
	assert_true(w.nr_waits == 6 && w.nr_predicted == 11 && w.nr_seen == 5);
	/* What has cooled is hot no more. And there is room for two only. */
	gw_bitmap_zero(&due);
	gw_bitmap_set_range(&due, 90, 10);
	gw_waiting_scan(&w, &due, NULL, 2);
	assert_true(gw_bitmap_count(&w.waits, 90, 2) == 2 && w.nr_waits == 2);
	assert_true(count(&due) == 9 && gw_bitmap_test(&due, 100) && gw_bitmap_test(&due, 99));
	/* The end. */
	gw_bitmap_zero(&due);
	gw_bitmap_set(&due, 100);
	gw_waiting_end(&w, &due);
	assert_true(count(&due) == 3 && count(&w.waits) == 0 && w.nr_waits == 0);
	assert_int_equal(w.nr_seen, 11); /* all but none: those that cooled were written later */
	gw_waiting_free(&w);
	assert_int_equal(w.nr_predicted, 11);
	gw_bitmap_free(&due);
	gw_bitmap_free(&none);
}

/* Who learns: what was written twice in a row, while there is room. */
static void learns(void **state)
{
	struct gw_waiting w;
	struct gw_bitmap due, held;

	(void)state;
	assert_int_equal(gw_bitmap_init(&held, PAGES), 0);
	assert_int_equal(gw_waiting_init(&w, PAGES, true), 0);
	assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
	gw_bitmap_set_range(&due, 10, 10);
	gw_waiting_scan(&w, &due, NULL, 100);
	assert_int_equal(count(&due), 10);
	gw_bitmap_zero(&due);
	gw_bitmap_set_range(&due, 15, 10);
	gw_waiting_scan(&w, &due, NULL, 100);
	assert_true(gw_bitmap_count(&w.waits, 15, 5) == 5 && gw_bitmap_count(&due, 20, 5) == 5);
	assert_true(count(&w.waits) == 5 && count(&due) == 5);
	/* Rounds get somewhere again: all goes. */
	gw_bitmap_zero(&due);
	gw_bitmap_set(&due, 15);
	gw_waiting_scan(&w, &due, NULL, gw_waiting_room(&w, 1000, 100, 80));
	assert_true(count(&w.waits) == 0 && gw_bitmap_count(&due, 15, 5) == 5);
	assert_int_equal(gw_waiting_room(&w, 1000, 100, 81), 500);
	assert_int_equal(gw_waiting_room(&w, 1000, INT64_MAX, INT64_MAX / 2), 0);
	/* Not what has never travelled. */
	for (unsigned int i = 0; i < 2; i++) {
		gw_bitmap_zero(&due);
		gw_bitmap_set_range(&due, 30, 10);
		gw_bitmap_set_range(&held, 30, 4);
		gw_waiting_scan(&w, &due, &held, 100);
	}
	assert_true(gw_bitmap_count(&w.waits, 30, 4) == 4 && count(&w.waits) == 4);
	assert_int_equal(gw_bitmap_count(&due, 34, 6), 6);
	gw_bitmap_free(&held);
	w.learns = false;
	assert_int_equal(gw_waiting_room(&w, 1000, 100, 10), 500);
	gw_waiting_free(&w);
	gw_bitmap_free(&due);
}

/*
 * A guest that is never what it was taken for: it writes one set while it is watched, and then by
 * turns another one and the first. Nothing is sent more often than if nothing waited.
 */
static void by_turns(void **state)
{
	(void)state;
	for (int learning = 0; learning < 2; learning++) {
		size_t sent = 0, off = 0;
		struct gw_bitmap due;
		struct gw_waiting w;

		assert_int_equal(gw_waiting_init(&w, PAGES, learning), 0);
		assert_int_equal(gw_bitmap_init(&due, PAGES), 0);
		gw_bitmap_set_range(&due, 0, 3000);
		gw_bitmap_set_range(&w.hot, 0, 1000);
		off += count(&due);
		gw_waiting_first(&w, &due);
		sent += count(&due);
		for (size_t round = 0; round < 20; round++) {
			gw_bitmap_zero(&due);
			gw_bitmap_set_range(&due, round % 2 ? 0 : 1000, 1000);
			off += count(&due);
			if (round < 19)
				gw_waiting_scan(&w, &due, NULL, 2000);
			else
				gw_waiting_end(&w, &due);
			sent += count(&due);
		}
		assert_true(sent <= off);
		gw_waiting_free(&w);
		gw_bitmap_free(&due);
	}
}

/*
 * Whatever is written and wherever there is room: a page whose last bytes have not been sent is due
 * or waits, and never both.
 */
static void nothing_is_forgotten(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct rng rng = { seed };
		struct gw_waiting w;
		struct gw_bitmap due, owed;

		assert_int_equal(gw_waiting_init(&w, 1000, seed % 2), 0);
		assert_int_equal(gw_bitmap_init(&due, 1000), 0);
		assert_int_equal(gw_bitmap_init(&owed, 1000), 0);
		gw_bitmap_set_range(&due, 0, 1000);
		for (size_t i = rng_below(&rng, 500); i--;)
			gw_bitmap_set(&w.hot, rng_below(&rng, 1000));
		gw_waiting_first(&w, &due);
		gw_bitmap_set_range(&owed, 0, 1000);
		for (unsigned int round = 0; round < 20; round++) {
			for (size_t i = 0; i < 1000; i++) {
				const bool is_due = gw_bitmap_test(&due, i);
				const bool is_waiting = gw_bitmap_test(&w.waits, i);

				assert_int_equal(is_due + is_waiting, gw_bitmap_test(&owed, i));
			}
			assert_int_equal(w.nr_waits, gw_bitmap_count(&w.waits, 0, 1000));
			assert_int_equal(w.nr_predicted, gw_bitmap_count(&w.predicted, 0, 1000));
			assert_int_equal(w.nr_seen, gw_bitmap_count(&w.seen, 0, 1000));
			/* What is due is sent; and some is written. */
			for (size_t i = 0; i < 1000; i++)
				if (gw_bitmap_test(&due, i))
					gw_bitmap_clear(&owed, i);
			gw_bitmap_zero(&due);
			for (size_t i = rng_below(&rng, 300); i--;) {
				const size_t page = rng_below(&rng, 1 + rng_below(&rng, 1000));

				gw_bitmap_set(&due, page);
				gw_bitmap_set(&owed, page);
			}
			if (round == 18)
				gw_waiting_end(&w, &due);
			else
				gw_waiting_scan(&w, &due, NULL, rng_below(&rng, 100));
		}
		gw_waiting_free(&w);
		gw_bitmap_free(&due);
		gw_bitmap_free(&owed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set),
		cmocka_unit_test(steps),
		cmocka_unit_test(cheap),
		cmocka_unit_test(nearest_first),
		cmocka_unit_test(cache_of_processes),
		cmocka_unit_test(bounded),
		cmocka_unit_test(processes),
		cmocka_unit_test(marks),
		cmocka_unit_test(known_answers),
		cmocka_unit_test(regions),
		cmocka_unit_test(waits),
		cmocka_unit_test(learns),
		cmocka_unit_test(nothing_is_forgotten),
		cmocka_unit_test(by_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
