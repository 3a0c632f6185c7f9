// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage_duplicate.c - pages that equal another page which the destination holds.
 *
 * Wire form: the body is 8 bytes, a page number. Without flags each page of the
 * record is a copy of that one page. With flag 1 (DUPLICATE_ROW) the pages are
 * copies of as many pages in a row from that number on, which lie in one chunk.
 * The pages copied are taken as they are when the record is decoded, and none
 * of them is in the record itself.
 *
 * Which pages may be copied, by the rule of stage.h:
 *
 *   - a page that is not due: no stream changes it, here or at the destination;
 *   - a page of a chunk that this stream took earlier in this round, be it that
 *     it went out (the stream keeps its order) or not (nobody else touches it);
 *     but not if it went by what a disk holds (stage_teleport.c), which may turn out wrong;
 *   - an equal page earlier in the same batch. Its own record, whichever stage
 *     makes it, must come first, so all records of this stage end the frame:
 *     encode sets the copies aside, finish records them.
 *
 * So a digest is read from the table of what the destination holds only where
 * no other stream can be writing it, and one found there is true (invariant 11).
 * This holds while the guest does not run at the destination.
 *
 * Where an equal page might be, a table from digest to page tells: sets of
 * eight entries, one cache line each, shared by all streams without a lock. It
 * only gives hints: the digests are compared in full before one is believed,
 * so entries may be lost, overwritten or stale. It has an entry for each page
 * of the VM and never more than TABLE_MAX (32 MiB).
 *
 * Zero pages are stage_zero.c's business, even where that is switched off.
 * CRC-32 is no base for this: of 2^17 pages two would most likely pass for equal.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cleanup.h"
#include "codec.h"
#include "error.h"
#include "stage.h"

#define DUPLICATE_ROW 1

#define WAYS	  8UL
#define TABLE_MAX (1UL << 22)

/* An entry is 24 bits of the digest and page number + 1; 0 is none. */
#define PAGE_BITS 40

/* Places for the pages of one batch: at most half of them are taken. */
#define SLOTS_BITS 9

struct table {
	size_t sets; /* a power of two */
	_Atomic uint64_t *entries;
};

/* One stream's. */
struct copies {
	uint64_t round;			 /* of @mine */
	struct gw_bitmap mine;		 /* chunks that the stream took in it */
	struct gw_pageset set;		 /* pages of the batch that are copies */
	uint64_t from[GW_CHUNK_PAGES];	 /* of which page */
	uint16_t slots[1 << SLOTS_BITS]; /* pages of the batch that are not, + 1, by digest */
	uint8_t bodies[GW_CHUNK_PAGES][8];
};

static int duplicate_open(struct gw_encoder *e)
{
	size_t entries = WAYS;
	struct table *t;
	void *map;

	if (e->options.hash == GW_HASH_CRC32)
		return 0;
	while (entries < e->held.nr_pages && entries < TABLE_MAX)
		entries *= 2;
	t = calloc(1, sizeof(*t));
	map = mmap(NULL, entries * sizeof(*t->entries), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!t || map == MAP_FAILED) {
		free(t);
		if (map != MAP_FAILED)
			munmap(map, entries * sizeof(*t->entries));
		return gw_fail(-ENOMEM, "no memory to look for %zu duplicate pages", entries);
	}
	t->sets = entries / WAYS;
	t->entries = map;
	e->stage[GW_STAGE_DUPLICATE] = t;
	return 0;
}

static void duplicate_close(struct gw_encoder *e)
{
	struct table *t = e->stage[GW_STAGE_DUPLICATE];

	if (t)
		munmap(t->entries, t->sets * WAYS * sizeof(*t->entries));
	free(t);
	e->stage[GW_STAGE_DUPLICATE] = NULL;
}

static int duplicate_open_batch(struct gw_batch *batch)
{
	const struct gw_encoder *e = batch->encoder;
	struct copies *c;

	if (!e->stage[GW_STAGE_DUPLICATE])
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return gw_fail(-ENOMEM, "no memory for a stream's duplicate pages");
	batch->stage[GW_STAGE_DUPLICATE] = c;
	return gw_bitmap_init(&c->mine, e->held.nr_pages / GW_CHUNK_PAGES + 1);
}

static void duplicate_close_batch(struct gw_batch *batch)
{
	struct copies *c = batch->stage[GW_STAGE_DUPLICATE];

	if (c)
		gw_bitmap_free(&c->mine);
	free(c);
	batch->stage[GW_STAGE_DUPLICATE] = NULL;
}

