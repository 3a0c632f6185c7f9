// SPDX-License-Identifier: GPL-2.0-or-later
/* samples.c - the blocks as both hosts speak of them, and what to think; see samples.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "samples.h"

#define NAME_MAX_LEN 255

void gw_samples_free(struct gw_samples *s)
{
	json_decref(s->images);
	memset(s, 0, sizeof(*s));
}

char *gw_samples_ask(const struct gw_samples *s)
{
	json_t *list = json_array(), *blocks = NULL;
	uint32_t image = 0;
	char *text;

	for (size_t i = 0; i < s->nr; i++) {
		const json_t *of = json_array_get(s->images, s->at[i].image);

		if (!blocks || s->at[i].image != image) {
			image = s->at[i].image;
			blocks = json_array();
			json_array_append_new(list, json_pack("{s:O,s:O,s:o}", "disk",
							      json_object_get(of, "disk"), "depth",
							      json_object_get(of, "depth"),
							      "blocks", blocks));
		}
		json_array_append_new(blocks, json_integer((json_int_t)s->at[i].offset));
	}
	text = json_dumps(list, JSON_COMPACT);
	json_decref(list);
	return text;
}

static int parse_blocks(struct gw_samples *s, const json_t *blocks)
{
	json_t *block;
	size_t i;

	json_array_foreach(blocks, i, block) {
		const json_int_t offset = json_integer_value(block);

		if (!json_is_integer(block) || offset < 0 || offset % GW_SAMPLE_SIZE ||
		    s->nr == GW_SAMPLES_MAX)
			return gw_fail(-EPROTO, "a block of a disk that cannot be");
		s->at[s->nr++] = (struct gw_sample){
			.image = (uint32_t)json_array_size(s->images) - 1,
			.offset = (uint64_t)offset,
			.digest = GW_DIGEST_UNKNOWN,
		};
	}
	return 0;
}

int gw_samples_parse(const void *text, size_t len, struct gw_samples *s)
{
	json_t *list = json_loadb(text, len, 0, NULL), *of;
	int rc = json_is_array(list) ? 0 : gw_fail(-EPROTO, "a list of blocks that is none");
	size_t i;

	s->nr = 0;
	s->images = json_array();
	json_array_foreach(list, i, of) {
		const json_t *disk = json_object_get(of, "disk");
		const json_t *depth = json_object_get(of, "depth");

		if (!rc && (!json_is_string(disk) || json_string_length(disk) > NAME_MAX_LEN ||
			    !json_is_integer(depth) || i >= GW_SAMPLES_MAX))
			rc = gw_fail(-EPROTO, "blocks of a disk without a name");
		if (rc)
			break;
		json_array_append_new(s->images,
				      json_pack("{s:O,s:O}", "disk", disk, "depth", depth));
		rc = parse_blocks(s, json_object_get(of, "blocks"));
	}
	json_decref(list);
	return rc;
}

void gw_samples_here(struct gw_samples *s, const json_t *ours)
{
	json_t *of, *mine;
	size_t i, k;

	json_array_foreach(s->images, i, of) {
		json_array_foreach(ours, k, mine) {
			if (!json_equal(json_object_get(of, "disk"),
					json_object_get(mine, "disk")) ||
			    !json_equal(json_object_get(of, "depth"),
					json_object_get(mine, "depth")))
				continue;
			json_object_set(of, "file", json_object_get(mine, "file"));
			json_object_set(of, "node", json_object_get(mine, "node"));
			break;
		}
	}
}

static bool unknown(struct gw_digest d)
{
	return gw_digest_equal(d, GW_DIGEST_UNKNOWN);
}

void gw_samples_hear(struct gw_samples *s, const struct gw_digest *theirs, bool first)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->nr; i++) {
		struct gw_sample *b = &s->at[i];

		b->now = theirs[i];
		if (first)
			b->theirs = theirs[i];
		if (unknown(b->first) || unknown(b->now) || gw_digest_equal(b->now, b->first) ||
		    !gw_digest_equal(b->now, b->theirs))
			continue;
		s->at[kept++] = *b;
	}
	s->nr = kept;
}

void gw_samples_judge(struct gw_samples *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->nr; i++)
		if (gw_digest_equal(s->at[i].digest, s->at[i].first))
			s->at[kept++] = s->at[i];
	s->nr = kept;
}

int gw_samples_refuse(const struct gw_samples *s, const char *host)
{
	const struct gw_sample *b = &s->at[0];
	const json_t *of = json_array_get(s->images, b->image);
	size_t differ = 0, empty = 0;

	for (size_t i = 0; i < s->nr; i++) {
		differ += s->at[i].image == b->image;
		empty += s->at[i].image == b->image && gw_digest_is_zero(s->at[i].theirs);
	}
	return gw_fail(
		-ENOTSUP,
		"disk '%.100s' (%.300s) holds something else on host '%s': %zu of the blocks "
		"that were compared differ%s, the first at byte %llu; the image there is "
		"stale or of something else: bring it up to date, or have both hosts use "
		"the same storage, and migrate again",
		json_string_value(json_object_get(of, "disk")),
		json_string_value(json_object_get(of, "file")), host, differ,
		empty == differ ? " and are empty there" : "", (unsigned long long)b->offset);
}
