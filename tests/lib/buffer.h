/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * buffer.h - a transport over memory: what is sent is kept, what is received
 * was put there. For tests of whatever speaks through a transport.
 */
#ifndef TEST_BUFFER_H
#define TEST_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "transport.h"

struct buffer {
	struct gw_transport t;
	uint8_t *bytes; /* owned; buffer_free() */
	size_t len, room;
	size_t at; /* next byte to be received; at the end it is -ECONNRESET */
};

/** buffer_init() - an empty buffer whose transport is @b->t. */
void buffer_init(struct buffer *b);
void buffer_free(struct buffer *b);

/** buffer_put() - append bytes to be received. */
void buffer_put(struct buffer *b, const void *bytes, size_t len);

#endif
