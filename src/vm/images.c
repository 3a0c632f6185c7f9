// SPDX-License-Identifier: GPL-2.0-or-later
/* images.c - the images of a VM's disks; see images.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "images.h"

bool gw_image_is_file(const char *name)
{
	size_t colon = strcspn(name, ":/");

	return name[colon] != ':';
}

void gw_image_disk(const json_t *entry, char name[256])
{
	const char *device = gw_qmp_text(entry, "device"), *qdev = gw_qmp_text(entry, "qdev");
	const char *start = strncmp(qdev, "/machine/peripheral/", 20) ? qdev : qdev + 20;
	const char *end = strstr(start, "/virtio-backend");

	snprintf(name, 256, "%.*s", end ? (int)(end - start) : 255, device[0] ? device : start);
	if (device[0])
		snprintf(name, 256, "%s", device);
}

/* Formats that add nothing to the bytes of what is below them. */
static bool is_plain(const char *format)
{
	static const char *const plain[] = { "raw", "file", "host_device" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(plain); i++)
		if (!strcmp(format, plain[i]))
			return true;
	return false;
}

/* The options in a name like "json:{...}"; NULL: it is another. */
static json_t *options_of(const json_t *image)
{
	const char *name = gw_qmp_text(image, "filename");

	return strncmp(name, "json:", 5) ? NULL : json_loads(name + 5, 0, NULL);
}

/* The file of an image, if that is one without more to it; caller frees. */
static char *plain_file(const json_t *image)
{
	json_t *options = options_of(image);
	const json_t *file = json_object_get(options, "file");
	const char *inside = gw_qmp_text(json_is_object(file) ? file : options, "filename");
	char *found = NULL;

	/* One that shows only a part of its file has another first byte. */
	if (is_plain(gw_qmp_text(image, "format")) && !json_object_get(options, "offset") &&
	    !json_object_get(options, "size"))
		found = strdup(options ? inside : gw_qmp_text(image, "filename"));
	json_decref(options);
	if (found && (!found[0] || !gw_image_is_file(found))) {
		free(found);
		found = NULL;
	}
	return found;
}

static json_t *file_node(const char *name)
{
	return json_pack("{s:s,s:s}", "driver", "file", "filename", name);
}

/* An external data file has its name in the image, relative to nothing that we have. */
static void add_data_file(json_t *node, const json_t *image)
{
	const json_t *specific = json_object_get(json_object_get(image, "format-specific"), "data");
	const char *name = gw_qmp_text(specific, "data-file");

	if (name[0] && !json_object_get(node, "data-file"))
		json_object_set_new(node, "data-file", file_node(name));
}

/*
 * The tree that shows what is in @image; NULL: it cannot be said in options. Formats
 * are QEMU's: what a guest writes into an image must not choose another.
 */
static json_t *node_of(const json_t *image, int depth)
{
	const char *name = gw_qmp_text(image, "filename"), *format = gw_qmp_text(image, "format");
	const json_t *under = json_object_get(image, "backing-image");
	json_t *node = options_of(image), *backing = NULL;

	if (depth == GW_CHAIN_MAX || (!node && (!name[0] || !gw_image_is_file(name)))) {
		json_decref(node);
		return NULL;
	}
	if (!node && (!strcmp(format, "file") || !strcmp(format, "host_device")))
		node = file_node(name);
	else if (!node)
		node = json_pack("{s:s,s:o}", "driver", format, "file", file_node(name));
	add_data_file(node, image);
	if (under) {
		backing = node_of(under, depth + 1);
		if (!backing) {
			json_decref(node);
			return NULL;
		}
	}
	/* Without one that its header names it was opened on purpose. */
	if (!under && json_object_get(image, "backing-filename"))
		backing = json_null();
	if (backing)
		json_object_set_new(node, "backing", backing);
	return node;
}

/* How to see what the guest sees; a name by which QEMU itself has opened it is next best. */
static json_t *seen(const json_t *image)
{
	json_t *node = node_of(image, 0);

	if (!node && !json_object_get(image, "backing-image"))
		node = json_pack("{s:O,s:O}", "legacy", json_object_get(image, "filename"),
				 "format", json_object_get(image, "format"));
	return node ? node : json_object();
}

static void add_image(json_t *images, const char *disk, int depth, const json_t *image)
{
	gw_autofree char *file = plain_file(image);
	json_t *entry;

	if (!file && depth)
		return;
	entry = json_pack("{s:s,s:i,s:s}", "disk", disk, "depth", depth, "file",
			  file ? file : gw_qmp_text(image, "filename"));
	json_object_set(entry, "size", json_object_get(image, "virtual-size"));
	if (!file)
		json_object_set_new(entry, "node", seen(image));
	json_array_append_new(images, entry);
}

int gw_images_each(struct gw_qmp *q, int (*fn)(void *arg, const char *disk, const json_t *entry),
		   void *arg)
{
	json_t *list = NULL, *entry;
	size_t i;
	int rc = gw_qmp_call(q, "query-block", NULL, &list);

	json_array_foreach(list, i, entry) {
		char disk[256];

		gw_image_disk(entry, disk);
		if (!rc && json_object_get(entry, "inserted"))
			rc = fn(arg, disk, entry);
	}
	json_decref(list);
	return rc;
}

static int add_chain(void *images, const char *disk, const json_t *entry)
{
	const json_t *image = json_object_get(json_object_get(entry, "inserted"), "image");

	for (int depth = 0; image && depth < GW_CHAIN_MAX; depth++) {
		add_image(images, disk, depth, image);
		image = json_object_get(image, "backing-image");
	}
	return 0;
}

int gw_images_find(struct gw_qmp *q, json_t **images)
{
	*images = json_array();
	return gw_images_each(q, add_chain, *images);
}
