// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image_disk.c - kept images on disk.
 *
 * LIB/image/NAME has manifest.json, written last, the ledger as it is, and each
 * RAM file as ID.zst, in the byte order of this host:
 *
 *   head    magic, format, bytes and chunks of the RAM file; a checksum of all
 *           of the head and the table that is not this field
 *   table   an entry for each chunk: offset and length in this file, checksum
 *           of those bytes; length 0: the chunk is a hole
 *   chunks  one zstd frame each, or the bytes themselves if that is no longer
 *
 * Each chunk stands alone: one that is damaged becomes a hole, hence absent, and
 * costs nothing but itself. Files and folder are synced before the manifest gets
 * its name: after a power cut there is an image or none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "image_internal.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "xxh.h"
#include "zstd_frame.h"

#define MAGIC  "GWramzst"
#define FORMAT 1
#define LEVEL  1 /* of zstd: the disk is slower */

struct head {
	char magic[8];
	uint32_t format;
	uint32_t reserved;
	uint64_t size;	 /* bytes of the RAM file */
	uint64_t chunks; /* entries of the table */
	uint64_t checksum;
};

struct entry {
	uint64_t offset;
	uint64_t length;
	uint64_t checksum;
};

/* One file that is written or read. */
struct packed {
	int fd;
	struct head head;
	struct entry *table;
	ZSTD_CCtx *cctx;
	ZSTD_DCtx *dctx;
	uint8_t *plain; /* a chunk */
	uint8_t *frame; /* the same, compressed */
};

/* Without a message: who set the deadline knows what it means. */
static bool late(int64_t deadline)
{
	return deadline != GW_FOREVER && gw_now() > deadline;
}

static size_t chunks_of(uint64_t size)
{
	return (size + GW_CHUNK_SIZE - 1) / GW_CHUNK_SIZE;
}

/* Bytes of chunk @i. */
static size_t chunk_bytes(const struct packed *p, size_t i)
{
	const uint64_t left = p->head.size - i * GW_CHUNK_SIZE;

	return left < GW_CHUNK_SIZE ? left : GW_CHUNK_SIZE;
}

static size_t table_bytes(const struct packed *p)
{
	return p->head.chunks * sizeof(*p->table);
}

static void packed_close(struct packed *p)
{
	if (p->fd >= 0)
		close(p->fd);
	free(p->table);
	free(p->plain);
	free(p->frame);
	ZSTD_freeCCtx(p->cctx);
	ZSTD_freeDCtx(p->dctx);
}

static int packed_init(struct packed *p, uint64_t size, int fd)
{
	*p = (struct packed){ .fd = fd };
	memcpy(p->head.magic, MAGIC, sizeof(p->head.magic));
	p->head.format = FORMAT;
	p->head.size = size;
	p->head.chunks = chunks_of(size);
	p->table = calloc(p->head.chunks, sizeof(*p->table));
	p->plain = malloc(GW_CHUNK_SIZE);
	p->frame = malloc(ZSTD_compressBound(GW_CHUNK_SIZE));
	p->cctx = ZSTD_createCCtx();
	p->dctx = ZSTD_createDCtx();
	if (!p->table || !p->plain || !p->frame || !p->cctx || !p->dctx)
		return gw_fail(-ENOMEM, "no memory to move an image");
	return 0;
}

static uint64_t checksum(const struct packed *p)
{
	XXH3_state_t state;

	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, &p->head, offsetof(struct head, checksum));
	XXH3_64bits_update(&state, p->table, table_bytes(p));
	return XXH3_64bits_digest(&state);
}

static char *packed_path(const struct gw_store *st, const struct gw_image *image, unsigned int i)
{
	return gw_path("%s/%s/%s.zst", st->disk, image->name, image->memory[i].id);
}

/* Write chunk @i, which has data, at *@at. */
static int pack_chunk(struct packed *p, int ram, size_t i, uint64_t *at)
{
	const size_t len = chunk_bytes(p, i);
	const uint8_t *out = p->frame;
	size_t packed;
	int rc = gw_pread_all(ram, p->plain, len, (off_t)(i * GW_CHUNK_SIZE));

	if (rc)
		return rc;
	packed = ZSTD_compressCCtx(p->cctx, p->frame, ZSTD_compressBound(GW_CHUNK_SIZE), p->plain,
				   len, LEVEL);
	if (ZSTD_isError(packed) || packed >= len) {
		out = p->plain;
		packed = len;
	}
	p->table[i] = (struct entry){ .offset = *at,
				      .length = packed,
				      .checksum = XXH3_64bits(out, packed) };
	rc = gw_pwrite_all(p->fd, out, packed, (off_t)*at);
	*at += packed;
	return rc;
}

