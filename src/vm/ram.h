/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ram.h - a VM's RAM files and how page numbers map onto them.
 *
 * Page numbers run over the files in order; every file starts at a chunk
 * boundary, so the pages between a file's end and the next chunk belong to
 * nobody (gw_ram_read() gives zeros there, a write is refused).
 *
 * A block is one RAM file's range in the guest-physical address space: main
 * RAM of more than a few GiB is one file with a block below 4 GiB and one above.
 */
#ifndef GW_RAM_H
#define GW_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

#define GW_RAM_FILES_MAX  16
#define GW_RAM_BLOCKS_MAX 64
#define GW_RAM_ID_MAX	  64

struct gw_ram_file {
	char id[GW_RAM_ID_MAX]; /* the memory backend's QOM id; part of the wire and of QEMU's
				   stream */
	int fd;			/* -1 until opened */
	uint64_t size;		/* bytes */
	uint64_t hva;		/* where QEMU maps it; 0 at the destination */
	size_t first_page;
	size_t nr_pages;
};

struct gw_ram_block {
	uint64_t gpa, size; /* bytes of guest-physical address space */
	unsigned int file;  /* index into files */
	uint64_t offset;    /* in that file */
};

struct gw_ram {
	struct gw_ram_file files[GW_RAM_FILES_MAX];
	unsigned int nr_files;
	struct gw_ram_block blocks[GW_RAM_BLOCKS_MAX];
	unsigned int nr_blocks;
	size_t nr_pages; /* end of the page numbers, a multiple of GW_CHUNK_PAGES */
};

/**
 * gw_ram_file_folder() - FOLDER/vm/NAME: where a VM's RAM files lie, each by its backend's
 * id; free(). Two dots in a name make no two VMs' files one, as in FOLDER/NAME.ID, the
 * form of before.
 */
char *gw_ram_file_folder(const char *folder, const char *name);

/** gw_ram_add() - append a file. @fd is owned by @ram from here. 0 or -errno. */
int gw_ram_add(struct gw_ram *ram, const char *id, int fd, uint64_t size, uint64_t hva);

/** gw_ram_close() - close the files. */
void gw_ram_close(struct gw_ram *ram);

/** gw_ram_bytes() - bytes of all files. */
uint64_t gw_ram_bytes(const struct gw_ram *ram);

/**
 * gw_ram_hash_ns() - how long hashing all of it may take, in ns: 30 s and what
 * the slowest plausible host needs (256 MiB/s), for time limits.
 */
int64_t gw_ram_hash_ns(const struct gw_ram *ram);

/** gw_ram_resident() - bytes of all files that hold data (not holes). */
uint64_t gw_ram_resident(const struct gw_ram *ram);

/**
 * gw_ram_has_huge_pages() - whether a file lies on a tmpfs mounted with huge pages
 * (decision 4). False for a file system that is not mounted here, such as a memfd's.
 */
bool gw_ram_has_huge_pages(const struct gw_ram *ram);

/** gw_ram_file_of() - the file that holds page @page, or NULL for padding or beyond. */
const struct gw_ram_file *gw_ram_file_of(const struct gw_ram *ram, size_t page);

/** gw_ram_read() - copy @count pages from @page into @buf; all in one chunk. 0 or -errno. */
int gw_ram_read(const struct gw_ram *ram, size_t page, size_t count, void *buf);

/**
 * gw_ram_write() - write @count pages from @page, all in one chunk.
 * Only dest/place.c may, and only while the guest does not run there (invariant 6).
 */
int gw_ram_write(const struct gw_ram *ram, size_t page, size_t count, const void *buf);

/**
 * gw_ram_punch() - make @count pages holes, hence zero; all in one file. Same rule,
 * and store/image_cache.c may in kept RAM files, which no guest has.
 */
int gw_ram_punch(const struct gw_ram *ram, size_t page, size_t count);

/**
 * gw_ram_is_hole() - whether [page, page + count), all in one chunk, holds no data at all.
 *
 * Cheap, whatever else the file holds: SEEK_DATA is answered from the file's
 * tree. Padding is a hole. A page that is no hole may be zero all the same.
 *
 * Return: 1, 0 or -errno.
 */
int gw_ram_is_hole(const struct gw_ram *ram, size_t page, size_t count);

/**
 * struct gw_ram_walk - all runs of data, once, in order.
 *
 * A walk is of all memory because the kernel's is: on tmpfs SEEK_HOLE looks at
 * each page up to the next hole or the file's end (10 ms per GiB where
 * measured), however little of it the caller wants to know (F20). So asking it
 * for a part after the other costs the square; there is no such function here.
 * And it is work that grows with the memory: never while a guest is stopped.
 */
struct gw_ram_walk {
	const struct gw_ram *ram;
	unsigned int file;
	size_t at; /* pages of that file which are behind us */
};

/** gw_ram_walk() - one that is at its beginning. */
static inline struct gw_ram_walk gw_ram_walk(const struct gw_ram *ram)
{
	return (struct gw_ram_walk){ .ram = ram };
}

/**
 * gw_ram_walk_next() - the next run of pages that are not holes, all in one file.
 * @first, @stop: its first page and the one after it
 *
 * A hole is zero whatever a tracker says (F8). Partly filled pages count as data.
 *
 * Return: 1; 0: there is none; -errno: the file system does not say.
 */
int gw_ram_walk_next(struct gw_ram_walk *w, size_t *first, size_t *stop);

#endif
