// SPDX-License-Identifier: GPL-2.0-or-later
/* messages.c - names, limits and the OPEN payload; see messages.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "codec.h"
#include "error.h"
#include "messages.h"

#define KIB 1024L

static const struct {
	const char *name;
	long max;
} messages[GW_MSG_COUNT] = {
	[GW_MSG_OPEN] = { "OPEN", GW_OPEN_LEN },
	[GW_MSG_ACCEPT] = { "ACCEPT", 0 },
	[GW_MSG_DEFINE] = { "DEFINE", 1024 * KIB },
	[GW_MSG_READY] = { "READY", 64 * KIB },
	[GW_MSG_ERROR] = { "ERROR", 4 * KIB },
	[GW_MSG_CANCEL] = { "CANCEL", 4 * KIB },
	[GW_MSG_ROUND_END] = { "ROUND_END", 0 },
	[GW_MSG_ROUND_DONE] = { "ROUND_DONE", 8 },
	[GW_MSG_DEVICE] = { "DEVICE", 1024 * KIB },
	[GW_MSG_DEVICE_END] = { "DEVICE_END", 0 },
	[GW_MSG_LOADED] = { "LOADED", 0 },
	[GW_MSG_VERIFY] = { "VERIFY", 1024 * KIB },
	[GW_MSG_VERIFY_END] = { "VERIFY_END", 0 },
	[GW_MSG_VERIFIED] = { "VERIFIED", 0 },
	[GW_MSG_COMMIT] = { "COMMIT", 0 },
	[GW_MSG_RUNNING] = { "RUNNING", 0 },
	/* A chunk's pages, all raw, and a header for each. */
	[GW_MSG_PAGES] = { "PAGES", 1024 * KIB + 4 * KIB },
	[GW_MSG_BARRIER] = { "BARRIER", 0 },
	[GW_MSG_SETTLED] = { "SETTLED", 4 * KIB },
	/* GW_RUNS_MAX runs of pages. */
	[GW_MSG_ABSENT] = { "ABSENT", 48 * KIB },
	[GW_MSG_WANT] = { "WANT", 48 * KIB },
	/* A bit and the digests of 16 blocks for each of GW_WANT_PAGES. */
	[GW_MSG_BLOCKS] = { "BLOCKS", GW_WANT_PAGES / 8 + GW_WANT_PAGES * 128L },
	[GW_MSG_LEDGER] = { "LEDGER", 100 * KIB },
	[GW_MSG_LEDGER_END] = { "LEDGER_END", 0 },
	/* A document of the registry, escaped; as many as a list may have. */
	[GW_MSG_QUERY] = { "QUERY", 64 * KIB },
	[GW_MSG_ANSWER] = { "ANSWER", 4096 * KIB },
	[GW_MSG_WAIT] = { "WAIT", 256 },
	/* GW_SAMPLES_MAX blocks (disk/samples.h) of as many disks at most. */
	[GW_MSG_SAMPLE] = { "SAMPLE", 1024 * KIB },
	[GW_MSG_SAMPLED] = { "SAMPLED", 16 * KIB },
	[GW_MSG_COMPARE] = { "COMPARE", 0 },
	[GW_MSG_COMPARED] = { "COMPARED", 48 * KIB },
	[GW_MSG_HELD] = { "HELD", 0 },
	[GW_MSG_LOAD] = { "LOAD", 0 },
	[GW_MSG_RESUMED] = { "RESUMED", 0 },
	/* GW_RUNS_MAX runs of pages. */
	[GW_MSG_MISSING] = { "MISSING", 48 * KIB },
	[GW_MSG_MISSING_END] = { "MISSING_END", 0 },
	[GW_MSG_REQUEST] = { "REQUEST", 48 * KIB },
	[GW_MSG_PLACED] = { "PLACED", 0 },
	[GW_MSG_COMPLETE] = { "COMPLETE", 0 },
	[GW_MSG_REFUSED] = { "REFUSED", 48 * KIB },
	[GW_MSG_FAULTS] = { "FAULTS", 4096 },
	[GW_MSG_HOLD] = { "HOLD", 64 * KIB },
	[GW_MSG_HOLDING] = { "HOLDING", 4 * KIB },
	[GW_MSG_STORED] = { "STORED", 0 },
	[GW_MSG_RELEASE] = { "RELEASE", 48 * KIB },
	[GW_MSG_DISMISS] = { "DISMISS", 0 },
	[GW_MSG_DISMISSED] = { "DISMISSED", 0 },
	[GW_MSG_HISTORY] = { "HISTORY", 64 * KIB },
	/* GW_RUNS_MAX runs of pages. */
	[GW_MSG_AWAY] = { "AWAY", 48 * KIB },
	[GW_MSG_AWAY_END] = { "AWAY_END", 0 },
	[GW_MSG_STORAGE] = { "STORAGE", 256 * KIB },
};

