/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stage.h - one way to express a page on the wire.
 *
 * A stage is one file with both halves: encode takes pages out of a batch and
 * records them, decode turns a record back into pages. pipeline.c holds the
 * one table of stages, cheapest first; a page goes to the first stage that
 * claims it, and `raw` claims everything.
 *
 *   encoder   one per migration: options, what the destination holds
 *   batch     one per stream: the chunk on its way out
 *   decoder   one per stream at the destination
 *
 * Each of the three has a slot per stage for what that stage keeps there.
 *
 * The payload of a PAGES frame is a sequence of records:
 *
 *   offset  bytes
 *        0      1  stage (enum gw_stage_id)
 *        1      1  first page within the chunk
 *        2      1  number of pages - 1
 *        3      1  flags, as the stage's file documents; else zero
 *        4      4  length of the body
 *        8         body, as the stage's file documents
 *
 * Rules: a batch holds one chunk's copy (F12), so encode may look at bytes as
 * often as it likes. Decode trusts nothing (invariant 10) and installs pages
 * only through the sink, which is dest/place.c.
 *
 * A record may refer only to pages that the destination surely holds when it
 * decodes (invariant 11): those acknowledged at a barrier and not due in this
 * round, and those that went out on the same stream earlier in it, because a
 * stream keeps its order and a page travels at most once a round; but none that went by
 * what a disk holds, which nobody is sure of before the round is over.
 */
#ifndef GW_STAGE_H
#define GW_STAGE_H

#include <stdint.h>
#include <sys/uio.h>

#include "digest.h"
#include "hash.h"
#include "hints.h"
#include "page.h"

/* Numbers on the wire: never reused. */
enum gw_stage_id {
	GW_STAGE_ZERO = 1,
	GW_STAGE_SAME = 2,
	GW_STAGE_TELEPORT = 3,
	GW_STAGE_DUPLICATE = 4,
	GW_STAGE_DELTA = 5,
	GW_STAGE_COMPRESS = 6,
	GW_STAGE_RAW = 7,
	GW_STAGE_PATCH = 8,
	GW_STAGE_MAX = 9,
};

/* What a peer of version 1 of the protocol can read: it tells no list of names. */
#define GW_STAGES_FIRST                                                          \
	(1U << GW_STAGE_ZERO | 1U << GW_STAGE_DUPLICATE | 1U << GW_STAGE_DELTA | \
	 1U << GW_STAGE_COMPRESS | 1U << GW_STAGE_RAW | 1U << GW_STAGE_PATCH)

#define GW_RECORD_HEADER 8

/* A record and its body are two parts of the frame; at most one per page. */
#define GW_BATCH_PARTS (2 * GW_CHUNK_PAGES)

enum gw_compress {
	GW_COMPRESS_NONE,
	GW_COMPRESS_AUTO,
	GW_COMPRESS_LZ4,
	GW_COMPRESS_ZSTD,
};

/** struct gw_page_options - how a migration expresses its pages; godwit-migrate's flags. */
struct gw_page_options {
	enum gw_hash hash;
	const struct gw_key *key; /* the VM's, for GW_HASH_GMAC and patches */
	enum gw_compress compress;
	uint64_t delta_cache; /* bytes of sent pages that the source keeps for delta; 0: none */
	bool teleports;	      /* somebody may know what disks hold */
	uint32_t off;	      /* a bit per enum gw_stage_id: never use that stage */
};

#define GW_DELTA_CACHE_DEFAULT (64ULL << 20)

/** gw_compress_parse() - what --compress spells. 0, or -EINVAL with a message. */
int gw_compress_parse(const char *name, enum gw_compress *compress);

/** struct gw_stage_count - what one stage did, in pages and in bytes on the wire. */
struct gw_stage_count {
	uint64_t pages, bytes;
};

/**
 * struct gw_encoder - what all streams of a migration share.
 * @held: what the destination holds
 * @seen: of each page that waited because it was written again, 32 bits of the
 * digest it had then; 0 elsewhere
 * @round: number of this round, from 1
 * @due: pages of this round; no other page of the destination changes in it
 * @paging: the guest waits for its pages: each gets a record, and several threads may be
 * at different pages of one chunk
 * @beside: table and @seen are another encoder's
 * @reuses: these are the first rounds, and the table began with what a kept image
 * holds, not with zeros: what turns out to be the same has been reused
 * @kept: of an image that nobody has compared: the digests that its pages should have; NULL:
 * there is none. @may_hold: pages of it that can be told by these, each once; @told: those
 * that were (decision 29)
 * @hints: of what disks hold, for this round, or for post-copy; NULL: no page goes by them.
 * @unsure: those that went by them in it; no bits: none ever do
 * @now, @env: the clock, in ns: real, or the simulation's
 * @stage: each stage's own
 */
struct gw_encoder {
	struct gw_page_options options;
	struct gw_digests held;
	uint32_t *seen;
	uint64_t round;
	const struct gw_bitmap *due;
	bool paging, reuses, beside;
	const struct gw_digest *kept;
	struct gw_bitmap may_hold, told;
	struct gw_hints *hints;
	struct gw_bitmap unsure;
	int64_t (*now)(void *env);
	void *env;
	void *stage[GW_STAGE_MAX];
};

