// SPDX-License-Identifier: GPL-2.0-or-later
/* replica.c - what stands for disks of a VM on this host; see replica.h. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "own.h"
#include "replica.h"

/* The head of a qcow2 image, as far as it is looked at; its numbers are big-endian. */
struct qcow2 {
	char magic[4];
	uint32_t version;
	uint64_t backing, unused;
	uint64_t size;
	uint8_t more[40];
	uint64_t incompatible; /* from version 3 on */
};

#define QCOW2_DATA_FILE 4U

/* The word by which @name is one of @folder; NULL: it is none. */
static const char *word_of(const char *folder, const char *name)
{
	const size_t len = strlen(folder);

	if (!strncmp(name, folder, len) && name[len] == '/')
		name += len + 1;
	return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0
		       ? name
		       : NULL;
}

/* A device that is no disk may do something when it is opened, so it is looked at first. */
static int open_word(const char *folder, const char *word)
{
	gw_autofd int dir = gw_own_folder(folder);
	gw_autofd int at = dir < 0 ? -1 : openat(dir, word, O_PATH | O_CLOEXEC);
	gw_autofree char *path = gw_path("/proc/self/fd/%d", at);
	struct stat st;
	int fd;

	if (dir < 0)
		return dir;
	if (at < 0 || fstat(at, &st))
		return gw_fail(-errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return gw_fail(-EINVAL, "it is neither a file nor a block device");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
	if (fd < 0 && errno == EINVAL)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? gw_fail(-errno, "%s", strerror(errno)) : fd;
}

static bool is_qcow2(const char *word)
{
	const size_t len = strlen(word), end = strlen(".qcow2");

	return len > end && !strcmp(word + len - end, ".qcow2");
}

/* Past what its head says QEMU would open another file, which nobody here has named. */
static int look_at_qcow2(int fd, uint64_t *size)
{
	gw_autofree char *path = gw_path("/proc/self/fd/%d", fd);
	gw_autofd int plain = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct qcow2 head;

	if (plain < 0 || gw_pread_all(plain, &head, sizeof(head), 0) ||
	    memcmp(head.magic, "QFI\xfb", sizeof(head.magic)) != 0)
		return gw_fail(-EINVAL, "it is no qcow2 image");
	if (be32toh(head.version) < 2 || be32toh(head.version) > 3 ||
	    (be32toh(head.version) == 3 && be64toh(head.incompatible) & QCOW2_DATA_FILE))
		return gw_fail(-ENOTSUP, "it is a qcow2 image whose bytes lie in another file");
	*size = be64toh(head.size);
	return 0;
}

/* From here on @image is read as the replica that is open as @fd. */
static int stand_in(json_t *image, const char *word, int fd)
{
	const json_int_t least = json_integer_value(json_object_get(image, "size"));
	gw_autofree char *path = gw_path("/proc/self/fd/%d", fd);
	const off_t end = lseek(fd, 0, SEEK_END);
	uint64_t size = end > 0 ? (uint64_t)end : 0;
	int rc = is_qcow2(word) ? look_at_qcow2(fd, &size) : 0;

	if (rc)
		return rc;
	if (least > 0 && size < (uint64_t)least)
		return gw_fail(-EINVAL, "it has %llu bytes, fewer than the disk's %lld",
			       (unsigned long long)size, (long long)least);
	json_object_del(image, "node");
	json_object_set_new(image, "file", json_string(word));
	json_object_set_new(image, "fd", json_integer(fd));
	if (is_qcow2(word))
		json_object_set_new(image, "node",
				    json_pack("{s:s,s:{s:s,s:s},s:n}", "driver", "qcow2", "file",
					      "driver", "file", "filename", path, "backing"));
	return 0;
}

/* What the guest sees of disk @name. */
static json_t *image_of(json_t *images, const char *name)
{
	json_t *image;
	size_t i;

	json_array_foreach(images, i, image) {
		if (!json_integer_value(json_object_get(image, "depth")) &&
		    !strcmp(json_string_value(json_object_get(image, "disk")) ?: "", name))
			return image;
	}
	return NULL;
}

static int open_one(struct gw_replicas *r, const char *folder, const char *name, json_t *image)
{
	const char *word = word_of(folder, name);
	int fd;

	if (!word)
		return gw_fail(-EPERM, "it is not in the folder of its --disk-map-dir");
	if (r->nr == GW_HINT_DISKS)
		return gw_fail(-E2BIG, "there are too many");
	fd = open_word(folder, word);
	if (fd < 0)
		return fd;
	r->fds[r->nr++] = fd;
	return stand_in(image, word, fd);
}

int gw_replicas_open(struct gw_replicas *r, const char *folder, const json_t *map, json_t *images)
{
	const char *disk;
	json_t *value;
	int rc = 0;

	if (!folder)
		return gw_fail(-EPERM, "it reads no replica of a disk: its godwitd was not given a "
				       "folder of them (--disk-map-dir)");
	json_object_foreach((json_t *)(uintptr_t)map, disk, value) {
		const char *name = json_string_value(value);
		json_t *image = image_of(images, disk);

		if (rc)
			break;
		if (!name || !image)
			rc = gw_fail(-EINVAL, "the VM has no disk '%.200s' there", disk);
		else
			rc = open_one(r, folder, name, image);
		if (rc && name)
			gw_fail_prefix(rc, "replica '%.200s' of disk '%.200s': ", name, disk);
	}
	return rc;
}

void gw_replicas_close(struct gw_replicas *r)
{
	for (unsigned int i = 0; i < r->nr; i++)
		close(r->fds[i]);
	r->nr = 0;
}
