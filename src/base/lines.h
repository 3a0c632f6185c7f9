/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lines.h - a socket's bytes, cut into lines.
 *
 * For protocols that speak in lines of JSON: the control socket, both ends, and
 * QEMU's monitor. Rules: one thread; it never waits; a peer that sends no newline
 * is found out after @max bytes.
 */
#ifndef GW_LINES_H
#define GW_LINES_H

#include <stddef.h>

/** struct gw_lines - zero but for @max; gw_lines_free(). */
struct gw_lines {
	size_t max; /* bytes of the longest line that is accepted */
	char *buf;  /* of @room bytes */
	size_t room;
	size_t start; /* of what was not handed out yet */
	size_t end;
	size_t seen; /* where no newline was found up to now */
};

/**
 * gw_lines_fill() - receive what is there.
 *
 * Return: 0; -EAGAIN if nothing is; -EPIPE at the end; -EMSGSIZE if a line is
 * longer than @max; -ENOMEM; no message.
 */
int gw_lines_fill(struct gw_lines *l, int fd);

/**
 * gw_lines_next() - the next whole line, without its newline, or NULL if none is there.
 * It lies in the buffer: valid, and the caller's to change, until the next call.
 */
char *gw_lines_next(struct gw_lines *l, size_t *len);

void gw_lines_free(struct gw_lines *l);

#endif
