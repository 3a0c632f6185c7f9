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

/* Set in @due the pages of [from, to), all holes, that are held with content. */
static void note_hole(const struct gw_digests *held, size_t from, size_t to, struct gw_bitmap *due)
{
	size_t start, stop;

	gw_bitmap_for_each_run(&held->filled, from, to, start, stop)
		gw_bitmap_set_range(due, start, stop - start);
}

/* The same for [page, end), which may hold data too. */
static void note_holes(const struct gw_ram *ram, const struct gw_digests *held, size_t page,
		       size_t end, struct gw_bitmap *due)
{
	size_t data_end;

	while (page < end) {
		size_t data = gw_ram_next_data(ram, page, end, &data_end);

		note_hole(held, page, data, due);
		page = data < end ? data_end : end;
	}
}

void gw_holes_due(const struct gw_ram *ram, const struct gw_bitmap *unmapped,
		  const struct gw_digests *held, struct gw_bitmap *due)
{
	for (unsigned int i = 0; i < ram->nr_files; i++) {
		const struct gw_ram_file *f = &ram->files[i];
		size_t end = f->first_page + f->nr_pages, from, to, start, stop;

		gw_bitmap_for_each_run(unmapped, f->first_page, end, from, to)
			gw_bitmap_for_each_run(&held->filled, from, to, start, stop)
				note_holes(ram, held, start, stop, due);
	}
}
