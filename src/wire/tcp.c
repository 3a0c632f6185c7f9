// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp.c - transport over a TCP socket.
 *
 * A cut link sends no reset. While nothing of ours is under way, keepalive probes find a
 * dead peer. While something is, there are none, and TCP_USER_TIMEOUT is no help: it counts
 * the time in which a busy receiver's window is closed as silence, although the receiver's
 * kernel answers every probe. So whoever waits here looks at what the kernel knows, every
 * LOOK_MS: the peer is lost when data or a window probe is unanswered, and nothing at all
 * has come from it for GW_TCP_SILENCE_MS.
 *
 * The kernel's probes come ever more seldom, unless TCP_RTO_MAX_MS (Linux 6.15) says how
 * often at least. On older kernels a link that is cut when the receiver had paused for a
 * while may be found that much later.
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

#include "address.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "transport.h"

/* How often a wait looks whether the peer is there, and how often the kernel asks it. */
#define LOOK_MS	   500
#define RTO_MAX_MS 1000

/* <linux/tcp.h> of Linux 6.15. */
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif

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

/* One wait of somebody for the peer. */
struct wait {
	int64_t last_ns; /* when something last moved */
	int64_t look_at; /* the next look */
	bool suspect;	 /* the last look found the peer silent */
};

/*
 * Look at a peer for which somebody has waited for LOOK_MS. Twice, before it is lost: a
 * host that was stopped itself finds that much time has passed, and the answers right after.
 */
static int look(const struct tcp *c, struct wait *w)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	bool silent;

	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return 0; /* no TCP socket: its other end is on this host */
	silent = (info.tcpi_unacked || info.tcpi_probes) &&
		 info.tcpi_last_ack_recv >= GW_TCP_SILENCE_MS - LOOK_MS;
	if (silent && w->suspect)
		return tcp_failed(c, ETIMEDOUT);
	w->suspect = silent;
	return 0;
}

/* The same for one who sends, and the end for a peer that takes nothing for too long. */
static int look_sending(const struct tcp *c, struct wait *w)
{
	if (gw_now() - w->last_ns > GW_TCP_STALL_MS * GW_MS)
		return gw_fail(-ETIMEDOUT,
			       "%s is there, but has taken nothing of what was sent for %d s; is "
			       "its godwitd stopped, or its host overloaded?",
			       c->peer, GW_TCP_STALL_MS / 1000);
	return look(c, w);
}

/* How long to wait at once. */
static int slice_ms(const struct tcp *c, int64_t deadline)
{
	const int64_t until = gw_now() + (c->t.on_tick ? GW_TICK_NS : LOOK_MS * GW_MS);

	return gw_poll_ms(until < deadline ? until : deadline);
}

/* Whether a wait that found nothing is to look at the peer, too. */
static bool look_is_due(struct wait *w)
{
	const int64_t now = gw_now();

	if (now < w->look_at)
		return false;
	w->look_at = now + LOOK_MS * GW_MS / 2; /* ticks are short, slices are whole ones */
	return true;
}

/* Wait until the socket takes more, but not beyond send_by. */
static int wait_to_send(struct tcp *c, struct wait *w)
{
	const int64_t by = c->t.send_by;
	struct pollfd pfd = { .fd = c->fd, .events = POLLOUT };
	int n, rc;

	if (!by && !c->t.on_tick) /* a blocking send comes back every LOOK_MS */
		return look_sending(c, w);
	n = poll(&pfd, 1, slice_ms(c, by ? by : GW_FOREVER));
	if (n < 0 && errno != EINTR)
		return tcp_failed(c, errno);
	if (n)
		return 0;
	rc = c->t.on_tick ? c->t.on_tick(c->t.tick_arg) : 0;
	if (rc)
		return rc;
	/* Unless it has more time by now. */
	if (by && gw_now() >= by && c->t.send_by == by)
		return gw_fail(-ETIMEDOUT,
			       "%s takes nothing more of what is sent; is its godwitd stopped, or "
			       "its host overloaded?",
			       c->peer);
	if (!look_is_due(w))
		return 0;
	return c->t.send_by ? look(c, w) : look_sending(c, w);
}

