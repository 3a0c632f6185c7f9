// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_index.c - an index's file, damaged or of somebody else's making, to gw_index_open().
 *
 *   1 byte   bits: 1 the checksum of the head is to be put right, 2 those of the entries,
 *            4 those of the digests, so that mutations reach what is behind them;
 *            8 the first segment of the image is a hole
 *   then     the file from its beginning; it is zero behind that
 *
 * Whatever it says, blocks that are found are of the image; a refresh comes to an end, and the next
 * one has nothing to do; and once the image has changed all of it is read, and found.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fuzz.h"
#include "index_internal.h"
#include "io.h"

#define SEGMENTS   2UL
#define BLOCKS	   (GW_SEGMENT_BLOCKS + 5) /* the last segment is short */
#define SIZE	   (BLOCKS * GW_PAGE_SIZE)
#define DIGESTS_AT GW_PAGE_SIZE
#define FILE_SIZE  (DIGESTS_AT + SEGMENTS * GW_SEGMENT_DIGESTS)

static uint8_t image[SIZE];
static uint64_t data_from; /* a hole before it */
static union {
	uint8_t bytes[FILE_SIZE];
	struct {
		struct gw_index_head head;
		struct gw_index_segment segments[SEGMENTS];
	};
} file;

static int image_read(void *env, void *buf, size_t len, uint64_t offset)
{
	(void)env;
	if (len > SIZE || offset > SIZE - len)
		abort();
	memcpy(buf, image + offset, len);
	return 0;
}

static int64_t image_data(void *env, uint64_t offset)
{
	(void)env;
	if (offset >= SIZE)
		abort();
	return (int64_t)(offset > data_from ? offset : data_from);
}

static bool never(void *env)
{
	(void)env;
	return false;
}

static void make_image(bool hole)
{
	data_from = hole ? GW_SEGMENT_SIZE : 0;
	for (size_t b = 0; b < BLOCKS; b++)
		image[b * GW_PAGE_SIZE] = b * GW_PAGE_SIZE < data_from ? 0 : 1 + (uint8_t)(b % 200);
}

static void put_right(uint8_t bits)
{
	const uint64_t *digests = (const uint64_t *)(file.bytes + DIGESTS_AT);

	for (size_t s = 0; s < SEGMENTS; s++) {
		struct gw_index_segment *entry = &file.segments[s];

		if (bits & 4)
			entry->digests = gw_index_digests_sum(digests + s * GW_SEGMENT_BLOCKS);
		if (bits & 2)
			entry->sum = gw_index_segment_sum(entry, s);
	}
	if (bits & 1)
		file.head.sum = gw_index_head_sum(&file.head);
}

static void check(struct gw_index *x, bool all)
{
	for (uint32_t b = 0; b < BLOCKS; b++) {
		const uint64_t digest = gw_index_digest(x, image + b * GW_PAGE_SIZE);
		const uint32_t at = gw_index_find(x, digest, b);

		if (at != GW_INDEX_NONE && at >= BLOCKS)
			abort();
		if (all && at != (digest ? b : GW_INDEX_NONE))
			abort();
	}
	for (size_t at = DIGESTS_AT; at < FILE_SIZE; at += 8) {
		const uint32_t b = gw_index_find(x, *(uint64_t *)(file.bytes + at), GW_INDEX_NONE);

		if (b != GW_INDEX_NONE && b >= BLOCKS)
			abort();
	}
}

/* Return: segments that were not known at @stamp. */
static size_t refresh(struct gw_index *x, uint64_t stamp)
{
	static const struct gw_index_source source = {
		.read = image_read,
		.data = image_data,
		.cancelled = never,
	};
	struct gw_index_refreshed done;

	if (gw_index_refresh(x, &source, stamp, GW_FOREVER, &done) || done.left || done.failed ||
	    gw_index_prepare(x))
		abort();
	return done.read + done.holes;
}

static void use(const char *path, uint32_t refused)
{
	struct gw_index *x;

	if (gw_index_open(path, SIZE, &x) || gw_index_prepare(x))
		abort();
	check(x, false);
	gw_index_stale(x, refused);
	refresh(x, 1);
	check(x, false);
	if (refresh(x, 1) || refresh(x, 2) != SEGMENTS)
		abort();
	check(x, true);
	gw_index_close(x);
	if (gw_index_open(path, SIZE, &x) || refresh(x, 2))
		abort();
	check(x, true);
	gw_index_close(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/dev/shm/gw-fuzz-XXXXXX";
	gw_autofree char *path = NULL;
	gw_autofd int fd = -1;

	if (!size || size > FILE_SIZE || !mkdtemp(folder))
		return 0;
	path = gw_path("%s/index", folder);
	make_image(*data & 8);
	memset(&file, 0, sizeof(file));
	memcpy(file.bytes, data + 1, size - 1);
	put_right(*data);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || gw_write_all(fd, &file, sizeof(file)))
		abort();
	use(path, *data);
	if (gw_remove_tree(folder))
		abort();
	return 0;
}
