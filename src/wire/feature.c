// SPDX-License-Identifier: GPL-2.0-or-later
/* feature.c - lists of names between releases; see feature.h. */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "feature.h"

static const char *const names[GW_FEATURE_COUNT] = {
	[GW_FEATURE_KEYED] = "keyed-digests",
	[GW_FEATURE_RUN] = "commit-run",
	[GW_FEATURE_DISKS] = "disk-samples",
	[GW_FEATURE_LATER] = "compared-later",
	[GW_FEATURE_VERIFY] = "verify-together",
	[GW_FEATURE_AGAIN] = "switchover-again",
	[GW_FEATURE_POSTCOPY] = "postcopy",
	[GW_FEATURE_RETURN] = "return-at-once",
	[GW_FEATURE_SPLIT] = "split",
	[GW_FEATURE_CARRIED] = "split-carried",
	[GW_FEATURE_STORAGE] = "copy-storage",
	[GW_FEATURE_DISK_MAP] = "disk-map",
	[GW_FEATURE_PUSH_DISKS] = "postcopy-disks",
};

const char *gw_feature_name(unsigned int feature)
{
	return feature < GW_FEATURE_COUNT ? names[feature] : NULL;
}

json_t *gw_features_json(void)
{
	return gw_names_json(GW_FEATURES_ALL, GW_FEATURE_COUNT, gw_feature_name);
}

json_t *gw_names_json(uint32_t set, unsigned int count, const char *(*name)(unsigned int number))
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < count; i++)
		if (set >> i & 1 && name(i))
			json_array_append_new(list, json_string(name(i)));
	return list;
}

int gw_names_parse(const json_t *list, unsigned int count, const char *(*name)(unsigned int number),
		   uint32_t *set)
{
	const json_t *one;
	size_t k;

	*set = 0;
	if (list && !json_is_array(list))
		return gw_fail(-EPROTO, "a list of names that is none");
	json_array_foreach(list, k, one) {
		if (!json_is_string(one))
			return gw_fail(-EPROTO, "a list of names that has something else in it");
		for (unsigned int i = 0; i < count; i++)
			if (name(i) && !strcmp(name(i), json_string_value(one)))
				*set |= 1U << i;
	}
	return 0;
}
