// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe_track.c - what the trackers stand on: F2, F3, F4 and F8; see probe.h.
 *
 * F2, F4 and F8 are tried with the trackers themselves (written_uffd.c,
 * written_softdirty.c, holes.c), so that what is proved is what is used. F3
 * looks at the raw categories of PAGEMAP_SCAN, as accessed.c will.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "holes.h"
#include "inject.h"
#include "io.h"
#include "pagemap.h"
#include "probe.h"
#include "probe_child.h"
#include "ram.h"
#include "tracker.h"

/* Enough that a scan which lost updates would be caught, few enough for milliseconds. */
#define RACE_SCANS 40
#define RACE_PAGES 64UL

/* A child, its tracker, and sets of its pages. */
struct trial {
	struct gw_probe_child c;
	struct gw_tracker *t;
	struct gw_bitmap due, scratch, expected, none;
};

static void trial_end(struct trial *x)
{
	gw_tracker_stop(x->t);
	gw_probe_child_stop(&x->c);
	gw_bitmap_free(&x->due);
	gw_bitmap_free(&x->scratch);
	gw_bitmap_free(&x->expected);
	gw_bitmap_free(&x->none);
}

/* A child whose first half is filled and mapped; the other half is a hole. */
static int trial_begin(struct trial *x, int ram_fd)
{
	struct gw_bitmap *maps[] = { &x->due, &x->scratch, &x->expected, &x->none };
	int rc = 0;

	*x = (struct trial){ .c = GW_PROBE_CHILD_NONE };
	for (size_t i = 0; !rc && i < GW_ARRAY_SIZE(maps); i++)
		rc = gw_bitmap_init(maps[i], GW_PROBE_PAGES);
	if (rc)
		return gw_fail(rc, "no memory for a probe");
	rc = gw_probe_child_start(&x->c, ram_fd);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_FILL, 0, GW_PROBE_PAGES / 2);
	return rc;
}

/* Begin tracking, with the tracker that F2 or F4 is about. */
static int trial_track(struct trial *x, bool softdirty)
{
	const struct gw_track_range range = { x->c.hva, 0, GW_PROBE_PAGES };
	int uffd;

	if (softdirty) {
		x->t = gw_tracker_softdirty(x->c.pid, &range, 1);
	} else {
		uffd = gw_inject_userfaultfd(x->c.pid);
		if (uffd < 0)
			return uffd;
		x->t = gw_tracker_uffd(x->c.pid, &uffd, 1, &range, 1);
	}
	return x->t ? 0 : -ENOTSUP;
}

static int trial_scan(struct trial *x)
{
	gw_bitmap_zero(&x->due);
	return gw_tracker_scan(x->t, &x->due);
}

/* Whether a scan finds exactly what is expected. */
static int expect_due(struct trial *x, const char *what)
{
	int rc = trial_scan(x);

	return rc ? rc : gw_probe_same(&x->due, &x->expected, what);
}

/* Written pages: exactly those, once, and again when written again. */
static int written_exactly(struct trial *x)
{
	const size_t half = GW_PROBE_PAGES / 2;
	struct gw_bitmap *read = &x->scratch;
	int rc;

	/*
	 * More regions than the kernel reports in one go (512). Reads, of data and
	 * of holes, are no writes.
	 */
	gw_probe_pick(read, 0, GW_PROBE_PAGES, 5);
	gw_probe_pick(&x->expected, 1, half, 2);
	gw_probe_pick(&x->expected, half, GW_PROBE_PAGES - 9, 3);
	rc = gw_probe_child_touch(&x->c, GW_PROBE_READ, read);
	for (int turn = 0; !rc && turn < 2; turn++) {
		rc = gw_probe_child_touch(&x->c, GW_PROBE_WRITE, &x->expected);
		gw_bitmap_zero(&x->due);
		if (!rc)
			rc = x->t->ops->peek(x->t, 0, GW_PROBE_PAGES, &x->due);
		if (!rc)
			rc = gw_probe_same(&x->due, &x->expected, "a look at written pages");
		if (!rc)
			rc = expect_due(x, turn ? "pages written again" : "written pages");
	}
	gw_bitmap_zero(&x->expected);
	if (!rc)
		rc = expect_due(x, "pages not written since they were reported");
	return rc;
}

