/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tracked.h - a process that maps two RAM files and obeys, and a tracker that watches it. */
#ifndef TEST_TRACKED_H
#define TEST_TRACKED_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inject.h"
#include "ram.h"
#include "rng.h"
#include "tracker.h"

/* 256 MiB, but for an end that is no chunk's; every second page of it is more than a scan's buffer
 * holds. */
#define BIG   (65536UL - 5)
#define SMALL (3 * GW_CHUNK_PAGES + 1)
#define FIRST 65536UL /* page number of the small file's first */
#define PAGES (FIRST + 4 * GW_CHUNK_PAGES)

enum op {
	WRITE,
	READ,
	ZAP,	/* take its page table entries away; what was written stays in the file */
	LOCK,	/* not by mlock(), which sanitizers leave out */
	HAMMER, /* write there at random, all the time, until REST */
	REST,
};

struct command {
	enum op op;
	size_t first, count, step;
};

struct guest {
	bool uffd;
	pid_t pid;
	int sock;
	uint8_t *map[2];
	struct gw_ram ram;
	struct gw_tracker *t;
	struct gw_bitmap due, expected;
};

static inline uint8_t *page_of(const struct guest *g, size_t page)
{
	return page < FIRST ? g->map[0] + page * GW_PAGE_SIZE
			    : g->map[1] + (page - FIRST) * GW_PAGE_SIZE;
}

/* What the child does besides obeying. */
struct hammer {
	const struct guest *g;
	struct command c;
	_Atomic bool stop;
	pthread_t thread;
};

static inline void *hammer(void *arg)
{
	struct hammer *h = arg;
	struct rng rng = { 77 };

	while (!h->stop) {
		const size_t page = h->c.first + rng_below(&rng, h->c.count);

		page_of(h->g, page)[rng_below(&rng, GW_PAGE_SIZE)]++;
	}
	return NULL;
}

/* The child: obeys, and sits in read() between commands, where a call can be injected. */
static inline _Noreturn void obey(const struct guest *g, int sock, pid_t parent)
{
	static struct hammer h;
	struct command c;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(1);
	while (read(sock, &c, sizeof(c)) == sizeof(c)) {
		if (c.op == HAMMER) {
			h.g = g;
			h.c = c;
			if (pthread_create(&h.thread, NULL, hammer, &h))
				_exit(1);
		} else if (c.op == REST) {
			h.stop = true;
			pthread_join(h.thread, NULL);
		} else if (c.op == LOCK &&
			   syscall(SYS_mlock, page_of(g, c.first), c.count * GW_PAGE_SIZE)) {
			_exit(1);
		}
		if (c.op > ZAP)
			c.count = 0;
		for (size_t page = c.first; page < c.first + c.count; page += c.step) {
			volatile uint8_t *at = page_of(g, page);

			if (c.op == WRITE)
				at[page % GW_PAGE_SIZE]++;
			else if (c.op == READ)
				(void)at[0];
			else if (madvise((void *)(uintptr_t)at, GW_PAGE_SIZE, MADV_DONTNEED))
				_exit(1);
		}
		if (write(sock, "", 1) != 1)
			break;
	}
	_exit(0);
}

/* Without waiting until it has. */
static inline void send_command(struct guest *g, enum op op, size_t first, size_t count,
				size_t step)
{
	struct command c = { op, first, count, step };

	assert_int_equal(write(g->sock, &c, sizeof(c)), sizeof(c));
}

static inline void await_command(struct guest *g)
{
	char byte;

	assert_int_equal(read(g->sock, &byte, 1), 1);
}

static inline void tell(struct guest *g, enum op op, size_t first, size_t count, size_t step)
{
	send_command(g, op, first, count, step);
	await_command(g);
}

/* The same for each page in g->expected. */
static inline void tell_expected(struct guest *g, enum op op)
{
	size_t start, stop;

	gw_bitmap_for_each_run(&g->expected, 0, PAGES, start, stop)
		tell(g, op, start, stop - start, 1);
}

