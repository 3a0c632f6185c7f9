// SPDX-License-Identifier: GPL-2.0-or-later
/* hash.c - the hashes of --hash; see hash.h. */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "hash.h"

static const struct {
	const char *name;
	struct gw_digest (*page)(const void *page);
} hashes[GW_HASH_COUNT] = {
	[GW_HASH_XXH3] = { "xxh3", gw_digest_page },
};

struct gw_digest gw_hash_page(enum gw_hash hash, const void *page)
{
	return hashes[hash].page(page);
}

const char *gw_hash_name(enum gw_hash hash)
{
	return hashes[hash].name;
}

int gw_hash_parse(const char *name, enum gw_hash *hash)
{
	for (unsigned int i = 0; i < GW_HASH_COUNT; i++) {
		if (hashes[i].name && !strcmp(hashes[i].name, name)) {
			*hash = i;
			return 0;
		}
	}
	return gw_fail(-EINVAL, "no hash '%s'; choose xxh3, sha1, md5, crc32 or murmur3", name);
}
