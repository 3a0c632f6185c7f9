/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hash.h - which hash makes a page's digest.
 *
 * AES-GMAC under the VM's key (key.h) is what Godwit uses. The others exist to
 * reproduce the comparison of the paper behind fake dirty pages (its section on hash functions); a
 * digest longer than 128 bits is cut, a shorter one filled with zeros.
 */
#ifndef GW_HASH_H
#define GW_HASH_H

#include "digest.h"
#include "key.h"

enum gw_hash {
	GW_HASH_GMAC, /* keyed: the only one by which it is safe to go */
	GW_HASH_XXH3,
	GW_HASH_SHA1,
	GW_HASH_MD5,
	GW_HASH_CRC32,
	GW_HASH_MURMUR3,
	GW_HASH_COUNT,
};

/**
 * gw_hash_page() - digest of one page's GW_PAGE_SIZE bytes; the zero page's is zero.
 * @key: of GW_HASH_GMAC; the others have none
 *
 * No other page's digest is zero. Under gmac two different pages have the same
 * one with a probability of at most 2^-119, whoever chose their bytes (key.h).
 * Under the others that is 2^-128 by chance (2^-32 for crc32), and nothing against a
 * guest that means it: for xxh3, crc32, murmur3 and md5 such pages are easily
 * made, and then one process' page stands in for another's (F21). They are
 * for measuring, in guests that one trusts.
 *
 * What chance comes to: a page is compared with its own earlier content each
 * time it was written, so n rewritten pages go wrong with n / 2^119. For
 * stage_duplicate.c any two of n pages are compared: n^2 / 2^120. With crc32
 * one rewritten page in 2^32 silently stays old at the destination;
 * stage_duplicate.c does not use it.
 */
struct gw_digest gw_hash_page(enum gw_hash hash, const struct gw_key *key, const void *page);

/** gw_hash_name() - as --hash spells it. */
const char *gw_hash_name(enum gw_hash hash);

/**
 * gw_hash_parse() - the reverse.
 *
 * Return: 0, or -EINVAL with a message: no such hash, or the host's GnuTLS, in
 * FIPS mode, refuses to compute it.
 */
int gw_hash_parse(const char *name, enum gw_hash *hash);

#endif
