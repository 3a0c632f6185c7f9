// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * written_softdirty.c - written pages by soft-dirty bits (F4), for kernels
 * before 6.7 that have CONFIG_MEM_SOFT_DIRTY (Debian 12's 6.1).
 *
 * Writing 4 to clear_refs clears the bits of the whole process and
 * write-protects it; the next write to a page sets its bit again, which
 * /proc/PID/pagemap shows as bit 55. Reduced against written_uffd.c:
 *
 *  - Asking and forgetting are two steps; a write between them would be lost.
 *    So every scan is made while the VM is quiesced
 *    (needs_quiesce), which also settles direct I/O (F7).
 *  - An absent entry carries no bit. A page that was mapped and is not any
 *    more counts as written; one that was mapped, written and taken away
 *    within one round would be missed, so whatever takes pages away is
 *    refused: swap, and huge pages in the RAM file system.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "page.h"
#include "tracker.h"

#define SOFT_DIRTY (1ULL << 55)
#define SWAPPED	   (1ULL << 62)
#define PRESENT	   (1ULL << 63)

#define ENTRIES 4096

struct soft_tracker {
	struct gw_tracker t;
	int clear_refs;
	struct gw_bitmap mapped; /* had an entry at the last scan */
};

static struct soft_tracker *soft_of(struct gw_tracker *t)
{
	return (struct soft_tracker *)t;
}

static int clear_all(int clear_refs)
{
	if (pwrite(clear_refs, "4", 1, 0) != 1)
		return gw_fail(-errno, "clear_refs: %s", strerror(errno));
	return 0;
}

/* Call @visit with each page of [first, first + count) and its pagemap entry. */
static int walk(struct gw_tracker *t, uint64_t *entries, size_t room, size_t first, size_t count,
		void (*visit)(void *arg, size_t page, uint64_t entry), void *arg)
{
	for (unsigned int i = 0; i < t->nr_ranges; i++) {
		const struct gw_track_range *r = &t->ranges[i];
		size_t end = r->first_page + r->nr_pages;
		size_t page = first > r->first_page ? first : r->first_page;

		if (end > first + count)
			end = first + count;
		while (page < end) {
			size_t n = end - page < room ? end - page : room;
			uint64_t va = r->hva + (page - r->first_page) * GW_PAGE_SIZE;
			int rc = gw_pread_all(t->pagemap, entries, n * 8,
					      (off_t)(va / GW_PAGE_SIZE * 8));

			if (rc)
				return gw_fail_prefix(rc, "pagemap: ");
			for (size_t k = 0; k < n; k++)
				visit(arg, page + k, entries[k]);
			page += n;
		}
	}
	return 0;
}

struct scan_arg {
	struct soft_tracker *s;
	struct gw_bitmap *due;
};

static void scan_visit(void *arg, size_t page, uint64_t entry)
{
	struct scan_arg *a = arg;
	bool here = entry & (PRESENT | SWAPPED);

	if (entry & SOFT_DIRTY || (!here && gw_bitmap_test(&a->s->mapped, page)))
		gw_bitmap_set(a->due, page);
	if (here)
		gw_bitmap_set(&a->s->mapped, page);
	else
		gw_bitmap_clear(&a->s->mapped, page);
}

static int soft_scan(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *due)
{
	struct scan_arg arg = { soft_of(t), due };
	uint64_t entries[ENTRIES];

	return walk(t, entries, ENTRIES, first, count, scan_visit, &arg);
}

static int soft_forget(struct gw_tracker *t)
{
	return clear_all(soft_of(t)->clear_refs);
}

static void peek_visit(void *arg, size_t page, uint64_t entry)
{
	if (entry & SOFT_DIRTY)
		gw_bitmap_set(arg, page);
}

static int soft_peek(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *written)
{
	uint64_t entries[GW_CHUNK_PAGES];

	return walk(t, entries, GW_CHUNK_PAGES, first, count, peek_visit, written);
}

static void soft_stop(struct gw_tracker *t)
{
	struct soft_tracker *s = soft_of(t);

	if (s->clear_refs >= 0)
		close(s->clear_refs);
	if (t->pagemap >= 0)
		close(t->pagemap);
	gw_bitmap_free(&s->mapped);
	free(s);
}

static const struct gw_tracker_ops soft_ops = {
	.name = "soft-dirty",
	.needs_quiesce = true,
	.scan = soft_scan,
	.forget = soft_forget,
	.peek = soft_peek,
	.stop = soft_stop,
};

/* /proc/swaps is a heading and a line for each swap area. */
static bool host_has_swap(void)
{
	gw_autofree char *text = gw_read_file("/proc/swaps", 1 << 20, NULL);
	const char *newline = text ? strchr(text, '\n') : NULL;

	return newline && newline[1];
}

struct gw_tracker *gw_tracker_softdirty(pid_t pid, const struct gw_track_range *ranges,
					unsigned int nr_ranges)
{
	gw_autofree char *pagemap = gw_path("/proc/%d/pagemap", (int)pid);
	gw_autofree char *clear_refs = gw_path("/proc/%d/clear_refs", (int)pid);
	struct soft_tracker *s;
	size_t pages = 0;
	int rc = 0;

	if (host_has_swap()) {
		gw_fail(-ENOTSUP, "this kernel tracks writes by soft-dirty bits only, which swap "
				  "loses: swapoff -a first, or run Linux 6.7 or newer");
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s || nr_ranges > GW_TRACK_RANGES) {
		free(s);
		gw_fail(-ENOMEM, "cannot track %u ranges of memory", nr_ranges);
		return NULL;
	}
	s->t.ops = &soft_ops;
	memcpy(s->t.ranges, ranges, nr_ranges * sizeof(*ranges));
	s->t.nr_ranges = nr_ranges;
	s->t.pagemap = open(pagemap, O_RDONLY | O_CLOEXEC);
	s->clear_refs = open(clear_refs, O_WRONLY | O_CLOEXEC);
	if (s->t.pagemap < 0 || s->clear_refs < 0)
		rc = gw_fail(-errno, "tracking process %d: %s", (int)pid, strerror(errno));
	for (unsigned int i = 0; i < nr_ranges; i++)
		if (ranges[i].first_page + ranges[i].nr_pages > pages)
			pages = ranges[i].first_page + ranges[i].nr_pages;
	if (!rc)
		rc = gw_bitmap_init(&s->mapped, pages);
	if (!rc)
		rc = clear_all(s->clear_refs);
	if (rc) {
		soft_stop(&s->t);
		return NULL;
	}
	return &s->t;
}

bool gw_track_has_softdirty(void)
{
	gw_autofd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	gw_autofd int refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	uint8_t *page = mmap(NULL, GW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	uint64_t before = SOFT_DIRTY, after = 0;
	off_t at = (off_t)((uintptr_t)page / GW_PAGE_SIZE * 8);

	if (page == MAP_FAILED)
		return false;
	page[0] = 1;
	if (pagemap >= 0 && refs >= 0 && !clear_all(refs) &&
	    !gw_pread_all(pagemap, &before, 8, at)) {
		*(volatile uint8_t *)page = 2;
		if (gw_pread_all(pagemap, &after, 8, at))
			after = 0;
	}
	munmap(page, GW_PAGE_SIZE);
	return !(before & SOFT_DIRTY) && after & SOFT_DIRTY;
}
