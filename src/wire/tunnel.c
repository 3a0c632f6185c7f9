// SPDX-License-Identifier: GPL-2.0-or-later
/* tunnel.c - a local socket over a connection to a peer; see tunnel.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "frame.h"
#include "io.h"
#include "tunnel.h"

/* So long at most until a thread that paces itself looks whether it is to end. */
#define STEP_NS (20 * GW_MS)

void gw_tunnel_cut(struct gw_tunnel *n)
{
	if (atomic_exchange(&n->cut, true))
		return;
	shutdown(n->fd, SHUT_RDWR);
	n->t->ops->shutdown(n->t);
}

static void wait_until(const struct gw_tunnel *n, int64_t until)
{
	for (int64_t now = gw_now(); now < until && !n->cut; now = gw_now()) {
		const int64_t step = now + STEP_NS < until ? now + STEP_NS : until;
		const struct timespec ts = { step / GW_S, step % GW_S };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
	}
}

static void *carry_out(void *arg)
{
	struct gw_tunnel *n = arg;
	gw_autofree uint8_t *buf = malloc(GW_TUNNEL_PART);

	while (buf && !n->cut) {
		ssize_t got = read(n->fd, buf, GW_TUNNEL_PART);

		if (got < 0 && errno == EINTR)
			continue;
		n->asked = gw_now();
		if (got <= 0 || gw_frame_send_buf(n->t, GW_MSG_STORAGE, 0, buf, (size_t)got))
			break;
		n->sent += (uint64_t)got;
		if (n->pace)
			wait_until(n, gw_pace_take(n->pace, n->limit, (uint64_t)got, gw_now()));
	}
	gw_tunnel_cut(n);
	/*
	 * Whoever waits for room to write does not hear of the end before there is some: QEMU does
	 * not ask for POLLHUP there, and what it wrote before takes the room until it is read.
	 */
	while (buf && read(n->fd, buf, GW_TUNNEL_PART) > 0)
		;
	return NULL;
}

static void *carry_in(void *arg)
{
	struct gw_tunnel *n = arg;
	struct gw_frame f = { 0 };

	while (!n->cut && !gw_frame_recv(n->t, &f, GW_FOREVER)) {
		if (f.type != GW_MSG_STORAGE || !f.len || gw_write_all(n->fd, f.payload, f.len))
			break;
		n->received += f.len;
		n->heard = gw_now();
	}
	gw_frame_free(&f);
	gw_tunnel_cut(n);
	return NULL;
}

static void close_ends(struct gw_tunnel *n)
{
	close(n->fd);
	gw_transport_close(&n->t);
}

int gw_tunnel_start(struct gw_tunnel *n)
{
	int err = pthread_create(&n->out, NULL, carry_out, n);
	const bool begun = !err;

	if (!err)
		err = pthread_create(&n->in, NULL, carry_in, n);
	n->runs = !err;
	if (!err)
		return 0;
	gw_tunnel_cut(n);
	if (begun)
		pthread_join(n->out, NULL);
	close_ends(n);
	return gw_fail(-err, "no thread for a tunnel: %s", strerror(err));
}

void gw_tunnel_stop(struct gw_tunnel *n)
{
	if (!n->runs)
		return;
	gw_tunnel_cut(n);
	pthread_join(n->out, NULL);
	pthread_join(n->in, NULL);
	close_ends(n);
	n->runs = false;
}
