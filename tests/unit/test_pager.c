// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_pager.c - the table of missing pages, and who wins which race over one of them.
 *
 * Guest and kernel are a model here: a fault is a page that is waited for until it is
 * mapped or woken. The real ones are test_paged.c's.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffers.h"
#include "missing.h"
#include "pager.h"
#include "place.h"
#include "ram.h"
#include "rng.h"

#define BIG   (4 * GW_CHUNK_PAGES - 5)
#define SMALL 3UL
#define FIRST (4 * GW_CHUNK_PAGES)
#define PAGES (FIRST + GW_CHUNK_PAGES)
#define OLD   0x11
#define NEW   0x22

struct world {
	struct gw_ram ram;
	struct gw_pager p;
	struct gw_page_in in;
	char dir[64], path[96];
	uint8_t id[GW_ID_LEN];
	/* the guest */
	_Atomic bool seen[PAGES];
	_Atomic bool waits[PAGES];
	_Atomic unsigned int maps, wakes, zeros, requests;
	_Atomic unsigned int notices;
	size_t asked[64];
	_Atomic unsigned int compared, refusals;
	size_t refused[64];
	int64_t now;
	/* what happens at a park point, once */
	enum gw_park at;
	size_t at_page;
	void (*then)(struct world *w);
	_Atomic int map_rc; /* what mapping answers, once */
};

static int64_t op_now(void *env)
{
	struct world *w = env;

	return w->now;
}

static bool is_hole(const struct world *w, size_t page)
{
	return gw_memory_is_hole(&w->ram.memory, page, 1) == 1;
}

static int op_map(void *env, size_t page, size_t count, size_t *mapped)
{
	struct world *w = env;
	int rc = atomic_exchange(&w->map_rc, 0);

	*mapped = 0;
	if (rc)
		return rc;
	for (; *mapped < count; (*mapped)++) {
		const size_t at = page + *mapped;

		assert_false(gw_missing_test(&w->p.missing, at)); /* or the guest sees old bytes */
		if (w->seen[at] || is_hole(w, at))
			break;
		w->seen[at] = true;
		w->waits[at] = false;
		w->maps++;
	}
	return *mapped ? 0 : w->seen[page] ? -EEXIST : -EFAULT;
}

static int op_map_zero(void *env, size_t page)
{
	struct world *w = env;

	assert_false(gw_missing_test(&w->p.missing, page));
	if (!is_hole(w, page))
		return -EEXIST;
	w->seen[page] = true;
	w->waits[page] = false;
	w->zeros++;
	return 0;
}

static void op_wake(void *env, size_t page, size_t count)
{
	struct world *w = env;

	w->wakes++;
	/* A fault on a page that is seen goes on; on another it is raised again. */
	for (size_t i = 0; i < count; i++)
		if (w->seen[page + i])
			w->waits[page + i] = false;
}

static void op_request(void *env, const size_t *pages, unsigned int n)
{
	struct world *w = env;

	for (unsigned int i = 0; i < n; i++) {
		assert_true(!i || pages[i] > pages[i - 1]);
		w->asked[w->requests++ % 64] = pages[i];
	}
}

/* What lies there is right, but for page 11. */
static void op_compare(void *env, size_t page, unsigned int count, bool *right)
{
	struct world *w = env;

	assert_true(count && count <= GW_COMPARED_MAX);
	for (unsigned int i = 0; i < count; i++) {
		assert_true(gw_missing_test(&w->p.missing, page + i));
		right[i] = page + i != 11;
		w->compared++;
	}
}

static void op_refuse(void *env, size_t page, unsigned int count)
{
	struct world *w = env;

	for (unsigned int i = 0; i < count; i++)
		w->refused[w->refusals++ % 64] = page + i;
}

static void op_notify(void *env)
{
	((struct world *)env)->notices++;
}

static void op_park(void *env, enum gw_park where, size_t page)
{
	struct world *w = env;
	void (*then)(struct world * w) = w->then;

	if (!then || where != w->at || page != w->at_page)
		return;
	w->then = NULL;
	then(w);
}

static const struct gw_pager_ops ops = {
	.now = op_now,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.request = op_request,
	.compare = op_compare,
	.refuse = op_refuse,
	.notify = op_notify,
	.park = op_park,
};

