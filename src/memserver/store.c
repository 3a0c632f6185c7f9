// SPDX-License-Identifier: GPL-2.0-or-later
/* store.c - a VM's pages in sparse files; see store.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "store.h"

static int open_block(struct gw_memstore *s, const char *folder, const char *id, uint64_t size)
{
	gw_autofree char *path = gw_path("%s/%s", folder, id);
	gw_autofd int fd = gw_own_open(path, O_RDWR | O_CREAT, 0600);
	int rc;

	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)size))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	rc = gw_ram_add(&s->ram, id, fd, size, 0);
	if (!rc)
		gw_steal_fd(&fd);
	return rc;
}

static int find_pages(struct gw_memstore *s)
{
	struct gw_memory_walk walk = gw_memory_walk(&s->ram.memory);
	size_t first = 0, stop = 0, pages = 0;
	int rc;

	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		gw_bitmap_set_range(&s->here, first, stop - first);
		pages += stop - first;
	}
	s->pages = pages;
	return rc;
}

int gw_memstore_open(struct gw_memstore *s, const char *folder, const struct gw_hold *hold)
{
	int rc = gw_own_mkdirs(folder);

	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->check, NULL);
	s->where = gw_path("%.*s", (int)(strrchr(folder, '/') - folder), folder);
	for (unsigned int i = 0; !rc && i < hold->nr_blocks; i++)
		rc = open_block(s, folder, hold->blocks[i].id, hold->blocks[i].size);
	if (!rc)
		rc = gw_bitmap_init(&s->here, s->ram.memory.nr_pages);
	if (!rc)
		rc = find_pages(s);
	gw_memstore_resize(s, hold->size);
	return rc;
}

void gw_memstore_close(struct gw_memstore *s)
{
	gw_ram_close(&s->ram);
	gw_bitmap_free(&s->here);
	pthread_mutex_destroy(&s->check);
	free(s->where);
	s->where = NULL;
}

void gw_memstore_resize(struct gw_memstore *s, uint64_t size)
{
	s->most = size / GW_PAGE_SIZE;
}

static size_t count_new(const struct gw_memstore *s, size_t page, size_t count)
{
	size_t new = 0;

	for (size_t i = 0; i < count; i++)
		new += !gw_memstore_has(s, page + i);
	return new;
}

/* Of a run that was written in part: what did not lie here before does not now. The message stays.
 */
static void undo(const struct gw_memstore *s, size_t page, size_t count)
{
	char why[GW_ERROR_MAX];

	snprintf(why, sizeof(why), "%s", gw_error());
	for (size_t i = page; i < page + count; i++)
		if (!gw_memstore_has(s, i) && gw_memory_block_of(&s->ram.memory, i))
			gw_memory_punch(&s->ram.memory, i, 1);
	gw_fail(-EIO, "%s", why);
}

/*
 * Whether all that was written is on the disk, or still to be: the kernel drops what a disk would
 * not take, and says so once to whoever asks. Behind the end of the file there is nothing to wait
 * for.
 */
static int check_written(struct gw_memstore *s, size_t page)
{
	const struct gw_memory *m = &s->ram.memory;
	const struct gw_memory_block *b = gw_memory_block_of(m, page);
	gw_locked(&s->check);

	if (!s->failed && b &&
	    sync_file_range(s->ram.files[b - m->blocks].fd, (off_t)b->size, 1,
			    SYNC_FILE_RANGE_WAIT_BEFORE)) {
		gw_err("the disk would not take what was written of %s: %s", b->id,
		       strerror(errno));
		s->failed = true;
	}
	return s->failed ? gw_fail(-EIO, "the disk has lost a part of what lay on it") : 0;
}

int gw_memstore_put(struct gw_memstore *s, size_t page, size_t count, const uint8_t *bytes)
{
	const size_t nr_pages = s->ram.memory.nr_pages;
	size_t new;
	int rc;

	if (page >= nr_pages || count > nr_pages - page)
		return gw_fail(-EPROTO, "pages %zu to %zu are not memory of the VM", page,
			       page + count);
	new = count_new(s, page, count);
	if (new && (s->pages > s->most || new > s->most - s->pages))
		return gw_fail(-ENOSPC, "more pages than the %zu that were promised room", s->most);
	rc = gw_memory_write(&s->ram.memory, page, count, bytes);
	if (rc == -ENOSPC)
		gw_fail(rc, "the file system of %s is full; free some of it there", s->where);
	if (rc) {
		undo(s, page, count);
		return rc;
	}
	for (size_t i = 0; i < count; i++)
		gw_bitmap_put(&s->here, page + i);
	s->pages += new;
	return check_written(s, page);
}

int gw_memstore_get(struct gw_memstore *s, size_t page, size_t count, uint8_t *bytes)
{
	int rc = gw_memory_read(&s->ram.memory, page, count, bytes);

	/* Afterwards: what is read now was not lost later. */
	return rc ? rc : check_written(s, page);
}

/* Pages in a row that lie here may be of two blocks that follow each other. */
static int punch(struct gw_memstore *s, size_t first, size_t stop)
{
	while (first < stop) {
		const struct gw_memory_block *b = gw_memory_block_of(&s->ram.memory, first);
		const size_t end = b ? b->first_page + b->nr_pages : stop;
		const size_t count = (stop < end ? stop : end) - first;
		int rc;

		for (size_t i = first; i < first + count; i++)
			gw_bitmap_take(&s->here, i);
		rc = gw_memory_punch(&s->ram.memory, first, count);
		if (rc)
			return rc;
		s->pages -= count;
		first += count;
	}
	return 0;
}

int gw_memstore_release(struct gw_memstore *s, size_t page, size_t count)
{
	size_t start, stop;
	int rc = 0;

	gw_bitmap_for_each_run(&s->here, page, page + count, start, stop) {
		rc = punch(s, start, stop);
		if (rc)
			break;
	}
	return rc;
}
