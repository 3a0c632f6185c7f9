// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * compress_auto.c - see compress_auto.h.
 *
 * The model, in ns for a byte that is offered:
 *
 *	making  = rest + cost(method)
 *	sending = (ratio(method) + others) * link
 *	time    = max(making, sending) + serial * min(making, sending)
 *
 * `rest` is what copying, hashing and the other stages take, `others` what
 * they send. cost and ratio come from use and from trials on a few pages; for
 * the method in use, time itself is measured and the model not asked.
 *
 * serial is 0 if the socket's buffer drains while the next batch is made and
 * never empties, 1 if there is none. One method alone cannot tell: its send
 * waits as long either way. Two methods on one link can, so it is learned when
 * one is tried.
 *
 * Rules: a method is used for good only if it was measured to be no slower
 * than what it replaced. Whatever is spent on finding out is bounded: trials
 * by TRIAL_SHARE of the stream's time, trying by LOSS_SHARE.
 */
#include <string.h>

#include "clock.h"
#include "compress_auto.h"

#define WINDOW_NS    (50 * GW_MS)
#define WINDOW_BYTES (64.0 * 1048576) /* ends a window too, if the clock crawls */
#define SETTLE_NS    (50 * GW_MS)
#define BREAK_NS     (20 * GW_MS) /* nothing offered for so long: the buffer has drained */
#define BLOCKED	     0.3	  /* share of a window in sends that says: the link decides */
#define WAITED	     2.0	  /* a send that takes so many times the fastest had to wait */
#define TELLING	     65536	  /* bytes of a frame below which its pace says little */
#define MEMORY	     16		  /* batches that the averages remember */
#define TRIAL_MEMORY 4		  /* trials that they remember: content changes between two */
#define WARMING	     0.1	  /* what the first counts: it pays for memory never touched */
#define GAIN	     0.9	  /* a method that takes so much of the time is tried */
#define GAIN_MORE    0.95	  /* the same, if another is in use already */
#define TOLERANCE    1.03
#define USELESS	     0.97 /* a ratio that is not worth having */
#define TRIAL_SHARE  0.005
#define SPARE_SHARE  0.015 /* the same while the processor waits for the link anyway */
#define USUAL_LZ4    1.25  /* ns a byte of what can be compressed at all */
#define SPARE	     4	   /* times slower than the cheapest method: a link that is waited for */
#define TRIALS_FIRST 9	   /* three of each, at once: something must be known */
#define LOSS_SHARE   0.015
#define CLEAR	     0.8  /* share of the time in sends that leaves no doubt */
#define HOPELESS     1.25 /* times as slow: no need to see the whole window */
#define SMOOTH	     4	  /* windows that are averaged */
#define RELEASED     3	  /* sends that take so many times less than they did: another link */
#define HOPELESS_NS  (10 * GW_MS)
#define BACKOFF_MIN  (1 * GW_S)
#define BACKOFF_MAX  (64 * GW_S)

static void restart(struct gw_auto *a, int64_t now, bool settling)
{
	a->w = (struct gw_auto_window){ .start = now };
	a->settling = settling;
}

void gw_auto_init(struct gw_auto *a, int64_t now)
{
	memset(a, 0, sizeof(*a));
	a->born = now;
	a->last = now;
	a->since = now;
	a->fastest = -1;
	a->hurry = true;
	restart(a, now, true);
}

enum gw_auto_method gw_auto_offer(struct gw_auto *a, int64_t now, uint64_t round, size_t bytes)
{
	if (round != a->round || now - a->last > BREAK_NS) {
		a->since += now - a->last;
		restart(a, now, true);
	}
	a->round = round;
	a->w.offered += (double)bytes;
	a->batch = (double)bytes;
	return a->method;
}

/* Whether @ns a byte is far more than a compressor takes; random bytes only seem to be quick. */
static bool is_far_slower(const struct gw_auto *a, double ns)
{
	const double lz4 = a->cost[GW_AUTO_LZ4].ns;

	return ns > SPARE * (lz4 > USUAL_LZ4 ? lz4 : USUAL_LZ4);
}

bool gw_auto_has_spare(const struct gw_auto *a)
{
	return a->blocked && a->serial < 0.5 && is_far_slower(a, a->link);
}

void gw_auto_changed(struct gw_auto *a)
{
	if (a->trials >= TRIALS_FIRST)
		a->trials = 0;
	memset(a->cost, 0, sizeof(a->cost));
	a->hurry = true;
}

bool gw_auto_wants_trial(const struct gw_auto *a, int64_t now)
{
	const double share = gw_auto_has_spare(a) ? SPARE_SHARE : TRIAL_SHARE;

	return a->trials < TRIALS_FIRST || a->trials_ns < share * (double)(now - a->born);
}