static const struct gw_pager_ops silent = {
	.now = op_now,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.request = op_request,
	.notify = op_notify,
};

/* Old bytes everywhere but in the last ten pages of the big file, which are holes. */
static struct world *begin(void)
{
	static const size_t sizes[] = { BIG, SMALL };
	struct world *w = calloc(1, sizeof(*w));
	uint8_t old[GW_PAGE_SIZE];

	assert_non_null(w);
	snprintf(w->dir, sizeof(w->dir), "/tmp/unit-pager-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/missing", w->dir);
	memset(w->id, 7, sizeof(w->id));
	memset(old, OLD, sizeof(old));
	for (int i = 0; i < 2; i++) {
		int fd = memfd_create("unit-pager", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, (off_t)(sizes[i] * GW_PAGE_SIZE)), 0);
		for (size_t k = 0; k < sizes[i] && k < BIG - 10; k++)
			assert_int_equal(pwrite(fd, old, sizeof(old), (off_t)(k * GW_PAGE_SIZE)),
					 GW_PAGE_SIZE);
		assert_int_equal(gw_ram_add(&w->ram, i ? "b" : "a", fd, sizes[i] * GW_PAGE_SIZE, 0),
				 0);
	}
	assert_int_equal(w->ram.memory.nr_pages, PAGES);
	w->p.ops = &ops;
	w->p.env = w;
	w->p.memory = &w->ram.memory;
	w->now = 1000;
	assert_int_equal(gw_pager_init(&w->p), 0);
	assert_int_equal(gw_missing_create(&w->p.missing, w->path, &w->ram.memory, w->id, 3), 0);
	gw_page_in_init(&w->in, &w->p, NULL);
	return w;
}

static void finish(struct world *w)
{
	gw_pager_free(&w->p);
	gw_ram_close(&w->ram);
	unlink(w->path);
	rmdir(w->dir);
	free(w);
}

static void miss(struct world *w, size_t first, size_t count)
{
	assert_int_equal(gw_missing_add(&w->p.missing, &w->ram.memory, first, count), 0);
}

static void touch(struct world *w, size_t page)
{
	if (w->seen[page])
		return;
	w->waits[page] = true;
	gw_pager_fault(&w->p, &(struct gw_fault){ .page = page, .vcpu = 1 }, 1);
}

static int bring(struct world *w, size_t page, unsigned int count, uint8_t byte)
{
	uint8_t bytes[8 * GW_PAGE_SIZE];

	assert_true(count <= 8);
	memset(bytes, byte, sizeof(bytes));
	return w->in.sink.place(&w->in.sink, page, count, bytes);
}

static uint8_t byte_of(const struct world *w, size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	assert_int_equal(gw_memory_read(&w->ram.memory, page, 1, bytes), 0);
	assert_memory_equal(bytes, bytes + 1, GW_PAGE_SIZE - 1);
	return bytes[0];
}

/* Blocks that fill their chunks have no page between them that is none. */
static void table_adjacent(void **state)
{
	struct world *w = begin();
	struct gw_missing m, back;
	struct buffers b = { 0 };
	unsigned int n = 0;

	(void)state;
	assert_int_equal(buffers_add(&b, "a", GW_CHUNK_SIZE), 0);
	assert_int_equal(buffers_add(&b, "b", GW_CHUNK_SIZE), 0);
	gw_missing_close(&w->p.missing);
	assert_int_equal(gw_missing_create(&m, w->path, &b.memory, w->id, 3), 0);
	assert_int_equal(gw_missing_add(&m, &b.memory, GW_CHUNK_PAGES - 1, 2), 0);
	assert_int_equal(gw_missing_add(&m, &b.memory, GW_CHUNK_PAGES, GW_CHUNK_PAGES + 1),
			 -EPROTO);
	assert_int_equal(m.left, 2);
	gw_missing_seal(&m);
	assert_int_equal(gw_missing_open(&back, w->path, &b.memory, w->id, &n), 0);
	assert_int_equal(back.left, 2);
	gw_missing_close(&back);
	gw_missing_close(&m);
	buffers_free(&b);
	finish(w);
}

