// SPDX-License-Identifier: GPL-2.0-or-later
/* push.c - the order in which missing pages are sent; see push.h. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "push.h"

void gw_push_init(struct gw_push *p)
{
	memset(p, 0, sizeof(*p));
	pthread_mutex_init(&p->lock, NULL);
}

void gw_push_free(struct gw_push *p)
{
	pthread_mutex_destroy(&p->lock);
	gw_bitmap_free(&p->given);
}

int gw_push_begin(struct gw_push *p, struct gw_bitmap *due, const struct gw_bitmap *sooner)
{
	gw_locked(&p->lock);
	gw_bitmap_free(&p->given);
	if (gw_bitmap_init(&p->given, due->bits))
		return -ENOMEM;
	gw_bitmap_or(&p->given, due);
	p->due = due;
	p->sooner = sooner;
	p->sooner_at = 0;
	p->left = gw_bitmap_count(due, 0, due->bits);
	p->at = 0;
	p->nr_near = 0;
	return 0;
}

bool gw_push_is_new(struct gw_push *p, size_t page)
{
	gw_locked(&p->lock);
	if (gw_bitmap_test(&p->given, page))
		return false;
	gw_bitmap_set(&p->given, page);
	return true;
}

bool gw_push_add(struct gw_push *p, size_t page)
{
	gw_locked(&p->lock);
	if (gw_bitmap_test(p->due, page))
		return false;
	gw_bitmap_set(p->due, page);
	p->left++;
	if (page < p->at)
		p->at = page;
	return true;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

bool gw_push_claim(struct gw_push *p, size_t page)
{
	gw_locked(&p->lock);
	if (!gw_bitmap_test(p->due, page))
		return false;
	gw_bitmap_clear(p->due, page);
	p->left--;
	if (p->nr_near < GW_PUSH_NEAR)
		p->nr_near++;
	memmove(p->near + 1, p->near, (p->nr_near - 1) * sizeof(p->near[0]));
	p->near[0].at = page + 1;
	p->near[0].end = smaller(page + 1 + GW_PUSH_AHEAD, p->due->bits);
	return true;
}

/*
 * Take up to @most due pages of [at, end) that lie in the chunk of the first, of those in @only
 * (NULL: of all). Return: how many.
 */
static unsigned int take(struct gw_push *p, size_t at, size_t end, const struct gw_bitmap *only,
			 unsigned int most, size_t *chunk, struct gw_pageset *pages)
{
	size_t page = gw_bitmap_next(p->due, at, end, true), stop;
	unsigned int n = 0;

	if (page == end)
		return 0;
	*chunk = page / GW_CHUNK_PAGES;
	stop = smaller((*chunk + 1) * GW_CHUNK_PAGES, end);
	for (; page < stop && n < most; page = gw_bitmap_next(p->due, page + 1, stop, true)) {
		if (only && !gw_bitmap_test(only, page))
			continue;
		gw_bitmap_clear(p->due, page);
		gw_pageset_set(pages, (unsigned int)(page % GW_CHUNK_PAGES));
		n++;
	}
	p->left -= n;
	return n;
}

/* Of those that are expected to be used soon; what is added later is like any other. */
static unsigned int take_sooner(struct gw_push *p, unsigned int most, size_t *chunk,
				struct gw_pageset *pages)
{
	const size_t end = p->sooner ? p->due->bits : 0;
	unsigned int n = 0;

	while (!n && p->sooner_at < end) {
		const size_t page = gw_bitmap_next(p->sooner, p->sooner_at, end, true);
		const size_t stop = smaller((page / GW_CHUNK_PAGES + 1) * GW_CHUNK_PAGES, end);

		n = page < end ? take(p, page, stop, p->sooner, most, chunk, pages) : 0;
		p->sooner_at = n ? page : stop;
	}
	return n;
}

unsigned int gw_push_next(struct gw_push *p, unsigned int most, size_t *chunk,
			  struct gw_pageset *pages)
{
	unsigned int n;

	memset(pages, 0, sizeof(*pages));
	gw_locked(&p->lock);
	for (unsigned int i = 0; i < p->nr_near;) {
		n = take(p, p->near[i].at, p->near[i].end, NULL, most, chunk, pages);
		if (n)
			return n;
		p->nr_near--;
		memmove(p->near + i, p->near + i + 1, (p->nr_near - i) * sizeof(p->near[0]));
	}
	if (!p->left)
		return 0;
	n = take_sooner(p, most, chunk, pages);
	if (n)
		return n;
	/* What lies before it is taken; what is added puts it back. */
	p->at = gw_bitmap_next(p->due, p->at, p->due->bits, true);
	return take(p, p->at, p->due->bits, NULL, most, chunk, pages);
}

size_t gw_push_left(struct gw_push *p)
{
	gw_locked(&p->lock);
	return p->left;
}
