/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hash.h - which hash makes a page's digest.
 *
 * XXH3-128 is what Godwit uses. The others exist to reproduce the comparison
 * of the paper behind fake dirty pages (its section on hash functions); a
 * digest longer than 128 bits is cut, a shorter one filled with zeros.
 */
#ifndef GW_HASH_H
#define GW_HASH_H

#include "digest.h"

enum gw_hash {
	GW_HASH_XXH3,
	GW_HASH_SHA1,
	GW_HASH_MD5,
	GW_HASH_CRC32,
	GW_HASH_MURMUR3,
	GW_HASH_COUNT,
};

/**
 * gw_hash_page() - digest of one page's GW_PAGE_SIZE bytes; the zero page's is zero.
 *
 * No other page's digest is zero. Two different pages have the same one by
 * chance with a probability of 2^-128 (xxh3, murmur3, md5, and sha1 cut to 128
 * bits), or 2^-32 (crc32). A guest can make pages that collide under any of
 * them but sha1, whose collisions are dear, and spoils only its own memory.
 *
 * What that comes to: a page is compared with its own earlier content each
 * time it was written, so n rewritten pages go wrong with n / 2^128. For
 * stage_duplicate.c any two of n pages are compared: n^2 / 2^129. With crc32
 * one rewritten page in 2^32 silently stays old at the destination, which is
 * for measuring and for nothing else; stage_duplicate.c does not use it.
 */
struct gw_digest gw_hash_page(enum gw_hash hash, const void *page);

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
