// SPDX-License-Identifier: GPL-2.0-or-later
/* digest.c - page digests; see digest.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "digest.h"
#include "error.h"
#include "xxh.h"

bool gw_page_is_zero(const void *page)
{
	const uint64_t *w = page;

	/* Most pages differ in their first words: look there before the long loop. */
	if (w[0] | w[1] | w[100] | w[511])
		return false;
	for (size_t i = 0; i < GW_PAGE_SIZE / 8; i += 32) {
		uint64_t any = 0;

		for (size_t k = 0; k < 32; k++)
			any |= w[i + k];
		if (any)
			return false;
	}
	return true;
}

struct gw_digest gw_digest_page(const void *page)
{
	XXH128_hash_t h;

	if (gw_page_is_zero(page))
		return (struct gw_digest){ 0, 0 };
	h = XXH3_128bits(page, GW_PAGE_SIZE);
	/* Zero is taken by the zero page. */
	return (struct gw_digest){ h.low64, h.high64 | !(h.low64 | h.high64) };
}

struct gw_digest gw_digest_chunk(const uint8_t *bytes, size_t nr)
{
	struct gw_digest pages[GW_CHUNK_PAGES] = { 0 };
	XXH128_hash_t h;

	for (size_t i = 0; bytes && i < nr; i++)
		pages[i] = gw_digest_page(bytes + i * GW_PAGE_SIZE);
	h = XXH3_128bits(pages, sizeof(pages));
	return (struct gw_digest){ h.low64, h.high64 };
}

int gw_digests_init(struct gw_digests *d, size_t nr_pages)
{
	void *table = mmap(NULL, (nr_pages + 1) * sizeof(*d->table), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (table == MAP_FAILED)
		return gw_fail(-ENOMEM, "no memory for the digests of %zu pages", nr_pages);
	d->table = table;
	d->nr_pages = nr_pages;
	return gw_bitmap_init(&d->filled, nr_pages);
}

void gw_digests_free(struct gw_digests *d)
{
	if (d->table)
		munmap(d->table, (d->nr_pages + 1) * sizeof(*d->table));
	d->table = NULL;
	gw_bitmap_free(&d->filled);
}
