// SPDX-License-Identifier: GPL-2.0-or-later
/* hints.c - the table of hints; see hints.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "hints.h"

int gw_hints_init(struct gw_hints *h, size_t nr_pages)
{
	void *map = mmap(NULL, (nr_pages + 1) * sizeof(*h->table), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	memset(h, 0, sizeof(*h));
	if (map == MAP_FAILED)
		return gw_fail(-ENOMEM, "no memory for what disks hold of %zu pages", nr_pages);
	h->table = map;
	h->nr_pages = nr_pages;
	return 0;
}

void gw_hints_clear(struct gw_hints *h)
{
	if (h->table)
		madvise(h->table, (h->nr_pages + 1) * sizeof(*h->table), MADV_DONTNEED);
}

void gw_hints_free(struct gw_hints *h)
{
	if (h->table)
		munmap(h->table, (h->nr_pages + 1) * sizeof(*h->table));
	memset(h, 0, sizeof(*h));
}

void gw_hints_drop(struct gw_hints *h, size_t page)
{
	struct gw_hint at;

	if (h->lookup && gw_hints_get(h, page, &at))
		h->lookup->wrong(h->lookup->arg, at);
	atomic_store_explicit(&h->table[page], 0, memory_order_relaxed);
}

void gw_hints_of_chunk(struct gw_hints *h, uint64_t chunk, const uint8_t *bytes,
		       const struct gw_pageset *left, struct gw_pageset *found,
		       struct gw_hint at[GW_CHUNK_PAGES])
{
	const size_t first = chunk * GW_CHUNK_PAGES;

	memset(found, 0, sizeof(*found));
	if (h->lookup)
		h->lookup->find(h->lookup->arg, bytes, left, found, at);
	for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
		if (h->lookup && gw_pageset_test(found, i))
			gw_hints_set(h, first + i, at[i]);
		else if (!h->lookup && gw_pageset_test(left, i) &&
			 gw_hints_get(h, first + i, &at[i]))
			gw_pageset_set(found, i);
	}
}
