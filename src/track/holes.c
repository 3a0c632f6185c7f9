// SPDX-License-Identifier: GPL-2.0-or-later
/* holes.c - pages emptied behind the tracker's back; see holes.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "cleanup.h"
#include "error.h"
#include "holes.h"
#include "io.h"
#include "pagemap.h"

/* Linux 5.14 */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Linux 5.11 and 5.19. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

/* Linux 6.7; before it only memory that is no file of a disk's can be registered. */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#define HUGE	2097152UL
#define REGIONS 512
#define ENTRIES 512
#define SWAPPED (1ULL << 62)
#define PRESENT (1ULL << 63)

struct gw_holes {
	const struct gw_memory *memory;
	int ear; /* inotify; -1: it would not hear all */
	bool deaf;
	/* Of the mapping, once there is one: */
	bool witnessing;
	int pagemap;			    /* of this process */
	int uffd;			    /* over it: see arm() */
	uint8_t *map[GW_MEMORY_BLOCKS_MAX]; /* NULL: of a block that is in no file */
	struct gw_bitmap witnessed;	    /* pages with an entry there */
};

/* A descriptor that QEMU got from memfd_create() tells nobody what it does with it. */
static bool is_memfd(const char *link)
{
	char target[16] = "";

	return readlink(link, target, sizeof(target) - 1) < 0 || !strncmp(target, "/memfd:", 7);
}

static void listen_to(struct gw_holes *h)
{
	h->ear = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	for (unsigned int i = 0; h->ear >= 0 && i < h->memory->nr_blocks; i++) {
		const int fd = gw_memory_file(h->memory, i);
		gw_autofree char *link = fd < 0 ? NULL : gw_path("/proc/self/fd/%d", fd);

		if (fd < 0) /* nobody else can do anything to it */
			continue;
		if (!is_memfd(link) && inotify_add_watch(h->ear, link, IN_MODIFY) >= 0)
			continue;
		close(h->ear);
		h->ear = -1;
	}
}

/*
 * A fault must make one entry and no other, or a page that was punched and read would have its
 * entry again when its neighbour is populated. So the kernel shall not map around
 * a fault, nor large folios whole: it does neither where a userfaultfd is registered
 * for write-protection (nothing is ever protected). And no huge entries: the
 * addresses are askew to those of the file.
 */
static int arm(struct gw_holes *h, uint8_t *map, size_t len)
{
	struct uffdio_register reg = { .range = { (uintptr_t)map, len },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	if (ioctl(h->uffd, UFFDIO_REGISTER, &reg))
		return gw_fail(-errno, "UFFDIO_REGISTER of our own: %s", strerror(errno));
	return 0;
}

static int map_file(struct gw_holes *h, unsigned int i)
{
	const struct gw_memory_block *b = &h->memory->blocks[i];
	const int fd = gw_memory_file(h->memory, i);
	const size_t room = b->size + 2 * HUGE;
	uint8_t *space = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			      -1, 0);
	uint8_t *askew;

	if (space == MAP_FAILED)
		return gw_fail(-errno, "RAM file of %s: mmap: %s", b->id, strerror(errno));
	askew = space + (HUGE - (uintptr_t)space % HUGE) + GW_PAGE_SIZE;
	if (mmap(askew, b->size, PROT_READ, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) !=
	    askew) {
		munmap(space, room);
		return gw_fail(-errno, "RAM file of %s: mmap: %s", b->id, strerror(errno));
	}
	munmap(space, (size_t)(askew - space));
	munmap(askew + b->size, room - b->size - (size_t)(askew - space));
	h->map[i] = askew;
	return arm(h, askew, b->size);
}

/* A userfaultfd with @features; a refused UFFDIO_API leaves one that is of no use. */
static int open_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	gw_autofd int fd = (int)syscall(SYS_userfaultfd,
					O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	return fd < 0 || ioctl(fd, UFFDIO_API, &api) ? -1 : gw_steal_fd(&fd);
}

