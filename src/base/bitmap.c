// SPDX-License-Identifier: GPL-2.0-or-later
/* bitmap.c - large sparse bitmaps; see bitmap.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "bitmap.h"
#include "error.h"

static size_t bytes_of(size_t bits)
{
	return (bits + 63) / 64 * 8;
}

int gw_bitmap_init(struct gw_bitmap *map, size_t bits)
{
	void *words = mmap(NULL, bytes_of(bits ? bits : 1), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (words == MAP_FAILED)
		return gw_fail(-ENOMEM, "no memory for a bitmap of %zu bits", bits);
	map->words = words;
	map->bits = bits;
	return 0;
}

void gw_bitmap_free(struct gw_bitmap *map)
{
	if (map->words)
		munmap(map->words, bytes_of(map->bits ? map->bits : 1));
	map->words = NULL;
}

/* Bits [first % 64, ...) of the word that holds @first, at most @count of them. */
static uint64_t mask_at(size_t first, size_t count)
{
	uint64_t mask = ~0ULL << (first % 64);

	if (count < 64 - first % 64)
		mask &= ~(~0ULL << (first % 64 + count));
	return mask;
}

void gw_bitmap_set_range(struct gw_bitmap *map, size_t first, size_t count)
{
	while (count) {
		size_t here = 64 - first % 64;

		if (here > count)
			here = count;
		map->words[first / 64] |= mask_at(first, here);
		first += here;
		count -= here;
	}
}

void gw_bitmap_clear_range(struct gw_bitmap *map, size_t first, size_t count)
{
	while (count) {
		size_t here = 64 - first % 64;

		if (here > count)
			here = count;
		map->words[first / 64] &= ~mask_at(first, here);
		first += here;
		count -= here;
	}
}

void gw_bitmap_zero(struct gw_bitmap *map)
{
	size_t len = bytes_of(map->bits);

	if (len && madvise(map->words, len, MADV_DONTNEED))
		memset(map->words, 0, len);
}

void gw_bitmap_or(struct gw_bitmap *map, const struct gw_bitmap *other)
{
	size_t n = bytes_of(map->bits) / 8;

	for (size_t i = 0; i < n; i++)
		if (other->words[i])
			map->words[i] |= other->words[i];
}

size_t gw_bitmap_count(const struct gw_bitmap *map, size_t first, size_t count)
{
	size_t n = 0;

	while (count) {
		size_t here = 64 - first % 64;

		if (here > count)
			here = count;
		n += (size_t)__builtin_popcountll(map->words[first / 64] & mask_at(first, here));
		first += here;
		count -= here;
	}
	return n;
}

size_t gw_bitmap_next(const struct gw_bitmap *map, size_t from, size_t end, bool value)
{
	uint64_t flip = value ? 0 : ~0ULL;

	while (from < end) {
		uint64_t word = (map->words[from / 64] ^ flip) & mask_at(from, 64);

		if (word) {
			from = from / 64 * 64 + (size_t)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from = from / 64 * 64 + 64;
	}
	return end;
}
