/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * buffers.h - memory in buffers of this process: no file, no descriptor, nobody
 * else who could empty a page. A second kind beside RAM files, so that what stands on
 * memory.h is seen to need no more than that.
 */
#ifndef TESTS_BUFFERS_H
#define TESTS_BUFFERS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bitmap.h"
#include "memory.h"

struct buffers {
	struct gw_memory memory;
	uint8_t *bytes[GW_MEMORY_BLOCKS_MAX];
	struct gw_bitmap data[GW_MEMORY_BLOCKS_MAX]; /* pages that are no holes */
};

static inline struct buffers *buffers_of(const struct gw_memory *m)
{
	return (struct buffers *)((uintptr_t)m - offsetof(struct buffers, memory));
}

static inline int buffers_read(const struct gw_memory *m, unsigned int block, size_t page,
			       size_t count, void *buf)
{
	memcpy(buf, buffers_of(m)->bytes[block] + page * GW_PAGE_SIZE, count * GW_PAGE_SIZE);
	return 0;
}

static inline int buffers_write(const struct gw_memory *m, unsigned int block, size_t page,
				size_t count, const void *buf)
{
	memcpy(buffers_of(m)->bytes[block] + page * GW_PAGE_SIZE, buf, count * GW_PAGE_SIZE);
	gw_bitmap_set_range(&buffers_of(m)->data[block], page, count);
	return 0;
}

static inline int buffers_punch(const struct gw_memory *m, unsigned int block, size_t page,
				size_t count)
{
	memset(buffers_of(m)->bytes[block] + page * GW_PAGE_SIZE, 0, count * GW_PAGE_SIZE);
	gw_bitmap_clear_range(&buffers_of(m)->data[block], page, count);
	return 0;
}

static inline int buffers_find_data(const struct gw_memory *m, unsigned int block, size_t page,
				    size_t *data)
{
	*data = gw_bitmap_next(&buffers_of(m)->data[block], page, m->blocks[block].nr_pages, true);
	return 0;
}

static inline int buffers_find_hole(const struct gw_memory *m, unsigned int block, size_t page,
				    size_t *hole)
{
	*hole = gw_bitmap_next(&buffers_of(m)->data[block], page, m->blocks[block].nr_pages, false);
	return 0;
}

static inline uint64_t buffers_resident(const struct gw_memory *m, unsigned int block)
{
	return gw_bitmap_count(&buffers_of(m)->data[block], 0, m->blocks[block].nr_pages) *
	       GW_PAGE_SIZE;
}

/*
 * Not calloc(): under MALLOC_PERTURB_ that writes all of it, holes of GiB too. What was freed is
 * used again, up to some MiB: a sweep of the simulation makes some ten thousand of them, and
 * spent a fifth of its time with new pages for each.
 */
#define BUFFERS_KEPT	  8
#define BUFFERS_KEPT_MOST (8UL << 20)

static struct {
	void *at;
	size_t size;
} buffers_kept[BUFFERS_KEPT];

static inline void *buffers_take(size_t size)
{
	for (unsigned int i = 0; i < BUFFERS_KEPT; i++) {
		void *at = buffers_kept[i].at;

		if (!at || buffers_kept[i].size != size)
			continue;
		buffers_kept[i].at = NULL;
		return memset(at, 0, size);
	}
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
}

static inline void buffers_give(void *at, size_t size)
{
	for (unsigned int i = 0; i < BUFFERS_KEPT && size <= BUFFERS_KEPT_MOST; i++) {
		if (buffers_kept[i].at)
			continue;
		buffers_kept[i].at = at;
		buffers_kept[i].size = size;
		return;
	}
	munmap(at, size);
}

/** buffers_add() - append a block of holes to @b, which is zero at first. 0 or -errno. */
static inline int buffers_add(struct buffers *b, const char *id, uint64_t size)
{
	static const struct gw_memory_ops ops = { .read = buffers_read,
						  .write = buffers_write,
						  .punch = buffers_punch,
						  .find_data = buffers_find_data,
						  .find_hole = buffers_find_hole,
						  .resident = buffers_resident };
	int block = gw_memory_add(&b->memory, id, size);

	if (block < 0)
		return block;
	b->memory.ops = &ops;
	b->bytes[block] = buffers_take(size);
	if (b->bytes[block] == MAP_FAILED)
		abort();
	return gw_bitmap_init(&b->data[block], b->memory.blocks[block].nr_pages);
}

static inline void buffers_free(struct buffers *b)
{
	for (unsigned int i = 0; i < b->memory.nr_blocks; i++) {
		buffers_give(b->bytes[i], b->memory.blocks[i].size);
		gw_bitmap_free(&b->data[i]);
	}
	memset(b, 0, sizeof(*b));
}

#endif
