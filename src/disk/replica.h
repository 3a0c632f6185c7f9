/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * replica.h - images that this host has of disks of VMs that come here, under names of its own.
 *
 * The source names them (migrate --disk-map), and nothing that it says is trusted (invariant 10):
 * they lie in one folder that the host's operator has set aside for it (godwitd --disk-map-dir),
 * which nobody else can change (own.h), and are named by one word. A link in it is the operator's,
 * and is followed: so a block device gets its name there. They are opened for reading only, and
 * what is read is compared with keyed digests.
 *
 * One whose name ends in ".qcow2" is read as such, and stands alone: neither a backing file nor a
 * data file that it names is ever opened. All others are raw, whatever is in them.
 */
#ifndef GW_REPLICA_H
#define GW_REPLICA_H

#include <jansson.h>

#include "hints.h"

/** struct gw_replicas - those of one VM that are open; zero is none. */
struct gw_replicas {
	int fds[GW_HINT_DISKS];
	unsigned int nr;
};

/**
 * gw_replicas_open() - have replicas read instead of the images of a VM's disks.
 * @folder: where they lie; NULL: this host has none
 * @map: the source's: an object that has the name of a replica for that of a disk. A path in
 * @folder is one, too
 * @images: as gw_images_find() has them; for gw_opened_open() afterwards, as long as @r is open
 *
 * A replica is no smaller than its disk. Return: 0 or -errno with a message; gw_replicas_close()
 * either way.
 */
int gw_replicas_open(struct gw_replicas *r, const char *folder, const json_t *map, json_t *images);
void gw_replicas_close(struct gw_replicas *r);

#endif
