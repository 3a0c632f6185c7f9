// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * page_guest.c - F9 on a running guest: page it remotely, from outside.
 *
 *   page_guest QMP PERCENT SECONDS
 *
 * PERCENT of the memory goes out, chunk by chunk, into our own (the memory
 * server of this probe); then faults are served for SECONDS: the page that is
 * asked for first, the rest of its chunk after it, and for every chunk that
 * comes in the one that has been in longest goes out. At last all comes back.
 * The guest must not notice, which its console tells (guests.py).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "inject.h"
#include "live.h"

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

struct chunk {
	uint8_t *bytes;		   /* NULL: is in */
	struct gw_pageset missing; /* pages not yet back */
};

struct pager {
	struct live l;
	int uffd;
	struct chunk *chunks;
	size_t nr_chunks, out, limit;
	size_t *queue, head, tail; /* chunks that are in, oldest first; a ring */
	uint64_t misses, write_faults, pages_in, pages_out, zero;
	int64_t service_ns;
};

static struct uffdio_range range_of(const struct pager *p, size_t page, size_t count)
{
	return (struct uffdio_range){ p->l.hva + page * GW_PAGE_SIZE, count * GW_PAGE_SIZE };
}

static void control(const struct pager *p, unsigned long request, void *arg, const char *what)
{
	int rc = ioctl(p->uffd, request, arg);

	live_assert(rc == 0, "%s: %s", what, strerror(errno));
}

static void open_pager(struct pager *p)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_MISSING_SHMEM |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = range_of(p, 0, p->l.pages),
				       .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };

	p->uffd = gw_inject_userfaultfd(p->l.pid);
	live_need(p->uffd, "injection");
	control(p, UFFDIO_API, &api, "UFFDIO_API");
	control(p, UFFDIO_REGISTER, &reg, "UFFDIO_REGISTER");
}

static void protect(const struct pager *p, size_t chunk, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = range_of(p, chunk * GW_CHUNK_PAGES, GW_CHUNK_PAGES),
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : UFFDIO_WRITEPROTECT_MODE_DONTWAKE,
	};

	control(p, UFFDIO_WRITEPROTECT, &wp, "UFFDIO_WRITEPROTECT");
}

/* Invariant 7 in small: the chunk is stored before it is taken away. */
static void evict(struct pager *p, size_t chunk)
{
	struct uffdio_range range = range_of(p, chunk * GW_CHUNK_PAGES, GW_CHUNK_PAGES);
	struct chunk *c = &p->chunks[chunk];
	int rc;

	c->bytes = malloc(GW_CHUNK_SIZE);
	live_assert(c->bytes, "no memory");
	protect(p, chunk, true);
	memcpy(c->bytes, p->l.mem + chunk * GW_CHUNK_SIZE, GW_CHUNK_SIZE);
	memset(&c->missing, 0xff, sizeof(c->missing));
	rc = fallocate(p->l.ram.files[0].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       (off_t)(chunk * GW_CHUNK_SIZE), GW_CHUNK_SIZE);
	live_assert(rc == 0, "cannot punch a hole: %s", strerror(errno));
	protect(p, chunk, false);
	control(p, UFFDIO_WAKE, &range, "UFFDIO_WAKE");
	p->out++;
	p->pages_out += GW_CHUNK_PAGES;
}

static void place(struct pager *p, size_t chunk, unsigned int i)
{
	struct chunk *c = &p->chunks[chunk];
	struct uffdio_copy copy = {
		.dst = p->l.hva + chunk * GW_CHUNK_SIZE + i * GW_PAGE_SIZE,
		.src = (uintptr_t)c->bytes + i * GW_PAGE_SIZE,
		.len = GW_PAGE_SIZE,
	};

	if (!gw_pageset_test(&c->missing, i))
		return;
	control(p, UFFDIO_COPY, &copy, "UFFDIO_COPY");
	gw_pageset_clear(&c->missing, i);
	p->pages_in++;
}

/* All that is left of a chunk comes in. */
static void bring(struct pager *p, size_t chunk)
{
	struct chunk *c = &p->chunks[chunk];

	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		place(p, chunk, i);
	free(c->bytes);
	c->bytes = NULL;
	p->out--;
	p->queue[p->tail++ % p->nr_chunks] = chunk;
}

