// SPDX-License-Identifier: GPL-2.0-or-later
/* loop.c - the daemon's event loop; see loop.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "log.h"
#include "loop.h"

/* How long no connection is taken after one could not be. */
#define REST_NS (500 * GW_MS)

struct gw_watch {
	int fd;
	void (*fn)(void *arg);
	void *arg;
	struct gw_watch *next_dead;
	int64_t rests_until; /* 0: it does not */
	struct gw_watch *next_resting;
};

struct gw_loop {
	int epoll;
	bool quit;
	struct gw_watch *resting;
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

void gw_loop_want(struct gw_loop *loop, struct gw_watch *watch, bool readable, bool writable)
{
	struct epoll_event ev = { .events = (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0),
				  .data.ptr = watch };

	epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &ev);
}

int gw_loop_accept(struct gw_loop *loop, struct gw_watch *watch)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 || (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM))
		return fd;
	gw_warn("no connection can be taken: %s", strerror(errno));
	gw_loop_want(loop, watch, false, false);
	watch->rests_until = gw_now() + REST_NS;
	watch->next_resting = loop->resting;
	loop->resting = watch;
	return -1;
}

/* Take @watch, or those whose rest is over (NULL), off the list of those that rest. */
static void wake_resting(struct gw_loop *loop, const struct gw_watch *watch)
{
	struct gw_watch **at = &loop->resting;

	while (*at) {
		struct gw_watch *w = *at;

		if (watch ? w != watch : w->rests_until > gw_now()) {
			at = &w->next_resting;
			continue;
		}
		*at = w->next_resting;
		w->rests_until = 0;
		if (!watch)
			gw_loop_want(loop, w, true, false);
	}
}

void gw_loop_remove(struct gw_loop *loop, struct gw_watch *watch)
{
	if (!watch)
		return;
	wake_resting(loop, watch);
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fn = NULL;
	watch->next_dead = loop->dead;
	loop->dead = watch;
}

void gw_loop_run(struct gw_loop *loop, int tick_ms, void (*tick)(void *arg), void *arg)
{
	struct epoll_event events[32];
	int64_t next = gw_now() + tick_ms * GW_MS;

	loop->quit = false;
	while (!loop->quit) {
		int n = epoll_wait(loop->epoll, events, GW_ARRAY_SIZE(events), gw_poll_ms(next));

		for (int i = 0; i < n; i++) {
			struct gw_watch *w = events[i].data.ptr;

			if (w->fn)
				w->fn(w->arg);
		}
		bury(loop);
		if (loop->resting)
			wake_resting(loop, NULL);
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
