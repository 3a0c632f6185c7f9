// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp.c - transport over a TCP socket.
 *
 * A cut link sends no reset, so a dead peer is found by the kernel: keepalive
 * probes while we wait, TCP_USER_TIMEOUT while we send (GW_TCP_SILENCE_MS).
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "transport.h"

struct tcp {
	struct gw_transport t;
	int fd;
	char peer[NI_MAXHOST + NI_MAXSERV + 4];
};

static struct tcp *tcp_of(struct gw_transport *t)
{
	return (struct tcp *)t;
}

static int tcp_failed(const struct tcp *c, int err)
{
	if (err == EPIPE || err == ECONNRESET)
		return gw_fail(-ECONNRESET,
			       "%s closed the connection; the log of its godwitd may "
			       "tell why",
			       c->peer);
	if (err == ETIMEDOUT)
		return gw_fail(-ETIMEDOUT,
			       "%s has not answered for %d s; check the network between the hosts",
			       c->peer, GW_TCP_SILENCE_MS / 1000);
	return gw_fail(-err, "%s: %s", c->peer, strerror(err));
}

/* Wait until the socket takes more, but not beyond send_by. */
static int wait_to_send(struct tcp *c)
{
	struct pollfd pfd = { .fd = c->fd, .events = POLLOUT };
	int n = poll(&pfd, 1, gw_poll_ms(c->t.send_by));

	if (n < 0 && errno != EINTR)
		return tcp_failed(c, errno);
	if (n == 0 && gw_now() >= c->t.send_by)
		return gw_fail(-ETIMEDOUT,
			       "%s takes nothing more of what is sent; is its godwitd stopped, or "
			       "its host overloaded?",
			       c->peer);
	return 0;
}

static int tcp_send(struct gw_transport *t, struct iovec *iov, int n)
{
	struct tcp *c = tcp_of(t);

	while (n > 0) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)n };
		ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | (t->send_by ? MSG_DONTWAIT : 0));

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && t->send_by) {
			int rc = wait_to_send(c);

			if (rc)
				return rc;
			continue;
		}
		if (sent < 0)
			return tcp_failed(c, errno);
		t->sent += (uint64_t)sent;
		while (n > 0 && (size_t)sent >= iov->iov_len) {
			sent -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static int tcp_wait(struct tcp *c, int64_t deadline)
{
	struct pollfd fds[2] = {
		{ .fd = c->fd, .events = POLLIN },
		{ .fd = c->t.wake_fd, .events = POLLIN },
	};
	int n = poll(fds, c->t.wake_fd >= 0 ? 2 : 1, gw_poll_ms(deadline));

	if (n < 0 && errno != EINTR)
		return tcp_failed(c, errno);
	if (n == 0 && gw_now() >= deadline)
		return gw_fail(-ETIMEDOUT, "%s did not answer in time", c->peer);
	if (n > 0 && c->t.wake_fd >= 0 && fds[1].revents)
		return c->t.on_wake(c->t.wake_arg);
	return 0;
}

static int tcp_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct tcp *c = tcp_of(t);
	/* A receiver with nothing else to watch blocks in the kernel: fewer calls. */
	int flags = deadline == GW_FOREVER && t->wake_fd < 0 ? MSG_WAITALL : MSG_DONTWAIT;
	char *at = buf;

	while (len) {
		ssize_t n = recv(c->fd, at, len, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			int rc = tcp_wait(c, deadline);

			if (rc)
				return rc;
			continue;
		}
		if (n < 0)
			return tcp_failed(c, errno);
		if (n == 0)
			return tcp_failed(c, ECONNRESET);
		t->received += (uint64_t)n;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static void tcp_shutdown(struct gw_transport *t)
{
	shutdown(tcp_of(t)->fd, SHUT_RDWR);
}

static void tcp_close(struct gw_transport *t)
{
	close(tcp_of(t)->fd);
	free(t);
}

static const struct gw_transport_ops tcp_ops = {
	.send = tcp_send,
	.recv = tcp_recv,
	.shutdown = tcp_shutdown,
	.close = tcp_close,
};

/*
 * A sender makes the next frame while the last one leaves. On a near link the
 * kernel's own choice holds less than a frame, and the link idles meanwhile.
 */
#define SEND_BUFFER (1 << 20)

static void set_option(int fd, int level, int name, int value)
{
	/* Each is an improvement, none a condition: a kernel without one still works. */
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		return;
}

static struct gw_transport *adopt(int fd, const char *peer)
{
	struct tcp *c = calloc(1, sizeof(*c));
	int flags = fcntl(fd, F_GETFL);

	if (!c) {
		close(fd);
		gw_fail(-ENOMEM, "no memory for a connection");
		return NULL;
	}
	c->t.ops = &tcp_ops;
	c->t.poll_fd = fd;
	c->t.wake_fd = -1;
	c->fd = fd;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, GW_TCP_SILENCE_MS / 1000 - 1);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, GW_TCP_SILENCE_MS);
	return &c->t;
}

