// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hash: what a digest of one page costs with each hash of --hash.
 *
 * Digests random pages through the product's own library, more of them than
 * the caches hold, as a migration meets them. Prints one JSON object: the
 * median of the passes in ns per page, by the hash's name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "clock.h"
#include "hash.h"

#define PAGES  32768UL /* 128 MiB */
#define PASSES 5

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Fills @to with bytes of which no page is like another. */
static int fill(uint8_t *to, size_t bytes)
{
	while (bytes) {
		ssize_t got = getrandom(to, bytes, 0);

		if (got < 0)
			return -1;
		to += got;
		bytes -= (size_t)got;
	}
	return 0;
}

static int64_t one_pass(enum gw_hash hash, const struct gw_key *key, const uint8_t *pages,
			uint64_t *sum)
{
	int64_t began = gw_now();

	for (size_t i = 0; i < PAGES; i++)
		*sum += gw_hash_page(hash, key, pages + i * GW_PAGE_SIZE).low;
	return gw_now() - began;
}

int main(void)
{
	uint8_t *pages = aligned_alloc(GW_PAGE_SIZE, PAGES * GW_PAGE_SIZE);
	const char *separator = "{";
	uint8_t secret[GW_SECRET_LEN];
	struct gw_key key;
	uint64_t sum = 0;

	if (gw_secret_make(secret) || gw_key_init(&key, secret) || !pages ||
	    fill(pages, PAGES * GW_PAGE_SIZE)) {
		fprintf(stderr, "hash: no memory or no random data\n");
		return 1;
	}
	for (enum gw_hash hash = 0; hash < GW_HASH_COUNT; hash++) {
		int64_t ns[PASSES], median;

		if (!gw_hash_name(hash))
			continue;
		for (int i = 0; i < PASSES; i++)
			ns[i] = one_pass(hash, &key, pages, &sum);
		qsort(ns, PASSES, sizeof(*ns), by_time);
		median = ns[PASSES / 2];
		printf("%s\"%s\":%.1f", separator, gw_hash_name(hash),
		       (double)median / (double)PAGES);
		separator = ",";
	}
	puts("}");
	/* Nobody may find out that the digests are not used. */
	fprintf(stderr, "hash: sum %016llx\n", (unsigned long long)sum);
	free(pages);
	return 0;
}
