// SPDX-License-Identifier: GPL-2.0-or-later
/* ledger.c - digests and generations of a VM's memory; see ledger.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "cleanup.h"
#include "codec.h"
#include "error.h"
#include "io.h"
#include "ledger.h"
#include "own.h"
#include "xxh.h"
#include "zstd_frame.h"

#define MAGIC	     "GWledger"
#define FORMAT	     2 /* 1 had digests without a key */
#define PIECE	     4096UL
#define READ_AT_ONCE (64 * PIECE) /* fits into the processor's cache: it is copied from there */
#define LEVEL	     1		  /* of zstd: generations are long runs */
#define TABLE_MAX    (GW_LEDGER_PART * 4 + GW_LEDGER_PART / 8)

struct gw_ledger_head {
	char magic[8];
	uint32_t format;
	uint32_t departures;
	uint64_t nr_pages;
	uint64_t checksum[2]; /* of all that is not this field */
	uint8_t key[GW_KEY_ID_LEN];
	uint8_t ids[GW_DEPARTURES_KEPT][GW_ID_LEN];
};

/* The tables begin at a page boundary. */
#define LEDGER_HEAD \
	((sizeof(struct gw_ledger_head) + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE * GW_PAGE_SIZE)

static size_t digests_at(size_t nr_pages)
{
	return LEDGER_HEAD + (nr_pages * 4 + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE * GW_PAGE_SIZE;
}

static size_t file_size(size_t nr_pages)
{
	return digests_at(nr_pages) + nr_pages * sizeof(struct gw_digest);
}

static char *unsealed_path(const struct gw_ledger *l)
{
	return gw_path("%s.new", l->path);
}

/*
 * The tables, all zero. Never a mapping of the file: on a full file system a
 * store into one, or a look at a hole in one, ends the process, and so does a
 * disk that fails (SIGBUS).
 */
static int make_tables(struct gw_ledger *l)
{
	void *map = mmap(NULL, file_size(l->nr_pages), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return gw_fail(-errno, "no memory for the ledger of %zu pages", l->nr_pages);
	l->head = map;
	l->generations = (uint32_t *)((uint8_t *)map + LEDGER_HEAD);
	l->digests = (struct gw_digest *)((uint8_t *)map + digests_at(l->nr_pages));
	return 0;
}

/* Bytes of the piece at @at: what is zero in such a piece stays a hole, or without memory. */
static size_t piece_at(const struct gw_ledger *l, size_t at)
{
	const size_t left = file_size(l->nr_pages) - at;

	return left < PIECE ? left : PIECE;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

static int write_tables(const struct gw_ledger *l)
{
	const uint8_t *bytes = (const uint8_t *)l->head;
	int rc = 0;

	if (ftruncate(l->fd, (off_t)file_size(l->nr_pages)))
		rc = -errno;
	for (size_t at = 0, n; !rc && at < file_size(l->nr_pages); at += n) {
		n = piece_at(l, at);
		if (!is_zero(bytes + at, n))
			rc = gw_pwrite_all(l->fd, bytes + at, n, (off_t)at);
	}
	return rc ? gw_fail(rc, "ledger %s: %s", l->path, strerror(-rc)) : 0;
}

/* Add @len bytes of the file, from @at on, to its checksum: all of it but the checksum itself. */
static void add_to_checksum(XXH3_state_t *sum, const uint8_t *bytes, size_t at, size_t len)
{
	const size_t field = offsetof(struct gw_ledger_head, checksum);
	const size_t after = field + sizeof(((struct gw_ledger_head *)NULL)->checksum);

	if (at < field)
		XXH3_128bits_update(sum, bytes, field - at < len ? field - at : len);
	if (at + len > after)
		XXH3_128bits_update(sum, bytes + (at < after ? after - at : 0),
				    at < after ? at + len - after : len);
}

/* Its checksum is that of the bytes as they come: what is zero is never touched. */
static int read_tables(struct gw_ledger *l, XXH128_hash_t *sum)
{
	const size_t size = file_size(l->nr_pages);
	gw_autofree uint8_t *buf = malloc(READ_AT_ONCE);
	uint8_t *bytes = (uint8_t *)l->head;
	XXH3_state_t state;
	int rc = 0;

	if (!buf)
		return gw_fail(-ENOMEM, "no memory to read a ledger");
	XXH3_128bits_reset(&state);
	for (size_t from = 0, len; !rc && from < size; from += len) {
		len = size - from < READ_AT_ONCE ? size - from : READ_AT_ONCE;
		rc = gw_pread_all(l->fd, buf, len, (off_t)from);
		if (!rc)
			add_to_checksum(&state, buf, from, len);
		for (size_t at = 0, n; !rc && at < len; at += n) {
			n = piece_at(l, from + at);
			if (!is_zero(buf + at, n))
				memcpy(bytes + from + at, buf + at, n);
		}
	}
	*sum = XXH3_128bits_digest(&state);
	return rc;
}

int gw_ledger_create(struct gw_ledger *l, const char *path, size_t nr_pages)
{
	gw_autofree char *unsealed = NULL;
	int rc;

	memset(l, 0, sizeof(*l));
	l->nr_pages = nr_pages;
	l->fd = -1;
	if (path) {
		l->path = gw_path("%s", path);
		unsealed = unsealed_path(l);
		l->fd = gw_own_make(unsealed, O_RDWR);
		if (l->fd < 0)
			return gw_fail_prefix(l->fd, "ledger ");
	}
	rc = make_tables(l);
	if (rc)
		return rc;
	memcpy(l->head->magic, MAGIC, sizeof(l->head->magic));
	l->head->format = FORMAT;
	l->head->nr_pages = nr_pages;
	return 0;
}

int gw_ledger_seal(struct gw_ledger *l)
{
	gw_autofree char *unsealed = l->path ? unsealed_path(l) : NULL;
	XXH128_hash_t sum;
	XXH3_state_t state;
	int rc;

	XXH3_128bits_reset(&state);
	add_to_checksum(&state, (const uint8_t *)l->head, 0, file_size(l->nr_pages));
	sum = XXH3_128bits_digest(&state);
	l->head->checksum[0] = sum.low64;
	l->head->checksum[1] = sum.high64;
	rc = unsealed ? write_tables(l) : 0;
	if (rc)
		return rc;
	if (unsealed && rename(unsealed, l->path))
		return gw_fail(-errno, "ledger %s: %s", l->path, strerror(errno));
	l->sealed = true;
	return 0;
}

static int damaged(const char *path)
{
	return gw_fail(-EBADMSG, "ledger %s is damaged", path);
}

int gw_ledger_open(struct gw_ledger *l, const char *path)
{
	struct gw_ledger_head head;
	XXH128_hash_t sum = { 0 };
	struct stat st;
	int rc;

	memset(l, 0, sizeof(*l));
	l->path = gw_path("%s", path);
	l->sealed = true;
	l->fd = gw_own_open(path, O_RDONLY, 0);
	if (l->fd < 0)
		return gw_fail_prefix(l->fd, "ledger ");
	if (fstat(l->fd, &st) || (size_t)st.st_size < LEDGER_HEAD ||
	    gw_pread_all(l->fd, &head, sizeof(head), 0) ||
	    memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0)
		return damaged(path);
	if (head.format != FORMAT)
		return gw_fail(-EBADMSG, "ledger %s is of another release of Godwit", path);
	if (head.nr_pages > (uint64_t)st.st_size || file_size(head.nr_pages) != (size_t)st.st_size)
		return damaged(path);
	l->nr_pages = head.nr_pages;
	rc = make_tables(l);
	if (!rc)
		rc = read_tables(l, &sum);
	if (rc)
		return rc;
	mprotect(l->head, file_size(l->nr_pages), PROT_READ);
	if (sum.low64 != head.checksum[0] || sum.high64 != head.checksum[1])
		return damaged(path);
	return 0;
}

void gw_ledger_close(struct gw_ledger *l)
{
	if (l->head)
		munmap(l->head, file_size(l->nr_pages));
	if (l->path && !l->sealed) {
		gw_autofree char *unsealed = unsealed_path(l);

		unlink(unsealed);
	}
	if ((l->head || l->path) && l->fd >= 0)
		close(l->fd);
	free(l->path);
	memset(l, 0, sizeof(*l));
}

uint32_t gw_ledger_departures(const struct gw_ledger *l)
{
	return l->head->departures;
}

const uint8_t *gw_ledger_id(const struct gw_ledger *l, uint32_t number)
{
	const uint32_t newest = l->head->departures;

	if (!number || number > newest || newest - number >= GW_DEPARTURES_KEPT)
		return NULL;
	return l->head->ids[number % GW_DEPARTURES_KEPT];
}

uint32_t gw_ledger_find(const struct gw_ledger *l, const uint8_t id[GW_ID_LEN])
{
	const uint8_t *one;

	for (uint32_t n = l->head->departures; (one = gw_ledger_id(l, n)); n--)
		if (!memcmp(one, id, GW_ID_LEN))
			return n;
	return 0;
}

void gw_ledger_set_key(struct gw_ledger *l, const uint8_t id[GW_KEY_ID_LEN])
{
	memcpy(l->head->key, id, GW_KEY_ID_LEN);
}

bool gw_ledger_has_key(const struct gw_ledger *l, const uint8_t id[GW_KEY_ID_LEN])
{
	return !memcmp(l->head->key, id, GW_KEY_ID_LEN);
}

void gw_ledger_begin(struct gw_ledger *l, uint32_t departures)
{
	l->head->departures = departures;
}

void gw_ledger_add(struct gw_ledger *l, const uint8_t id[GW_ID_LEN])
{
	l->head->departures++;
	memcpy(l->head->ids[l->head->departures % GW_DEPARTURES_KEPT], id, GW_ID_LEN);
}

int gw_ledger_depart(struct gw_ledger *l, const struct gw_ledger *before,
		     const struct gw_digests *now, const uint8_t id[GW_ID_LEN])
{
	uint32_t number;

	if (l->nr_pages != now->nr_pages || (before && before->nr_pages != now->nr_pages))
		return gw_fail(-EINVAL, "a ledger of %zu pages for memory of %zu", l->nr_pages,
			       now->nr_pages);
	if (before) {
		l->head->departures = before->head->departures;
		memcpy(l->head->ids, before->head->ids, sizeof(l->head->ids));
	}
	gw_ledger_add(l, id);
	number = l->head->departures;
	for (size_t page = 0; page < l->nr_pages; page++) {
		const struct gw_digest was = before ? before->digests[page]
						    : (struct gw_digest){ 0 };
		const struct gw_digest is = now->table[page];
		const bool changed = !gw_digest_equal(was, is);
		const uint32_t generation = changed  ? number
					    : before ? before->generations[page]
						     : 0;

		/* What is zero stays without memory. */
		if (generation)
			l->generations[page] = generation;
		if (!gw_digest_is_zero(is))
			l->digests[page] = is;
	}
	return 0;
}

static size_t pages_in_part(const struct gw_ledger *l, size_t first)
{
	return l->nr_pages - first < GW_LEDGER_PART ? l->nr_pages - first : GW_LEDGER_PART;
}

long gw_ledger_pack(const struct gw_ledger *l, size_t first, uint32_t base, uint8_t *out)
{
	const size_t count = pages_in_part(l, first), bits = (count + 7) / 8;
	gw_autofree uint8_t *table = calloc(1, TABLE_MAX);
	uint8_t *at;
	size_t len;

	if (!table)
		return gw_fail(-ENOMEM, "no memory for a part of a ledger");
	for (size_t i = 0; i < count; i++) {
		gw_put32(table + i * 4, l->generations[first + i]);
		if (!gw_digest_is_zero(l->digests[first + i]))
			table[count * 4 + i / 8] |= (uint8_t)(1U << i % 8);
	}
	len = ZSTD_compress(out + 4, ZSTD_compressBound(TABLE_MAX), table, count * 4 + bits, LEVEL);
	if (ZSTD_isError(len))
		return gw_fail(-ENOMEM, "zstd: %s", ZSTD_getErrorName(len));
	gw_put32(out, (uint32_t)len);
	at = out + 4 + len;
	for (size_t i = 0; i < count; i++) {
		const struct gw_digest d = l->digests[first + i];

		if ((base && l->generations[first + i] <= base) || gw_digest_is_zero(d))
			continue;
		gw_put_digest(at, d);
		at += GW_DIGEST_LEN;
	}
	return at - out;
}

static int cannot_be(size_t first)
{
	return gw_fail(-EPROTO, "the part of the ledger from page %zu on cannot be", first);
}

int gw_ledger_unpack(struct gw_ledger *l, size_t first, const struct gw_ledger *base,
		     uint32_t number, const uint8_t *part, size_t len)
{
	struct gw_reader r = { part, len };
	gw_autofree uint8_t *table = malloc(TABLE_MAX);
	const uint8_t *head = gw_take(&r, 4), *frame;
	size_t count, bits;

	if (!table)
		return gw_fail(-ENOMEM, "no memory for a part of a ledger");
	if (!head || first >= l->nr_pages || first % GW_LEDGER_PART ||
	    (base && base->nr_pages != l->nr_pages))
		return cannot_be(first);
	count = pages_in_part(l, first);
	bits = (count + 7) / 8;
	frame = gw_take(&r, gw_get32(head));
	if (!frame || !gw_zstd_is_frame(frame, gw_get32(head), count * 4 + bits) ||
	    ZSTD_decompress(table, TABLE_MAX, frame, gw_get32(head)) != count * 4 + bits)
		return cannot_be(first);
	for (size_t i = 0; i < count; i++) {
		const uint32_t generation = gw_get32(table + i * 4);
		struct gw_digest d = { 0, 0 };

		if (generation > l->head->departures)
			return cannot_be(first);
		if (base && generation <= number) {
			d = base->digests[first + i];
		} else if (table[count * 4 + i / 8] >> i % 8 & 1) {
			const uint8_t *bytes = gw_take(&r, GW_DIGEST_LEN);

			if (!bytes)
				return cannot_be(first);
			d = gw_get_digest(bytes);
		}
		if (generation)
			l->generations[first + i] = generation;
		if (!gw_digest_is_zero(d))
			l->digests[first + i] = d;
	}
	return r.left ? cannot_be(first) : 0;
}
