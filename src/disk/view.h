/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * view.h - what lies in an image of any format, at the offsets that its guest knows.
 *
 * A tool of QEMU's (qemu-nbd) opens the image anew, for reading only, and libnbd asks it. So
 * no QEMU that runs a guest, or is to, is touched: not its nodes, not its monitor, not
 * its NBD server; but for one whose disks are being copied to it, and that shows them itself. Files
 * are those that the QEMU has open, whatever their names lead to by now. No lock is taken.
 *
 * What the other program has changed since it last flushed (tables of a qcow2 image
 * are such) is not seen: a view is of what another host would find now that opened the
 * same storage. It is of the moment when it was opened: for a later look open another.
 *
 * Rules: every call may take as long as storage does; whoever cannot wait has a
 * thread of its own for it. The tool ends with the view, at the latest with the
 * thread that opened it.
 */
#ifndef GW_VIEW_H
#define GW_VIEW_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How far gw_view_data() looks at least, in bytes. */
#define GW_VIEW_LOOK (128ULL << 30)

struct gw_view;

/**
 * gw_view_open() - open an image.
 * @node: how, as gw_images_find() says
 * @pid: the QEMU that has its files open
 * @dir: a folder into which nobody else may write; nothing stays in it
 * @view: set to it, for gw_view_close(); NULL on failure
 *
 * Return: 0; -ESTALE, as gw_file_open() does; another -errno.
 */
int gw_view_open(const json_t *node, pid_t pid, const char *dir, struct gw_view **view);

/**
 * gw_view_connect() - the same of what an NBD server of this host shows, as it is at any moment.
 * @nbd: {"socket": its path, "export": a name}
 */
int gw_view_connect(const json_t *nbd, struct gw_view **view);

void gw_view_close(struct gw_view *v);

/** gw_view_size() - bytes of the disk. */
uint64_t gw_view_size(const struct gw_view *v);

/** gw_view_read() - @len bytes at @offset, all of them within the disk. 0, or -EIO. */
int gw_view_read(struct gw_view *v, void *buf, size_t len, uint64_t offset);

/**
 * gw_view_data() - where at or after @offset something is stored.
 *
 * Return: an offset; -ENODATA: nowhere, as far as was looked (GW_VIEW_LOOK at least); -EIO.
 */
int64_t gw_view_data(struct gw_view *v, uint64_t offset);

/**
 * gw_file_open() - open once more what @pid has open as @name, for reading; O_DIRECT if it can.
 *
 * Return: a descriptor; -ESTALE: there is such a file or device, and @pid has another
 * open; -ENOENT; another -errno.
 */
int gw_file_open(pid_t pid, const char *name);

#endif