static void table(void **state)
{
	struct world *w = begin();
	struct gw_missing *m = &w->p.missing, back;
	size_t at = 0, first;
	unsigned int n = 0;

	(void)state;
	miss(w, 0, 1);
	miss(w, 60, 200);
	miss(w, 100, 10); /* said twice */
	miss(w, FIRST, SMALL);
	assert_int_equal(m->left, 1 + 200 + SMALL);
	assert_int_equal(gw_missing_add(m, &w->ram.memory, BIG - 1, 2), -EPROTO);
	assert_int_equal(gw_missing_add(m, &w->ram.memory, BIG, 1), -EPROTO);
	assert_int_equal(gw_missing_add(m, &w->ram.memory, FIRST, SIZE_MAX), -EPROTO);
	assert_int_equal(gw_missing_add(m, &w->ram.memory, PAGES, 1), -EPROTO);
	assert_int_equal(m->left, 1 + 200 + SMALL);
	/* Nobody takes over what is not whole. */
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), -EINVAL);
	gw_missing_close(&back);
	gw_missing_seal(m);
	gw_missing_placed(m, 64, 64);
	gw_missing_placed(m, 60, 8);
	assert_int_equal(m->left, 1 + 200 + SMALL - 68);
	assert_int_equal(gw_missing_next(m, &at, &first), 1);
	assert_int_equal(first, 0);
	assert_int_equal(gw_missing_next(m, &at, &first), 132);
	assert_int_equal(first, 128);
	assert_int_equal(gw_missing_next(m, &at, &first), SMALL);
	assert_int_equal(first, FIRST);
	assert_int_equal(gw_missing_next(m, &at, &first), 0);
	/* Who takes over finds the same, and each sees what the other places. */
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), 0);
	assert_true(n == 3 && back.left == m->left);
	gw_missing_placed(&back, 128, 2);
	assert_false(gw_missing_test(m, 129));
	assert_true(gw_missing_test(m, 130));
	gw_missing_close(&back);
	/* Of another migration, of other memory, damaged: none of them. */
	w->id[3]++;
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), -EINVAL);
	gw_missing_close(&back);
	w->id[3]--;
	m->words[(BIG + 1) / 64] |= 1ULL << (BIG + 1) % 64;
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), -EINVAL);
	gw_missing_close(&back);
	m->words[(BIG + 1) / 64] = 0;
	for (size_t i = 0; i < 10; i++)
		m->words[i] = ~0ULL; /* more than were ever missing */
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), -EINVAL);
	gw_missing_close(&back);
	assert_int_equal(truncate(w->path, 4096), 0);
	assert_int_equal(gw_missing_open(&back, w->path, &w->ram.memory, w->id, &n), -EINVAL);
	gw_missing_close(&back);
	finish(w);
}

