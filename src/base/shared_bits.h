/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shared_bits.h - bits that any thread sets, clears and looks at: of memory of one's own, or of a
 * file that outlives the process. A range is changed a word at a time: each bit changes once,
 * and not all of them at once. bitmap.h has those of one thread.
 */
#ifndef GW_SHARED_BITS_H
#define GW_SHARED_BITS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t gw_shared_word;

/** gw_shared_bits_len() - bytes that @bits take. */
static inline size_t gw_shared_bits_len(size_t bits)
{
	return (bits + 63) / 64 * sizeof(uint64_t);
}

/** gw_shared_bits_new() - @len bytes of clear bits, which cost memory once they are set, or NULL.
 */
gw_shared_word *gw_shared_bits_new(size_t len);
void gw_shared_bits_free(gw_shared_word *words, size_t len);

static inline bool gw_shared_bit(const gw_shared_word *words, size_t bit)
{
	return atomic_load(&words[bit / 64]) >> (bit % 64) & 1;
}

/** gw_shared_bit_set() - Return: whether it was set. */
static inline bool gw_shared_bit_set(gw_shared_word *words, size_t bit)
{
	return atomic_fetch_or(&words[bit / 64], 1ULL << bit % 64) >> (bit % 64) & 1;
}

/** gw_shared_bit_clear() - Return: whether it was set. */
static inline bool gw_shared_bit_clear(gw_shared_word *words, size_t bit)
{
	return atomic_fetch_and(&words[bit / 64], ~(1ULL << bit % 64)) >> (bit % 64) & 1;
}

/** gw_shared_bits_set() - @count from @first. Return: how many were not. */
size_t gw_shared_bits_set(gw_shared_word *words, size_t first, size_t count);

/** gw_shared_bits_clear() - @count from @first. Return: how many were set. */
size_t gw_shared_bits_clear(gw_shared_word *words, size_t first, size_t count);

/** gw_shared_bits_next() - the first in [from, end) that is @value, or @end. */
size_t gw_shared_bits_next(const gw_shared_word *words, size_t from, size_t end, bool value);

#endif