/* Write the RAM file of @block to @path; *@room is what may still be written. */
static int pack_file(const struct gw_ram *ram, unsigned int block, const char *path, uint64_t *room,
		     int64_t deadline)
{
	const struct gw_memory_block *b = &ram->memory.blocks[block];
	struct packed p;
	uint64_t at;
	int rc = packed_init(&p, b->size, gw_own_make(path, O_WRONLY));

	if (!rc && p.fd < 0)
		rc = p.fd;
	at = sizeof(p.head) + table_bytes(&p);
	if (!rc && at > *room)
		rc = gw_fail(-ENOSPC, "larger than what may be used of the disk");
	for (size_t i = 0; !rc && i < p.head.chunks; i++) {
		const int hole = gw_memory_is_hole(&ram->memory, b->first_page + i * GW_CHUNK_PAGES,
						   GW_CHUNK_PAGES);

		if (hole > 0)
			continue;
		rc = hole	      ? hole
		     : late(deadline) ? -ETIME
				      : pack_chunk(&p, ram->files[block].fd, i, &at);
		if (!rc && at > *room)
			rc = gw_fail(-ENOSPC, "larger than what may be used of the disk");
	}
	if (!rc)
		rc = gw_pwrite_all(p.fd, p.table, table_bytes(&p), sizeof(p.head));
	if (!rc) {
		p.head.checksum = checksum(&p);
		rc = gw_pwrite_all(p.fd, &p.head, sizeof(p.head), 0);
	}
	if (!rc && fsync(p.fd))
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	*room -= rc ? 0 : at;
	packed_close(&p);
	return rc;
}

/* The ledger as it is: its checksum was, or will be, compared by who opens it. */
static int copy_ledger(int from, const char *path, uint64_t room)
{
	gw_autofree uint8_t *buf = malloc(GW_CHUNK_SIZE);
	gw_autofd int to = gw_own_make(path, O_WRONLY);
	struct stat st;
	int rc = 0;

	if (!buf)
		return gw_fail(-ENOMEM, "no memory to move an image");
	if (to < 0)
		return to;
	if (fstat(from, &st) || ftruncate(to, st.st_size))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if ((uint64_t)st.st_size > room)
		return gw_fail(-ENOSPC, "larger than what may be used of the disk");
	for (off_t at = 0; !rc && at < st.st_size; at += (off_t)GW_CHUNK_SIZE) {
		size_t len = st.st_size - at < (off_t)GW_CHUNK_SIZE ? (size_t)(st.st_size - at)
								    : GW_CHUNK_SIZE;

		rc = gw_pread_all(from, buf, len, at);
		if (!rc)
			rc = gw_pwrite_all(to, buf, len, at);
	}
	if (!rc && fsync(to))
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	return rc;
}

/* Everything but the manifest. */
static int copy_to_disk(const struct gw_store *st, const struct gw_image *image,
			const struct gw_ram *ram, int ledger, uint64_t room, int64_t deadline)
{
	gw_autofree char *dir = gw_image_disk_dir(st, image->name);
	gw_autofree char *path = gw_path("%s/ledger", dir);
	int rc = gw_image_remove_disk(st, image->name);

	if (!rc)
		rc = gw_own_mkdirs(dir);
	for (unsigned int i = 0; !rc && i < image->nr_memory; i++) {
		gw_autofree char *file = packed_path(st, image, i);

		rc = pack_file(ram, i, file, &room, deadline);
	}
	if (!rc)
		rc = copy_ledger(ledger, path, room);
	if (!rc)
		rc = gw_sync_path(dir);
	return rc ? rc : gw_sync_path(st->disk);
}

/* Whether the kept files are still those that @ram was opened from. */
static bool still_kept(const struct gw_store *st, const struct gw_image *image,
		       const struct gw_ram *ram)
{
	for (unsigned int i = 0; i < image->nr_memory; i++) {
		gw_autofree char *kept = gw_image_kept_path(st, image, i);
		struct stat held, named;

		if (lstat(kept, &named) || fstat(ram->files[i].fd, &held) ||
		    named.st_ino != held.st_ino)
			return false;
	}
	return true;
}

static int stale(const struct gw_image *image)
{
	return gw_fail(-ESTALE, "the image of VM '%s' is in use again", image->name);
}

/* What was copied counts only if the image is what it was when that began. */
static int settle(const struct gw_store *st, const struct gw_image *image, const struct gw_ram *ram)
{
	struct gw_image now;
	int lock = gw_image_lock(st, image->name, true), rc;

	if (lock < 0)
		return lock;
	rc = gw_manifest_read(st, image->name, false, &now);
	if (rc || now.pinned || !gw_manifest_same(&now, image) || !still_kept(st, image, ram)) {
		rc = stale(image);
	} else {
		now.on_disk = true;
		rc = gw_manifest_write(st, &now);
	}
	if (!rc && gw_image_remove_memory(st, image->name))
		gw_warn("%s", gw_error());
	gw_image_unlock(st, image->name, lock);
	return rc;
}

