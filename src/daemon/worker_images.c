// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_images.c - a worker that lists, pins, removes and tidies kept images. */
#include <errno.h>
#include <string.h>

#include "budget.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "registry_report.h"
#include "swap.h"
#include "worker.h"

static bool has(const json_t *list, const char *name)
{
	const json_t *image;
	size_t i;

	json_array_foreach(list, i, image)
		if (!strcmp(json_string_value(json_object_get(image, "name")), name))
			return true;
	return false;
}

/* All are images of this host, or nothing is done to any. */
static int check_names(const struct gw_store *st, const json_t *names)
{
	json_t *list = gw_image_list(st);
	const json_t *name;
	int rc = 0;
	size_t i;

	if (!json_array_size(names))
		rc = gw_fail(-EINVAL, "which images? give the names of their VMs");
	json_array_foreach(names, i, name) {
		const char *text = json_string_value(name);

		if (!rc && !gw_name_ok(text))
			rc = -EINVAL;
		else if (!rc && !has(list, text))
			rc = gw_fail(-ENOENT,
				     "no image of VM '%s' is kept on this host; see godwit images",
				     text);
	}
	json_decref(list);
	return rc;
}

/* Guests need memory now: no time to tidy up, nor to wait for a disk. */
static int yield(const struct gw_paths *p, json_t **result)
{
	const uint64_t freed = gw_budget_make_room(p, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
	char text[32];

	if (freed)
		gw_info("memory is low: kept images gave back %s",
			gw_format_size(freed, text, sizeof(text)));
	*result = json_pack("{s:I}", "freed", (json_int_t)freed);
	return 0;
}

static int tidy(const struct gw_paths *p, json_t **result)
{
	uint64_t freed;

	gw_image_sweep(&p->store);
	freed = gw_budget_make_room(p, GW_FOREVER);
	gw_swap_tidy(p); /* last: that disk may be another, and hang */
	*result = json_pack("{s:I}", "freed", (json_int_t)freed);
	return 0;
}

int gw_worker_images(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *action = json_string_value(json_object_get(args, "action")) ?: "list";
	json_t *names = json_object_get(args, "names"), *name;
	const struct gw_store *st = &w->paths->store;
	const bool pin = !strcmp(action, "pin"), rm = !strcmp(action, "rm");
	size_t i;
	int rc;

	if (!strcmp(action, "list")) {
		*result = gw_image_list(st);
		return 0;
	}
	if (!strcmp(action, "gc"))
		return tidy(w->paths, result);
	if (!strcmp(action, "yield"))
		return yield(w->paths, result);
	if (!pin && !rm && strcmp(action, "unpin") != 0)
		return gw_fail(-EINVAL, "unknown action '%s' on images", action);
	rc = check_names(st, names);
	json_array_foreach(names, i, name) {
		const char *text = json_string_value(name);

		if (!rc)
			rc = rm ? gw_image_drop(st, text) : gw_image_pin(st, text, pin);
		if (!rc && rm)
			gw_report_image_gone(w, text);
	}
	if (!rc)
		*result = json_pack("{s:O}", "names", names);
	return rc;
}
