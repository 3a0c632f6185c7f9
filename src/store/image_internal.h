/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image_internal.h - what the files of store/ share about kept images.
 *
 *   image.c           their life: begin, finish, load, take, give back, drop
 *   image_manifest.c  where they lie, manifests, locks
 *   image_disk.c      the form they have on disk
 *   image_cache.c     quotas: which are demoted, what is evicted
 *
 * Three kinds of lock. The image's is held while its files are renamed, punched
 * or removed: moments, or as long as an arriving VM brings its own image back
 * from disk. The store's (gw_images_lock()) is held by the one process that
 * evicts, for moments: VMs that start wait for it. It comes before an image's.
 * That of demotion, held while images are copied to disk, comes first of all;
 * whoever cannot wait tries.
 *
 * An image in the making, between begin and finish, has no manifest. What tells
 * it from garbage is a flock on its ledger's file, which ends with its maker.
 */
#ifndef GW_IMAGE_INTERNAL_H
#define GW_IMAGE_INTERNAL_H

#include "image.h"

/* The folders of an image; free(). */
char *gw_image_dir(const struct gw_store *st, const char *name);
char *gw_image_disk_dir(const struct gw_store *st, const char *name); /* st->disk is set */
char *gw_image_kept_dir(const struct gw_store *st, bool discards, const char *name);

/** gw_image_kept_path() - where RAM file @i of @image is kept; free(). */
char *gw_image_kept_path(const struct gw_store *st, const struct gw_image *image, unsigned int i);

/** gw_image_is_kept() - whether its RAM files are, or no longer: a VM has taken them. */
bool gw_image_is_kept(const struct gw_store *st, const struct gw_image *image);

/** gw_image_kept_make() - make the folder for RAM files of @name. 0 or -errno. */
int gw_image_kept_make(const struct gw_store *st, bool discards, const char *name);

/** gw_image_kept_prune() - remove that folder, and the one it is in, if they are empty. */
void gw_image_kept_prune(const struct gw_store *st, bool discards, const char *name);

/** gw_image_pages() - page numbers that its memory takes (vm/ram.h). */
size_t gw_image_pages(const struct gw_image *image);

/**
 * gw_manifest_read() - the manifest of @name in memory, or @on_disk, without the ledger.
 * Return: 0, -ENOENT, -EBADMSG if it cannot be, or -errno.
 */
int gw_manifest_read(const struct gw_store *st, const char *name, bool on_disk,
		     struct gw_image *image);

/** gw_manifest_find() - in memory or else on disk. */
int gw_manifest_find(const struct gw_store *st, const char *name, struct gw_image *image);

/** gw_manifest_write() - put it where @image->on_disk says; there it is synced. 0 or -errno. */
int gw_manifest_write(const struct gw_store *st, const struct gw_image *image);

/** gw_manifest_same() - whether both are of one departure. */
bool gw_manifest_same(const struct gw_image *a, const struct gw_image *b);

/** gw_image_kept_bytes() - memory that its kept RAM files take; 0 on disk, or once taken. */
uint64_t gw_image_kept_bytes(const struct gw_store *st, const struct gw_image *image);

/** gw_image_measure() - set @image->bytes. */
void gw_image_measure(const struct gw_store *st, struct gw_image *image);

/**
 * gw_image_lock() - the lock of the image of @name, whether there is one or not.
 * @wait: until it is free; else -EBUSY
 *
 * Return: what gw_image_unlock() wants, or -errno; -EINVAL for what is no name (gw_name_ok()).
 */
int gw_image_lock(const struct gw_store *st, const char *name, bool wait);
void gw_image_unlock(const struct gw_store *st, const char *name, int lock);

/** gw_images_lock() - the store's lock; close() it. Waits. -errno on failure. */
int gw_images_lock(const struct gw_store *st);

/** gw_demotion_lock() - of the one process that demotes; close() it. -EBUSY, -errno. */
int gw_demotion_lock(const struct gw_store *st, bool wait);

/** gw_image_in_making() - whether a living process has begun it and not finished. */
bool gw_image_in_making(const struct gw_store *st, const char *name);

/* Remove what is in memory, or on disk. The image's lock is held. 0 or -errno. */
int gw_image_remove_memory(const struct gw_store *st, const char *name);
int gw_image_remove_disk(const struct gw_store *st, const char *name);
int gw_image_remove(const struct gw_store *st, const char *name); /* wherever it is */

/**
 * gw_images_read() - manifests of all images, without ledgers, measured; oldest first.
 * @images: free()
 */
int gw_images_read(const struct gw_store *st, struct gw_image **images, size_t *nr);

/** gw_image_open_kept() - its kept RAM files. 0 (gw_ram_close()), -ENOENT or -errno. */
int gw_image_open_kept(const struct gw_store *st, const struct gw_image *image, struct gw_ram *ram);

/**
 * gw_image_demote() - from memory to disk. The lock of demotion is held, not the image's.
 * @room: bytes that it may take there
 * @deadline: by when it has to be there
 *
 * Return: 0, -ESTALE if it was taken or replaced meanwhile, -ETIME, or -errno (-ENOSPC).
 */
int gw_image_demote(const struct gw_store *st, const struct gw_image *image, uint64_t room,
		    int64_t deadline);

/**
 * gw_image_promote() - from disk into new RAM files. The image's lock is held.
 * @deadline: what does not come in time is left out
 *
 * Return: 0 or -errno.
 */
int gw_image_promote(const struct gw_store *st, const struct gw_image *image,
		     char *const ram_paths[], int64_t deadline);

#endif
