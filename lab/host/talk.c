/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * talk HOST PORT SECONDS|0 [--json]
 *
 * Whether a conversation with a guest survives: one TCP connection to its
 * request service, one request after another, each answer checked. Sequence
 * numbers must rise by exactly one, so talk must be the service's only client.
 * It says on standard error when the first answer came. A request that is
 * under way at the end is waited for.
 *
 * Exits 1 if the connection broke, or an answer was wrong or did not come.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../served.h"
#include "host.h"

#define ANSWER_MAX  128
/* For the last answer: longer than any blackout plus TCP's next attempt. */
#define PATIENCE_NS (15 * NSEC_PER_SEC)

struct talk {
	int socket;
	struct gap gap;
	uint64_t requests; /* answered */
	uint64_t sequence; /* of the last answer */
	char answer[ANSWER_MAX];
	size_t length;
	char error[128]; /* empty: all is well */
};

static uint64_t expected_sum(uint64_t n)
{
	size_t first = table_page(n) * PAGE_WORDS;
	uint64_t sum = 0;

	for (size_t i = 0; i < PAGE_WORDS; i++)
		sum += table_word(first + i);
	return sum;
}

static void send_request(struct talk *t)
{
	char line[32];
	int length = snprintf(line, sizeof(line), "GET %lu\n", t->requests);

	if (send(t->socket, line, length, MSG_NOSIGNAL) != length)
		snprintf(t->error, sizeof(t->error), "sending: %s", strerror(errno));
}

static void check_answer(struct talk *t)
{
	uint64_t n, sequence, sum;

	if (sscanf(t->answer, "%lu %lu %lu", &n, &sequence, &sum) != 3) {
		snprintf(t->error, sizeof(t->error), "the answer is not three numbers");
		return;
	}
	if (n != t->requests)
		snprintf(t->error, sizeof(t->error), "asked %lu, got the answer to %lu",
			 t->requests, n);
	else if (t->requests && sequence != t->sequence + 1)
		snprintf(t->error, sizeof(t->error), "sequence number %lu after %lu", sequence,
			 t->sequence);
	else if (sum != expected_sum(n))
		snprintf(t->error, sizeof(t->error), "request %lu: sum %lu, want %lu", n, sum,
			 expected_sum(n));
	t->sequence = sequence;
}

/* Returns true when an answer is complete, or t->error is set. */
static bool receive(struct talk *t)
{
	ssize_t bytes = recv(t->socket, t->answer + t->length, sizeof(t->answer) - 1 - t->length,
			     MSG_DONTWAIT);

	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (bytes <= 0) {
		snprintf(t->error, sizeof(t->error), "the connection broke: %s",
			 bytes ? strerror(errno) : "closed by the guest");
		return true;
	}
	t->length += bytes;
	if (t->answer[t->length - 1] != '\n') {
		if (t->length < sizeof(t->answer) - 1)
			return false;
		snprintf(t->error, sizeof(t->error), "an answer is too long");
		return true;
	}
	t->answer[t->length - 1] = '\0';
	t->length = 0;
	check_answer(t);
	return true;
}

/* Returns whether to go on; without an answer, time or signal also end the wait. */
static bool wait_for_answer(struct talk *t, int64_t end, struct pollfd *polled)
{
	for (;;) {
		int64_t left = end - now_ns();

		if (left <= 0)
			return false;
		if (poll(polled, 2, left / NSEC_PER_MSEC + 1) < 0)
			die(errno, "cannot poll");
		if (polled[0].revents && receive(t)) {
			if (t->error[0])
				return false;
			if (!t->requests++)
				fputs("talk: first answer\n", stderr);
			gap_event(&t->gap, now_ns());
			return !polled[1].revents;
		}
		if (polled[1].revents)
			return false;
	}
}

static void converse(struct talk *t, int64_t duration)
{
	int64_t end = now_ns() + (duration ? duration : 365 * 86400 * NSEC_PER_SEC);
	struct pollfd polled[] = {
		{ .fd = t->socket, .events = POLLIN },
		{ .fd = open_signals(), .events = POLLIN },
	};
	uint64_t asked;

	do {
		asked = t->requests;
		send_request(t);
	} while (!t->error[0] && wait_for_answer(t, end, polled));

	if (t->error[0] || t->requests > asked)
		return;
	/* A second signal does not hurry the last answer: it decides over right or broken. */
	polled[1].fd = -1;
	wait_for_answer(t, now_ns() + PATIENCE_NS, polled);
	if (!t->error[0] && t->requests == asked)
		snprintf(t->error, sizeof(t->error), "no answer within %lld s",
			 PATIENCE_NS / NSEC_PER_SEC);
	gap_event(&t->gap, now_ns());
}

static void print(const struct talk *t, bool json)
{
	printf(json ? "{\"requests\":%lu,\"gap-ms\":%.3f,\"gap-at-ms\":%.3f,\"broken\":%s,\"error\":\"%s\"}\n"
		    : "requests %lu\ngap-ms %.3f\ngap-at-ms %.3f\nbroken %s\nerror %s\n",
	       t->requests, milliseconds(t->gap.longest), milliseconds(t->gap.at - t->gap.first),
	       t->error[0] ? "true" : "false", t->error);
}

int main(int argc, char **argv)
{
	struct talk t = { 0 };
	struct options options;

	program_name = "talk";
	options = parse_options(argc, argv, 0);
	t.socket = connect_to(&options, SOCK_STREAM);
	converse(&t, options.duration_ns);
	print(&t, options.json);
	return t.error[0] ? EXIT_FAILURE : EXIT_SUCCESS;
}
