/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_guest.h - a guest of this process' threads, whose memory is watched as a split VM's is:
 * a mapping that faults, and one past its page tables.
 */
#ifndef TEST_SPLIT_GUEST_H
#define TEST_SPLIT_GUEST_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "ram.h"
#include "rng.h"
#include "split.h"
#include "uffd.h"

#define UNIT  32U
#define UNITS 16UL
#define PAGES (UNIT * UNITS)

/* The first member of whatever is a pager's env. */
struct split_guest {
	struct gw_ram ram;
	volatile uint64_t *guest; /* where it sees its memory */
	uint8_t *file;		  /* the same, past its page tables */
	struct gw_paged paged;
};

static inline int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static inline int op_copy(void *env, size_t page, size_t count, const void *bytes, size_t *copied)
{
	return gw_uffd_copy(&((struct split_guest *)env)->paged, page, count, bytes, copied);
}

static inline int op_zero(void *env, size_t page)
{
	return gw_uffd_map_zero(&((struct split_guest *)env)->paged, page);
}

static inline int op_protect(void *env, size_t page, size_t count)
{
	return gw_uffd_protect(&((struct split_guest *)env)->paged, page, count, true);
}

static inline int op_unprotect(void *env, size_t page, size_t count)
{
	return gw_uffd_protect(&((struct split_guest *)env)->paged, page, count, false);
}

static inline void op_wake(void *env, size_t page, size_t count)
{
	gw_uffd_wake(&((struct split_guest *)env)->paged, page, count);
}

static inline int op_present(void *env, size_t page, size_t count, uint64_t bits[GW_UNIT_WORDS])
{
	const struct split_guest *g = env;
	unsigned char in[GW_UNIT_PAGES_MAX];

	if (mincore(g->file + page * GW_PAGE_SIZE, count * GW_PAGE_SIZE, in))
		return -errno;
	memset(bits, 0, GW_UNIT_WORDS * sizeof(bits[0]));
	for (size_t i = 0; i < count; i++)
		bits[i / 64] |= (uint64_t)(in[i] & 1) << i % 64;
	return 0;
}

static inline void split_guest_make(struct split_guest *g)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_MISSING_SHMEM | 1 << 12 };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };
	const int fd = memfd_create("guest", MFD_CLOEXEC);
	const int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0 && uffd >= 0 && !ftruncate(fd, PAGES * GW_PAGE_SIZE));
	g->guest = mmap(NULL, PAGES * GW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	g->file = mmap(NULL, PAGES * GW_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	assert_int_equal(gw_ram_add(&g->ram, "ram", fd, PAGES * GW_PAGE_SIZE, (uintptr_t)g->guest),
			 0);
	reg.range = (struct uffdio_range){ (uintptr_t)g->guest, PAGES * GW_PAGE_SIZE };
	assert_false(ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg));
	g->paged.uffds[0] = uffd;
	g->paged.nr_uffds = g->paged.nr_parts = 1;
	g->paged.parts[0] = (struct gw_watched){
		.uffd = uffd, .range = { .hva = (uintptr_t)g->guest, .nr_pages = PAGES }
	};
}

static inline void split_guest_drop(struct split_guest *g)
{
	close(g->paged.uffds[0]);
	munmap((void *)g->guest, PAGES * GW_PAGE_SIZE);
	munmap(g->file, PAGES * GW_PAGE_SIZE);
	gw_ram_close(&g->ram);
}

static inline uint64_t *word_in(const struct split_guest *g, size_t page)
{
	return (uint64_t *)(uintptr_t)(g->guest + page * (GW_PAGE_SIZE / sizeof(uint64_t)) +
				       page % 512);
}

/* Threads that count in its pages, at random: each page has what all of them have added. */
#define VCPUS 3

struct counter {
	const struct split_guest *g;
	unsigned int rounds;
	struct rng rng;
	uint32_t added[PAGES];
	pthread_t thread;
};

static void *count_on(void *arg)
{
	struct counter *c = arg;

	for (unsigned int i = 0; i < c->rounds; i++) {
		const size_t page = rng_below(&c->rng, PAGES);

		if (rng_one_in(&c->rng, 3)) {
			(void)__atomic_load_n(word_in(c->g, page), __ATOMIC_SEQ_CST);
			continue;
		}
		__atomic_fetch_add(word_in(c->g, page), 1, __ATOMIC_SEQ_CST);
		c->added[page]++;
	}
	return NULL;
}

static inline void counters_start(struct counter c[VCPUS], const struct split_guest *g,
				  unsigned int rounds)
{
	for (unsigned int i = 0; i < VCPUS; i++) {
		memset(&c[i], 0, sizeof(c[i]));
		c[i].g = g;
		c[i].rounds = rounds;
		c[i].rng.state = i;
		assert_int_equal(pthread_create(&c[i].thread, NULL, count_on, &c[i]), 0);
	}
}

static inline void counters_check(const struct counter c[VCPUS], const struct split_guest *g)
{
	for (size_t page = 0; page < PAGES; page++) {
		const uint64_t is = __atomic_load_n(word_in(g, page), __ATOMIC_SEQ_CST);
		uint64_t sum = 0;

		for (unsigned int i = 0; i < VCPUS; i++)
			sum += c[i].added[page];
		if (is != sum)
			fail_msg("page %zu: %llu of %llu", page, (unsigned long long)is,
				 (unsigned long long)sum);
	}
}

#endif