struct gw_transport *gw_tcp_adopt(int fd)
{
	char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
	char peer[NI_MAXHOST + NI_MAXSERV + 4];
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (!getpeername(fd, (struct sockaddr *)&addr, &len))
		getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(peer, sizeof(peer), "%s:%s", host, port);
	return adopt(fd, peer);
}

/* "IP:PORT" or "[IP6]:PORT" to a socket address list; NULL with a message. */
static struct addrinfo *parse_address(const char *address, int flags)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags };
	struct addrinfo *list = NULL;
	char host[NI_MAXHOST];
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	int rc;

	if (!colon || !colon[1] || len >= sizeof(host)) {
		gw_fail(-EINVAL, "'%s' is not an address; write IP:PORT", address);
		return NULL;
	}
	memcpy(host, address, len);
	host[len] = '\0';
	if (host[0] == '[' && len > 1 && host[len - 1] == ']') {
		host[len - 1] = '\0';
		memmove(host, host + 1, len - 1);
	}
	rc = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &list);
	if (rc) {
		gw_fail(-EINVAL, "'%s' is not an address: %s; write IP:PORT", address,
			gai_strerror(rc));
		return NULL;
	}
	return list;
}

/* The kernel has measured the round trip of SYN and its answer. */
static struct gw_transport *measured(struct gw_transport *t)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (t && !getsockopt(tcp_of(t)->fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		t->round_trip = (int64_t)info.tcpi_rtt * 1000;
	return t;
}

struct gw_transport *gw_tcp_connect(const char *address, int64_t deadline)
{
	struct addrinfo *list = parse_address(address, 0);
	struct pollfd pfd = { .events = POLLOUT };
	socklen_t len = sizeof(int);
	int err = 0, fd, ready = -1;

	if (!list)
		return NULL;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || (connect(fd, list->ai_addr, list->ai_addrlen) && errno != EINPROGRESS))
		err = errno;
	freeaddrinfo(list);
	pfd.fd = fd;
	while (!err && ready < 0) {
		ready = poll(&pfd, 1, gw_poll_ms(deadline));
		err = ready > 0 ? 0 : ready == 0 ? ETIMEDOUT : errno == EINTR ? 0 : errno;
	}
	if (!err && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err) {
		gw_fail(-err, "cannot reach %s: %s; is godwitd running there?", address,
			strerror(err));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	return measured(adopt(fd, address));
}

int gw_tcp_listen(const char *address)
{
	struct addrinfo *list = parse_address(address, AI_PASSIVE);
	gw_autofd int fd = -1;
	int err = 0;

	if (!list)
		return -EINVAL;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err = errno;
	else
		set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!err && (bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 64)))
		err = errno;
	freeaddrinfo(list);
	if (err)
		return gw_fail(-err, "cannot listen on %s: %s", address, strerror(err));
	return gw_steal_fd(&fd);
}
