/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fetch.h - read a VM's disks beside whatever else is done, several places at a time.
 *
 * What is read is what its guest sees of each disk (opened.h). Every read may hang for as long as
 * storage does: it is then left to its thread, and the others go on.
 */
#ifndef GW_FETCH_H
#define GW_FETCH_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes that one read may ask for. */
#define GW_FETCH_MAX ((1UL << 20) + (64UL << 10))

struct gw_fetch;

/**
 * gw_fetch_open() - open the disks of @images (gw_images_find()) for reading.
 * @pid, @dir: as gw_opened_open(); @dir must stay until gw_fetch_close()
 * @ns: after so long what has not opened cannot be read
 * @names: set to the disks that can be read, in the order of their numbers, the caller's; NULL:
 * there are none
 * @refused: set to an object, of each disk that cannot be read why, the caller's; may be NULL
 *
 * Return: 0 or -ENOMEM. @fetch is for gw_fetch_close() either way; NULL is none.
 */
int gw_fetch_open(struct gw_fetch **fetch, const json_t *images, pid_t pid, const char *dir,
		  int64_t ns, json_t **names, json_t **refused);

/**
 * gw_fetch_read() - @len bytes at @offset of disk @disk; behind its end are zeros.
 * @done: comes once, from another thread or at once, until gw_fetch_close(); bytes NULL: they
 * cannot be read
 *
 * Any thread. Never waits.
 */
void gw_fetch_read(struct gw_fetch *f, unsigned int disk, uint64_t offset, size_t len,
		   void (*done)(void *arg, const uint8_t *bytes), void *arg);

/** gw_fetch_close() - from now on no done() comes; what hangs is not waited for. */
void gw_fetch_close(struct gw_fetch *f);

#endif
