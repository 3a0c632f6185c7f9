// SPDX-License-Identifier: GPL-2.0-or-later
/* test_tcp.c - TCP connections between threads: many frames, waking, addresses. */
#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "address.h"
#include "clock.h"
#include "messages.h"
#include "frame.h"
#include "rng.h"

#define SOON   (gw_now() + 120 * GW_S)
#define FRAMES 200

struct link {
	struct gw_transport *a, *b;
};

static int silence[2];

/*
 * In place of the C library's: "two.test" has two addresses, and "silent.test" is asked
 * for until silence[1] is closed.
 */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		struct addrinfo **list)
{
	int (*real)(const char *, const char *, const struct addrinfo *,
		    struct addrinfo **) = (__typeof__(real))dlsym(RTLD_NEXT, "getaddrinfo");
	const bool numeric = hints && hints->ai_flags & AI_NUMERICHOST;
	char byte;

	if (host && !numeric && !strcmp(host, "two.test"))
		return real("::1", port, hints, list) ||
		       real("127.0.0.1", port, hints, &(*list)->ai_next);
	if (host && !numeric && !strcmp(host, "silent.test")) {
		if (read(silence[0], &byte, 1) == 0)
			close(silence[0]);
		return EAI_AGAIN;
	}
	return real(host, port, hints, list);
}

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
	l->a = gw_tcp_dial(text, SOON, NULL);
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
		"",
		":",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:port",
		"[::1]",
		"no such host:1",
		"127.0.0.1:65536",
		"127.0.0.1:99999",
		"127.0.0.1:-1",
		"127.0.0.1: 1",
		"127.0.0.1:1x",
		"::1:7373", /* or is the port a part of it? */
		"[::1:7373",
		"127.0.0.1:000000000000000000001",
	};
	static const char *const good[] = { "10.0.0.1:1", "[fe80::1]:65535", "host.example:7373" };
	gw_autofd int listener = gw_tcp_listen("127.0.0.1:0");
	struct sockaddr_in addr;
	char text[64], longest[GW_ADDRESS_MAX + 1];
	socklen_t len = sizeof(addr);

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(gw_tcp_listen(bad[i]), -EINVAL);
		gw_error_clear();
		assert_null(gw_tcp_dial(bad[i], SOON, NULL));
		assert_message("is not an address");
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++)
		assert_int_equal(gw_address_check(good[i], false), 0);
	/* Port 0 and no host are for those who listen. */
	assert_int_equal(gw_address_check("127.0.0.1:0", true), 0);
	assert_int_equal(gw_address_check(":7373", true), 0);
	assert_int_equal(gw_address_check("*:7373", true), 0);
	assert_int_equal(gw_address_check("127.0.0.1:0", false), -EINVAL);
	assert_int_equal(gw_address_check(":7373", false), -EINVAL);
	/* What a record has no room for is told, and not cut. */
	memset(longest, 'h', sizeof(longest));
	memcpy(longest + GW_ADDRESS_MAX - 3, ":7", 3);
	assert_int_equal(gw_address_check(longest, false), 0);
	memcpy(longest + GW_ADDRESS_MAX - 3, "h:7", 4);
	assert_int_equal(gw_address_check(longest, false), -EINVAL);
	assert_message("too long");
	/* Taken by one listener, so not for another; closed, so nobody answers. */
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(addr.sin_port));
	assert_int_equal(gw_tcp_listen(text), -EADDRINUSE);
	close(gw_steal_fd(&listener));
	assert_null(gw_tcp_dial(text, SOON, NULL));
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

/* It is taken back while the send waits: past what was its end, it still goes on. */
static void *give_time(void *arg)
{
	struct link *l = arg;
	const int64_t was = l->a->send_by;
	static char bytes[1 << 20];

	l->a->send_by = 0;
	/* Nothing is read before that moment has gone by. */
	while (gw_now() <= was + 20 * GW_MS)
		poll(NULL, 0, 5);
	while (!l->b->ops->recv(l->b, bytes, sizeof(bytes), SOON))
		if (l->b->received == 16 << 20)
			return NULL;
	return NULL;
}