static int begin_witnessing(struct gw_holes *h)
{
	const uint64_t features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	int rc = 0;

	h->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	h->uffd = open_uffd(features | UFFD_FEATURE_WP_ASYNC);
	if (h->uffd < 0)
		h->uffd = open_uffd(features);
	if (h->pagemap < 0 || h->uffd < 0)
		return gw_fail(-errno,
			       "this guest may give memory back, and what it gives cannot be "
			       "watched: userfaultfd: %s",
			       strerror(errno));
	for (unsigned int i = 0; !rc && i < h->memory->nr_blocks; i++)
		if (gw_memory_file(h->memory, i) >= 0)
			rc = map_file(h, i);
	h->witnessing = !rc;
	return rc;
}

/* One that hears nothing, or NULL. */
static struct gw_holes *begin(const struct gw_memory *memory)
{
	struct gw_holes *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->memory = memory;
	h->ear = h->pagemap = h->uffd = -1;
	return h;
}

int gw_holes_open(struct gw_holes **holes, const struct gw_memory *memory, bool expected)
{
	struct gw_holes *h = begin(memory);
	int rc;

	*holes = h;
	if (!h)
		return gw_fail(-ENOMEM, "no memory to watch for holes");
	rc = gw_bitmap_init(&h->witnessed, memory->nr_pages);
	if (rc)
		return rc;
	listen_to(h);
	return expected || h->ear < 0 ? begin_witnessing(h) : 0;
}

int gw_holes_open_deaf(struct gw_holes **holes, const struct gw_memory *memory)
{
	struct gw_holes *h = begin(memory);

	*holes = h;
	if (!h)
		return gw_fail(-ENOMEM, "no memory to watch for holes");
	h->deaf = true;
	return gw_bitmap_init(&h->witnessed, memory->nr_pages);
}

void gw_holes_close(struct gw_holes *h)
{
	if (!h)
		return;
	for (unsigned int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		if (h->map[i])
			munmap(h->map[i], h->memory->blocks[i].size);
	if (h->ear >= 0)
		close(h->ear);
	if (h->uffd >= 0)
		close(h->uffd);
	if (h->pagemap >= 0)
		close(h->pagemap);
	gw_bitmap_free(&h->witnessed);
	free(h);
}

int gw_holes_heard(struct gw_holes *h)
{
	char events[4096];
	bool heard = h->ear < 0 && !h->deaf;

	/* Those that say the same are one; how many there were, and in which file, is no matter. */
	while (h->ear >= 0 && read(h->ear, events, sizeof(events)) > 0)
		heard = true;
	if (heard && !h->witnessing) {
		int rc = begin_witnessing(h);

		if (rc)
			return rc;
	}
	return heard;
}

bool gw_holes_surprise(const struct gw_holes *h)
{
	struct pollfd pfd = { .fd = h->ear, .events = POLLIN };

	return !h->witnessing && poll(&pfd, 1, 0) > 0;
}

static uint8_t *at(const struct gw_holes *h, size_t page)
{
	const struct gw_memory_block *b = gw_memory_block_of(h->memory, page);

	uint8_t *map = b ? h->map[b - h->memory->blocks] : NULL;

	return map ? map + (page - b->first_page) * GW_PAGE_SIZE : NULL;
}

/* Linux before 6.7: an entry of eight bytes for each page. */
static int look_at_entries(struct gw_holes *h, size_t first, size_t count)
{
	uint64_t entries[ENTRIES];

	for (size_t i = 0, n; i < count; i += n) {
		int rc;

		n = count - i < ENTRIES ? count - i : ENTRIES;
		rc = gw_pread_all(h->pagemap, entries, n * 8,
				  (off_t)((uintptr_t)at(h, first + i) / GW_PAGE_SIZE * 8));
		if (rc)
			return gw_fail_prefix(rc, "pagemap: ");
		for (size_t k = 0; k < n; k++)
			if (!(entries[k] & (PRESENT | SWAPPED)))
				gw_bitmap_clear(&h->witnessed, first + i + k);
	}
	return 0;
}

/*
 * Take from @h->witnessed the pages of [first, first + count), all in one file, that have
 * lost their entry. One that the kernel is just moving counts as swapped.
 */
static int look(struct gw_holes *h, size_t first, size_t count)
{
	struct page_region regions[REGIONS];
	const uint64_t base = (uintptr_t)at(h, first);
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = base,
		.end = base + count * GW_PAGE_SIZE,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		.category_inverted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT,
	};

	while (arg.start < arg.end) {
		long n = ioctl(h->pagemap, PAGEMAP_SCAN, &arg);

		if (n < 0 && errno == ENOTTY)
			return look_at_entries(h, first, count);
		if (n < 0)
			return gw_fail(-errno, "PAGEMAP_SCAN of our own: %s", strerror(errno));
		for (long k = 0; k < n; k++)
			gw_bitmap_clear_range(&h->witnessed,
					      first + (regions[k].start - base) / GW_PAGE_SIZE,
					      (regions[k].end - regions[k].start) / GW_PAGE_SIZE);
		/* walk_end is to be believed only if the buffer is full (written_uffd.c). */
		arg.start = n < REGIONS ? arg.end : arg.walk_end;
	}
	return 0;
}

