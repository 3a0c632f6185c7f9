/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * served: the guest's always-on services for clients on the host.
 *
 * What they are is in ../served.h. One process, one poll loop; a connection
 * is read from only while its answers fit into its buffer, so a client that
 * does not read its answers stops only itself. It runs before every workload,
 * so that a client who watches it sees the migration, not the guest's scheduler.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

#define CONNECTIONS_MAX 1024
#define BUFFER_SIZE	16384
#define ANSWER_MAX	80

enum service {
	UDP_ECHO,
	TCP_ECHO,
	TCP_REQUEST,
	SERVICES
};

struct buffer {
	size_t length;
	char bytes[BUFFER_SIZE];
};

struct connection {
	enum service service;
	struct buffer in;
	struct buffer out;
};

/* Entry i of @polled belongs to listener i, or to connection i - SERVICES. */
static struct pollfd polled[SERVICES + CONNECTIONS_MAX];
static struct connection *connections[CONNECTIONS_MAX];
static size_t connected;

static uint64_t *table;
static uint64_t sequence;

static void buffer_consume(struct buffer *b, size_t bytes)
{
	b->length -= bytes;
	memmove(b->bytes, b->bytes + bytes, b->length);
}

static size_t buffer_room(const struct buffer *b)
{
	return BUFFER_SIZE - b->length;
}

static uint64_t table_sum(uint64_t n)
{
	const uint64_t *words = table + table_page(n) * PAGE_WORDS;
	uint64_t sum = 0;

	for (size_t i = 0; i < PAGE_WORDS; i++)
		sum += words[i];
	return sum;
}

static void answer_echo(struct connection *c)
{
	size_t bytes = c->in.length;

	if (bytes > buffer_room(&c->out))
		bytes = buffer_room(&c->out);
	memcpy(c->out.bytes + c->out.length, c->in.bytes, bytes);
	c->out.length += bytes;
	buffer_consume(&c->in, bytes);
}

/* Answers all whole lines there is room for; returns false for a line that is no request. */
static bool answer_requests(struct connection *c)
{
	while (buffer_room(&c->out) >= ANSWER_MAX) {
		char *newline = memchr(c->in.bytes, '\n', c->in.length);
		char *digits = c->in.bytes + 4;
		uint64_t n;
		char *end;

		if (!newline)
			return buffer_room(&c->in) > 0;
		if (strncmp(c->in.bytes, "GET ", 4))
			return false;
		n = strtoull(digits, &end, 10);
		if (end == digits || end != newline)
			return false;
		c->out.length += snprintf(c->out.bytes + c->out.length, ANSWER_MAX, "%lu %lu %lu\n",
					  n, ++sequence, table_sum(n));
		buffer_consume(&c->in, newline + 1 - c->in.bytes);
	}
	return true;
}

static bool answer(struct connection *c)
{
	if (c->service == TCP_REQUEST)
		return answer_requests(c);
	answer_echo(c);
	return true;
}

/* Both return false if the connection is at its end. */
static bool receive(struct connection *c, int fd)
{
	ssize_t bytes = read(fd, c->in.bytes + c->in.length, buffer_room(&c->in));

	if (bytes < 0)
		return errno == EAGAIN || errno == EINTR;
	c->in.length += bytes;
	return bytes > 0;
}

static bool send_out(struct connection *c, int fd)
{
	ssize_t bytes = send(fd, c->out.bytes, c->out.length, MSG_NOSIGNAL);

	if (bytes < 0)
		return errno == EAGAIN || errno == EINTR;
	buffer_consume(&c->out, bytes);
	return true;
}

static bool serve(struct connection *c, struct pollfd *p)
{
	if (p->revents & (POLLERR | POLLNVAL))
		return false;
	if (p->revents & (POLLIN | POLLHUP) && p->events & POLLIN && !receive(c, p->fd))
		return false;
	if (!answer(c))
		return false;
	if (c->out.length && !send_out(c, p->fd))
		return false;
	/* Sending made room: answer what waited for it, or it would wait for more input. */
	if (!answer(c))
		return false;
	p->events = (buffer_room(&c->in) ? POLLIN : 0) | (c->out.length ? POLLOUT : 0);
	return true;
}

static void accept_one(enum service service)
{
	int fd = accept4(polled[service].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c;

	if (fd < 0)
		return;
	c = connected < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	c->service = service;
	connections[connected] = c;
	polled[SERVICES + connected] = (struct pollfd){ .fd = fd, .events = POLLIN };
	connected++;
}

/* The last connection takes the place of the one that ends. */
static void drop(size_t index)
{
	close(polled[SERVICES + index].fd);
	free(connections[index]);
	connected--;
	connections[index] = connections[connected];
	polled[SERVICES + index] = polled[SERVICES + connected];
}

static void echo_datagrams(int fd)
{
	char bytes[65536];
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	ssize_t got;

	while ((got = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length)) >=
	       0)
		sendto(fd, bytes, got, 0, (struct sockaddr *)&from, length);
}

static int listener(int type, uint16_t port)
{
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_ANY),
	};

	if (fd < 0)
		die(errno, "cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    (type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0))
		die(errno, "cannot listen on port %u", port);
	return fd;
}

int served_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;

	table = map_pages(TABLE_PAGES);
	for (size_t i = 0; i < TABLE_PAGES * PAGE_WORDS; i++)
		table[i] = table_word(i);

	polled[UDP_ECHO].fd = listener(SOCK_DGRAM, ECHO_PORT);
	polled[TCP_ECHO].fd = listener(SOCK_STREAM, ECHO_PORT);
	polled[TCP_REQUEST].fd = listener(SOCK_STREAM, REQUEST_PORT);
	for (int i = 0; i < SERVICES; i++)
		polled[i].events = POLLIN;
	if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 }) < 0)
		die(errno, "cannot run before the workloads");
	go_background();

	for (;;) {
		if (poll(polled, SERVICES + connected, -1) < 0 && errno != EINTR)
			die(errno, "cannot poll");
		/* From the end, because drop() moves the last one down. */
		for (size_t i = connected; i-- > 0;)
			if (polled[SERVICES + i].revents &&
			    !serve(connections[i], &polled[SERVICES + i]))
				drop(i);
		if (polled[UDP_ECHO].revents)
			echo_datagrams(polled[UDP_ECHO].fd);
		if (polled[TCP_ECHO].revents)
			accept_one(TCP_ECHO);
		if (polled[TCP_REQUEST].revents)
			accept_one(TCP_REQUEST);
	}
}
