/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hinter.h - where on a VM's disks the bytes of its pages lie: the index of each disk's image.
 *
 * An image's index (disk/index.h) lies in LIB/index, under a name made of what the image is. Of an
 * overlay it is that of the raw image at the end of its backing chain, which many VMs share;
 * otherwise that of what the guest sees. It is refreshed when a migration begins, for a while, and
 * whoever comes next goes on.
 *
 * Storage may hang: all of it is done by a thread of its own, which is left alone then.
 */
#ifndef GW_HINTER_H
#define GW_HINTER_H

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

#include "hints.h"

struct gw_hinter;

/**
 * gw_hinter_start() - begin to read what is not known of the disks of @images (gw_images_find()).
 * @pid, @dir: as gw_opened_open(); @lib: LIB
 * @ns: how long it may be read
 *
 * Return: gw_hinter_stop(), or NULL with a message.
 */
struct gw_hinter *gw_hinter_start(const json_t *images, pid_t pid, const char *dir, const char *lib,
				  int64_t ns);

/**
 * gw_hinter_lookup() - who finds pages on the disks that @disks names, by their place in it.
 *
 * Waits until what is to be read has been; the first call alone. Return: until gw_hinter_stop();
 * NULL with a message: nothing is known of them, or storage does not answer.
 */
const struct gw_lookup *gw_hinter_lookup(struct gw_hinter *h, const json_t *disks);

/** gw_hinter_stop() - nobody looks anything up any more. NULL is none. */
void gw_hinter_stop(struct gw_hinter *h);

#endif
