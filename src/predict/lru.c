// SPDX-License-Identifier: GPL-2.0-or-later
/* lru.c - processes in the order in which they were seen last, and their pages; see lru.h. */
#include <string.h>

#include "lru.h"

int gw_lru_init(struct gw_lru *c, unsigned int most, uint32_t pages)
{
	memset(c, 0, sizeof(*c));
	c->most = !most ? 1 : most < GW_LRU_MOST ? most : GW_LRU_MOST;
	return gw_forest_init(&c->forest, pages ? pages : 1);
}

void gw_lru_free(struct gw_lru *c)
{
	gw_forest_free(&c->forest);
	memset(c, 0, sizeof(*c));
}

/* The last one leaves. */
static void evict(struct gw_lru *c)
{
	gw_splay_drop(&c->forest, &c->entries[--c->nr].tree);
}

/* @process is at the top now. */
static struct gw_lru_entry *to_top(struct gw_lru *c, uint64_t process)
{
	struct gw_lru_entry entry = { .process = process };
	unsigned int i = 0;

	while (i < c->nr && c->entries[i].process != process)
		i++;
	if (i < c->nr)
		entry = c->entries[i];
	else if (c->nr == c->most)
		evict(c);
	if (i >= c->nr)
		i = c->nr++;
	memmove(&c->entries[1], &c->entries[0], i * sizeof(entry));
	c->entries[0] = entry;
	return &c->entries[0];
}

void gw_lru_request(struct gw_lru *c, uint64_t process, uint64_t page)
{
	struct gw_lru_entry *e = c->nr && c->entries[0].process == process ? &c->entries[0]
									   : to_top(c, process);
	int rc = gw_splay_add(&c->forest, &e->tree, page);

	while (rc < 0) {
		if (c->nr > 1)
			evict(c);
		else
			gw_splay_drop(&c->forest, &e->tree);
		rc = gw_splay_add(&c->forest, &e->tree, page);
	}
}

struct collecting {
	const struct gw_bitmap *only;
	struct gw_bitmap *pages;
	size_t n, most;
};

static bool collect(void *arg, uint64_t page)
{
	struct collecting *c = arg;

	if (c->n == c->most)
		return false;
	if ((!c->only || gw_bitmap_test(c->only, page)) && !gw_bitmap_test(c->pages, page)) {
		gw_bitmap_set(c->pages, page);
		c->n++;
	}
	return true;
}

size_t gw_lru_working_set(struct gw_lru *c, unsigned int processes, const struct gw_bitmap *only,
			  size_t most, struct gw_bitmap *pages)
{
	struct collecting all = { .only = only, .pages = pages, .most = most };

	for (unsigned int i = 0; i < c->nr && i < processes && all.n < most; i++)
		gw_splay_near(&c->forest, c->entries[i].tree, collect, &all);
	return all.n;
}
