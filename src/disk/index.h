/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * index.h - which block of a disk image has the bytes of a page of guest memory.
 *
 * An index is a file of digests of an image's 4 KiB blocks. It is filled by reading what the
 * image stores, a little at a time, and is for all VMs of that image. What is found in it is a
 * hint: the image may have changed since, and 64 bits are not a page. The destination reads its
 * own copy of the block and checks a digest keyed with the VM's secret (invariant 15), so an index
 * that is stale, damaged or of another image costs time and never correctness.
 *
 * Its digests are keyed with a secret of the index (key.h): two blocks agree in 64 bits with a
 * probability of 2^-55 at most, whoever chose their bytes. A guest that could make them agree at
 * will would have every lookup name a block that the destination must refuse.
 *
 * File, in the byte order of this host, sparse where the image is (0.2 % of what it stores):
 *
 *	head		64 bytes: magic, format, size of the image, secret, checksum
 *	segments	24 bytes for each MiB of the image: struct gw_index_segment
 *	digests		256 of 64 bits for each segment; 0: nothing is known, or all is zero
 *
 * A segment's digests are written before its entry, which has their checksum and one of its own.
 * So whatever is torn, by a kill, a power cut (nothing is synced) or by somebody who reads while
 * another writes, is a segment that nobody has read yet.
 *
 * The file is read and written, never mapped: see store/ledger.h. In memory are all digests
 * that are not zero, 8 bytes a block, and from gw_index_prepare() on 8 more for each, as a table of
 * block numbers that is half full. So 1 TiB that is all data takes 2 + 2 GiB, and a file of 2 GiB
 * that is read at once when it is opened; 40 GiB of data in an image of 100 take 80 + 80 MiB.
 *
 * Threads: gw_index_digest(), gw_index_find() and gw_index_stale() may be called by any number
 * at once; while another call is made, by none. Who wants to look blocks up while they are being
 * refreshed opens the index twice. So do other processes: one of them refreshes at a time.
 */
#ifndef GW_INDEX_H
#define GW_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

/* No block. */
#define GW_INDEX_NONE UINT32_MAX

struct gw_index;

/**
 * gw_index_open() - open the index @path of an image, or begin it.
 * @path: in a folder of ours (own.h)
 * @image_size: bytes; what is behind the last whole block has no digest
 * @index: set to it, for gw_index_close(); NULL on failure
 *
 * A file of another size of image or another format, or with a damaged head, is begun anew.
 *
 * Return: 0; -ENOTSUP: the image has no whole block, or 16 TiB or more; -EBUSY: it must be
 * begun anew, and another process is using it; -ENOSPC, -ENOMEM, another -errno.
 */
int gw_index_open(const char *path, uint64_t image_size, struct gw_index **index);
void gw_index_close(struct gw_index *x);

/**
 * struct gw_index_source - how an image is read, at the offsets that its guest knows.
 *
 * Any of these may take as long as storage does.
 */
struct gw_index_source {
	/* Whole blocks, into a buffer that O_DIRECT takes. 0 or -errno. */
	int (*read)(void *env, void *buf, size_t len, uint64_t offset);
	/*
	 * Where at or after @offset something is stored. -ENODATA: nowhere up to the end of the
	 * image; another -errno: it cannot be told, so it is read.
	 */
	int64_t (*data)(void *env, uint64_t offset);
	/* Asked between segments: to stop, as if the time were over. */
	bool (*cancelled)(void *env);
	void *env;
};

/**
 * struct gw_index_refreshed - what a refresh has done, in segments of 1 MiB.
 * @read: were read; @holes: store nothing, and were not
 * @failed: could not be read: what was known of them stays, and they are tried again
 * @left: are for another time
 */
struct gw_index_refreshed {
	size_t read, holes, failed, left;
};

/**
 * gw_index_refresh() - read what is not known of the image in its state @stamp.
 * @stamp: tells one state from another, not 0: made of what changes with the content, such as
 * inode, size and times of the file; or constant, if the image is
 * @deadline: in ns of gw_now(); it is looked at between segments
 * @done: filled in, whatever is returned
 *
 * Segments that were last read at @stamp are not read again. Of the others those go first that
 * gw_index_stale() was called for, then those that were never read, then those whose turn is the
 * longest ago, each in disk order. Each is kept as soon as it was read, so it may be stopped, or
 * killed, at any moment. gw_index_prepare() has them found. As long as storage does not answer,
 * this one does not return and no other process can refresh.
 *
 * Return: 0; -EBUSY: another process is at it: what it has read so far is there when the index is
 * opened again; -ESTALE: another process has begun the file anew; -ENOSPC or another
 * -errno of writing, which ends it; -EINVAL: no stamp; -ENOMEM.
 */
int gw_index_refresh(struct gw_index *x, const struct gw_index_source *from, uint64_t stamp,
		     int64_t deadline, struct gw_index_refreshed *done);

/**
 * gw_index_prepare() - have all blocks found that are known now.
 *
 * Apart from gw_index_open() because who only refreshes needs no table. 0 or -ENOMEM, and then
 * gw_index_find() finds nothing that is not at its @hint.
 */
int gw_index_prepare(struct gw_index *x);

/**
 * gw_index_digest() - what a page of GW_PAGE_SIZE bytes is looked up by; 0: it is all zero.
 *
 * A thread's cipher is made anew when it comes from another key (key.c), which takes as long as
 * a few digests: make those of a chunk in a row, not in turns with the VM's own.
 */
uint64_t gw_index_digest(const struct gw_index *x, const void *page);

/**
 * gw_index_find() - a block of the image with digest @digest.
 * @hint: the block that is wanted if it has it: the one behind the last that was found, so that
 * runs form where several blocks are the same; GW_INDEX_NONE: none
 *
 * Return: it, GW_PAGE_SIZE times which is its offset; or GW_INDEX_NONE.
 */
uint32_t gw_index_find(const struct gw_index *x, uint64_t digest, uint32_t hint);

/**
 * gw_index_stale() - the destination has refused @block.
 *
 * It is not found any more, and the next refresh, of whichever process, begins with its segment.
 */
void gw_index_stale(struct gw_index *x, uint32_t block);

#endif
