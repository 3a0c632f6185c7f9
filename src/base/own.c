// SPDX-License-Identifier: GPL-2.0-or-later
/* own.c - folders and files that are ours; see own.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "own.h"

#define LINKS_MAX 40

static bool is_ours(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static bool others_write(const struct stat *st)
{
	return st->st_mode & (S_IWGRP | S_IWOTH);
}

/*
 * A group that may write is refused, whichever it is: with an access control list the
 * group's bits are its mask, and say nothing of who may.
 */
static int check_folder(const char *path, const struct stat *st, bool sticky)
{
	if (!is_ours(st->st_uid))
		return gw_fail(-EPERM,
			       "%s belongs to user %u, who could exchange what is kept in it: "
			       "'chown %u %s', or choose a folder in which only root may write",
			       path, (unsigned int)st->st_uid, (unsigned int)geteuid(), path);
	if (others_write(st) && !(sticky && st->st_mode & S_ISVTX))
		return gw_fail(-EPERM,
			       "%s can be written by others (mode %04o), who could exchange what "
			       "is kept in it: 'chmod go-w %s', or choose a folder in which only "
			       "root may write",
			       path, (unsigned int)st->st_mode & 07777, path);
	return 0;
}

/* What a walk from the root folder has before it. */
struct way {
	int at;
	char *rest; /* of the path, from at */
	unsigned int links;
};

/* The path of @fd; free(). */
static char *path_of(int fd)
{
	gw_autofree char *link = gw_path("/proc/self/fd/%d", fd);
	char path[PATH_MAX];
	const ssize_t n = readlink(link, path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	return gw_path("%s", path);
}

/* Follow @link, which is a link in w->at. */
static int follow(struct way *w, int link, const char *rest, const char *name)
{
	gw_autofree char *here = path_of(w->at);
	char to[PATH_MAX], *whole;
	const ssize_t n = readlinkat(link, "", to, sizeof(to) - 1);
	struct stat st;

	if (n < 0 || fstat(link, &st))
		return gw_fail(-errno, "%s/%s: %s", here, name, strerror(errno));
	if (!is_ours(st.st_uid))
		return gw_fail(-EPERM,
			       "%s/%s is a link of user %u, who could lead it elsewhere: name the "
			       "folder itself",
			       here, name, (unsigned int)st.st_uid);
	if (++w->links > LINKS_MAX)
		return gw_fail(-ELOOP, "%s/%s: %s", here, name, strerror(ELOOP));
	to[n] = '\0';
	if (to[0] == '/') {
		close(w->at);
		w->at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (w->at < 0)
			return gw_fail(-errno, "/: %s", strerror(errno));
	}
	whole = gw_path("%s/%s", to, rest); /* rest is part of what is freed */
	free(w->rest);
	w->rest = whole;
	return 0;
}

/* Go into the next folder of the path, which is made if it does not exist. */
static int step(struct way *w)
{
	const size_t len = strcspn(w->rest, "/");
	gw_autofree char *name = gw_path("%.*s", (int)len, w->rest);
	const char *rest = w->rest + len + strspn(w->rest + len, "/");
	gw_autofd int next = -1;
	struct stat st;

	do {
		next = openat(w->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	} while (next < 0 && errno == ENOENT && (!mkdirat(w->at, name, 0700) || errno == EEXIST));
	if (next < 0 || fstat(next, &st) ||
	    (errno = ENOTDIR, !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))) {
		gw_autofree char *here = path_of(w->at);
		const int err = errno;

		return gw_fail(-err, "%s/%s: %s", strcmp(here, "/") != 0 ? here : "", name,
			       strerror(err));
	}
	if (S_ISLNK(st.st_mode))
		return follow(w, next, rest, name);
	close(w->at);
	w->at = gw_steal_fd(&next);
	memmove(w->rest, rest, strlen(rest) + 1);
	return 0;
}

int gw_own_place(const char *path, bool shared, char **real)
{
	gw_autofree char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	struct way w = { .at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC) };
	gw_autofree char *here = NULL;
	int rc = 0;

	if (w.at < 0 || (path[0] != '/' && !cwd))
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	w.rest = gw_path("%s%s%s", cwd ? cwd + 1 : "", cwd ? "/" : "", path + strspn(path, "/"));
	while (!rc) {
		struct stat st;

		free(here);
		here = path_of(w.at);
		memmove(w.rest, w.rest + strspn(w.rest, "/"),
			strlen(w.rest + strspn(w.rest, "/")) + 1);
		rc = fstat(w.at, &st) ? gw_fail(-errno, "%s: %s", here, strerror(errno))
				      : check_folder(here, &st, shared || w.rest[0]);
		if (rc || !w.rest[0])
			break;
		rc = step(&w);
	}
	if (!rc && real)
		*real = gw_steal(here);
	if (w.at >= 0)
		close(w.at);
	free(w.rest);
	return rc;
}

