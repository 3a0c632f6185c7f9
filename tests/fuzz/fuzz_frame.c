// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_frame.c - bytes off the network into gw_frame_recv() and gw_open_decode().
 *
 * The checksum stops nearly all random input, so it is mended for every other
 * input: what lies behind it must hold as well.
 */
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "error.h"
#include "frame.h"
#include "fuzz.h"
#include "xxh.h"

struct feed {
	struct gw_transport t;
	const uint8_t *at;
	size_t left;
};

static int feed_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct feed *f = (struct feed *)t;

	(void)deadline;
	if (len > f->left)
		return gw_fail(-ECONNRESET, "the input ends");
	memcpy(buf, f->at, len);
	f->at += len;
	f->left -= len;
	return 0;
}

static const struct gw_transport_ops ops = { .recv = feed_recv };

static void mend(uint8_t *frame, size_t size)
{
	size_t len = size - GW_FRAME_HEADER;
	XXH3_state_t state;

	gw_put32(frame, 0x31465747U);
	frame[5] = frame[6] = frame[7] = 0;
	frame[4] %= GW_MSG_COUNT + 1;
	gw_put32(frame + 8, (uint32_t)len);
	gw_put32(frame + 12, 0);
	XXH3_INITSTATE(&state);
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, frame, 24);
	XXH3_64bits_update(&state, frame + GW_FRAME_HEADER, len);
	gw_put64(frame + 24, XXH3_64bits_digest(&state));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);
	struct feed feed = { .t.ops = &ops, .at = copy, .left = size };
	struct gw_frame f = { 0 };
	struct gw_open open;
	uint16_t version;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (size >= GW_FRAME_HEADER && data[0] & 1)
		mend(copy, size);
	while (!gw_frame_recv(&feed.t, &f, 0)) {
		if ((long)f.len > gw_message_max(f.type))
			abort();
		if (f.type == GW_MSG_OPEN && !gw_open_decode(f.payload, f.len, &open, &version) &&
		    (version < GW_VERSION_MIN || version > GW_VERSION))
			abort();
	}
	gw_frame_free(&f);
	free(copy);
	return 0;
}
