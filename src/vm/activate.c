// SPDX-License-Identifier: GPL-2.0-or-later
/* activate.c - disks of a guest that has not run here yet; see activate.h. */
#include <errno.h>
#include <string.h>

#include "activate.h"
#include "error.h"

/*
 * Before QEMU 10.0 has a command for it: whatever is to be exported is activated
 * first (blk_exp_add() in block/export/export.c), also where the export then
 * fails, which it does without an NBD server.
 */
static int activate_by_export(struct gw_qmp *q, const char *node)
{
	int rc = gw_qmp_call(q, "block-export-add",
			     json_pack("{s:s,s:s,s:s,s:s,s:b}", "type", "nbd", "id",
				       "godwit-activate", "node-name", node, "name",
				       "godwit-activate", "writable", 0),
			     NULL);

	if (rc == -EREMOTEIO)
		return 0;
	return rc ? rc
		  : gw_qmp_call(q, "block-export-del",
				json_pack("{s:s,s:s}", "id", "godwit-activate", "mode", "hard"),
				NULL);
}

int gw_disks_activate(struct gw_qmp *q)
{
	json_t *nodes = NULL, *node;
	size_t i;
	int rc = gw_qmp_call(q, "blockdev-set-active", json_pack("{s:b}", "active", 1), NULL);

	if (rc != -EREMOTEIO)
		return rc;
	rc = gw_qmp_call(q, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes);
	json_array_foreach(nodes, i, node) {
		const char *name = json_string_value(json_object_get(node, "node-name"));

		if (!rc && name && name[0])
			rc = activate_by_export(q, name);
	}
	json_decref(nodes);
	return rc;
}
