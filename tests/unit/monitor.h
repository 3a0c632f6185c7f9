/* SPDX-License-Identifier: GPL-2.0-or-later */
/* monitor.h - a QEMU's monitor, as far as tests of its users need one: a thread that answers. */
#ifndef TEST_MONITOR_H
#define TEST_MONITOR_H

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unit.h"

#include "clock.h"
#include "qmp.h"

/** monitor_listen() - a socket named @path, for one caller. -1 if there is none. */
static inline int monitor_listen(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd >= 0 && (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Whatever contains @asked is answered with @answer. */
struct answer {
	const char *asked, *answer;
};

/** answer_of() - the first in @table that fits what was asked; NULL: none does. */
static inline const char *answer_of(const struct answer *table, size_t n, const char *asked)
{
	for (size_t i = 0; i < n; i++)
		if (table[i].asked && strstr(asked, table[i].asked))
			return table[i].answer;
	return NULL;
}

/** monitor_command() - bytes of the first command in @text; 0 if there is no whole one. */
static inline size_t monitor_command(const char *text, size_t len)
{
	json_error_t where;
	json_t *command = json_loadb(text, len, JSON_DISABLE_EOF_CHECK, &where);

	json_decref(command);
	return command ? (size_t)where.position : 0;
}

/** struct monitor - that is, from monitor_begin() until whoever called it hangs up. */
struct monitor {
	int listener;
	/* What "return" says to @asked, a command. In the monitor's thread. */
	const char *(*answer)(void *arg, const char *asked);
	void *arg;
	pthread_t thread;
};

static inline void *monitor_main(void *arg)
{
	struct monitor *m = arg;
	int conn = accept(m->listener, NULL, NULL);
	size_t have = 0, end;
	char text[4096];
	ssize_t n;

	dprintf(conn, "{\"QMP\":{}}\n");
	while ((n = recv(conn, text + have, sizeof(text) - have, 0)) > 0) {
		have += (size_t)n;
		while ((end = monitor_command(text, have))) {
			gw_autofree char *asked = gw_path("%.*s", (int)end, text), *line = NULL;

			have -= end;
			memmove(text, text + end, have);
			/* send(), which TSan knows to order what was read here before the answer */
			line = gw_path("{\"return\":%s}\n", m->answer(m->arg, asked));
			if (send(conn, line, strlen(line), MSG_NOSIGNAL) < 0)
				break;
		}
	}
	close(conn);
	return NULL;
}

/** monitor_begin() - answer the next caller, by @m's listener, answer and arg. */
static inline void monitor_begin(struct monitor *m)
{
	assert_int_equal(pthread_create(&m->thread, NULL, monitor_main, m), 0);
}

/** monitor_call() - the same, and the caller. */
static inline struct gw_qmp *monitor_call(struct monitor *m, const char *path)
{
	struct gw_qmp *q;

	monitor_begin(m);
	q = gw_qmp_open(path, gw_now() + 120 * GW_S);
	assert_non_null(q);
	return q;
}

/** monitor_end() - hang up, and wait until it has noticed. */
static inline void monitor_end(struct monitor *m, struct gw_qmp *q)
{
	gw_qmp_close(q);
	pthread_join(m->thread, NULL);
}

#endif
