// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which pages of a file lie in the page cache, in which page frames, and where on
 * the disk: from user space, by asking the kernel in five ways.
 *
 *   mincore()             which pages are there
 *   MADV_POPULATE_READ    has page tables made for those, without touching them: a
 *                         page that is truncated meanwhile is an error, no SIGBUS
 *   /proc/self/pagemap    their page frames
 *   /proc/kpageflags      whether they are clean
 *   FIEMAP                their blocks
 *
 * A file is looked at through a window, so that memory is bounded. The mapping is
 * MADV_RANDOM, or pages would be read ahead; before it goes away it becomes
 * MADV_SEQUENTIAL, for which the kernel does not count the pages as accessed.
 *
 * Between the questions anything may change, and pages pinned for DMA cannot be
 * told from others here: hints, as all of it.
 */
#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/kernel-page-flags.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define WINDOW	   8192u /* pages */
#define EXTENTS	   128u
#define SECTOR	   512
#define NOWHERE	   UINT64_MAX
#define FOLIO_MAX  512u /* pages of the largest that is looked through for its first page */
#define PM_FRAME   ((1ull << 55) - 1)
#define PM_FILE	   (1ull << 61)
#define PM_PRESENT (1ull << 63)

#define FLAG(name) (1ull << KPF_##name)
#define NOT_CLEAN                                                                               \
	(FLAG(DIRTY) | FLAG(WRITEBACK) | FLAG(LOCKED) | FLAG(ERROR) | FLAG(ANON) | FLAG(SLAB) | \
	 FLAG(SWAPBACKED) | FLAG(HWPOISON) | FLAG(NOPAGE))

#define NO_PLAIN_BLOCKS                                                                         \
	(FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED |               \
	 FIEMAP_EXTENT_DATA_ENCRYPTED | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE | \
	 FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_UNWRITTEN)

struct finder {
	int pagemap, flags;
	size_t page;
	/* The extent of the file that was looked up last, in bytes; place: on the file system. */
	uint64_t start, length, place;
	unsigned int next; /* in the map, of those that follow it */
	bool last;	   /* there are none after those in the map */
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	};
	unsigned char present[WINDOW];
	uint64_t entries[WINDOW]; /* pagemap's */
	uint64_t state[WINDOW];	  /* kpageflags' */
	uint64_t before[FOLIO_MAX];
};

struct finder *finder_new(struct report *report)
{
	struct finder *finder = calloc(1, sizeof(*finder));

	if (!finder)
		return NULL;
	finder->page = getpagesize();
	finder->pagemap = finder->flags = -1;
	if (madvise(NULL, 0, MADV_POPULATE_READ) < 0) {
		report_fail(report, errno, "without the kernel module, Linux 5.14 is needed");
		finder_free(finder);
		return NULL;
	}
	finder->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	finder->flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (finder->pagemap >= 0 && finder->flags >= 0)
		return finder;
	report_fail(report, errno, "cannot open /proc/self/pagemap and /proc/kpageflags");
	finder_free(finder);
	return NULL;
}

void finder_free(struct finder *finder)
{
	if (!finder)
		return;
	if (finder->pagemap >= 0)
		close(finder->pagemap);
	if (finder->flags >= 0)
		close(finder->flags);
	free(finder);
}

/* Whether the file's blocks hold what its pages do. */
static bool is_plain(int fd, bool xfs)
{
	struct fsxattr attributes;
	unsigned int flags;

	if (xfs)
		return !ioctl(fd, FS_IOC_FSGETXATTR, &attributes) &&
		       !(attributes.fsx_xflags & FS_XFLAG_REALTIME);
	return !ioctl(fd, FS_IOC_GETFLAGS, &flags) &&
	       !(flags & (FS_ENCRYPT_FL | FS_JOURNAL_DATA_FL));
}

/* Has the kernel list the extents from @pos on. */
static bool list_extents(struct finder *finder, int fd, uint64_t pos)
{
	struct fiemap *map = &finder->map;

	memset(map, 0, sizeof(*map));
	map->fm_start = pos;
	map->fm_length = FIEMAP_MAX_OFFSET - pos;
	map->fm_extent_count = EXTENTS;
	finder->next = 0;
	if (ioctl(fd, FS_IOC_FIEMAP, map) < 0)
		map->fm_mapped_extents = 0;
	finder->last = map->fm_mapped_extents < EXTENTS ||
		       map->fm_extents[EXTENTS - 1].fe_flags & FIEMAP_EXTENT_LAST;
	return map->fm_mapped_extents;
}

/* Finds the extent that @pos is in, or the hole. @pos only ever grows within a file. */
static void find_extent(struct finder *finder, int fd, uint64_t pos)
{
	const struct fiemap_extent *list = finder->map.fm_extents;
	uint64_t end;

	finder->start = pos;
	finder->length = NOWHERE - pos;
	finder->place = NOWHERE;
	while (finder->next < finder->map.fm_mapped_extents &&
	       list[finder->next].fe_logical + list[finder->next].fe_length <= pos)
		finder->next++;
	if (finder->next == finder->map.fm_mapped_extents &&
	    (finder->last || !list_extents(finder, fd, pos)))
		return;
	list += finder->next;
	if (list->fe_logical > pos) {
		finder->length = list->fe_logical - pos;
		return;
	}
	finder->start = list->fe_logical;
	finder->length = list->fe_length;
	if (list->fe_flags & NO_PLAIN_BLOCKS)
		return;
	finder->place = list->fe_physical;
	/* A page may begin in one and end in the next. */
	while (++finder->next < finder->map.fm_mapped_extents) {
		end = finder->start + finder->length;
		list++;
		if (list->fe_logical != end || list->fe_flags & NO_PLAIN_BLOCKS ||
		    list->fe_physical != finder->place + finder->length)
			break;
		finder->length += list->fe_length;
	}
}

