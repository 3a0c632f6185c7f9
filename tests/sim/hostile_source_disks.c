// SPDX-License-Identifier: GPL-2.0-or-later
/* hostile_source_disks.c - sources that break the rules about pages of disks (dest/teleport.h). */
#include <string.h>

#include "codec.h"
#include "digest.h"
#include "hostile.h"
#include "page.h"
#include "stage.h"

#define RECORDS_MAX 8U
#define RECORD_LEN  (GW_RECORD_HEADER + 8 + GW_CHUNK_PAGES * GW_DIGEST_LEN)

static bool offered_with(bool wanted, json_t *map)
{
	json_t *json = json_pack("{s:O,s:b,s:i,s:i,s:[s],s:s,s:b}", "definition", sim.definition,
				 "run", 1, "streams", STREAMS, "resident", 0, "features",
				 "keyed-digests", "secret", SECRET, "disks", wanted);
	char *text;

	if (map)
		json_object_set_new(json, "disk-map", map);
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	define(text);
	free(text);
	return expect(control, GW_MSG_READY) && joined_streams();
}

static bool offered(bool wanted)
{
	return offered_with(wanted, NULL);
}

/* @count records of a whole chunk each, whose bodies lack @less bytes. */
static void chunks(unsigned int disk, unsigned int count, size_t less)
{
	static uint8_t payload[RECORDS_MAX * RECORD_LEN];
	uint8_t *at = payload;

	memset(payload, 0, sizeof(payload));
	for (unsigned int i = 0; i < count; i++, at += RECORD_LEN - less) {
		at[0] = GW_STAGE_TELEPORT;
		at[2] = GW_CHUNK_PAGES - 1;
		gw_put32(at + 4, (uint32_t)(RECORD_LEN - GW_RECORD_HEADER - less));
		gw_put64(at + 8, (uint64_t)disk << 48);
	}
	gw_frame_send_buf(streams[1], GW_MSG_PAGES, 0, payload, (size_t)(at - payload));
}

static void unoffered(void)
{
	if (offered(false))
		chunks(0, 1, 0);
}

static void disk_beyond(void)
{
	if (offered(true))
		chunks(7, 1, 0);
}

static void cut_short(void)
{
	if (offered(true))
		chunks(0, 1, 1);
}

static void no_digests(void)
{
	if (offered(true))
		chunks(0, 1, RECORD_LEN - GW_RECORD_HEADER);
}

static void without_end(void)
{
	if (offered(true))
		chunks(1, RECORDS_MAX, 0);
}

static void map_of_nothing(void)
{
	offered_with(false, json_pack("{s:s}", "vda", "replica"));
}

static void no_map(void)
{
	offered_with(true, json_pack("[s]", "vda"));
}

const struct script disk_scripts[] = {
	{ "replicas, and no disks", map_of_nothing, "wants replicas of disks, and no disks" },
	{ "a list of replicas", no_map, "wants replicas of disks, and no disks" },
	{ "pages of disks unasked", unoffered, "which were not offered" },
	{ "pages of a disk beyond", disk_beyond, "disk 7, which was not offered" },
	{ "digests cut short", cut_short, "pages of a disk with a body of" },
	{ "no digests", no_digests, "pages of a disk with a body of 0" },
	{ "pages of disks without end", without_end, "more pages of disks in a round" },
};
const unsigned int nr_disk_scripts = sizeof(disk_scripts) / sizeof(disk_scripts[0]);