/* Of [first, end), all in one file: what is held with content, and has no witness. */
static int due_of_range(struct gw_holes *h, size_t first, size_t end, const struct gw_digests *held,
			struct gw_bitmap *due)
{
	size_t start, stop, from, to;
	int rc = look(h, first, end - first);

	if (rc)
		return rc;
	gw_bitmap_for_each_run(&held->filled, first, end, start, stop)
		for (from = gw_bitmap_next(&h->witnessed, start, stop, false); from < stop;
		     from = gw_bitmap_next(&h->witnessed, to, stop, false)) {
			to = gw_bitmap_next(&h->witnessed, from, stop, true);
			gw_bitmap_set_range(due, from, to - from);
		}
	return 0;
}

int gw_holes_due(struct gw_holes *h, size_t first, size_t count, const struct gw_digests *held,
		 struct gw_bitmap *due)
{
	for (unsigned int i = 0; i < h->memory->nr_blocks; i++) {
		const struct gw_memory_block *b = &h->memory->blocks[i];
		const size_t from = first > b->first_page ? first : b->first_page;
		size_t stop = b->first_page + b->nr_pages;
		int rc = 0;

		if (first < stop && count < stop - first)
			stop = first + count;
		if (h->map[i] && from < stop)
			rc = due_of_range(h, from, stop, held, due);
		if (rc)
			return rc;
	}
	return 0;
}

static int populate(struct gw_holes *h, size_t page, size_t count)
{
	if (madvise(at(h, page), count * GW_PAGE_SIZE, MADV_POPULATE_READ))
		return gw_fail(-errno, "RAM file of %s: populating %zu pages: %s",
			       gw_memory_block_of(h->memory, page)->id, count, strerror(errno));
	gw_bitmap_set_range(&h->witnessed, page, count);
	return 0;
}

/* Entries for those of the pages that are in memory; what is a hole stays one. */
static int witness_resident(struct gw_holes *h, size_t page, size_t count)
{
	uint8_t resident[GW_CHUNK_PAGES];
	int rc = 0;

	if (mincore(at(h, page), count * GW_PAGE_SIZE, resident))
		return gw_fail(-errno, "mincore: %s", strerror(errno));
	for (size_t i = 0, n; !rc && i < count; i += n) {
		for (n = 0; i + n < count && resident[i + n] & 1; n++)
			;
		rc = n ? populate(h, page + i, n) : 0;
		n += !n;
	}
	return rc;
}

int gw_holes_read(struct gw_holes *h, size_t page, size_t count, uint8_t *buf)
{
	const bool here = gw_bitmap_next(&h->witnessed, page, page + count, false) == page + count;
	const struct gw_memory_block *b = gw_memory_block_of(h->memory, page);
	size_t in_file = at(h, page) ? b->first_page + b->nr_pages - page : 0;
	int rc = 0;

	in_file = in_file < count ? in_file : count;
	if (h->witnessing && !here && in_file)
		rc = witness_resident(h, page, in_file);
	if (!rc)
		rc = gw_memory_read(h->memory, page, count, buf);
	/* Swapped out, or written meanwhile: first its witness, then the copy. */
	for (size_t i = 0; !rc && h->witnessing && !here && i < in_file; i++) {
		if (gw_bitmap_test(&h->witnessed, page + i) ||
		    gw_page_is_zero(buf + i * GW_PAGE_SIZE))
			continue;
		rc = populate(h, page + i, 1);
		if (!rc)
			rc = gw_memory_read(h->memory, page + i, 1, buf + i * GW_PAGE_SIZE);
	}
	return rc;
}
