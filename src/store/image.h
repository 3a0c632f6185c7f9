/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image.h - kept images: the memory that VMs left on this host.
 *
 *   RUN/image/NAME/manifest.json   what it is; written last, so that there is an image or none
 *   RUN/image/NAME/ledger          digests and generations (ledger.h)
 *   RUN/ram[-small]/kept/NAME/ID   its RAM files
 *   LIB/image/NAME/...             the same on disk, once it was demoted: RAM files as zstd
 *
 *   (VM leaves) ── begin, finish ──> kept ──> (VM arrives) take ──> drop
 *                                     │ ^                      └──> give_back (it did not come)
 *                              demote v │ promote (in take)
 *                                    on disk ──> evicted
 *
 * The kept RAM file *becomes* the RAM file of the VM that returns, and the RAM
 * file of one that leaves becomes the kept one: renamed, never copied.
 *
 * Rules: nothing here is trusted when it is used again (invariant 9). The
 * ledger has a checksum; a RAM file's pages are compared with it one by one, so
 * one that was damaged, evicted, or overwritten by an arrival that failed is
 * absent and nothing worse. Whatever fails costs reuse, never a migration.
 * One process works on the image of a VM at a time: the holder of the VM's lock
 * (daemon/record.h), or of the image's where the VM is not here.
 */
#ifndef GW_IMAGE_H
#define GW_IMAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bitmap.h"
#include "define.h"
#include "ledger.h"
#include "ram.h"

/** struct gw_store - where this host keeps images; owned by the caller. */
struct gw_store {
	const char *images;    /* RUN/image */
	const char *ram;       /* RUN/ram: RAM files with huge pages */
	const char *ram_small; /* RUN/ram-small: without; may be the same folder */
	const char *disk;      /* LIB/image; NULL: never to disk */
	uint64_t quota;	       /* bytes of memory for all images; 0: keep none */
	uint64_t disk_quota;   /* bytes on disk for all images; 0: none there */
	bool untracked;	       /* do not watch what VMs that arrive write (decision 14) */
};

/** struct gw_image - a manifest, and the ledger beside it. */
struct gw_image {
	char name[GW_NAME_MAX];
	uint8_t id[GW_ID_LEN]; /* of the departure that left it */
	uint32_t departure;    /* its number */
	int64_t left;	       /* when, seconds of the wall clock */
	bool discards;	       /* its RAM files lie in ram_small */
	bool pinned;	       /* neither demoted nor evicted */
	bool on_disk;
	uint64_t bytes; /* of memory, or on disk, that it takes */
	struct {
		char id[GW_MEMORY_ID_MAX];
		uint64_t size;
	} memory[GW_MEMORY_BLOCKS_MAX];
	unsigned int nr_memory;
	struct gw_ledger ledger;
};

/**
 * gw_image_begin() - make room for the image of VM @name, which is leaving.
 * @ledger: created where it belongs, for the caller to fill in
 *
 * Removes an older image of that name. Return: 0 or -errno. The image comes into
 * being with gw_image_finish(); otherwise call gw_ledger_close() and gw_image_drop().
 */
int gw_image_begin(const struct gw_store *st, const char *name, size_t nr_pages,
		   struct gw_ledger *ledger);

/**
 * gw_image_finish() - the VM has left, its QEMU is gone: keep its memory.
 * @ram_paths: its RAM files, one per memory backend of @def, made by Godwit (not
 *	those of an attached VM, which are the user's); they are renamed
 * @ledger: complete; sealed and closed here
 *
 * On failure nothing of the image is left, RAM files included. The images may be
 * over their quota then: gw_image_yield() is for whoever does not keep a move waiting.
 */
int gw_image_finish(const struct gw_store *st, const struct gw_definition *def,
		    char *const ram_paths[], struct gw_ledger *ledger);

/**
 * gw_image_load() - the image of VM @name.
 *
 * Return: 0 (gw_image_close()), -ENOENT, or -EBADMSG for one that is damaged,
 * which has been removed.
 */
