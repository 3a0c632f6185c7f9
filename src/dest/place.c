// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * place.c - the only code that installs a page of guest memory.
 *
 * Before the guest runs here (invariant 6) pages go into the RAM file with
 * pwrite(): no mapping, so no fault and no page-table entry, and a page that
 * is written whole is not zeroed first; where the file system has huge pages
 * one allocation serves 512 pages. Per GiB on the development machine (medians
 * in doc/measurements/): pwrite 290 ms, populate and copy 407 ms; with huge
 * pages 142 ms and 180 ms.
 *
 * While it runs, only pages that are missing are installed, likewise (decision 28): no page
 * table has them, and whoever touches one waits until the table says that it is there.
 * What is not missing is left alone whatever the source sends: it is the guest's. Pages of a split
 * VM, which come back to where they were, are copied by the kernel as it maps them (UFFDIO_COPY):
 * who looks at the guest's memory past its page tables, as the sampling of what it accesses does,
 * must not find them half written (decision 32).
 */
#include <errno.h>

#include "error.h"
#include "place.h"

static int place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	return gw_memory_write(((struct gw_place *)sink)->memory, page, count, bytes);
}

static int zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	return gw_memory_punch(((struct gw_place *)sink)->memory, page, count);
}

static int read(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	return gw_memory_read(((struct gw_place *)sink)->memory, page, count, bytes);
}

void gw_place_init(struct gw_place *p, const struct gw_memory *memory)
{
	p->sink = (struct gw_sink){ .place = place, .zero = zero, .read = read };
	p->memory = memory;
}

/* Bring what of [page, page + count) is missing; @bytes NULL: zeros, unless @held. */
static int bring(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes,
		 bool held)
{
	struct gw_pager *p = ((struct gw_page_in *)sink)->pager;
	size_t at = page, n;

	for (; (n = gw_pager_claim(p, &at, page + count)); at += n) {
		int rc = 0;

		if (bytes)
			rc = gw_memory_write(p->memory, at, n, bytes + (at - page) * GW_PAGE_SIZE);
		else if (!held)
			rc = gw_memory_punch(p->memory, at, n);
		if (rc) {
			gw_pager_unclaim(p, at, n, !held);
			return rc;
		}
		gw_pager_written(p, at);
		gw_pager_placed(p, at, n);
	}
	return 0;
}

static int bring_bytes(struct gw_sink *sink, uint64_t page, unsigned int count,
		       const uint8_t *bytes)
{
	return bring(sink, page, count, bytes, false);
}

static int bring_zeros(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	return bring(sink, page, count, NULL, false);
}

static int bring_held(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	return bring(sink, page, count, NULL, true);
}

static int read_missing(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	return gw_memory_read(((struct gw_page_in *)sink)->pager->memory, page, count, bytes);
}

/* What of [page, page + count) is missing is there if it has these digests. */
static int check_held(struct gw_sink *sink, uint64_t page, unsigned int count,
		      const uint8_t *digests)
{
	const struct gw_page_in *in = (struct gw_page_in *)sink;

	for (unsigned int i = 0; i < count; i++) {
		const struct gw_digest must = gw_get_digest(digests + i * GW_DIGEST_LEN);
		uint8_t bytes[GW_PAGE_SIZE];
		size_t at = page + i;
		int rc;

		if (!gw_pager_claim(in->pager, &at, at + 1))
			continue;
		rc = gw_memory_read(in->pager->memory, at, 1, bytes);
		if (rc) {
			gw_pager_unclaim(in->pager, at, 1, false);
			return rc;
		}
		if (gw_digest_equal(gw_key_page(in->key, bytes), must))
			gw_pager_placed(in->pager, at, 1);
		else
			gw_pager_lack(in->pager, at, 1);
	}
	return 0;
}

void gw_page_in_init(struct gw_page_in *p, struct gw_pager *pager, const struct gw_key *key)
{
	p->sink = (struct gw_sink){
		.place = bring_bytes, .zero = bring_zeros, .read = read_missing, .same = bring_held
	};
	p->sink.check = key ? check_held : NULL;
	p->pager = pager;
	p->key = key;
}

static int bring_back(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	gw_split_place(((struct gw_split_in *)sink)->split, page, count, bytes);
	return 0;
}

static int bring_back_zeros(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	gw_split_place(((struct gw_split_in *)sink)->split, page, count, NULL);
	return 0;
}

static int refers(struct gw_sink *sink, uint64_t page, unsigned int count, uint8_t *bytes)
{
	(void)sink;
	(void)count;
	(void)bytes;
	return gw_fail(-EPROTO, "page %llu from a memory server refers to others",
		       (unsigned long long)page);
}

void gw_split_in_init(struct gw_split_in *p, struct gw_split *split)
{
	p->sink = (struct gw_sink){ .place = bring_back, .zero = bring_back_zeros, .read = refers };
	p->split = split;
}
