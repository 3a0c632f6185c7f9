// SPDX-License-Identifier: GPL-2.0-or-later
/* qemu_log.c - what a QEMU said can be read when its VM's folder is gone; see qemu_log.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "launch.h"
#include "log.h"
#include "own.h"
#include "qemu_log.h"

#define BYTES_MAX (256UL << 10)
#define LOGS_MAX  32
#define AGE_S	  (7L * 24 * 60 * 60)

static char *folder_of(const struct gw_paths *p)
{
	return gw_path("%s/log", p->run);
}

/* Where the log of the QEMU in @dir is kept; NULL: none was started there. free(). */
static char *kept_path(const struct gw_paths *p, const char *name, const char *dir)
{
	gw_autofree char *note = gw_path("%s/qemu.pid", dir);
	gw_autofree char *folder = folder_of(p);
	char when[32];
	struct stat st;
	struct tm tm;

	if (lstat(note, &st) || !gmtime_r(&st.st_mtim.tv_sec, &tm))
		return NULL;
	strftime(when, sizeof(when), "%Y%m%dT%H%M%S", &tm);
	return gw_path("%s/%s-%s.%03ldZ.log", folder, name, when, st.st_mtim.tv_nsec / 1000000);
}

struct entry {
	char *name;
	struct timespec time;
};

static int newest_first(const void *a, const void *b)
{
	const struct timespec *x = &((const struct entry *)a)->time;
	const struct timespec *y = &((const struct entry *)b)->time;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec > y->tv_sec ? -1 : 1;
	return x->tv_nsec > y->tv_nsec ? -1 : x->tv_nsec < y->tv_nsec;
}

void gw_qemu_logs_prune(const struct gw_paths *p)
{
	gw_autofree char *folder = folder_of(p);
	struct entry *entries = NULL;
	DIR *dir = opendir(folder);
	const struct dirent *e;
	size_t nr = 0;

	while (dir && (e = readdir(dir))) {
		struct entry *more;
		struct stat st;

		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		more = realloc(entries, (nr + 1) * sizeof(*entries));
		if (!more)
			break;
		entries = more;
		entries[nr++] = (struct entry){ strdup(e->d_name), st.st_mtim };
	}
	if (nr)
		qsort(entries, nr, sizeof(*entries), newest_first);
	for (size_t i = 0; i < nr; i++) {
		const char *name = entries[i].name;

		if (name && (i >= LOGS_MAX || time(NULL) - entries[i].time.tv_sec > AGE_S) &&
		    unlinkat(dirfd(dir), name, 0))
			gw_debug("%s/%s: %s", folder, name, strerror(errno));
		free(entries[i].name);
	}
	free(entries);
	if (dir)
		closedir(dir);
}

char *gw_qemu_log_keep(const struct gw_paths *p, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *log = gw_path("%s/qemu.log", dir);
	gw_autofree char *folder = folder_of(p);
	gw_autofree char *path = kept_path(p, name, dir);
	gw_autofree char *text = NULL;
	size_t len = 0;
	gw_autofd int fd = -1;

	if (path && !access(log, F_OK))
		text = gw_own_tail(log, BYTES_MAX, &len);
	if (!len)
		return NULL;
	if (!gw_own_mkdirs(folder))
		fd = gw_own_make(path, O_WRONLY);
	if (fd < 0 || gw_write_all(fd, text, len)) {
		gw_warn("what the QEMU of VM '%s' said is not kept: %s", name, gw_error());
		unlink(path);
		return NULL;
	}
	gw_qemu_logs_prune(p);
	return gw_steal(path);
}

char *gw_qemu_said(const struct gw_paths *p, const char *host, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_qemu_log_keep(p, name);
	gw_autofree char *reason = path ? gw_launch_reason(dir) : NULL;

	return path ? gw_path("It said: %s; its log is %s:%s", reason, host, path)
		    : gw_path("It said nothing; 'dmesg' may know more");
}
