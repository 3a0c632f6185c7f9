// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * verify.c - all memory is compared, with the guest stopped on both hosts (--verify).
 *
 * Both sides make a digest of each chunk, at the same time; the destination
 * compares and names what differs (dest/verify.c). All of it is read, so it takes as
 * long as the memory is large: whoever asks for it has it so. It is the one thing in a
 * switchover that may last longer than GW_SWITCHOVER_NS, and it has its own limits: all
 * of it gw_memory_hash_ns(), and a destination that is at it says so all the time.
 */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "feature.h"
#include "internal.h"

/* Chunk digests in one VERIFY frame. */
#define VERIFY_CHUNKS 4096UL

/* Without a word from a destination that says that it is at it. */
#define SILENCE_NS (15 * GW_S)

struct verify {
	struct gw_source *s;
	_Atomic size_t next_chunk;
	size_t chunks;
	uint8_t *digests; /* as they travel */
	_Atomic bool halted;
};

/* What is missing there, and still to come, counts as zeros on both sides. */
static void leave_out_due(const struct gw_source *s, size_t first, uint8_t *bytes)
{
	size_t start, stop;

	gw_bitmap_for_each_run(&s->due, first, first + GW_CHUNK_PAGES, start, stop)
		memset(bytes + (start - first) * GW_PAGE_SIZE, 0, (stop - start) * GW_PAGE_SIZE);
}

static int verify_some(void *arg, unsigned int stream)
{
	struct verify *v = arg;
	const struct gw_memory *m = v->s->memory;
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);

	(void)stream;
	if (!bytes)
		return gw_fail(-ENOMEM, "no memory to verify with");
	while (!v->halted) {
		const size_t chunk = v->next_chunk++, first = chunk * GW_CHUNK_PAGES;
		struct gw_digest d;
		int hole, rc;

		if (chunk >= v->chunks)
			return 0;
		hole = gw_memory_is_hole(m, first, GW_CHUNK_PAGES);
		rc = hole ? hole : gw_memory_read(m, first, GW_CHUNK_PAGES, bytes);
		if (rc < 0)
			return rc;
		if (!hole && v->s->postcopy)
			leave_out_due(v->s, first, bytes);
		d = gw_holder_has(&v->s->holder, GW_FEATURE_KEYED)
			    ? gw_key_chunk(&v->s->key, hole ? NULL : bytes, GW_CHUNK_PAGES)
			    : gw_digest_chunk(hole ? NULL : bytes, GW_CHUNK_PAGES);
		gw_put_digest(v->digests + chunk * GW_DIGEST_LEN, d);
	}
	return gw_fail(GW_HALTED, "the verification was ended");
}

static void verify_halt(void *arg)
{
	((struct verify *)arg)->halted = true;
}

int gw_source_verify(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	const bool together = gw_holder_has(h, GW_FEATURE_VERIFY);
	const int64_t limit = gw_memory_hash_ns(s->memory);
	struct verify v = { .s = s, .chunks = s->memory->nr_pages / GW_CHUNK_PAGES };
	gw_autofree uint8_t *digests = malloc(v.chunks * GW_DIGEST_LEN + 1);
	int rc;

	if (!digests)
		return gw_fail(-ENOMEM, "no memory to verify with");
	v.digests = digests;
	/* None yet, but the destination begins to make its own. */
	rc = together ? gw_frame_send(h->control, GW_MSG_VERIFY, 0, NULL, 0) : 0;
	if (!rc)
		rc = s->ops->parallel(s->env, s->params.streams, verify_some, &v, verify_halt,
				      NULL);
	for (size_t i = 0; !rc && i < v.chunks; i += VERIFY_CHUNKS) {
		size_t n = v.chunks - i < VERIFY_CHUNKS ? v.chunks - i : VERIFY_CHUNKS;

		rc = gw_frame_send_buf(h->control, GW_MSG_VERIFY, i, digests + i * GW_DIGEST_LEN,
				       n * GW_DIGEST_LEN);
	}
	if (!rc)
		rc = gw_frame_send(h->control, GW_MSG_VERIFY_END, 0, NULL, 0);
	if (!rc)
		rc = gw_holder_expect_patiently(h, GW_MSG_VERIFIED, together ? SILENCE_NS : limit,
						s->ops->now(s->env) + limit + GW_ANSWER_NS);
	if (!rc)
		s->verified = true;
	return rc;
}
