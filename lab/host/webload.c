/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * webload make FILES KIB FOLDER
 * webload load FILES KIB HOST PORT SECONDS|0 [--interval-us N] [--json]
 *
 * The first writes FILES files of KIB KiB for a web server in the guest. The
 * second fetches each of them once, so that the guest has them in its page
 * cache, says so on standard error, and fetches one after another until its
 * end, all alike.
 *
 * Rules: a file's bytes are a function of its number, and each byte that comes
 * is compared: what differs is lost or mixed up memory. A connection for each
 * request, as HTTP/1.0 has it; one request under way for each slot, and one
 * each 10 ms at most (--interval-us) over all once all files were fetched; a
 * late one is not made up for.
 *
 * Exits 1 if a connection broke or an answer was wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../served.h"
#include "host.h"

#define SLOTS	     8
#define FILES_MAX    100000
#define KIB_MAX	     (64 << 10)
#define HEAD_MAX     2048
#define BUFFER_BYTES (256 << 10)
#define LATE_NS	     (10 * NSEC_PER_MSEC)

struct slot {
	int fd; /* -1: nothing under way */
	uint32_t file;
	size_t head_bytes;
	size_t at; /* of the body */
	bool connecting, in_body;
	char head[HEAD_MAX];
};

struct state {
	int64_t interval_ns;
	struct addrinfo *server;
	uint32_t files, next; /* next: to be fetched for the first time */
	size_t bytes;
	uint64_t random;
	int64_t due_ns;
	struct tally tally; /* from when all were fetched once */
	struct slot slots[SLOTS];
	struct pollfd polled[SLOTS + 1];
};

static char error[160]; /* empty: all is well */

/* Bytes @at to @at + @count of file @file. */
static void file_bytes(uint32_t file, size_t at, unsigned char *to, size_t count)
{
	uint64_t word = 0;

	for (size_t i = 0; i < count; i++, at++) {
		if (!i || at % 8 == 0)
			word = mix64((uint64_t)file << 32 | (at / 8 + 1));
		to[i] = (unsigned char)(word >> at % 8 * 8);
	}
}

static int make(uint32_t files, size_t bytes, const char *folder)
{
	unsigned char *body = malloc(bytes);

	if (!body || chdir(folder) < 0)
		die(errno, "cannot write into %s", folder);
	for (uint32_t file = 0; file < files; file++) {
		char name[16];
		int fd;

		snprintf(name, sizeof(name), "%u", file);
		file_bytes(file, 0, body, bytes);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, body, bytes) != (ssize_t)bytes || close(fd) < 0)
			die(errno, "cannot write %s/%s", folder, name);
	}
	free(body);
	return EXIT_SUCCESS;
}

/* Begins to connect; nobody waits for it, since a lost first packet costs a second. */
static void ask(struct state *s, struct slot *slot, uint32_t file)
{
	*slot = (struct slot){ .file = file, .connecting = true };
	slot->fd = socket(s->server->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (slot->fd < 0)
		die(errno, "cannot make a socket");
	if (connect(slot->fd, s->server->ai_addr, s->server->ai_addrlen) < 0 &&
	    errno != EINPROGRESS)
		snprintf(error, sizeof(error), "connecting for file %u: %s", file, strerror(errno));
}

static void connected(struct slot *slot)
{
	char request[64];
	int failed = 0,
	    bytes = snprintf(request, sizeof(request), "GET /%u HTTP/1.0\r\n\r\n", slot->file);

	getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &failed, &(socklen_t){ sizeof(failed) });
	if (!failed && send(slot->fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes)
		failed = errno;
	if (failed)
		snprintf(error, sizeof(error), "asking for file %u: %s", slot->file,
			 strerror(failed));
	slot->connecting = false;
}

static void count(struct state *s, struct slot *slot)
{
	close(slot->fd);
	slot->fd = -1;
	tally_operation(&s->tally);
}

/* The answer's end: all of the file must have come. */
static void take_end(struct state *s, struct slot *slot)
{
	if (slot->in_body && slot->at == s->bytes)
		count(s, slot);
	else
		snprintf(error, sizeof(error), "file %u ended after %zu of %zu bytes", slot->file,
			 slot->at, s->bytes);
}

static void take_body(struct state *s, struct slot *slot, const unsigned char *bytes, size_t size)
{
	static unsigned char expected[BUFFER_BYTES];

	if (size > s->bytes - slot->at) {
		snprintf(error, sizeof(error), "file %u is too long", slot->file);
		return;
	}
	file_bytes(slot->file, slot->at, expected, size);
	if (memcmp(bytes, expected, size))
		snprintf(error, sizeof(error), "wrong bytes in file %u after offset %zu",
			 slot->file, slot->at);
	slot->at += size;
}

/* Takes the answer's head, of which @bytes have just come; how many of them belong to it. */
static size_t take_head(struct slot *slot, const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (slot->head_bytes == HEAD_MAX - 1)
			break;
		slot->head[slot->head_bytes++] = (char)bytes[i];
		slot->head[slot->head_bytes] = '\0';
		if (slot->head_bytes < 4 ||
		    memcmp(slot->head + slot->head_bytes - 4, "\r\n\r\n", 4) != 0)
			continue;
		if (strncmp(slot->head, "HTTP/1.", 7) || strncmp(slot->head + 8, " 200 ", 5))
			break;
		slot->in_body = true;
		return i + 1;
	}
	if (slot->head_bytes == HEAD_MAX - 1 || strstr(slot->head, "\r\n\r\n"))
		snprintf(error, sizeof(error), "file %u: the server answered '%.40s'", slot->file,
			 strtok(slot->head, "\r\n"));
	return size;
}

