// SPDX-License-Identifier: GPL-2.0-or-later
/* defer.c - which due pages wait; see defer.h. */
#include <string.h>

#include "clock.h"
#include "error.h"
#include "internal.h"
#include "pipeline.h"

/* So long is looked, or longer, where a look takes more than a tenth of that. */
#define WINDOW_NS  (50 * GW_MS)
#define LOOK_SHARE 10

/* The working set is known when so many windows in a row have added less than a twentieth. */
#define STABLE_WINDOWS 3
#define STABLE_SHARE   20

static const char *const words[] = { [GW_DEFER_OFF] = "off",
				     [GW_DEFER_LRU] = "lru",
				     [GW_DEFER_LRU_SPLAY] = "lru-splay",
				     [GW_DEFER_AUTO] = "auto" };

int gw_defer_parse(const char *word, enum gw_defer_mode *mode)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(word, words[i])) {
			*mode = (enum gw_defer_mode)i;
			return 0;
		}
	return gw_fail(-EINVAL, "--working-set is off, lru, lru-splay or auto, not '%s'", word);
}

bool gw_defer_wanted(const struct gw_source *s)
{
	return s->params.working_set != GW_DEFER_OFF && !s->carried;
}

/* Rounds are concerned with what is written; a guest that goes before them, with what it touches.
 */
static bool is_now(const struct gw_source *s)
{
	return s->params.postcopy == GW_POSTCOPY_NOW;
}

int gw_defer_start(struct gw_source *s)
{
	const enum gw_defer_mode mode = s->params.working_set;
	const enum gw_predictor predictor = mode == GW_DEFER_LRU_SPLAY ? GW_PREDICT_LRU_SPLAY
					    : mode == GW_DEFER_LRU || is_now(s)
						    ? GW_PREDICT_LRU
						    : GW_PREDICT_WRITTEN;
	const size_t pages = s->memory->nr_pages;
	struct gw_defer *d = &s->defer;
	int rc;

	/* Each scan of such a tracker stops the guest. */
	if (!gw_defer_wanted(s) || s->tracker->ops->needs_quiesce)
		return 0;
	d->mode = mode;
	d->window_ns = WINDOW_NS;
	d->window_end = s->ops->now(s->env) + WINDOW_NS;
	d->cost = INT64_MAX;
	rc = gw_working_set_init(&d->set, predictor, pages);
	if (!rc)
		rc = gw_waiting_init(&d->waiting, pages, mode == GW_DEFER_AUTO);
	if (!rc)
		rc = gw_bitmap_init(&d->written, pages);
	if (!rc)
		rc = gw_bitmap_init(&d->accessed, pages);
	return rc ? rc : gw_bitmap_init(&d->early, pages);
}

void gw_defer_free(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;

	gw_working_set_free(&d->set);
	gw_waiting_free(&d->waiting);
	gw_bitmap_free(&d->written);
	gw_bitmap_free(&d->accessed);
	gw_bitmap_free(&d->early);
}

/* What was written in a window, which nobody but us knows from here on. */
static int see_written(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;
	int rc;

	gw_bitmap_zero(&d->written);
	rc = gw_tracker_scan(s->tracker, &d->written);
	gw_bitmap_or(&d->early, &d->written);
	return rc;
}

/* The next window begins; a guest whose memory takes long to look at is not looked at all the time.
 */
static void next_window(struct gw_source *s, int64_t began)
{
	const int64_t now = s->ops->now(s->env), look = now - began;

	s->defer.window_ns = look > WINDOW_NS / LOOK_SHARE ? look * LOOK_SHARE : WINDOW_NS;
	s->defer.window_end = now + s->defer.window_ns;
}

/* What was accessed in a window: where that cannot be told, what was written. */
static int see_accessed(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;
	int rc = see_written(s);

	gw_bitmap_zero(&d->accessed);
	if (!rc && s->tracker->ops->sample)
		rc = s->tracker->ops->sample(s->tracker, &d->accessed);
	if (rc == -EAGAIN) { /* QEMU cannot be stopped just now */
		gw_error_clear();
		rc = 0;
	}
	gw_bitmap_or(&d->accessed, &d->written);
	return rc;
}

/* Which processes run just now; none where that cannot be told. */
static size_t processes(struct gw_source *s, uint64_t *ids)
{
	const int n = s->ops->processes ? s->ops->processes(s->env, ids, GW_DEFER_VCPUS) : 0;

	if (n < 0)
		gw_error_clear();
	return n < 0 ? 0 : (size_t)n;
}

