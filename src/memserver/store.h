/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store.h - what a memory server holds of one VM: sparse files on a tmpfs, or on a disk, one for
 * each block of its memory, each page at its own place (decision 32). A hole is a page that is not
 * here.
 *
 * So the kernel's page cache is the table: it finds, allocates, releases, and outlives the
 * process; whoever opens the folder again finds all that lay there. The bits in memory save a
 * system call for each question, and are made anew by one walk (F20).
 *
 * Rules: pages are read and written by calls, never through a mapping, so a file system that is
 * full, or a file that somebody cut, is an error and no signal. No more pages lie here than were
 * promised. A disk that could not take what the page cache had for it has lost pages that nobody
 * can name: from then on none is given out, and none is taken.
 *
 * Threads: one puts and releases; any number ask and read beside it.
 */
#ifndef GW_MEMSTORE_H
#define GW_MEMSTORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "bitmap.h"
#include "hold.h"
#include "ram.h"

struct gw_memstore {
	struct gw_ram ram;
	struct gw_bitmap here;
	_Atomic size_t pages; /* that lie here */
	size_t most;	      /* that may */
	char *where;	      /* what the folder is in, for messages: its own name is a secret */
	pthread_mutex_t check;
	_Atomic bool failed; /* some were lost on the way to the disk */
};

/**
 * gw_memstore_open() - the files of @hold in @folder, ours (own.h), made where they are not there.
 *
 * Takes as long as a look at all that lies there: 10 ms a GiB.
 *
 * Return: 0 or -errno with a message; gw_memstore_close() either way.
 */
int gw_memstore_open(struct gw_memstore *s, const char *folder, const struct gw_hold *hold);
void gw_memstore_close(struct gw_memstore *s);

/** gw_memstore_resize() - from here on so many bytes may lie here; what lies here stays. */
void gw_memstore_resize(struct gw_memstore *s, uint64_t size);

/** gw_memstore_has() - whether @page, below ram.memory.nr_pages, lies here. Any thread. */
static inline bool gw_memstore_has(const struct gw_memstore *s, size_t page)
{
	return __atomic_load_n(&s->here.words[page / 64], __ATOMIC_ACQUIRE) >> (page % 64) & 1;
}

/**
 * gw_memstore_put() - @count pages from @page on, all in one chunk.
 *
 * Return: 0; -ENOSPC: more than was promised, or the file system is full; -EIO: as for
 * gw_memstore_get(); -EPROTO: not the VM's.
 */
int gw_memstore_put(struct gw_memstore *s, size_t page, size_t count, const uint8_t *bytes);

/**
 * gw_memstore_get() - copy out @count pages, all in one chunk, which lie here. Any thread.
 *
 * Return: 0 or -errno; -EIO, and @s has failed: they may not be what was put here.
 */
int gw_memstore_get(struct gw_memstore *s, size_t page, size_t count, uint8_t *bytes);

/** gw_memstore_release() - those of @count pages from @page on that lie here lie here no more. */
int gw_memstore_release(struct gw_memstore *s, size_t page, size_t count);

#endif
