// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image.c - the life of a kept image; see image.h.
 *
 * Killed between any two system calls, a function here leaves an image, or
 * what the next begin, drop or sweep of that name removes:
 *
 *   begin      remove the old one, manifest first | make the ledger, locked
 *   finish     name the ledger | rename the RAM files | write the manifest
 *   take       rename the RAM files; back again if one is missing
 *   give_back  rename back those that are away
 *   drop       remove the manifest | remove the rest
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "image_internal.h"
#include "io.h"
#include "log.h"

int gw_image_drop(const struct gw_store *st, const char *name)
{
	int lock = gw_image_lock(st, name, true), rc;

	if (lock < 0)
		return lock;
	rc = gw_image_remove(st, name);
	gw_image_unlock(st, name, lock);
	return rc;
}

int gw_image_begin(const struct gw_store *st, const char *name, size_t nr_pages,
		   struct gw_ledger *ledger)
{
	gw_autofree char *path = gw_path("%s/%s/ledger", st->images, name);
	int lock, rc;

	memset(ledger, 0, sizeof(*ledger));
	lock = gw_image_lock(st, name, true);
	if (lock < 0)
		return lock;
	rc = gw_image_remove(st, name);
	if (!rc)
		rc = gw_ledger_create(ledger, path, nr_pages);
	/* Held until the ledger is closed: it is in the making, not garbage. */
	if (!rc && flock(ledger->fd, LOCK_EX | LOCK_NB))
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (rc)
		gw_ledger_close(ledger);
	gw_image_unlock(st, name, lock);
	return rc;
}

/* What @def and @ledger say of the image that they make. */
static int describe(struct gw_image *image, const struct gw_definition *def,
		    const struct gw_ledger *ledger)
{
	const uint8_t *id;

	memset(image, 0, sizeof(*image));
	snprintf(image->name, sizeof(image->name), "%s", def->name);
	image->departure = gw_ledger_departures(ledger);
	image->left = time(NULL);
	image->discards = def->discards;
	for (; image->nr_memory < def->nr_memory; image->nr_memory++) {
		const unsigned int i = image->nr_memory;

		snprintf(image->memory[i].id, sizeof(image->memory[i].id), "%s", def->memory[i].id);
		image->memory[i].size = def->memory[i].size;
	}
	id = gw_ledger_id(ledger, image->departure);
	if (!id || gw_image_pages(image) != ledger->nr_pages)
		return gw_fail(-EINVAL, "a ledger of %zu pages and %u departures for VM '%s'",
			       ledger->nr_pages, image->departure, def->name);
	memcpy(image->id, id, GW_ID_LEN);
	return 0;
}

static int keep(const struct gw_store *st, const struct gw_image *image, char *const ram_paths[],
		struct gw_ledger *ledger)
{
	int rc = gw_ledger_seal(ledger);

	for (unsigned int i = 0; !rc && i < image->nr_memory; i++) {
		gw_autofree char *kept = gw_image_kept_path(st, image, i);

		rc = gw_image_kept_make(st, image->discards, image->name);
		if (!rc && rename(ram_paths[i], kept))
			rc = gw_fail(-errno, "%s: %s", ram_paths[i], strerror(errno));
	}
	return rc ? rc : gw_manifest_write(st, image);
}

int gw_image_finish(const struct gw_store *st, const struct gw_definition *def,
		    char *const ram_paths[], struct gw_ledger *ledger)
{
	int lock = gw_image_lock(st, def->name, true), rc = lock < 0 ? lock : 0;
	struct gw_image image;

	if (!rc)
		rc = describe(&image, def, ledger);
	if (!rc)
		rc = keep(st, &image, ram_paths, ledger);
	if (rc) {
		gw_autofree char *why = strdup(gw_error());

		gw_image_remove_memory(st, def->name);
		for (unsigned int i = 0; i < def->nr_memory; i++)
			unlink(ram_paths[i]);
		gw_fail(rc, "%s", why);
	}
	gw_ledger_close(ledger);
	if (lock >= 0)
		gw_image_unlock(st, def->name, lock);
	return rc;
}

/* The ledger must be that of the manifest: else there is no image. */
static int open_ledger(const struct gw_store *st, struct gw_image *image)
{
	gw_autofree char *dir = image->on_disk ? gw_image_disk_dir(st, image->name)
					       : gw_image_dir(st, image->name);
	gw_autofree char *path = gw_path("%s/ledger", dir);
	int rc = gw_ledger_open(&image->ledger, path);
	const uint8_t *id;

	if (rc)
		return rc == -ENOENT ? -EBADMSG : rc;
	id = gw_ledger_id(&image->ledger, image->departure);
	if (image->ledger.nr_pages != gw_image_pages(image) ||
	    gw_ledger_departures(&image->ledger) != image->departure || !id ||
	    memcmp(id, image->id, GW_ID_LEN) != 0)
		return gw_fail(-EBADMSG, "ledger %s is not that of its manifest", path);
	return 0;
}

