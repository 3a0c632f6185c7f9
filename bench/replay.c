// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay FILE MBIT_S LIMIT_MS: what each way to choose the pages that wait would have sent.
 *
 * Plays the trace (trace.h) for a pre-copy as the source makes it: rounds over the due pages in
 * their order, a page that was written again since the last scan waits for the next round, and what
 * is left goes while the guest stands still, once that takes no longer than the limit. A page costs
 * what it has on the wire, and nothing else: no stage makes it smaller. What was written in a
 * window is spread over it. A trace that is over begins again.
 *
 *   off        as it is
 *   learning   what is learned from the rounds (predict/waiting.h)
 *   auto       the same, and in the first what was written in the first windows of the trace, in
 *              which it would have had to wait for its destination anyway
 *   lru, lru-splay, written
 *              the predictors of predict/: what they expect, of the first windows of the trace,
 *              waits for as long as it is written in every round (paper ZawThein, IV)
 *   lru-splay-1
 *              the same with the process alone that ran last, as the paper has it
 *   optimum    knows what will be written: every page travels once, after its last write; the
 *              earliest end at which that is possible, or null where it never is
 *
 * Prints a JSON object, an object for each: pages sent, ms in all and stopped, rounds, pages that
 * were predicted, and how many of these were written before the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "clock.h"
#include "error.h"
#include "trace.h"
#include "waiting.h"
#include "working_set.h"

/* Of a page in a frame of 256. */
#define WIRE_BYTES 4100

/* Windows that are watched before, where something is predicted. */
#define WATCHED 10

/* Rounds after which a guest that cannot be moved within the limit is moved all the same. */
#define ROUNDS_MAX 30

#define FIXED_NS (25 * GW_MS)

struct window {
	struct trace_window w;
	const uint64_t *processes;
	const uint32_t *accessed, *written;
	uint64_t nr_accessed, nr_written;
};

struct trace {
	const struct trace_header *header;
	const uint32_t *used;
	uint64_t nr_used;
	struct window *windows;
};

/* Where a play stands in the trace: what was written from its beginning on. */
struct clock {
	const struct trace *trace;
	size_t window;
	uint64_t played; /* of the writes of the window */
	int64_t into, now;
};

struct play {
	const struct trace *trace;
	struct clock at;
	double page_ns;
	int64_t limit;
	struct gw_bitmap due, written; /* written since the scan */
	struct gw_waiting waiting;
	size_t sent, rounds;
	int64_t began, stopped;
};

/* Everything that follows in the file, or NULL. */
static const void *take(const char **at, const char *end, size_t len)
{
	const char *from = *at;

	if ((size_t)(end - from) < len)
		return NULL;
	*at += len;
	return from;
}

static const uint32_t *take_list(const char **at, const char *end, uint64_t *n)
{
	const struct trace_list *list = take(at, end, sizeof(*list));

	*n = list ? list->pages : 0;
	return list && *n <= UINT32_MAX ? take(at, end, *n * sizeof(uint32_t)) : NULL;
}

static int parse(struct trace *t, const char *at, size_t len)
{
	const char *end = at + len;

	t->header = take(&at, end, sizeof(*t->header));
	if (!t->header || memcmp(t->header->magic, TRACE_MAGIC, sizeof(t->header->magic)) ||
	    !t->header->windows || t->header->windows > TRACE_WINDOWS)
		return gw_fail(-EPROTO, "this is no trace");
	t->used = take_list(&at, end, &t->nr_used);
	t->windows = calloc(t->header->windows, sizeof(*t->windows));
	for (size_t i = 0; t->windows && i < t->header->windows; i++) {
		struct window *w = &t->windows[i];
		const struct trace_window *head = take(&at, end, sizeof(*head));

		if (head) {
			w->w = *head;
			w->processes = take(&at, end, head->processes * sizeof(uint64_t));
			w->accessed = take_list(&at, end, &w->nr_accessed);
			w->written = take_list(&at, end, &w->nr_written);
		}
		if (!head || !w->processes || !w->accessed || !w->written || w->w.ns <= 0)
			return gw_fail(-EPROTO, "the trace ends in window %zu", i);
	}
	return t->used && t->windows ? 0 : gw_fail(-EPROTO, "the trace is not whole");
}

/* Play on until @now; what is written goes into @written. */
static void advance(struct clock *c, int64_t now, struct gw_bitmap *written)
{
	while (c->now < now) {
		const struct window *w = &c->trace->windows[c->window];
		const int64_t left = now - c->now;
		const bool whole = c->into + left >= w->w.ns;
		const int64_t into = whole ? w->w.ns : c->into + left;
		const uint64_t until =
			whole ? w->nr_written
			      : (uint64_t)((double)w->nr_written * (double)into / (double)w->w.ns);

		for (; c->played < until; c->played++)
			gw_bitmap_set(written, w->written[c->played]);
		c->now += into - c->into;
		c->into = into;
		if (!whole)
			continue;
		c->window = (c->window + 1) % c->trace->header->windows;
		c->played = 0;
		c->into = 0;
	}
}

