/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * opened.h - an image that is open for reading here: a file whose bytes are the guest's, or a view.
 *
 * Reads of files are O_DIRECT where that can be, so that they wait for what this host has yet to
 * write and see what another has written; they are of a file description of our own. Storage can
 * hang for as long as it likes: whoever cannot wait has a thread for it.
 */
#ifndef GW_OPENED_H
#define GW_OPENED_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "view.h"

/* What buffers, offsets and lengths of reads are multiples of. */
#define GW_READ_ALIGN 4096UL

/** struct gw_opened - @fd: of the file, or -1; @size: bytes; 0: not known. */
struct gw_opened {
	int fd;
	struct gw_view *view;
	uint64_t size;
};

/**
 * gw_opened_open() - open @image, as gw_images_find() has it, or gw_replicas_open() left it.
 * @pid: the QEMU that has it open; @dir: as gw_view_open()
 *
 * Return: 0; -ESTALE: its name is another file's by now; another -errno. gw_opened_close() either
 * way.
 */
int gw_opened_open(struct gw_opened *o, const json_t *image, pid_t pid, const char *dir);
void gw_opened_close(struct gw_opened *o);

/**
 * gw_opened_read() - @len bytes at @offset; behind the end are zeros.
 *
 * One thread at a time of a view, any of a file. Return: 0 or -EIO; also where all is behind the
 * end.
 */
int gw_opened_read(const struct gw_opened *o, void *buf, size_t len, uint64_t offset);

/** gw_opened_data() - as gw_view_data(); -errno, too, for a device that knows no holes. */
int64_t gw_opened_data(const struct gw_opened *o, uint64_t offset);

#endif
