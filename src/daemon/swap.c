// SPDX-License-Identifier: GPL-2.0-or-later
/* swap.c - memory on a disk; see swap.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "page.h"
#include "swap.h"
#include "messages.h"

/* Left for what others write there, and for the file system's own tables. */
#define RESERVE (64ULL << 20)

/* The file of the probe: pages, and which of them are written at first. */
#define PROBE_PAGES 16
#define PROBE_FIRST 4
#define PROBE_COUNT 3

static int check_kind(const char *dir)
{
	struct statfs fs;

	if (statfs(dir, &fs))
		return gw_fail(-errno, "swap-dir %s: %s", dir, strerror(errno));
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC)
		return gw_fail(-EINVAL,
			       "swap-dir %s is a tmpfs, which is memory: name a folder on a disk. "
			       "More of this host's memory is given with memory-server-limit",
			       dir);
	return 0;
}

static int cannot(const char *dir, const char *what)
{
	return gw_fail(-ENOTSUP,
		       "swap-dir %s: its file system %s; name a folder on ext4, XFS or Btrfs", dir,
		       what);
}

/* Where from page @page on there is data, or none; in pages, -1: nowhere. */
static off_t find(int fd, unsigned int page, int whence)
{
	const off_t at = lseek(fd, (off_t)(page * GW_PAGE_SIZE), whence);

	return at < 0 ? -1 : at / (off_t)GW_PAGE_SIZE;
}

/* What memserver/store.h needs: a page can go by itself, and who opens the file sees which did. */
static int probe(const char *dir, int fd)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	uint8_t pages[PROBE_COUNT * GW_PAGE_SIZE], back[GW_PAGE_SIZE];
	const unsigned int middle = PROBE_FIRST + 1;
	const off_t at = (off_t)(middle * GW_PAGE_SIZE);

	memset(pages, 0x5a, sizeof(pages));
	if (ftruncate(fd, (off_t)(PROBE_PAGES * GW_PAGE_SIZE)) ||
	    pwrite(fd, pages, sizeof(pages), (off_t)(PROBE_FIRST * GW_PAGE_SIZE)) != sizeof(pages))
		return gw_fail(errno ? -errno : -EIO, "swap-dir %s: %s", dir,
			       strerror(errno ? errno : EIO));
	if (find(fd, 0, SEEK_DATA) != PROBE_FIRST ||
	    find(fd, PROBE_FIRST, SEEK_HOLE) != PROBE_FIRST + PROBE_COUNT)
		return cannot(dir, "does not tell which pages of a file are there (SEEK_DATA)");
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, GW_PAGE_SIZE))
		return cannot(dir, "cannot free pages of a file (FALLOC_FL_PUNCH_HOLE)");
	if (find(fd, PROBE_FIRST, SEEK_HOLE) != middle ||
	    find(fd, middle, SEEK_DATA) != middle + 1 ||
	    pread(fd, back, sizeof(back), at) != sizeof(back) ||
	    memcmp(back, zeros, sizeof(back)) != 0)
		return cannot(dir, "cannot free a page of 4096 bytes by itself (its blocks are "
				   "larger?)");
	return 0;
}

static int try_file(const char *dir)
{
	gw_autofree char *path = gw_path("%s/.probe", dir);
	gw_autofd int fd = gw_own_make(path, O_RDWR);
	int rc;

	if (fd < 0)
		return fd;
	errno = 0;
	rc = probe(dir, fd);
	unlink(path);
	return rc;
}

/* Two would take each other's for garbage. */
static int claim(const struct gw_paths *p, const char *dir)
{
	gw_autofree char *path = gw_path("%s/run", dir);
	char owner[PATH_MAX];
	ssize_t len;

	if (!symlink(p->run, path))
		return 0;
	if (errno != EEXIST)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	len = readlink(path, owner, sizeof(owner) - 1);
	if (len < 0)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	owner[len] = '\0';
	if (!strcmp(owner, p->run))
		return 0;
	return gw_fail(-EBUSY,
		       "swap-dir %s is that of another godwitd, of %s: name another folder, or, if "
		       "that godwitd is no more, empty this one",
		       dir, owner);
}

int gw_swap_open(struct gw_paths *p, const char *dir, uint64_t limit)
{
	gw_autofree char *real = NULL;
	int rc = gw_own_place(dir, false, &real);

	if (rc)
		return gw_fail_prefix(rc, "swap-dir: ");
	rc = check_kind(real);
	if (!rc)
		rc = try_file(real);
	if (!rc)
		rc = claim(p, real);
	if (rc)
		return rc;
	p->swap = gw_steal(real);
	p->swap_limit = limit;
	return 0;
}

void gw_swap_tidy(const struct gw_paths *p)
{
	DIR *dir = p->swap ? opendir(p->swap) : NULL;
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		gw_autofree char *path = gw_path("%s/%s", p->swap, e->d_name);
		gw_autofree char *record = gw_path("%s/held/%s/record.json", p->run, e->d_name);
		uint8_t id[GW_ID_LEN];

		/* The record is there before the folder, and longer. */
		if (gw_id_parse(e->d_name, id) || !access(record, F_OK) || errno != ENOENT)
			continue;
		gw_info("%s is of a VM that nothing is held of here any more; removed", path);
		if (gw_remove_tree(path))
			gw_warn("%s", gw_error());
	}
	if (dir)
		closedir(dir);
	gw_error_clear();
}

uint64_t gw_swap_free(const struct gw_paths *p)
{
	struct statvfs fs;
	uint64_t left;

	if (!p->swap || statvfs(p->swap, &fs))
		return 0;
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	return left > RESERVE ? left - RESERVE : 0;
}
