// SPDX-License-Identifier: GPL-2.0-or-later
/* ram.c - memory in RAM files; see ram.h. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "ram.h"

char *gw_ram_file_folder(const char *folder, const char *name)
{
	return gw_path("%s/vm/%s", folder, name);
}

static const struct gw_ram *ram_of(const struct gw_memory *m)
{
	return (const struct gw_ram *)((const char *)m - offsetof(struct gw_ram, memory));
}

static int fd_of(const struct gw_memory *m, unsigned int block)
{
	return ram_of(m)->files[block].fd;
}

static int read_pages(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		      void *buf)
{
	int rc = gw_pread_all(fd_of(m, block), buf, count * GW_PAGE_SIZE,
			      (off_t)(page * GW_PAGE_SIZE));

	return rc ? gw_fail_prefix(rc, "RAM file of %s: ", m->blocks[block].id) : 0;
}

static int write_pages(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		       const void *buf)
{
	int rc = gw_pwrite_all(fd_of(m, block), buf, count * GW_PAGE_SIZE,
			       (off_t)(page * GW_PAGE_SIZE));

	if (rc == -ENOSPC)
		return gw_fail(rc, "the RAM file system is full; free memory on this host");
	return rc ? gw_fail_prefix(rc, "RAM file of %s: ", m->blocks[block].id) : 0;
}

static int punch(const struct gw_memory *m, unsigned int block, size_t page, size_t count)
{
	if (!fallocate(fd_of(m, block), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       (off_t)(page * GW_PAGE_SIZE), (off_t)(count * GW_PAGE_SIZE)))
		return 0;
	return gw_fail(-errno, "RAM file of %s: punch hole: %s", m->blocks[block].id,
		       strerror(errno));
}

/* From the file's tree: it takes no longer where there is much to pass over. */
static int find_data(const struct gw_memory *m, unsigned int block, size_t page, size_t *data)
{
	const struct gw_memory_block *b = &m->blocks[block];
	off_t at = lseek(fd_of(m, block), (off_t)(page * GW_PAGE_SIZE), SEEK_DATA);

	if (at < 0 && errno != ENXIO)
		return gw_fail(-errno, "RAM file of %s: where its data is: %s", b->id,
			       strerror(errno));
	*data = at < 0 || (uint64_t)at > b->size ? b->nr_pages : (size_t)at / GW_PAGE_SIZE;
	return 0;
}

/* A page that is partly filled is none. */
static int find_hole(const struct gw_memory *m, unsigned int block, size_t page, size_t *hole)
{
	off_t at = lseek(fd_of(m, block), (off_t)(page * GW_PAGE_SIZE), SEEK_HOLE);

	if (at < 0)
		return gw_fail(-errno, "RAM file of %s: where its holes are: %s",
			       m->blocks[block].id, strerror(errno));
	*hole = ((size_t)at + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE;
	return 0;
}

static uint64_t resident(const struct gw_memory *m, unsigned int block)
{
	struct stat st;

	return fstat(fd_of(m, block), &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static const struct gw_memory_ops ram_ops = {
	.read = read_pages,
	.write = write_pages,
	.punch = punch,
	.find_data = find_data,
	.find_hole = find_hole,
	.resident = resident,
	.file = fd_of,
};

int gw_ram_add(struct gw_ram *ram, const char *id, int fd, uint64_t size, uint64_t hva)
{
	int block = gw_memory_add(&ram->memory, id, size);

	if (block < 0)
		return block;
	ram->memory.ops = &ram_ops;
	ram->files[block] = (struct gw_ram_file){ .fd = fd, .hva = hva };
	return 0;
}

void gw_ram_close(struct gw_ram *ram)
{
	for (unsigned int i = 0; i < ram->memory.nr_blocks; i++)
		if (ram->files[i].fd >= 0)
			close(ram->files[i].fd);
	memset(ram, 0, sizeof(*ram));
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
		for (unsigned int i = 0; i < ram->memory.nr_blocks; i++)
			if (!fstat(ram->files[i].fd, &st) && major(st.st_dev) == maj &&
			    minor(st.st_dev) == min)
				return true;
	}
	return false;
}
