// SPDX-License-Identifier: GPL-2.0-or-later
/* units.c - pages that move together; see units.h. */
#include <string.h>

#include "units.h"

void gw_units_init(struct gw_units *u, const struct gw_memory *memory, unsigned int pages)
{
	memset(u, 0, sizeof(*u));
	u->memory = memory;
	u->pages = pages;
	for (unsigned int i = 0; i < memory->nr_blocks; i++) {
		u->first[i] = u->nr;
		u->nr += (memory->blocks[i].nr_pages + pages - 1) / pages;
	}
}

size_t gw_unit_of(const struct gw_units *u, size_t page)
{
	unsigned int i = u->memory->nr_blocks - 1;

	while (i && page < u->memory->blocks[i].first_page)
		i--;
	return u->first[i] + (page - u->memory->blocks[i].first_page) / u->pages;
}

size_t gw_unit_pages(const struct gw_units *u, size_t unit, size_t *first)
{
	unsigned int i = u->memory->nr_blocks - 1;
	const struct gw_memory_block *b;
	size_t at;

	while (i && unit < u->first[i])
		i--;
	b = &u->memory->blocks[i];
	at = (unit - u->first[i]) * u->pages;
	*first = b->first_page + at;
	return b->nr_pages - at < u->pages ? b->nr_pages - at : u->pages;
}
