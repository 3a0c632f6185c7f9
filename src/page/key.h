/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * key.h - digests keyed with a VM's secret (invariant 15).
 *
 * A guest is an attacker too: a process in it that could make a page with the
 * digest of another's would have its own stand in for it at the destination. With
 * XXH3, whose secret is public, that is arithmetic (F21). So whatever decides what a
 * page is goes by AES-GMAC under keys that are made of the VM's secret: a
 * universal hash with a proven bound (decision 18).
 *
 *   two different pages have one digest with a probability of 2^-119 at most,
 *   two different blocks one of 64 bits with 2^-59, whatever the bytes, as long as
 *   who chose them knows neither secret nor digests
 *
 * Rules: digests are never shown to a guest. The nonce is always the same, which a
 * GMAC that nobody sees may have; no key serves anything else. The digest of a
 * page of zeros is zero, no other's is (digest.h).
 *
 * Threads: a key is only read once it is made; each thread keeps its own cipher.
 */
#ifndef GW_KEY_H
#define GW_KEY_H

#include <stdint.h>

#include "digest.h"

#define GW_SECRET_LEN 32

/* What is digested under keys of their own. */
enum gw_key_use {
	GW_KEY_PAGE,
	GW_KEY_BLOCK,
	GW_KEY_CHUNK,
	GW_KEY_USES,
};

#define GW_KEY_ID_LEN 16

/**
 * struct gw_key - made of a secret.
 * @id: tells keys apart and gives nothing of them away: kept beside digests
 */
struct gw_key {
	uint8_t id[GW_KEY_ID_LEN];
	uint8_t aes[GW_KEY_USES][16];
};

/** gw_secret_make() - a new secret, of random bytes. 0 or -errno. */
int gw_secret_make(uint8_t secret[GW_SECRET_LEN]);

/** gw_secret_format() - as hex digits and NUL into @text. */
void gw_secret_format(const uint8_t secret[GW_SECRET_LEN], char text[2 * GW_SECRET_LEN + 1]);

/** gw_secret_parse() - the reverse. Return: 0 or -EINVAL; the message does not repeat @text. */
int gw_secret_parse(const char *text, uint8_t secret[GW_SECRET_LEN]);

/** gw_key_init() - the key of @secret. 0, or -ENOTSUP if this host's GnuTLS refuses. */
int gw_key_init(struct gw_key *key, const uint8_t secret[GW_SECRET_LEN]);

/** gw_key_page() - digest of one page's GW_PAGE_SIZE bytes. */
struct gw_digest gw_key_page(const struct gw_key *key, const void *page);

/** gw_key_block() - of the GW_BLOCK_SIZE bytes of a block. */
uint64_t gw_key_block(const struct gw_key *key, const void *block);

/** gw_key_chunk() - gw_digest_chunk(), keyed: for --verify. */
struct gw_digest gw_key_chunk(const struct gw_key *key, const uint8_t *bytes, size_t nr);

#endif
