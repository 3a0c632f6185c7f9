// SPDX-License-Identifier: GPL-2.0-or-later
/* agent.c - the host's side of a conversation with a guest's agent; see agent.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "abi.h"
#include "agent.h"
#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "page.h"

#define MAGIC_LEN 8UL
#define FRAME_LEN sizeof(struct gw_agent_frame)
#define PAIR_LEN  sizeof(struct gw_cache_pair)

/* Disks of one stream. */
#define DISKS_MAX 4096U

struct conversation {
	int fd;
	int64_t deadline;
	uint64_t id, pages_max;
	const struct gw_agent_hears *to;
	/* Bytes that were read and are not used. */
	uint8_t buffer[GW_AGENT_FRAME_MAX];
	size_t at, len;
	/* The stream: its header is behind us; pairs of a disk's text that are due; that disk. */
	bool begun;
	unsigned int texts_left;
	unsigned int disk;
	uint64_t sectors;
	char text[GW_AGENT_TEXT_MAX + 1];
	size_t text_len;
	uint8_t pair[PAIR_LEN]; /* cut between two pieces */
	size_t pair_len;
	struct gw_agent_told told;
};

/* The time to wait now, in ms, rounded up. */
static int left_ms(const struct conversation *c)
{
	const int64_t ns = c->deadline - gw_now();

	return ns <= 0 ? 0
		       : (int)((ns + GW_MS - 1) / GW_MS < 1000 ? (ns + GW_MS - 1) / GW_MS : 1000);
}

static int too_late(void)
{
	return gw_fail(-ETIMEDOUT, "the guest's agent does not answer in time");
}

static int await(const struct conversation *c, short events)
{
	struct pollfd pfd = { .fd = c->fd, .events = events };

	for (;;) {
		const int ms = left_ms(c);
		const int n = poll(&pfd, 1, ms);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return gw_fail(-errno, "poll: %s", strerror(errno));
		if (!ms)
			return too_late();
	}
}

