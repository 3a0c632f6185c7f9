/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blocks.h - where a QEMU maps which of its RAM blocks, proved.
 *
 * A mapping is taken for a block's where QEMU itself says that it is (`info
 * ramblock` since 8.1, `gpa2hva` before) and the kernel says that a shared file
 * of that size lies there from its first byte (/proc/PID/maps). Size and kind
 * alone do not tell: two memfds of one size look alike. Where QEMU does not say,
 * the file of mem-path must be mapped exactly once.
 */
#ifndef GW_BLOCKS_H
#define GW_BLOCKS_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "qmp.h"
#include "ram.h"

#define GW_QEMU_BLOCKS_MAX 128
#define GW_REGIONS_MAX	   256

/** struct gw_qemu_block - a RAM block as QEMU names it; @hva 0: not known. */
struct gw_qemu_block {
	char name[128];
	uint64_t used, hva; /* bytes that are in use; where it is mapped in QEMU */
};

/** struct gw_region - a range of guest-physical memory, and what lies there. */
struct gw_region {
	char id[128]; /* of a memory backend, or QEMU's own name */
	uint64_t gpa, last, offset;
};

/** struct gw_qemu_ram - what QEMU says of its memory. */
struct gw_qemu_ram {
	struct gw_qemu_block blocks[GW_QEMU_BLOCKS_MAX];
	unsigned int nr_blocks;
	struct gw_region regions[GW_REGIONS_MAX];
	unsigned int nr_regions;
};

/**
 * gw_blocks_read() - read what QEMU says of its memory, and ask where that is, before QEMU 8.1.
 * @blocks: what `info ramblock` printed
 * @regions: what `info mtree -f` printed
 *
 * Return: 0 or -errno; -ENOTSUP if it has more than there is room for.
 */
int gw_blocks_read(struct gw_qmp *q, const char *blocks, const char *regions,
		   struct gw_qemu_ram *b);

/**
 * gw_blocks_hva() - where QEMU says that it maps memory backend @id.
 * @hva: set to the address of its first byte, 0 if QEMU does not tell
 *
 * Return: 0, or -ENOTSUP if QEMU's answers contradict each other.
 */
int gw_blocks_hva(const struct gw_qemu_ram *b, const char *id, uint64_t size, uint64_t *hva);

/**
 * gw_blocks_open() - the shared file that @pid maps for a memory backend.
 * @file: what mem-path names, or NULL: a memfd, or not known
 * @hva: where it must be mapped; 0: anywhere, if @file is mapped only once. Set to where it is.
 *
 * Return: a descriptor of the file, the caller's; -ENOTSUP if @size bytes of it,
 * from its first, are not mapped there and shared.
 */
int gw_blocks_open(pid_t pid, const char *id, const struct stat *file, uint64_t size,
		   uint64_t *hva);

/**
 * gw_blocks_weigh() - what QEMU would send of @n blocks, in bytes of its stream.
 *
 * QEMU sends a page of zeros in a few bytes and any other whole, so @pid's
 * memory is read, while the guest runs on: 30 ms for 128 MiB of video memory
 * where measured. A block whose place is not known counts as one of zeros.
 */
uint64_t gw_blocks_weigh(pid_t pid, const struct gw_qemu_block *blocks, unsigned int n);

/** gw_blocks_place() - fill in @ram's ranges: where its blocks lie in guest-physical memory. */
void gw_blocks_place(const struct gw_qemu_ram *b, struct gw_ram *ram);

#endif
