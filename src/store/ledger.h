/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ledger.h - what a VM's memory was when it last left a host: a digest and a
 * generation for each page.
 *
 * A VM's departures are numbered from 1; each has the id of its migration. The
 * generation of a page is the number of the departure that last found its
 * content changed, 0 if none did. So whoever kept the memory of departure N
 * holds every page whose generation is at most N: two hosts compare one number,
 * where the paper compares two vectors (decision 12).
 *
 * The same ledger lies on both sides of a move: with the kept image (store/image.h)
 * where the VM was, and in the VM's folder where it is, as the state on arrival.
 *
 * Ids tell histories apart. A departure counts only if its id is in the ledger:
 * of a VM that was started anew, that an operator resumed after it had left, or
 * that only has the same name, the numbers may be equal, the ids never are.
 *
 * Its digests are keyed with the VM's secret, which is in the VM's record and
 * travels with DEFINE; the ledger itself only knows the key's id. One of
 * another key, or of a release that did not key them, is not used.
 *
 * File: this header, then at LEDGER_HEAD the generations (4 bytes a page) and
 * the digests (16 bytes a page), in the byte order of this host, sparse. The
 * checksum covers all of it, and the file gets its name last, so it is whole or
 * it is not used (invariant 9). Memory: 20 bytes a page, 0.5 %, and as much again
 * for as long as it is open: it is read and written, never mapped, because a mapping of a
 * sparse file is a process that ends when the file system is full.
 */
#ifndef GW_LEDGER_H
#define GW_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"
#include "key.h"
#include "messages.h"

/* Of the newest departures the ids are kept: an image older than these is not found. */
#define GW_DEPARTURES_KEPT 256

struct gw_ledger_head;

struct gw_ledger {
	char *path; /* NULL: has none, as in a simulation */
	bool sealed;
	int fd;
	size_t nr_pages;
	struct gw_ledger_head *head; /* all of it, in memory of ours */
	uint32_t *generations;
	struct gw_digest *digests;
};

/**
 * gw_ledger_create() - an empty ledger: no departure, all pages zero.
 * @path: where it will be once it is sealed; NULL: nowhere
 *
 * Return: 0 or -errno. gw_ledger_close() either way; it removes what was not sealed.
 */
int gw_ledger_create(struct gw_ledger *l, const char *path, size_t nr_pages);

/**
 * gw_ledger_seal() - it is complete: give it its name, over an older one.
 *
 * This is when it is written. -ENOSPC: the file system is full.
 * Only of RAM's file systems; a copy on a disk is synced by whoever copies (store/image.c).
 */
int gw_ledger_seal(struct gw_ledger *l);

/**
 * gw_ledger_open() - a sealed one, to be read only.
 *
 * Return: 0, -ENOENT, or -EBADMSG for one that is not whole.
 */
int gw_ledger_open(struct gw_ledger *l, const char *path);

void gw_ledger_close(struct gw_ledger *l);

/** gw_ledger_departures() - how often the VM has left a host. */
uint32_t gw_ledger_departures(const struct gw_ledger *l);

/** gw_ledger_id() - id of departure @number (GW_ID_LEN bytes), or NULL if it is not kept. */
const uint8_t *gw_ledger_id(const struct gw_ledger *l, uint32_t number);

/** gw_ledger_find() - number of the departure @id, or 0. */
uint32_t gw_ledger_find(const struct gw_ledger *l, const uint8_t id[GW_ID_LEN]);

/**
 * gw_ledger_set_key() - its digests are made with the key of this id (page/key.h).
 * gw_ledger_has_key() - whether they are: else they tell nothing.
 */
void gw_ledger_set_key(struct gw_ledger *l, const uint8_t id[GW_KEY_ID_LEN]);
bool gw_ledger_has_key(const struct gw_ledger *l, const uint8_t id[GW_KEY_ID_LEN]);

/** gw_ledger_begin() - there were @departures before those that are added, of unknown ids. */
void gw_ledger_begin(struct gw_ledger *l, uint32_t departures);

/** gw_ledger_add() - one more departure. Only before it is sealed. */
void gw_ledger_add(struct gw_ledger *l, const uint8_t id[GW_ID_LEN]);

/**
 * gw_ledger_depart() - fill in @l at departure @id.
 * @before: the ledger of the arrival, or NULL if there is none
 * @now: digests of all pages at the guest's stop
 *
 * Raises the generation of each page whose digest is not what it was on arrival.
 */
int gw_ledger_depart(struct gw_ledger *l, const struct gw_ledger *before,
		     const struct gw_digests *now, const uint8_t id[GW_ID_LEN]);

/*
 * A ledger on the wire: parts of GW_LEDGER_PART pages (the last may have fewer).
 *
 *   bytes
 *       4  length of the zstd frame
 *          one zstd frame of: the pages' generations, 4 bytes each; a bit per
 *          page, set if its digest is not zero
 *      16  each: the digests of those pages that have the bit set and a
 *          generation above @base, in order; the reader has the others
 */
#define GW_LEDGER_PART	   (16UL * GW_CHUNK_PAGES)
#define GW_LEDGER_PART_MAX (4 + GW_LEDGER_PART * (4 + 16) + GW_LEDGER_PART / 8 + 1024)

/**
 * gw_ledger_pack() - the part that begins at page @first, a multiple of GW_LEDGER_PART.
 * @base: the departure whose ledger the reader has, or 0
 * @out: GW_LEDGER_PART_MAX bytes
 *
 * Return: bytes, or -errno.
 */
long gw_ledger_pack(const struct gw_ledger *l, size_t first, uint32_t base, uint8_t *out);

/**
 * gw_ledger_unpack() - the reverse, into @l, which is being made.
 * @base: the ledger of departure @number that the digests are left out of, or NULL and 0
 *
 * Trusts nothing (invariant 10). Return: 0, or -EPROTO with what is wrong.
 */
int gw_ledger_unpack(struct gw_ledger *l, size_t first, const struct gw_ledger *base,
		     uint32_t number, const uint8_t *part, size_t len);

#endif
