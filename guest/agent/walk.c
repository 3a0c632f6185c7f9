// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * All regular files of a file system, one after the other.
 *
 * Only what can be reached: a deleted file that is still open, or one below a folder
 * on which something else is mounted, is not found. Folders are read without
 * changing their time of access; devices and pipes are not even opened.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define DEPTH_MAX 256 /* folders in folders: each has a descriptor, and a buffer of 32 KiB */
/* O_NONBLOCK: who has a lease on a file is not waited for. */
#define LOOK	  (O_RDONLY | O_NOFOLLOW | O_NOATIME | O_NONBLOCK | O_CLOEXEC)

static int walk_folder(struct walk *walk, int fd, int depth);

static int still_wanted(const struct walk *walk)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec >= walk->deadline)
		return -ETIME;
	return walk->report->sink->wanted(walk->report->sink);
}

static bool is_interesting(DIR *folder, const struct dirent *entry)
{
	struct stat status;

	if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
		return false;
	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_REG || entry->d_type == DT_DIR;
	return !fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) &&
	       (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
}

/* What cannot be opened or has just gone is no failure. */
static int walk_entry(struct walk *walk, int folder, const char *name, int depth)
{
	int fd = openat(folder, name, LOOK), error = 0;
	struct stat status;

	if (fd < 0)
		return 0;
	if (!fstat(fd, &status) && status.st_dev == walk->system->dev) {
		if (S_ISDIR(status.st_mode) && depth < DEPTH_MAX)
			return walk_folder(walk, fd, depth + 1);
		if (S_ISREG(status.st_mode) && status.st_blocks)
			error = finder_file(walk, fd, status.st_size);
	}
	close(fd);
	return error;
}

/* Closes @fd. */
static int walk_folder(struct walk *walk, int fd, int depth)
{
	DIR *folder = fdopendir(fd);
	struct dirent *entry;
	int error;

	if (!folder) {
		close(fd);
		return 0;
	}
	error = still_wanted(walk);
	while (!error && (entry = readdir(folder)))
		if (is_interesting(folder, entry))
			error = walk_entry(walk, fd, entry->d_name, depth);
	closedir(folder);
	return error;
}

int walk_files(struct walk *walk)
{
	return walk_entry(walk, AT_FDCWD, walk->system->mounted, 0);
}
