// SPDX-License-Identifier: GPL-2.0-or-later
/* hash.c - the hashes of --hash; see hash.h. */
#include <errno.h>
#include <gnutls/crypto.h>
#include <murmurhash.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "codec.h"
#include "error.h"
#include "hash.h"

/* The first 128 bits of what GnuTLS makes of a page. */
static int cut(gnutls_digest_algorithm_t algorithm, const void *page, struct gw_digest *d)
{
	uint8_t out[20]; /* SHA-1's */
	int rc = gnutls_hash_fast(algorithm, page, GW_PAGE_SIZE, out);

	if (!rc)
		*d = gw_get_digest(out);
	return rc;
}

static int xxh3_page(const void *page, struct gw_digest *d)
{
	*d = gw_digest_page(page);
	return 0;
}

static int sha1_page(const void *page, struct gw_digest *d)
{
	return cut(GNUTLS_DIG_SHA1, page, d);
}

static int md5_page(const void *page, struct gw_digest *d)
{
	return cut(GNUTLS_DIG_MD5, page, d);
}

static int crc32_page(const void *page, struct gw_digest *d)
{
	*d = (struct gw_digest){ crc32(0, page, GW_PAGE_SIZE), 0 };
	return 0;
}

static int murmur3_page(const void *page, struct gw_digest *d)
{
	uint64_t out[2];

	lmmh_x64_128(page, GW_PAGE_SIZE, 0, out);
	*d = (struct gw_digest){ out[0], out[1] };
	return 0;
}

static const struct {
	const char *name;
	int (*page)(const void *page, struct gw_digest *d);
} hashes[GW_HASH_COUNT] = {
	[GW_HASH_GMAC] = { "gmac", NULL },	   [GW_HASH_XXH3] = { "xxh3", xxh3_page },
	[GW_HASH_SHA1] = { "sha1", sha1_page },	   [GW_HASH_MD5] = { "md5", md5_page },
	[GW_HASH_CRC32] = { "crc32", crc32_page }, [GW_HASH_MURMUR3] = { "murmur3", murmur3_page },
};

struct gw_digest gw_hash_page(enum gw_hash hash, const struct gw_key *key, const void *page)
{
	struct gw_digest d;

	if (hash == GW_HASH_GMAC)
		return gw_key_page(key, page);
	if (hash == GW_HASH_XXH3)
		return gw_digest_page(page); /* it has its own eye for zero */
	if (gw_page_is_zero(page))
		return (struct gw_digest){ 0, 0 };
	if (hashes[hash].page(page, &d))
		abort(); /* gw_hash_parse() has seen it work */
	/* Zero is taken by the zero page. */
	d.high |= gw_digest_is_zero(d);
	return d;
}

const char *gw_hash_name(enum gw_hash hash)
{
	return hashes[hash].name;
}

/* GnuTLS on a host in FIPS mode refuses MD5. */
static int try(enum gw_hash hash)
{
	static const uint64_t page[GW_PAGE_SIZE / 8] = { 1 };
	struct gw_digest d;

	/* Whoever makes a key sees whether GMAC works. */
	if (hashes[hash].page && hashes[hash].page(page, &d))
		return gw_fail(-EINVAL, "this host's GnuTLS refuses %s; choose another --hash",
			       hashes[hash].name);
	return 0;
}

int gw_hash_parse(const char *name, enum gw_hash *hash)
{
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++) {
		if (!strcmp(hashes[i].name, name)) {
			*hash = i;
			return try(i);
		}
	}
	return gw_fail(-EINVAL, "no hash '%s'; choose gmac, xxh3, sha1, md5, crc32 or murmur3",
		       name);
}
