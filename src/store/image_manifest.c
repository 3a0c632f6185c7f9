// SPDX-License-Identifier: GPL-2.0-or-later
/* image_manifest.c - where kept images lie, their manifests and locks; see image_internal.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "image_internal.h"
#include "io.h"
#include "own.h"

#define FORMAT	     1
#define MANIFEST_MAX (64U << 10)

char *gw_image_dir(const struct gw_store *st, const char *name)
{
	return gw_path("%s/%s", st->images, name);
}

char *gw_image_disk_dir(const struct gw_store *st, const char *name)
{
	return gw_path("%s/%s", st->disk, name);
}

char *gw_image_kept_dir(const struct gw_store *st, bool discards, const char *name)
{
	return gw_path("%s/kept/%s", discards ? st->ram_small : st->ram, name);
}

char *gw_image_kept_path(const struct gw_store *st, const struct gw_image *image, unsigned int i)
{
	gw_autofree char *dir = gw_image_kept_dir(st, image->discards, image->name);

	return gw_path("%s/%s", dir, image->memory[i].id);
}

bool gw_image_is_kept(const struct gw_store *st, const struct gw_image *image)
{
	for (unsigned int i = 0; i < image->nr_memory; i++) {
		gw_autofree char *path = gw_image_kept_path(st, image, i);

		if (!access(path, F_OK))
			return true;
	}
	return false;
}

int gw_image_kept_make(const struct gw_store *st, bool discards, const char *name)
{
	gw_autofree char *dir = gw_image_kept_dir(st, discards, name);
	int rc;

	/* Another process may just be removing the empty folder that ours goes into. */
	do {
		rc = gw_own_mkdirs(dir);
	} while (rc == -ENOENT && !access(discards ? st->ram_small : st->ram, F_OK));
	return rc;
}

void gw_image_kept_prune(const struct gw_store *st, bool discards, const char *name)
{
	gw_autofree char *dir = gw_image_kept_dir(st, discards, name);

	rmdir(dir);
	*strrchr(dir, '/') = '\0';
	rmdir(dir);
}

size_t gw_image_pages(const struct gw_image *image)
{
	size_t pages = 0;

	for (unsigned int i = 0; i < image->nr_memory; i++)
		pages += (image->memory[i].size + GW_CHUNK_SIZE - 1) / GW_CHUNK_SIZE *
			 GW_CHUNK_PAGES;
	return pages;
}

static char *manifest_path(const struct gw_store *st, const char *name, bool on_disk)
{
	gw_autofree char *dir = on_disk ? gw_image_disk_dir(st, name) : gw_image_dir(st, name);

	return gw_path("%s/manifest.json", dir);
}

/* One entry of "memory". */
static bool parse_memory(struct gw_image *image, const json_t *entry)
{
	const char *id = json_string_value(json_object_get(entry, "id"));
	const json_int_t size = json_integer_value(json_object_get(entry, "size"));
	unsigned int i = image->nr_memory;

	/* Half of what fits is more than there is, and the sum of all does not overflow. */
	if (!gw_name_ok(id) || strlen(id) >= sizeof(image->memory[i].id) || size <= 0 ||
	    size % (json_int_t)GW_PAGE_SIZE || size > INT64_MAX / 2 / GW_MEMORY_BLOCKS_MAX)
		return false;
	for (unsigned int k = 0; k < i; k++)
		if (!strcmp(image->memory[k].id, id))
			return false;
	snprintf(image->memory[i].id, sizeof(image->memory[i].id), "%s", id);
	image->memory[i].size = (uint64_t)size;
	image->nr_memory++;
	return true;
}

static bool parse(struct gw_image *image, const json_t *json, const char *name, bool on_disk)
{
	const json_t *memory = json_object_get(json, "memory"), *entry;
	const json_t *departure = json_object_get(json, "departure");
	const json_t *left = json_object_get(json, "left");
	const json_t *discards = json_object_get(json, "discards");
	const json_t *pinned = json_object_get(json, "pinned");
	const char *said = json_string_value(json_object_get(json, "name"));
	const char *place = json_string_value(json_object_get(json, "place"));
	size_t i;

	memset(image, 0, sizeof(*image));
	if (json_integer_value(json_object_get(json, "format")) != FORMAT || !said ||
	    strcmp(said, name) != 0 || !place || strcmp(place, on_disk ? "disk" : "memory") != 0 ||
	    json_integer_value(departure) < 1 || json_integer_value(departure) > UINT32_MAX ||
	    !json_is_integer(left) || !json_is_boolean(discards) || !json_is_boolean(pinned) ||
	    gw_id_parse(json_string_value(json_object_get(json, "id")), image->id) ||
	    !json_array_size(memory) || json_array_size(memory) > GW_MEMORY_BLOCKS_MAX)
		return false;
	json_array_foreach(memory, i, entry)
		if (!parse_memory(image, entry))
			return false;
	snprintf(image->name, sizeof(image->name), "%s", name);
	image->departure = (uint32_t)json_integer_value(departure);
	image->left = json_integer_value(left);
	image->discards = json_is_true(discards);
	image->pinned = json_is_true(pinned);
	image->on_disk = on_disk;
	return true;
}