int gw_image_load(const struct gw_store *st, const char *name, struct gw_image *image)
{
	int lock, rc;

	memset(image, 0, sizeof(*image));
	lock = gw_image_lock(st, name, true);
	if (lock < 0)
		return lock;
	rc = gw_manifest_find(st, name, image);
	if (!rc)
		rc = open_ledger(st, image);
	if (!rc)
		gw_image_measure(st, image);
	else
		gw_image_close(image);
	if (rc == -EBADMSG) {
		gw_autofree char *why = strdup(gw_error());

		gw_warn("the image of VM '%s' is removed: %s", name, why);
		gw_image_remove(st, name);
		gw_fail(rc, "%s", why);
	}
	gw_image_unlock(st, name, lock);
	return rc;
}

void gw_image_close(struct gw_image *image)
{
	gw_ledger_close(&image->ledger);
	memset(image, 0, sizeof(*image));
}

bool gw_image_fits(const struct gw_image *image, const struct gw_definition *def)
{
	if (image->nr_memory != def->nr_memory || image->discards != def->discards)
		return false;
	for (unsigned int i = 0; i < image->nr_memory; i++)
		if (strcmp(image->memory[i].id, def->memory[i].id) != 0 ||
		    image->memory[i].size != def->memory[i].size)
			return false;
	return true;
}

static bool is_ram_file(const char *path, uint64_t size)
{
	struct stat st;

	return !lstat(path, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

static int take_kept(const struct gw_store *st, const struct gw_image *image,
		     char *const ram_paths[])
{
	unsigned int i = 0;
	int rc = 0;

	for (; i < image->nr_memory; i++) {
		gw_autofree char *kept = gw_image_kept_path(st, image, i);

		if (!is_ram_file(kept, image->memory[i].size)) {
			rc = gw_fail(-EBADMSG, "%s is not the RAM file that was kept", kept);
			break;
		}
		if (rename(kept, ram_paths[i])) {
			rc = gw_fail(-errno, "%s: %s", kept, strerror(errno));
			break;
		}
	}
	while (rc && i--) {
		gw_autofree char *kept = gw_image_kept_path(st, image, i);

		if (rename(ram_paths[i], kept))
			gw_warn("%s: %s", ram_paths[i], strerror(errno));
	}
	if (!rc)
		gw_image_kept_prune(st, image->discards, image->name);
	return rc;
}

int gw_image_take(const struct gw_store *st, const struct gw_image *image, char *const ram_paths[],
		  int64_t deadline)
{
	int lock = gw_image_lock(st, image->name, true), rc;
	struct gw_image now;

	if (lock < 0)
		return lock;
	/* It may have been demoted, dropped or replaced since it was loaded. */
	rc = gw_manifest_find(st, image->name, &now);
	if (!rc &&
	    (!gw_manifest_same(&now, image) || gw_image_pages(&now) != image->ledger.nr_pages))
		rc = gw_fail(-ENOENT, "the image of VM '%s' is gone", image->name);
	if (!rc)
		rc = now.on_disk ? gw_image_promote(st, &now, ram_paths, deadline)
				 : take_kept(st, &now, ram_paths);
	if (rc == -EBADMSG) {
		gw_autofree char *why = strdup(gw_error());

		gw_image_remove(st, image->name);
		gw_fail(rc, "%s", why);
	}
	gw_image_unlock(st, image->name, lock);
	return rc;
}

int gw_image_give_back(const struct gw_store *st, const char *name, char *const ram_paths[])
{
	struct gw_image image;
	int lock = gw_image_lock(st, name, true), rc;

	if (lock < 0)
		return lock;
	rc = gw_manifest_read(st, name, false, &image);
	for (unsigned int i = 0; !rc && i < image.nr_memory && ram_paths[i]; i++) {
		gw_autofree char *kept = gw_image_kept_path(st, &image, i);

		if (!is_ram_file(ram_paths[i], image.memory[i].size))
			continue;
		rc = gw_image_kept_make(st, image.discards, name);
		/* Where one is kept, this is not it: it was never taken. */
		if (!rc && renameat2(AT_FDCWD, ram_paths[i], AT_FDCWD, kept, RENAME_NOREPLACE) &&
		    errno != EEXIST)
			rc = gw_fail(-errno, "%s: %s", ram_paths[i], strerror(errno));
	}
	gw_image_unlock(st, name, lock);
	return rc == -ENOENT ? 0 : rc;
}

int gw_image_pin(const struct gw_store *st, const char *name, bool pinned)
{
	struct gw_image image;
	int lock = gw_image_lock(st, name, true), rc;

	if (lock < 0)
		return lock;
	rc = gw_manifest_find(st, name, &image);
	if (!rc && image.pinned != pinned) {
		image.pinned = pinned;
		rc = gw_manifest_write(st, &image);
	}
	gw_image_unlock(st, name, lock);
	return rc;
}

json_t *gw_image_list(const struct gw_store *st)
{
	gw_autofree struct gw_image *images = NULL;
	json_t *list = json_array();
	size_t nr;

	if (gw_images_read(st, &images, &nr))
		gw_warn("the list of images is not complete: %s", gw_error());
	for (size_t i = 0; i < nr; i++) {
		const struct gw_image *one = &images[i];
		char id[2 * GW_ID_LEN + 1];
		uint64_t size = 0;

		gw_id_format(one->id, id);
		for (unsigned int k = 0; k < one->nr_memory; k++)
			size += one->memory[k].size;
		json_array_append_new(
			list, json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:b}", "name", one->name,
					"id", id, "departure", (json_int_t)one->departure, "left",
					(json_int_t)one->left, "memory", (json_int_t)size, "bytes",
					(json_int_t)one->bytes, "place",
					one->on_disk ? "disk" : "memory", "pinned", one->pinned));
	}
	return list;
}

