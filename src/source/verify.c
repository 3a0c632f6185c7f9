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
#include "error.h"
#include "feature.h"
#include "internal.h"

/* Chunk digests in one VERIFY frame. */
#define VERIFY_CHUNKS 4096UL

/* Without a word from a destination that says that it is at it. */
#define SILENCE_NS (15 * GW_S)

struct verify {
	struct gw_source *s;
	uint8_t *digests; /* as they travel */
};

/* What is missing there, and still to come, counts as zeros on both sides. */
static void leave_out_due(const struct gw_source *s, size_t first, uint8_t *bytes)
{
	size_t start, stop;

	gw_bitmap_for_each_run(&s->due, first, first + GW_CHUNK_PAGES, start, stop)
		memset(bytes + (start - first) * GW_PAGE_SIZE, 0, (stop - start) * GW_PAGE_SIZE);
}

static void digest_chunk(void *arg, size_t chunk, uint8_t *bytes)
{
	const struct verify *v = arg;
	const struct gw_source *s = v->s;

	if (bytes && s->postcopy)
		leave_out_due(s, chunk * GW_CHUNK_PAGES, bytes);
	gw_put_digest(v->digests + chunk * GW_DIGEST_LEN,
		      gw_holder_has(&s->holder, GW_FEATURE_KEYED)
			      ? gw_key_chunk(&s->key, bytes, GW_CHUNK_PAGES)
			      : gw_digest_chunk(bytes, GW_CHUNK_PAGES));
}

int gw_source_verify(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	const bool together = gw_holder_has(h, GW_FEATURE_VERIFY);
	const int64_t limit = gw_memory_hash_ns(s->memory);
	const size_t chunks = s->memory->nr_pages / GW_CHUNK_PAGES;
	gw_autofree uint8_t *digests = malloc(chunks * GW_DIGEST_LEN + 1);
	struct verify v = { .s = s, .digests = digests };
	int rc;

	if (!digests)
		return gw_fail(-ENOMEM, "no memory to verify with");
	/* None yet, but the destination begins to make its own. */
	rc = together ? gw_frame_send(h->control, GW_MSG_VERIFY, 0, NULL, 0) : 0;
	if (!rc)
		rc = gw_source_whole(s, digest_chunk, &v);
	for (size_t i = 0; !rc && i < chunks; i += VERIFY_CHUNKS) {
		size_t n = chunks - i < VERIFY_CHUNKS ? chunks - i : VERIFY_CHUNKS;

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