const char *gw_message_name(unsigned int type)
{
	return type < GW_MSG_COUNT && messages[type].name ? messages[type].name : "unknown";
}

long gw_message_max(unsigned int type)
{
	return type < GW_MSG_COUNT && messages[type].name ? messages[type].max : -1;
}

void gw_open_encode(const struct gw_open *open, uint8_t wire[GW_OPEN_LEN])
{
	memset(wire, 0, GW_OPEN_LEN);
	gw_put16(wire, open->version_min);
	gw_put16(wire + 2, open->version_max);
	gw_put16(wire + 4, open->kind);
	gw_put32(wire + 8, open->stream);
	memcpy(wire + 16, open->id, GW_ID_LEN);
}

int gw_open_decode(const uint8_t *wire, size_t len, struct gw_open *open, uint16_t *version)
{
	if (len != GW_OPEN_LEN)
		return gw_fail(-EPROTO, "OPEN of %zu bytes", len);
	memset(open, 0, sizeof(*open));
	open->version_min = gw_get16(wire);
	open->version_max = gw_get16(wire + 2);
	open->kind = gw_get16(wire + 4);
	open->stream = gw_get32(wire + 8);
	memcpy(open->id, wire + 16, GW_ID_LEN);
	if (!open->version_min || open->version_min > open->version_max)
		return gw_fail(-EPROTO, "OPEN with versions %u to %u", open->version_min,
			       open->version_max);
	if (open->version_min > GW_VERSION || open->version_max < GW_VERSION_MIN)
		return gw_fail(-EPROTONOSUPPORT,
			       "the peer speaks protocol versions %u to %u, this host %u to %u; "
			       "install neighbouring releases of Godwit on both hosts",
			       open->version_min, open->version_max, GW_VERSION_MIN, GW_VERSION);
	*version = open->version_max < GW_VERSION ? open->version_max : GW_VERSION;
	if (open->kind < GW_OPEN_MIGRATE || open->kind >= GW_OPEN_KINDS)
		return gw_fail(-EPROTO, "OPEN of unknown kind %u", open->kind);
	return 0;
}

int gw_id_make(uint8_t id[GW_ID_LEN])
{
	return getrandom(id, GW_ID_LEN, 0) == GW_ID_LEN
		       ? 0
		       : gw_fail(-errno, "getrandom: %s", strerror(errno));
}

void gw_id_format(const uint8_t id[GW_ID_LEN], char text[2 * GW_ID_LEN + 1])
{
	for (int i = 0; i < GW_ID_LEN; i++)
		snprintf(text + (size_t)i * 2, 3, "%02x", id[i]);
}

int gw_id_parse(const char *text, uint8_t id[GW_ID_LEN])
{
	unsigned int byte;

	if (!text || strlen(text) != 2UL * GW_ID_LEN)
		return gw_fail(-EINVAL, "not a migration id: '%s'", text ? text : "");
	for (size_t i = 0; i < GW_ID_LEN; i++) {
		/* sscanf() alone would take spaces, signs and 0x. */
		if (!isxdigit((unsigned char)text[2 * i]) ||
		    !isxdigit((unsigned char)text[2 * i + 1]) ||
		    sscanf(text + 2 * i, "%2x", &byte) != 1)
			return gw_fail(-EINVAL, "not a migration id: '%s'", text);
		id[i] = (uint8_t)byte;
	}
	return 0;
}