static void send_by_is_taken_back(void **state)
{
	static char bytes[16 << 20];
	struct link *l = *state;
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	pthread_t thread;

	l->a->send_by = gw_now() + 200 * GW_MS;
	assert_int_equal(pthread_create(&thread, NULL, give_time, l), 0);
	assert_int_equal(l->a->ops->send(l->a, &iov, 1), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(l->b->received == sizeof(bytes));
}

struct ticks {
	struct link *l;
	unsigned int count;
	bool speaks; /* the peer, at the third; else whoever waits gives up */
};

static int third_tick(void *arg)
{
	struct ticks *k = arg;

	if (++k->count < 3)
		return 0;
	return k->speaks ? gw_frame_send(k->l->b, GW_MSG_LOADED, 0, NULL, 0)
			 : gw_fail(-ECANCELED, "the third");
}

/* Whoever waits for a peer that does nothing has the time to look after something else. */
static void who_waits_ticks(void **state)
{
	static char bytes[16 << 20];
	struct link *l = *state;
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	struct ticks k = { .l = l, .speaks = true };
	struct gw_frame f = { 0 };

	l->a->on_tick = third_tick;
	l->a->tick_arg = &k;
	assert_int_equal(gw_frame_recv(l->a, &f, GW_FOREVER), 0);
	assert_int_equal(f.type, GW_MSG_LOADED);
	assert_int_equal(k.count, 3);
	k = (struct ticks){ .l = l };
	assert_int_equal(l->a->ops->send(l->a, &iov, 1), -ECANCELED);
	assert_int_equal(k.count, 3);
	gw_frame_free(&f);
}

/* ":PORT" is every address of the host, of both kinds. */
static void listening_anywhere_hears_both(void **state)
{
	gw_autofd int probe = gw_tcp_listen("[::1]:0");
	gw_autofd int listener = gw_tcp_listen(":0");
	struct sockaddr_in6 addr;
	socklen_t len = sizeof(addr);

	(void)state;
	assert_true(listener >= 0);
	if (probe < 0)
		skip(); /* a host without IPv6 */
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(addr.sin6_family, AF_INET6);
	for (int six = 0; six < 2; six++) {
		gw_autofree char *text = gw_path("%s:%u", six ? "[::1]" : "127.0.0.1",
						 ntohs(addr.sin6_port));
		struct gw_transport *t = gw_tcp_dial(text, SOON, NULL);

		assert_non_null(t);
		gw_transport_close(&t);
	}
}

/* A name with two addresses, and a listener on one of them only. */
static void all_addresses_are_tried(void **state)
{
	gw_autofd int probe = gw_tcp_listen("[::1]:0");

	(void)state;
	if (probe < 0)
		skip(); /* a host without IPv6 */
	for (int six = 0; six < 2; six++) {
		gw_autofd int listener = gw_tcp_listen(six ? "[::1]:0" : "127.0.0.1:0");
		struct sockaddr_in addr; /* the port is at the same place in both kinds */
		socklen_t len = sizeof(addr);
		gw_autofree char *text = NULL;
		struct gw_transport *t;

		getsockname(listener, (struct sockaddr *)&addr, &len);
		text = gw_path("two.test:%u", ntohs(addr.sin_port));
		t = gw_tcp_dial(text, SOON, NULL);
		assert_non_null(t);
		gw_transport_close(&t);
		close(gw_steal_fd(&listener));
		assert_null(gw_tcp_dial(text, SOON, NULL));
		assert_message("(2 addresses tried)");
	}
}

/* A resolver that is silent keeps nobody beyond the deadline. */
static void a_silent_resolver_is_left_alone(void **state)
{
	(void)state;
	assert_int_equal(pipe(silence), 0);
	assert_null(gw_tcp_dial("silent.test:1", gw_now() + 100 * GW_MS, NULL));
	assert_message("'silent.test' is not resolved in time");
	close(silence[1]); /* its thread ends, and frees what they shared */
}

static int give_up_now(void *arg)
{
	(*(int *)arg)++;
	return gw_fail(-ECANCELED, "the user ended it");
}

/* A host that answers no SYN, as behind a firewall: who connects can be called away. */
static void connecting_can_be_cancelled(void **state)
{
	gw_autofd int listener = gw_tcp_listen("127.0.0.1:0"), wake = eventfd(1, EFD_CLOEXEC);
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	gw_autofree char *text = NULL;
	int fds[4], calls = 0;

	(void)state;
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	text = gw_path("127.0.0.1:%u", ntohs(addr.sin_port));
	for (int i = 0; i < 4; i++) { /* so many that no more are taken */
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (connect(fds[i], (struct sockaddr *)&addr, sizeof(addr)))
			assert_int_equal(errno, EINPROGRESS);
	}
	assert_null(gw_tcp_dial(text, SOON,
				&(struct gw_wake){ .fd = wake, .fn = give_up_now, .arg = &calls }));
	assert_message("the user ended it");
	assert_int_equal(calls, 1);
	assert_null(gw_tcp_dial(text, gw_now() + 50 * GW_MS, NULL));
	assert_message("timed out");
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* What arrives at @t from now on is lost, in both directions if both ends are cut. */
static void cut(const struct gw_transport *t)
{
	struct sock_filter nothing[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	const struct sock_fprog program = { 1, nothing };

	assert_int_equal(
		setsockopt(t->poll_fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

struct sender {
	struct gw_transport *t;
	int64_t ended;
	int rc;
	char message[GW_ERROR_MAX];
};

/* 32 MiB: more than the buffers of both ends. */
static void *send_much(void *arg)
{
	static const uint8_t zeros[1 << 20];
	struct sender *s = arg;

	for (int i = 0; i < 32 && !s->rc; i++)
		s->rc = gw_frame_send_buf(s->t, GW_MSG_PAGES, 0, zeros, sizeof(zeros));
	snprintf(s->message, sizeof(s->message), "%s", gw_error());
	s->ended = gw_now();
	return NULL;
}

static void sleep_ms(int ms)
{
	poll(NULL, 0, ms);
}

/* A receiver that is busy with something else for longer than a lost one may be silent. */
static void a_busy_receiver_is_not_lost(void **state)
{
	struct link *l = *state;
	struct sender s = { .t = l->a };
	struct gw_frame f = { 0 };
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, send_much, &s), 0);
	for (int i = 0; i < 32; i++) {
		if (i == 1)
			sleep_ms(GW_TCP_SILENCE_MS + 2500);
		assert_int_equal(gw_frame_recv(l->b, &f, SOON), 0);
	}
	pthread_join(thread, NULL);
	assert_int_equal(s.rc, 0);
	gw_frame_free(&f);
}

/* And one that is busy, and then lost: by who sends to it. */
static void a_cut_link_is_found_behind_a_closed_window(void **state)
{
	struct link *l = *state;
	struct sender s = { .t = l->a };
	pthread_t thread;
	int64_t since;

	assert_int_equal(pthread_create(&thread, NULL, send_much, &s), 0);
	sleep_ms(1500); /* the window is closed, and probes have been answered */
	cut(l->a);
	cut(l->b);
	since = gw_now();
	pthread_join(thread, NULL);
	assert_int_equal(s.rc, -ETIMEDOUT);
	assert_non_null(strstr(s.message, "has not answered for 5 s"));
	/* Not a moment later, but for a loaded machine; the kernel's own limit is minutes. */
	assert_true(s.ended - since < 3 * GW_TCP_SILENCE_MS * GW_MS);
}

/* By one who waits for an answer to what was lost, with and without a deadline. */
static void a_cut_link_is_found_by_who_waits(void **state)
{
	struct link *l = *state;
	const int64_t since = gw_now();

	cut(l->a);
	cut(l->b);
	assert_int_equal(gw_frame_send_buf(l->a, GW_MSG_COMMIT, 0, NULL, 0), 0);
	for (int forever = 0; forever < 2; forever++) {
		struct waiter w = { .t = l->a, .deadline = forever ? GW_FOREVER : SOON };

		wait_for_frame(&w);
		assert_int_equal(w.rc, -ETIMEDOUT);
		assert_non_null(strstr(w.message, "has not answered for 5 s"));
	}
	assert_true(gw_now() - since < 4 * GW_TCP_SILENCE_MS * GW_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_arrive_in_order, make, drop),
		cmocka_unit_test_setup_teardown(shutdown_wakes_the_receiver, make, drop),
		cmocka_unit_test_setup_teardown(shutdown_wakes_the_sender, make, drop),
		cmocka_unit_test_setup_teardown(wake_fd_is_watched, make, drop),
		cmocka_unit_test_setup_teardown(send_by_its_time, make, drop),
		cmocka_unit_test_setup_teardown(send_by_is_taken_back, make, drop),
		cmocka_unit_test_setup_teardown(who_waits_ticks, make, drop),
		cmocka_unit_test(ipv6),
		cmocka_unit_test(addresses),
		cmocka_unit_test(listening_anywhere_hears_both),
		cmocka_unit_test(all_addresses_are_tried),
		cmocka_unit_test(a_silent_resolver_is_left_alone),
		cmocka_unit_test(connecting_can_be_cancelled),
		cmocka_unit_test_setup_teardown(a_busy_receiver_is_not_lost, make, drop),
		cmocka_unit_test_setup_teardown(a_cut_link_is_found_behind_a_closed_window, make,
						drop),
		cmocka_unit_test_setup_teardown(a_cut_link_is_found_by_who_waits, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
