/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ram.h - a VM's RAM files: memory (memory.h) of which each block is a file that
 * QEMU maps.
 *
 * The files are on a tmpfs, so a hole is a page of zeros that takes no memory, and
 * whoever else has them open, QEMU above all, sees what is done to them.
 */
#ifndef GW_RAM_H
#define GW_RAM_H

#include "memory.h"

#define GW_RAM_RANGES_MAX 64

struct gw_ram_file {
	int fd;	      /* -1 until opened */
	uint64_t hva; /* where QEMU maps it; 0 at the destination */
};

/*
 * A part of a block in guest-physical memory: main RAM of more than a few GiB is
 * one block with a range below 4 GiB and one above.
 */
struct gw_ram_range {
	uint64_t gpa, size; /* bytes */
	unsigned int block; /* index */
	uint64_t offset;    /* in it */
};

struct gw_ram {
	struct gw_memory memory;
	struct gw_ram_file files[GW_MEMORY_BLOCKS_MAX]; /* of each block */
	struct gw_ram_range ranges[GW_RAM_RANGES_MAX];
	unsigned int nr_ranges;
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

/**
 * gw_ram_has_huge_pages() - whether a file lies on a tmpfs mounted with huge pages
 * (decision 4). False for a file system that is not mounted here, such as a memfd's.
 */
bool gw_ram_has_huge_pages(const struct gw_ram *ram);

#endif
