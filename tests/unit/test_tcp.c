// SPDX-License-Identifier: GPL-2.0-or-later
/* test_tcp.c - TCP connections between threads: many frames, waking, addresses. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "clock.h"
#include "frame.h"
#include "rng.h"

#define SOON   (gw_now() + 120 * GW_S)
#define FRAMES 200

struct link {
	struct gw_transport *a, *b;
};

/* Both ends of a connection over the loopback interface of @family. */
static void connect_link(struct link *l, int family)
{
	gw_autofd int listener = gw_tcp_listen(family == AF_INET ? "127.0.0.1:0" : "[::1]:0");
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	struct pollfd pfd = { .events = POLLIN };
	char text[64];
	int fd;

	assert_true(listener >= 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	if (family == AF_INET)
		snprintf(text, sizeof(text), "127.0.0.1:%u",
			 ntohs(((struct sockaddr_in *)&addr)->sin_port));
	else
		snprintf(text, sizeof(text), "[::1]:%u",
			 ntohs(((struct sockaddr_in6 *)&addr)->sin6_port));
	l->a = gw_tcp_connect(text, SOON);
	assert_non_null(l->a);
	pfd.fd = listener;
	assert_int_equal(poll(&pfd, 1, 120000), 1);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	l->b = gw_tcp_adopt(fd);
	assert_non_null(l->b);
}

static int make(void **state)
{
	struct link *l = calloc(1, sizeof(*l));

	*state = l;
	if (!l)
		return -1;
	connect_link(l, AF_INET);
	return 0;
}

static int drop(void **state)
{
	struct link *l = *state;

	gw_transport_close(&l->a);
	gw_transport_close(&l->b);
	free(l);
	return 0;
}

static size_t frame_content(struct rng *rng, uint8_t *buf)
{
	size_t len = rng_below(rng, (size_t)gw_message_max(GW_MSG_PAGES) + 1);

	rng_fill(rng, buf, len);
	return len;
}

static void *send_frames(void *arg)
{
	gw_autofree uint8_t *buf = malloc((size_t)gw_message_max(GW_MSG_PAGES));
	struct rng rng = { 3 };
	int rc = 0;

	for (uint64_t i = 0; !rc && i < FRAMES; i++) {
		size_t len = frame_content(&rng, buf), half = len / 2;
		struct iovec parts[] = { { buf, half }, { buf + half, len - half } };

		rc = gw_frame_send(arg, GW_MSG_PAGES, i, parts, 2);
	}
	return (void *)(intptr_t)rc;
}

static void on_signal(int sig)
{
	(void)sig;
}

/*
 * More than the socket's buffers hold, and a sender that signals keep interrupting, so that
 * both sides meet short transfers.
 */
static void frames_arrive_in_order(void **state)
{
	gw_autofree uint8_t *buf = malloc((size_t)gw_message_max(GW_MSG_PAGES));
	struct sigaction sa = { .sa_handler = on_signal };
	struct link *l = *state;
	struct gw_frame f = { 0 };
	struct rng rng = { 3 };
	pthread_t sender;
	void *rc;

	sigaction(SIGUSR1, &sa, NULL);
	assert_int_equal(pthread_create(&sender, NULL, send_frames, l->a), 0);
	for (uint64_t i = 0; i < FRAMES; i++) {
		size_t len = frame_content(&rng, buf);

		pthread_kill(sender, SIGUSR1);
		assert_int_equal(gw_frame_recv(l->b, &f, i % 2 ? GW_FOREVER : SOON), 0);
		assert_int_equal(f.arg, i);
		assert_int_equal(f.len, len);
		assert_memory_equal(f.payload, buf, len);
	}
	pthread_join(sender, &rc);
	assert_null(rc);
	assert_int_equal(l->a->sent, l->b->received);
	gw_frame_free(&f);
}

struct waiter {
	struct gw_transport *t;
	int64_t deadline;
	int rc;
	char message[GW_ERROR_MAX];
};

static void *wait_for_frame(void *arg)
{
	struct waiter *w = arg;
	struct gw_frame f = { 0 };

	w->rc = gw_frame_recv(w->t, &f, w->deadline);
	snprintf(w->message, sizeof(w->message), "%s", gw_error());
	gw_frame_free(&f);
	return NULL;
}

/* Any thread may end a connection under one that waits, with or without a deadline. */
static void shutdown_wakes_the_receiver(void **state)
{
	for (int forever = 0; forever < 2; forever++) {
		struct link *l = *state;
		struct waiter w = { .t = l->b, .deadline = forever ? GW_FOREVER : SOON };
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, wait_for_frame, &w), 0);
		l->b->ops->shutdown(l->b);
		pthread_join(thread, NULL);
		assert_int_equal(w.rc, -ECONNRESET);
		drop(state);
		assert_int_equal(make(state), 0);
	}
}