static void learn(struct gw_auto_cost *c, double memory, size_t bytes, size_t out, int64_t ns)
{
	double weight = bytes < TELLING ? (double)bytes / TELLING : 1, part;

	if (!bytes)
		return;
	if (!c->weight)
		weight *= WARMING;
	c->weight = c->weight + weight < memory ? c->weight + weight : memory;
	part = weight / c->weight;
	c->ns += ((double)ns / (double)bytes - c->ns) * part;
	c->ratio += ((double)out / (double)bytes - c->ratio) * part;
}

void gw_auto_trial(struct gw_auto *a, enum gw_auto_method method, size_t bytes, size_t out,
		   int64_t ns)
{
	/* What is in use is known better from its use. */
	if (method != a->method)
		learn(&a->cost[method], TRIAL_MEMORY, bytes, out, ns);
	a->w.trial_ns += ns;
	a->trials++;
	a->trials_ns += (double)ns;
}

void gw_auto_worked(struct gw_auto *a, size_t bytes, size_t out, int64_t ns)
{
	if (a->method != GW_AUTO_NONE)
		learn(&a->cost[a->method], MEMORY, bytes, out, ns);
	a->w.work_ns += ns;
	a->w.out += (double)out;
}

static void use(struct gw_auto *a, enum gw_auto_method method, int64_t now)
{
	a->method = method;
	a->since = now;
	a->pace = 0;
	restart(a, now, true);
}

static void start_trying(struct gw_auto *a, enum gw_auto_method method, double from_ns, int64_t now)
{
	a->trying = true;
	a->from = a->method;
	a->from_ns = from_ns;
	use(a, method, now);
	/* With less to send a full buffer stays full or stops mattering: measure at once. */
	a->settling = method == GW_AUTO_NONE;
}

/* Whether what is being tried is so slow that it need not be tried for long. */
static bool is_hopeless(const struct gw_auto *a, int64_t now)
{
	const double passed = (double)(now - a->w.start);

	return a->trying && passed >= HOPELESS_NS &&
	       passed > HOPELESS * a->from_ns * a->w.offered && a->w.offered >= 2 * a->batch;
}

/*
 * Whether a stream that knows nothing yet need not look for long: it did little
 * else than wait for a link that is far slower than a compressor.
 */
static bool is_clear(const struct gw_auto *a, int64_t now)
{
	const double passed = (double)(now - a->w.start);

	return a->hurry && a->method == GW_AUTO_NONE && passed >= HOPELESS_NS &&
	       (double)a->w.send_ns > CLEAR * passed && is_far_slower(a, passed / a->w.offered);
}

/* @time a byte was measured with the method that is being tried. */
static bool keep_or_return(struct gw_auto *a, double time, int64_t now)
{
	/* To leave compression takes a gain; to take it up, a promise and no loss. */
	const double limit = a->method == GW_AUTO_NONE ? 1 / TOLERANCE : TOLERANCE;
	const enum gw_auto_method tried = a->method;
	int64_t *backoff = &a->backoff[tried];

	a->trying = false;
	if (time > a->from_ns)
		a->spent += (double)(now - a->since) * (1 - a->from_ns / time);
	if (time <= a->from_ns * limit) {
		*backoff = 0;
		a->backoff[a->from] = BACKOFF_MIN;
		a->retry[a->from] = now + BACKOFF_MIN;
		return true;
	}
	*backoff = *backoff ? *backoff * 2 : BACKOFF_MIN;
	if (*backoff > BACKOFF_MAX)
		*backoff = BACKOFF_MAX;
	a->retry[tried] = now + *backoff;
	/* If this was dearer than it seemed, so are the others: not one after the other. */
	for (enum gw_auto_method m = GW_AUTO_LZ4; a->from == GW_AUTO_NONE && m < GW_AUTO_METHODS;
	     m++)
		if (a->retry[m] < a->retry[tried])
			a->retry[m] = a->retry[tried];
	use(a, a->from, now);
	return false;
}

static double model(const struct gw_auto *a, double making, double sending)
{
	return making > sending ? making + a->serial * sending : sending + a->serial * making;
}

/* A method on trial took @time, on a link that was measured with another. */
static void learn_serial(struct gw_auto *a, double making, double sending, double time)
{
	const double most = making > sending ? making : sending;
	const double least = making > sending ? sending : making;
	double serial = least > 0 ? (time - most) / least : 0;

	a->serial = serial < 0 ? 0 : serial > 1 ? 1 : serial;
}

/* Whether trying @method may cost @loss ns at this moment. */
static bool may_try(const struct gw_auto *a, enum gw_auto_method method, double loss, int64_t now)
{
	if (now < a->retry[method])
		return false;
	return !(a->spent + loss) || a->spent + loss <= LOSS_SHARE * (double)(now - a->born);
}

/* What a window tells, in ns a byte offered. */
struct seen {
	double time, rest, work;
	double wire, others; /* bytes a byte offered */
	double pace;	     /* of sends, a byte of the wire */
	bool blocked;
};