/*
 * Copy what each scan reports while the child writes without pause; when it has
 * stopped, and after one more scan, the copy must be the memory.
 */
static int none_lost(struct trial *x)
{
	uint8_t copy[RACE_PAGES * GW_PAGE_SIZE];
	struct gw_probe_control *control = x->c.control;
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;
	uint64_t turns = 0;
	size_t page;
	int rc = gw_probe_child_tell(&x->c, GW_PROBE_SPIN, 0, RACE_PAGES, 0);

	if (rc)
		return rc;
	memcpy(copy, x->c.ram, sizeof(copy));
	for (int scan = 0; !rc && scan <= RACE_SCANS; scan++) {
		/* A scan of what did not change proves nothing. */
		while (control->turns <= turns && gw_now() < deadline)
			sched_yield();
		turns = control->turns;
		if (scan == RACE_SCANS) {
			control->stop = 1;
			rc = gw_probe_child_hear(&x->c, NULL);
		}
		if (!rc)
			rc = trial_scan(x);
		for (page = 0; !rc && page < RACE_PAGES; page++)
			if (gw_bitmap_test(&x->due, page))
				memcpy(copy + page * GW_PAGE_SIZE, x->c.ram + page * GW_PAGE_SIZE,
				       GW_PAGE_SIZE);
	}
	if (!rc && turns < RACE_SCANS)
		rc = gw_fail(-EPROTO, "a process whose memory is tracked hardly runs on");
	if (!rc && memcmp(copy, x->c.ram, sizeof(copy)) != 0)
		rc = gw_fail(-EPROTO, "writes between two scans were lost: a scan does not protect "
				      "in the same step in which it reports");
	return rc;
}

int gw_probe_written(int ram_fd)
{
	struct trial x;
	int rc = trial_begin(&x, ram_fd);

	if (!rc)
		rc = trial_track(&x, false);
	if (!rc)
		rc = written_exactly(&x);
	if (!rc)
		rc = none_lost(&x);
	trial_end(&x);
	return rc;
}

/* Every scan of this tracker is made while the process does nothing (tracker.h). */
int gw_probe_softdirty(int ram_fd)
{
	struct trial x;
	int rc;

	if (!gw_track_has_softdirty())
		return gw_fail(-ENOTSUP, "this kernel has no soft-dirty bits (it was built without "
					 "CONFIG_MEM_SOFT_DIRTY)");
	rc = trial_begin(&x, ram_fd);
	if (!rc)
		rc = trial_track(&x, true);
	if (!rc)
		rc = written_exactly(&x);
	/* Mapped and then taken away: unknown, so due (invariant 4). */
	if (!rc) {
		gw_bitmap_set_range(&x.expected, 3, 5);
		if (fallocate(x.c.ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      3 * GW_PAGE_SIZE, 5 * GW_PAGE_SIZE))
			rc = gw_fail(-errno, "cannot punch a hole: %s", strerror(errno));
	}
	if (!rc)
		rc = expect_due(&x, "pages taken away");
	trial_end(&x);
	return rc;
}

/* Set the pages of one category in @pages. @mask, @inverted: as in PAGEMAP_SCAN. */
static int categorize(const struct trial *x, uint64_t mask, uint64_t inverted, uint64_t flags,
		      struct gw_bitmap *pages)
{
	struct page_region regions[GW_PROBE_PAGES];
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .flags = flags,
				   .start = x->c.hva,
				   .end = x->c.hva + GW_PROBE_BYTES,
				   .vec = (uintptr_t)regions,
				   .vec_len = GW_ARRAY_SIZE(regions),
				   .category_inverted = inverted,
				   .category_mask = mask,
				   .return_mask = mask };
	long n = ioctl(x->t->pagemap, PAGEMAP_SCAN, &arg);

	if (n < 0)
		return gw_fail(-errno, "PAGEMAP_SCAN: %s", strerror(errno));
	gw_bitmap_zero(pages);
	for (long i = 0; i < n; i++)
		gw_bitmap_set_range(pages, (regions[i].start - x->c.hva) / GW_PAGE_SIZE,
				    (regions[i].end - regions[i].start) / GW_PAGE_SIZE);
	return 0;
}

