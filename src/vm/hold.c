// SPDX-License-Identifier: GPL-2.0-or-later
/* hold.c - what a main host asks a memory server to hold; see hold.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "feature.h"
#include "hold.h"
#include "io.h"
#include "pipeline.h"

/* A host's name is shown on terminals. */
static bool is_host(const char *text)
{
	if (!text || !*text || strlen(text) >= GW_HOST_MAX)
		return false;
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

static int parse_block(struct gw_hold *hold, const json_t *one, uint64_t *total)
{
	const char *id = json_string_value(json_object_get(one, "id"));
	const json_int_t size = json_integer_value(json_object_get(one, "size"));
	const unsigned int at = hold->nr_blocks;

	if (!gw_name_ok(id))
		return -EPROTO;
	if (size <= 0 || size % (json_int_t)GW_PAGE_SIZE ||
	    (uint64_t)size > GW_HOLD_BYTES_MAX - *total)
		return gw_fail(-EPROTO, "a block '%s' of %lld bytes", id, (long long)size);
	for (unsigned int i = 0; i < at; i++)
		if (!strcmp(hold->blocks[i].id, id))
			return gw_fail(-EPROTO, "two blocks '%s'", id);
	snprintf(hold->blocks[at].id, sizeof(hold->blocks[at].id), "%s", id);
	hold->blocks[at].size = (uint64_t)size;
	hold->nr_blocks++;
	*total += (uint64_t)size;
	return 0;
}

static int parse_names(struct gw_hold *hold, const json_t *json)
{
	int rc = gw_names_parse(json_object_get(json, "features"), GW_FEATURE_COUNT,
				gw_feature_name, &hold->features);

	if (!rc)
		rc = gw_names_parse(json_object_get(json, "stages"), GW_STAGE_MAX, gw_stage_name,
				    &hold->stages);
	if (!rc && !(hold->stages & 1U << GW_STAGE_RAW))
		rc = gw_fail(-EPROTO, "it takes no raw pages");
	return rc;
}

int gw_hold_parse(struct gw_hold *hold, const json_t *json)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	const char *host = json_string_value(json_object_get(json, "host"));
	const json_t *blocks = json_object_get(json, "blocks"), *size, *one;
	uint64_t total = 0;
	int rc = 0;
	size_t i;

	memset(hold, 0, sizeof(*hold));
	size = json_object_get(json, "size");
	if (!gw_name_ok(name))
		return -EPROTO;
	if (!is_host(host))
		return gw_fail(-EPROTO, "a main host without a name");
	if (!json_is_array(blocks) || !json_array_size(blocks) ||
	    json_array_size(blocks) > GW_MEMORY_BLOCKS_MAX)
		return gw_fail(-EPROTO, "a VM of %zu blocks of memory", json_array_size(blocks));
	json_array_foreach(blocks, i, one) {
		if (!rc)
			rc = parse_block(hold, one, &total);
	}
	if (rc)
		return rc;
	if (!json_is_integer(size) || json_integer_value(size) <= 0 ||
	    json_integer_value(size) % (json_int_t)GW_PAGE_SIZE)
		return gw_fail(-EPROTO, "memory for %lld bytes of it",
			       (long long)json_integer_value(size));
	snprintf(hold->name, sizeof(hold->name), "%s", name);
	snprintf(hold->host, sizeof(hold->host), "%s", host);
	hold->carried = json_is_true(json_object_get(json, "carried"));
	hold->size = (uint64_t)json_integer_value(size);
	if (hold->size > total)
		hold->size = total;
	return parse_names(hold, json);
}

json_t *gw_hold_json(const struct gw_hold *hold)
{
	json_t *blocks = json_array();

	for (unsigned int i = 0; i < hold->nr_blocks; i++)
		json_array_append_new(blocks, json_pack("{s:s,s:I}", "id", hold->blocks[i].id,
							"size", (json_int_t)hold->blocks[i].size));
	return json_pack("{s:s,s:s,s:o,s:I,s:o,s:o}", "name", hold->name, "host", hold->host,
			 "blocks", blocks, "size", (json_int_t)hold->size, "features",
			 gw_features_json(), "stages", gw_stages_json());
}

char *gw_hold_text(const char *name, const char *host, const struct gw_memory *memory,
		   uint64_t size, bool carried)
{
	struct gw_hold hold = { .nr_blocks = memory->nr_blocks, .size = size };
	json_t *json;
	char *text;

	gw_copy_whole(hold.name, sizeof(hold.name), name);
	gw_copy_whole(hold.host, sizeof(hold.host), host);
	for (unsigned int i = 0; i < memory->nr_blocks; i++) {
		memcpy(hold.blocks[i].id, memory->blocks[i].id, GW_MEMORY_ID_MAX);
		hold.blocks[i].size = memory->blocks[i].size;
	}
	json = gw_hold_json(&hold);
	if (json && carried)
		json_object_set_new(json, "carried", json_true());
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

int gw_holding_parse(const void *payload, size_t len, char host[GW_HOST_MAX], uint32_t *stages,
		     uint32_t *features)
{
	json_t *json = json_loadb(payload, len, 0, NULL);
	const char *name = json_string_value(json_object_get(json, "host"));
	int rc = is_host(name) ? 0 : gw_fail(-EPROTO, "HOLDING without a host's name");

	if (!rc)
		rc = gw_names_parse(json_object_get(json, "stages"), GW_STAGE_MAX, gw_stage_name,
				    stages);
	if (!rc)
		rc = gw_names_parse(json_object_get(json, "features"), GW_FEATURE_COUNT,
				    gw_feature_name, features);
	if (!rc)
		gw_copy_whole(host, GW_HOST_MAX, name);
	json_decref(json);
	return rc;
}

bool gw_hold_same_blocks(const struct gw_hold *a, const struct gw_hold *b)
{
	if (a->nr_blocks != b->nr_blocks)
		return false;
	for (unsigned int i = 0; i < a->nr_blocks; i++)
		if (a->blocks[i].size != b->blocks[i].size ||
		    strcmp(a->blocks[i].id, b->blocks[i].id) != 0)
			return false;
	return true;
}