static struct seen look_at(const struct gw_auto_window *w, int64_t now)
{
	const double total = (double)(now - w->start);
	struct seen s = {
		.time = total / w->offered,
		.rest = (total - (double)(w->send_ns + w->work_ns + w->trial_ns)) / w->offered,
		.work = (double)w->work_ns / w->offered,
		.wire = w->wire / w->offered,
		.others = w->wire > w->out ? (w->wire - w->out) / w->offered : 0,
		.pace = (double)w->send_ns / w->wire,
		.blocked = (double)w->send_ns >= BLOCKED * total,
	};

	if (s.rest < 0)
		s.rest = 0;
	return s;
}

/* The link, from a window; one that hardly waited for it shows only that it is no slower. */
static void learn_link(struct gw_auto *a, const struct seen *s)
{
	const double most = s->time / s->wire;
	double *average;

	if (s->blocked)
		a->link = (s->time - a->serial * (s->time - s->pace * s->wire)) / s->wire;
	else if (!a->link)
		a->link = s->pace;
	else if (a->link > most)
		a->link = most;
	average = &a->time_ns[a->method];
	*average += (s->time - *average) / (a->trying || !*average ? 1 : SMOOTH);
}

/* The best method that compresses, if it is so much better than what is in use; or the latter. */
static enum gw_auto_method find_better(const struct gw_auto *a, const struct seen *s, int64_t now)
{
	double best_time = a->time_ns[a->method] * (a->method == GW_AUTO_NONE ? GAIN : GAIN_MORE);
	enum gw_auto_method best = a->method;

	for (enum gw_auto_method m = GW_AUTO_LZ4; m < GW_AUTO_METHODS; m++) {
		const struct gw_auto_cost *c = &a->cost[m];
		double t = model(a, s->rest + c->ns, (c->ratio + s->others) * a->link);

		if (m == a->method || !c->weight || c->ratio > USELESS || t >= best_time ||
		    !may_try(a, m, 0, now))
			continue;
		best = m;
		best_time = t;
	}
	return best;
}

/*
 * Without compression the link may carry more than is known: it was measured
 * while it was not the limit, or its far end was busy decompressing. So none
 * is tried now and then, at the price that the model says; and soon if the link
 * was @released, or the model itself says that none wins.
 */
static bool should_try_none(struct gw_auto *a, const struct seen *s, bool released, int64_t now)
{
	double none = model(a, s->rest, (1 + s->others) * a->link), loss = 0;
	int64_t *retry = &a->retry[GW_AUTO_NONE];

	if (none > a->time_ns[GW_AUTO_NONE])
		none = a->time_ns[GW_AUTO_NONE]; /* if it still is what it was */
	if (none > s->time && !released)
		loss = (2 * HOPELESS_NS + 4 * none * a->batch) * (1 - s->time / none);
	else if (*retry > now + BACKOFF_MIN)
		*retry = now;
	return may_try(a, GW_AUTO_NONE, loss, now);
}

/* A window that was long enough has ended: learn from it and decide. */
static void end_window(struct gw_auto *a, int64_t now)
{
	const struct seen s = look_at(&a->w, now);
	const bool released = s.pace * RELEASED < a->pace;
	enum gw_auto_method better;

	if (a->trying)
		learn_serial(a, s.rest + s.work, s.wire * a->link, s.time);
	learn_link(a, &s);
	a->blocked = s.blocked;
	a->hurry = false;
	if (released || s.pace > a->pace)
		a->pace = s.pace;
	restart(a, now, false);
	if (a->trying && !keep_or_return(a, s.time, now))
		return;
	better = find_better(a, &s, now);
	if (better != a->method) {
		/* A moment that was bad proves nothing. */
		double usual = a->time_ns[a->method];

		start_trying(a, better, s.time < usual ? s.time : usual, now);
	} else if (a->method != GW_AUTO_NONE) {
		if (a->cost[a->method].ratio > USELESS)
			use(a, GW_AUTO_NONE, now); /* the same bytes, for less work */
		else if (should_try_none(a, &s, released, now))
			start_trying(a, GW_AUTO_NONE, s.time, now);
	}
}

void gw_auto_sent(struct gw_auto *a, int64_t now, size_t bytes, int64_t ns)
{
	const double pace = bytes ? (double)ns / (double)bytes : 0;

	a->last = now;
	a->w.send_ns += ns;
	a->w.wire += (double)bytes;
	if (a->settling) {
		/* A send that waited has left a full buffer: a good moment to begin. */
		if ((a->fastest >= 0 && pace > WAITED * a->fastest) ||
		    now - a->w.start >= SETTLE_NS || a->w.offered >= WINDOW_BYTES)
			restart(a, now, false);
	} else if (a->w.offered && a->w.wire &&
		   (now - a->w.start >= WINDOW_NS || a->w.offered >= WINDOW_BYTES ||
		    is_hopeless(a, now) || is_clear(a, now))) {
		end_window(a, now);
	}
	if (bytes >= TELLING && (a->fastest < 0 || pace < a->fastest))
		a->fastest = pace;
}
