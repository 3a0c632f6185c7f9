// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_compress.c - bodies of compressed records into stage_compress.c's decode().
 *
 * Eight bytes choose what happens to the rest:
 *
 *	0     bit 0: zstd, else LZ4; bit 1: the rest is content, to be compressed
 *	      here and then damaged, so that damage gets past the frames' headers
 *	1     number of pages - 1
 *	2, 3  which byte of the compressed content to damage
 *	4     how; 0: not at all, and the content must come back
 *
 * The decoder lives on from input to input, as a stream's does.
 */
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <zstd.h>

#include "codec.h"
#include "fuzz.h"
#include "pipeline.h"

#define HEAD	   8
#define MADE_PAGES 8
#define MAP	   32

static uint8_t memory[GW_CHUNK_SIZE];
static unsigned int placed;
static volatile uint8_t seen;

static int place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	(void)sink;
	if (!count || page + count > GW_CHUNK_PAGES)
		abort();
	memcpy(memory + page * GW_PAGE_SIZE, bytes, count * GW_PAGE_SIZE);
	for (size_t i = 0; i < count * GW_PAGE_SIZE; i += 64)
		seen ^= bytes[i];
	placed += count;
	return 0;
}

static struct gw_sink sink = { .place = place };

/* A record over @count pages with the body @body, in memory of its own so that ASan sees its end.
 */
static int decode(struct gw_decoder *d, unsigned int flag, unsigned int count, const uint8_t *body,
		  size_t len)
{
	uint8_t *payload = malloc(GW_RECORD_HEADER + len);
	int rc;

	if (!payload)
		return -ENOMEM;
	payload[0] = GW_STAGE_COMPRESS;
	payload[1] = 0;
	payload[2] = (uint8_t)(count - 1);
	payload[3] = (uint8_t)flag;
	gw_put32(payload + 4, (uint32_t)len);
	if (len)
		memcpy(payload + GW_RECORD_HEADER, body, len);
	placed = 0;
	rc = gw_pipeline_decode(d, 0, payload, GW_RECORD_HEADER + len);
	if (rc > 0 || (rc && placed) || placed > count)
		abort();
	free(payload);
	return rc;
}

static void make_and_damage(struct gw_decoder *d, const uint8_t *data, size_t size)
{
	static uint8_t content[MADE_PAGES * GW_PAGE_SIZE];
	static uint8_t body[MAP + 2 * sizeof(content)];
	const unsigned int count = data[1] % MADE_PAGES + 1;
	const size_t len = count * GW_PAGE_SIZE, room = sizeof(body) - MAP;
	size_t made;

	for (size_t i = 0; i < len; i++)
		content[i] = size > HEAD ? data[HEAD + i % (size - HEAD)] : 0;
	body[0] = (uint8_t)(0xff >> (8 - count));
	made = data[0] & 1 ? ZSTD_compress(body + 1, room, content, len, 1)
			   : (size_t)LZ4_compress_default((const char *)content, (char *)body + 1,
							  (int)len, (int)room);
	body[1 + (data[2] | data[3] << 8) % made] ^= data[4];
	if (!decode(d, data[0] & 1 ? 2 : 1, count, body, 1 + made)) {
		if (placed != count || (!data[4] && memcmp(memory, content, len) != 0))
			abort();
	} else if (!data[4]) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gw_decoder d;

	if (size < HEAD)
		return 0;
	if (!d.sink)
		gw_decoder_init(&d, &sink, GW_CHUNK_PAGES);
	if (data[0] & 2)
		make_and_damage(&d, data, size);
	else
		decode(&d, data[0] & 1 ? 2 : 1, data[1] + 1U, data + HEAD, size - HEAD);
	return 0;
}