int gw_manifest_read(const struct gw_store *st, const char *name, bool on_disk,
		     struct gw_image *image)
{
	gw_autofree char *path = on_disk && !st->disk ? NULL : manifest_path(st, name, on_disk);
	gw_autofree char *text = NULL;
	struct stat status;
	json_t *json;
	bool good;

	memset(image, 0, sizeof(*image));
	if (!path || (lstat(path, &status) && (errno == ENOENT || errno == ENOTDIR)))
		return gw_fail(-ENOENT, "no image of VM '%s' is kept here", name);
	text = gw_own_read(path, MANIFEST_MAX, NULL);
	json = text ? json_loads(text, 0, NULL) : NULL;
	good = json && parse(image, json, name, on_disk);
	json_decref(json);
	return good ? 0 : gw_fail(-EBADMSG, "%s is damaged", path);
}

int gw_manifest_find(const struct gw_store *st, const char *name, struct gw_image *image)
{
	int rc = gw_manifest_read(st, name, false, image);

	return rc == -ENOENT ? gw_manifest_read(st, name, true, image) : rc;
}

bool gw_manifest_same(const struct gw_image *a, const struct gw_image *b)
{
	return a->departure == b->departure && !memcmp(a->id, b->id, GW_ID_LEN);
}

int gw_manifest_write(const struct gw_store *st, const struct gw_image *image)
{
	gw_autofree char *path = manifest_path(st, image->name, image->on_disk);
	gw_autofree char *text = NULL;
	json_t *memory = json_array(), *json;
	char id[2 * GW_ID_LEN + 1];

	gw_id_format(image->id, id);
	for (unsigned int i = 0; i < image->nr_memory; i++)
		json_array_append_new(memory, json_pack("{s:s,s:I}", "id", image->memory[i].id,
							"size", (json_int_t)image->memory[i].size));
	json = json_pack("{s:i,s:s,s:s,s:I,s:I,s:b,s:b,s:s,s:o}", "format", FORMAT, "name",
			 image->name, "id", id, "departure", (json_int_t)image->departure, "left",
			 (json_int_t)image->left, "discards", image->discards, "pinned",
			 image->pinned, "place", image->on_disk ? "disk" : "memory", "memory",
			 memory);
	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	if (!text)
		return gw_fail(-ENOMEM, "%s: no memory", path);
	return image->on_disk ? gw_write_file_synced(path, text) : gw_write_file(path, text);
}

/* Bytes that the files in @path take. */
static uint64_t folder_bytes(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	uint64_t bytes = 0;
	struct stat st;

	while (dir && (e = readdir(dir)))
		if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_blocks * 512;
	if (dir)
		closedir(dir);
	return bytes;
}

uint64_t gw_image_kept_bytes(const struct gw_store *st, const struct gw_image *image)
{
	gw_autofree char *kept = gw_image_kept_dir(st, image->discards, image->name);

	return image->on_disk ? 0 : folder_bytes(kept);
}

void gw_image_measure(const struct gw_store *st, struct gw_image *image)
{
	gw_autofree char *dir = image->on_disk ? gw_image_disk_dir(st, image->name)
					       : gw_image_dir(st, image->name);

	image->bytes = folder_bytes(dir) + gw_image_kept_bytes(st, image);
}

/* Open and lock @path. -ESTALE if it is not the file of that name any more. */
static int lock_file(const char *path, bool wait)
{
	gw_autofd int fd = gw_own_open(path, O_RDWR | O_CREAT, 0600);
	struct stat held, named;
	int rc;

	if (fd < 0)
		return fd == -ENOENT ? -ESTALE : fd;
	do {
		rc = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	} while (rc && errno == EINTR);
	if (rc)
		return gw_fail(errno == EWOULDBLOCK ? -EBUSY : -errno, "%s: %s", path,
			       strerror(errno));
	if (fstat(fd, &held) || lstat(path, &named) || held.st_ino != named.st_ino)
		return -ESTALE;
	return gw_steal_fd(&fd);
}

int gw_image_lock(const struct gw_store *st, const char *name, bool wait)
{
	gw_autofree char *dir = gw_image_dir(st, name);
	gw_autofree char *path = gw_path("%s/lock", dir);
	int fd;

	if (!gw_name_ok(name))
		return -EINVAL;
	/* Its last holder removed the file, or the folder, under us: again. */
	do {
		fd = gw_own_mkdirs(dir);
		if (!fd)
			fd = lock_file(path, wait);
	} while (fd == -ESTALE);
	return fd == -EBUSY ? gw_fail(fd, "the image of VM '%s' is in use just now", name) : fd;
}

void gw_image_unlock(const struct gw_store *st, const char *name, int lock)
{
	gw_autofree char *dir = gw_image_dir(st, name);
	gw_autofree char *path = gw_path("%s/lock", dir);

	unlink(path);
	rmdir(dir); /* if there is no image, and none in the making */
	close(lock);
}

