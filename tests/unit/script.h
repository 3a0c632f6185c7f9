/* SPDX-License-Identifier: GPL-2.0-or-later */
/* script.h - a QEMU's monitor that follows a script, step by step; monitor.h has one that answers.
 */
#ifndef TEST_SCRIPT_H
#define TEST_SCRIPT_H

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unit.h"

#include "clock.h"
#include "io.h"
#include "qmp.h"

#define SOON (gw_now() + 120 * GW_S)

#define GREETING "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\r\n"
#define OK	 "{\"return\":{}}\r\n"

/* What is expected (a part of one command; NULL: nothing) and what is then sent. */
struct step {
	const char *expect, *send;
};

/* The monitor's end: a thread, so only the test itself may assert. */
struct monitor {
	char *dir, *path;
	int listener;
	const struct step *steps;
	pthread_t thread;
	char wrong[512];  /* the first command that was not as expected */
	int passed_fd;	  /* the last descriptor that came with a command */
	char heard[4096]; /* and not yet answered */
	size_t nr_heard;
};

static inline int make(void **state)
{
	struct monitor *m = calloc(1, sizeof(*m));
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	*state = m;
	if (!m || unit_folder((void **)&m->dir))
		return -1;
	m->passed_fd = -1;
	m->path = gw_path("%s/qmp", m->dir);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", m->path);
	m->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return bind(m->listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(m->listener, 1);
}

static inline int drop(void **state)
{
	struct monitor *m = *state;

	close(m->listener);
	if (m->passed_fd >= 0)
		close(m->passed_fd);
	free(m->path);
	unit_folder_remove((void **)&m->dir);
	free(m);
	return 0;
}

/* More of what is said, with the descriptor that came with it. */
static inline bool hear_more(struct monitor *m, int conn)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { m->heard + m->nr_heard, sizeof(m->heard) - m->nr_heard };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct pollfd pfd = { .fd = conn, .events = POLLIN };
	ssize_t n = poll(&pfd, 1, 10000) == 1 ? recvmsg(conn, &hdr, MSG_CMSG_CLOEXEC) : -1;
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&hdr) : NULL;

	if (n <= 0)
		return false;
	m->nr_heard += (size_t)n;
	if (c)
		memcpy(&m->passed_fd, CMSG_DATA(c), sizeof(int));
	return true;
}

/* One command; others may have come with it. */
static inline bool hear(struct monitor *m, int conn, char *text, size_t room)
{
	json_error_t where;
	json_t *command;

	while (!(command = json_loadb(m->heard, m->nr_heard, JSON_DISABLE_EOF_CHECK, &where)))
		if (!hear_more(m, conn))
			return false;
	json_decref(command);
	snprintf(text, room, "%.*s", where.position, m->heard);
	m->nr_heard -= (size_t)where.position;
	memmove(m->heard, m->heard + where.position, m->nr_heard);
	return true;
}

static inline void *monitor(void *arg)
{
	struct monitor *m = arg;
	int conn = accept(m->listener, NULL, NULL);
	char text[4096] = "";

	m->nr_heard = 0;
	for (const struct step *s = m->steps; s->expect || s->send; s++) {
		if (s->expect && (!hear(m, conn, text, sizeof(text)) || !strstr(text, s->expect))) {
			snprintf(m->wrong, sizeof(m->wrong), "expected %.200s, got %.200s",
				 s->expect, text);
			break;
		}
		if (s->send && send(conn, s->send, strlen(s->send), MSG_NOSIGNAL) < 0)
			break;
	}
	/* Unless the script ended with silence, it hangs up. */
	close(conn);
	return NULL;
}

static inline void begin(struct monitor *m, const struct step *steps)
{
	m->steps = steps;
	m->wrong[0] = '\0';
	assert_int_equal(pthread_create(&m->thread, NULL, monitor, m), 0);
}

static inline void end(struct monitor *m)
{
	pthread_join(m->thread, NULL);
	assert_string_equal(m->wrong, "");
}

/* The usual beginning; what the script says before it hangs up is already on its way. */
static inline struct gw_qmp *open_with(struct monitor *m, const struct step *steps)
{
	struct gw_qmp *q;

	begin(m, steps);
	q = gw_qmp_open(m->path, SOON);
	assert_non_null(q);
	return q;
}

#endif
