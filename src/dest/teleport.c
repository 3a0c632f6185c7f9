// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * teleport.c - what is put aside, read and placed; see teleport.h.
 *
 * Runs that were put aside wait in the order in which they came. Whenever a read may begin and
 * none is chosen, all that waits is sorted by disk and sector, once, and taken from the front: so
 * a disk sees its own order, and each run is sorted a few times at most. Runs near each other are
 * one read, what lies between them is read and thrown away.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "key.h"
#include "pipeline.h"
#include "runs.h"
#include "teleport.h"

#define READ_MAX  (1UL << 20)  /* bytes that are read in one go */
#define GAP_MAX	  (64UL << 10) /* that are read in vain between two runs */
#define READS_MAX 4U	       /* at a time */

/* How often it is looked how fast the disks are, and how slow they may never be. */
#define LOOK_NS	   (250 * GW_MS)
#define RATE_LEAST (16UL << 20)

/*
 * Pages that are put aside at most, 16 GiB: they take some hundred MiB. And runs that are put in
 * order at a time, for which all streams wait.
 */
#define ASIDE_MAX (4UL << 20)
#define SORT_MAX  (1UL << 18)

/* What one who places pages may take for it. */
#define CALM_NS (60 * GW_S)

/* A run that was put aside. */
struct run {
	uint64_t page;
	unsigned int count;
	struct gw_hint at;
	uint8_t digests[];
};

/* Runs that are one read. */
struct read {
	struct gw_teleport *t;
	uint64_t round; /* in which it began */
	struct gw_hint at;
	size_t len; /* bytes from there on */
	struct run **runs;
	size_t nr_runs;
	struct read *next, **link; /* of those under way */
};

struct gw_teleport {
	struct gw_dest *d;
	struct gw_sink *sink;
	pthread_mutex_t lock; /* all below */
	struct run **runs;    /* from @next to @sorted in the disks' order, then as they came */
	size_t next, sorted, nr, room;
	struct read *under_way; /* of earlier rounds, too, if they hang */
	unsigned int reads;	/* of this round's */
	uint64_t round;
	uint64_t pages;	      /* put aside, neither placed nor lacking */
	uint64_t placed;      /* in this round */
	uint64_t rate;	      /* the highest of all rounds */
	unsigned int placing; /* threads that are at it just now */
	bool starting, given_up;
	struct gw_bitmap lacks;
	size_t nr_lacks;
	int rc; /* of placing: memory is at fault, not a disk */
	/* Post-copy; NULL: it is not yet. What is lacking; when it was looked at last, and then. */
	void (*refuse)(void *arg, uint64_t page, unsigned int count);
	void *refuse_arg;
	int64_t looked;
	uint64_t placed_then, pages_then;
};

static void read_free(struct read *r)
{
	for (size_t i = 0; i < r->nr_runs; i++)
		free(r->runs[i]);
	free(r->runs);
	free(r);
}

int gw_teleport_open(struct gw_dest *d, struct gw_sink *sink, struct gw_teleport **out)
{
	struct gw_teleport *t = calloc(1, sizeof(*t));

	*out = t;
	if (!t)
		return gw_fail(-ENOMEM, "no memory to read disks");
	t->d = d;
	t->sink = sink;
	pthread_mutex_init(&t->lock, NULL);
	return gw_bitmap_init(&t->lacks, d->memory->nr_pages);
}