static int expect_category(struct trial *x, uint64_t mask, uint64_t inverted,
			   const struct gw_bitmap *expected, const char *what)
{
	int rc = categorize(x, mask, inverted, 0, &x->due);

	return rc ? rc : gw_probe_same(&x->due, expected, what);
}

/* Drop the child's page-table entries, not the data. */
static int zap(struct trial *x)
{
	struct gw_inject inj;
	int rc = gw_inject_begin(&inj, x->c.pid);
	long got;

	if (rc)
		return rc;
	got = gw_inject_call(&inj, SYS_madvise, x->c.hva, GW_PROBE_BYTES, MADV_DONTNEED);
	gw_inject_end(&inj);
	return got ? gw_fail((int)got, "madvise: %s", strerror((int)-got)) : 0;
}

/* Pages by what happened to them; eight pages of each, side by side. */
enum {
	BEFORE = 8,
	READ = 16,
	WRITTEN = 24,
	HOLE_READ = GW_PROBE_PAGES - 32,
	EACH = 8
};
_Static_assert(HOLE_READ > GW_PROBE_PAGES / 2, "a hole: see trial_begin()");

static int touch_after_zap(struct trial *x)
{
	/* Written between the last scan and the zap: neither entry nor marker is left. */
	int rc = gw_probe_child_do(&x->c, GW_PROBE_WRITE, BEFORE, EACH);

	if (!rc)
		rc = zap(x);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_READ, READ, EACH);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_READ, HOLE_READ, EACH);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_WRITE, WRITTEN, EACH);
	return rc;
}

static int four_categories(struct trial *x)
{
	int rc;

	gw_bitmap_set_range(&x->none, BEFORE, EACH);
	rc = expect_category(x, PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
			     PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &x->none, "pages of unknown state");
	gw_bitmap_set_range(&x->expected, WRITTEN, EACH);
	if (!rc)
		rc = expect_category(x, PAGE_IS_PRESENT | PAGE_IS_WRITTEN, 0, &x->expected,
				     "pages written after a zap");
	gw_bitmap_zero(&x->expected);
	gw_bitmap_set_range(&x->expected, READ, EACH);
	gw_bitmap_set_range(&x->expected, HOLE_READ, EACH);
	if (!rc)
		rc = expect_category(x, PAGE_IS_PRESENT | PAGE_IS_WRITTEN, PAGE_IS_WRITTEN,
				     &x->expected, "pages read after a zap");
	gw_bitmap_zero(&x->expected);
	gw_bitmap_set_range(&x->expected, 0, GW_PROBE_PAGES);
	gw_bitmap_clear_range(&x->expected, BEFORE, EACH + EACH + EACH);
	gw_bitmap_clear_range(&x->expected, HOLE_READ, EACH);
	if (!rc)
		rc = expect_category(x, PAGE_IS_SWAPPED | PAGE_IS_WRITTEN, PAGE_IS_WRITTEN,
				     &x->expected, "pages untouched after a zap");
	return rc;
}

/* Unknown pages can be protected too, so that the next write to them is seen. */
static int protect_none(struct trial *x)
{
	const uint64_t entry = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	int rc = categorize(x, entry, entry, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, &x->due);

	if (!rc)
		rc = gw_probe_same(&x->due, &x->none, "pages of unknown state, protected");
	gw_bitmap_zero(&x->expected);
	if (!rc)
		rc = expect_category(x, entry, entry, &x->expected,
				     "pages of unknown state, "
				     "after they were protected");
	if (!rc)
		rc = trial_scan(x);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_READ, BEFORE, EACH);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_WRITE, BEFORE, 2);
	gw_bitmap_set_range(&x->expected, BEFORE, 2);
	if (!rc)
		rc = expect_category(x, PAGE_IS_WRITTEN, 0, &x->expected,
				     "pages of unknown state, written after they were protected");
	return rc;
}

