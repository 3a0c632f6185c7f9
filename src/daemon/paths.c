// SPDX-License-Identifier: GPL-2.0-or-later
/* paths.c - where one host keeps things; see paths.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "paths.h"
#include "tracker.h"

/* @path/@name, which is looked at if it exists, or else if it is wanted. */
static int place_below(const char *path, const char *name, bool wanted)
{
	gw_autofree char *below = gw_path("%s/%s", path, name);

	return wanted || !access(below, F_OK) ? gw_own_place(below, false, NULL) : 0;
}

/* LIB, which may be a link to a larger disk. It is made when there is something to put in it. */
static int find_lib(struct gw_paths *p, const char *lib)
{
	int rc = 0;

	if (access(lib, F_OK))
		p->lib = gw_path("%s", lib);
	else
		rc = gw_own_place(lib, false, &p->lib);
	return rc ? rc : place_below(p->lib, "image", false);
}

int gw_paths_init(struct gw_paths *p, const char *root)
{
	gw_autofree char *run = root ? gw_path("%s/run", root) : gw_path("/run/godwit");
	gw_autofree char *dir = NULL, *lib = NULL;
	int rc;

	memset(p, 0, sizeof(*p));
	/* A VM's paths must not depend on our cwd. */
	rc = gw_own_place(run, false, &p->run);
	if (!rc && root)
		rc = gw_own_place(root, true, &dir);
	if (rc)
		return rc;
	lib = dir ? gw_path("%s/lib", dir) : gw_path("/var/lib/godwit");
	rc = find_lib(p, lib);
	if (!rc)
		rc = place_below(p->run, "vm", true);
	if (!rc)
		rc = place_below(p->run, "settled", true);
	if (!rc)
		rc = place_below(p->run, "image", false);
	if (!rc)
		rc = place_below(p->run, "log", false);
	if (!rc)
		rc = place_below(p->run, "held", false);
	if (rc)
		return rc;
	p->images = gw_path("%s/image", p->run);
	p->disk_images = gw_path("%s/image", p->lib);
	return 0;
}

void gw_paths_free(struct gw_paths *p)
{
	free(p->run);
	free(p->lib);
	free(p->images);
	free(p->disk_images);
	free(p->ram);
	free(p->ram_small);
	free(p->registry);
	free(p->swap);
	free(p->disk_map);
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
	int rc = gw_own_mkdirs(path);

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

/* A line of /proc/meminfo, in bytes. */
static uint64_t memory_figure(const char *key)
{
	gw_autofree char *text = gw_read_file("/proc/meminfo", 1 << 16, NULL);
	const char *at = text ? strstr(text, key) : NULL;

	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

static int make_ram_folders(struct gw_paths *p, const char *ram_dir)
{
	int rc;

	if (ram_dir) {
		/* Such as /dev/shm: what we make there is in folders of our own. */
		rc = gw_own_place(ram_dir, true, &p->ram);
		if (!rc)
			p->ram_small = gw_path("%s", p->ram);
		return rc;
	}
	p->ram = gw_path("%s/ram", p->run);
	p->ram_small = gw_path("%s/ram-small", p->run);
	p->mounted = true;
	/* Soft-dirty bits do not survive huge pages (track/written_softdirty.c). */
	rc = mount_ram(p->ram, gw_track_has_uffd(), p->limit);
	return rc ? rc : mount_ram(p->ram_small, false, p->limit);
}

int gw_paths_ram(struct gw_paths *p, const char *ram_dir, uint64_t limit)
{
	int rc;

	p->limit = limit;
	rc = make_ram_folders(p, ram_dir);
	for (size_t i = 0; !rc && i < 4; i++)
		rc = place_below(i / 2 ? p->ram_small : p->ram, i % 2 ? "kept" : "vm", false);
	if (!rc)
		rc = place_below(p->ram_small, "held", false);
	p->store = (struct gw_store){ .images = p->images,
				      .ram = p->ram,
				      .ram_small = p->ram_small,
				      .disk = p->disk_images,
				      .quota = memory_figure("MemTotal:") / 4 };
	return rc;
}

void gw_paths_unmount(struct gw_paths *p)
{
	const char *const paths[] = { p->ram, p->ram_small };

	for (size_t i = 0; p->mounted && i < GW_ARRAY_SIZE(paths); i++) {
		gw_autofree char *kept = gw_path("%s/kept", paths[i]);
		gw_autofree char *held = gw_path("%s/held", paths[i]);

		if (rmdir(held) && errno != ENOENT) {
			gw_info("what VMs of other hosts have here stays, for the next godwitd");
			continue;
		}
		if (rmdir(kept) && errno != ENOENT) {
			gw_info("kept images stay in memory, for the next godwitd");
			continue;
		}
		/* Busy while a QEMU maps a file of it: then it stays for the next godwitd. */
		if (!umount(paths[i]))
			rmdir(paths[i]);
	}
}

char *gw_vm_dir(const struct gw_paths *p, const char *name)
{
	return gw_path("%s/vm/%s", p->run, name);
}

char *gw_vm_ram_dir(const struct gw_paths *p, const struct gw_definition *def)
{
	return gw_ram_file_folder(def->discards ? p->ram_small : p->ram, def->name);
}

char *gw_vm_ram_path(const struct gw_paths *p, const struct gw_definition *def, unsigned int i)
{
	gw_autofree char *dir = gw_vm_ram_dir(p, def);

	if (def->flat)
		return gw_path("%s/%s.%s", def->discards ? p->ram_small : p->ram, def->name,
			       def->memory[i].id);
	return gw_path("%s/%s", dir, def->memory[i].id);
}
