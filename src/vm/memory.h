/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.h - a guest's memory: an address space of blocks, and what can be done
 * with its pages.
 *
 * A block is one of QEMU's RAM blocks: an id, which is part of the wire and of
 * QEMU's stream, and a size. Page numbers run over the blocks in order; each
 * begins at a chunk boundary, so the pages between a block's end and the next
 * chunk belong to nobody (they read as zeros, and are never written).
 *
 * Where the pages are is its kind's business (struct gw_memory_ops): RAM files
 * are one kind, ram.h. Whoever moves, compares, or keeps pages sees only this.
 *
 * Rules: an op works on a run of pages, never on one page of many, so that the
 * way through the table costs nothing beside what it does. There is no pointer to
 * the pages: what the guest writes while we look must be copied first (F12), and
 * a load from a hole through a shared mapping would fill the hole.
 *
 * Threads: any number, as long as each writes pages of its own.
 */
#ifndef GW_MEMORY_H
#define GW_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

#define GW_MEMORY_BLOCKS_MAX 16
#define GW_MEMORY_ID_MAX     64

struct gw_memory;

/** struct gw_memory_block - one of QEMU's RAM blocks. */
struct gw_memory_block {
	char id[GW_MEMORY_ID_MAX]; /* the memory backend's QOM id */
	uint64_t size;		   /* bytes */
	size_t first_page;
	size_t nr_pages;
};

/*
 * What a kind of memory can do. Pages are counted from the block's first, and are
 * all in it. 0 or -errno with a message that names the block.
 */
struct gw_memory_ops {
	int (*read)(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		    void *buf);
	int (*write)(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		     const void *buf);
	/* Make holes of them: zero, and in nobody's memory. */
	int (*punch)(const struct gw_memory *m, unsigned int block, size_t page, size_t count);
	/* The first page from @page on that is no hole, at @data; the block's end: none. Cheap. */
	int (*find_data)(const struct gw_memory *m, unsigned int block, size_t page, size_t *data);
	/* The first hole after @page, which is none. It may look at each page before it (F20). */
	int (*find_hole)(const struct gw_memory *m, unsigned int block, size_t page, size_t *hole);
	/* Bytes of a block that are no holes. */
	uint64_t (*resident)(const struct gw_memory *m, unsigned int block);
	/*
	 * The file whose pages a block's are, in order, for who hears and sees what others do
	 * to it (track/holes.h). The memory's. NULL: they are in none.
	 */
	int (*file)(const struct gw_memory *m, unsigned int block);
};

/** struct gw_memory - the beginning of what each kind of memory is. */
struct gw_memory {
	const struct gw_memory_ops *ops;
	struct gw_memory_block blocks[GW_MEMORY_BLOCKS_MAX];
	unsigned int nr_blocks;
	size_t nr_pages; /* end of the page numbers, a multiple of GW_CHUNK_PAGES */
};

/**
 * gw_memory_add() - append a block; for kinds of memory, which have set the ops.
 * Return: its index, or -errno with a message.
 */
int gw_memory_add(struct gw_memory *m, const char *id, uint64_t size);

/** gw_memory_bytes() - bytes of all blocks. */
uint64_t gw_memory_bytes(const struct gw_memory *m);

/** gw_memory_resident() - bytes of all blocks that hold data (not holes). */
uint64_t gw_memory_resident(const struct gw_memory *m);

/**
 * gw_memory_hash_ns() - how long hashing all of it may take, in ns: 30 s and what
 * the slowest plausible host needs (256 MiB/s), for time limits.
 */
int64_t gw_memory_hash_ns(const struct gw_memory *m);

/** gw_memory_block_of() - the block that has page @page, or NULL for padding or beyond. */
const struct gw_memory_block *gw_memory_block_of(const struct gw_memory *m, size_t page);

/** gw_memory_file() - the file whose pages block @block's are, or -1; see struct gw_memory_ops. */
int gw_memory_file(const struct gw_memory *m, unsigned int block);

/** gw_memory_read() - copy @count pages from @page into @buf; all in one chunk. 0 or -errno. */
int gw_memory_read(const struct gw_memory *m, size_t page, size_t count, void *buf);

/**
 * gw_memory_write() - write @count pages from @page, all in one chunk.
 * Only dest/place.c may, and only while the guest does not run there (invariant 6); and
 * memserver/store.c, in memory that no guest has.
 */
int gw_memory_write(const struct gw_memory *m, size_t page, size_t count, const void *buf);

/**
 * gw_memory_punch() - make @count pages holes, hence zero; all in one block. Same rule,
 * and store/image_cache.c, dest/away.c and memserver/store.c may in memory that no guest has.
 */
int gw_memory_punch(const struct gw_memory *m, size_t page, size_t count);

/**
 * gw_memory_is_hole() - whether [page, page + count), all in one chunk, holds no data at all.
 *
 * Cheap, whatever else the block holds. Padding is a hole. A page that is no hole
 * may be zero all the same.
 *
 * Return: 1, 0 or -errno.
 */
int gw_memory_is_hole(const struct gw_memory *m, size_t page, size_t count);

/**
 * struct gw_memory_walk - all runs of data, once, in order.
 *
 * A walk is of all memory because the kernel's is: on tmpfs SEEK_HOLE looks at
 * each page up to the next hole or the file's end (10 ms per GiB where
 * measured), however little of it the caller wants to know (F20). So asking it
 * for a part after the other costs the square; there is no such function here.
 * And it is work that grows with the memory: never while a guest is stopped.
 */
struct gw_memory_walk {
	const struct gw_memory *memory;
	unsigned int block;
	size_t at; /* pages of that block which are behind us */
};

/** gw_memory_walk() - one that is at its beginning. */
static inline struct gw_memory_walk gw_memory_walk(const struct gw_memory *m)
{
	return (struct gw_memory_walk){ .memory = m };
}

/**
 * gw_memory_walk_next() - the next run of pages that are not holes, all in one block.
 * @first, @stop: its first page and the one after it
 *
 * A hole is zero whatever a tracker says (F8). Partly filled pages count as data.
 *
 * Return: 1; 0: there is none; -errno: it cannot be told.
 */
int gw_memory_walk_next(struct gw_memory_walk *w, size_t *first, size_t *stop);

#endif
