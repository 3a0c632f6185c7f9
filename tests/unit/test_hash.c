// SPDX-License-Identifier: GPL-2.0-or-later
/* test_hash.c - each hash against other people's answers, and the rules of zero. */
#include "unit.h"

#include <errno.h>
#include <murmurhash.h>

#include "hash.h"
#include "rng.h"

typedef uint8_t page_t[GW_PAGE_SIZE] __attribute__((aligned(64)));

/* Byte i is i % 251. */
static void make_known(page_t page)
{
	for (unsigned int i = 0; i < GW_PAGE_SIZE; i++)
		page[i] = (uint8_t)(i % 251);
}

/* From xxhsum -H2, sha1sum, md5sum, Python's zlib, and a Python MurmurHash3. */
static void known_answers(void **state)
{
	static const struct {
		enum gw_hash hash;
		uint64_t low, high;
	} known[GW_HASH_COUNT] = {
		{ GW_HASH_XXH3, 0x7135ffa504f1bc71, 0xe12cd72144990fe5 },
		{ GW_HASH_SHA1, 0x4ae663412b8fca92, 0x56ad63e2fde0531b },
		{ GW_HASH_MD5, 0xbd0719c91666c1a0, 0xd522f86c9899e914 },
		{ GW_HASH_CRC32, 0xd465f907, 0 },
		{ GW_HASH_MURMUR3, 0xf727a37f7d8a41bf, 0xe68dc1610a6ae45f },
	};
	page_t page;

	(void)state;
	make_known(page);
	for (size_t i = 0; i < GW_ARRAY_SIZE(known); i++) {
		struct gw_digest d = gw_hash_page(known[i].hash, page);

		if (d.low != known[i].low || d.high != known[i].high)
			fail_msg("%s: 0x%llx, 0x%llx", gw_hash_name(known[i].hash),
				 (unsigned long long)d.low, (unsigned long long)d.high);
	}
}

/* The vector that everybody publishes for MurmurHash3_x64_128, on the library itself. */
static void murmur_vector(void **state)
{
	static const char fox[] = "The quick brown fox jumps over the lazy dog";
	uint64_t out[2];

	(void)state;
	lmmh_x64_128(fox, sizeof(fox) - 1, 0, out);
	assert_true(out[0] == 0xe34bbc7bbc071b6c && out[1] == 0x7a433ca9c49a9347);
}

static void names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++) {
		enum gw_hash hash = GW_HASH_COUNT;

		assert_int_equal(gw_hash_parse(gw_hash_name(i), &hash), 0);
		assert_int_equal(hash, i);
	}
	for (const char *const *bad = (const char *const[]){ "", "xxh", "xxh33", "SHA1", NULL };
	     *bad; bad++) {
		enum gw_hash hash = GW_HASH_COUNT;

		assert_int_equal(gw_hash_parse(*bad, &hash), -EINVAL);
		assert_message("choose xxh3, sha1, md5, crc32 or murmur3");
		assert_int_equal(hash, GW_HASH_COUNT);
	}
}

static void only_zeros_are_zero(void **state)
{
	/* CRC-32 of this page's bytes is 0: the tail was computed for it. */
	static const uint8_t tail[] = { 0x82, 0x3c, 0xc9, 0x52 };
	page_t page = { 0 };

	(void)state;
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++)
		assert_true(gw_digest_is_zero(gw_hash_page(i, page)));
	make_known(page);
	memcpy(page + GW_PAGE_SIZE - sizeof(tail), tail, sizeof(tail));
	assert_true(gw_digest_equal(gw_hash_page(GW_HASH_CRC32, page), (struct gw_digest){ 0, 1 }));
}

/* A digest that overlooked a byte would leave an old page at the destination. */
static void every_bit_counts(void **state)
{
	page_t page;
	struct rng rng = { 9 };

	(void)state;
	rng_fill(&rng, page, sizeof(page));
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++) {
		const struct gw_digest before = gw_hash_page(i, page);

		/* Every third: two or three of each byte's, and every place in a byte. */
		for (unsigned int bit = 0; bit < 8 * GW_PAGE_SIZE; bit += 3) {
			page[bit / 8] ^= (uint8_t)(1U << bit % 8);
			if (gw_digest_equal(gw_hash_page(i, page), before))
				fail_msg("%s overlooks bit %u", gw_hash_name(i), bit);
			page[bit / 8] ^= (uint8_t)(1U << bit % 8);
		}
		assert_true(gw_digest_equal(gw_hash_page(i, page), before));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(murmur_vector),
		cmocka_unit_test(names),
		cmocka_unit_test(only_zeros_are_zero),
		cmocka_unit_test(every_bit_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