int gw_defer_tick(void *arg)
{
	struct gw_source *s = arg;
	struct gw_defer *d = &s->defer;
	const int64_t now = s->ops->now(s->env);
	uint64_t ids[GW_DEFER_VCPUS];
	struct gw_seen seen = { .accessed = &d->accessed,
				.written = &d->written,
				.processes = ids };
	int rc;

	if (now < d->window_end || (gw_defer_watches(d->mode) && !is_now(s)))
		return 0;
	if (is_now(s) && d->mode == GW_DEFER_LRU_SPLAY)
		seen.nr_processes = processes(s, ids);
	rc = is_now(s) ? see_accessed(s) : see_written(s);
	if (rc)
		return rc;
	/* Nobody knows since when what is seen first was accessed. */
	if (!is_now(s) || d->begun)
		gw_working_set_add(&d->set, &seen);
	d->begun = true;
	next_window(s, now);
	s->ops->report(s->env);
	return 0;
}

static int see_window(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;
	uint64_t ids[2 * GW_DEFER_VCPUS];
	const size_t before = processes(s, ids);
	struct gw_seen w = { .accessed = &d->accessed, .written = &d->written, .processes = ids };
	int rc;

	s->ops->sleep_until(s->env, d->window_end);
	w.nr_processes = before + processes(s, ids + before);
	rc = see_accessed(s);
	if (!rc)
		gw_working_set_add(&d->set, &w);
	return rc;
}

/* How many pages the working set has that it had not before. */
static size_t grown(struct gw_defer *d, size_t *size)
{
	struct gw_bitmap *hot = &d->waiting.hot;
	const size_t before = gw_bitmap_count(hot, 0, hot->bits);

	/* What has left it is found before the first round. */
	gw_working_set_take(&d->set, NULL, hot->bits, hot);
	*size = gw_bitmap_count(hot, 0, hot->bits);
	return *size - before;
}

int gw_defer_watch(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;
	const int64_t began = s->ops->now(s->env);
	const int64_t end = began + s->params.preprocess_ms * GW_MS;
	unsigned int stable = 0;
	int rc = 0;

	if (!gw_defer_watches(d->mode) || is_now(s))
		return 0;
	rc = see_accessed(s); /* as above */
	next_window(s, began);
	while (!rc && stable < STABLE_WINDOWS && d->window_end <= end) {
		const int64_t looked = d->window_end;
		size_t size;

		rc = see_window(s);
		if (!rc)
			rc = s->ops->cancelled(s->env);
		stable = grown(d, &size) <= size / STABLE_SHARE ? stable + 1 : 0;
		next_window(s, looked);
		s->ops->report(s->env);
	}
	gw_bitmap_zero(&d->waiting.hot);
	d->watched_ns = s->ops->now(s->env) - began;
	return rc;
}

void gw_defer_early(struct gw_source *s)
{
	if (s->defer.mode)
		gw_bitmap_or(&s->due, &s->defer.early);
}

static void drop_windows(struct gw_defer *d)
{
	gw_bitmap_zero(&d->early);
	gw_bitmap_zero(&d->written);
	gw_bitmap_zero(&d->accessed);
}

void gw_defer_expect(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;

	if (!d->mode)
		return;
	drop_windows(d);
	d->expected = gw_working_set_take(&d->set, &s->due, s->memory->nr_pages / 2,
					  &d->waiting.hot);
}

const struct gw_bitmap *gw_defer_sooner(const struct gw_source *s)
{
	const struct gw_defer *d = &s->defer;

	return !d->mode ? NULL : is_now(s) ? &d->waiting.hot : &d->waiting.predicted;
}

void gw_defer_first(struct gw_source *s)
{
	struct gw_defer *d = &s->defer;

	if (!d->mode)
		return;
	gw_defer_expect(s);
	gw_waiting_first(&d->waiting, &s->due);
}

void gw_defer_round(struct gw_source *s, int64_t cost)
{
	struct gw_defer *d = &s->defer;

	if (!d->mode)
		return;
	gw_waiting_scan(&d->waiting, &s->due, &s->holder.encoder.held.filled,
			gw_waiting_room(&d->waiting, gw_converge_fits(s), d->cost, cost));
	d->cost = cost;
}

void gw_defer_end(struct gw_source *s)
{
	if (s->defer.mode)
		gw_waiting_end(&s->defer.waiting, &s->due);
}

uint64_t gw_defer_left(const struct gw_source *s, const struct gw_bitmap *written)
{
	return s->defer.mode ? gw_waiting_count(&s->defer.waiting, written) : 0;
}

json_t *gw_defer_json(const struct gw_source *s)
{
	const struct gw_defer *d = &s->defer;
	const struct gw_waiting *w;

	if (!d->mode)
		return NULL;
	w = &d->waiting;
	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "mode", words[d->mode],
			 "expected", (json_int_t)d->expected, "waits", (json_int_t)w->nr_waits,
			 "predicted", (json_int_t)w->nr_predicted, "hits", (json_int_t)w->nr_seen,
			 "misses", (json_int_t)(w->nr_predicted - w->nr_seen), "windows",
			 (json_int_t)d->set.windows, "windows-without-process",
			 (json_int_t)d->set.mixed, "preprocess-ms", (double)d->watched_ns / GW_MS);
}