void gw_teleport_close(struct gw_teleport *t)
{
	struct read *r;

	if (!t)
		return;
	t->d->ops->fetch_end(t->d->env);
	while ((r = t->under_way)) {
		t->under_way = r->next;
		read_free(r);
	}
	for (size_t i = t->next; i < t->nr; i++)
		free(t->runs[i]);
	free(t->runs);
	gw_bitmap_free(&t->lacks);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int by_place(const void *a, const void *b)
{
	const struct gw_hint x = (*(struct run *const *)a)->at, y = (*(struct run *const *)b)->at;

	if (x.disk != y.disk)
		return x.disk < y.disk ? -1 : 1;
	return x.sector < y.sector ? -1 : x.sector > y.sector;
}

/* Of post-copy it is not noted: whoever calls says so at once. */
static void lack(struct gw_teleport *t, const struct run *run, unsigned int first,
		 unsigned int count)
{
	t->pages -= count;
	if (t->refuse)
		return;
	gw_bitmap_set_range(&t->lacks, run->page + first, count);
	t->nr_lacks += count;
}

static void lack_all(struct gw_teleport *t, const struct read *r)
{
	for (size_t i = 0; i < r->nr_runs; i++)
		lack(t, r->runs[i], 0, r->runs[i]->count);
}

/* Without the lock. */
static void refuse_all(const struct gw_teleport *t, const struct read *r)
{
	for (size_t i = 0; t->refuse && i < r->nr_runs; i++)
		t->refuse(t->refuse_arg, r->runs[i]->page, r->runs[i]->count);
}

/* Place what of @run has its digest; the others are set in @wrong. */
static int place(struct gw_teleport *t, const struct run *run, const uint8_t *bytes,
		 struct gw_pageset *wrong)
{
	struct gw_pageset right = { { 0 } };
	unsigned int at = 0, first, count;
	int rc = 0;

	memset(wrong, 0, sizeof(*wrong));
	for (unsigned int i = 0; i < run->count; i++) {
		const struct gw_digest is = gw_key_page(&t->d->key, bytes + i * GW_PAGE_SIZE);

		gw_pageset_set(gw_digest_equal(is, gw_get_digest(run->digests + i * GW_DIGEST_LEN))
				       ? &right
				       : wrong,
			       i);
	}
	while (!rc && (count = gw_pageset_run(&right, &at, &first)))
		rc = t->sink->place(t->sink, run->page + first, count,
				    bytes + first * GW_PAGE_SIZE);
	/* In post-copy the source sends what could not be placed, and that fails as ever. */
	if (rc && t->refuse) {
		*wrong = gw_pageset_of(0, run->count);
		rc = 0;
	}
	at = 0;
	while (t->refuse && (count = gw_pageset_run(wrong, &at, &first)))
		t->refuse(t->refuse_arg, run->page + first, count);
	return rc;
}

static void unlink_read(struct read *r)
{
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
}

static void start_reads(struct gw_teleport *t);

/* A read has ended, on whatever thread; @bytes NULL: with nothing. */
static void bring(void *arg, const uint8_t *bytes)
{
	struct read *r = arg;
	struct gw_teleport *t = r->t;
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	unlink_read(r);
	/* Given up: its pages are lacking, and those of an earlier round may have come since. */
	if (r->round != t->round || t->given_up) {
		if (r->round == t->round)
			lack_all(t, r);
		pthread_mutex_unlock(&t->lock);
		read_free(r);
		return;
	}
	if (!bytes)
		lack_all(t, r);
	t->reads--;
	t->placing++;
	if (!bytes) {
		pthread_mutex_unlock(&t->lock);
		refuse_all(t, r);
		pthread_mutex_lock(&t->lock);
	}
	for (size_t i = 0; bytes && i < r->nr_runs; i++) {
		const struct run *run = r->runs[i];
		struct gw_pageset wrong;
		unsigned int at = 0, first, count;

		pthread_mutex_unlock(&t->lock);
		rc = rc
			     ?: place(t, run,
				      bytes + (run->at.sector - r->at.sector) * GW_SECTOR_SIZE,
				      &wrong);
		pthread_mutex_lock(&t->lock);
		while (!rc && (count = gw_pageset_run(&wrong, &at, &first)))
			lack(t, run, first, count);
		t->pages -= rc ? run->count : run->count - gw_pageset_count(&wrong);
		t->placed += rc ? 0 : run->count - gw_pageset_count(&wrong);
	}
	t->rc = t->rc ?: rc;
	t->placing--;
	start_reads(t);
	pthread_mutex_unlock(&t->lock);
	t->d->ops->notify(t->d->env);
	read_free(r);
}

/* How many runs from @next on are one read, that one at least; @len: its bytes. */
static size_t next_read(const struct gw_teleport *t, size_t *len)
{
	const struct gw_hint at = t->runs[t->next]->at;
	size_t n;

	*len = t->runs[t->next]->count * GW_PAGE_SIZE;
	for (n = 1; t->next + n < t->sorted; n++) {
		const struct run *run = t->runs[t->next + n];
		const size_t begin = (run->at.sector - at.sector) * GW_SECTOR_SIZE;
		const size_t end = begin + run->count * GW_PAGE_SIZE;

		if (run->at.disk != at.disk || begin > *len + GAP_MAX || end > READ_MAX)
			break;
		*len = end > *len ? end : *len;
	}
	return n;
}

/* The next runs as a read; NULL: no memory. */
static struct read *make_read(struct gw_teleport *t)
{
	struct read *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->t = t;
	r->round = t->round;
	r->at = t->runs[t->next]->at;
	r->nr_runs = next_read(t, &r->len);
	r->runs = malloc(r->nr_runs * sizeof(struct run *));
	if (!r->runs) {
		free(r);
		return NULL;
	}
	memcpy(r->runs, t->runs + t->next, r->nr_runs * sizeof(struct run *));
	r->next = t->under_way;
	r->link = &t->under_way;
	if (r->next)
		r->next->link = &r->next;
	t->under_way = r;
	return r;
}

/* The next of what waits, in the disks' order. */
static void sort(struct gw_teleport *t)
{
	const size_t left = t->nr - t->next, count = left < SORT_MAX ? left : SORT_MAX;

	if (t->next > t->nr / 2) {
		memmove(t->runs, t->runs + t->next, left * sizeof(struct run *));
		t->nr = left;
		t->next = 0;
	}
	qsort(t->runs + t->next, count, sizeof(struct run *), by_place);
	t->sorted = t->next + count;
}

/* With the lock, which it gives up meanwhile: a read may end before fetch() has returned. */
static void start_reads(struct gw_teleport *t)
{
	if (t->starting)
		return;
	t->starting = true;
	while (t->next < t->nr && t->reads < READS_MAX && !t->given_up) {
		struct read *r;

		if (t->next == t->sorted)
			sort(t);
		r = make_read(t);
		if (!r)
			break; /* whoever ends next, or settles, finds it where it was */
		t->next += r->nr_runs;
		t->reads++;
		pthread_mutex_unlock(&t->lock);
		t->d->ops->fetch(t->d->env, r->at.disk, r->at.sector * GW_SECTOR_SIZE, r->len,
				 bring, r);
		pthread_mutex_lock(&t->lock);
	}
	t->starting = false;
}

/* 0: @run is ours; 1: it is lacking; -errno. */
static int add(struct gw_teleport *t, struct run *run)
{
	struct run **more;

	if (run->count > t->d->memory->nr_pages - t->pages - t->nr_lacks)
		return gw_fail(-EPROTO, "more pages of disks in a round than the VM has");
	if (t->pages >= ASIDE_MAX || (t->refuse && t->given_up)) { /* the network is faster */
		t->pages += run->count;
		lack(t, run, 0, run->count);
		return 1;
	}
	if (t->nr == t->room) {
		more = realloc(t->runs, (2 * t->room + 64) * sizeof(struct run *));
		if (!more)
			return gw_fail(-ENOMEM, "no memory for pages of disks");
		t->runs = more;
		t->room = 2 * t->room + 64;
	}
	t->runs[t->nr++] = run;
	t->pages += run->count;
	start_reads(t);
	return 0;
}

int gw_teleport_put(struct gw_teleport *t, uint64_t page, unsigned int count, struct gw_hint at,
		    const uint8_t *digests)
{
	struct run *run;
	int rc;

	if (at.disk >= json_array_size(t->d->disks))
		return gw_fail(-EPROTO, "pages of disk %u, which was not offered", at.disk);
	run = malloc(sizeof(*run) + count * GW_DIGEST_LEN);
	if (!run)
		return gw_fail(-ENOMEM, "no memory for pages of disks");
	run->page = page;
	run->count = count;
	run->at = at;
	memcpy(run->digests, digests, count * GW_DIGEST_LEN);
	pthread_mutex_lock(&t->lock);
	rc = add(t, run);
	pthread_mutex_unlock(&t->lock);
	if (rc > 0 && t->refuse)
		t->refuse(t->refuse_arg, page, count);
	if (rc)
		free(run);
	return rc < 0 ? rc : 0;
}

static bool is_settled(void *arg)
{
	struct gw_teleport *t = arg;
	gw_locked(&t->lock);

	return (!t->pages || t->rc) && !t->placing;
}

static bool is_calm(void *arg)
{
	struct gw_teleport *t = arg;
	gw_locked(&t->lock);

	return !t->placing && !t->starting;
}

static uint64_t placed(struct gw_teleport *t)
{
	gw_locked(&t->lock);

	return t->placed;
}

/* Whatever has not been read by now is lacking. */
static int give_up(struct gw_teleport *t)
{
	struct gw_dest *d = t->d;
	int rc;

	pthread_mutex_lock(&t->lock);
	t->given_up = true;
	pthread_mutex_unlock(&t->lock);
	rc = d->ops->wait(d->env, is_calm, t, d->ops->now(d->env) + CALM_NS);
	return rc == -ETIMEDOUT ? gw_fail(rc, "what was read from a disk is not placed in memory "
					      "within a minute")
				: rc;
}

/* The disks are read until all is, or they are not worth it. */
static int await(struct gw_teleport *t)
{
	struct gw_dest *d = t->d;
	int64_t told = d->ops->now(d->env);

	for (;;) {
		const uint64_t before = placed(t);
		const int64_t now = d->ops->now(d->env);
		int rc = d->ops->wait(d->env, is_settled, t, now + LOOK_NS);

		if (rc != -ETIMEDOUT)
			return rc;
		if ((double)(placed(t) - before) * GW_PAGE_SIZE <
		    (double)(t->rate > RATE_LEAST ? t->rate : RATE_LEAST) * LOOK_NS / GW_S)
			return give_up(t);
		if (now > told + GW_DEST_WAIT_MS * GW_MS) {
			gw_dest_wait(d, "reading its disks");
			told = now;
		}
	}
}

/* What is left of the round is lacking; the next one begins. */
static void end_round(struct gw_teleport *t)
{
	for (const struct read *r = t->under_way; r; r = r->next)
		if (r->round == t->round)
			lack_all(t, r);
	for (; t->next < t->nr; t->next++) {
		lack(t, t->runs[t->next], 0, t->runs[t->next]->count);
		free(t->runs[t->next]);
	}
	free(t->runs);
	t->runs = NULL;
	t->next = t->sorted = t->nr = t->room = 0;
	t->round++;
	t->reads = 0;
	t->placed = 0;
	t->given_up = false;
}

static int tell_lacks(struct gw_teleport *t)
{
	gw_autofree uint8_t *runs = t->nr_lacks ? malloc(GW_RUNS_MAX * GW_RUN_LEN) : NULL;
	size_t at = 0, pages, len;
	int rc = 0;

	if (t->nr_lacks && !runs)
		return gw_fail(-ENOMEM, "no memory for an answer");
	while (runs && !rc && (len = gw_runs_put(&t->lacks, &at, SIZE_MAX, &pages, runs)))
		rc = gw_frame_send_buf(t->d->control, GW_MSG_REFUSED, 0, runs, len);
	if (t->nr_lacks)
		gw_bitmap_zero(&t->lacks);
	t->nr_lacks = 0;
	return rc;
}

int gw_teleport_settle(struct gw_teleport *t, uint64_t rate)
{
	const int64_t began = t->d->ops->now(t->d->env);
	int rc;

	t->rate = rate > t->rate ? rate : t->rate;
	rc = await(t);

	t->d->disks_ns = t->d->ops->now(t->d->env) - began;

	if (rc)
		return rc;
	pthread_mutex_lock(&t->lock);
	rc = t->rc ? gw_fail(t->rc, "cannot write what a disk holds into the guest's memory") : 0;
	end_round(t);
	pthread_mutex_unlock(&t->lock);
	/* From here on nobody else touches what is lacking: no stream sends before ROUND_DONE. */
	return rc ? rc : tell_lacks(t);
}

void gw_teleport_follow(struct gw_teleport *t, struct gw_sink *sink,
			void (*refuse)(void *arg, uint64_t page, unsigned int count), void *arg)
{
	gw_locked(&t->lock);

	t->sink = sink;
	t->refuse = refuse;
	t->refuse_arg = arg;
	t->looked = t->d->ops->now(t->d->env);
}

/*
 * Take all that waits, and that is being read, off: an array of runs, and its length in *@nr;
 * NULL: no memory for it, nothing was done. With the lock.
 */
static struct run **take_all(struct gw_teleport *t, size_t *nr)
{
	size_t n = t->nr - t->next, at = 0;
	struct run **runs;

	for (const struct read *r = t->under_way; r; r = r->next)
		n += r->round == t->round ? r->nr_runs : 0;
	runs = calloc(n + 1, sizeof(struct run *));
	if (!runs)
		return NULL;
	for (struct read *r = t->under_way; r; r = r->next) {
		if (r->round != t->round)
			continue;
		memcpy(runs + at, r->runs, r->nr_runs * sizeof(struct run *));
		at += r->nr_runs;
		r->nr_runs = 0;
	}
	memcpy(runs + at, t->runs + t->next, (n - at) * sizeof(struct run *));
	*nr = n;
	for (size_t i = 0; i < n; i++)
		t->pages -= runs[i]->count;
	t->next = t->sorted = t->nr = 0;
	t->reads = 0;
	t->round++;
	return runs;
}

/* Whether the disks have brought as much as they should have, of what there was to read. */
static bool is_worth_it(const struct gw_teleport *t, int64_t ns)
{
	const double rate = (double)(t->rate > RATE_LEAST ? t->rate : RATE_LEAST);
	const double due = rate * (double)ns / GW_S / GW_PAGE_SIZE;

	return (double)(t->placed - t->placed_then) >=
	       (due < (double)t->pages_then ? due : (double)t->pages_then);
}

void gw_teleport_look(struct gw_teleport *t)
{
	const int64_t now = t->d->ops->now(t->d->env);
	struct run **runs = NULL;
	size_t nr = 0;

	pthread_mutex_lock(&t->lock);
	if (now - t->looked >= LOOK_NS) {
		if (!t->given_up && !is_worth_it(t, now - t->looked))
			runs = take_all(t, &nr);
		t->given_up = t->given_up || runs;
		t->looked = now;
		t->placed_then = t->placed;
		t->pages_then = t->pages;
	}
	pthread_mutex_unlock(&t->lock);
	for (size_t i = 0; i < nr; i++) {
		t->refuse(t->refuse_arg, runs[i]->page, runs[i]->count);
		free(runs[i]);
	}
	free(runs);
}

int gw_teleport_renew(struct gw_teleport *t)
{
	struct gw_dest *d = t->d;
	struct run **runs;
	size_t nr = 0;

	pthread_mutex_lock(&t->lock);
	runs = take_all(t, &nr);
	t->pages_then = 0;
	pthread_mutex_unlock(&t->lock);
	for (size_t i = 0; i < nr; i++)
		free(runs[i]);
	free(runs);
	return runs ? d->ops->wait(d->env, is_calm, t, d->ops->now(d->env) + CALM_NS)
		    : gw_fail(-ENOMEM, "no memory to leave off reading disks");
}