int gw_image_load(const struct gw_store *st, const char *name, struct gw_image *image);
void gw_image_close(struct gw_image *image);

/**
 * gw_image_fits() - whether it is memory of such backends: same ids and sizes in
 * the same order, and RAM files on the same file system.
 */
bool gw_image_fits(const struct gw_image *image, const struct gw_definition *def);

/**
 * gw_image_take() - its RAM files become those of the arriving VM.
 * @ram_paths: where they are to be, one per backend of a definition that it fits
 *
 * @deadline: for bringing them back from disk, if they are there: what does not come
 *	in time is left out, hence absent
 *
 * Image and manifest stay until
 * gw_image_drop(), so that gw_image_give_back() can undo this, even after our death.
 *
 * Return: 0; -ENOENT if the image has gone since it was loaded; -EBADMSG if its
 * RAM files are not there, and then it has been removed; -ENOSPC or other -errno.
 * On failure there is nothing at @ram_paths that was not there before.
 */
int gw_image_take(const struct gw_store *st, const struct gw_image *image, char *const ram_paths[],
		  int64_t deadline);

/**
 * gw_image_absent() - which pages of @memory are not what the image's ledger says.
 * @key: of the ledger's digests
 * @first, @count: pages to look at, from a chunk's beginning
 * @absent: a bit is set for each such page
 *
 * Reads and hashes whatever is not a hole. Any thread, each its own range.
 */
int gw_image_absent(const struct gw_image *image, const struct gw_key *key,
		    const struct gw_memory *memory, size_t first, size_t count,
		    struct gw_bitmap *absent);

/**
 * gw_image_give_back() - the arrival failed: what gw_image_take() took is the image again.
 *
 * @ram_paths: one per memory backend of the VM, and NULL if they are fewer than
 *	those of the image
 *
 * Its pages may have been overwritten; they are absent from now on. Touches only
 * what was taken: no file where one is still kept, where the image lies on disk
 * (the one there is better), or where there is none. What it leaves is the
 * caller's to remove. 0 or -errno.
 */
int gw_image_give_back(const struct gw_store *st, const char *name, char *const ram_paths[]);

/** gw_image_drop() - remove the image of VM @name, wherever it lies; none is fine. */
int gw_image_drop(const struct gw_store *st, const char *name);

/** gw_image_pin() - pin or unpin. 0, -ENOENT or -errno. */
int gw_image_pin(const struct gw_store *st, const char *name, bool pinned);

/**
 * gw_image_sweep() - remove what processes left that were killed at work here.
 *
 * RAM files without a manifest, ledgers that nobody will finish, images on disk
 * without a manifest or whose demotion was not completed, and a manifest whose
 * RAM files are neither kept nor those of a VM of its name on this host. Leaves
 * alone what is in the making, and what an arriving VM has taken.
 */
void gw_image_sweep(const struct gw_store *st);

/** gw_image_list() - all images, as `godwit images --json` has them; owned by the caller. */
json_t *gw_image_list(const struct gw_store *st);

/**
 * gw_image_yield() - bring memory and disk within their quotas, and make room.
 * @need: bytes of memory that still have to come free, for VMs; asked again
 *	after something has been freed
 * @deadline: for putting images on disk; GW_FOREVER: and wait for another process
 *	that does so. What does not get there in time is evicted
 *
 * First images are demoted to disk, those that were left longest ago first; then
 * pages are evicted by value: those that changed at the latest departures first,
 * since what changes often will not be found the same; at last whole images.
 * Pinned ones stay. Waits for another process that evicts.
 *
 * Return: bytes of memory freed.
 */
uint64_t gw_image_yield(const struct gw_store *st, uint64_t (*need)(void *arg), void *arg,
			int64_t deadline);

/**
 * gw_image_held() - bytes of RAM files that are kept.
 * @ram: in this folder of RAM files only; NULL: in both
 * @except: the image of this VM counts as not pinned (it is about to be taken or dropped)
 * @pinned: those that are pinned, or those that are not
 */
uint64_t gw_image_held(const struct gw_store *st, const char *ram, const char *except, bool pinned);

#endif
