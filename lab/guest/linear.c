/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * linear: a volume as LVM makes them: a device of device-mapper, /dev/dm-N, which is a disk
 * from some sector on. Without a disk it removes the volume.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest.h"

static struct {
	struct dm_ioctl head;
	struct dm_target_spec target;
	char where[128];
} request;

static void ask(int control, unsigned long what, const char *name)
{
	request.head.version[0] = DM_VERSION_MAJOR;
	request.head.data_size = sizeof(request);
	request.head.data_start = sizeof(request.head);
	snprintf(request.head.name, sizeof(request.head.name), "%s", name);
	if (ioctl(control, what, &request) < 0)
		die(errno, "device-mapper does not make %s", name);
}

int linear_main(int argc, char **argv)
{
	int control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), disk;
	uint64_t bytes, first;

	if (argc < 2)
		die(0, "a name is missing");
	if (control < 0)
		die(errno, "cannot open /dev/mapper/control");
	if (argc < 3) {
		ask(control, DM_DEV_REMOVE, argv[1]);
		return 0;
	}
	disk = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) < 0)
		die(errno, "%s is no disk", argv[2]);
	first = argument(argc, argv, 3, "SECTOR", 0, bytes / 512 - 1, 0);
	ask(control, DM_DEV_CREATE, argv[1]);
	printf("linear: /dev/dm-%u\n", minor(request.head.dev));
	memset(&request, 0, sizeof(request));
	request.head.target_count = 1;
	request.target.length = bytes / 512 - first;
	strcpy(request.target.target_type, "linear");
	snprintf(request.where, sizeof(request.where), "%s %llu", argv[2],
		 (unsigned long long)first);
	ask(control, DM_TABLE_LOAD, argv[1]);
	memset(&request, 0, sizeof(request));
	ask(control, DM_DEV_SUSPEND, argv[1]); /* which without its flag is to resume */
	return 0;
}
