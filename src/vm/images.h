/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * images.h - the images of a VM's disks, by what its QEMU says that it has open.
 *
 * Names of files are QEMU's: relative ones are looked up in its folder, and all
 * of them in its mount namespace.
 */
#ifndef GW_IMAGES_H
#define GW_IMAGES_H

#include <jansson.h>
#include <stdbool.h>

#include "qmp.h"

/* Links of a backing chain that are looked at. */
#define GW_CHAIN_MAX 256

/**
 * gw_images_find() - the images in which is what the guest sees.
 * @images: set to an array, owned by the caller; empty on failure
 *
 * An image is {"disk": the disk's name, "depth": in its backing chain, "file": QEMU's
 * name for it, "size": bytes that the guest sees, if QEMU tells}. Either its bytes are the
 * guest's (raw files and block devices, at any depth), or it has a "node": the options of
 * the tree of block nodes that shows them (always of depth 0). Where a node's "driver" is
 * "file" or "host_device", its "filename" is that of something that QEMU has open. A tree
 * that QEMU opened by a name only has "legacy": that name, and "format".
 */
int gw_images_find(struct gw_qmp *q, json_t **images);

/**
 * gw_images_each() - fn(@arg, the disk's name, query-block's entry of it) for each disk that has a
 * medium, until one fails. Return: 0 or -errno.
 */
int gw_images_each(struct gw_qmp *q, int (*fn)(void *arg, const char *disk, const json_t *entry),
		   void *arg);

/** gw_image_disk() - what a disk is called: "virtio0", or its device's id if it is a node. */
void gw_image_disk(const json_t *entry, char name[256]);

/** gw_image_is_file() - whether @name is a file's, and no URL ("nbd://host"). */
bool gw_image_is_file(const char *name);

#endif