static void missing(struct pager *p, size_t page, int64_t heard)
{
	size_t chunk = page / GW_CHUNK_PAGES;
	struct uffdio_zeropage zero = { .range = range_of(p, page, 1) };

	p->misses++;
	if (!p->chunks[chunk].bytes) {
		/* A hole that never held data, or one that another fault has just filled. */
		if (ioctl(p->uffd, UFFDIO_ZEROPAGE, &zero) == 0)
			p->zero++;
		else
			control(p, UFFDIO_WAKE, &zero.range, "UFFDIO_WAKE");
		return;
	}
	place(p, chunk, page % GW_CHUNK_PAGES);
	p->service_ns += gw_now() - heard;
	bring(p, chunk);
	while (p->out < p->limit)
		evict(p, p->queue[p->head++ % p->nr_chunks]);
}

static void serve(struct pager *p, int64_t deadline)
{
	struct pollfd pfd = { .fd = p->uffd, .events = POLLIN };
	struct uffd_msg msg;

	while (gw_now() < deadline) {
		int64_t heard;
		size_t page;

		if (poll(&pfd, 1, gw_poll_ms(deadline)) <= 0)
			continue;
		heard = gw_now();
		while (read(p->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
			live_assert(msg.event == UFFD_EVENT_PAGEFAULT, "event %u", msg.event);
			page = (msg.arg.pagefault.address - p->l.hva) / GW_PAGE_SIZE;
			if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
				p->write_faults++; /* its chunk went out meanwhile, and woke it */
			else
				missing(p, page, heard);
			heard = gw_now();
		}
	}
}

static size_t resident(const struct pager *p)
{
	struct stat st;

	live_assert(fstat(p->l.ram.files[0].fd, &st) == 0, "fstat");
	return (size_t)st.st_blocks * 512;
}

static void report(const struct pager *p, const char *what, int64_t ns)
{
	double s = (double)ns / GW_S;

	printf("%s: %zu of %zu chunks out, %zu MiB in; %.2f s; %lu misses (%.0f us to the page), "
	       "%lu write faults, %lu zero; in %.0f pages/s, out %.0f pages/s\n",
	       what, p->out, p->nr_chunks, resident(p) >> 20, s, p->misses,
	       p->misses ? (double)p->service_ns / 1000 / (double)p->misses : 0, p->write_faults,
	       p->zero, (double)p->pages_in / s, (double)p->pages_out / s);
}

int main(int argc, char **argv)
{
	struct pager p = { 0 };
	int64_t began;

	if (argc != 4) {
		fprintf(stderr, "usage: page_guest QMP PERCENT SECONDS\n");
		return 2;
	}
	live_attach(&p.l, argv[1]);
	p.nr_chunks = p.l.pages / GW_CHUNK_PAGES;
	p.limit = p.nr_chunks * (size_t)atoi(argv[2]) / 100;
	p.chunks = calloc(p.nr_chunks, sizeof(*p.chunks));
	p.queue = calloc(p.nr_chunks, sizeof(*p.queue));
	live_assert(p.chunks && p.queue && p.limit < p.nr_chunks, "no memory");
	open_pager(&p);

	began = gw_now();
	for (size_t chunk = 0; chunk < p.nr_chunks; chunk++)
		p.queue[p.tail++] = chunk;
	while (p.out < p.limit)
		evict(&p, p.queue[p.head++]);
	report(&p, "out", gw_now() - began);
	live_assert(resident(&p) <= (p.nr_chunks - p.limit) * GW_CHUNK_SIZE,
		    "memory that was taken away was not freed");

	p.pages_out = 0;
	began = gw_now();
	serve(&p, began + atoi(argv[3]) * GW_S);
	report(&p, "paged", gw_now() - began);
	live_assert(p.pages_in > 0 && p.pages_out > 0, "the guest used nothing that was out");

	for (size_t chunk = 0; chunk < p.nr_chunks; chunk++)
		if (p.chunks[chunk].bytes)
			bring(&p, chunk);
	close(p.uffd);
	free(p.chunks);
	free(p.queue);
	munmap(p.l.mem, p.l.pages * GW_PAGE_SIZE);
	gw_ram_close(&p.l.ram);
	gw_qmp_close(p.l.qmp);
	return 0;
}
