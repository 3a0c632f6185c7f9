// SPDX-License-Identifier: GPL-2.0-or-later
/* A local socket carried over a connection: bytes, ends, the bandwidth limit, and a peer that
 * stands still. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "frame.h"
#include "tunnel.h"

#define WAIT_MS 60000

/* Two tunnels, as on two hosts, and the programs at their ends. */
struct both {
	int here, there; /* the programs' ends */
	struct gw_tunnel a, b;
};

static void sockets(int *one, int *other)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*one = pair[0];
	*other = pair[1];
}

static void make(struct both *x)
{
	int one, other;

	memset(x, 0, sizeof(*x));
	sockets(&x->here, &x->a.fd);
	sockets(&x->there, &x->b.fd);
	sockets(&one, &other);
	x->a.t = gw_tcp_adopt(one);
	x->b.t = gw_tcp_adopt(other);
	assert_true(x->a.t && x->b.t);
}

static void start(struct both *x)
{
	assert_int_equal(gw_tunnel_start(&x->a), 0);
	assert_int_equal(gw_tunnel_start(&x->b), 0);
}

static void end(struct both *x)
{
	gw_tunnel_stop(&x->a);
	gw_tunnel_stop(&x->b);
	close(x->here);
	close(x->there);
}

static void ready(int fd, short events)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
}

static void read_whole(int fd, uint8_t *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n;

		ready(fd, POLLIN);
		n = read(fd, buf + at, len - at);
		assert_true(n > 0);
		at += (size_t)n;
	}
}

static void both_ways(void **state)
{
	static uint8_t out[1 << 20], in[1 << 20];
	struct both x;

	(void)state;
	make(&x);
	start(&x);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t at = 0; at < sizeof(out); at += 4096) {
		assert_int_equal(write(x.here, out + at, 4096), 4096);
		read_whole(x.there, in + at, 4096);
	}
	assert_memory_equal(in, out, sizeof(out));
	assert_true(gw_tunnel_owes(&x.a));
	assert_int_equal(write(x.there, "answer", 6), 6);
	read_whole(x.here, in, 6);
	while (gw_tunnel_owes(&x.a)) /* it is noted a moment after */
		poll(NULL, 0, 1);
	assert_memory_equal(in, "answer", 6);
	assert_int_equal(x.a.sent, sizeof(out));
	assert_int_equal(x.b.received, sizeof(out));
	end(&x);
}

/* Whatever ends, both programs hear of it. */
static void ends(void **state)
{
	uint8_t byte;

	(void)state;
	for (int which = 0; which < 4; which++) {
		struct both x;

		make(&x);
		start(&x);
		if (which == 0)
			shutdown(x.here, SHUT_RDWR);
		else if (which == 1)
			shutdown(x.there, SHUT_RDWR);
		else
			gw_tunnel_cut(which == 2 ? &x.a : &x.b);
		ready(x.here, POLLIN);
		assert_int_equal(read(x.here, &byte, 1), 0);
		ready(x.there, POLLIN);
		assert_int_equal(read(x.there, &byte, 1), 0);
		end(&x);
	}
}

/* As an event loop that waits for nothing but room to write: QEMU's does. */
static bool has_room(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };

	return poll(&pfd, 1, 0) == 1 && pfd.revents & POLLOUT;
}

/* The peer takes nothing. Who waits for room to write hears of the end, too. */
static void full(void **state)
{
	const int64_t until = gw_now() + WAIT_MS * GW_MS;
	static uint8_t bytes[1 << 16];
	struct both x;

	(void)state;
	make(&x);
	assert_int_equal(gw_tunnel_start(&x.a), 0);
	fcntl(x.here, F_SETFL, O_NONBLOCK);
	/* Until all buffers on the way are full, and its thread has stopped to take any. */
	for (int idle = 0; idle < 20;) {
		if (write(x.here, bytes, sizeof(bytes)) > 0) {
			idle = 0;
			continue;
		}
		assert_int_equal(errno, EAGAIN);
		poll(NULL, 0, 5);
		idle++;
	}
	assert_false(has_room(x.here));
	gw_tunnel_cut(&x.a);
	while (!has_room(x.here)) {
		assert_true(gw_now() < until);
		poll(NULL, 0, 1);
	}
	assert_int_equal(write(x.here, bytes, 1), -1);
	assert_int_equal(errno, EPIPE);
	gw_tunnel_stop(&x.a);
	gw_transport_close(&x.b.t);
	close(x.b.fd);
	close(x.here);
	close(x.there);
}

static void paced(void **state)
{
	static uint8_t bytes[1 << 18];
	struct gw_pace pace = { 0 };
	const int64_t began = gw_now();
	struct both x;

	(void)state;
	make(&x);
	x.a.pace = &pace;
	x.a.limit = sizeof(bytes) * 4;
	start(&x);
	for (size_t at = 0; at < sizeof(bytes); at += 4096)
		assert_int_equal(write(x.here, bytes + at, 4096), 4096);
	read_whole(x.there, bytes, sizeof(bytes));
	/* All but the last frame's time is over. */
	assert_int_equal(write(x.here, bytes, 1), 1);
	read_whole(x.there, bytes, 1);
	assert_true(gw_now() - began >= GW_S / 4);
	end(&x);
}

/* A peer that says something else, or nothing in a frame, ends it. */
static void garbage(void **state)
{
	(void)state;
	for (int which = 0; which < 2; which++) {
		struct both x;
		uint8_t byte;

		make(&x);
		assert_int_equal(gw_tunnel_start(&x.a), 0);
		if (which)
			gw_frame_send(x.b.t, GW_MSG_STORAGE, 0, NULL, 0);
		else
			gw_frame_send_buf(x.b.t, GW_MSG_ERROR, 0, "no", 2);
		ready(x.here, POLLIN);
		assert_int_equal(read(x.here, &byte, 1), 0);
		gw_tunnel_stop(&x.a);
		gw_transport_close(&x.b.t);
		close(x.b.fd);
		close(x.here);
		close(x.there);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ways), cmocka_unit_test(ends),	cmocka_unit_test(full),
		cmocka_unit_test(paced),     cmocka_unit_test(garbage),
	};

	signal(SIGPIPE, SIG_IGN); /* as in godwitd */

	return cmocka_run_group_tests(tests, NULL, NULL);
}
