/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * codec.h - little-endian integers in byte buffers, and a reader that cannot
 * run past the end of what a peer sent (invariant 10).
 */
#ifndef GW_CODEC_H
#define GW_CODEC_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void gw_put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, 2);
}

static inline void gw_put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, 4);
}

static inline void gw_put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, 8);
}

static inline uint16_t gw_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return le16toh(v);
}

static inline uint32_t gw_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

static inline uint64_t gw_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return le64toh(v);
}

/** struct gw_reader - the unread rest of a payload. */
struct gw_reader {
	const uint8_t *at;
	size_t left;
};

/**
 * gw_take() - the next @len bytes, or NULL if fewer are left.
 * The bytes stay owned by the payload.
 */
static inline const uint8_t *gw_take(struct gw_reader *r, size_t len)
{
	const uint8_t *p = r->at;

	if (len > r->left)
		return NULL;
	r->at += len;
	r->left -= len;
	return p;
}

#endif