/**
 * struct gw_batch - due pages of one chunk on their way out; one per stream.
 * @stream: index of its stream
 * @chunk: chunk number
 * @bytes: GW_CHUNK_SIZE bytes; page i of the chunk is at i * GW_PAGE_SIZE
 * @off: a bit per enum gw_stage_id: not for these pages; the caller's
 * @left: pages no stage has claimed yet; their bytes are valid
 * @again: of these, written again since the scan: due next round anyway
 * @redirtied: of these, left for that round
 * @reused: pages that need no record because the destination kept them
 * @doubted: pages that the destination may turn out not to have, in post-copy, where it is
 * told of them by digests alone: others may send them anew once the table is what it is to be
 * @digest: digest of each page in @left, before any stage ran
 * @held: the chunk's part of the encoder's table: still what it was before this batch
 */
struct gw_batch {
	struct gw_encoder *encoder;
	unsigned int stream;
	uint64_t chunk;
	uint8_t *bytes;
	uint32_t off;
	struct gw_pageset left, again;
	unsigned int redirtied, reused;
	struct {
		struct gw_pageset told, unsure; /* as those of the encoder */
	} doubted;
	struct gw_digest digest[GW_CHUNK_PAGES];
	const struct gw_digest *held;
	void *stage[GW_STAGE_MAX];
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
	/* Copy out @count pages as they are now, all in one chunk. */
	int (*read)(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes);
	/* @count missing pages are right as they lie there. NULL: no page is missing (pre-copy). */
	int (*same)(struct gw_sink *sink, uint64_t page, unsigned int count);
	/*
	 * They are if they have these digests, of 16 bytes each; otherwise somebody else tells
	 * the source. NULL: nobody can look.
	 */
	int (*check)(struct gw_sink *sink, uint64_t page, unsigned int count,
		     const uint8_t *digests);
	/*
	 * They are what a disk holds at @at, if that has these digests; otherwise somebody else
	 * tells the source. NULL: no disk can be read.
	 */
	int (*fetch)(struct gw_sink *sink, uint64_t page, unsigned int count, struct gw_hint at,
		     const uint8_t *digests);
};

/** struct gw_decoder - one stream's way in. */
struct gw_decoder {
	struct gw_sink *sink;
	uint64_t nr_pages; /* that the VM has */
	void *stage[GW_STAGE_MAX];
};

/** struct gw_record - one decoded record header and its body. */
struct gw_record {
	uint64_t page; /* number of its first page; all of its pages exist, in one chunk */
	unsigned int count;
	uint8_t flags;
	const uint8_t *body;
	size_t len;
};

struct gw_stage {
	enum gw_stage_id id;
	const char *name; /* key in the JSON's "pages" and "bytes" */
	/* What the stage keeps in the encoder, or in a batch. 0 or -errno; NULL: nothing. */
	int (*open)(struct gw_encoder *e);
	void (*close)(struct gw_encoder *e);
	int (*open_batch)(struct gw_batch *batch);
	void (*close_batch)(struct gw_batch *batch);
	/*
	 * Claim pages: record them and take them out of @batch->left; or only take them
	 * out, and record them in finish.
	 */
	void (*encode)(struct gw_batch *batch);
	/* Every page is claimed: record those whose record must come last; may be NULL. */
	void (*finish)(struct gw_batch *batch);
	/* The pages in @all are in the frame, whoever claimed them; may be NULL. */
	void (*remember)(struct gw_batch *batch, const struct gw_pageset *all);
	/* The frame of @bytes was handed to the network, which took @ns; may be NULL. */
	void (*sent)(struct gw_batch *batch, size_t bytes, int64_t ns);
	/*
	 * 0, -EPROTO for a body that cannot be, or the sink's -errno. What it keeps in
	 * the decoder it makes on first use, and close_decoder frees.
	 */
	int (*decode)(const struct gw_record *rec, struct gw_decoder *d);
	void (*close_decoder)(struct gw_decoder *d);
};

/**
 * gw_batch_record() - add a record for the pages in @pages to the frame.
 * @pages: at least one, in @batch->left or taken out of it by the stage; the record
 *         spans from the first to the last
 * @body: stays owned by the caller and valid until the frame is sent; may be NULL
 *
 * Takes the pages out of @batch->left and counts them for @stage. A stage whose
 * body does not say which pages of the span it holds must pass pages in a row.
 */
void gw_batch_record(struct gw_batch *batch, const struct gw_stage *stage, uint8_t flags,
		     const struct gw_pageset *pages, const void *body, size_t len);

/** gw_batch_skip() - @pages need no record: the destination holds them. Counted for @stage. */
void gw_batch_skip(struct gw_batch *batch, const struct gw_stage *stage,
		   const struct gw_pageset *pages);

/** gw_batch_leave() - the same without counting them. Return: how many they are. */
unsigned int gw_batch_leave(struct gw_batch *batch, const struct gw_pageset *pages);

extern const struct gw_stage gw_stage_zero;
extern const struct gw_stage gw_stage_same;
extern const struct gw_stage gw_stage_teleport;
extern const struct gw_stage gw_stage_duplicate;
extern const struct gw_stage gw_stage_patch;
extern const struct gw_stage gw_stage_delta;
extern const struct gw_stage gw_stage_compress;
extern const struct gw_stage gw_stage_raw;

#endif
