/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mirror.h - copy a VM's disks to another QEMU: block jobs on one side, exports on the other, by
 * their monitors (decision 35).
 *
 * A disk is {"disk": its name, "file": the image's name as QEMU has it, "format", "size": bytes of
 * the disk, "backing"?: what its header names below it, "backing-format"?, "cluster-size"?,
 * "compat"?}. Where there is something below it, that stays, and only the image itself is copied.
 *
 * Job, target node and export of the @i-th disk have names that are made of "godwit-" and @i, so
 * that whoever finds them knows whose they are, and removes them.
 *
 * Rules of QEMU's that this goes by: a job with sync=full or top that is "ready" has copied all,
 * and goes on copying what is written. One that is cancelled then ends once the target has every
 * byte, and has flushed it: only that says so for certain, since what a job tells of its progress
 * is of a moment ago. A new one with sync=none, begun while the guest stands still, goes on from
 * there. A target may be inactive with its source (QEMU's own iotest 194).
 */
#ifndef GW_MIRROR_H
#define GW_MIRROR_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "qmp.h"

/* Disks of one VM that are copied at most. */
#define GW_MIRRORS_MAX 16

/** gw_mirror_has_format() - whether a disk of that "format" can be one. */
bool gw_mirror_has_format(const char *format);

/** struct gw_mirrors - how the jobs stand, of all disks together. Bytes. */
struct gw_mirrors {
	uint64_t total, done;
	bool ready; /* all of them */
};

/**
 * gw_mirror_disks() - the disks that have to be copied where the other host has none of them: all
 * that can be written, and whose image is a file or a block device.
 * @disks: set to an array, the caller's
 *
 * Return: 0; -ENOTSUP naming one whose copy would not be what it is; -errno.
 */
int gw_mirror_disks(struct gw_qmp *q, json_t **disks);

/**
 * gw_mirror_begin() - begin to copy the @i-th disk.
 * @fd: a socket, at whose other end an NBD server has it as export "@i"; the caller closes it.
 * QEMU does nothing else while it is greeted there: its other end is to be cut in time.
 *
 * Return: 0 or -errno with a message.
 */
int gw_mirror_begin(struct gw_qmp *q, const json_t *disks, size_t i, int fd);

/** gw_mirror_look() - how @n jobs stand. 0; -EIO naming one that has failed; -errno. */
int gw_mirror_look(struct gw_qmp *q, const json_t *disks, struct gw_mirrors *m);

/**
 * gw_mirror_end() - while the guest stands still and all are ready: have every byte there, and end.
 * @deadline: ns
 *
 * Return: 0: all is there, and no job runs; -EAGAIN: something was still to be copied by @deadline,
 * and goes on being copied; another -errno: the copy is of no use any more.
 */
int gw_mirror_end(struct gw_qmp *q, const json_t *disks, int64_t deadline);

/**
 * gw_mirror_block() - from now on a write is done once it is copied, so that no guest writes faster
 * than that. 0; -EREMOTEIO: QEMU (before 8.2) cannot.
 */
int gw_mirror_block(struct gw_qmp *q, const json_t *disks);

/** gw_mirror_again() - before the guest runs on here after gw_mirror_end(). 0 or -errno. */
int gw_mirror_again(struct gw_qmp *q, const json_t *disks);

/**
 * gw_mirror_forget() - end whatever is there of ours, whoever began it. Where the other end is
 * gone, that is at once. 0 or -errno with a message.
 */
int gw_mirror_forget(struct gw_qmp *q);

/**
 * gw_mirror_export() - serve @disks of a QEMU that waits for device state, for writing: as exports
 * "0", "1" and so on, on a socket at @path. Never in one whose guest runs: QEMU 7.2 crashes when
 * a reader leaves a disk that an iothread serves.
 */
int gw_mirror_export(struct gw_qmp *q, const json_t *disks, const char *path);

/** gw_mirror_shown() - have those of @images (gw_images_find()) read there that are served. */
void gw_mirror_shown(const json_t *disks, const char *path, json_t *images);

/**
 * gw_mirror_below() - leave of @images what is not copied: where a disk is, what its image lies
 * on, if anything.
 */
void gw_mirror_below(const json_t *disks, json_t *images);

/** gw_mirror_unexport() - nobody reads or writes there any more. 0 or -errno with a message. */
int gw_mirror_unexport(struct gw_qmp *q);

/** gw_mirror_is_ours() - whether a job or a node of that name is one of these. */
bool gw_mirror_is_ours(const char *name);

#endif