static _Atomic uint64_t *set_of(const struct gw_encoder *e, struct gw_digest digest)
{
	const struct table *t = e->stage[GW_STAGE_DUPLICATE];

	return &t->entries[(digest.low & (t->sets - 1)) * WAYS];
}

static uint64_t entry_of(struct gw_digest digest, uint64_t page)
{
	return digest.high >> PAGE_BITS << PAGE_BITS | (page + 1);
}

/* Whether the destination holds @digest in @page, and will until the record arrives. */
static bool is_held(const struct gw_encoder *e, const struct copies *c, uint64_t page,
		    struct gw_digest digest)
{
	if (gw_bitmap_test(e->due, page) && !gw_bitmap_test(&c->mine, page / GW_CHUNK_PAGES))
		return false;
	if (page < e->unsure.bits && gw_bitmap_test(&e->unsure, page))
		return false;
	return gw_digest_equal(e->held.table[page], digest);
}

static bool find(const struct gw_encoder *e, const struct copies *c, struct gw_digest digest,
		 uint64_t *page)
{
	_Atomic uint64_t *set = set_of(e, digest);

	for (unsigned int way = 0; way < WAYS; way++) {
		uint64_t entry = atomic_load_explicit(&set[way], memory_order_relaxed);

		if (!entry || (entry ^ digest.high) >> PAGE_BITS)
			continue;
		*page = (entry & ((1ULL << PAGE_BITS) - 1)) - 1;
		if (is_held(e, c, *page, digest))
			return true;
	}
	return false;
}

/* An equal page of the batch before @i; if there is none, @i is what others may equal. */
static bool find_in_batch(const struct gw_batch *batch, struct copies *c, unsigned int i,
			  uint64_t *page)
{
	const struct gw_digest digest = batch->digest[i];
	size_t slot = digest.low >> (64 - SLOTS_BITS);

	while (c->slots[slot]) {
		const unsigned int other = c->slots[slot] - 1U;

		if (gw_digest_equal(batch->digest[other], digest)) {
			*page = batch->chunk * GW_CHUNK_PAGES + other;
			return true;
		}
		slot = (slot + 1) % GW_ARRAY_SIZE(c->slots);
	}
	c->slots[slot] = (uint16_t)(i + 1);
	return false;
}

/* The sets of a whole batch come from memory at once, not one after the other. */
static void prefetch(const struct gw_batch *batch)
{
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&batch->left, i))
			continue;
		__builtin_prefetch((const void *)set_of(batch->encoder, batch->digest[i]));
		if (!gw_digest_is_zero(batch->held[i]))
			__builtin_prefetch((const void *)set_of(batch->encoder, batch->held[i]));
	}
}

static void begin_round(struct copies *c, const struct gw_encoder *e)
{
	if (c->round == e->round)
		return;
	c->round = e->round;
	gw_bitmap_zero(&c->mine);
}

static void duplicate_encode(struct gw_batch *batch)
{
	struct copies *c = batch->stage[GW_STAGE_DUPLICATE];
	const struct gw_encoder *e = batch->encoder;

	if (!c)
		return;
	prefetch(batch);
	begin_round(c, e);
	memset(c->slots, 0, sizeof(c->slots));
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (!gw_pageset_test(&batch->left, i) || gw_digest_is_zero(batch->digest[i]))
			continue;
		if (!find(e, c, batch->digest[i], &c->from[i]) &&
		    !find_in_batch(batch, c, i, &c->from[i]))
			continue;
		gw_pageset_set(&c->set, i);
		gw_pageset_clear(&batch->left, i);
	}
}

/* How many copies from @i on fit in one record; @*row: of pages in a row. */
static unsigned int run_of(const struct copies *c, unsigned int i, bool *row)
{
	const uint64_t from = c->from[i];
	unsigned int n = 1;

	*row = i + 1 < GW_CHUNK_PAGES && gw_pageset_test(&c->set, i + 1) &&
	       c->from[i + 1] == from + 1 && (from + 1) % GW_CHUNK_PAGES;
	while (i + n < GW_CHUNK_PAGES && gw_pageset_test(&c->set, i + n) &&
	       c->from[i + n] == (*row ? from + n : from) && (!*row || (from + n) % GW_CHUNK_PAGES))
		n++;
	return n;
}

static void duplicate_finish(struct gw_batch *batch)
{
	struct copies *c = batch->stage[GW_STAGE_DUPLICATE];
	unsigned int count;

	for (unsigned int i = 0; c && i < GW_CHUNK_PAGES; i += count) {
		struct gw_pageset run;
		bool row;

		count = 1;
		if (!gw_pageset_test(&c->set, i))
			continue;
		count = run_of(c, i, &row);
		run = gw_pageset_of(i, count);
		gw_put64(c->bodies[i], c->from[i]);
		gw_batch_record(batch, &gw_stage_duplicate, row ? DUPLICATE_ROW : 0, &run,
				c->bodies[i], sizeof(c->bodies[i]));
	}
}

