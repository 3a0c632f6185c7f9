// SPDX-License-Identifier: GPL-2.0-or-later
/* index.c - the file of an index, and what is known of it in memory; see index.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "index_internal.h"
#include "io.h"
#include "own.h"
#include "xxh.h"

#define LOAD_SEGMENTS 256UL /* at once: half a MiB of digests */

static size_t round_up(size_t bytes)
{
	return (bytes + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE * GW_PAGE_SIZE;
}

static uint64_t segment_at(size_t segment)
{
	return sizeof(struct gw_index_head) + segment * sizeof(struct gw_index_segment);
}

/* Each segment's are within a page of the file. */
static uint64_t digests_at(const struct gw_index *x, size_t segment)
{
	return round_up(segment_at(x->nr_segments)) + segment * GW_SEGMENT_DIGESTS;
}

uint64_t gw_index_head_sum(const struct gw_index_head *h)
{
	return XXH3_64bits(h, offsetof(struct gw_index_head, sum));
}

uint32_t gw_index_segment_sum(const struct gw_index_segment *s, size_t segment)
{
	return (uint32_t)XXH3_64bits_withSeed(s, offsetof(struct gw_index_segment, sum), segment);
}

uint64_t gw_index_digests_sum(const uint64_t digests[GW_SEGMENT_BLOCKS])
{
	for (size_t i = 0; i < GW_SEGMENT_BLOCKS; i++)
		if (digests[i])
			return XXH3_64bits(digests, GW_SEGMENT_DIGESTS) ?: 1;
	return 0;
}

bool gw_index_is_ours(const struct gw_index *x)
{
	struct gw_index_head now;

	return !gw_pread_all(x->fd, &now, sizeof(now), 0) && !memcmp(&now, &x->head, sizeof(now));
}

int gw_index_lock(struct gw_index *x)
{
	if (!flock(x->fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return gw_fail(-EBUSY, "index %s: another process is writing it", x->path);
	return gw_fail(-errno, "index %s: %s", x->path, strerror(errno));
}

void gw_index_unlock(struct gw_index *x)
{
	flock(x->fd, LOCK_UN);
}

/* Whether the file is an index of this image; its head is @x's then. */
static bool is_whole(struct gw_index *x, uint64_t image_size)
{
	struct gw_index_head *h = &x->head;
	struct stat st;

	return !fstat(x->fd, &st) && (uint64_t)st.st_size == digests_at(x, x->nr_segments) &&
	       !gw_pread_all(x->fd, h, sizeof(*h), 0) &&
	       !memcmp(h->magic, GW_INDEX_MAGIC, sizeof(h->magic)) &&
	       h->format == GW_INDEX_FORMAT && h->image_size == image_size &&
	       h->sum == gw_index_head_sum(h);
}

/* Its head comes last: without it the file is none. */
static int begin(struct gw_index *x, uint64_t image_size)
{
	struct gw_index_head *h = &x->head;
	int rc;

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, GW_INDEX_MAGIC, sizeof(h->magic));
	h->format = GW_INDEX_FORMAT;
	h->image_size = image_size;
	rc = gw_secret_make(h->secret);
	if (rc)
		return rc;
	h->sum = gw_index_head_sum(h);
	if (ftruncate(x->fd, 0) || ftruncate(x->fd, (off_t)digests_at(x, x->nr_segments)))
		return gw_fail(-errno, "%s", strerror(errno));
	return gw_pwrite_all(x->fd, h, sizeof(*h), 0);
}

static int open_file(struct gw_index *x, uint64_t image_size)
{
	int rc;

	x->fd = gw_own_open(x->path, O_RDWR | O_CREAT, 0600);
	if (x->fd < 0)
		return x->fd;
	if (is_whole(x, image_size))
		return 0;
	rc = gw_index_lock(x);
	if (rc)
		return rc;
	/* Another may have begun it in between. */
	if (!is_whole(x, image_size))
		rc = begin(x, image_size);
	gw_index_unlock(x);
	return rc ? gw_fail_prefix(rc, "index %s: ", x->path) : 0;
}

/* Zeros, that take memory where they are changed. */
static void *zeros(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

static int make_tables(struct gw_index *x)
{
	x->segments = zeros(x->nr_segments * sizeof(*x->segments));
	x->digests = zeros(x->nr_segments * GW_SEGMENT_DIGESTS);
	if (!x->segments || !x->digests)
		return gw_fail(-ENOMEM, "no memory for the index of %u blocks", x->nr_blocks);
	return 0;
}

int gw_index_open(const char *path, uint64_t image_size, struct gw_index **index)
{
	struct gw_index *x;
	int rc;

	*index = NULL;
	if (image_size < GW_PAGE_SIZE || image_size / GW_PAGE_SIZE > GW_INDEX_NONE)
		return gw_fail(-ENOTSUP,
			       "no index of an image of %llu bytes: it needs 4096 at least, and "
			       "less than 16 TiB",
			       (unsigned long long)image_size);
	x = calloc(1, sizeof(*x));
	if (!x)
		return gw_fail(-ENOMEM, "no memory for an index");
	pthread_mutex_init(&x->lock, NULL);
	x->path = gw_path("%s", path);
	x->nr_blocks = (uint32_t)(image_size / GW_PAGE_SIZE);
	x->nr_segments = (x->nr_blocks + GW_SEGMENT_BLOCKS - 1) / GW_SEGMENT_BLOCKS;
	rc = open_file(x, image_size);
	if (!rc)
		rc = gw_key_init(&x->key, x->head.secret);
	if (!rc)
		rc = make_tables(x);
	if (!rc)
		rc = gw_index_load(x);
	if (rc)
		gw_index_close(x);
	else
		*index = x;
	return rc;
}

void gw_index_close(struct gw_index *x)
{
	if (!x)
		return;
	if (x->segments)
		munmap(x->segments, x->nr_segments * sizeof(*x->segments));
	if (x->digests)
		munmap(x->digests, x->nr_segments * GW_SEGMENT_DIGESTS);
	if (x->fd >= 0)
		close(x->fd);
	pthread_mutex_destroy(&x->lock);
	free(x->slots);
	free(x->path);
	free(x);
}

static bool is_sound(const struct gw_index_segment *s, size_t segment, const uint64_t *digests)
{
	return s->sum == gw_index_segment_sum(s, segment) &&
	       (!s->digests || s->digests == gw_index_digests_sum(digests));
}

/* What the file says of a segment; what is not sound says nothing. */
static void take(struct gw_index *x, size_t segment, const struct gw_index_segment *s,
		 const uint64_t *digests)
{
	uint64_t *ours = x->digests + segment * GW_SEGMENT_BLOCKS;
	const bool sound = is_sound(s, segment, digests);

	if (sound && s->digests)
		memcpy(ours, digests, GW_SEGMENT_DIGESTS);
	else if (x->segments[segment].digests)
		memset(ours, 0, GW_SEGMENT_DIGESTS);
	x->segments[segment] = sound ? *s : (struct gw_index_segment){ 0 };
}

/* @count segments from @first on, of which those are taken that are not as we know them. */
static int load_some(struct gw_index *x, size_t first, size_t count, uint64_t *digests)
{
	struct gw_index_segment now[LOAD_SEGMENTS];
	int rc = gw_pread_all(x->fd, now, count * sizeof(now[0]), (off_t)segment_at(first));

	if (rc || !memcmp(now, x->segments + first, count * sizeof(now[0])))
		return rc;
	rc = gw_pread_all(x->fd, digests, count * GW_SEGMENT_DIGESTS, (off_t)digests_at(x, first));
	for (size_t i = 0; !rc && i < count; i++)
		if (memcmp(&now[i], &x->segments[first + i], sizeof(now[i])) != 0)
			take(x, first + i, &now[i], digests + i * GW_SEGMENT_BLOCKS);
	return rc;
}

int gw_index_load(struct gw_index *x)
{
	gw_autofree uint64_t *digests = malloc(LOAD_SEGMENTS * GW_SEGMENT_DIGESTS);
	int rc = 0;

	if (!digests)
		return gw_fail(-ENOMEM, "no memory to read an index");
	for (size_t at = 0, count; !rc && at < x->nr_segments; at += count) {
		count = x->nr_segments - at < LOAD_SEGMENTS ? x->nr_segments - at : LOAD_SEGMENTS;
		rc = load_some(x, at, count, digests);
	}
	return rc ? gw_fail_prefix(rc, "index %s: ", x->path) : 0;
}

int gw_index_keep(struct gw_index *x, size_t segment, struct gw_index_segment s)
{
	int rc = 0;

	s.sum = gw_index_segment_sum(&s, segment);
	if (s.digests && s.digests != x->segments[segment].digests)
		rc = gw_pwrite_all(x->fd, x->digests + segment * GW_SEGMENT_BLOCKS,
				   GW_SEGMENT_DIGESTS, (off_t)digests_at(x, segment));
	if (!rc)
		rc = gw_pwrite_all(x->fd, &s, sizeof(s), (off_t)segment_at(segment));
	if (rc)
		return gw_fail_prefix(rc, "index %s: ", x->path);
	x->segments[segment] = s;
	return 0;
}

/* Whether another process has not come to the segment since we did. */
static bool is_as_known(const struct gw_index *x, size_t segment)
{
	struct gw_index_segment now;

	return !gw_pread_all(x->fd, &now, sizeof(now), (off_t)segment_at(segment)) &&
	       !memcmp(&now, &x->segments[segment], sizeof(now));
}

/*
 * Without the lock of the file, which may be held for long. Who writes the segment at this
 * moment has it read once more than need be.
 */
void gw_index_stale(struct gw_index *x, uint32_t block)
{
	const size_t segment = block / GW_SEGMENT_BLOCKS;
	struct gw_index_segment s;

	if (block >= x->nr_blocks)
		return;
	__atomic_store_n(&x->digests[block], 0, __ATOMIC_RELAXED);
	gw_locked(&x->lock);
	s = x->segments[segment];
	if (!s.turn || s.turn == GW_INDEX_STALE)
		return;
	s.stamp = 0;
	s.turn = GW_INDEX_STALE;
	if (is_as_known(x, segment))
		gw_index_keep(x, segment, s);
}
