// SPDX-License-Identifier: GPL-2.0-or-later
/* key.c - keyed digests; see key.h. */
#include <ctype.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "codec.h"
#include "error.h"
#include "key.h"

#define TAG 16

/* A thread's ciphers, of the key that it used last. */
struct ciphers {
	struct gw_key key;
	gnutls_aead_cipher_hd_t handle[GW_KEY_USES];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t mine;

int gw_secret_make(uint8_t secret[GW_SECRET_LEN])
{
	if (getrandom(secret, GW_SECRET_LEN, 0) != GW_SECRET_LEN)
		return gw_fail(-errno, "getrandom: %s", strerror(errno));
	return 0;
}

void gw_secret_format(const uint8_t secret[GW_SECRET_LEN], char text[2 * GW_SECRET_LEN + 1])
{
	for (size_t i = 0; i < GW_SECRET_LEN; i++)
		snprintf(text + 2 * i, 3, "%02x", secret[i]);
}

int gw_secret_parse(const char *text, uint8_t secret[GW_SECRET_LEN])
{
	unsigned int byte;

	if (!text || strlen(text) != 2UL * GW_SECRET_LEN)
		return gw_fail(-EINVAL, "a VM's secret that is none");
	for (size_t i = 0; i < GW_SECRET_LEN; i++) {
		if (!isxdigit((unsigned char)text[2 * i]) ||
		    !isxdigit((unsigned char)text[2 * i + 1]) ||
		    sscanf(text + 2 * i, "%2x", &byte) != 1)
			return gw_fail(-EINVAL, "a VM's secret that is none");
		secret[i] = (uint8_t)byte;
	}
	return 0;
}

static int derive(const uint8_t *secret, const char *label, uint8_t *out, size_t len)
{
	const gnutls_datum_t key = { (uint8_t *)(uintptr_t)secret, GW_SECRET_LEN };
	const gnutls_datum_t info = { (uint8_t *)(uintptr_t)label, (unsigned int)strlen(label) };

	return gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &info, out, len);
}

static void drop_ciphers(void *arg)
{
	struct ciphers *c = arg;

	for (int i = 0; c && i < GW_KEY_USES; i++)
		if (c->handle[i])
			gnutls_aead_cipher_deinit(c->handle[i]);
	free(c);
}

static void make_slot(void)
{
	if (pthread_key_create(&mine, drop_ciphers))
		abort();
}

static int set_key(struct ciphers *c, const struct gw_key *key)
{
	for (int i = 0; i < GW_KEY_USES; i++) {
		const gnutls_datum_t aes = { (uint8_t *)(uintptr_t)key->aes[i],
					     sizeof(key->aes[i]) };

		if (c->handle[i])
			gnutls_aead_cipher_deinit(c->handle[i]);
		c->handle[i] = NULL;
		if (gnutls_aead_cipher_init(&c->handle[i], GNUTLS_CIPHER_AES_128_GCM, &aes))
			return -ENOTSUP;
	}
	c->key = *key;
	return 0;
}

/* This thread's ciphers for @key; NULL if there can be none. */
static struct ciphers *ciphers_of(const struct gw_key *key)
{
	struct ciphers *c;

	pthread_once(&once, make_slot);
	c = pthread_getspecific(mine);
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c || pthread_setspecific(mine, c)) {
			free(c);
			return NULL;
		}
	} else if (!memcmp(&c->key, key, sizeof(*key))) {
		return c;
	}
	return set_key(c, key) ? NULL : c;
}

static int mac(const struct gw_key *key, enum gw_key_use use, const void *bytes, size_t len,
	       struct gw_digest *d)
{
	static const uint8_t nonce[12];
	struct ciphers *c = ciphers_of(key);
	uint8_t tag[TAG];
	size_t made = sizeof(tag);

	if (!c || gnutls_aead_cipher_encrypt(c->handle[use], nonce, sizeof(nonce), bytes, len, TAG,
					     NULL, 0, tag, &made))
		return -ENOTSUP;
	*d = gw_get_digest(tag);
	return 0;
}

/* gw_key_init() has seen it work: what fails now is memory for a thread's first digest. */
static struct gw_digest digest(const struct gw_key *key, enum gw_key_use use, const void *bytes,
			       size_t len)
{
	struct gw_digest d;

	if (mac(key, use, bytes, len, &d))
		abort();
	return d;
}

int gw_key_init(struct gw_key *key, const uint8_t secret[GW_SECRET_LEN])
{
	static const char *const labels[] = {
		[GW_KEY_PAGE] = "godwit page",
		[GW_KEY_BLOCK] = "godwit block",
		[GW_KEY_CHUNK] = "godwit chunk",
	};
	struct gw_digest d;
	int rc = derive(secret, "godwit id", key->id, sizeof(key->id));

	for (int i = 0; !rc && i < GW_KEY_USES; i++)
		rc = derive(secret, labels[i], key->aes[i], sizeof(key->aes[i]));
	if (!rc)
		rc = mac(key, GW_KEY_PAGE, labels, 1, &d);
	return rc ? gw_fail(-ENOTSUP, "this host's GnuTLS refuses AES-GCM or HKDF, by which pages "
				      "are told apart")
		  : 0;
}

struct gw_digest gw_key_page(const struct gw_key *key, const void *page)
{
	struct gw_digest d;

	if (gw_page_is_zero(page))
		return (struct gw_digest){ 0, 0 };
	d = digest(key, GW_KEY_PAGE, page, GW_PAGE_SIZE);
	/* Zero is taken by the zero page. */
	d.high |= gw_digest_is_zero(d);
	return d;
}

uint64_t gw_key_block(const struct gw_key *key, const void *block)
{
	return digest(key, GW_KEY_BLOCK, block, GW_BLOCK_SIZE).low;
}

struct gw_digest gw_key_chunk(const struct gw_key *key, const uint8_t *bytes, size_t nr)
{
	uint8_t pages[GW_CHUNK_PAGES * GW_DIGEST_LEN] = { 0 };

	for (size_t i = 0; bytes && i < nr; i++)
		gw_put_digest(pages + i * GW_DIGEST_LEN,
			      gw_key_page(key, bytes + i * GW_PAGE_SIZE));
	return digest(key, GW_KEY_CHUNK, pages, sizeof(pages));
}
