// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file systems whose pages can be told of: ext4 and XFS, right on a disk of
 * virtio or on a partition of one.
 *
 * What is mounted is in mountinfo, where it lies in sysfs. The path of a disk there
 * names all that is above it:
 *
 *   .../0000:00:03.0/virtio1/block/vda/vda2
 *   .../0000:00:04.0/virtio2/host0/target0:0:0/0:0:0:1/block/sda
 *
 * Left out is an ext4 with data=journal, where clean pages may have been written to
 * the journal alone. Only /proc/fs/ext4 says so whatever the reason for it is.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "agent.h"

static bool read_number(const char *folder, const char *name, uint64_t *number)
{
	char path[PATH_MAX + 16];
	unsigned long long value;
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	ok = fscanf(file, "%llu", &value) == 1;
	fclose(file);
	*number = value;
	return ok;
}

static bool is_pci(const char *name)
{
	unsigned int domain, bus, device, function;
	int length = 0;

	return sscanf(name, "%x:%x:%x.%x%n", &domain, &bus, &device, &function, &length) == 4 &&
	       !name[length];
}

/* Fills in what the host knows the disk at @path by; @path is changed. */
static bool name_disk(struct file_system *system, char *path)
{
	char *name, *next, *pci = NULL, *above = NULL, *scsi;
	bool virtio = false;
	int length;

	for (name = strtok_r(path, "/", &next); name; name = strtok_r(NULL, "/", &next)) {
		if (!strcmp(name, "block"))
			break;
		if (!virtio && above && is_pci(above) && !strncmp(name, "virtio", 6)) {
			pci = above;
			virtio = true;
		}
		above = name;
	}
	if (!virtio)
		return false;
	scsi = strchr(above, ':');
	if (!strncmp(system->disk, "vd", 2))
		length = snprintf(system->text, sizeof(system->text), "pci:%s", pci);
	else if (!strncmp(system->disk, "sd", 2) && scsi)
		length = snprintf(system->text, sizeof(system->text), "scsi:%s/%s", pci, scsi + 1);
	else
		return false;
	return (size_t)length < sizeof(system->text);
}

bool disks_name(struct file_system *system)
{
	char link[64], path[PATH_MAX];
	uint64_t partition;
	char *name;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(system->dev),
		 minor(system->dev));
	if (!realpath(link, path))
		return false;
	if (read_number(path, "partition", &partition)) {
		if (!read_number(path, "start", &system->start))
			return false;
		*strrchr(path, '/') = '\0';
	}
	name = strrchr(path, '/') + 1;
	if (strlen(name) >= sizeof(system->disk) || !read_number(path, "size", &system->sectors))
		return false;
	strcpy(system->disk, name);
	return name_disk(system, path);
}

static bool journals_data(dev_t dev)
{
	char link[64], path[PATH_MAX], options[PATH_MAX + 32], line[128];
	bool journals = true, known = false;
	FILE *file;

	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	if (!realpath(link, path))
		return true;
	snprintf(options, sizeof(options), "/proc/fs/ext4/%s/options", strrchr(path, '/') + 1);
	file = fopen(options, "re");
	if (!file)
		return true; /* another driver's than ext4's */
	while (fgets(line, sizeof(line), file)) {
		known = true;
		if (!strcmp(line, "data=journal\n"))
			break;
	}
	journals = !known || !feof(file);
	fclose(file);
	return journals;
}

/* mountinfo writes blanks and the like as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	while (*text) {
		unsigned int code;

		if (text[0] == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
			*to++ = code;
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

static bool parse_mount(const char *line, struct file_system *system)
{
	unsigned int major_number, minor_number;
	char *root = NULL, *mounted = NULL, type[16];
	const char *rest = strstr(line, " - ");

	*system = (struct file_system){};
	if (!rest || sscanf(rest + 3, "%15s", type) != 1)
		return false;
	system->xfs = !strcmp(type, "xfs");
	if (!system->xfs && strcmp(type, "ext4") && strcmp(type, "ext3") && strcmp(type, "ext2"))
		return false;
	if (sscanf(line, "%*d %*d %u:%u %ms %ms", &major_number, &minor_number, &root, &mounted) !=
	    4) {
		free(root);
		return false;
	}
	system->dev = makedev(major_number, minor_number);
	system->whole = !strcmp(root, "/");
	system->mounted = mounted;
	free(root);
	unescape(mounted);
	if (disks_name(system) && (system->xfs || !journals_data(system->dev)))
		return true;
	free(mounted);
	return false;
}

/* One that is mounted in several places counts once, where the most of it can be seen. */
static int add(struct file_system **found, size_t *count, struct file_system *system)
{
	struct file_system *more;

	for (size_t i = 0; i < *count; i++) {
		struct file_system *known = &(*found)[i];

		if (known->dev != system->dev)
			continue;
		if (system->whole && !known->whole) {
			free(known->mounted);
			*known = *system;
		} else {
			free(system->mounted);
		}
		return 0;
	}
	more = reallocarray(*found, *count + 1, sizeof(*more));
	if (!more) {
		free(system->mounted);
		return -ENOMEM;
	}
	more[*count] = *system;
	*found = more;
	(*count)++;
	return 0;
}

int disks_find(struct file_system **found, size_t *count)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	struct file_system system;
	char *line = NULL;
	size_t room = 0;
	int error = 0;

	*found = NULL;
	*count = 0;
	if (!mounts)
		return -errno;
	while (!error && getline(&line, &room, mounts) > 0)
		if (parse_mount(line, &system))
			error = add(found, count, &system);
	free(line);
	fclose(mounts);
	if (error)
		disks_free(*found, *count);
	return error;
}

void disks_free(struct file_system *found, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(found[i].mounted);
	free(found);
}
