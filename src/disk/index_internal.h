/* SPDX-License-Identifier: GPL-2.0-or-later */
/* index_internal.h - what the files of the index share, and the form of its file; see index.h. */
#ifndef GW_INDEX_INTERNAL_H
#define GW_INDEX_INTERNAL_H

#include <pthread.h>

#include "index.h"
#include "key.h"

#define GW_INDEX_MAGIC	"GWindex" /* and its NUL */
#define GW_INDEX_FORMAT 1

#define GW_SEGMENT_BLOCKS  256UL
#define GW_SEGMENT_SIZE	   (GW_SEGMENT_BLOCKS * GW_PAGE_SIZE)
#define GW_SEGMENT_DIGESTS (GW_SEGMENT_BLOCKS * sizeof(uint64_t))

/* The turn of a segment of which a block was refused. */
#define GW_INDEX_STALE UINT32_MAX

struct gw_index_head {
	char magic[8];
	uint64_t format;
	uint64_t image_size;
	uint8_t secret[GW_SECRET_LEN];
	uint64_t sum; /* of all before it */
};

/**
 * struct gw_index_segment - what is known of a MiB of the image; all zero: nothing.
 * @stamp: the state in which it was read; 0: none that could be
 * @digests: their checksum; 0: all are zero, whatever is at their place in the file
 * @turn: which refresh, counted from 1, came to it last; or GW_INDEX_STALE
 * @sum: of the number of the segment, and all before it
 */
struct gw_index_segment {
	uint64_t stamp;
	uint64_t digests;
	uint32_t turn;
	uint32_t sum;
};

/**
 * struct gw_index - one that is open.
 * @segments: as they are in the file, as far as we know
 * @digests: of all blocks, those of the last segment filled up with zeros; changed and looked at
 * atomically, once there are several threads
 * @slots: block numbers, each + 1, at the place of their digest or soon behind it
 * @lock: of @segments, for gw_index_stale()
 */
struct gw_index {
	char *path;
	int fd;
	struct gw_index_head head;
	struct gw_key key;
	uint32_t nr_blocks;
	size_t nr_segments;
	struct gw_index_segment *segments;
	uint64_t *digests;
	uint32_t *slots;
	size_t nr_slots;
	pthread_mutex_t lock;
};

/** gw_index_head_sum(), gw_index_segment_sum(), gw_index_digests_sum() - of what these say. */
uint64_t gw_index_head_sum(const struct gw_index_head *h);
uint32_t gw_index_segment_sum(const struct gw_index_segment *s, size_t segment);
uint64_t gw_index_digests_sum(const uint64_t digests[GW_SEGMENT_BLOCKS]);

/** gw_index_load() - whatever is in the file and not in memory. 0 or -errno. */
int gw_index_load(struct gw_index *x);

/**
 * gw_index_keep() - write down @s of @segment (its sum is filled in), behind its digests
 * if they have changed. 0; or -errno: it stays in the file as it was.
 */
int gw_index_keep(struct gw_index *x, size_t segment, struct gw_index_segment s);

/** gw_index_lock() - be the only one who refreshes. 0; -EBUSY: another does. */
int gw_index_lock(struct gw_index *x);
void gw_index_unlock(struct gw_index *x);

/** gw_index_is_ours() - whether the file has the head that it had when it was opened. */
bool gw_index_is_ours(const struct gw_index *x);

#endif
