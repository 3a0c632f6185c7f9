// SPDX-License-Identifier: GPL-2.0-or-later
/* split_mend.c - what a process that paged has left half done when it died; see split.h. */
#include "split.h"

/* A run of data that nobody has finished: what of it is away was leaving, or was being placed. */
static int mend_run(struct gw_split *s, size_t first, size_t stop)
{
	size_t at = first, run, n;
	int rc = 0;

	while (!rc && (n = gw_netpt_next(&s->table, &at, stop, &run)))
		rc = gw_memory_punch(s->memory, run, n);
	return rc;
}

/* What the dead process was placing: it is here if it is in the file. */
static int mend_placing(struct gw_split *s, unsigned int stripe)
{
	uint64_t bits[GW_UNIT_WORDS] = { 0 };
	size_t first, unit, count = gw_netpt_torn(&s->table, stripe, &first);
	int rc = 0;

	if (!count || count > GW_UNIT_PAGES_MAX || !gw_memory_block_of(s->memory, first))
		return 0;
	unit = gw_unit_of(&s->table.units, first);
	rc = s->ops->present(s->env, first, count, bits);
	if (rc)
		return rc;
	for (size_t i = 0; i < count; i++)
		if (bits[i / 64] >> (i % 64) & 1)
			gw_netpt_placed(&s->table, unit, first + i, 1);
	gw_netpt_unplace(&s->table, unit);
	return 0;
}

int gw_split_mend(struct gw_split *s)
{
	struct gw_memory_walk walk = gw_memory_walk(s->memory);
	size_t first, stop;
	int rc = 0;

	for (unsigned int i = 0; !rc && i < GW_NETPT_STRIPES; i++)
		rc = mend_placing(s, i);
	while (!rc && (rc = gw_memory_walk_next(&walk, &first, &stop)) > 0)
		rc = mend_run(s, first, stop);
	for (unsigned int i = 0; !rc && i < s->memory->nr_blocks; i++)
		rc = s->ops->unprotect(s->env, s->memory->blocks[i].first_page,
				       s->memory->blocks[i].nr_pages);
	return rc;
}
