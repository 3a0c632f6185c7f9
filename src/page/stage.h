/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stage.h - one way to express a page on the wire.
 *
 * A stage is one file with both halves: encode takes pages out of a batch and
 * records them, decode turns a record back into pages. pipeline.c holds the
 * one table of stages, cheapest first; a page goes to the first stage that
 * claims it, and `raw` claims everything.
 *
 * The payload of a PAGES frame is a sequence of records:
 *
 *   offset  bytes
 *        0      1  stage (enum gw_stage_id)
 *        1      1  first page within the chunk
 *        2      1  number of pages - 1
 *        3      1  zero
 *        4      4  length of the body
 *        8         body, as the stage's file documents
 *
 * Rules: a batch holds one chunk's copy (F12), so encode may look at bytes as
 * often as it likes. Decode trusts nothing (invariant 10) and installs pages
 * only through the sink, which is dest/place.c.
 */
#ifndef GW_STAGE_H
#define GW_STAGE_H

#include <stdint.h>
#include <sys/uio.h>

#include "digest.h"
#include "page.h"

/* Numbers on the wire: never reused. */
enum gw_stage_id {
	GW_STAGE_ZERO = 1,
	GW_STAGE_RAW = 7,
	GW_STAGE_MAX = 8,
};

#define GW_RECORD_HEADER 8

/* A record and its body are two parts of the frame; at most one per page. */
#define GW_BATCH_PARTS (2 * GW_CHUNK_PAGES)

/** struct gw_stage_count - what one stage did, in pages and in bytes on the wire. */
struct gw_stage_count {
	uint64_t pages, bytes;
};

/**
 * struct gw_batch - due pages of one chunk on their way out; one per stream.
 * @chunk: chunk number
 * @bytes: GW_CHUNK_SIZE bytes; page i of the chunk is at i * GW_PAGE_SIZE
 * @left: pages no stage has claimed yet; their bytes are valid
 * @digest: digest of each page in @left, before any stage ran
 * @digests: what the destination holds, all pages
 * @held: the chunk's part of its table
 */
struct gw_batch {
	uint64_t chunk;
	uint8_t *bytes;
	struct gw_pageset left;
	struct gw_digest digest[GW_CHUNK_PAGES];
	struct gw_digests *digests;
	const struct gw_digest *held;
	/* the frame being made */
	struct iovec parts[GW_BATCH_PARTS];
	int nr_parts;
	uint8_t headers[GW_CHUNK_PAGES][GW_RECORD_HEADER];
	unsigned int nr_records;
	struct gw_stage_count count[GW_STAGE_MAX];
};

/** struct gw_sink - where decoded pages go; dest/place.c, or a test's array. */
struct gw_sink {
	/* Install @count pages from page number @page. */
	int (*place)(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes);
	/* Make @count pages zero. */
	int (*zero)(struct gw_sink *sink, uint64_t page, unsigned int count);
};

/** struct gw_record - one decoded record header and its body. */
struct gw_record {
	uint64_t page; /* number of its first page */
	unsigned int count;
	const uint8_t *body;
	size_t len;
};

struct gw_stage {
	enum gw_stage_id id;
	const char *name; /* key in the JSON's "pages" and "bytes" */
	/* Claim pages: record them and take them out of @batch->left. */
	void (*encode)(struct gw_batch *batch);
	/* 0, -EPROTO for a body that cannot be, or the sink's -errno. */
	int (*decode)(const struct gw_record *rec, struct gw_sink *sink);
};

/**
 * gw_batch_record() - add a record of @count pages from @first to the frame.
 * @body: stays owned by the caller and valid until the frame is sent; may be NULL
 *
 * Takes the pages out of @batch->left and counts them for @stage.
 */
void gw_batch_record(struct gw_batch *batch, const struct gw_stage *stage, unsigned int first,
		     unsigned int count, const void *body, size_t len);

extern const struct gw_stage gw_stage_zero;
extern const struct gw_stage gw_stage_raw;

#endif
