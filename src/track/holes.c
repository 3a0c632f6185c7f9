// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * holes.c - pages emptied behind the tracker's back; see holes.h.
 *
 * A balloon or free-page reporting punches clean pages: their marker stays, so
 * they look unwritten while their content has become zero (F8). In a RAM file
 * of huge pages the kernel may only zero the page and keep the huge page
 * whole, which no scan could tell; such a guest gets a RAM file of small pages
 * (vm/define.c: gw_definition_discards()).
 */
#include "holes.h"

static void note_hole(const struct gw_digests *held, size_t from, size_t to, struct gw_bitmap *due)
{
	for (size_t page = from; page < to; page++)
		if (!gw_digest_is_zero(held->table[page]))
			gw_bitmap_set(due, page);
}

void gw_holes_due(const struct gw_ram *ram, const struct gw_bitmap *unmapped,
		  const struct gw_digests *held, struct gw_bitmap *due)
{
	for (unsigned int i = 0; i < ram->nr_files; i++) {
		const struct gw_ram_file *f = &ram->files[i];
		size_t end = f->first_page + f->nr_pages, start, stop;

		gw_bitmap_for_each_run (unmapped, f->first_page, end, start, stop) {
			size_t page = start, data_end;

			while (page < stop) {
				size_t data = gw_ram_next_data(ram, page, stop, &data_end);

				note_hole(held, page, data, due);
				page = data < stop ? data_end : stop;
			}
		}
	}
}
