// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_ledger.c - a part of a peer's ledger into gw_ledger_unpack().
 *
 *   1 byte   bits: 1 the last part, else the first; 2 with a base; 4 the table is to
 *            be compressed here, so that mutations reach what is behind zstd
 *   then     the part; or with bit 4 two bytes of length, as much of the table, zeros
 *            up to its size, and the digests
 *
 * What is accepted must name no departure that was not, leave the pages of other
 * parts alone, and come out of a pack and an unpack as it was.
 */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec.h"
#include "fuzz.h"
#include "ledger.h"

#define LAST	   GW_LEDGER_PART
#define PAGES	   (GW_LEDGER_PART + 200)
#define DEPARTURES 5
#define NUMBER	   2 /* of the base */

static struct gw_ledger ledger, again, base;
static uint8_t part[2 * GW_LEDGER_PART_MAX], packed[GW_LEDGER_PART_MAX];

static void make(struct gw_ledger *l, unsigned int departures)
{
	uint8_t id[GW_ID_LEN] = { 0 };

	if (gw_ledger_create(l, NULL, PAGES))
		abort();
	for (unsigned int i = 1; i <= departures; i++) {
		id[0] = (uint8_t)i;
		gw_ledger_add(l, id);
	}
}

static void clear(struct gw_ledger *l)
{
	memset(l->generations, 0, PAGES * sizeof(*l->generations));
	memset(l->digests, 0, PAGES * sizeof(*l->digests));
}

static size_t compress_table(const uint8_t *data, size_t size, size_t count)
{
	static uint8_t table[GW_LEDGER_PART * 4 + GW_LEDGER_PART / 8];
	const size_t len = count * 4 + (count + 7) / 8;
	size_t given, frame;

	if (size < 2)
		return 0;
	given = gw_get16(data);
	data += 2;
	size -= 2;
	given = given < size ? given : size;
	memset(table, 0, sizeof(table));
	memcpy(table, data, given < len ? given : len);
	frame = ZSTD_compress(part + 4, GW_LEDGER_PART_MAX, table, len, 1);
	if (ZSTD_isError(frame))
		abort();
	gw_put32(part, (uint32_t)frame);
	memcpy(part + 4 + frame, data + given, size - given);
	return 4 + frame + size - given;
}

static void check(size_t first, size_t count)
{
	long len;

	for (size_t page = 0; page < PAGES; page++) {
		const bool ours = page >= first && page < first + count;

		if (ledger.generations[page] > DEPARTURES ||
		    (!ours &&
		     (ledger.generations[page] || !gw_digest_is_zero(ledger.digests[page]))))
			abort();
	}
	len = gw_ledger_pack(&ledger, first, 0, packed);
	clear(&again);
	if (len < 0 || gw_ledger_unpack(&again, first, NULL, 0, packed, (size_t)len) ||
	    memcmp(ledger.generations, again.generations, PAGES * sizeof(*again.generations)) !=
		    0 ||
	    memcmp(ledger.digests, again.digests, PAGES * sizeof(*again.digests)) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t bits = size ? *data : 0;
	const size_t first = bits & 1 ? LAST : 0, count = bits & 1 ? PAGES - LAST : GW_LEDGER_PART;
	size_t len;

	if (!size || size > sizeof(part) / 2)
		return 0;
	if (!ledger.head) {
		make(&ledger, DEPARTURES);
		make(&again, DEPARTURES);
		make(&base, NUMBER);
		for (size_t page = 0; page < PAGES; page++)
			base.digests[page] = (struct gw_digest){ page, 1 };
	}
	if (bits & 4) {
		len = compress_table(data + 1, size - 1, count);
	} else {
		len = size - 1;
		memcpy(part, data + 1, len);
	}
	clear(&ledger);
	if (!gw_ledger_unpack(&ledger, first, bits & 2 ? &base : NULL, bits & 2 ? NUMBER : 0, part,
			      len))
		check(first, count);
	return 0;
}