static void set_list(struct gw_bitmap *map, const uint32_t *list, uint64_t n)
{
	gw_bitmap_zero(map);
	for (uint64_t i = 0; i < n; i++)
		gw_bitmap_set(map, list[i]);
}

/* Watch for some windows, which is part of the time that it takes. */
static int predict(struct play *p, struct gw_working_set *ws)
{
	struct gw_bitmap accessed = { 0 }, written = { 0 };
	int rc = gw_bitmap_init(&accessed, p->due.bits) ?: gw_bitmap_init(&written, p->due.bits);

	for (size_t i = 0; !rc && i < WATCHED; i++) {
		const struct window *w = &p->trace->windows[i % p->trace->header->windows];
		const struct gw_seen seen = { .accessed = &accessed,
					      .written = &written,
					      .processes = w->processes,
					      .nr_processes = w->w.processes };

		set_list(&accessed, w->accessed, w->nr_accessed);
		set_list(&written, w->written, w->nr_written);
		gw_working_set_add(ws, &seen);
		advance(&p->at, p->at.now + w->w.ns - p->at.into, &p->written);
	}
	gw_bitmap_free(&accessed);
	gw_bitmap_free(&written);
	gw_bitmap_zero(&p->written); /* the first scan is before the first round */
	if (!rc)
		gw_working_set_take(ws, &p->due, p->due.bits / 2, &p->waiting.hot);
	return rc;
}

/* Send the due pages; what was written again since the scan waits. */
static void play_round(struct play *p)
{
	double at = (double)p->at.now;
	size_t start, stop;

	gw_bitmap_for_each_run(&p->due, 0, p->due.bits, start, stop)
		for (size_t page = start; page < stop; page++) {
			if (gw_bitmap_test(&p->written, page))
				continue;
			p->sent++;
			at += p->page_ns;
			advance(&p->at, (int64_t)at, &p->written);
		}
	p->rounds++;
}

static void scan(struct play *p, size_t room)
{
	memcpy(p->due.words, p->written.words, (p->due.bits + 63) / 64 * sizeof(p->due.words[0]));
	gw_bitmap_zero(&p->written);
	gw_waiting_scan(&p->waiting, &p->due, NULL, room);
}

/* If it were stopped now. */
static int64_t cost(const struct play *p)
{
	const size_t n = gw_bitmap_count(&p->written, 0, p->written.bits) +
			 gw_waiting_count(&p->waiting, &p->written);

	return FIXED_NS + (int64_t)((double)n * p->page_ns);
}

static void play_rounds(struct play *p)
{
	const size_t fits = (size_t)((double)(p->limit - FIXED_NS) / p->page_ns);
	int64_t before = INT64_MAX, now;

	gw_waiting_first(&p->waiting, &p->due);
	play_round(p);
	while ((now = cost(p)) > p->limit && p->rounds < ROUNDS_MAX) {
		scan(p, gw_waiting_room(&p->waiting, fits, before, now));
		play_round(p);
		before = now;
	}
	p->stopped = now;
	p->sent += (size_t)((double)(now - FIXED_NS) / p->page_ns + 0.5);
	gw_waiting_end(&p->waiting, &p->written);
}

static int play(struct play *p, const char *name, struct gw_working_set *ws, bool learns)
{
	const size_t bits = p->trace->header->pages;
	int rc;

	p->at = (struct clock){ .trace = p->trace };
	rc = gw_bitmap_init(&p->due, bits) ?: gw_bitmap_init(&p->written, bits) ?:
	     gw_waiting_init(&p->waiting, bits, learns);
	if (!rc)
		set_list(&p->due, p->trace->used, p->trace->nr_used);
	if (!rc && ws)
		rc = predict(p, ws);
	if (learns)
		p->began = p->at.now; /* it would have waited anyway */
	if (!rc) {
		play_rounds(p);
		printf("\"%s\": {\"sent\": %zu, \"ms\": %.1f, \"stopped-ms\": %.1f, \"rounds\": "
		       "%zu, \"predicted\": %zu, \"hits\": %zu}, ",
		       name, p->sent, (double)(p->at.now - p->began + p->stopped) / GW_MS,
		       (double)p->stopped / GW_MS, p->rounds, p->waiting.nr_predicted,
		       p->waiting.nr_seen);
	}
	gw_bitmap_free(&p->due);
	gw_bitmap_free(&p->written);
	gw_waiting_free(&p->waiting);
	return rc;
}

/*
 * At @stop every page has been sent once, after its last write, if for every moment t what was
 * written last after t is no more than what fits from then on: into the time that is left, and the
 * limit. @of_window, @ends: pages that each window was the last to write; when it ended, ns
 */
