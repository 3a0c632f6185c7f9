/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blackout HOST PORT SECONDS|0 [--interval-us N] [--json]
 *
 * How long a guest was not there, as a client sees it: a numbered datagram
 * every interval (default 1 ms) to the guest's UDP echo, and the longest
 * silence between two successive echoes. It begins to count with the first
 * echo, and says so on standard error; a silence that lasts until the end
 * counts. send-gap-ms, the longest pause between two of our own datagrams,
 * tells how far the silence can be this machine's fault.
 *
 * Exits 1 if no echo came at all.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"

#define MAGIC	  0x676f647769743162
/* After the last datagram, so that what is under way does not count as lost. */
#define LINGER_NS (300 * NSEC_PER_MSEC)

struct datagram {
	uint64_t magic;
	uint64_t number;
};

struct blackout {
	int socket;
	struct gap silence;
	struct gap sends;
	uint64_t sent;
	uint64_t received;
	uint64_t duplicates;
	uint64_t refused; /* by the network, on the way out or back */
	uint64_t *seen;	  /* a bit per datagram */
	size_t seen_words;
};

/* Whether this is the first echo of datagram @number. */
static bool mark_seen(struct blackout *b, uint64_t number)
{
	uint64_t bit = 1ull << number % 64;
	size_t word = number / 64;
	bool first;

	if (word >= b->seen_words) {
		size_t words = 2 * (word + 1);

		b->seen = reallocarray(b->seen, words, sizeof(*b->seen));
		if (!b->seen)
			die(errno, "cannot remember %zu datagrams", words * 64);
		memset(b->seen + b->seen_words, 0, (words - b->seen_words) * sizeof(*b->seen));
		b->seen_words = words;
	}
	first = !(b->seen[word] & bit);
	b->seen[word] |= bit;
	return first;
}

static void send_next(struct blackout *b)
{
	struct datagram d = { MAGIC, b->sent };

	gap_event(&b->sends, now_ns());
	if (send(b->socket, &d, sizeof(d), MSG_DONTWAIT) == sizeof(d))
		b->sent++;
	else
		b->refused++;
}

static void receive_all(struct blackout *b)
{
	for (;;) {
		struct datagram d;
		ssize_t bytes = recv(b->socket, &d, sizeof(d), MSG_DONTWAIT);

		if (bytes < 0 && errno == EAGAIN)
			return;
		if (bytes < 0) {
			b->refused++;
			continue;
		}
		if (bytes != sizeof(d) || d.magic != MAGIC || d.number >= b->sent)
			continue;
		if (!mark_seen(b, d.number)) {
			b->duplicates++;
			continue;
		}
		if (!b->received++)
			fputs("blackout: first echo\n", stderr);
		gap_event(&b->silence, now_ns());
	}
}

static void watch(struct blackout *b, const struct options *o)
{
	int64_t end = o->duration_ns ? now_ns() + o->duration_ns : INT64_MAX;
	struct pollfd polled[] = {
		{ .fd = b->socket, .events = POLLIN },
		{ .fd = open_timer(o->interval_ns, o->interval_ns), .events = POLLIN },
		{ .fd = open_signals(), .events = POLLIN },
	};
	uint64_t expired;

	while (!polled[2].revents && now_ns() < end) {
		if (poll(polled, 3, -1) < 0)
			die(errno, "cannot poll");
		if (polled[0].revents)
			receive_all(b);
		/* Intervals that were missed are not made up for: send-gap-ms shows them. */
		if (polled[1].revents && read(polled[1].fd, &expired, sizeof(expired)) > 0)
			send_next(b);
	}
	close(polled[1].fd);
	close(polled[2].fd);
}

/* The silence at the end counts up to the last datagram, not beyond. */
static void finish(struct blackout *b)
{
	struct pollfd polled[] = {
		{ .fd = b->socket, .events = POLLIN },
		{ .fd = open_timer(LINGER_NS, 0), .events = POLLIN },
	};
	int64_t end = b->sends.last;

	while (b->received < b->sent && !polled[1].revents) {
		if (poll(polled, 2, -1) < 0)
			die(errno, "cannot poll");
		if (polled[0].revents)
			receive_all(b);
	}
	if (b->received && end > b->silence.last)
		gap_event(&b->silence, end);
	close(polled[1].fd);
}

static void print(const struct blackout *b, bool json)
{
	printf(json ? "{\"silence-ms\":%.3f,\"silence-at-ms\":%.3f,\"sent\":%lu,\"received\":%lu,"
		      "\"lost\":%lu,\"duplicates\":%lu,\"refused\":%lu,\"send-gap-ms\":%.3f}\n"
		    : "silence-ms %.3f\nsilence-at-ms %.3f\nsent %lu\nreceived %lu\n"
		      "lost %lu\nduplicates %lu\nrefused %lu\nsend-gap-ms %.3f\n",
	       milliseconds(b->silence.longest), milliseconds(b->silence.at - b->silence.first),
	       b->sent, b->received, b->sent - b->received, b->duplicates, b->refused,
	       milliseconds(b->sends.longest));
}

int main(int argc, char **argv)
{
	struct blackout b = { 0 };
	struct options options;

	program_name = "blackout";
	options = parse_options(argc, argv, NSEC_PER_MSEC);
	b.socket = connect_to(&options, SOCK_DGRAM);
	be_urgent();
	watch(&b, &options);
	finish(&b);
	if (!b.received)
		die(0, "no echo came from %s port %s", options.host, options.port);
	print(&b, options.json);
	return EXIT_SUCCESS;
}
