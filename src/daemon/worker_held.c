// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_held.c - a worker that shows, or drops, what VMs of other hosts have here. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "budget.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "promise.h"
#include "worker.h"

#define LOCK_NS (5 * GW_S) /* its keeper was told to leave */

struct list {
	const struct gw_paths *p;
	json_t *held;
};

static void add(void *arg, const char *id, const struct gw_promise *promise)
{
	const struct gw_hold *hold = &promise->hold;
	const struct list *l = arg;

	json_array_append_new(l->held, json_pack("{s:s,s:s,s:s,s:I,s:I,s:s,s:b,s:b}", "id", id,
						 "name", hold->name, "host", hold->host, "size",
						 (json_int_t)hold->size, "held",
						 (json_int_t)gw_promise_used(l->p, id, promise),
						 "where", promise->swap[0] ? "disk" : "memory",
						 "failed", (int)promise->failed, "connected",
						 (int)gw_promise_connected(l->p, id)));
}

static int drop(const struct gw_worker *w, const char *id, bool confirmed, json_t **result)
{
	gw_autofd int lock = -1;
	struct gw_promise promise;
	const struct gw_hold *hold = &promise.hold;
	uint8_t parsed[GW_ID_LEN];
	char size[32];
	uint64_t used;
	int rc = gw_id_parse(id, parsed) ? -ENOENT : gw_promise_load(w->paths, id, &promise);

	if (rc == -ENOENT)
		return gw_fail(rc, "nothing is held here under the id '%s'; see 'godwit held'", id);
	if (rc)
		return rc;
	if (gw_promise_connected(w->paths, id))
		return gw_fail(
			-EBUSY,
			"VM '%s' uses what lies here: its main host '%s' is connected. There, "
			"move its memory back, or end it",
			hold->name, hold->host);
	used = gw_promise_used(w->paths, id, &promise);
	gw_format_size(used, size, sizeof(size));
	if (used && !confirmed)
		return gw_fail(-EINVAL,
			       "%s of the memory of VM '%s' lie here. Its main host '%s' is not "
			       "connected; if the VM still runs there, it cannot go on without "
			       "them. If it never will, say --drop %s --confirm",
			       size, hold->name, hold->host, id);
	lock = gw_promise_lock(w->paths, id, gw_now() + LOCK_NS);
	if (lock < 0)
		return lock;
	/* Its main host may have come in between. */
	rc = gw_promise_load(w->paths, id, &promise);
	if (rc && rc != -ENOENT)
		return rc;
	rc = gw_promise_remove(w->paths, id);
	if (rc)
		return rc;
	gw_info("dropped %s that VM '%s' of host '%s' had here", size, hold->name, hold->host);
	*result = json_pack("{s:s,s:s,s:s,s:I}", "id", id, "name", hold->name, "host", hold->host,
			    "freed", (json_int_t)used);
	return 0;
}

int gw_worker_held(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *id = json_string_value(json_object_get(args, "drop"));
	struct list l = { .p = w->paths };
	struct gw_budget_server room;

	if (id)
		return drop(w, id, json_is_true(json_object_get(args, "confirm")), result);
	l.held = json_array();
	gw_promise_each(w->paths, add, &l);
	gw_budget_server(w->paths, &room);
	*result = json_pack("{s:I,s:I,s:I,s:I,s:o}", "limit", (json_int_t)room.limit, "free",
			    (json_int_t)room.free, "swap-limit", (json_int_t)room.swap_limit,
			    "swap-free", (json_int_t)room.swap_free, "held", l.held);
	return 0;
}
