// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_check.c - the worker that says which disks of a VM can be read instead of its pages, and
 * who knows what they hold (migrate --teleport).
 *
 * What it says is of this host: a destination needs the same disks, and reads its own.
 */
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "cleanup.h"
#include "error.h"
#include "fetch.h"
#include "images.h"
#include "samples.h"
#include "source_env.h"

static json_t *verdict(json_t *of, const char *why)
{
	json_object_set_new(of, "ok", json_boolean(!why));
	if (why)
		json_object_set_new(of, "error-desc", json_string(why));
	return of;
}

/* Whether @disk is in @names; why not, if not. */
static const char *why_not(const json_t *names, const json_t *refused, const char *disk)
{
	const json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
		if (!strcmp(json_string_value(name), disk))
			return NULL;
	return json_string_value(json_object_get(refused, disk))
		       ?: "its storage does not answer in time";
}

static int check_disks(struct gw_source_env *e, json_t *result)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *images = NULL, *names = NULL, *refused = NULL, *list = json_array();
	struct gw_fetch *fetch = NULL;
	const json_t *image;
	size_t i;
	int rc = gw_images_find(e->qmp, &images);

	if (!rc)
		rc = gw_fetch_open(&fetch, images, e->vm.process.pid, dir, GW_DISKS_NS, &names,
				   &refused);
	json_array_foreach(images, i, image) {
		const char *disk = gw_qmp_text(image, "disk");

		if (!rc && !json_integer_value(json_object_get(image, "depth")))
			json_array_append_new(list,
					      verdict(json_pack("{s:s,s:s}", "disk", disk, "file",
								gw_qmp_text(image, "file")),
						      why_not(names, refused, disk)));
	}
	json_object_set_new(result, "disks", list);
	gw_fetch_close(fetch);
	json_decref(names);
	json_decref(refused);
	json_decref(images);
	return rc;
}

static void check_agent(struct gw_source_env *e, json_t *result)
{
	gw_autofree char *path = NULL;
	int rc = gw_agent_find(e->qmp, &path);

	json_object_set_new(result, "agent", verdict(json_object(), rc ? gw_error() : NULL));
	gw_error_clear();
}

int gw_worker_check(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	gw_autofd int lock = -1;
	struct gw_source_env *e = name ? gw_source_env_new(w, name, &lock) : NULL;
	int rc;

	if (!e)
		return name ? -EINVAL : gw_fail(-EINVAL, "check needs the name of a VM");
	*result = json_pack("{s:s}", "name", name);
	rc = check_disks(e, *result);
	check_agent(e, *result);
	gw_source_env_free(e);
	return rc;
}
