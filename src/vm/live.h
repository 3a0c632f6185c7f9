/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * live.h - what a QEMU has now, against what a definition made of it.
 *
 * The command line is not the VM: disks get snapshots, media are changed,
 * devices are plugged and unplugged. Whoever starts another QEMU from the
 * command line must know, or it opens old images (invariant 14).
 *
 * A description is JSON, equal on two hosts where the two QEMUs have the same:
 *
 *   {"qemu":"7.2",
 *    "devices":{"'nic0'":"virtio-net-pci at pci.0, addr=03.0, netdev=n0", ...},
 *    "objects":{"'io0'":"iothread"}, "netdevs":{"'n0'":"user"},
 *    "disks":{"'virtio0'":"/a/top.qcow2 (qcow2, 16777216 bytes) over ..."},
 *    "media":{"'cd0'":{"file":"/a/x.iso","format":"raw","id":"...","ro":true}}}
 *
 * Keys name things as people do: by id, else by what and where they are. {dir}
 * stands for the VM's run directory, names of files are absolute.
 */
#ifndef GW_LIVE_H
#define GW_LIVE_H

#include <jansson.h>
#include <sys/types.h>

#include "qmp.h"

/**
 * gw_live_describe() - describe what @q's QEMU has now.
 * @pid: its process
 * @dir: the VM's run directory on this host
 * @live: set to the description, owned by the caller
 *
 * A few questions to the monitor, about 3 ms; the guest runs on.
 */
int gw_live_describe(struct gw_qmp *q, pid_t pid, const char *dir, json_t **live);

/**
 * gw_live_refuse_temporary() - whether a disk writes into a file that ends with its QEMU.
 *
 * Return: 0, or -ENOTSUP: -snapshot or snapshot=on, by the disk's name.
 */
int gw_live_refuse_temporary(struct gw_qmp *q, pid_t pid);

/** gw_live_refuse_jobs() - -EBUSY with its name if a block job or an export is under way that is
 * not ours. */
int gw_live_refuse_jobs(struct gw_qmp *q);

/**
 * gw_live_carry() - give this QEMU the media that @theirs has in its drives.
 * @q: a QEMU that was started to receive the VM
 * @ours: its description; replaced if anything was changed
 *
 * @theirs comes from a peer (invariant 10). What cannot be carried over stays
 * for gw_live_compare() to name.
 */
int gw_live_carry(struct gw_qmp *q, pid_t pid, const char *dir, const json_t *theirs,
		  json_t **ours);

/**
 * gw_live_compare() - whether a QEMU that was just started has what the source's has.
 * @theirs: the source's description, from a peer; NULL: from an older one, nothing is known
 * @host: this host's name, for the message
 *
 * Devices without an id are the board's own in part, so they are compared only
 * between QEMUs of one version.
 *
 * Return: 0, or -ENOTSUP naming the first thing that differs and what to do.
 */
int gw_live_compare(const json_t *theirs, const json_t *ours, const char *host);

/**
 * gw_live_file() - the name by which both hosts know a file that QEMU @pid calls @name; free().
 * Return: an absolute one, with {dir} for the VM's run directory; or NULL with a message.
 */
char *gw_live_file(pid_t pid, const char *dir, const char *name);

/** gw_live_file_here() - what that name is on this host; free(). */
char *gw_live_file_here(const char *dir, const char *name);

/** gw_live_unchanged() - 0, or -EBUSY naming what has changed since @before was described. */
int gw_live_unchanged(const json_t *before, const json_t *now);

#endif
