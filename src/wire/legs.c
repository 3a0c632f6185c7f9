// SPDX-License-Identifier: GPL-2.0-or-later
/* legs.c - what the last moves of a VM took; see legs.h. */
#include <stdlib.h>
#include <string.h>

#include "legs.h"

void gw_legs_add(struct gw_legs *l, uint64_t us)
{
	if (!us || us > GW_LEG_US_MAX)
		return;
	memmove(l->us + 1, l->us, (GW_LEGS_MAX - 1) * sizeof(l->us[0]));
	l->us[0] = (uint32_t)us;
	if (l->nr < GW_LEGS_MAX)
		l->nr++;
}

static int compare(const void *one, const void *other)
{
	const uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

	return a < b ? -1 : a > b;
}

uint32_t gw_legs_median(const struct gw_legs *l)
{
	struct gw_legs sorted = *l;

	if (!l->nr)
		return 0;
	qsort(sorted.us, sorted.nr, sizeof(sorted.us[0]), compare);
	return sorted.us[(sorted.nr - 1) / 2];
}

json_t *gw_legs_json(const struct gw_legs *l)
{
	json_t *list = json_array();

	for (unsigned int i = 0; list && i < l->nr; i++)
		json_array_append_new(list, json_integer(l->us[i]));
	return list;
}

void gw_legs_parse(struct gw_legs *l, const json_t *list)
{
	const size_t n = json_array_size(list);

	*l = (struct gw_legs){ 0 };
	/* From the oldest that counts on, so that the first ends up as the newest. */
	for (size_t i = n < GW_LEGS_MAX ? n : GW_LEGS_MAX; i-- > 0;) {
		const json_int_t us = json_integer_value(json_array_get(list, i));

		if (us > 0)
			gw_legs_add(l, (uint64_t)us);
	}
}
