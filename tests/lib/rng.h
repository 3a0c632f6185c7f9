/* SPDX-License-Identifier: GPL-2.0-or-later */
/* rng.h - repeatable random numbers: the same seed gives the same test, everywhere. */
#ifndef TEST_RNG_H
#define TEST_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
	uint64_t state;
};

/** rng_next() - 64 random bits (splitmix64). */
static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/** rng_below() - a number in [0, n); 0 for n = 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}

/** rng_one_in() - true once in @n times. */
static inline bool rng_one_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

/** rng_fill() - @len random bytes. */
static inline void rng_fill(struct rng *r, void *buf, size_t len)
{
	uint8_t *at = buf;

	while (len) {
		uint64_t word = rng_next(r);
		size_t n = len < sizeof(word) ? len : sizeof(word);

		memcpy(at, &word, n);
		at += n;
		len -= n;
	}
}

#endif