static int tcp_send(struct gw_transport *t, struct iovec *iov, int n)
{
	struct tcp *c = tcp_of(t);
	struct wait w = { .last_ns = gw_now() };

	while (n > 0) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)n };
		const bool waits = t->send_by || t->on_tick; /* here, and not in the kernel */
		ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | (waits ? MSG_DONTWAIT : 0));

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			int rc = wait_to_send(c, &w);

			if (rc)
				return rc;
			continue;
		}
		if (sent < 0)
			return tcp_failed(c, errno);
		w = (struct wait){ .last_ns = gw_now() };
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

static int tcp_wait(struct tcp *c, int64_t deadline, struct wait *w)
{
	struct pollfd fds[2] = {
		{ .fd = c->fd, .events = POLLIN },
		{ .fd = c->t.wake_fd, .events = POLLIN },
	};
	int n = poll(fds, c->t.wake_fd >= 0 ? 2 : 1, slice_ms(c, deadline));
	int rc = n == 0 && c->t.on_tick ? c->t.on_tick(c->t.tick_arg) : 0;

	if (n < 0 && errno != EINTR)
		return tcp_failed(c, errno);
	if (rc)
		return rc;
	if (n == 0 && gw_now() >= deadline)
		return gw_fail(-ETIMEDOUT,
			       "%s did not answer in time; is its godwitd stopped, or its host "
			       "overloaded?",
			       c->peer);
	if (n > 0 && c->t.wake_fd >= 0 && fds[1].revents)
		return c->t.on_wake(c->t.wake_arg);
	return n == 0 && look_is_due(w) ? look(c, w) : 0;
}

