// SPDX-License-Identifier: GPL-2.0-or-later
/* opened.c - images that are open here; see opened.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "opened.h"

int gw_opened_open(struct gw_opened *o, const json_t *image, pid_t pid, const char *dir)
{
	const json_t *node = json_object_get(image, "node"), *nbd = json_object_get(image, "nbd");
	const char *name = json_string_value(json_object_get(image, "file"));
	const json_t *fd = json_object_get(image, "fd"); /* ours, and not QEMU's */
	off_t size;
	int rc;

	*o = (struct gw_opened){ .fd = -1 };
	if (node || nbd) {
		rc = nbd ? gw_view_connect(nbd, &o->view)
			 : gw_view_open(node, fd ? getpid() : pid, dir, &o->view);
		o->size = rc ? 0 : gw_view_size(o->view);
		return rc;
	}
	if (fd)
		o->fd = fcntl((int)json_integer_value(fd), F_DUPFD_CLOEXEC, 0);
	else
		o->fd = name ? gw_file_open(pid, name) : gw_fail(-ENOENT, "it is not on this host");
	if (fd && o->fd < 0)
		return gw_fail(-errno, "descriptors: %s", strerror(errno));
	size = o->fd < 0 ? 0 : lseek(o->fd, 0, SEEK_END);
	o->size = size > 0 ? (uint64_t)size : 0;
	return o->fd < 0 ? o->fd : 0;
}

void gw_opened_close(struct gw_opened *o)
{
	gw_view_close(o->view);
	if (o->fd >= 0)
		close(o->fd);
	*o = (struct gw_opened){ .fd = -1 };
}

static ssize_t read_some(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, buf, len, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n;
}

/* Where direct reads cannot be: through the page cache, but not out of it. */
static ssize_t read_cached(int fd, void *buf, size_t len, uint64_t offset)
{
	fcntl(fd, F_SETFL, 0);
	sync_file_range(fd, (off_t)offset, (off_t)len,
			SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				SYNC_FILE_RANGE_WAIT_AFTER);
	posix_fadvise(fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED);
	return read_some(fd, buf, len, offset);
}

int gw_opened_read(const struct gw_opened *o, void *buf, size_t len, uint64_t offset)
{
	const uint64_t left = offset < o->size ? o->size - offset : 0;
	ssize_t n = -1;

	if (o->view && left) {
		n = (ssize_t)(left < len ? left : len);
		if (gw_view_read(o->view, buf, (size_t)n, offset))
			return -EIO;
	} else if (!o->view) {
		n = fcntl(o->fd, F_GETFL) & O_DIRECT ? read_some(o->fd, buf, len, offset) : -1;
		if (n < 0)
			n = read_cached(o->fd, buf, len, offset);
	}
	if (n <= 0)
		return gw_fail(-EIO, "it cannot be read at %llu", (unsigned long long)offset);
	memset((uint8_t *)buf + n, 0, len - (size_t)n);
	return 0;
}

int64_t gw_opened_data(const struct gw_opened *o, uint64_t offset)
{
	return o->view ? gw_view_data(o->view, offset) : lseek(o->fd, (off_t)offset, SEEK_DATA);
}
