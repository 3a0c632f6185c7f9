// SPDX-License-Identifier: GPL-2.0-or-later
/* vm_folder.c - a VM comes into being on this host; see vm_folder.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "vm_folder.h"

int gw_vm_claim(const struct gw_paths *p, const char *host, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);

	if (mkdir(dir, 0700)) {
		if (errno == EEXIST)
			return gw_fail(-EEXIST, "host '%s' already has a VM '%s'", host, name);
		return gw_fail(-errno, "%s: %s", dir, strerror(errno));
	}
	return gw_vm_lock(p, name);
}

int gw_vm_make_ram_folder(const struct gw_paths *p, const struct gw_definition *def)
{
	gw_autofree char *dir = gw_vm_ram_dir(p, def);
	int rc;

	/* Another process may just be removing the empty folder that ours goes into. */
	do {
		rc = gw_mkdirs(dir, 0700);
	} while (rc == -ENOENT && !access(def->discards ? p->ram_small : p->ram, F_OK));
	return rc;
}

/* Through its folder, so that no part of the name leads anywhere else. */
static int open_one(int dir, const char *id, bool made)
{
	if (made)
		return openat(dir, id, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (unlinkat(dir, id, 0) && errno != ENOENT)
		return -1;
	return openat(dir, id, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int gw_vm_make_ram(const struct gw_paths *p, const struct gw_definition *def, bool made,
		   struct gw_ram *ram)
{
	gw_autofree char *path = gw_vm_ram_dir(p, def);
	gw_autofd int dir = -1;
	int rc = gw_vm_make_ram_folder(p, def);

	if (rc)
		return rc;
	dir = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	for (unsigned int i = 0; i < def->nr_memory; i++) {
		gw_autofd int fd = open_one(dir, def->memory[i].id, made);

		if (fd < 0 || ftruncate(fd, (off_t)def->memory[i].size))
			return gw_fail(-errno, "RAM file %s/%s: %s", path, def->memory[i].id,
				       strerror(errno));
		rc = gw_ram_add(ram, def->memory[i].id, fd, def->memory[i].size, 0);
		if (rc)
			return rc;
		gw_steal_fd(&fd);
	}
	return 0;
}