/* Without a message: whether there is a folder at all decides for some. */
static int open_folder(const char *path)
{
	const struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				      .resolve = RESOLVE_NO_SYMLINKS };
	const int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

static int refuse(int rc, const char *path)
{
	if (rc == -ELOOP)
		return gw_fail(rc,
			       "%s: a link is in the way, where nobody but godwitd makes "
			       "anything; look who made it, and remove it",
			       path);
	return gw_fail(rc, "%s: %s", path, strerror(-rc));
}

int gw_own_folder(const char *path)
{
	gw_autofd int fd = open_folder(path);
	struct stat st;
	int rc;

	if (fd < 0)
		return refuse(fd, path);
	if (fstat(fd, &st))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	rc = check_folder(path, &st, true);
	return rc ? rc : gw_steal_fd(&fd);
}

/* Its folder, opened; @name is what comes behind. */
static int folder_of(const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	gw_autofree char *folder = slash ? gw_path("%.*s", slash == path ? 1 : (int)(slash - path),
						   path)
					 : gw_path(".");

	*name = slash ? slash + 1 : path;
	return gw_own_folder(folder);
}

int gw_own_mkdirs(const char *path)
{
	gw_autofd int parent = -1;
	const char *name;
	int fd = open_folder(path);

	if (fd == -ENOENT) {
		const char *slash = strrchr(path, '/');

		if (slash && slash != path) {
			gw_autofree char *above = gw_path("%.*s", (int)(slash - path), path);
			const int rc = gw_own_mkdirs(above);

			if (rc)
				return rc;
		}
		parent = folder_of(path, &name);
		if (parent < 0)
			return parent;
		if (mkdirat(parent, name, 0700) && errno != EEXIST)
			return gw_fail(-errno, "%s: %s", path, strerror(errno));
	} else if (fd >= 0) {
		close(fd);
	}
	fd = gw_own_folder(path);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int gw_own_open(const char *path, int flags, mode_t mode)
{
	const char *name;
	gw_autofd int dir = folder_of(path, &name);
	gw_autofd int fd = -1;
	struct stat st;

	if (dir < 0)
		return dir;
	/* O_NONBLOCK: whatever lies there, nobody waits for another end of it. */
	fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
	if (fd < 0)
		return refuse(-errno, path);
	if (fstat(fd, &st))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !is_ours(st.st_uid) || others_write(&st))
		return gw_fail(-EPERM,
			       "%s is not a file of godwitd's (user %u, mode %06o): look who made "
			       "it, and remove it",
			       path, (unsigned int)st.st_uid, (unsigned int)st.st_mode);
	return gw_steal_fd(&fd);
}

int gw_own_make(const char *path, int flags)
{
	const char *name;
	gw_autofd int dir = folder_of(path, &name);
	int fd;

	if (dir < 0)
		return dir;
	/* Made again in between by somebody who does the same: again. */
	do {
		if (unlinkat(dir, name, 0) && errno != ENOENT)
			return gw_fail(-errno, "%s: %s", path, strerror(errno));
		fd = openat(dir, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	return fd < 0 ? gw_fail(-errno, "%s: %s", path, strerror(errno)) : fd;
}

char *gw_own_read(const char *path, size_t max, size_t *len)
{
	gw_autofd int fd = gw_own_open(path, O_RDONLY, 0);

	return fd < 0 ? NULL : gw_read_fd(fd, path, max, len);
}

char *gw_own_tail(const char *path, size_t max, size_t *len)
{
	gw_autofd int fd = gw_own_open(path, O_RDONLY, 0);
	gw_autofree char *text = NULL;
	struct stat st;
	size_t has;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) ||
	    (st.st_size > (off_t)max && lseek(fd, st.st_size - (off_t)max, SEEK_SET) < 0)) {
		gw_fail(-errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	text = malloc(max + 1);
	if (!text) {
		gw_fail(-ENOMEM, "%s: no memory", path);
		return NULL;
	}
	/* It may grow meanwhile: then this is what was its end. */
	for (has = 0; has < max;) {
		const ssize_t n = read(fd, text + has, max - has);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			gw_fail(-errno, "%s: %s", path, strerror(errno));
		if (n < 0)
			return NULL;
		if (!n)
			break;
		has += (size_t)n;
	}
	text[has] = '\0';
	if (len)
		*len = has;
	return gw_steal(text);
}