/* Faults are asked for once, answered once, and what nobody waits for is not mapped. */
static void pages_come(void **state)
{
	static const struct gw_fault order[] = { { .page = 9, .vcpu = 0 },
						 { .page = 3, .vcpu = 1 },
						 { .page = 5, .vcpu = GW_NO_VCPU },
						 { .page = 3, .vcpu = 0 } };
	struct world *w = begin();
	struct gw_fault_stats stats;

	(void)state;
	miss(w, 0, 20);
	miss(w, FIRST, 1);
	gw_missing_seal(&w->p.missing);
	for (size_t i = 0; i < GW_ARRAY_SIZE(order); i++)
		w->waits[order[i].page] = true;
	gw_pager_fault(&w->p, order, GW_ARRAY_SIZE(order));
	assert_true(w->requests == 3 && w->asked[0] == 3 && w->asked[1] == 5 && w->asked[2] == 9);
	touch(w, 9);
	assert_int_equal(w->requests, 3);
	w->now += 70000;
	assert_int_equal(bring(w, 2, 4, NEW), 0);
	assert_true(w->seen[3] && w->seen[5] && !w->seen[2] && !w->seen[4] && !w->waits[3]);
	assert_true(byte_of(w, 2) == NEW && byte_of(w, 6) == OLD);
	/* A push that comes after the answer must not touch it: it is the guest's. */
	assert_int_equal(bring(w, 3, 1, 0x77), 0);
	assert_int_equal(byte_of(w, 3), NEW);
	/* Not missing at all: likewise. */
	assert_int_equal(bring(w, 30, 1, 0x77), 0);
	assert_int_equal(byte_of(w, 30), OLD);
	/* What is there is let be seen at once, with what is there around it and no more. */
	touch(w, 4);
	assert_true(w->seen[4] && !w->seen[5 + 1] && w->requests == 3);
	touch(w, 24);
	assert_true(w->seen[24] && w->seen[31] && !w->seen[32] && !w->seen[23]);
	/* Zeros are no memory until somebody looks. */
	assert_int_equal(w->in.sink.zero(&w->in.sink, 8, 4), 0);
	assert_true(is_hole(w, 8) && w->seen[9] && w->zeros == 1 && !w->waits[9]);
	touch(w, 10);
	assert_true(w->seen[10] && w->zeros == 2);
	/* What lies there is right. */
	touch(w, FIRST);
	assert_int_equal(w->in.sink.same(&w->in.sink, FIRST, 1), 0);
	assert_true(w->seen[FIRST] && byte_of(w, FIRST) == OLD);
	assert_int_equal(w->p.missing.left, 20 - 4 - 4);
	gw_fault_stats(&w->p.times, &stats);
	assert_true(stats.faults == 4 && stats.measured == 4 && w->p.local == 3);
	assert_true(stats.most_ns == 70000 && stats.latency[6] == 3 && stats.latency[0] == 1);
	/* Of two that wait for a page it is the first one's; nobody's is no vCPU's. */
	assert_true(stats.vcpus[0].measured == 1 && stats.vcpus[0].sum_ns == 70000);
	assert_true(stats.vcpus[1].measured == 2 && stats.vcpus[2].measured == 0);
	/* Padding and what is beyond are nobody's, whatever the kernel says. */
	gw_pager_fault(&w->p,
		       (const struct gw_fault[]){ { .page = BIG, .vcpu = 0 },
						  { .page = PAGES, .vcpu = 0 },
						  { .page = SIZE_MAX, .vcpu = 0 } },
		       3);
	assert_int_equal(w->requests, 4);
	assert_int_equal(w->notices, 0);
	assert_int_equal(bring(w, 0, 2, NEW) | bring(w, 6, 2, NEW) | bring(w, 12, 8, NEW), 0);
	assert_int_equal(w->notices, 1); /* nothing is missing any more */
	finish(w);
}

static void answer_comes(struct world *w)
{
	assert_int_equal(bring(w, w->at_page, 1, 0x77), 0);
}

static void fault_comes(struct world *w)
{
	touch(w, w->at_page);
}

static void expect_parked(struct world *w)
{
	assert_null(w->then);
}

static void arrange(struct world *w, enum gw_park at, size_t page, void (*then)(struct world *w))
{
	w->at = at;
	w->at_page = page;
	w->then = then;
}

/* An answer and a push of the same page, at each step: one of them places it. */
static void twice(void **state)
{
	static const enum gw_park steps[] = { GW_PARK_CLAIMED, GW_PARK_WRITTEN, GW_PARK_PLACED,
					      GW_PARK_MAPPED };
	struct world *w = begin();

	(void)state;
	miss(w, 0, 20);
	for (size_t i = 0; i < GW_ARRAY_SIZE(steps); i++) {
		touch(w, i);
		arrange(w, steps[i], i, answer_comes);
		assert_int_equal(bring(w, i, 1, NEW), 0);
		expect_parked(w);
		assert_true(w->seen[i] && !w->waits[i] && byte_of(w, i) == NEW);
	}
	assert_int_equal(w->p.missing.left, 20 - GW_ARRAY_SIZE(steps));
	finish(w);
}

