// SPDX-License-Identifier: GPL-2.0-or-later
/* shared_bits.c - bits of many threads; see shared_bits.h. */
#include <sys/mman.h>

#include "shared_bits.h"

gw_shared_word *gw_shared_bits_new(size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void gw_shared_bits_free(gw_shared_word *words, size_t len)
{
	if (words)
		munmap((void *)words, len);
}

/* The bits of [first, stop) that lie in the word of @first. */
static uint64_t mask_of(size_t first, size_t stop)
{
	const size_t n = stop - first < 64 - first % 64 ? stop - first : 64 - first % 64;

	return (n == 64 ? ~0ULL : (1ULL << n) - 1) << first % 64;
}

size_t gw_shared_bits_set(gw_shared_word *words, size_t first, size_t count)
{
	size_t changed = 0;

	for (size_t bit = first; bit < first + count; bit += 64 - bit % 64) {
		const uint64_t mask = mask_of(bit, first + count);
		const uint64_t was = atomic_fetch_or(&words[bit / 64], mask);

		changed += (size_t)__builtin_popcountll(mask & ~was);
	}
	return changed;
}

size_t gw_shared_bits_clear(gw_shared_word *words, size_t first, size_t count)
{
	size_t changed = 0;

	for (size_t bit = first; bit < first + count; bit += 64 - bit % 64) {
		const uint64_t mask = mask_of(bit, first + count);
		const uint64_t was = atomic_fetch_and(&words[bit / 64], ~mask);

		changed += (size_t)__builtin_popcountll(mask & was);
	}
	return changed;
}

size_t gw_shared_bits_next(const gw_shared_word *words, size_t from, size_t end, bool value)
{
	while (from < end) {
		uint64_t word = atomic_load(&words[from / 64]);

		word = (value ? word : ~word) & ~0ULL << from % 64;
		from -= from % 64;
		if (word) {
			from += (size_t)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from += 64;
	}
	return end;
}
