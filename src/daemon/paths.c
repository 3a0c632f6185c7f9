// SPDX-License-Identifier: GPL-2.0-or-later
/* paths.c - where one host keeps things; see paths.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "paths.h"
#include "tracker.h"

int gw_paths_init(struct gw_paths *p, const char *root)
{
	gw_autofree char *run = root ? gw_path("%s/run", root) : gw_path("/run/godwit");
	gw_autofree char *vms = gw_path("%s/vm", run);
	gw_autofree char *settled = gw_path("%s/settled", run);
	int rc = gw_mkdirs(run, 0700);

	memset(p, 0, sizeof(*p));
	if (!rc)
		rc = gw_mkdirs(vms, 0700);
	if (!rc)
		rc = gw_mkdirs(settled, 0700);
	if (rc)
		return rc;
	p->run = realpath(run, NULL); /* a VM's paths must not depend on our cwd */
	return p->run ? 0 : gw_fail(-errno, "%s: %s", run, strerror(errno));
}

void gw_paths_free(struct gw_paths *p)
{
	free(p->run);
	free(p->ram);
	free(p->ram_small);
	memset(p, 0, sizeof(*p));
}

static bool is_mount_point(const char *path)
{
	gw_autofree char *parent = gw_path("%s/..", path);
	struct stat a, b;

	return !stat(path, &a) && !stat(parent, &b) && a.st_dev != b.st_dev;
}

static int mount_ram(const char *path, bool huge, uint64_t limit)
{
	gw_autofree char *options = NULL;
	int rc = gw_mkdirs(path, 0700);

	if (rc)
		return rc;
	if (limit)
		options = gw_path("mode=0700,size=%llu,huge=%s", (unsigned long long)limit,
				  huge ? "within_size" : "never");
	else
		options = gw_path("mode=0700,size=100%%,huge=%s", huge ? "within_size" : "never");
	/* VMs that outlived an earlier godwitd still use theirs. */
	if (!is_mount_point(path)) {
		if (mount("godwit", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
			  options))
			return gw_fail(-errno,
				       "cannot mount a tmpfs for RAM files on %s: %s; run "
				       "as root, or name a folder with --ram-dir",
				       path, strerror(errno));
		return 0;
	}
	if (mount("godwit", path, "tmpfs",
		  MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, options))
		gw_warn("%s keeps its former size: %s", path, strerror(errno));
	return 0;
}

int gw_paths_ram(struct gw_paths *p, const char *ram_dir, uint64_t limit)
{
	int rc;

	p->limit = limit;
	if (ram_dir) {
		rc = gw_mkdirs(ram_dir, 0700);
		if (rc)
			return rc;
		p->ram = realpath(ram_dir, NULL);
		p->ram_small = p->ram ? strdup(p->ram) : NULL;
		return p->ram_small ? 0 : gw_fail(-ENOMEM, "%s: no memory", ram_dir);
	}
	p->ram = gw_path("%s/ram", p->run);
	p->ram_small = gw_path("%s/ram-small", p->run);
	p->mounted = true;
	/* Soft-dirty bits do not survive huge pages (track/written_softdirty.c). */
	rc = mount_ram(p->ram, gw_track_has_uffd(), limit);
	return rc ? rc : mount_ram(p->ram_small, false, limit);
}

void gw_paths_unmount(struct gw_paths *p)
{
	const char *const paths[] = { p->ram, p->ram_small };

	for (size_t i = 0; p->mounted && i < GW_ARRAY_SIZE(paths); i++) {
		/* Busy while a QEMU maps a file of it: then it stays for the next godwitd. */
		if (!umount(paths[i]))
			rmdir(paths[i]);
	}
}

static uint64_t memory_available(void)
{
	gw_autofree char *text = gw_read_file("/proc/meminfo", 1 << 16, NULL);
	const char *at = text ? strstr(text, "MemAvailable:") : NULL;

	return at ? strtoull(at + 13, NULL, 10) << 10 : 0;
}

/* Bytes that the RAM files in @path hold. */
static uint64_t used_bytes(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	uint64_t used = 0;
	struct stat st;

	while (dir && (e = readdir(dir)))
		if (!fstatat(dirfd(dir), e->d_name, &st, 0) && S_ISREG(st.st_mode))
			used += (uint64_t)st.st_blocks * 512;
	if (dir)
		closedir(dir);
	return used;
}

uint64_t gw_paths_free_bytes(const struct gw_paths *p, const struct gw_definition *def)
{
	uint64_t memory = memory_available(), room, used;
	struct statvfs fs;

	if (statvfs(def->discards ? p->ram_small : p->ram, &fs))
		return 0;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (p->limit) {
		used = used_bytes(p->ram);
		if (strcmp(p->ram, p->ram_small) != 0)
			used += used_bytes(p->ram_small);
		used = used < p->limit ? p->limit - used : 0;
		room = used < room ? used : room;
	}
	return room < memory ? room : memory;
}

char *gw_vm_dir(const struct gw_paths *p, const char *name)
{
	return gw_path("%s/vm/%s", p->run, name);
}

char *gw_vm_ram_path(const struct gw_paths *p, const struct gw_definition *def, unsigned int i)
{
	return gw_path("%s/%s.%s", def->discards ? p->ram_small : p->ram, def->name,
		       def->memory[i].id);
}
