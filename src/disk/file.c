// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * file.c - the files that a QEMU has open; see view.h.
 *
 * A file is not opened by its name: that may be another's by now.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "view.h"

static bool same_file(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
		return a->st_rdev == b->st_rdev;
	return S_ISREG(a->st_mode) && S_ISREG(b->st_mode) && a->st_dev == b->st_dev &&
	       a->st_ino == b->st_ino;
}

/* The name, as its process sees it, absolute; caller frees. */
static char *whole_name(pid_t pid, const char *name)
{
	gw_autofree char *link = gw_path("/proc/%d/cwd", (int)pid);
	char cwd[4096];
	ssize_t n = name[0] == '/' ? 0 : readlink(link, cwd, sizeof(cwd) - 1);

	if (n < 0)
		return NULL;
	cwd[n] = '\0';
	return n ? gw_path("%s/%s", strcmp(cwd, "/") ? cwd : "", name) : strdup(name);
}

int gw_file_open(pid_t pid, const char *name)
{
	gw_autofree char *whole = whole_name(pid, name);
	gw_autofree char *path = gw_path("/proc/%d/root%s", (int)pid, whole ? whole : "");
	gw_autofree char *gone = gw_path("%s (deleted)", whole ? whole : "");
	gw_autofree char *folder = gw_path("/proc/%d/fd", (int)pid);
	struct stat named, open_now;
	const bool exists = whole && !stat(path, &named);
	DIR *dir = whole ? opendir(folder) : NULL;
	const struct dirent *entry;
	char target[4200];
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir))) {
		gw_autofree char *link = gw_path("%s/%s", folder, entry->d_name);
		ssize_t n = readlink(link, target, sizeof(target) - 1);

		if (n <= 0 || stat(link, &open_now) ||
		    !(S_ISREG(open_now.st_mode) || S_ISBLK(open_now.st_mode)))
			continue;
		target[n] = '\0';
		if (!(exists && same_file(&named, &open_now)) && strcmp(target, gone) != 0)
			continue;
		fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
		if (fd < 0 && errno == EINVAL)
			fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (dir)
		closedir(dir);
	if (fd < 0 && exists && (S_ISREG(named.st_mode) || S_ISBLK(named.st_mode)))
		return gw_fail(-ESTALE, "QEMU does not have open what is called %.300s now", name);
	return fd >= 0 ? fd : gw_fail(-ENOENT, "QEMU does not have %.300s open", name);
}
