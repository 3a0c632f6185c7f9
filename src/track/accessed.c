// SPDX-License-Identifier: GPL-2.0-or-later
/* accessed.c - accessed pages, by page table entries that are dropped; see accessed.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "accessed.h"
#include "cleanup.h"
#include "error.h"
#include "inject.h"
#include "io.h"
#include "page.h"
#include "pagemap.h"

/* So many pages are dropped at a time: 2 GiB, some milliseconds. */
#define PART	(1UL << 19)
#define REGIONS 512

int gw_accessed_open(struct gw_accessed *a, pid_t pid, const struct gw_track_range *ranges,
		     unsigned int nr_ranges)
{
	gw_autofree char *path = gw_path("/proc/%d/pagemap", (int)pid);

	memset(a, 0, sizeof(*a));
	a->pid = pid;
	a->nr_ranges = nr_ranges;
	memcpy(a->ranges, ranges, nr_ranges * sizeof(*ranges));
	a->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	return a->pagemap < 0 ? gw_fail(-errno, "%s: %s", path, strerror(errno)) : 0;
}

void gw_accessed_close(struct gw_accessed *a)
{
	close(a->pagemap);
}

static size_t page_at(const struct gw_track_range *r, uint64_t va)
{
	return r->first_page + (size_t)(va - r->hva) / GW_PAGE_SIZE;
}

static int failed(const struct gw_accessed *a, const char *call)
{
	return errno == ESRCH ? gw_fail(-ESRCH, "QEMU (process %d) has ended", (int)a->pid)
			      : gw_fail(-errno, "%s: %s", call, strerror(errno));
}

/* What is present of @count pages from the @from-th of @r. */
static int collect(const struct gw_accessed *a, const struct gw_track_range *r, size_t from,
		   size_t count, struct gw_bitmap *accessed)
{
	struct page_region regions[REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = r->hva + from * GW_PAGE_SIZE,
		.end = r->hva + (from + count) * GW_PAGE_SIZE,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};

	while (arg.start < arg.end) {
		long n = ioctl(a->pagemap, PAGEMAP_SCAN, &arg);

		if (n < 0)
			return failed(a, "PAGEMAP_SCAN");
		for (long k = 0; k < n; k++)
			gw_bitmap_set_range(accessed, page_at(r, regions[k].start),
					    page_at(r, regions[k].end) -
						    page_at(r, regions[k].start));
		arg.start = gw_scanned_to(&arg, n, REGIONS);
	}
	/* Of one that has ended no thread is ever found that could be stopped. */
	return gw_pagemap_has_memory(a->pagemap, r->hva) ? 0 : failed(a, "pagemap");
}

int gw_accessed_sample(struct gw_accessed *a, struct gw_bitmap *accessed)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < a->nr_ranges; i++) {
		const struct gw_track_range *r = &a->ranges[i];

		for (size_t from = 0; !rc && from < r->nr_pages; from += PART) {
			const size_t n = r->nr_pages - from < PART ? r->nr_pages - from : PART;

			rc = collect(a, r, from, n, accessed);
			if (!rc)
				rc = gw_inject_unmap(a->pid, r->hva + from * GW_PAGE_SIZE,
						     n * GW_PAGE_SIZE);
		}
	}
	return rc;
}
