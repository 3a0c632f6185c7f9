// SPDX-License-Identifier: GPL-2.0-or-later
/* frame.c - frames on a transport; the format is in frame.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "codec.h"
#include "error.h"
#include "frame.h"
#include "xxh.h"

#define MAGIC	     0x31465747U /* "GWF1" */
#define CHECKED_HEAD 24

static uint64_t checksum(const uint8_t *header, const struct iovec *iov, int n)
{
	XXH3_state_t state;

	XXH3_INITSTATE(&state);
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, header, CHECKED_HEAD);
	for (int i = 0; i < n; i++)
		XXH3_64bits_update(&state, iov[i].iov_base, iov[i].iov_len);
	return XXH3_64bits_digest(&state);
}

void gw_frame_free(struct gw_frame *f)
{
	free(f->payload);
	f->payload = NULL;
	f->room = 0;
}

int gw_frame_send(struct gw_transport *t, unsigned int type, uint64_t arg, const struct iovec *iov,
		  int n)
{
	uint8_t header[GW_FRAME_HEADER] = { 0 };
	struct iovec parts[GW_FRAME_PARTS + 1];
	size_t len = 0;

	if (n > GW_FRAME_PARTS)
		return gw_fail(-EINVAL, "%s frame of %d parts", gw_message_name(type), n);
	for (int i = 0; i < n; i++) {
		parts[i + 1] = iov[i];
		len += iov[i].iov_len;
	}
	if ((long)len > gw_message_max(type))
		return gw_fail(-EMSGSIZE, "%s frame of %zu bytes", gw_message_name(type), len);
	gw_put32(header, MAGIC);
	gw_put16(header + 4, (uint16_t)type);
	gw_put32(header + 8, (uint32_t)len);
	gw_put64(header + 16, arg);
	gw_put64(header + 24, checksum(header, iov, n));
	parts[0] = (struct iovec){ header, sizeof(header) };
	return t->ops->send(t, parts, n + 1);
}

int gw_frame_send_buf(struct gw_transport *t, unsigned int type, uint64_t arg, const void *buf,
		      size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };

	return gw_frame_send(t, type, arg, &iov, len ? 1 : 0);
}

int gw_frame_parse_header(const uint8_t *header, struct gw_frame *f)
{
	long max;

	if (gw_get32(header) != MAGIC)
		return gw_fail(-EPROTO, "the peer does not speak Godwit's protocol");
	f->type = gw_get16(header + 4);
	f->len = gw_get32(header + 8);
	f->arg = gw_get64(header + 16);
	max = gw_message_max(f->type);
	if (max < 0 || gw_get16(header + 6) || gw_get32(header + 12))
		return gw_fail(-EPROTO, "the peer sent an unknown frame (type %u)", f->type);
	if ((long)f->len > max)
		return gw_fail(-EPROTO, "the peer sent a %s frame of %zu bytes, more than %ld",
			       gw_message_name(f->type), f->len, max);
	return 0;
}

int gw_frame_check(const uint8_t *header, const uint8_t *payload, size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)payload, len };

	if (checksum(header, &iov, len ? 1 : 0) != gw_get64(header + 24))
		return gw_fail(-EPROTO, "a %s frame arrived damaged (checksum)",
			       gw_message_name(gw_get16(header + 4)));
	return 0;
}

int gw_frame_recv(struct gw_transport *t, struct gw_frame *f, int64_t deadline)
{
	uint8_t header[GW_FRAME_HEADER];
	int rc = t->ops->recv(t, header, sizeof(header), deadline);

	if (!rc)
		rc = gw_frame_parse_header(header, f);
	if (rc)
		return rc;
	if (f->len > f->room) {
		uint8_t *bigger = realloc(f->payload, f->len);

		if (!bigger)
			return gw_fail(-ENOMEM, "no memory for a frame of %zu bytes", f->len);
		f->payload = bigger;
		f->room = f->len;
	}
	if (f->len)
		rc = t->ops->recv(t, f->payload, f->len, deadline);
	return rc ? rc : gw_frame_check(header, f->payload, f->len);
}
