// SPDX-License-Identifier: GPL-2.0-or-later
/* missing.c - which pages have not come yet; see missing.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "missing.h"

#define MAGIC 0x3130676e69737369ULL /* "issing01" */

struct gw_missing_head {
	uint64_t magic;
	uint64_t nr_pages;
	uint8_t id[GW_ID_LEN];
	uint32_t connections;
	_Atomic uint32_t sealed;
	uint64_t pages; /* that were missing when it was sealed */
};

#define HEAD GW_PAGE_SIZE

static int map(struct gw_missing *m, int fd, const char *path, size_t nr_pages)
{
	uint8_t *at;

	m->len = HEAD + gw_shared_bits_len(nr_pages);
	m->nr_pages = nr_pages;
	at = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	m->head = (struct gw_missing_head *)at;
	m->words = (gw_shared_word *)(at + HEAD);
	return 0;
}

int gw_missing_create(struct gw_missing *m, const char *path, const struct gw_memory *memory,
		      const uint8_t id[GW_ID_LEN], unsigned int connections)
{
	const size_t bytes = gw_shared_bits_len(memory->nr_pages);
	gw_autofd int fd = -1;
	int rc;

	memset(m, 0, sizeof(*m));
	if (unlink(path) && errno != ENOENT)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)(HEAD + bytes)))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	rc = map(m, fd, path, memory->nr_pages);
	if (rc)
		return rc;
	m->head->magic = MAGIC;
	m->head->nr_pages = memory->nr_pages;
	m->head->connections = connections;
	memcpy(m->head->id, id, GW_ID_LEN);
	return 0;
}

/* Blocks whose pages follow each other may have a run in common. */
static bool is_memory(const struct gw_memory *memory, size_t first, size_t count)
{
	while (count) {
		const struct gw_memory_block *f = gw_memory_block_of(memory, first);
		size_t n;

		if (!f)
			return false;
		n = f->first_page + f->nr_pages - first;
		n = n < count ? n : count;
		first += n;
		count -= n;
	}
	return true;
}

/* Its bits: none where there is no memory, and no more than there were. */
static int check_bits(struct gw_missing *m, const struct gw_memory *memory)
{
	size_t at = 0, first, n, left = 0;

	while ((n = gw_missing_next(m, &at, &first))) {
		if (!is_memory(memory, first, n))
			return -EINVAL;
		left += n;
	}
	m->left = left;
	return left > m->head->pages ? -EINVAL : 0;
}

int gw_missing_open(struct gw_missing *m, const char *path, const struct gw_memory *memory,
		    const uint8_t id[GW_ID_LEN], unsigned int *connections)
{
	const size_t bytes = gw_shared_bits_len(memory->nr_pages);
	gw_autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	int rc;

	memset(m, 0, sizeof(*m));
	if (fd < 0 || fstat(fd, &st))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size != HEAD + bytes)
		return gw_fail(-EINVAL, "%s is not of this VM's memory", path);
	rc = map(m, fd, path, memory->nr_pages);
	if (rc)
		return rc;
	if (m->head->magic != MAGIC || m->head->nr_pages != memory->nr_pages || !m->head->sealed ||
	    memcmp(m->head->id, id, GW_ID_LEN) != 0 || check_bits(m, memory))
		return gw_fail(-EINVAL, "%s is damaged, or of another migration", path);
	*connections = m->head->connections;
	return 0;
}

void gw_missing_close(struct gw_missing *m)
{
	if (m->head)
		munmap(m->head, m->len);
	memset(m, 0, sizeof(*m));
}

int gw_missing_add(struct gw_missing *m, const struct gw_memory *memory, size_t first, size_t count)
{
	if (!is_memory(memory, first, count))
		return gw_fail(-EPROTO, "pages %zu to %zu are not memory of the VM", first,
			       first + count);
	m->left += gw_shared_bits_set(m->words, first, count);
	return 0;
}

void gw_missing_seal(struct gw_missing *m)
{
	m->head->pages = m->left;
	m->head->sealed = 1;
}

void gw_missing_placed(struct gw_missing *m, size_t first, size_t count)
{
	m->left -= gw_shared_bits_clear(m->words, first, count);
}

size_t gw_missing_next(const struct gw_missing *m, size_t *at, size_t *first)
{
	*first = gw_shared_bits_next(m->words, *at, m->nr_pages, true);
	*at = gw_shared_bits_next(m->words, *first, m->nr_pages, false);
	return *at - *first;
}
