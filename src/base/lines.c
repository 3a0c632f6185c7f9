// SPDX-License-Identifier: GPL-2.0-or-later
/* lines.c - a socket's bytes, cut into lines; see lines.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lines.h"

#define ROOM_LEAST 4096

/* Room behind what is there: by moving it to the front, or in a bigger buffer. */
static int make_room(struct gw_lines *l)
{
	size_t room;
	char *bigger;

	if (l->end < l->room)
		return 0;
	if (l->start) {
		memmove(l->buf, l->buf + l->start, l->end - l->start);
		l->end -= l->start;
		l->seen -= l->start;
		l->start = 0;
	}
	/* Not for a few bytes: each time, the rest of the line is moved. */
	if (l->end <= l->room / 2 && l->room)
		return 0;
	if (l->room > l->max)
		return l->end < l->room ? 0 : -EMSGSIZE;
	room = l->room ? l->room * 2 : ROOM_LEAST;
	if (room > l->max)
		room = l->max + 1;
	bigger = realloc(l->buf, room);
	if (!bigger)
		return -ENOMEM;
	l->buf = bigger;
	l->room = room;
	return 0;
}

int gw_lines_fill(struct gw_lines *l, int fd)
{
	int rc = make_room(l);
	ssize_t n;

	if (rc)
		return rc;
	do
		n = recv(fd, l->buf + l->end, l->room - l->end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (n <= 0)
		return -EPIPE;
	l->end += (size_t)n;
	return 0;
}

char *gw_lines_next(struct gw_lines *l, size_t *len)
{
	char *newline = l->end > l->seen ? memchr(l->buf + l->seen, '\n', l->end - l->seen) : NULL;
	char *line;

	if (!newline) {
		l->seen = l->end;
		return NULL;
	}
	line = l->buf + l->start;
	*newline = '\0';
	*len = (size_t)(newline - line);
	l->start = l->seen = (size_t)(newline - l->buf) + 1;
	return line;
}

void gw_lines_free(struct gw_lines *l)
{
	free(l->buf);
	*l = (struct gw_lines){ .max = l->max };
}
