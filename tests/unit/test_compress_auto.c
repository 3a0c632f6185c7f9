// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_compress_auto.c - the choice of compression on a link, a compressor and
 * contents that are made of numbers, in virtual time.
 */
#include "unit.h"

#include "clock.h"
#include "compress_auto.h"

#define BATCH 1048576.0
#define MIB   1048576.0
#define TRIAL (BATCH / 8)

/* What the methods make of some kind of content: measured, see decisions/0010. */
struct content {
	double rate[GW_AUTO_METHODS]; /* bytes a second */
	double ratio[GW_AUTO_METHODS];
};

static const struct content text = { { 0, 672e6, 545e6, 439e6 }, { 1, 0.317, 0.217, 0.189 } };
static const struct content code = { { 0, 803e6, 583e6, 327e6 }, { 1, 0.442, 0.305, 0.275 } };
static const struct content random_bytes = { { 0, 100e9, 80e9, 80e9 }, { 1, 1, 1, 1 } };

/* What a stream can know, and what it cannot: the link and the socket's buffer. */
struct world {
	struct gw_auto control;
	int64_t now;
	double link;		       /* bytes a second */
	double buffer;		       /* bytes that the socket takes at once */
	double backlog;		       /* bytes in it */
	double rest;		       /* ns a byte: copying and hashing */
	double send;		       /* ns a byte that a send takes at least */
	double lie;		       /* in use, methods take so many times what trials say */
	double zeros;		       /* ns spent on chunks without content, before each batch */
	bool instant;		       /* compressing takes no time on this clock */
	int64_t used[GW_AUTO_METHODS]; /* ns */
	unsigned int switches;
};

static struct world make_world(double link)
{
	struct world w = { .link = link, .buffer = 4 * MIB, .rest = 0.3, .send = 0.25, .lie = 1 };

	gw_auto_init(&w.control, 0);
	return w;
}

static void pass(struct world *w, double ns)
{
	w->now += (int64_t)ns;
	w->backlog -= ns * w->link / GW_S;
	if (w->backlog < 0)
		w->backlog = 0;
}

static int64_t send(struct world *w, double bytes)
{
	const int64_t began = w->now;

	pass(w, w->send * bytes);
	w->backlog += bytes;
	if (w->backlog > w->buffer)
		pass(w, (w->backlog - w->buffer) * GW_S / w->link);
	return w->now - began;
}

static double work_ns(const struct world *w, const struct content *c, enum gw_auto_method m,
		      double bytes)
{
	return m == GW_AUTO_NONE || w->instant ? 0 : bytes * GW_S / c->rate[m];
}

static void trial(struct world *w, const struct content *c)
{
	for (enum gw_auto_method m = GW_AUTO_LZ4; m < GW_AUTO_METHODS; m++) {
		double ns = work_ns(w, c, m, TRIAL);

		if (m == w->control.method)
			continue;
		pass(w, ns);
		gw_auto_trial(&w->control, m, (size_t)TRIAL, (size_t)(TRIAL * c->ratio[m]),
			      (int64_t)ns);
	}
}

/* Send @batches; @fixed: a method, or GW_AUTO_METHODS for the controller's. Return: ns. */
static int64_t run(struct world *w, const struct content *c, unsigned int batches,
		   enum gw_auto_method fixed)
{
	const int64_t began = w->now;

	for (unsigned int i = 0; i < batches; i++) {
		const bool automatic = fixed == GW_AUTO_METHODS;
		const int64_t start = w->now;
		enum gw_auto_method m = fixed;
		double ns, out;
		int64_t sent;

		pass(w, w->rest * BATCH + w->zeros);
		if (automatic) {
			m = gw_auto_offer(&w->control, w->now, 1, (size_t)BATCH);
			if (gw_auto_wants_trial(&w->control, w->now))
				trial(w, c);
		}
		ns = work_ns(w, c, m, BATCH) * w->lie;
		out = BATCH * c->ratio[m];
		pass(w, ns);
		if (automatic)
			gw_auto_worked(&w->control, (size_t)BATCH, (size_t)out, (int64_t)ns);
		sent = send(w, out);
		if (automatic)
			gw_auto_sent(&w->control, w->now, (size_t)out, sent);
		w->used[m] += w->now - start;
		w->switches += automatic && w->control.method != m;
	}
	return w->now - began;
}

/* The same with each method alone. Return: ns of the best. */
static int64_t best_of(const struct world *like, const struct content *c, unsigned int batches)
{
	int64_t best = INT64_MAX;

	for (enum gw_auto_method m = 0; m < GW_AUTO_METHODS; m++) {
		struct world w = *like;
		int64_t ns = run(&w, c, batches, m);

		best = ns < best ? ns : best;
	}
	return best;
}

