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

/** gw_hash_page() - digest of one page's GW_PAGE_SIZE bytes; the zero page's is zero. */
struct gw_digest gw_hash_page(enum gw_hash hash, const void *page);

/** gw_hash_name() - as --hash spells it. */
const char *gw_hash_name(enum gw_hash hash);

/** gw_hash_parse() - the reverse. 0, or -EINVAL with a message naming the choices. */
int gw_hash_parse(const char *name, enum gw_hash *hash);

#endif
