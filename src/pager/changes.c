// SPDX-License-Identifier: GPL-2.0-or-later
/* changes.c - which pages of a split VM have changed; see changes.h. */
#include <errno.h>
#include <string.h>

#include "changes.h"
#include "cleanup.h"
#include "error.h"

/* Changed pages of one unit. @due: NULL: nobody wants to know which. */
static int take(struct gw_split *s, size_t unit, size_t first, size_t end, struct gw_bitmap *due)
{
	gw_locked(gw_split_stripe(s, unit));

	while ((first = gw_shared_bits_next(s->changed, first, end, true)) < end) {
		const size_t stop = gw_shared_bits_next(s->changed, first, end, false);
		const int rc = s->ops->protect(s->env, first, stop - first);

		if (rc == -ESRCH)
			s->gone = true;
		if (rc && rc != -EAGAIN)
			return gw_fail(rc, "pages %zu to %zu cannot be write-protected: %s", first,
				       stop, rc == -ESRCH ? "QEMU has ended" : strerror(-rc));
		if (due)
			gw_bitmap_set_range(due, first, stop - first);
		/* QEMU changes its mappings just now: these are looked at again. */
		if (!rc)
			gw_shared_bits_clear(s->changed, first, stop - first);
		first = stop;
	}
	return 0;
}

int gw_changes_take(struct gw_split *s, size_t first, size_t count, struct gw_bitmap *due)
{
	const size_t nr_pages = s->table.nr_pages;
	const size_t end = count < nr_pages - first ? first + count : nr_pages;
	int rc = 0;

	while (!rc && (first = gw_shared_bits_next(s->changed, first, end, true)) < end) {
		const size_t unit = gw_unit_of(&s->table.units, first);
		size_t base, stop = gw_unit_pages(&s->table.units, unit, &base);

		stop += base;
		stop = stop < end ? stop : end;
		rc = take(s, unit, first, stop, due);
		first = stop;
	}
	return rc;
}

int gw_changes_begin(struct gw_split *s)
{
	struct gw_memory_walk walk = gw_memory_walk(s->memory);
	size_t first, stop;
	int rc;

	/* What is not here faults before it is anything; to protect that would cost page tables. */
	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0)
		gw_shared_bits_set(s->changed, first, stop - first);
	return rc ? rc : gw_changes_take(s, 0, s->table.nr_pages, NULL);
}

void gw_changes_peek(const struct gw_split *s, size_t first, size_t count,
		     struct gw_bitmap *changed)
{
	const size_t nr_pages = s->table.nr_pages;
	const size_t end = count < nr_pages - first ? first + count : nr_pages;

	while ((first = gw_shared_bits_next(s->changed, first, end, true)) < end) {
		const size_t stop = gw_shared_bits_next(s->changed, first, end, false);

		gw_bitmap_set_range(changed, first, stop - first);
		first = stop;
	}
}