static void *fill_the_wire(void *arg)
{
	static const uint8_t zeros[1 << 20];
	int rc = 0;

	while (!rc)
		rc = gw_frame_send_buf(arg, GW_MSG_PAGES, 0, zeros, sizeof(zeros));
	return (void *)(intptr_t)rc;
}

static void shutdown_wakes_the_sender(void **state)
{
	struct link *l = *state;
	uint64_t before, now = 0;
	pthread_t thread;
	void *rc;

	assert_int_equal(pthread_create(&thread, NULL, fill_the_wire, l->a), 0);
	/* Until a whole frame is in the buffers, so that it is sending for sure. */
	do {
		before = now;
		now = l->a->sent;
		sched_yield();
	} while (!now || now != before);
	l->a->ops->shutdown(l->a);
	pthread_join(thread, &rc);
	assert_int_equal((intptr_t)rc, -ECONNRESET);
}

struct alarm_clock {
	int fd;
	int calls, give_up_at;
};

static int ring(void *arg)
{
	struct alarm_clock *c = arg;
	uint64_t n;

	assert_int_equal(read(c->fd, &n, sizeof(n)), sizeof(n));
	if (++c->calls == c->give_up_at)
		return gw_fail(-ECANCELED, "the user ended it");
	n = 1;
	assert_int_equal(write(c->fd, &n, sizeof(n)), sizeof(n));
	return 0;
}

static void wake_fd_is_watched(void **state)
{
	struct link *l = *state;
	struct alarm_clock c = { .fd = eventfd(1, EFD_CLOEXEC), .give_up_at = 3 };
	struct waiter w = { .t = l->b, .deadline = GW_FOREVER };

	l->b->wake_fd = c.fd;
	l->b->on_wake = ring;
	l->b->wake_arg = &c;
	wait_for_frame(&w);
	assert_int_equal(w.rc, -ECANCELED);
	assert_string_equal(w.message, "the user ended it");
	assert_int_equal(c.calls, 3);
	/* With nothing to wake it, what arrives is received. */
	assert_int_equal(gw_frame_send_buf(l->a, GW_MSG_COMMIT, 0, NULL, 0), 0);
	wait_for_frame(&w);
	assert_int_equal(w.rc, 0);
	close(c.fd);
}

static void ipv6(void **state)
{
	gw_autofd int probe = gw_tcp_listen("[::1]:0");
	struct link l;
	struct waiter w;

	(void)state;
	if (probe < 0)
		skip(); /* a host without IPv6 */
	connect_link(&l, AF_INET6);
	w = (struct waiter){ .t = l.b, .deadline = SOON };
	assert_int_equal(gw_frame_send_buf(l.a, GW_MSG_COMMIT, 0, NULL, 0), 0);
	wait_for_frame(&w);
	assert_int_equal(w.rc, 0);
	gw_transport_close(&l.a);
	gw_transport_close(&l.b);
}

static void addresses(void **state)
{
	static const char *const bad[] = {
		"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:port", "[::1]", "no such host:1",
	};
	gw_autofd int listener = gw_tcp_listen("127.0.0.1:0");
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	char text[64];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(gw_tcp_listen(bad[i]), -EINVAL);
		gw_error_clear();
		assert_null(gw_tcp_connect(bad[i], SOON));
		assert_message("is not an address");
	}
	/* Taken by one listener, so not for another; closed, so nobody answers. */
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(addr.sin_port));
	assert_int_equal(gw_tcp_listen(text), -EADDRINUSE);
	close(gw_steal_fd(&listener));
	assert_null(gw_tcp_connect(text, SOON));
	assert_message("is godwitd running there?");
}

/* A peer that is there and does not read: a send with a limit ends then, and not before. */
static void send_by_its_time(void **state)
{
	static char bytes[16 << 20];
	struct link *l = *state;
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };

	l->a->send_by = gw_now() + 50 * GW_MS;
	assert_int_equal(l->a->ops->send(l->a, &iov, 1), -ETIMEDOUT);
	assert_true(gw_now() >= l->a->send_by);
	assert_message("takes nothing more");
	assert_true(l->a->sent > 0 && l->a->sent < sizeof(bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_arrive_in_order, make, drop),
		cmocka_unit_test_setup_teardown(shutdown_wakes_the_receiver, make, drop),
		cmocka_unit_test_setup_teardown(shutdown_wakes_the_sender, make, drop),
		cmocka_unit_test_setup_teardown(wake_fd_is_watched, make, drop),
		cmocka_unit_test_setup_teardown(send_by_its_time, make, drop),
		cmocka_unit_test(ipv6),
		cmocka_unit_test(addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
