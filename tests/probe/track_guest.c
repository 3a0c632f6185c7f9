// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * track_guest.c - F2 and F3 on a running guest.
 *
 *   track_guest written QMP ROUNDS    scans of the write-protect tracker
 *   track_guest accessed QMP ROUNDS   a zap before each, and looks at what was accessed
 *
 * What a migration does, into a copy in our memory: protect all, copy all,
 * then copy what each scan reports while the guest runs; stop the guest, scan
 * and copy once more: now the copy must be the guest's memory, byte for byte.
 * The guest runs on afterwards. No device here does direct I/O (F7).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "clock.h"
#include "error.h"
#include "inject.h"
#include "live.h"
#include "pagemap.h"

/* A round begins when the guest has touched so many pages since the last. */
#define ROUND_PAGES 500
#define PATIENCE    (300 * GW_S)
#define REGIONS	    65536

struct copy {
	struct live l;
	struct gw_tracker *t;
	struct gw_bitmap due, other;
	struct page_region *regions;
	uint8_t *copy;
	double scan_ms;
	size_t total_due;
};

static size_t copy_due(struct copy *c)
{
	size_t start, stop, n = 0;

	gw_bitmap_for_each_run(&c->due, 0, c->l.pages, start, stop) {
		memcpy(c->copy + start * GW_PAGE_SIZE, c->l.mem + start * GW_PAGE_SIZE,
		       (stop - start) * GW_PAGE_SIZE);
		n += stop - start;
	}
	c->total_due += n;
	return n;
}

static size_t scan(struct copy *c)
{
	int64_t began = gw_now();

	gw_bitmap_zero(&c->due);
	live_need(gw_tracker_scan(c->t, &c->due), "scan");
	c->scan_ms += (double)(gw_now() - began) / GW_MS;
	return copy_due(c);
}

/* PAGEMAP_SCAN by category, into @pages (may be NULL). */
static size_t categorize(struct copy *c, uint64_t mask, uint64_t inverted, uint64_t flags,
			 struct gw_bitmap *pages)
{
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .flags = flags,
				   .start = c->l.hva,
				   .end = c->l.hva + c->l.pages * GW_PAGE_SIZE,
				   .vec = (uintptr_t)c->regions,
				   .vec_len = REGIONS,
				   .category_inverted = inverted,
				   .category_mask = mask,
				   .return_mask = mask };
	size_t total = 0;
	long n = ioctl(c->t->pagemap, PAGEMAP_SCAN, &arg);

	live_assert(n >= 0, "PAGEMAP_SCAN: %s", strerror(errno));
	live_assert(n < REGIONS, "more regions than expected"); /* as scanned_to() explains */
	for (long i = 0; i < n; i++) {
		size_t first = (c->regions[i].start - c->l.hva) / GW_PAGE_SIZE;
		size_t count = (c->regions[i].end - c->regions[i].start) / GW_PAGE_SIZE;

		total += count;
		if (pages)
			gw_bitmap_set_range(pages, first, count);
	}
	return total;
}

static void zap(struct copy *c)
{
	struct gw_inject inj;
	long got;

	live_need(gw_inject_begin(&inj, c->l.pid), "injection");
	got = gw_inject_call(&inj, SYS_madvise, c->l.hva, c->l.pages * GW_PAGE_SIZE, MADV_DONTNEED);
	gw_inject_end(&inj);
	live_assert(got == 0, "injected madvise: %s", strerror((int)-got));
}

static void wait_written(struct copy *c)
{
	int64_t deadline = gw_now() + PATIENCE;

	do {
		sched_yield();
		gw_bitmap_zero(&c->other);
		live_need(c->t->ops->peek(c->t, 0, c->l.pages, &c->other), "peek");
		live_assert(gw_now() < deadline, "the guest writes nothing");
	} while (gw_bitmap_count(&c->other, 0, c->l.pages) < ROUND_PAGES);
}

static void accessed_round(struct copy *c)
{
	const uint64_t entry = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	int64_t deadline = gw_now() + PATIENCE;
	size_t accessed, untouched, written, none;

	zap(c);
	do {
		sched_yield();
		accessed = categorize(c, PAGE_IS_PRESENT, 0, 0, NULL);
		live_assert(gw_now() < deadline, "the guest touches nothing");
	} while (accessed < ROUND_PAGES);
	untouched = categorize(c, PAGE_IS_SWAPPED | PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, 0, NULL);
	gw_bitmap_zero(&c->due);
	written = categorize(c, PAGE_IS_WRITTEN, 0, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
			     &c->due);
	none = categorize(c, entry, entry, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, &c->due);
	live_assert(untouched > 0, "the guest touches all its memory");
	copy_due(c);
	printf("accessed: %zu pages accessed, and soon %zu written, %zu unknown, "
	       "%zu untouched\n",
	       accessed, written, none, untouched);
}

static void compare(const struct copy *c)
{
	size_t lost = 0, first = 0;

	for (size_t page = 0; page < c->l.pages; page++) {
		if (!memcmp(c->copy + page * GW_PAGE_SIZE, c->l.mem + page * GW_PAGE_SIZE,
			    GW_PAGE_SIZE))
			continue;
		if (!lost++)
			first = page;
	}
	live_assert(!lost, "%zu pages changed and were never reported, the first is %zu", lost,
		    first);
}

int main(int argc, char **argv)
{
	struct copy c = { 0 };
	bool written = argc == 4 && !strcmp(argv[1], "written");
	size_t n, bytes;
	int rounds, uffd;

	if (argc != 4 || (!written && strcmp(argv[1], "accessed") != 0)) {
		fprintf(stderr, "usage: track_guest written|accessed QMP ROUNDS\n");
		return 2;
	}
	rounds = atoi(argv[3]);
	live_attach(&c.l, argv[2]);
	bytes = c.l.pages * GW_PAGE_SIZE;
	c.copy = malloc(bytes);
	c.regions = malloc(REGIONS * sizeof(*c.regions));
	live_assert(c.copy && c.regions, "no memory");
	live_need(gw_bitmap_init(&c.due, c.l.pages), "due");
	live_need(gw_bitmap_init(&c.other, c.l.pages), "other");

	uffd = gw_inject_userfaultfd(c.l.pid);
	live_need(uffd, "injection");
	c.t = gw_tracker_uffd(c.l.pid, &uffd, 1, &c.l.range, 1);
	live_need(c.t ? 0 : -1, "tracker");
	memcpy(c.copy, c.l.mem, bytes);
	for (int i = 0; i < rounds; i++) {
		if (!written)
			accessed_round(&c);
		wait_written(&c);
		if (written && i + 1 < rounds)
			scan(&c);
	}
	live_need(gw_qmp_call(c.l.qmp, "stop", NULL, NULL), "stop");
	n = scan(&c);
	compare(&c);
	live_need(gw_qmp_call(c.l.qmp, "cont", NULL, NULL), "cont");
	gw_tracker_stop(c.t);
	printf("%s: %d rounds, %zu pages due, %zu in the last; a scan of %zu MiB took %.2f ms\n",
	       argv[1], rounds, c.total_due, n, bytes >> 20, c.scan_ms / (written ? rounds : 1));
	free(c.copy);
	free(c.regions);
	gw_bitmap_free(&c.due);
	gw_bitmap_free(&c.other);
	munmap(c.l.mem, bytes);
	gw_ram_close(&c.l.ram);
	gw_qmp_close(c.l.qmp);
	return 0;
}
