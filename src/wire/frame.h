/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * frame.h - the unit of every connection: a header, a payload, a checksum.
 *
 *   offset  bytes
 *        0      4  magic "GWF1"
 *        4      2  type (enum gw_message)
 *        6      2  zero
 *        8      4  length of the payload
 *       12      4  zero
 *       16      8  argument, by type (round, chunk, outcome)
 *       24      8  XXH3-64 of the 24 bytes before and the payload
 *       32         payload
 *
 * Rules: a receiver checks magic, type, length (gw_message_max()) and
 * checksum before anybody sees the payload; any fault is -EPROTO and ends the
 * connection (invariant 10).
 */
#ifndef GW_FRAME_H
#define GW_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "messages.h"
#include "transport.h"

#define GW_FRAME_HEADER 32

/* Parts of a payload that gw_frame_send() takes at most. */
#define GW_FRAME_PARTS 1024

/** struct gw_frame - a received frame; the buffer is reused by the next. */
struct gw_frame {
	unsigned int type;
	uint64_t arg;
	size_t len;
	uint8_t *payload; /* owned; gw_frame_free() */
	size_t room;
};

void gw_frame_free(struct gw_frame *f);

/**
 * gw_frame_send() - send one frame.
 * @iov: payload in @n parts (at most GW_FRAME_PARTS), may be NULL if @n is 0
 *
 * Return: 0 or the transport's -errno.
 */
int gw_frame_send(struct gw_transport *t, unsigned int type, uint64_t arg, const struct iovec *iov,
		  int n);

/** gw_frame_send_buf() - the same with the payload in one piece. */
int gw_frame_send_buf(struct gw_transport *t, unsigned int type, uint64_t arg, const void *buf,
		      size_t len);

/**
 * gw_frame_recv() - receive one frame by @deadline (ns).
 *
 * Return: 0, -EPROTO for a frame that is not ours, or the transport's -errno.
 */
int gw_frame_recv(struct gw_transport *t, struct gw_frame *f, int64_t deadline);

/**
 * gw_frame_parse_header() - check a header on its own.
 * @header: GW_FRAME_HEADER bytes
 * @f: type, arg and len are set
 *
 * Return: 0 or -EPROTO.
 */
int gw_frame_parse_header(const uint8_t *header, struct gw_frame *f);

/** gw_frame_check() - compare the checksum of @header and payload. 0 or -EPROTO. */
int gw_frame_check(const uint8_t *header, const uint8_t *payload, size_t len);

#endif