int gw_image_demote(const struct gw_store *st, const struct gw_image *image, uint64_t room,
		    int64_t deadline)
{
	gw_autofree char *path = gw_path("%s/%s/ledger", st->images, image->name);
	int lock = gw_image_lock(st, image->name, false), rc;
	struct gw_ram ram = { 0 };
	struct gw_image now;
	gw_autofd int ledger = -1;

	if (lock < 0)
		return lock;
	rc = gw_manifest_read(st, image->name, false, &now);
	if (!rc && !gw_manifest_same(&now, image))
		rc = stale(image);
	if (!rc)
		rc = gw_image_open_kept(st, image, &ram);
	if (!rc) {
		ledger = gw_own_open(path, O_RDONLY, 0);
		rc = ledger < 0 ? ledger : 0;
	}
	/* Copying takes long: nobody who wants the image waits for it. */
	gw_image_unlock(st, image->name, lock);
	if (!rc)
		rc = copy_to_disk(st, image, &ram, ledger, room, deadline);
	if (!rc)
		rc = settle(st, image, &ram);
	gw_ram_close(&ram);
	if (rc) {
		gw_autofree char *why = strdup(gw_error());

		gw_image_remove_disk(st, image->name);
		gw_fail(rc, "%s", why);
	}
	return rc;
}

/* Read head and table. Whatever is wrong with them: then there is no chunk. */
static bool read_table(struct packed *p)
{
	const struct head expected = p->head;
	struct stat st;

	return p->fd >= 0 && !fstat(p->fd, &st) &&
	       !gw_pread_all(p->fd, &p->head, sizeof(p->head), 0) &&
	       !memcmp(&p->head, &expected, offsetof(struct head, checksum)) &&
	       !gw_pread_all(p->fd, p->table, table_bytes(p), sizeof(p->head)) &&
	       checksum(p) == p->head.checksum;
}

/* Chunk @i into p->plain. False if it is damaged. */
static bool unpack_chunk(struct packed *p, size_t i)
{
	const struct entry e = p->table[i];
	const size_t len = chunk_bytes(p, i);
	uint8_t *into = e.length == len ? p->plain : p->frame;

	if (e.length > len || e.offset > INT64_MAX / 2 ||
	    gw_pread_all(p->fd, into, e.length, (off_t)e.offset) ||
	    XXH3_64bits(into, e.length) != e.checksum)
		return false;
	return e.length == len ||
	       (gw_zstd_is_frame(p->frame, e.length, len) &&
		ZSTD_decompressDCtx(p->dctx, p->plain, len, p->frame, e.length) == len);
}

/* Write what is not zero of chunk @i: holes stay holes. */
static int place_chunk(const struct packed *p, size_t i, int ram)
{
	const size_t pages = chunk_bytes(p, i) / GW_PAGE_SIZE;
	size_t from = 0;
	int rc = 0;

	while (!rc && from < pages) {
		size_t to;

		while (from < pages && gw_page_is_zero(p->plain + from * GW_PAGE_SIZE))
			from++;
		to = from;
		while (to < pages && !gw_page_is_zero(p->plain + to * GW_PAGE_SIZE))
			to++;
		if (to > from)
			rc = gw_pwrite_all(ram, p->plain + from * GW_PAGE_SIZE,
					   (to - from) * GW_PAGE_SIZE,
					   (off_t)(i * GW_CHUNK_SIZE + from * GW_PAGE_SIZE));
		from = to;
	}
	return rc;
}

static int unpack_file(const char *path, const char *ram_path, uint64_t size, int64_t deadline)
{
	gw_autofd int ram = -1;
	struct packed p;
	size_t damaged = 0, i = 0;
	int rc = packed_init(&p, size, gw_own_open(path, O_RDONLY, 0));
	bool good = !rc && read_table(&p);

	/* The VM is only arriving: an old file is nobody's. */
	ram = rc ? -1 : gw_own_make(ram_path, O_RDWR);
	if (!rc && ram < 0)
		rc = gw_fail_prefix(ram, "RAM file ");
	if (!rc && ftruncate(ram, (off_t)size))
		rc = gw_fail(-errno, "RAM file %s: %s", ram_path, strerror(errno));
	for (; !rc && good && i < p.head.chunks && !late(deadline); i++) {
		if (!p.table[i].length)
			continue;
		if (unpack_chunk(&p, i))
			rc = place_chunk(&p, i, ram);
		else
			damaged++;
	}
	if (!rc && (!good || damaged))
		gw_warn("%s: %zu of %zu MiB are damaged and left out", path,
			good ? damaged : chunks_of(size), chunks_of(size));
	if (!rc && good && i < p.head.chunks)
		gw_warn("%s is read so slowly that sending is faster: %zu of %zu MiB are left out",
			path, chunks_of(size) - i, chunks_of(size));
	packed_close(&p);
	return rc;
}

int gw_image_promote(const struct gw_store *st, const struct gw_image *image,
		     char *const ram_paths[], int64_t deadline)
{
	unsigned int i = 0;
	int rc = 0;

	for (; !rc && i < image->nr_memory; i++) {
		gw_autofree char *path = packed_path(st, image, i);

		rc = unpack_file(path, ram_paths[i], image->memory[i].size, deadline);
	}
	while (rc && i--)
		unlink(ram_paths[i]);
	return rc;
}
