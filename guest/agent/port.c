// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The conversation with the host, ../abi.h, over a virtio-serial port.
 *
 *                      request                        END or ERROR sent
 *   asleep, port_serve() ------> answering, answer() ------> asleep
 *                                   |    ^
 *                                   +----+ another request: that one is answered
 *                                   |
 *                                   +------> asleep: the host has been away for AWAY_MS
 *
 * A port without a host is always ready: poll() says POLLHUP, read() gives end of
 * file. Asking again and again would be a busy loop, so the agent waits for edges
 * with epoll: the driver wakes whoever waits when a host comes or goes, when it has
 * sent something, and when it has taken something. After each edge everything is
 * tried until the port has nothing more to give.
 *
 * That a host comes or goes is told by messages on another queue than the data's,
 * and may become known later than its request. So a request whose host seems to be
 * away is not forgotten at once, nor is the answer to it: it goes on where it was.
 *
 * A host that comes back soon may find the rest of an answer to the one before;
 * that is why answers carry the request's id, and why a new request ends them.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define MAGIC_SIZE 8
#define AWAY_MS	   5000

struct port {
	struct sink sink; /* must be the first: the sink's functions get it */
	int fd, epoll;
	unsigned char in[512]; /* what has come and is not a whole request yet */
	size_t held;
	bool asked; /* there is a request to answer: */
	struct gw_agent_request request;
};

static void drop(struct port *port, size_t bytes)
{
	port->held -= bytes;
	memmove(port->in, port->in + bytes, port->held);
}

/* Drops what no request begins with. */
static void seek_magic(struct port *port)
{
	size_t skip = 0;

	while (skip < port->held) {
		size_t rest = port->held - skip;

		if (!memcmp(port->in + skip, GW_AGENT_ASK, rest < MAGIC_SIZE ? rest : MAGIC_SIZE))
			break;
		skip++;
	}
	drop(port, skip);
}

/*
 * Takes the requests out of what has come; the last one counts.
 *
 * What a host began and did not end is followed by the next one's request, so
 * one that has another's magic in it, or is none, is given up at its first byte.
 */
static void parse(struct port *port)
{
	struct gw_agent_request request;

	for (seek_magic(port); port->held >= sizeof(request); seek_magic(port)) {
		memcpy(&request, port->in, sizeof(request));
		if (memmem(port->in + 1, sizeof(request) - 1, GW_AGENT_ASK, MAGIC_SIZE) ||
		    (le32toh(request.version) <= GW_AGENT_VERSION && request.zero)) {
			drop(port, 1);
			continue;
		}
		port->request = request;
		port->asked = true;
		drop(port, sizeof(request));
	}
}

/* Takes in all that the host has sent. */
static int hear(struct port *port)
{
	for (;;) {
		ssize_t bytes = read(port->fd, port->in + port->held,
				     sizeof(port->in) - port->held);

		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes < 0 && errno != EAGAIN)
			return -errno;
		if (bytes <= 0)
			return 0;
		port->held += bytes;
		parse(port);
	}
}

static int sleep_on(struct port *port, int milliseconds)
{
	struct epoll_event event;

	return epoll_wait(port->epoll, &event, 1, milliseconds) < 0 && errno != EINTR ? -errno : 0;
}

/* What poll() says now: POLLHUP without a host, POLLOUT if it takes more. */
static int state_of(const struct port *port)
{
	struct pollfd state = { .fd = port->fd, .events = POLLOUT };

	return poll(&state, 1, 0) > 0 ? state.revents : 0;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* Whether a host still waits for the answer under way; -ECANCELED if none does. */
static int still_wanted(struct sink *sink)
{
	struct port *port = (struct port *)sink;
	int64_t until = 0, now;
	int error;

	for (;;) {
		error = hear(port);
		if (error)
			return error;
		if (port->asked)
			return -ECANCELED;
		if (!(state_of(port) & POLLHUP))
			return 0;
		now = now_ms();
		if (!until)
			until = now + AWAY_MS;
		if (now >= until)
			return -ECANCELED;
		error = sleep_on(port, until - now);
		if (error)
			return error;
	}
}

static int say(struct port *port, const void *data, size_t size)
{
	while (size) {
		ssize_t bytes = write(port->fd, data, size);
		int error;

		if (bytes > 0) {
			data = (const char *)data + bytes;
			size -= bytes;
			continue;
		}
		if (bytes < 0 && errno == EPIPE)
			return -ECANCELED;
		if (bytes < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		error = still_wanted(&port->sink);
		/* That may have slept over the edge at which the port became ready. */
		if (!error && !(state_of(port) & POLLOUT))
			error = sleep_on(port, -1);
		if (error)
			return error;
	}
	return 0;
}

static int frame(struct port *port, const struct gw_agent_request *request, enum gw_agent_kind kind,
		 const void *body, size_t length)
{
	struct gw_agent_frame header = {
		.magic = GW_AGENT_SAY,
		.id = request->id,
		.version = htole32(GW_AGENT_VERSION),
		.kind = htole32(kind),
		.length = htole32(length),
	};
	int error = say(port, &header, sizeof(header));

	return error ? error : say(port, body, length);
}

static int put_piece(struct sink *sink, const void *data, size_t size)
{
	struct port *port = (struct port *)sink;
	int error = still_wanted(sink);

	return error ? error : frame(port, &port->request, GW_AGENT_PIECE, data, size);
}

/* -ECANCELED, which is no failure: the host has gone, or asked again. */
static int answer(struct port *port)
{
	/* Another one may come in the middle of a frame. */
	const struct gw_agent_request request = port->request;
	struct report report = { .sink = &port->sink };
	struct gw_agent_end end = {};
	int error;

	port->asked = false;
	if (le32toh(request.version) != GW_AGENT_VERSION ||
	    le32toh(request.kind) != GW_AGENT_REPORT) {
		int length = snprintf(
			report.problem, sizeof(report.problem),
			"version %u, kind %u is asked for; this agent has version %u, kind %u",
			le32toh(request.version), le32toh(request.kind), GW_AGENT_VERSION,
			GW_AGENT_REPORT);

		return frame(port, &request, GW_AGENT_ERROR, report.problem, length);
	}
	error = report_write(&report);
	if (error == -ECANCELED)
		return error;
	if (error)
		return frame(port, &request, GW_AGENT_ERROR, report.problem,
			     strlen(report.problem));
	end.runs = htole64(report.runs);
	end.pages = htole64(report.pages);
	end.source = htole32(report.source);
	return frame(port, &request, GW_AGENT_END, &end, sizeof(end));
}

int port_serve(const char *path)
{
	struct port port = { .sink = { put_piece, still_wanted } };
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int error = 0;

	port.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	port.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (port.fd < 0 || port.epoll < 0 ||
	    epoll_ctl(port.epoll, EPOLL_CTL_ADD, port.fd, &event) < 0)
		error = -errno;
	while (!error) {
		error = hear(&port);
		if (!error)
			error = port.asked ? answer(&port) : sleep_on(&port, -1);
		if (error == -ECANCELED)
			error = 0;
	}
	if (port.epoll >= 0)
		close(port.epoll);
	if (port.fd >= 0)
		close(port.fd);
	return error;
}
