/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bitmap.h - large sparse bitmaps.
 *
 * The words are anonymous memory of their own, so bits never set cost no
 * memory: a 4 TiB guest's bitmap is 128 MiB of address space. Not locked:
 * concurrent writers must own disjoint ranges aligned to 64 bits, or all use
 * gw_bitmap_put(), gw_bitmap_has() and gw_bitmap_take().
 */
#ifndef GW_BITMAP_H
#define GW_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_bitmap {
	uint64_t *words;
	size_t bits;
};

/** gw_bitmap_init() - @bits clear bits. Return: 0 or -ENOMEM. Free with gw_bitmap_free(). */
int gw_bitmap_init(struct gw_bitmap *map, size_t bits);
void gw_bitmap_free(struct gw_bitmap *map);

/** gw_bitmap_set_range() - set @count bits from @first. */
void gw_bitmap_set_range(struct gw_bitmap *map, size_t first, size_t count);

/** gw_bitmap_clear_range() - clear @count bits from @first. */
void gw_bitmap_clear_range(struct gw_bitmap *map, size_t first, size_t count);

/** gw_bitmap_zero() - clear all bits and give the memory back. */
void gw_bitmap_zero(struct gw_bitmap *map);

/** gw_bitmap_or() - set in @map every bit set in @other (same size). */
void gw_bitmap_or(struct gw_bitmap *map, const struct gw_bitmap *other);

/** gw_bitmap_count() - bits set in [first, first + count). */
size_t gw_bitmap_count(const struct gw_bitmap *map, size_t first, size_t count);

/** gw_bitmap_next() - first bit >= @from and < @end equal to @value, or @end. */
size_t gw_bitmap_next(const struct gw_bitmap *map, size_t from, size_t end, bool value);

static inline bool gw_bitmap_test(const struct gw_bitmap *map, size_t bit)
{
	return map->words[bit / 64] >> (bit % 64) & 1;
}

static inline void gw_bitmap_set(struct gw_bitmap *map, size_t bit)
{
	map->words[bit / 64] |= 1ULL << (bit % 64);
}

static inline void gw_bitmap_clear(struct gw_bitmap *map, size_t bit)
{
	map->words[bit / 64] &= ~(1ULL << (bit % 64));
}

/** gw_bits_within() - bits of word @i, which has some of them, that are among [first, end). */
static inline uint64_t gw_bits_within(size_t i, size_t first, size_t end)
{
	uint64_t mask = UINT64_MAX;

	if (first > i * 64)
		mask &= UINT64_MAX << (first - i * 64);
	if (end < i * 64 + 64)
		mask &= UINT64_MAX >> (i * 64 + 64 - end);
	return mask;
}

/** gw_bitmap_put() - set @bit beside other threads. */
static inline void gw_bitmap_put(struct gw_bitmap *map, size_t bit)
{
	__atomic_fetch_or(&map->words[bit / 64], 1ULL << (bit % 64), __ATOMIC_SEQ_CST);
}

/** gw_bitmap_has() - gw_bitmap_test() beside other threads. */
static inline bool gw_bitmap_has(const struct gw_bitmap *map, size_t bit)
{
	return __atomic_load_n(&map->words[bit / 64], __ATOMIC_SEQ_CST) >> (bit % 64) & 1;
}

/** gw_bitmap_take() - clear @bit beside other threads. Return: whether it was us who did. */
static inline bool gw_bitmap_take(struct gw_bitmap *map, size_t bit)
{
	const uint64_t mask = 1ULL << (bit % 64);

	return __atomic_fetch_and(&map->words[bit / 64], ~mask, __ATOMIC_SEQ_CST) & mask;
}

/**
 * gw_bitmap_for_each_run() - walk the runs of set bits in [from, end).
 * @start: size_t variable, first bit of the run
 * @stop: size_t variable, bit after the run
 */
#define gw_bitmap_for_each_run(map, from, end, start, stop)                                 \
	for ((start) = gw_bitmap_next((map), (from), (end), true);                          \
	     (start) < (end) && ((stop) = gw_bitmap_next((map), (start), (end), false), 1); \
	     (start) = gw_bitmap_next((map), (stop), (end), true))

#endif
