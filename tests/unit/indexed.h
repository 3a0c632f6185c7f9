/* SPDX-License-Identifier: GPL-2.0-or-later */
/* indexed.h - an image in memory, whose reads are counted, and what an index finds of it. */
#ifndef TEST_INDEXED_H
#define TEST_INDEXED_H

#include "unit.h"

#include <errno.h>

#include "clock.h"
#include "index.h"
#include "rng.h"

#define SEGMENT	 256UL /* blocks */
#define SEGMENTS 12UL
#define BLOCKS	 ((SEGMENTS - 1) * SEGMENT + 37) /* the last is short */
#define SIZE	 (BLOCKS * GW_PAGE_SIZE + 100)	 /* and so is the last block, which is none */
#define FOREVER	 SIZE_MAX

struct disk {
	uint8_t bytes[SIZE];
	bool stored[BLOCKS];
	size_t stop_after; /* reads */
	size_t bad;	   /* a segment that cannot be read */
	size_t reads;
	size_t order[4 * SEGMENTS]; /* the segments that were */
	void (*at_read)(struct disk *d);
	struct gw_index *other; /* for it */
	const char *path;	/* too */
};

static struct disk disk;

static inline int disk_read(void *env, void *buf, size_t len, uint64_t offset)
{
	struct disk *d = env;
	const size_t segment = offset / (SEGMENT * GW_PAGE_SIZE);

	assert_int_equal(offset % (SEGMENT * GW_PAGE_SIZE), 0);
	assert_int_equal((uintptr_t)buf % 4096, 0);
	assert_true(len && len % GW_PAGE_SIZE == 0 && offset + len <= SIZE);
	assert_true(d->reads < GW_ARRAY_SIZE(d->order));
	d->order[d->reads++] = segment;
	if (d->at_read)
		d->at_read(d);
	if (segment == d->bad) {
		memset(buf, 0xee, len / 2);
		return gw_fail(-EIO, "a bad sector");
	}
	memcpy(buf, d->bytes + offset, len);
	return 0;
}

static inline int64_t disk_data(void *env, uint64_t offset)
{
	const struct disk *d = env;

	for (size_t b = offset / GW_PAGE_SIZE; b < BLOCKS; b++)
		if (d->stored[b])
			return (int64_t)(b * GW_PAGE_SIZE > offset ? b * GW_PAGE_SIZE : offset);
	return -ENODATA;
}

static inline bool disk_cancelled(void *env)
{
	const struct disk *d = env;

	return d->reads >= d->stop_after;
}

static const struct gw_index_source source = {
	.read = disk_read,
	.data = disk_data,
	.cancelled = disk_cancelled,
	.env = &disk,
};

static inline uint8_t *block(size_t b)
{
	return disk.bytes + b * GW_PAGE_SIZE;
}

static inline void store(struct rng *rng, size_t b)
{
	disk.stored[b] = true;
	rng_fill(rng, block(b), GW_PAGE_SIZE);
}

/* All blocks are stored, and different. */
static inline void fill(uint64_t seed)
{
	struct rng rng = { seed };

	memset(&disk, 0, sizeof(disk));
	disk.stop_after = FOREVER;
	disk.bad = FOREVER;
	for (size_t b = 0; b < BLOCKS; b++)
		store(&rng, b);
}

/* Holes of all lengths, blocks that are the same, and such that are stored and zero. */
static inline void fill_as_images_are(uint64_t seed)
{
	struct rng rng = { seed };

	memset(&disk, 0, sizeof(disk));
	disk.stop_after = FOREVER;
	disk.bad = FOREVER;
	for (size_t b = 0; b < BLOCKS;) {
		const size_t len = rng_below(&rng, rng_one_in(&rng, 4) ? 3 * SEGMENT : 40);
		const size_t end = b + len < BLOCKS ? b + len : BLOCKS;
		const uint64_t kind = rng_below(&rng, 4);
		const size_t from = b ? rng_below(&rng, b) : 0;

		for (size_t i = 0; b < end; i++, b++) {
			if (kind == 0)
				continue;
			store(&rng, b);
			if (kind == 1)
				memset(block(b), 0, GW_PAGE_SIZE);
			else if (kind == 2)
				memcpy(block(b), block(from + i), GW_PAGE_SIZE);
		}
	}
}

static inline size_t segments_stored(void)
{
	size_t n = 0;

	for (size_t s = 0; s < SEGMENTS; s++) {
		bool any = false;

		for (size_t b = s * SEGMENT; b < (s + 1) * SEGMENT && b < BLOCKS; b++)
			any = any || disk.stored[b];
		n += any;
	}
	return n;
}

static inline struct gw_index *opened(const char *folder)
{
	gw_autofree char *path = gw_path("%s/index", folder);
	struct gw_index *x;

	assert_int_equal(gw_index_open(path, SIZE, &x), 0);
	return x;
}

/* Refreshed, and stopped after @reads. */
static inline struct gw_index_refreshed refreshed(struct gw_index *x, uint64_t stamp, size_t reads)
{
	struct gw_index_refreshed done;

	disk.reads = 0;
	disk.stop_after = reads;
	assert_int_equal(gw_index_refresh(x, &source, stamp, GW_FOREVER, &done), 0);
	assert_int_equal(done.read + done.failed, disk.reads);
	assert_int_equal(gw_index_prepare(x), 0);
	return done;
}

/* The segments in the order in which they were read. */
static inline void assert_order(const size_t *order, size_t nr)
{
	assert_int_equal(disk.reads, nr);
	assert_memory_equal(disk.order, order, nr * sizeof(*order));
}

static inline uint32_t found(const struct gw_index *x, const void *page)
{
	return gw_index_find(x, gw_index_digest(x, page), GW_INDEX_NONE);
}

/* Each block with something in it is found, or one that is the same. */
static inline void assert_found(const struct gw_index *x, size_t first, size_t count)
{
	static const uint8_t zero[GW_PAGE_SIZE];

	for (size_t b = first; b < first + count && b < BLOCKS; b++) {
		const uint64_t digest = gw_index_digest(x, block(b));
		const uint32_t at = gw_index_find(x, digest, GW_INDEX_NONE);

		if (!memcmp(block(b), zero, GW_PAGE_SIZE)) {
			assert_int_equal(digest, 0);
			assert_int_equal(at, GW_INDEX_NONE);
			assert_int_equal(gw_index_find(x, digest, (uint32_t)b), GW_INDEX_NONE);
			continue;
		}
		assert_true(at < BLOCKS);
		assert_memory_equal(block(at), block(b), GW_PAGE_SIZE);
		assert_int_equal(gw_index_find(x, digest, (uint32_t)b), b);
		/* Wrong hints mislead nobody. */
		assert_int_equal(gw_index_find(x, digest, (uint32_t)BLOCKS), at);
		if (b && memcmp(block(b - 1), block(b), GW_PAGE_SIZE) != 0)
			assert_int_equal(gw_index_find(x, digest, (uint32_t)b - 1), at);
	}
}

static inline void assert_not_found(const struct gw_index *x, size_t first, size_t count)
{
	for (size_t b = first; b < first + count && b < BLOCKS; b++) {
		const uint64_t digest = gw_index_digest(x, block(b));

		assert_int_equal(gw_index_find(x, digest, (uint32_t)b), GW_INDEX_NONE);
	}
}

#endif
