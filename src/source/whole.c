// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * whole.c - all memory as it lies here, read once by all streams' threads; of a guest that
 * stands still, and for whom time is not short (--verify; post-copy's source when all is placed).
 */
#include <stdlib.h>

#include "cleanup.h"
#include "error.h"
#include "internal.h"

struct whole {
	const struct gw_memory *memory;
	void (*look)(void *arg, size_t chunk, uint8_t *bytes);
	void *arg;
	_Atomic size_t next; /* chunk */
	_Atomic bool halted;
};

static int look_at_some(void *arg, unsigned int stream)
{
	struct whole *w = arg;
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);

	(void)stream;
	if (!bytes)
		return gw_fail(-ENOMEM, "no memory to read the guest's");
	while (!w->halted) {
		const size_t chunk = w->next++, first = chunk * GW_CHUNK_PAGES;
		int hole, rc;

		if (first >= w->memory->nr_pages)
			return 0;
		hole = gw_memory_is_hole(w->memory, first, GW_CHUNK_PAGES);
		rc = hole ? hole : gw_memory_read(w->memory, first, GW_CHUNK_PAGES, bytes);
		if (rc < 0)
			return rc;
		w->look(w->arg, chunk, hole ? NULL : bytes);
	}
	return gw_fail(GW_HALTED, "the reading of all memory was ended");
}

static void halt(void *arg)
{
	((struct whole *)arg)->halted = true;
}

int gw_source_whole(struct gw_source *s, void (*look)(void *arg, size_t chunk, uint8_t *bytes),
		    void *arg)
{
	struct whole w = { .memory = s->memory, .look = look, .arg = arg };

	return s->ops->parallel(s->env, s->params.streams, look_at_some, &w, halt, NULL);
}
