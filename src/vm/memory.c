// SPDX-License-Identifier: GPL-2.0-or-later
/* memory.c - page numbers, blocks, and what is between them; see memory.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "memory.h"

int gw_memory_add(struct gw_memory *m, const char *id, uint64_t size)
{
	struct gw_memory_block *b = &m->blocks[m->nr_blocks];

	if (m->nr_blocks == GW_MEMORY_BLOCKS_MAX)
		return gw_fail(-E2BIG, "more than %d memory backends", GW_MEMORY_BLOCKS_MAX);
	if (!size || size % GW_PAGE_SIZE || strlen(id) >= sizeof(b->id))
		return gw_fail(-EINVAL, "memory backend '%.80s' of %llu bytes", id,
			       (unsigned long long)size);
	snprintf(b->id, sizeof(b->id), "%s", id);
	b->size = size;
	b->first_page = m->nr_pages;
	b->nr_pages = size / GW_PAGE_SIZE;
	m->nr_pages += (b->nr_pages + GW_CHUNK_PAGES - 1) / GW_CHUNK_PAGES * GW_CHUNK_PAGES;
	return (int)m->nr_blocks++;
}

uint64_t gw_memory_bytes(const struct gw_memory *m)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < m->nr_blocks; i++)
		bytes += m->blocks[i].size;
	return bytes;
}

uint64_t gw_memory_resident(const struct gw_memory *m)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < m->nr_blocks; i++)
		bytes += m->ops->resident(m, i);
	return bytes;
}

int64_t gw_memory_hash_ns(const struct gw_memory *m)
{
	return 30 * GW_S + (int64_t)(gw_memory_bytes(m) >> 28) * GW_S;
}

const struct gw_memory_block *gw_memory_block_of(const struct gw_memory *m, size_t page)
{
	for (unsigned int i = 0; i < m->nr_blocks; i++) {
		const struct gw_memory_block *b = &m->blocks[i];

		if (page >= b->first_page && page < b->first_page + b->nr_pages)
			return b;
	}
	return NULL;
}

int gw_memory_file(const struct gw_memory *m, unsigned int block)
{
	return m->ops->file ? m->ops->file(m, block) : -1;
}

static unsigned int index_of(const struct gw_memory *m, const struct gw_memory_block *b)
{
	return (unsigned int)(b - m->blocks);
}

/* How many of @count pages from @page on are @b's, where the first is. */
static size_t clip(const struct gw_memory_block *b, size_t page, size_t count)
{
	const size_t left = b->first_page + b->nr_pages - page;

	return count < left ? count : left;
}

int gw_memory_read(const struct gw_memory *m, size_t page, size_t count, void *buf)
{
	const struct gw_memory_block *b = gw_memory_block_of(m, page);
	const size_t n = b ? clip(b, page, count) : 0;

	if (n < count)
		memset((uint8_t *)buf + n * GW_PAGE_SIZE, 0, (count - n) * GW_PAGE_SIZE);
	return n ? m->ops->read(m, index_of(m, b), page - b->first_page, n, buf) : 0;
}

/* The block that has all of the pages; NULL with a message. */
static const struct gw_memory_block *whole(const struct gw_memory *m, size_t page, size_t count)
{
	const struct gw_memory_block *b = gw_memory_block_of(m, page);

	if (b && clip(b, page, count) == count)
		return b;
	gw_fail(-EPROTO, "pages %zu to %zu are not memory of the VM", page, page + count);
	return NULL;
}

int gw_memory_write(const struct gw_memory *m, size_t page, size_t count, const void *buf)
{
	const struct gw_memory_block *b = whole(m, page, count);

	return b ? m->ops->write(m, index_of(m, b), page - b->first_page, count, buf) : -EPROTO;
}

int gw_memory_punch(const struct gw_memory *m, size_t page, size_t count)
{
	const struct gw_memory_block *b = whole(m, page, count);

	return b ? m->ops->punch(m, index_of(m, b), page - b->first_page, count) : -EPROTO;
}

int gw_memory_is_hole(const struct gw_memory *m, size_t page, size_t count)
{
	const struct gw_memory_block *b = gw_memory_block_of(m, page);
	size_t data = 0;
	int rc;

	if (!b)
		return 1;
	rc = m->ops->find_data(m, index_of(m, b), page - b->first_page, &data);
	return rc ? rc : data >= page - b->first_page + clip(b, page, count);
}

int gw_memory_walk_next(struct gw_memory_walk *w, size_t *first, size_t *stop)
{
	const struct gw_memory *m = w->memory;

	for (; w->block < m->nr_blocks; w->block++, w->at = 0) {
		const struct gw_memory_block *b = &m->blocks[w->block];
		size_t data = b->nr_pages, hole = 0;
		int rc = 0;

		if (w->at < b->nr_pages)
			rc = m->ops->find_data(m, w->block, w->at, &data);
		if (!rc && data >= b->nr_pages)
			continue;
		if (!rc)
			rc = m->ops->find_hole(m, w->block, data, &hole);
		if (rc)
			return rc;
		/* Punched between the two: the data was there, and what follows is not known. */
		if (hole <= data)
			hole = data + 1;
		w->at = hole < b->nr_pages ? hole : b->nr_pages;
		*first = b->first_page + data;
		*stop = b->first_page + w->at;
		return 1;
	}
	return 0;
}
