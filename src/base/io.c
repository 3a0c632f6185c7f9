// SPDX-License-Identifier: GPL-2.0-or-later
/* io.c - whole reads and writes, small files, sizes; see io.h. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "own.h"

int gw_write_all(int fd, const void *buf, size_t len)
{
	const char *at = buf;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gw_fail(-errno, "write: %s", strerror(errno));
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int gw_pwrite_all(int fd, const void *buf, size_t len, off_t offset)
{
	const char *at = buf;

	while (len) {
		ssize_t n = pwrite(fd, at, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gw_fail(-errno, "write at %lld: %s", (long long)offset,
				       strerror(errno));
		at += n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

int gw_pread_all(int fd, void *buf, size_t len, off_t offset)
{
	char *at = buf;

	while (len) {
		ssize_t n = pread(fd, at, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gw_fail(-errno, "read at %lld: %s", (long long)offset,
				       strerror(errno));
		if (n == 0)
			return gw_fail(-EIO, "read at %lld: the file ends there",
				       (long long)offset);
		at += n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

char *gw_read_fd(int fd, const char *path, size_t max, size_t *len)
{
	gw_autofree char *buf = NULL;
	size_t used = 0, room = 0;

	for (;;) {
		ssize_t n;

		if (used + 1 >= room) {
			char *bigger;

			room = room ? room * 2 : 4096;
			bigger = realloc(buf, room);
			if (!bigger) {
				gw_fail(-ENOMEM, "%s: no memory", path);
				return NULL;
			}
			buf = bigger;
		}
		n = read(fd, buf + used, room - used - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			gw_fail(-errno, "%s: %s", path, strerror(errno));
			return NULL;
		}
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > max) {
			gw_fail(-EFBIG, "%s: larger than %zu bytes", path, max);
			return NULL;
		}
	}
	buf[used] = '\0';
	if (len)
		*len = used;
	return gw_steal(buf);
}

char *gw_read_file(const char *path, size_t max, size_t *len)
{
	gw_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		gw_fail(-errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	return gw_read_fd(fd, path, max, len);
}

void gw_copy_whole(char *out, size_t len, const char *text)
{
	const size_t n = text ? strlen(text) : len;

	if (n < len)
		memcpy(out, text, n + 1);
	else
		out[0] = '\0';
}

static int write_file(const char *path, const char *text, bool sync)
{
	gw_autofree char *tmp = gw_path("%s.new", path);
	gw_autofd int fd = gw_own_make(tmp, O_WRONLY);
	int rc;

	if (fd < 0)
		return fd;
	rc = gw_write_all(fd, text, strlen(text));
	if (!rc && sync && fsync(fd))
		rc = gw_fail(-errno, "%s: %s", tmp, strerror(errno));
	if (!rc && rename(tmp, path))
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (rc)
		unlink(tmp);
	return rc;
}

int gw_write_file(const char *path, const char *text)
{
	return write_file(path, text, false);
}

int gw_write_file_synced(const char *path, const char *text)
{
	gw_autofree char *dir = gw_path("%s", path);
	char *slash = strrchr(dir, '/');
	int rc = write_file(path, text, true);

	if (rc || !slash)
		return rc ? rc : gw_sync_path(".");
	slash[slash == dir] = '\0'; /* keeps the "/" of the root folder */
	return gw_sync_path(dir);
}

int gw_sync_path(const char *path)
{
	gw_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	return 0;
}

/* The folder @name in @dir. @path names it in messages. */
static int remove_tree(int dir, const char *name, const char *path)
{
	/* What somebody makes a link of, while we look at it, leads us nowhere. */
	gw_autofd int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	int rc = 0;

	if (!folder)
		return errno == ENOENT ? 0 : gw_fail(-errno, "%s: %s", path, strerror(errno));
	gw_steal_fd(&fd);
	while (!rc && (e = readdir(folder))) {
		gw_autofree char *sub = NULL;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!unlinkat(dirfd(folder), e->d_name, 0) || errno == ENOENT)
			continue;
		rc = -errno;
		sub = gw_path("%s/%s", path, e->d_name);
		if (rc == -EISDIR || rc == -EPERM)
			rc = remove_tree(dirfd(folder), e->d_name, sub);
		else
			gw_fail(rc, "%s: %s", sub, strerror(-rc));
	}
	closedir(folder);
	if (!rc && unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT)
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	return rc;
}

int gw_remove_tree(const char *path)
{
	return remove_tree(AT_FDCWD, path, path);
}

void gw_close_all_but(const int *keep, size_t n)
{
	unsigned int from = 3;

	for (;;) {
		unsigned int next = ~0U;

		for (size_t i = 0; i < n; i++)
			if (keep[i] >= (int)from && (unsigned int)keep[i] < next)
				next = (unsigned int)keep[i];
		if (next > from)
			syscall(SYS_close_range, from, next == ~0U ? next : next - 1, 0);
		if (next == ~0U)
			return;
		from = next + 1;
	}
}

int gw_parse_size(const char *text, uint64_t *bytes)
{
	unsigned long long value;
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	const char *unit;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	/* strtoull() takes spaces and signs, and " -1" for a lot of memory. */
	if (!isdigit((unsigned char)text[0]) || errno)
		return gw_fail(-EINVAL, "'%s' is not a size; write for example 512M or 2G", text);
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B' || *end == 'b')
		end++;
	if (*end || value > UINT64_MAX >> shift)
		return gw_fail(-EINVAL, "'%s' is not a size; write for example 512M or 2G", text);
	*bytes = (uint64_t)value << shift;
	return 0;
}

char *gw_format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1024 && i + 1 < GW_ARRAY_SIZE(unit)) {
		value /= 1024;
		i++;
	}
	snprintf(buf, len, i && value < 100 ? "%.1f %s" : "%.0f %s", value, unit[i]);
	return buf;
}

char *gw_path(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	return text;
}
