/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pagemap.h - the kernel's PAGEMAP_SCAN interface (linux/fs.h since 6.7),
 * repeated because Debian 12's headers are of Linux 6.1.
 */
#ifndef GW_PAGEMAP_H
#define GW_PAGEMAP_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/fs.h>

#include "page.h"

#ifndef PAGEMAP_SCAN

struct page_region {
	uint64_t start, end, categories;
};

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN	      _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_WPALLOWED     (1 << 0)
#define PAGE_IS_WRITTEN	      (1 << 1)
#define PAGE_IS_FILE	      (1 << 2)
#define PAGE_IS_PRESENT	      (1 << 3)
#define PAGE_IS_SWAPPED	      (1 << 4)
#define PM_SCAN_WP_MATCHING   (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)

#endif

/**
 * gw_scanned_to() - where to go on after a call that returned @n of @room regions, or the end.
 *
 * Linux (6.18 at least) leaves walk_end at the last pause of its inner walk
 * when it then reaches the end of the range, so it counts only for a full
 * buffer, and even then may lie before the last region: a part is scanned twice.
 */
static inline uint64_t gw_scanned_to(const struct pm_scan_arg *arg, long n, size_t room)
{
	return (size_t)n < room ? arg->end : arg->walk_end;
}

/**
 * gw_pagemap_has_memory() - whether the process behind @pagemap has not ended.
 *
 * One that has ended has no memory, in which PAGEMAP_SCAN finds nothing and no fault (Linux
 * 6.18); or it says ESRCH. Its pagemap reads as an empty file, as soon as nothing of it runs
 * any more.
 *
 * Return: false with errno.
 */
static inline bool gw_pagemap_has_memory(int pagemap, uint64_t hva)
{
	uint64_t entry;
	ssize_t n = pread(pagemap, &entry, sizeof(entry),
			  (off_t)(hva / GW_PAGE_SIZE * sizeof(entry)));

	if (!n)
		errno = ESRCH;
	return n > 0;
}

#endif