/* The flags of the first page of the folio that @frame is in. */
static uint64_t head_state(struct finder *finder, uint64_t frame)
{
	uint64_t first = frame & ~(uint64_t)(FOLIO_MAX - 1);
	size_t size = (frame - first) * sizeof(uint64_t);

	if (pread(finder->flags, finder->before, size, first * sizeof(uint64_t)) != (ssize_t)size)
		return 0;
	while (frame-- > first)
		if (!(finder->before[frame - first] & FLAG(COMPOUND_TAIL)))
			return finder->before[frame - first];
	return 0;
}

static bool is_clean(uint64_t state)
{
	return state & FLAG(UPTODATE) && !(state & NOT_CLEAN);
}

/* Reports what is clean of @n pages from @pos on, which lie in frames from @frame on. */
static int report_frames(struct walk *walk, int fd, uint64_t pos, uint64_t frame, size_t n)
{
	struct finder *finder = walk->finder;
	ssize_t size = n * sizeof(uint64_t);
	uint64_t head = 0;

	if (pread(finder->flags, finder->state, size, frame * sizeof(uint64_t)) != size)
		return 0;
	for (size_t i = 0; i < n; i++, pos += finder->page) {
		uint64_t place;
		int error;

		if (!(finder->state[i] & FLAG(COMPOUND_TAIL)))
			head = finder->state[i];
		else if (!i)
			head = head_state(finder, frame);
		if (!is_clean(head))
			continue;
		if (pos - finder->start >= finder->length)
			find_extent(finder, fd, pos);
		if (finder->place == NOWHERE || pos + finder->page > finder->start + finder->length)
			continue;
		place = finder->place + pos - finder->start;
		error = report_pages(walk->report, frame + i, 1, walk->system->index,
				     walk->system->start + place / SECTOR);
		if (error)
			return error;
	}
	return 0;
}

/* Reports of pages @i to @end of the window at @pos, mapped at @window, which are present. */
static int report_present(struct walk *walk, int fd, uint64_t pos, char *window, size_t i,
			  size_t end)
{
	struct finder *finder = walk->finder;
	const uint64_t *entries = finder->entries;
	const uint64_t needed = PM_PRESENT | PM_FILE;
	ssize_t size = (end - i) * sizeof(*entries);
	size_t n;

	/* If it fails, because a page has gone, those before it have been mapped. */
	madvise(window + i * finder->page, (end - i) * finder->page, MADV_POPULATE_READ);
	if (pread(finder->pagemap, finder->entries + i, size,
		  ((uintptr_t)window / finder->page + i) * sizeof(*entries)) != size)
		return 0;
	for (; i < end; i += n) {
		uint64_t frame = entries[i] & PM_FRAME;
		int error;

		n = 1;
		if ((entries[i] & needed) != needed || !frame)
			continue;
		while (i + n < end && (entries[i + n] & needed) == needed &&
		       (entries[i + n] & PM_FRAME) == frame + n)
			n++;
		error = report_frames(walk, fd, pos + i * finder->page, frame, n);
		if (error)
			return error;
	}
	return 0;
}

static int look_through(struct walk *walk, int fd, uint64_t pos, size_t pages)
{
	struct finder *finder = walk->finder;
	size_t size = pages * finder->page, end;
	char *window = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)pos);
	int error = 0;

	if (window == MAP_FAILED)
		return 0;
	madvise(window, size, MADV_RANDOM);
	if (mincore(window, size, finder->present) < 0)
		pages = 0;
	for (size_t i = 0; i < pages && !error; i = end + 1) {
		for (end = i; end < pages && finder->present[end] & 1;)
			end++;
		if (end > i)
			error = report_present(walk, fd, pos, window, i, end);
	}
	madvise(window, size, MADV_SEQUENTIAL);
	munmap(window, size);
	return error;
}

int finder_file(struct walk *walk, int fd, uint64_t size)
{
	struct finder *finder = walk->finder;
	uint64_t pages = (size + finder->page - 1) / finder->page;
	int error = 0;

	if (!is_plain(fd, walk->system->xfs))
		return 0;
	finder->start = finder->length = 0;
	finder->next = finder->map.fm_mapped_extents = 0;
	finder->last = false;
	for (uint64_t i = 0; i < pages && !error; i += WINDOW) {
		uint64_t rest = pages - i;

		error = look_through(walk, fd, i * finder->page, rest < WINDOW ? rest : WINDOW);
		if (!error && rest > WINDOW)
			error = walk->report->sink->wanted(walk->report->sink);
	}
	return error;
}