static int say(const struct conversation *c, const void *buf, size_t len)
{
	const uint8_t *at = buf;

	while (len) {
		const ssize_t n = send(c->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rc = 0;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return gw_fail(-errno, "the agent's port: %s", strerror(errno));
		if (n < 0)
			rc = await(c, POLLOUT);
		if (rc)
			return rc;
		at += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* More bytes behind those that are there; at least one. */
static int hear_more(struct conversation *c)
{
	if (c->at) {
		memmove(c->buffer, c->buffer + c->at, c->len - c->at);
		c->len -= c->at;
		c->at = 0;
	}
	for (;;) {
		const ssize_t n = recv(c->fd, c->buffer + c->len, sizeof(c->buffer) - c->len,
				       MSG_DONTWAIT);
		int rc;

		if (n > 0) {
			c->len += (size_t)n;
			return 0;
		}
		if (!n)
			return gw_fail(-ECONNRESET, "the agent's port was closed");
		if (errno != EAGAIN && errno != EINTR)
			return gw_fail(-errno, "the agent's port: %s", strerror(errno));
		rc = await(c, POLLIN);
		if (rc)
			return rc;
	}
}

/* @len bytes in a row, at @c->at. */
static int hear(struct conversation *c, size_t len)
{
	int rc = 0;

	while (!rc && c->len - c->at < len)
		rc = hear_more(c);
	return rc;
}

/* Skip to the next frame of our answer, whatever is before it. */
static int find_frame(struct conversation *c)
{
	uint8_t ours[MAGIC_LEN + 8];
	int rc;

	/* NOLINTNEXTLINE(bugprone-not-null-terminated-result): eight bytes, and no text */
	memcpy(ours, GW_AGENT_SAY, MAGIC_LEN);
	gw_put64(ours + MAGIC_LEN, c->id);
	for (;;) {
		const uint8_t *found;

		/* Also of one that never stops talking. */
		rc = left_ms(c) ? hear(c, FRAME_LEN) : too_late();
		if (rc)
			return rc;
		found = memmem(c->buffer + c->at, c->len - c->at, ours, sizeof(ours));
		if (found) {
			c->at = (size_t)(found - c->buffer);
			return hear(c, FRAME_LEN);
		}
		/* Its beginning may be there. */
		c->at = c->len - (sizeof(ours) - 1);
	}
}

static int end_text(struct conversation *c)
{
	c->text[c->text_len] = '\0';
	return c->to->disk(c->to->arg, c->disk, c->text, c->sectors);
}

static int take_text(struct conversation *c, const uint8_t pair[PAIR_LEN])
{
	if (c->text_len + PAIR_LEN <= GW_AGENT_TEXT_MAX)
		memcpy(c->text + c->text_len, pair, PAIR_LEN);
	c->text_len += c->text_len + PAIR_LEN <= GW_AGENT_TEXT_MAX ? PAIR_LEN : 0;
	return --c->texts_left ? 0 : end_text(c);
}

static int take_pair(struct conversation *c, const uint8_t pair[PAIR_LEN])
{
	const uint64_t first = gw_get64(pair), second = gw_get64(pair + 8);
	const unsigned int high = (unsigned int)(first >> GW_CACHE_LOW_BITS);
	const unsigned int disk = (unsigned int)(second >> GW_CACHE_LOW_BITS);

	if (c->texts_left)
		return take_text(c, pair);
	if (!c->begun) {
		c->begun = true;
		return memcmp(pair, GW_CACHE_MAGIC, MAGIC_LEN) == 0 &&
				       gw_get32(pair + 8) == GW_PAGE_SIZE
			       ? 0
			       : gw_fail(-EPROTO, "the guest's agent tells of other pages than "
						  "those of 4 KiB");
	}
	if ((first & GW_CACHE_LOW) == GW_CACHE_LOW) {
		if (disk >= DISKS_MAX)
			return gw_fail(-EPROTO, "the guest's agent tells of too many disks");
		c->disk = disk;
		c->sectors = second & GW_CACHE_LOW;
		c->text_len = 0;
		c->texts_left = high;
		return high ? 0 : end_text(c);
	}
	c->told.pages += high + 1ULL;
	/* Runs may overlap where pages have moved. */
	if (++c->told.runs > c->pages_max || c->told.pages > 2 * c->pages_max)
		return gw_fail(-EPROTO, "the guest's agent tells of more than the VM's memory");
	return c->to->run(c->to->arg, first & GW_CACHE_LOW, high + 1ULL, disk,
			  second & GW_CACHE_LOW);
}

static int take_piece(struct conversation *c, const uint8_t *bytes, size_t len)
{
	int rc = 0;

	while (!rc && len) {
		const size_t n = len < PAIR_LEN - c->pair_len ? len : PAIR_LEN - c->pair_len;

		memcpy(c->pair + c->pair_len, bytes, n);
		c->pair_len += n;
		bytes += n;
		len -= n;
		if (c->pair_len < PAIR_LEN)
			break;
		c->pair_len = 0;
		rc = take_pair(c, c->pair);
	}
	return rc;
}

static int take_end(struct conversation *c, const uint8_t *body, size_t len)
{
	if (len != sizeof(struct gw_agent_end) || !c->begun || c->pair_len || c->texts_left ||
	    gw_get64(body) != c->told.runs || gw_get64(body + 8) != c->told.pages)
		return gw_fail(-EPROTO, "the guest's agent has not said all that it says");
	c->told.module = gw_get32(body + 16) == GW_AGENT_MODULE;
	return 0;
}

static int refused(const uint8_t *body, size_t len, unsigned int version)
{
	char text[200];

	len = len < sizeof(text) - 1 ? len : sizeof(text) - 1;
	for (size_t i = 0; i < len; i++) /* it may go to a terminal */
		text[i] = body[i] < ' ' || body[i] > '~' ? '?' : (char)body[i];
	text[len] = '\0';
	return gw_fail(-ENOTSUP, "the guest's agent (version %u of its protocol): %s", version,
		       text);
}

/* One frame of the answer. 1: it was the last; 0; -errno. */
static int take_frame(struct conversation *c)
{
	const uint8_t *frame;
	uint32_t version, kind, len;
	int rc = find_frame(c);

	if (rc)
		return rc;
	frame = c->buffer + c->at;
	version = gw_get32(frame + 16);
	kind = gw_get32(frame + 20);
	len = gw_get32(frame + 24);
	if (len > GW_AGENT_FRAME_MAX - FRAME_LEN)
		return gw_fail(-EPROTO, "the guest's agent sends a frame of %u bytes", len);
	rc = hear(c, FRAME_LEN + len);
	if (rc)
		return rc;
	frame = c->buffer + c->at;
	c->at += FRAME_LEN + len;
	frame += FRAME_LEN;
	switch (kind) {
	case GW_AGENT_PIECE:
		return len ? take_piece(c, frame, len)
			   : gw_fail(-EPROTO, "the guest's agent sends a frame of nothing");
	case GW_AGENT_END:
		rc = take_end(c, frame, len);
		return rc ? rc : 1;
	case GW_AGENT_ERROR:
		return refused(frame, len, version);
	default:
		return gw_fail(-EPROTO, "the guest's agent sends a frame of kind %u", kind);
	}
}

int gw_agent_ask(int fd, int64_t deadline, uint64_t pages_max, const struct gw_agent_hears *to,
		 struct gw_agent_told *told)
{
	gw_autofree struct conversation *c = calloc(1, sizeof(*c));
	uint8_t request[sizeof(struct gw_agent_request)] = { 0 };
	int rc;

	if (!c)
		return gw_fail(-ENOMEM, "no memory to ask the guest's agent");
	c->fd = fd;
	c->deadline = deadline;
	c->pages_max = pages_max;
	c->to = to;
	if (getrandom(&c->id, sizeof(c->id), 0) != (ssize_t)sizeof(c->id))
		return gw_fail(-errno, "getrandom: %s", strerror(errno));
	/* NOLINTNEXTLINE(bugprone-not-null-terminated-result): likewise */
	memcpy(request, GW_AGENT_ASK, MAGIC_LEN);
	gw_put64(request + 8, c->id);
	gw_put32(request + 16, GW_AGENT_VERSION);
	gw_put32(request + 20, GW_AGENT_REPORT);
	rc = say(c, request, sizeof(request));
	while (!rc)
		rc = take_frame(c);
	*told = c->told;
	return rc < 0 ? rc : 0;
}
