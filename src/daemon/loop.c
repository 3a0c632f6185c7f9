// SPDX-License-Identifier: GPL-2.0-or-later
/* loop.c - the daemon's event loop; see loop.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "loop.h"

struct gw_watch {
	int fd;
	void (*fn)(void *arg);
	void *arg;
	struct gw_watch *next_dead;
};

struct gw_loop {
	int epoll;
	bool quit;
	struct gw_watch *dead; /* freed after the batch of events that may name them */
};

struct gw_loop *gw_loop_new(void)
{
	struct gw_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		gw_fail(-errno, "epoll: %s", strerror(errno));
		free(loop);
		return NULL;
	}
	return loop;
}

static void bury(struct gw_loop *loop)
{
	while (loop->dead) {
		struct gw_watch *w = loop->dead;

		loop->dead = w->next_dead;
		free(w);
	}
}

void gw_loop_free(struct gw_loop *loop)
{
	if (!loop)
		return;
	bury(loop);
	close(loop->epoll);
	free(loop);
}

struct gw_watch *gw_loop_add(struct gw_loop *loop, int fd, void (*fn)(void *arg), void *arg)
{
	struct gw_watch *w = calloc(1, sizeof(*w));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = w };

	if (!w || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev)) {
		gw_fail(-errno, "epoll: %s", strerror(errno));
		free(w);
		return NULL;
	}
	w->fd = fd;
	w->fn = fn;
	w->arg = arg;
	return w;
}

void gw_loop_remove(struct gw_loop *loop, struct gw_watch *watch)
{
	if (!watch)
		return;
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fn = NULL;
	watch->next_dead = loop->dead;
	loop->dead = watch;
}

void gw_loop_run(struct gw_loop *loop, int tick_ms, void (*tick)(void *arg), void *arg)
{
	struct epoll_event events[32];
	int64_t next = gw_now() + tick_ms * GW_MS;

	while (!loop->quit) {
		int n = epoll_wait(loop->epoll, events, GW_ARRAY_SIZE(events), gw_poll_ms(next));

		for (int i = 0; i < n; i++) {
			struct gw_watch *w = events[i].data.ptr;

			if (w->fn)
				w->fn(w->arg);
		}
		bury(loop);
		if (gw_now() >= next) {
			tick(arg);
			next = gw_now() + tick_ms * GW_MS;
		}
	}
}

void gw_loop_quit(struct gw_loop *loop)
{
	loop->quit = true;
}
