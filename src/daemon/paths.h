/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paths.h - where one host keeps things.
 *
 *   RUN/control.sock        the CLI's socket
 *   RUN/lock                held by godwitd while it lives
 *   RUN/vm/NAME/            {dir}: the VM's run directory
 *     vm.json               its record (record.h)
 *     journal.json          only while it moves, or in doubt (record.h)
 *     lock                  held by the worker that works on it
 *     qmp.sock, qemu.log    made by launch.c
 *   RUN/ram/, RUN/ram-small/  tmpfs with and without huge pages
 *     vm/NAME/ID            RAM files
 *     held/ID/BLOCK         in the second: pages of VMs that run elsewhere (promise.h), of which
 *                           each can be given back by itself
 *   RUN/held/ID/            what was promised of such a VM (promise.h)
 *   RUN/image/NAME/         kept images, whose RAM files are in kept/ of those (store/image.h)
 *   RUN/log/NAME-TIME.log   what QEMUs said that ended (qemu_log.h)
 *   RUN/settled/ID          what became of an arrived migration (record.h)
 *   LIB/image/NAME/         kept images on disk
 *   SWAP/ID/BLOCK           pages of VMs that there was no memory for (swap.h)
 *
 * RUN is /run/godwit, or DIR/run under --root DIR. Nothing in it outlives the
 * host's boot, as no guest does. LIB is /var/lib/godwit, or DIR/lib. SWAP is --swap-dir, if any.
 */
#ifndef GW_PATHS_H
#define GW_PATHS_H

#include <stdbool.h>
#include <stdint.h>

#include "define.h"
#include "image.h"

struct gw_paths {
	char *run, *lib;
	char *ram;		 /* RAM files of guests that never discard */
	char *ram_small;	 /* RAM files of guests that do (track/holes.c) */
	bool mounted;		 /* the two are our own tmpfs */
	uint64_t limit;		 /* bytes for all VMs, 0: no limit */
	uint64_t server_limit;	 /* bytes that are held for VMs of other hosts; 0: none */
	char *swap;		 /* SWAP; NULL: none is promised on a disk */
	uint64_t swap_limit;	 /* bytes that are held there */
	char *disk_map;		 /* where replicas of disks lie (disk/replica.h); NULL: nowhere */
	unsigned int overcommit; /* percent of the memory that there is may be promised; 0: 100 */
	char *images, *disk_images;
	struct gw_store store; /* of the strings above */
	const char *listen; /* where godwitd listens for other hosts, as --listen has it; or NULL */
	char *registry;	    /* URL of the registry (store/registry.h); NULL: none */
};

/** gw_paths_init() - the folders under @root (NULL: /run/godwit); makes RUN. 0 or -errno. */
int gw_paths_init(struct gw_paths *p, const char *root);
void gw_paths_free(struct gw_paths *p);

/**
 * gw_paths_ram() - make the folders for RAM files, and fill in the store of images.
 * @ram_dir: use this folder for all, as it is; NULL: mount two tmpfs
 * @limit: bytes that VMs may use on this host, 0: all memory
 *
 * Images may have a quarter of the host's memory, and nothing on disk: change
 * the quotas in @p->store afterwards.
 */
int gw_paths_ram(struct gw_paths *p, const char *ram_dir, uint64_t limit);

/**
 * gw_paths_unmount() - unmount what gw_paths_ram() mounted, if no VM uses it, no image is kept
 * in it and nothing is held for other hosts. What stays is found by the next godwitd.
 */
void gw_paths_unmount(struct gw_paths *p);

/** gw_vm_dir() - RUN/vm/NAME; free(). */
char *gw_vm_dir(const struct gw_paths *p, const char *name);

/** gw_vm_ram_dir() - the folder of its RAM files; free(). */
char *gw_vm_ram_dir(const struct gw_paths *p, const struct gw_definition *def);

/** gw_vm_ram_path() - the RAM file of backend @i; free(). */
char *gw_vm_ram_path(const struct gw_paths *p, const struct gw_definition *def, unsigned int i);

#endif