static inline void start(struct guest *g, bool uffd)
{
	static const size_t sizes[] = { BIG, SMALL };
	pid_t parent = getpid();
	int socks[2];

	memset(g, 0, sizeof(*g));
	g->uffd = uffd;
	for (int i = 0; i < 2; i++) {
		int fd = memfd_create("unit-track", MFD_CLOEXEC);
		size_t len = sizes[i] * GW_PAGE_SIZE;

		assert_int_equal(ftruncate(fd, (off_t)len), 0);
		g->map[i] = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(g->map[i], MAP_FAILED);
		assert_int_equal(gw_ram_add(&g->ram, i ? "b" : "a", fd, len, (uintptr_t)g->map[i]),
				 0);
	}
	assert_int_equal(g->ram.memory.blocks[1].first_page, FIRST);
	assert_int_equal(g->ram.memory.nr_pages, PAGES);
	assert_int_equal(gw_bitmap_init(&g->due, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&g->expected, PAGES), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	g->pid = fork();
	if (g->pid == 0) {
		close(socks[0]);
		obey(g, socks[1], parent);
	}
	close(socks[1]);
	g->sock = socks[0];
}

static inline struct gw_tracker *new_tracker(struct guest *g)
{
	struct gw_track_range ranges[2];
	int uffd;

	for (unsigned int i = 0; i < 2; i++)
		ranges[i] = (struct gw_track_range){ g->ram.files[i].hva,
						     g->ram.memory.blocks[i].first_page,
						     g->ram.memory.blocks[i].nr_pages };
	if (!g->uffd)
		return gw_tracker_softdirty(g->pid, ranges, 2);
	uffd = gw_inject_userfaultfd(g->pid);
	assert_true(uffd >= 0);
	return gw_tracker_uffd(g->pid, &uffd, 1, ranges, 2);
}

static inline void track(struct guest *g)
{
	g->t = new_tracker(g);
	if (!g->t)
		fail_msg("%s", gw_error());
	assert_int_equal(g->t->ops->needs_quiesce, !g->uffd);
}

static inline void end(struct guest *g)
{
	gw_tracker_stop(g->t);
	kill(g->pid, SIGKILL);
	waitpid(g->pid, NULL, 0);
	close(g->sock);
	for (int i = 0; i < 2; i++)
		munmap(g->map[i], g->ram.memory.blocks[i].size);
	gw_ram_close(&g->ram);
	gw_bitmap_free(&g->due);
	gw_bitmap_free(&g->expected);
}

static inline void scan(struct guest *g)
{
	gw_bitmap_zero(&g->due);
	assert_int_equal(gw_tracker_scan(g->t, &g->due), 0);
}

static inline void assert_bits(const struct gw_bitmap *found, const struct gw_bitmap *expected)
{
	for (size_t page = 0; page < PAGES; page++)
		if (gw_bitmap_test(found, page) != gw_bitmap_test(expected, page))
			fail_msg("page %zu was %sreported", page,
				 gw_bitmap_test(found, page) ? "" : "not ");
}

/* The next scan finds g->expected, and the one after it nothing. */
static inline void assert_found_once(struct guest *g)
{
	scan(g);
	assert_bits(&g->due, &g->expected);
	scan(g);
	assert_int_equal(gw_bitmap_count(&g->due, 0, PAGES), 0);
	gw_bitmap_zero(&g->expected);
}

/* Runs and single pages, in both files, first and last pages surely. */
static inline void pick(struct guest *g, struct rng *rng)
{
	static const size_t edges[] = { 0, BIG - 1, FIRST, FIRST + SMALL - 1, GW_CHUNK_PAGES };

	gw_bitmap_zero(&g->expected);
	for (size_t i = 0; i < GW_ARRAY_SIZE(edges); i++)
		gw_bitmap_set(&g->expected, edges[i]);
	for (int i = 0; i < 50; i++) {
		size_t page = rng_below(rng, BIG - 100);

		gw_bitmap_set_range(&g->expected, page, 1 + rng_below(rng, 100));
		gw_bitmap_set(&g->expected, FIRST + rng_below(rng, SMALL));
	}
}

static inline void with(void (*test)(struct guest *g), bool uffd)
{
	struct guest g;

	if (!(uffd ? gw_track_has_uffd() : gw_track_has_softdirty()))
		skip();
	start(&g, uffd);
	test(&g);
	end(&g);
}

#define BOTH(test)                        \
	static void test##_uffd(void **s) \
	{                                 \
		(void)s;                  \
		with(test, true);         \
	}                                 \
	static void test##_soft(void **s) \
	{                                 \
		(void)s;                  \
		with(test, false);        \
	}

#define UNIT_BOTH(test) cmocka_unit_test(test##_uffd), cmocka_unit_test(test##_soft)

#endif
