// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rehash.c - what the memory here is, for a process that has not sent all of it: post-copy's
 * source in place of one that died (serve.c).
 *
 * The guest stands still here since it left, so once nothing is missing at the destination,
 * what lies here is what came there. That is all that a ledger says (reuse.c).
 */
#include <stdlib.h>

#include "cleanup.h"
#include "error.h"
#include "hash.h"
#include "internal.h"

struct rehash {
	struct gw_source *s;
	_Atomic size_t next; /* chunk */
	_Atomic bool halted;
};

static int rehash_some(void *arg, unsigned int stream)
{
	struct rehash *r = arg;
	const struct gw_memory *m = r->s->memory;
	struct gw_encoder *e = &r->s->holder.encoder;
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);

	(void)stream;
	if (!bytes)
		return gw_fail(-ENOMEM, "no memory to hash with");
	while (!r->halted) {
		const size_t first = r->next++ * GW_CHUNK_PAGES;
		int hole, rc;

		if (first >= m->nr_pages)
			return 0;
		hole = gw_memory_is_hole(m, first, GW_CHUNK_PAGES);
		rc = hole ? hole : gw_memory_read(m, first, GW_CHUNK_PAGES, bytes);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < GW_CHUNK_PAGES; i++) {
			struct gw_digest digest = { 0 };

			if (!hole)
				digest = gw_hash_page(e->options.hash, e->options.key,
						      bytes + i * GW_PAGE_SIZE);
			gw_digests_set(&e->held, first + i, digest);
		}
	}
	return gw_fail(GW_HALTED, "the hashing was ended");
}

static void halt(void *arg)
{
	((struct rehash *)arg)->halted = true;
}

int gw_rehash(struct gw_source *s)
{
	struct rehash r = { .s = s };

	return s->ops->parallel(s->env, s->params.streams, rehash_some, &r, halt, NULL);
}