/* A fault while the page is being placed, at each step; and a second vCPU's. */
static void fault_meanwhile(void **state)
{
	static const enum gw_park steps[] = { GW_PARK_CLAIMED, GW_PARK_WRITTEN, GW_PARK_PLACED };
	struct world *w = begin();

	(void)state;
	miss(w, 0, 20);
	for (size_t i = 0; i < GW_ARRAY_SIZE(steps); i++) {
		arrange(w, steps[i], i, fault_comes);
		assert_int_equal(bring(w, i, 1, NEW), 0);
		expect_parked(w);
		assert_true(w->seen[i] && !w->waits[i]);
	}
	/* Wanted, and before anybody looks whether it is missing it has come. */
	arrange(w, GW_PARK_WANTED, 10, answer_comes);
	touch(w, 10);
	expect_parked(w);
	assert_true(w->seen[10] && !w->waits[10] && byte_of(w, 10) == 0x77);
	arrange(w, GW_PARK_FAULT, 11, answer_comes);
	touch(w, 11);
	expect_parked(w);
	assert_true(w->seen[11] && !w->waits[11]);
	/* Two on one page: one question, and both go on. */
	w->requests = 0;
	arrange(w, GW_PARK_WANTED, 12, fault_comes);
	touch(w, 12);
	expect_parked(w);
	assert_int_equal(w->requests, 1);
	assert_int_equal(bring(w, 12, 1, NEW), 0);
	assert_false(w->waits[12]);
	/* One that was read late, when the page is seen already: woken, not left. */
	w->waits[12] = true;
	gw_pager_fault(&w->p, (const struct gw_fault[]){ { .page = 12, .vcpu = 0 } }, 1);
	assert_false(w->waits[12]);
	finish(w);
}

/* What fails is missing as before, and is asked for again when the source is back. */
static void failures(void **state)
{
	struct world *w = begin();
	size_t at = 0, pages[4];
	int fd;

	(void)state;
	miss(w, 0, 20);
	touch(w, 5);
	touch(w, 15);
	touch(w, 7);
	assert_int_equal(bring(w, 7, 1, NEW), 0);
	assert_int_equal(gw_pager_wanted(&w->p, &at, pages, 4), 2);
	assert_true(pages[0] == 5 && pages[1] == 15);
	assert_int_equal(gw_pager_wanted(&w->p, &at, pages, 4), 0);
	at = 0;
	assert_int_equal(gw_pager_wanted(&w->p, &at, pages, 1), 1);
	assert_int_equal(gw_pager_wanted(&w->p, &at, pages, 1), 1);
	assert_int_equal(pages[0], 15);
	/* The file cannot be written: its page is torn, and missing. */
	fd = w->ram.files[0].fd;
	w->ram.files[0].fd = open("/dev/full", O_RDWR | O_CLOEXEC);
	assert_int_equal(bring(w, 5, 1, NEW), -ENOSPC);
	close(w->ram.files[0].fd);
	w->ram.files[0].fd = fd;
	assert_true(w->p.torn && gw_missing_test(&w->p.missing, 5) && w->waits[5]);
	assert_int_equal(bring(w, 5, 1, NEW), 0);
	assert_false(w->waits[5]);
	/* No memory here for a page that is there: whoever watches the whole tries again. */
	w->map_rc = -ENOMEM;
	touch(w, 40);
	assert_true(w->p.retry && w->notices == 1 && w->waits[40]);
	w->map_rc = -ESRCH;
	touch(w, 61);
	assert_true(w->p.gone && w->notices == 2);
	w->map_rc = -EAGAIN;
	touch(w, 81);
	assert_false(w->waits[81]);
	finish(w);
}

/* It is asked for by somebody else while it is looked at. */
static void fault_on_11(struct world *w)
{
	touch(w, 11);
}

static size_t lacks(const struct world *w)
{
	size_t at = 0, first, n, all = 0;

	while ((n = gw_pager_lacking(&w->p, &at, &first)))
		all += n;
	return all;
}

