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
#include "own.h"
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
		rc = gw_own_mkdirs(dir);
	} while (rc == -ENOENT && !access(def->discards ? p->ram_small : p->ram, F_OK));
	return rc;
}

int gw_vm_make_ram(const struct gw_paths *p, const struct gw_definition *def, bool made,
		   struct gw_ram *ram)
{
	gw_autofree char *path = gw_vm_ram_dir(p, def);
	int rc = gw_vm_make_ram_folder(p, def);

	for (unsigned int i = 0; !rc && i < def->nr_memory; i++) {
		gw_autofree char *file = gw_path("%s/%s", path, def->memory[i].id);
		gw_autofd int fd = made ? gw_own_open(file, O_RDWR, 0) : gw_own_make(file, O_RDWR);

		if (fd < 0)
			return gw_fail_prefix(fd, "RAM file ");
		if (ftruncate(fd, (off_t)def->memory[i].size))
			return gw_fail(-errno, "RAM file %s: %s", file, strerror(errno));
		rc = gw_ram_add(ram, def->memory[i].id, fd, def->memory[i].size, 0);
		if (rc)
			return rc;
		gw_steal_fd(&fd);
	}
	return rc;
}