int gw_probe_accessed(int ram_fd)
{
	struct trial x;
	int rc = trial_begin(&x, ram_fd);

	if (!rc)
		rc = trial_track(&x, false);
	if (!rc)
		rc = touch_after_zap(&x);
	if (!rc)
		rc = four_categories(&x);
	if (!rc)
		rc = protect_none(&x);
	/* The zap took entries, not data. */
	if (!rc)
		rc = gw_probe_child_check(&x.c, WRITTEN + EACH,
					  GW_PROBE_PAGES / 2 - WRITTEN - EACH);
	trial_end(&x);
	return rc;
}

/*
 * Pages that are emptied: mapped and clean, which keep the mark of a page that
 * was not written; mapped and written; never mapped by the child.
 */
enum {
	CLEAN = 32,
	DIRTY = 64,
	FOREIGN = GW_PROBE_PAGES - 32
};
_Static_assert(FOREIGN > GW_PROBE_PAGES / 2, "not mapped: see trial_begin()");

static int punch(struct trial *x, size_t first)
{
	if (fallocate(x->c.ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(first * GW_PAGE_SIZE), EACH * GW_PAGE_SIZE))
		return gw_fail(-errno, "cannot punch a hole: %s", strerror(errno));
	gw_bitmap_set_range(&x->expected, first, EACH);
	return 0;
}

/* Copy all memory as a round does, and note what a destination would hold. */
static int send_all(struct gw_holes *h, struct gw_digests *held)
{
	gw_autofree uint8_t *bytes = malloc(GW_CHUNK_SIZE);
	int rc = bytes ? 0 : gw_fail(-ENOMEM, "no memory for a probe");

	for (size_t page = 0; !rc && page < GW_PROBE_PAGES; page++) {
		if (page % GW_CHUNK_PAGES == 0)
			rc = gw_holes_read(h, page, GW_CHUNK_PAGES, bytes);
		if (!rc)
			gw_digests_set(
				held, page,
				gw_digest_page(bytes + page % GW_CHUNK_PAGES * GW_PAGE_SIZE));
	}
	return rc;
}

/*
 * What the tracker reports, together with what the holes tell, is what was
 * emptied; half of it is there again, because the child has read it.
 */
static int expect_emptied(struct trial *x, const struct gw_memory *memory, struct gw_digests *held)
{
	struct gw_holes *h;
	int rc = gw_holes_open(&h, memory, true);

	if (!rc)
		rc = send_all(h, held);
	if (!rc)
		rc = punch(x, CLEAN);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_READ, CLEAN, EACH / 2);
	if (!rc)
		rc = punch(x, DIRTY);
	if (!rc)
		rc = punch(x, FOREIGN);
	if (!rc)
		rc = gw_probe_child_do(&x->c, GW_PROBE_READ, FOREIGN, EACH / 2);
	if (!rc)
		rc = trial_scan(x);
	if (!rc)
		rc = gw_holes_heard(h);
	if (rc > 0)
		rc = gw_holes_due(h, 0, GW_PROBE_PAGES, held, &x->due);
	if (!rc)
		rc = gw_probe_same(&x->due, &x->expected, "emptied pages");
	gw_holes_close(h);
	return rc;
}

int gw_probe_holes(int ram_fd)
{
	struct gw_digests held = { 0 };
	struct gw_ram ram = { 0 };
	struct trial x;
	int rc = trial_begin(&x, ram_fd);

	if (!rc)
		rc = gw_digests_init(&held, GW_PROBE_PAGES);
	if (!rc)
		rc = gw_ram_add(&ram, "probe", dup(x.c.ram_fd), GW_PROBE_BYTES, 0);
	if (!rc)
		memset(x.c.ram + FOREIGN * GW_PAGE_SIZE, 1, EACH * GW_PAGE_SIZE);
	if (!rc) {
		rc = trial_track(&x, false);
		if (rc == -ENOTSUP && gw_track_has_softdirty())
			rc = trial_track(&x, true);
	}
	if (!rc)
		rc = expect_due(&x, "pages written before the first scan");
	if (!rc)
		rc = gw_probe_child_do(&x.c, GW_PROBE_WRITE, DIRTY, EACH);
	if (!rc)
		rc = expect_emptied(&x, &ram.memory, &held);
	gw_ram_close(&ram);
	gw_digests_free(&held);
	trial_end(&x);
	return rc;
}