static int64_t none_of(const struct world *like, const struct content *c, unsigned int batches)
{
	struct world w = *like;

	return run(&w, c, batches, GW_AUTO_NONE);
}

static void assert_within(int64_t ns, int64_t of, double times)
{
	if ((double)ns > (double)of * times)
		fail_msg("%.1f ms, which is %.3f of %.1f ms; at most %.3f", (double)ns / GW_MS,
			 (double)ns / (double)of, (double)of / GW_MS, times);
}

/* Faster than any compressor: nothing is gained, and next to nothing lost. */
static void fast_link(void **state)
{
	const struct content *contents[] = { &text, &code, &random_bytes };
	const double links[] = { 1.25e9, 3e9, 1e12 };

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(contents); k++)
		for (size_t l = 0; l < GW_ARRAY_SIZE(links); l++) {
			struct world w = make_world(links[l]), like = w;

			assert_within(run(&w, contents[k], 2048, GW_AUTO_METHODS),
				      none_of(&like, contents[k], 2048), 1.03);
			assert_int_equal(w.control.method, GW_AUTO_NONE);
			assert_true(w.used[GW_AUTO_NONE] > w.now / 100 * 95);
		}
}

/* 1 Gbit/s alone, as one of two streams, and slower ones: as good as the best. */
static void slow_link(void **state)
{
	const struct content *contents[] = { &text, &code };
	const double links[] = { 125e6, 62.5e6, 12.5e6, 1.25e6 };

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(contents); k++)
		for (size_t l = 0; l < GW_ARRAY_SIZE(links); l++) {
			struct world w = make_world(links[l]), like = w;

			assert_within(run(&w, contents[k], 1024, GW_AUTO_METHODS),
				      best_of(&like, contents[k], 1024), 1.05);
			assert_int_not_equal(w.control.method, GW_AUTO_NONE);
		}
}

/*
 * Content that cannot be compressed, then text, on a slow link: told of the
 * change it compresses within 8 batches, where averages alone would take long.
 */
static void changed_content(void **state)
{
	struct world w = make_world(62.5e6);

	(void)state;
	run(&w, &random_bytes, 200, GW_AUTO_METHODS);
	assert_int_equal(w.control.method, GW_AUTO_NONE);
	assert_true(gw_auto_has_spare(&w.control));
	gw_auto_changed(&w.control);
	run(&w, &text, 8, GW_AUTO_METHODS);
	assert_int_not_equal(w.control.method, GW_AUTO_NONE);
	/* Where there is no spare time nobody looks. */
	w = make_world(3e9);
	run(&w, &text, 200, GW_AUTO_METHODS);
	assert_false(gw_auto_has_spare(&w.control));
	/* Nor because LZ4 runs through random bytes faster than any link. */
	w = make_world(0.8e9);
	run(&w, &random_bytes, 200, GW_AUTO_METHODS);
	assert_false(gw_auto_has_spare(&w.control));
}

/* Wherever between: never slower than none by more than 3 %, and near the best. */
static void every_link(void **state)
{
	const struct content *contents[] = { &text, &code, &random_bytes };
	const double buffers[] = { 0, 256 << 10, 4 << 20 };

	(void)state;
	for (size_t k = 0; k < GW_ARRAY_SIZE(contents); k++)
		for (size_t b = 0; b < GW_ARRAY_SIZE(buffers); b++)
			for (double link = 5e6; link < 5e9; link *= 1.3) {
				struct world w = make_world(link), like;

				w.buffer = buffers[b];
				like = w;
				run(&w, contents[k], 2048, GW_AUTO_METHODS);
				assert_within(w.now, none_of(&like, contents[k], 2048), 1.03);
				assert_within(w.now, best_of(&like, contents[k], 2048), 1.12);
			}
}

static void incompressible(void **state)
{
	const double links[] = { 1.25e6, 125e6, 1.25e9 };

	(void)state;
	for (size_t l = 0; l < GW_ARRAY_SIZE(links); l++) {
		struct world w = make_world(links[l]), like = w;

		assert_within(run(&w, &random_bytes, 512, GW_AUTO_METHODS),
			      none_of(&like, &random_bytes, 512), 1.005);
		assert_int_equal(w.used[GW_AUTO_NONE], w.now);
	}
}

/* Pacing has no buffer: each send takes its time, and all of it counts. */
static void paced(void **state)
{
	struct world w = make_world(50e6), like;

	(void)state;
	w.buffer = 0;
	like = w;
	assert_within(run(&w, &text, 1024, GW_AUTO_METHODS), best_of(&like, &text, 1024), 1.05);
}