static int tcp_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct tcp *c = tcp_of(t);
	/* A receiver with nothing else to watch blocks in the kernel: fewer calls. */
	const bool blocks = deadline == GW_FOREVER && t->wake_fd < 0 && !t->on_tick;
	struct wait w = { .last_ns = 0 };
	char *at = buf;

	while (len) {
		ssize_t n = recv(c->fd, at, len, blocks ? MSG_WAITALL : MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			/* A blocking one comes back every LOOK_MS. */
			int rc = blocks ? look(c, &w) : tcp_wait(c, deadline, &w);

			if (rc)
				return rc;
			continue;
		}
		if (n < 0)
			return tcp_failed(c, errno);
		if (n == 0)
			return tcp_failed(c, ECONNRESET);
		w.suspect = false;
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
	const struct timeval slice = { .tv_usec = LOOK_MS * 1000L };
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
	set_option(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MAX_MS);
	/* Blocking calls come back for a look. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof(slice)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof(slice)))
		gw_debug("%s: %s", peer, strerror(errno));
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

/* The kernel has measured the round trip of SYN and its answer. */
static struct gw_transport *measured(struct gw_transport *t)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (t && !getsockopt(tcp_of(t)->fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		t->round_trip = (int64_t)info.tcpi_rtt * 1000;
	return t;
}

/* Addresses of one name that are tried at most, and the head start of each. */
#define TRIES_MAX  16
#define HEAD_START (250 * GW_MS)

/* Connections of which the first that stands is taken. */
struct dial {
	const char *address;
	struct pollfd fds[TRIES_MAX + 1]; /* -1: failed; the last is the wake's */
	unsigned int begun;
	int err; /* of the last that failed */
};

static void begin_try(struct dial *d, const struct addrinfo *to)
{
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS)) {
		d->err = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	d->fds[d->begun++] = (struct pollfd){ .fd = fd, .events = POLLOUT };
}

/* What has come of those that poll() reported. Return: a connected one, or -1. */
static int take_connected(struct dial *d)
{
	for (unsigned int i = 0; i < d->begun; i++) {
		socklen_t len = sizeof(int);
		int err = 0;

		if (d->fds[i].fd < 0 || !d->fds[i].revents)
			continue;
		if (getsockopt(d->fds[i].fd, SOL_SOCKET, SO_ERROR, &err, &len))
			err = errno;
		if (!err)
			return gw_steal_fd(&d->fds[i].fd);
		d->err = err;
		close(gw_steal_fd(&d->fds[i].fd));
	}
	return -1;
}

static bool any_open(const struct dial *d)
{
	for (unsigned int i = 0; i < d->begun; i++)
		if (d->fds[i].fd >= 0)
			return true;
	return false;
}

static int unreachable(const struct dial *d, int err)
{
	gw_autofree char *tried = d->begun > 1 ? gw_path(" (%u addresses tried)", d->begun)
					       : gw_path("%s", "");

	/* A host that refuses is there; one that does not answer need not be. */
	return gw_fail(-err, "cannot reach %s%s: %s; %s", d->address, tried, strerror(err),
		       err == ECONNREFUSED ? "is godwitd running there?"
					   : "is that host up, and does a firewall let the port "
					     "pass?");
}

/* Return: a connected socket, or -errno with a message. */
static int dial(struct dial *d, const struct addrinfo *next, int64_t deadline,
		const struct gw_wake *wake)
{
	int64_t start_next = gw_now();

	for (;;) {
		const struct pollfd *heard;
		int64_t until;
		int n, fd, rc;

		while (next && d->begun < TRIES_MAX && (gw_now() >= start_next || !any_open(d))) {
			begin_try(d, next);
			next = next->ai_next;
			start_next = gw_now() + HEAD_START;
		}
		if (d->begun == TRIES_MAX)
			next = NULL;
		if (!next && !any_open(d))
			return unreachable(d, d->err);
		if (gw_now() >= deadline)
			return unreachable(d, ETIMEDOUT);
		until = next && start_next < deadline ? start_next : deadline;
		heard = &d->fds[d->begun];
		d->fds[d->begun] = (struct pollfd){ .fd = wake ? wake->fd : -1, .events = POLLIN };
		n = poll(d->fds, d->begun + 1, gw_poll_ms(until));
		if (n < 0 && errno != EINTR)
			return gw_fail(-errno, "poll: %s", strerror(errno));
		if (n <= 0)
			continue;
		rc = heard->revents && wake ? wake->fn(wake->arg) : 0;
		if (rc)
			return rc;
		fd = take_connected(d);
		if (fd >= 0)
			return fd;
	}
}

struct gw_transport *gw_tcp_dial(const char *address, int64_t deadline, const struct gw_wake *wake)
{
	struct dial d = { .address = address };
	struct addrinfo *list;
	int rc, fd;

	list = gw_address_resolve(address, false, deadline, wake, &rc);
	if (!list)
		return NULL;
	fd = dial(&d, list, deadline, wake);
	freeaddrinfo(list);
	for (unsigned int i = 0; i < d.begun; i++)
		if (d.fds[i].fd >= 0)
			close(d.fds[i].fd);
	return fd < 0 ? NULL : measured(adopt(fd, address));
}

/* One that hears IPv4, too, where it can: ":PORT". */
static int listen_at(const struct addrinfo *at, bool both)
{
	gw_autofd int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (at->ai_family == AF_INET6 && both)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 64))
		return -errno;
	return gw_steal_fd(&fd);
}

/* IPv6 first: it hears IPv4, too. */
static const struct addrinfo *next_at(const struct addrinfo *at, bool six)
{
	while (at && (at->ai_family == AF_INET6) != six)
		at = at->ai_next;
	return at;
}

int gw_tcp_listen(const char *address)
{
	const bool any = address[0] == ':' || address[0] == '*';
	struct addrinfo *list;
	int fd = -EADDRNOTAVAIL, rc;

	/* Who starts it wants to know of a name that does not resolve, and soon. */
	list = gw_address_resolve(address, true, gw_now() + 10 * GW_S, NULL, &rc);
	if (!list)
		return rc;
	for (int six = 1; six >= 0 && fd < 0; six--) {
		const struct addrinfo *at = next_at(list, six);

		for (; at && fd < 0; at = next_at(at->ai_next, six)) {
			fd = listen_at(at, any);
			/* Taken is taken: the other family would not be what was asked for. */
			if (fd == -EADDRINUSE)
				break;
		}
		if (fd == -EADDRINUSE)
			break;
	}
	freeaddrinfo(list);
	return fd < 0 ? gw_fail(fd, "cannot listen on %s: %s", address, strerror(-fd)) : fd;
}
