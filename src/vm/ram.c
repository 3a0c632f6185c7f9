// SPDX-License-Identifier: GPL-2.0-or-later
/* ram.c - RAM files and page numbers; see ram.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "ram.h"

char *gw_ram_file_folder(const char *folder, const char *name)
{
	return gw_path("%s/vm/%s", folder, name);
}

int gw_ram_add(struct gw_ram *ram, const char *id, int fd, uint64_t size, uint64_t hva)
{
	struct gw_ram_file *f = &ram->files[ram->nr_files];

	if (ram->nr_files == GW_RAM_FILES_MAX)
		return gw_fail(-E2BIG, "more than %d memory backends", GW_RAM_FILES_MAX);
	if (!size || size % GW_PAGE_SIZE || strlen(id) >= sizeof(f->id))
		return gw_fail(-EINVAL, "memory backend '%.80s' of %llu bytes", id,
			       (unsigned long long)size);
	snprintf(f->id, sizeof(f->id), "%s", id);
	f->fd = fd;
	f->size = size;
	f->hva = hva;
	f->first_page = ram->nr_pages;
	f->nr_pages = size / GW_PAGE_SIZE;
	ram->nr_files++;
	ram->nr_pages += (f->nr_pages + GW_CHUNK_PAGES - 1) / GW_CHUNK_PAGES * GW_CHUNK_PAGES;
	return 0;
}

void gw_ram_close(struct gw_ram *ram)
{
	for (unsigned int i = 0; i < ram->nr_files; i++)
		if (ram->files[i].fd >= 0)
			close(ram->files[i].fd);
	memset(ram, 0, sizeof(*ram));
}

uint64_t gw_ram_bytes(const struct gw_ram *ram)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < ram->nr_files; i++)
		bytes += ram->files[i].size;
	return bytes;
}

int64_t gw_ram_hash_ns(const struct gw_ram *ram)
{
	return 30 * GW_S + (int64_t)(gw_ram_bytes(ram) >> 28) * GW_S;
}

uint64_t gw_ram_resident(const struct gw_ram *ram)
{
	uint64_t bytes = 0;
	struct stat st;

	for (unsigned int i = 0; i < ram->nr_files; i++)
		if (!fstat(ram->files[i].fd, &st))
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

bool gw_ram_has_huge_pages(const struct gw_ram *ram)
{
	gw_autofile FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	struct stat st;

	while (f && fgets(line, sizeof(line), f)) {
		const char *huge = strstr(line, "huge=");
		unsigned int maj, min;

		if (!huge || !strncmp(huge, "huge=never", 10) ||
		    sscanf(line, "%*d %*d %u:%u", &maj, &min) != 2)
			continue;
		for (unsigned int i = 0; i < ram->nr_files; i++)
			if (!fstat(ram->files[i].fd, &st) && major(st.st_dev) == maj &&
			    minor(st.st_dev) == min)
				return true;
	}
	return false;
}

const struct gw_ram_file *gw_ram_file_of(const struct gw_ram *ram, size_t page)
{
	for (unsigned int i = 0; i < ram->nr_files; i++) {
		const struct gw_ram_file *f = &ram->files[i];

		if (page >= f->first_page && page < f->first_page + f->nr_pages)
			return f;
	}
	return NULL;
}

/* The part of [page, page + count) that lies in @f, in bytes of the file. */
static size_t clip(const struct gw_ram_file *f, size_t page, size_t count, off_t *offset)
{
	size_t end = f->first_page + f->nr_pages;

	*offset = (off_t)((page - f->first_page) * GW_PAGE_SIZE);
	if (count > end - page)
		count = end - page;
	return count * GW_PAGE_SIZE;
}

int gw_ram_read(const struct gw_ram *ram, size_t page, size_t count, void *buf)
{
	const struct gw_ram_file *f = gw_ram_file_of(ram, page);
	size_t len = 0;
	off_t offset;
	int rc = 0;

	if (f) {
		len = clip(f, page, count, &offset);
		rc = gw_pread_all(f->fd, buf, len, offset);
	}
	if (len < count * GW_PAGE_SIZE)
		memset((char *)buf + len, 0, count * GW_PAGE_SIZE - len);
	return rc ? gw_fail_prefix(rc, "RAM file of %s: ", f->id) : 0;
}

