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
 *   RUN/ram/, RUN/ram-small/  RAM files: tmpfs with and without huge pages
 *   RUN/settled/ID          what became of an arrived migration (record.h)
 *
 * RUN is /run/godwit, or DIR/run under --root DIR. Nothing in it outlives the
 * host's boot, as no guest does.
 */
#ifndef GW_PATHS_H
#define GW_PATHS_H

#include <stdbool.h>
#include <stdint.h>

#include "define.h"

struct gw_paths {
	char *run;
	char *ram;	 /* RAM files of guests that never discard */
	char *ram_small; /* RAM files of guests that do (track/holes.c) */
	bool mounted;	 /* the two are our own tmpfs */
	uint64_t limit;	 /* bytes for all VMs, 0: no limit */
};

/** gw_paths_init() - the folders under @root (NULL: /run/godwit); makes RUN. 0 or -errno. */
int gw_paths_init(struct gw_paths *p, const char *root);
void gw_paths_free(struct gw_paths *p);

/**
 * gw_paths_ram() - make the folders for RAM files.
 * @ram_dir: use this folder for all, as it is; NULL: mount two tmpfs
 * @limit: bytes that VMs may use on this host, 0: all memory
 */
int gw_paths_ram(struct gw_paths *p, const char *ram_dir, uint64_t limit);

/** gw_paths_unmount() - unmount what gw_paths_ram() mounted, if it is empty. */
void gw_paths_unmount(struct gw_paths *p);

/**
 * gw_paths_free_bytes() - bytes that one more VM may use: the least of what the
 * limit, the file system and the host's memory leave.
 */
uint64_t gw_paths_free_bytes(const struct gw_paths *p, const struct gw_definition *def);

/** gw_vm_dir() - RUN/vm/NAME; free(). */
char *gw_vm_dir(const struct gw_paths *p, const char *name);

/** gw_vm_ram_path() - the RAM file of backend @i; free(). */
char *gw_vm_ram_path(const struct gw_paths *p, const struct gw_definition *def, unsigned int i);

#endif