int gw_images_lock(const struct gw_store *st)
{
	gw_autofree char *path = gw_path("%s/.lock", st->images); /* no VM has such a name */
	int rc = gw_own_mkdirs(st->images);

	return rc ? rc : lock_file(path, true);
}

int gw_demotion_lock(const struct gw_store *st, bool wait)
{
	gw_autofree char *path = gw_path("%s/.demotion", st->images);
	int rc = gw_own_mkdirs(st->images);

	return rc ? rc : lock_file(path, wait);
}

bool gw_image_in_making(const struct gw_store *st, const char *name)
{
	static const char *const files[] = { "ledger.new", "ledger" };
	bool held = false;

	for (size_t i = 0; !held && i < GW_ARRAY_SIZE(files); i++) {
		gw_autofree char *path = gw_path("%s/%s/%s", st->images, name, files[i]);
		gw_autofd int fd = access(path, F_OK) ? -1 : gw_own_open(path, O_RDONLY, 0);

		held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
	}
	return held;
}

int gw_image_remove_memory(const struct gw_store *st, const char *name)
{
	static const char *const files[] = { "manifest.json", "manifest.json.new", "ledger",
					     "ledger.new" };
	int rc = 0;

	/* The manifest first: there is an image or none. */
	for (size_t i = 0; i < GW_ARRAY_SIZE(files); i++) {
		gw_autofree char *path = gw_path("%s/%s/%s", st->images, name, files[i]);

		if (unlink(path) && errno != ENOENT)
			rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	}
	for (int discards = 0; discards < 2; discards++) {
		gw_autofree char *kept = gw_image_kept_dir(st, discards, name);

		if (gw_remove_tree(kept))
			rc = -EIO;
		gw_image_kept_prune(st, discards, name);
	}
	return rc;
}

int gw_image_remove_disk(const struct gw_store *st, const char *name)
{
	gw_autofree char *dir = st->disk ? gw_image_disk_dir(st, name) : NULL;
	gw_autofree char *manifest = dir ? gw_path("%s/manifest.json", dir) : NULL;

	if (!dir)
		return 0;
	if (unlink(manifest) && errno != ENOENT)
		return gw_fail(-errno, "%s: %s", manifest, strerror(errno));
	return gw_remove_tree(dir);
}

int gw_image_remove(const struct gw_store *st, const char *name)
{
	const int memory = gw_image_remove_memory(st, name);
	const int disk = gw_image_remove_disk(st, name);

	return memory ? memory : disk;
}

static int oldest_first(const void *a, const void *b)
{
	const struct gw_image *x = a, *y = b;

	if (x->left != y->left)
		return x->left < y->left ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Append those of one place; what is in memory counts, if both are there. */
static int read_place(const struct gw_store *st, bool on_disk, struct gw_image **images, size_t *nr)
{
	DIR *dir = opendir(on_disk ? st->disk : st->images);
	const struct dirent *e;
	int rc = 0;

	while (dir && !rc && (e = readdir(dir))) {
		struct gw_image one, other, *more;

		if (e->d_name[0] == '.' || !gw_name_ok(e->d_name) ||
		    gw_manifest_read(st, e->d_name, on_disk, &one) ||
		    (on_disk && !gw_manifest_read(st, e->d_name, false, &other)))
			continue;
		gw_image_measure(st, &one);
		more = realloc(*images, (*nr + 1) * sizeof(*more));
		if (!more) {
			rc = gw_fail(-ENOMEM, "no memory for a list of images");
			break;
		}
		more[(*nr)++] = one;
		*images = more;
	}
	if (dir)
		closedir(dir);
	return rc;
}

int gw_images_read(const struct gw_store *st, struct gw_image **images, size_t *nr)
{
	int rc;

	*images = NULL;
	*nr = 0;
	rc = read_place(st, false, images, nr);
	if (!rc && st->disk)
		rc = read_place(st, true, images, nr);
	if (*nr)
		qsort(*images, *nr, sizeof(**images), oldest_first);
	return rc;
}

int gw_image_open_kept(const struct gw_store *st, const struct gw_image *image, struct gw_ram *ram)
{
	int rc = 0;

	memset(ram, 0, sizeof(*ram));
	for (unsigned int i = 0; !rc && i < image->nr_memory; i++) {
		gw_autofree char *path = gw_image_kept_path(st, image, i);
		gw_autofd int fd = gw_own_open(path, O_RDWR, 0);
		struct stat status;

		if (fd < 0)
			rc = fd;
		else if (fstat(fd, &status))
			rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
		else if ((uint64_t)status.st_size != image->memory[i].size)
			rc = gw_fail(-EBADMSG, "%s is not the RAM file that was kept", path);
		else
			rc = gw_ram_add(ram, image->memory[i].id, fd, image->memory[i].size, 0);
		if (!rc)
			gw_steal_fd(&fd);
	}
	if (rc)
		gw_ram_close(ram);
	return rc;
}
