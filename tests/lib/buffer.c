// SPDX-License-Identifier: GPL-2.0-or-later
/* buffer.c - a transport over memory; see buffer.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "error.h"

void buffer_put(struct buffer *b, const void *bytes, size_t len)
{
	if (b->len + len > b->room) {
		b->room = (b->len + len) * 2;
		b->bytes = realloc(b->bytes, b->room);
		if (!b->bytes)
			abort();
	}
	if (len)
		memcpy(b->bytes + b->len, bytes, len);
	b->len += len;
}

static int buffer_send(struct gw_transport *t, struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++) {
		buffer_put((struct buffer *)t, iov[i].iov_base, iov[i].iov_len);
		t->sent += iov[i].iov_len;
	}
	return 0;
}

static int buffer_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct buffer *b = (struct buffer *)t;

	(void)deadline;
	if (len > b->len - b->at)
		return gw_fail(-ECONNRESET, "the buffer ends");
	memcpy(buf, b->bytes + b->at, len);
	b->at += len;
	t->received += len;
	return 0;
}

static void buffer_end(struct gw_transport *t)
{
	((struct buffer *)t)->at = ((struct buffer *)t)->len;
}

void buffer_init(struct buffer *b)
{
	static const struct gw_transport_ops ops = {
		.send = buffer_send,
		.recv = buffer_recv,
		.shutdown = buffer_end,
		.close = buffer_end,
	};

	memset(b, 0, sizeof(*b));
	b->t.ops = &ops;
	b->t.poll_fd = -1;
	b->t.wake_fd = -1;
}

void buffer_free(struct buffer *b)
{
	free(b->bytes);
	b->bytes = NULL;
}