/* What was kept is seen once somebody has looked at it, and not a moment before. */
static void unchecked(void **state)
{
	struct world *w = begin();
	size_t at = 0, first;

	(void)state;
	miss(w, 20, 3);
	assert_int_equal(gw_pager_check_rest(&w->p), 0);
	gw_missing_seal(&w->p.missing);
	assert_int_equal(w->p.missing.left, BIG + SMALL);
	assert_int_equal(w->p.unchecked_left, BIG + SMALL - 3);
	assert_int_equal(lacks(w), 3);
	/* One that is right goes on without its source. */
	touch(w, 5);
	assert_true(w->seen[5] && !w->waits[5]);
	assert_int_equal(w->requests, 0);
	touch(w, BIG - 1); /* a hole */
	assert_true(w->seen[BIG - 1]);
	assert_int_equal(w->zeros, 1);
	/* One that is not is asked for, and nobody looks at it again. */
	touch(w, 11);
	assert_true(w->waits[11]);
	assert_int_equal(w->requests, 1);
	assert_int_equal(w->asked[0], 11);
	assert_int_equal(lacks(w), 4);
	assert_int_equal(w->compared, 3);
	/* What comes for one that was not looked at is right whatever lies there. */
	assert_int_equal(bring(w, 30, 1, NEW), 0);
	assert_false(gw_missing_test(&w->p.missing, 30));
	assert_int_equal(byte_of(w, 30), NEW);
	gw_pager_check(&w->p, 0, PAGES);
	assert_int_equal(w->compared, BIG + SMALL - 4);
	assert_int_equal(w->refusals, 0);
	assert_int_equal(w->p.unchecked_left, 0);
	assert_int_equal(w->p.missing.left, 4);
	assert_int_equal(gw_pager_refused(&w->p, &at, &first), 1);
	assert_int_equal(first, 11);
	assert_int_equal(bring(w, 11, 1, NEW), 0);
	assert_true(w->seen[11] && !w->waits[11]);
	assert_int_equal(bring(w, 20, 3, NEW), 0);
	assert_int_equal(w->p.missing.left, 0);
	finish(w);
}

/* Who faults on a page that another looks at asks for it, whatever comes of that. */
static void unchecked_meanwhile(void **state)
{
	struct world *w = begin();

	(void)state;
	assert_int_equal(gw_pager_check_rest(&w->p), 0);
	gw_missing_seal(&w->p.missing);
	arrange(w, GW_PARK_CLAIMED, 0, fault_on_11);
	gw_pager_check(&w->p, 0, GW_COMPARED_MAX);
	assert_true(w->waits[11]);
	assert_int_equal(w->requests, 1);
	assert_int_equal(w->refusals, 1);
	assert_int_equal(w->refused[0], 11);
	assert_int_equal(lacks(w), 1);
	assert_int_equal(bring(w, 11, 1, NEW), 0);
	assert_true(w->seen[11] && !w->waits[11]);
	finish(w);
}

static void *placer(void *arg)
{
	struct world *w = arg;

	for (size_t page = 0; page < BIG; page += 3)
		assert_int_equal(bring(w, page, page + 3 < BIG ? 3 : 1, NEW), 0);
	return NULL;
}

static void *answerer(void *arg)
{
	struct world *w = arg;

	for (size_t page = BIG; page--;)
		assert_int_equal(bring(w, page, 1, NEW), 0);
	return NULL;
}

static void *vcpu(void *arg)
{
	struct world *w = arg;

	for (size_t page = 0; page < BIG; page++) {
		size_t at = page * 389 % BIG;

		if (w->seen[at])
			continue;
		gw_pager_fault(&w->p, &(struct gw_fault){ .page = at, .vcpu = 0 }, 1);
	}
	return NULL;
}

/* All at once: whoever was waited for is seen, and nothing is missing. */
static void all_at_once(void **state)
{
	struct world *w = begin();
	pthread_t threads[4];

	(void)state;
	w->p.ops = &silent;
	miss(w, 0, BIG);
	assert_int_equal(pthread_create(&threads[0], NULL, placer, w), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, vcpu, w), 0);
	assert_int_equal(pthread_create(&threads[2], NULL, answerer, w), 0);
	assert_int_equal(pthread_create(&threads[3], NULL, vcpu, w), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(w->p.missing.left, 0);
	for (size_t page = 0; page < BIG; page++)
		assert_true(w->seen[page] && byte_of(w, page) == NEW);
	finish(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(table_adjacent),
		cmocka_unit_test(pages_come),
		cmocka_unit_test(twice),
		cmocka_unit_test(fault_meanwhile),
		cmocka_unit_test(failures),
		cmocka_unit_test(all_at_once),
		cmocka_unit_test(unchecked),
		cmocka_unit_test(unchecked_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