static void forget(const struct gw_encoder *e, struct gw_digest digest, uint64_t page)
{
	_Atomic uint64_t *set = set_of(e, digest);

	for (unsigned int way = 0; way < WAYS; way++)
		if (atomic_load_explicit(&set[way], memory_order_relaxed) == entry_of(digest, page))
			atomic_store_explicit(&set[way], 0, memory_order_relaxed);
}

static void insert(const struct gw_encoder *e, struct gw_digest digest, uint64_t page)
{
	_Atomic uint64_t *set = set_of(e, digest);
	unsigned int to = digest.high % WAYS; /* in a full set any is as good */

	for (unsigned int way = WAYS; way--;) {
		uint64_t entry = atomic_load_explicit(&set[way], memory_order_relaxed);

		if (entry == entry_of(digest, page))
			return;
		if (!entry)
			to = way;
	}
	atomic_store_explicit(&set[to], entry_of(digest, page), memory_order_relaxed);
}

/* A page that is a copy itself adds nothing: what it was copied from is known. */
static void duplicate_remember(struct gw_batch *batch, const struct gw_pageset *all)
{
	struct copies *c = batch->stage[GW_STAGE_DUPLICATE];
	const struct gw_encoder *e = batch->encoder;
	const uint64_t first = batch->chunk * GW_CHUNK_PAGES;

	if (!c)
		return;
	/* First make room, then fill it. */
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(all, i) && !gw_digest_is_zero(batch->held[i]) &&
		    !gw_digest_equal(batch->held[i], batch->digest[i]))
			forget(e, batch->held[i], first + i);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++)
		if (gw_pageset_test(all, i) && !gw_digest_is_zero(batch->digest[i]) &&
		    !gw_pageset_test(&c->set, i))
			insert(e, batch->digest[i], first + i);
	begin_round(c, e);
	gw_bitmap_set(&c->mine, batch->chunk);
	memset(&c->set, 0, sizeof(c->set));
}

static int duplicate_decode(const struct gw_record *rec, struct gw_decoder *d)
{
	const bool row = rec->flags & DUPLICATE_ROW;
	const unsigned int count = row ? rec->count : 1;
	uint8_t *bytes = d->stage[GW_STAGE_DUPLICATE];
	uint64_t from;
	int rc;

	if (rec->len != 8 || rec->flags & ~DUPLICATE_ROW)
		return gw_fail(-EPROTO, "a duplicate record with a body of %zu bytes and flags %u",
			       rec->len, rec->flags);
	from = gw_get64(rec->body);
	if (from >= d->nr_pages || count > d->nr_pages - from ||
	    from % GW_CHUNK_PAGES + count > GW_CHUNK_PAGES)
		return gw_fail(-EPROTO, "a copy of page %llu, beyond the VM's memory or a chunk",
			       (unsigned long long)from);
	if (from < rec->page + rec->count && rec->page < from + count)
		return gw_fail(-EPROTO, "page %llu is a copy of itself", (unsigned long long)from);
	if (!bytes)
		bytes = d->stage[GW_STAGE_DUPLICATE] = malloc(GW_CHUNK_SIZE);
	if (!bytes)
		return gw_fail(-ENOMEM, "no memory for copies of pages");
	rc = d->sink->read(d->sink, from, count, bytes);
	if (rc)
		return rc;
	for (unsigned int i = count; i < rec->count; i++)
		memcpy(bytes + i * GW_PAGE_SIZE, bytes, GW_PAGE_SIZE);
	return d->sink->place(d->sink, rec->page, rec->count, bytes);
}

static void duplicate_close_decoder(struct gw_decoder *d)
{
	free(d->stage[GW_STAGE_DUPLICATE]);
	d->stage[GW_STAGE_DUPLICATE] = NULL;
}

const struct gw_stage gw_stage_duplicate = {
	.id = GW_STAGE_DUPLICATE,
	.name = "duplicate",
	.open = duplicate_open,
	.close = duplicate_close,
	.open_batch = duplicate_open_batch,
	.close_batch = duplicate_close_batch,
	.encode = duplicate_encode,
	.finish = duplicate_finish,
	.remember = duplicate_remember,
	.decode = duplicate_decode,
	.close_decoder = duplicate_close_decoder,
};