/* The file and offset of a range that must lie in one file wholly. */
static const struct gw_ram_file *whole(const struct gw_ram *ram, size_t page, size_t count,
				       off_t *offset)
{
	const struct gw_ram_file *f = gw_ram_file_of(ram, page);

	if (!f || clip(f, page, count, offset) != count * GW_PAGE_SIZE)
		return NULL;
	return f;
}

int gw_ram_write(const struct gw_ram *ram, size_t page, size_t count, const void *buf)
{
	off_t offset = 0;
	const struct gw_ram_file *f = whole(ram, page, count, &offset);
	int rc;

	if (!f)
		return gw_fail(-EPROTO, "pages %zu to %zu are not memory of the VM", page,
			       page + count);
	rc = gw_pwrite_all(f->fd, buf, count * GW_PAGE_SIZE, offset);
	if (rc == -ENOSPC)
		return gw_fail(rc, "the RAM file system is full; free memory on this host");
	return rc ? gw_fail_prefix(rc, "RAM file of %s: ", f->id) : 0;
}

int gw_ram_punch(const struct gw_ram *ram, size_t page, size_t count)
{
	off_t offset = 0;
	const struct gw_ram_file *f = whole(ram, page, count, &offset);

	if (!f)
		return gw_fail(-EPROTO, "pages %zu to %zu are not memory of the VM", page,
			       page + count);
	if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
		      (off_t)(count * GW_PAGE_SIZE)))
		return gw_fail(-errno, "RAM file of %s: punch hole: %s", f->id, strerror(errno));
	return 0;
}

/* The first data in @f at or after @offset; @size if there is none. */
static int seek_data(const struct gw_ram_file *f, uint64_t offset, uint64_t *data)
{
	off_t at = lseek(f->fd, (off_t)offset, SEEK_DATA);

	if (at < 0 && errno != ENXIO)
		return gw_fail(-errno, "RAM file of %s: where its data is: %s", f->id,
			       strerror(errno));
	*data = at < 0 || (uint64_t)at > f->size ? f->size : (uint64_t)at;
	return 0;
}

int gw_ram_is_hole(const struct gw_ram *ram, size_t page, size_t count)
{
	const struct gw_ram_file *f = gw_ram_file_of(ram, page);
	uint64_t data = 0;
	off_t offset;
	size_t len;
	int rc;

	if (!f)
		return 1;
	len = clip(f, page, count, &offset);
	rc = seek_data(f, (uint64_t)offset, &data);
	return rc ? rc : data >= (uint64_t)offset + len;
}

int gw_ram_walk_next(struct gw_ram_walk *w, size_t *first, size_t *stop)
{
	while (w->file < w->ram->nr_files) {
		const struct gw_ram_file *f = &w->ram->files[w->file];
		uint64_t data = f->size;
		off_t hole;
		int rc = w->at < f->nr_pages ? seek_data(f, w->at * GW_PAGE_SIZE, &data) : 0;

		if (rc)
			return rc;
		if (data >= f->size) {
			w->file++;
			w->at = 0;
			continue;
		}
		hole = lseek(f->fd, (off_t)data, SEEK_HOLE);
		if (hole < 0)
			return gw_fail(-errno, "RAM file of %s: where its holes are: %s", f->id,
				       strerror(errno));
		*first = f->first_page + (size_t)data / GW_PAGE_SIZE;
		*stop = f->first_page + ((size_t)hole + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE;
		/* Punched between the two: the data was there, and what follows is not known. */
		if (*stop <= *first)
			*stop = *first + 1;
		if (*stop > f->first_page + f->nr_pages)
			*stop = f->first_page + f->nr_pages;
		w->at = *stop - f->first_page;
		return 1;
	}
	return 0;
}
