// SPDX-License-Identifier: GPL-2.0-or-later
/* hints.c - the table of hints; see hints.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "hints.h"

int gw_hints_init(struct gw_hints *h, size_t nr_pages)
{
	void *map = mmap(NULL, (nr_pages + 1) * sizeof(*h->table), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	memset(h, 0, sizeof(*h));
	if (map == MAP_FAILED)
		return gw_fail(-ENOMEM, "no memory for what disks hold of %zu pages", nr_pages);
	h->table = map;
	h->nr_pages = nr_pages;
	return 0;
}

void gw_hints_clear(struct gw_hints *h)
{
	if (h->table)
		madvise(h->table, (h->nr_pages + 1) * sizeof(*h->table), MADV_DONTNEED);
}

void gw_hints_free(struct gw_hints *h)
{
	if (h->table)
		munmap(h->table, (h->nr_pages + 1) * sizeof(*h->table));
	memset(h, 0, sizeof(*h));
}