static void link_changes(void **state)
{
	struct world w = make_world(62.5e6), like;

	(void)state;
	run(&w, &text, 2048, GW_AUTO_METHODS);
	assert_int_not_equal(w.control.method, GW_AUTO_NONE);
	/* Many times as fast: what compresses steps aside, once that is noticed. */
	w.link = 2.5e9;
	like = w;
	assert_within(run(&w, &text, 8192, GW_AUTO_METHODS), none_of(&like, &text, 8192), 1.25);
	assert_int_equal(w.control.method, GW_AUTO_NONE);
	/* And back. */
	w.link = 62.5e6;
	like = w;
	assert_within(run(&w, &text, 2048, GW_AUTO_METHODS), best_of(&like, &text, 2048), 1.06);
	assert_int_not_equal(w.control.method, GW_AUTO_NONE);
}

static void content_changes(void **state)
{
	struct world w = make_world(125e6), like;

	(void)state;
	run(&w, &text, 1024, GW_AUTO_METHODS);
	assert_int_not_equal(w.control.method, GW_AUTO_NONE);
	like = w;
	assert_within(run(&w, &random_bytes, 1024, GW_AUTO_METHODS),
		      none_of(&like, &random_bytes, 1024), 1.01);
	assert_int_equal(w.control.method, GW_AUTO_NONE);
	like = w;
	assert_within(run(&w, &text, 2048, GW_AUTO_METHODS), best_of(&like, &text, 2048), 1.15);
	assert_int_not_equal(w.control.method, GW_AUTO_NONE);
}

/* Trials promise what use does not keep, as when the guest wants the processor. */
static void broken_promises(void **state)
{
	struct world w = make_world(400e6), like;

	(void)state;
	w.lie = 4;
	like = w;
	assert_within(run(&w, &text, 4096, GW_AUTO_METHODS), none_of(&like, &text, 4096), 1.03);
	assert_true(w.switches >= 2); /* it did try */
	assert_true(w.used[GW_AUTO_NONE] > w.now / 10 * 9);
}

/* Chunks of zeros in between cost time that no method changes. */
static void zeros_between(void **state)
{
	struct world w = make_world(125e6), like;

	(void)state;
	w.zeros = 2e6;
	like = w;
	assert_within(run(&w, &text, 1024, GW_AUTO_METHODS), best_of(&like, &text, 1024), 1.06);
	w = make_world(1.25e9);
	w.zeros = 2e6;
	like = w;
	assert_within(run(&w, &text, 1024, GW_AUTO_METHODS), none_of(&like, &text, 1024), 1.03);
}

/* A clock on which work takes no time, and one that does not move at all. */
static void odd_clocks(void **state)
{
	struct world w = make_world(125e6), like;

	(void)state;
	w.instant = true;
	w.rest = 0;
	w.send = 0;
	like = w;
	assert_within(run(&w, &text, 1024, GW_AUTO_METHODS), best_of(&like, &text, 1024), 1.05);
	assert_int_equal(w.control.method, GW_AUTO_ZSTD_3);
	gw_auto_init(&w.control, 7);
	for (unsigned int i = 0; i < 1000; i++) {
		size_t len = i % 3 ? (size_t)BATCH : 0;
		enum gw_auto_method m = gw_auto_offer(&w.control, 7, 1, len);

		assert_int_equal(m, GW_AUTO_NONE);
		gw_auto_trial(&w.control, GW_AUTO_LZ4, len, len / 2, 0);
		gw_auto_worked(&w.control, len, len, 0);
		gw_auto_sent(&w.control, 7, len, 0);
	}
}

/* Between rounds a stream waits: that is neither the link nor the compressor. */
static void rounds(void **state)
{
	struct world w = make_world(1.25e9), like;
	int64_t waited = 0;

	(void)state;
	for (unsigned int i = 0; i < 20; i++) {
		run(&w, &text, 100, GW_AUTO_METHODS);
		pass(&w, 300.0 * GW_MS);
		waited += 300 * GW_MS;
	}
	like = make_world(1.25e9);
	assert_within(w.now - waited, none_of(&like, &text, 2000), 1.03);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fast_link),	   cmocka_unit_test(slow_link),
		cmocka_unit_test(changed_content), cmocka_unit_test(every_link),
		cmocka_unit_test(incompressible),  cmocka_unit_test(paced),
		cmocka_unit_test(link_changes),	   cmocka_unit_test(content_changes),
		cmocka_unit_test(broken_promises), cmocka_unit_test(zeros_between),
		cmocka_unit_test(odd_clocks),	   cmocka_unit_test(rounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