static void receive(struct state *s, struct slot *slot)
{
	static unsigned char buffer[BUFFER_BYTES];
	ssize_t bytes = recv(slot->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	size_t head = 0;

	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes < 0) {
		snprintf(error, sizeof(error), "file %u: %s", slot->file, strerror(errno));
		return;
	}
	if (!bytes) {
		take_end(s, slot);
		return;
	}
	if (!slot->in_body)
		head = take_head(slot, buffer, (size_t)bytes);
	if (!error[0])
		take_body(s, slot, buffer + head, (size_t)bytes - head);
}

/* Gives work to slots that have none; returns when there may be more. */
static int64_t give_work(struct state *s, int64_t now)
{
	bool fetching = false;

	for (unsigned int i = 0; i < SLOTS && !s->tally.started_ns; i++) {
		if (s->slots[i].fd < 0 && s->next < s->files)
			ask(s, &s->slots[i], s->next++);
		fetching |= s->slots[i].fd >= 0;
	}
	if (fetching)
		return INT64_MAX;
	if (!s->tally.started_ns) {
		s->due_ns = now;
		tally_start(&s->tally, now);
		fputs("webload: filled\n", stderr);
	}
	if (s->due_ns < now - LATE_NS)
		s->due_ns = now;
	for (unsigned int i = 0; i < SLOTS && !error[0]; i++) {
		if (s->due_ns > now)
			return s->due_ns;
		if (s->slots[i].fd >= 0)
			continue;
		ask(s, &s->slots[i], (uint32_t)(mix64(s->random++) % s->files));
		s->due_ns += s->interval_ns;
	}
	return INT64_MAX; /* all have work: an answer will say when to go on */
}

static void run(struct state *s, int64_t end)
{
	s->polled[SLOTS] = (struct pollfd){ .fd = open_signals(), .events = POLLIN };
	while (!error[0] && !s->polled[SLOTS].revents) {
		int64_t now = now_ns(), next, wait;
		struct timespec timeout;

		if (now >= end)
			return;
		next = give_work(s, now);
		now = now_ns();
		next = next < end ? next : end;
		wait = next > now ? next - now : 0;
		timeout = (struct timespec){ .tv_sec = wait / NSEC_PER_SEC,
					     .tv_nsec = wait % NSEC_PER_SEC };
		for (unsigned int i = 0; i < SLOTS; i++)
			s->polled[i] = (struct pollfd){
				.fd = s->slots[i].fd,
				.events = s->slots[i].connecting ? POLLOUT : POLLIN,
			};
		if (ppoll(s->polled, SLOTS + 1, &timeout, NULL) < 0 && errno != EINTR)
			die(errno, "cannot poll");
		for (unsigned int i = 0; i < SLOTS && !error[0]; i++)
			if (s->polled[i].revents && s->slots[i].connecting)
				connected(&s->slots[i]);
			else if (s->polled[i].revents)
				receive(s, &s->slots[i]);
	}
}

static uint32_t number(const char *what, const char *text, unsigned long max)
{
	unsigned long value = strtoul(text, NULL, 10);

	if (!value || value > max)
		die(0, "%s must be from 1 to %lu, not '%s'", what, max, text);
	return (uint32_t)value;
}

int main(int argc, char **argv)
{
	static struct state s = { .random = 1 };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct options options;
	int failed;

	program_name = "webload";
	if (argc < 5 || (strcmp(argv[1], "make") && strcmp(argv[1], "load")))
		die(0, "usage: webload make FILES KIB FOLDER | "
		       "load FILES KIB HOST PORT SECONDS|0 [--interval-us N] [--json]");
	s.files = number("FILES", argv[2], FILES_MAX);
	s.bytes = (size_t)number("KIB", argv[3], KIB_MAX) << 10;
	if (!strcmp(argv[1], "make"))
		return make(s.files, s.bytes, argv[4]);
	options = parse_options(argc - 3, argv + 3, 10 * NSEC_PER_MSEC);
	s.interval_ns = options.interval_ns;
	failed = getaddrinfo(options.host, options.port, &hints, &s.server);
	if (failed)
		die(0, "%s port %s: %s", options.host, options.port, gai_strerror(failed));
	for (unsigned int i = 0; i < SLOTS; i++)
		s.slots[i].fd = -1;
	run(&s, options.duration_ns ? now_ns() + options.duration_ns : INT64_MAX);
	tally_print(&s.tally, error, options.json);
	return error[0] ? EXIT_FAILURE : EXIT_SUCCESS;
}
