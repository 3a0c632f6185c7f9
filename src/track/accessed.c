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

/* A part is of so many pages at most, of which most have no entry. */
#define PART_SPAN (1UL << 17)
#define REGIONS	  512

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

/* What is present of @r. */
static int collect(const struct gw_accessed *a, const struct gw_track_range *r,
		   struct gw_bitmap *accessed)
{
	struct page_region regions[REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = r->hva,
		.end = r->hva + r->nr_pages * GW_PAGE_SIZE,
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

/* Where a part ends that begins at @first and has @most entries. @n: how many it has. */
static size_t part_end(const struct gw_bitmap *accessed, size_t first, size_t end, size_t most,
		       size_t *n)
{
	size_t start, stop, part = first;

	if (most > GW_ACCESSED_PART)
		most = GW_ACCESSED_PART;
	if (end - first > PART_SPAN)
		end = first + PART_SPAN;
	*n = 0;
	gw_bitmap_for_each_run(accessed, first, end, start, stop) {
		part = stop - start < most - *n ? stop : start + (most - *n);
		*n += part - start;
		if (*n == most)
			break;
	}
	return part;
}

/* @hand goes on to the @at-th page of its range. Return: whether it has come round. */
static bool move_to(const struct gw_accessed *a, struct gw_accessed_hand *hand, size_t at)
{
	hand->at = at;
	if (at < a->ranges[hand->range].nr_pages)
		return false;
	hand->at = 0;
	hand->range = hand->range + 1 < a->nr_ranges ? hand->range + 1 : 0;
	return !hand->range;
}

/* Where the hand passes, a range at a time: the next pages of @left from @hand on. */
static size_t pass(const struct gw_accessed *a, struct gw_accessed_hand *hand, size_t *left,
		   size_t *first)
{
	const struct gw_track_range *r = &a->ranges[hand->range];
	const size_t rest = r->nr_pages - hand->at, count = rest < *left ? rest : *left;

	*first = r->first_page + hand->at;
	*left -= count;
	move_to(a, hand, hand->at + count);
	return count;
}

/* Of what the last call dropped: how many are there again, with those that came for another reason.
 */
static size_t made_again(const struct gw_accessed *a, const struct gw_bitmap *accessed)
{
	struct gw_accessed_hand hand = a->from;
	size_t left = a->swept, n = 0, first;

	while (left) {
		const size_t count = pass(a, &hand, &left, &first);

		n += gw_bitmap_count(accessed, first, count);
	}
	return n;
}

void gw_accessed_dropped(const struct gw_accessed *a, const struct gw_bitmap *accessed,
			 struct gw_bitmap *map)
{
	struct gw_accessed_hand hand = a->from;
	size_t left = a->swept, first, start, stop;

	while (left) {
		const size_t count = pass(a, &hand, &left, &first);

		gw_bitmap_for_each_run(accessed, first, first + count, start, stop)
			gw_bitmap_clear_range(map, start, stop - start);
	}
}

/* How many may be dropped, so that @made of them, about, are made again. */
static size_t choose(const struct gw_accessed *a, const struct gw_bitmap *accessed, size_t made)
{
	const size_t most = made > GW_ACCESSED_MOST ? made : GW_ACCESSED_MOST;
	size_t may = a->may, again;

	if (!made)
		return 0;
	if (may <= made || may > most)
		may = made;
	again = a->dropped ? made_again(a, accessed) : 0;
	if (again > made)
		may = (size_t)((double)may * (double)made / (double)again);
	else if (again <= made / 2 && a->dropped == a->may && may <= most / 2)
		may *= 2;
	return may > made ? may : made;
}

/* Drop a->may entries that are noted in @accessed, from the hand on and once around. */
static int drop(struct gw_accessed *a, const struct gw_bitmap *accessed)
{
	size_t left = 0;
	int rc = 0;

	for (unsigned int i = 0; i < a->nr_ranges; i++)
		left += a->ranges[i].nr_pages;
	a->from = a->hand;
	a->swept = a->dropped = 0;
	while (!rc && left && a->dropped < a->may) {
		const struct gw_track_range *r = &a->ranges[a->hand.range];
		const size_t hand = r->first_page + a->hand.at;
		const size_t behind = r->first_page + r->nr_pages;
		const size_t end = behind - hand < left ? behind : hand + left;
		const size_t first = gw_bitmap_next(accessed, hand, end, true);
		size_t n = 0, stop = end;

		if (first < end) {
			stop = part_end(accessed, first, end, a->may - a->dropped, &n);
			rc = gw_inject_unmap(a->pid,
					     r->hva + (first - r->first_page) * GW_PAGE_SIZE,
					     (stop - first) * GW_PAGE_SIZE);
			if (rc)
				break;
			a->dropped += n;
		}
		left -= stop - hand;
		a->swept += stop - hand;
		a->rounds += move_to(a, &a->hand, stop - r->first_page);
	}
	return rc;
}

int gw_accessed_sample(struct gw_accessed *a, struct gw_bitmap *accessed, size_t made)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < a->nr_ranges; i++)
		rc = collect(a, &a->ranges[i], accessed);
	if (rc) {
		a->swept = a->dropped = 0;
		return rc;
	}
	a->may = choose(a, accessed, made);
	return drop(a, accessed);
}
