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

#define SECRET "thirty-two bytes of a secret ..."

static struct gw_key key;

static int make_key(void **state)
{
	(void)state;
	return gw_key_init(&key, (const uint8_t *)SECRET);
}

/* From a GMAC in Python on openssl's AES, xxhsum -H2, sha1sum, md5sum, zlib, MurmurHash3. */
static void known_answers(void **state)
{
	static const struct {
		enum gw_hash hash;
		uint64_t low, high;
	} known[GW_HASH_COUNT] = {
		{ GW_HASH_GMAC, 0x4b919707c2fda12b, 0x5ad26fddf838bca3 },
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
		struct gw_digest d = gw_hash_page(known[i].hash, &key, page);

		if (d.low != known[i].low || d.high != known[i].high)
			fail_msg("%s: 0x%llx, 0x%llx", gw_hash_name(known[i].hash),
				 (unsigned long long)d.low, (unsigned long long)d.high);
	}
}

/* The same GMAC of a block, and of a chunk of one page; and what becomes of the secret. */
static void keyed_answers(void **state)
{
	static const uint8_t id[] = { 0x5f, 0xb0, 0x25, 0x13, 0xad, 0xdb, 0x18, 0xd0,
				      0x6f, 0x34, 0xc1, 0xb8, 0x0d, 0x8d, 0xf2, 0x1d };
	const struct gw_digest none = gw_key_chunk(&key, NULL, 0);
	struct gw_digest chunk;
	page_t page;

	(void)state;
	make_known(page);
	assert_memory_equal(key.id, id, sizeof(id));
	assert_true(gw_key_block(&key, page) == 0x8487434243fd548c);
	chunk = gw_key_chunk(&key, page, 1);
	assert_true(chunk.low == 0x59944da89681ed09 && chunk.high == 0x785bd9eaf1bec63e);
	memset(page, 0, sizeof(page));
	assert_true(gw_digest_equal(gw_key_chunk(&key, page, 1), none));
}

static void secrets(void **state)
{
	char text[2 * GW_SECRET_LEN + 1], *bad;
	uint8_t secret[GW_SECRET_LEN], other[GW_SECRET_LEN];
	struct gw_key one, two;
	page_t page;

	(void)state;
	assert_int_equal(gw_secret_make(secret), 0);
	assert_int_equal(gw_secret_make(other), 0);
	assert_memory_not_equal(secret, other, sizeof(secret));
	gw_secret_format(secret, text);
	assert_int_equal(gw_secret_parse(text, other), 0);
	assert_memory_equal(secret, other, sizeof(secret));
	bad = strdup(text);
	bad[5] = ' ';
	assert_int_equal(gw_secret_parse(bad, other), -EINVAL);
	assert_null(strstr(gw_error(), bad + 6));
	assert_int_equal(gw_secret_parse(text + 1, other), -EINVAL);
	assert_int_equal(gw_secret_parse(NULL, other), -EINVAL);
	free(bad);
	/* One bit of it is another key, and turns keep no thread's cipher for the wrong one. */
	make_known(page);
	other[0] ^= 1;
	assert_int_equal(gw_key_init(&one, secret), 0);
	assert_int_equal(gw_key_init(&two, other), 0);
	for (int i = 0; i < 3; i++) {
		const struct gw_digest a = gw_key_page(&one, page), b = gw_key_page(&two, page);

		assert_false(gw_digest_equal(a, b));
		assert_true(gw_digest_equal(a, gw_key_page(&one, page)));
	}
}

static uint64_t word(const void *at)
{
	uint64_t w;

	memcpy(&w, at, sizeof(w));
	return w;
}

/* What one lane of XXH3 adds up of one word under one word of its secret. */
static uint64_t product(uint64_t w, uint64_t k)
{
	return ((w ^ k) & 0xffffffff) * ((w ^ k) >> 32);
}

/*
 * What anybody can do (F21): in each whole KiB of @out 768 bytes of @want, and 256 that
 * make XXH3's sums those of @target. Four words repair two sums of a lane.
 */