/* Pages of [first, first + count), all in one chunk. */
static int compare(const struct gw_image *image, const struct gw_key *key,
		   const struct gw_memory *memory, size_t first, size_t count, uint8_t *buf,
		   struct gw_bitmap *absent)
{
	const int hole = gw_memory_is_hole(memory, first, count);
	int rc = hole ? hole : gw_memory_read(memory, first, count, buf);

	for (size_t i = 0; rc >= 0 && i < count; i++) {
		struct gw_digest is = { 0, 0 };

		if (!hole)
			is = gw_key_page(key, buf + i * GW_PAGE_SIZE);
		if (!gw_digest_equal(is, image->ledger.digests[first + i]))
			gw_bitmap_set(absent, first + i);
	}
	return rc < 0 ? rc : 0;
}

int gw_image_absent(const struct gw_image *image, const struct gw_key *key,
		    const struct gw_memory *memory, size_t first, size_t count,
		    struct gw_bitmap *absent)
{
	gw_autofree uint8_t *buf = malloc(GW_CHUNK_SIZE);
	size_t end = first + count;
	int rc = 0;

	if (!buf)
		return gw_fail(-ENOMEM, "no memory to look at a kept image");
	if (memory->nr_pages != image->ledger.nr_pages || end > memory->nr_pages || end < first)
		return gw_fail(-EINVAL, "pages %zu to %zu of a kept image of %zu", first, end,
			       image->ledger.nr_pages);
	for (size_t page = first, n; !rc && page < end; page += n) {
		n = GW_CHUNK_PAGES - page % GW_CHUNK_PAGES;
		n = end - page < n ? end - page : n;
		rc = compare(image, key, memory, page, n, buf, absent);
	}
	return rc;
}

/* Whether a VM of this name is on this host, and may have taken @image. */
static bool has_vm(const struct gw_store *st, const struct gw_image *image)
{
	for (unsigned int i = 0; i < image->nr_memory; i++) {
		const char *ram = image->discards ? st->ram_small : st->ram;
		gw_autofree char *dir = gw_ram_file_folder(ram, image->name);
		gw_autofree char *path = gw_path("%s/%s", dir, image->memory[i].id);
		gw_autofree char *flat = gw_path("%s/%s.%s", ram, image->name, image->memory[i].id);

		if (!access(path, F_OK) || !access(flat, F_OK))
			return true;
	}
	return false;
}

/* Both locks are held. */
static void sweep_one(const struct gw_store *st, const char *name)
{
	struct gw_image image;
	int rc = gw_manifest_read(st, name, false, &image);

	if (!rc && (gw_image_is_kept(st, &image) || has_vm(st, &image))) {
		gw_image_remove_disk(st, name); /* an unfinished demotion */
		return;
	}
	if (rc == -ENOENT && gw_image_in_making(st, name))
		return;
	gw_image_remove_memory(st, name);
	if (gw_manifest_read(st, name, true, &image))
		gw_image_remove_disk(st, name);
}

/* Every name in @path, where @path has a folder for each image. */
static void sweep_folder(const struct gw_store *st, const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		int lock;

		if (e->d_name[0] == '.' || !gw_name_ok(e->d_name))
			continue;
		lock = gw_image_lock(st, e->d_name, false);
		if (lock < 0)
			continue; /* somebody is at it */
		sweep_one(st, e->d_name);
		gw_image_unlock(st, e->d_name, lock);
	}
	if (dir)
		closedir(dir);
}

void gw_image_sweep(const struct gw_store *st)
{
	gw_autofree char *kept = gw_path("%s/kept", st->ram);
	gw_autofree char *small = gw_path("%s/kept", st->ram_small);
	gw_autofd int demoting = gw_demotion_lock(st, true);
	gw_autofd int all = demoting < 0 ? -1 : gw_images_lock(st);

	if (all < 0)
		return;
	sweep_folder(st, st->images);
	sweep_folder(st, kept);
	sweep_folder(st, small);
	if (st->disk)
		sweep_folder(st, st->disk);
	rmdir(kept);
	rmdir(small);
}
