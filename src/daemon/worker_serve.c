// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_serve.c - the source's keeper in post-copy: a guest runs at its destination and lacks
 * pages that are here, and the worker that moved it has died (source/serve.c).
 *
 * What that one knew of the destination is gone with it, so the pages that are still missing
 * travel whole, and nothing is kept for the guest's way back.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "log.h"
#include "source_env.h"

static int prepare(struct gw_source_env *e)
{
	struct gw_source *s = &e->s;
	int rc = gw_journal_load(e->w->paths, e->vm.def.name, &e->journal);

	if (!rc && (e->journal.role != GW_ROLE_SOURCE || e->journal.phase != GW_SOURCE_SERVING))
		rc = gw_fail(-EINVAL, "nobody waits for memory of VM '%s'", e->vm.def.name);
	if (!rc)
		rc = gw_attach(e->qmp, e->vm.process.pid, &e->ram, &e->facts);
	if (rc)
		return rc;
	e->settings = gw_settings_parse(e->journal.settings);
	memcpy(s->id, e->journal.id, GW_ID_LEN);
	memcpy(s->secret, e->vm.secret, sizeof(s->secret));
	s->ops = &gw_source_live_ops;
	s->env = e;
	s->memory = &e->ram.memory;
	s->paging = e->journal.paging;
	s->params.streams = s->paging - 1;
	s->params.pages.compress = GW_COMPRESS_AUTO;
	return 0;
}

int gw_worker_serve(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	gw_autofd int lock = -1;
	struct gw_source_env *e = gw_source_env_new(w, name, &lock);
	json_t *definition;
	int rc;

	if (!e)
		return -EIO;
	rc = prepare(e);
	if (!rc)
		rc = gw_source_env_crews(e);
	if (rc) {
		gw_source_env_free(e);
		return rc;
	}
	gw_info("VM '%s': bringing what it lacks of its memory to %s", name, e->journal.peer);
	definition = gw_definition_json(&e->vm.def);
	e->s.definition = definition;
	rc = gw_source_serve(&e->s);
	*result = gw_source_json(&e->s, gw_now());
	if (rc)
		gw_fail(rc, "%s", e->s.error);
	else
		gw_departure_report(&e->departure, w, &e->s, name, e->journal.peer);
	json_decref(definition);
	gw_source_env_free(e);
	return rc;
}