static void forge(const uint8_t *secret, const uint8_t *target, const uint8_t *want, uint8_t *out)
{
	memcpy(out, target, GW_PAGE_SIZE);
	for (size_t at = 0; at < 3072; at += 1024) {
		memcpy(out + at, want + at, 768);
		for (size_t lane = 0; lane < 64; lane += 8) {
			uint64_t sum = 0, sum2 = 0, k[4], d[4];

			for (size_t s = 0; s < 16; s++) {
				const uint64_t w = word(target + at + s * 64 + lane);

				sum += w;
				sum2 += product(w, word(secret + s * 8 + lane));
			}
			for (size_t s = 0; s < 12; s++) {
				const uint64_t w = word(out + at + s * 64 + lane);

				sum -= w;
				sum2 -= product(w, word(secret + s * 8 + lane));
			}
			for (size_t i = 0; i < 4; i++)
				k[i] = word(secret + (12 + i) * 8 + lane);
			d[0] = ((sum2 / 0xffffffff) << 32 | 0xffffffff) ^ k[0];
			d[1] = ((sum2 % 0xffffffff) << 32 | 1) ^ k[1];
			sum -= d[0] + d[1];
			d[2] = (k[2] >> 32 << 32) | (uint32_t)(sum - (uint32_t)k[3]);
			d[3] = sum - d[2];
			for (size_t i = 0; i < 4; i++)
				memcpy(out + at + (12 + i) * 64 + lane, &d[i], 8);
		}
	}
}

static void forged_pages(void **state)
{
	/* XXH3's secret: it is in every copy of the library. */
	static const uint8_t secret[192] = {
		0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21,
		0xad, 0x1c, 0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4,
		0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a,
		0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e,
		0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3,
		0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97,
		0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa,
		0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
		0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
		0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff,
		0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16,
		0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc,
		0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16,
		0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
	};
	page_t victim, want, forged;
	struct rng rng = { 13 };

	(void)state;
	rng_fill(&rng, victim, sizeof(victim));
	memset(want, 'a', sizeof(want));
	forge(secret, victim, want, forged);
	assert_memory_not_equal(victim, forged, sizeof(victim));
	assert_true(gw_digest_equal(gw_hash_page(GW_HASH_XXH3, &key, victim),
				    gw_hash_page(GW_HASH_XXH3, &key, forged)));
	/* It is of no use against what Godwit goes by, be it of a page, a block or a chunk. */
	assert_false(gw_digest_equal(gw_hash_page(GW_HASH_GMAC, &key, victim),
				     gw_hash_page(GW_HASH_GMAC, &key, forged)));
	assert_false(gw_digest_equal(gw_key_chunk(&key, victim, 1), gw_key_chunk(&key, forged, 1)));
	assert_int_equal(GW_HASH_GMAC, 0); /* who does not choose has chosen it */
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
		assert_message("choose gmac, xxh3, sha1, md5, crc32 or murmur3");
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
		assert_true(gw_digest_is_zero(gw_hash_page(i, &key, page)));
	make_known(page);
	memcpy(page + GW_PAGE_SIZE - sizeof(tail), tail, sizeof(tail));
	assert_true(gw_digest_equal(gw_hash_page(GW_HASH_CRC32, &key, page),
				    (struct gw_digest){ 0, 1 }));
}

/* A digest that overlooked a byte would leave an old page at the destination. */
static void every_bit_counts(void **state)
{
	page_t page;
	struct rng rng = { 9 };

	(void)state;
	rng_fill(&rng, page, sizeof(page));
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++) {
		const struct gw_digest before = gw_hash_page(i, &key, page);

		/* Every third: two or three of each byte's, and every place in a byte. */
		for (unsigned int bit = 0; bit < 8 * GW_PAGE_SIZE; bit += 3) {
			page[bit / 8] ^= (uint8_t)(1U << bit % 8);
			if (gw_digest_equal(gw_hash_page(i, &key, page), before))
				fail_msg("%s overlooks bit %u", gw_hash_name(i), bit);
			page[bit / 8] ^= (uint8_t)(1U << bit % 8);
		}
		assert_true(gw_digest_equal(gw_hash_page(i, &key, page), before));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(keyed_answers),
		cmocka_unit_test(secrets),
		cmocka_unit_test(forged_pages),
		cmocka_unit_test(murmur_vector),
		cmocka_unit_test(names),
		cmocka_unit_test(only_zeros_are_zero),
		cmocka_unit_test(every_bit_counts),
	};

	return cmocka_run_group_tests(tests, make_key, NULL);
}