static bool possible(const struct play *p, int64_t stop, const size_t *of_window,
		     const int64_t *ends, size_t windows)
{
	const double stopped = (double)(p->limit - FIXED_NS) / p->page_ns;
	size_t n = 0;

	for (size_t i = windows; i-- > 0;) {
		const int64_t began = i ? ends[i - 1] : 0;

		n += of_window[i];
		if ((double)n > stopped + (double)(stop - began) / p->page_ns)
			return false;
	}
	return (double)p->trace->nr_used <= stopped + (double)stop / p->page_ns;
}

/* Within the trace: it does not begin again. */
static int optimum(const struct play *p)
{
	const struct trace *t = p->trace;
	const size_t windows = t->header->windows;
	size_t *of_window = calloc(windows, sizeof(*of_window));
	uint32_t *last = calloc(t->header->pages, sizeof(*last)); /* window, from 1 on */
	int64_t *ends = calloc(windows, sizeof(*ends)), now = 0;
	bool found = false;
	const int rc = of_window && last && ends ? 0
						 : gw_fail(-ENOMEM, "no memory for the optimum");

	for (size_t i = 0; !rc && !found && i < windows; i++) {
		const struct window *w = &t->windows[i];

		now += w->w.ns;
		ends[i] = now;
		for (uint64_t k = 0; k < w->nr_written; k++) {
			uint32_t *was = &last[w->written[k]];

			if (*was)
				of_window[*was - 1]--;
			*was = (uint32_t)i + 1;
			of_window[i]++;
		}
		found = possible(p, now, of_window, ends, i + 1);
	}
	if (found)
		printf("\"optimum\": {\"sent\": %zu, \"ms\": %.1f}}\n", (size_t)t->nr_used,
		       (double)(now + p->limit) / GW_MS);
	else
		printf("\"optimum\": null}\n");
	free(of_window);
	free(last);
	free(ends);
	return rc;
}

static int compare(const struct trace *t, double mbit_s, int64_t limit)
{
	static const struct {
		const char *name;
		bool predicts, learns;
		enum gw_predictor predictor;
		unsigned int processes;
	} ways[] = { { "off", false, false, 0, 0 },
		     { "learning", false, true, 0, 0 },
		     { "lru", true, false, GW_PREDICT_LRU, 0 },
		     { "lru-splay-1", true, false, GW_PREDICT_LRU_SPLAY, 1 },
		     { "lru-splay", true, false, GW_PREDICT_LRU_SPLAY, 16 },
		     { "written", true, false, GW_PREDICT_WRITTEN, 0 },
		     { "auto", true, true, GW_PREDICT_WRITTEN, 0 } };
	const struct play fresh = { .trace = t,
				    .page_ns = WIRE_BYTES * 8e3 / mbit_s,
				    .limit = limit };
	int rc = 0;

	printf("{\"pages\": %zu, ", (size_t)t->nr_used);
	for (size_t i = 0; !rc && i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct gw_working_set ws = { 0 };
		struct play p = fresh;

		if (ways[i].predicts)
			rc = gw_working_set_init(&ws, ways[i].predictor, t->header->pages);
		ws.processes = ways[i].processes;
		if (!rc)
			rc = play(&p, ways[i].name, ways[i].predicts ? &ws : NULL, ways[i].learns);
		gw_working_set_free(&ws);
	}
	return rc ? rc : optimum(&fresh);
}

static char *load(const char *path, size_t *len)
{
	FILE *file = fopen(path, "rbe");
	char *all = NULL;
	long size = -1;

	if (file && !fseek(file, 0, SEEK_END))
		size = ftell(file);
	if (size > 0 && !fseek(file, 0, SEEK_SET))
		all = malloc((size_t)size);
	*len = all ? fread(all, 1, (size_t)size, file) : 0;
	if (file)
		fclose(file);
	return all;
}

int main(int argc, char **argv)
{
	const double mbit_s = argc == 4 ? strtod(argv[2], NULL) : 0;
	const double ms = argc == 4 ? strtod(argv[3], NULL) : 0;
	struct trace t = { 0 };
	size_t len;
	char *all;
	int rc;

	if (mbit_s <= 0 || ms <= (double)FIXED_NS / GW_MS) {
		fprintf(stderr, "usage: replay FILE MBIT_S LIMIT_MS (more than %d)\n",
			(int)(FIXED_NS / GW_MS));
		return 2;
	}
	all = load(argv[1], &len);
	rc = all ? parse(&t, all, len) : gw_fail(-ENOENT, "%s cannot be read", argv[1]);
	if (!rc)
		rc = compare(&t, mbit_s, (int64_t)(ms * GW_MS));
	if (rc)
		fprintf(stderr, "replay: %s\n", gw_error());
	free(t.windows);
	free(all);
	return rc ? 1 : 0;
}
