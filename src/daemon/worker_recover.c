// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_recover.c - the worker behind `godwit recover`, which the daemon starts by itself, too. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "log.h"
#include "source_env.h"

/* Ask the destination what became of the migration; its answer is final. */
static int ask(const struct gw_journal *j, enum gw_outcome *outcome, char *text, size_t len)
{
	struct gw_open open = { .version_min = GW_VERSION_MIN,
				.version_max = GW_VERSION,
				.kind = GW_OPEN_SETTLE };
	int64_t deadline = gw_now() + 30 * GW_S;
	struct gw_transport *t = gw_tcp_connect(j->peer, gw_now() + 5 * GW_S);
	uint8_t wire[GW_OPEN_LEN];
	struct gw_frame f = { 0 };
	int rc;

	if (!t)
		return -EHOSTUNREACH;
	memcpy(open.id, j->id, GW_ID_LEN);
	gw_open_encode(&open, wire);
	rc = gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire));
	if (!rc)
		rc = gw_frame_recv(t, &f, deadline);
	if (!rc && f.type != GW_MSG_SETTLED)
		rc = gw_fail(-EPROTO, "%s answered with %s", j->peer, gw_message_name(f.type));
	if (!rc) {
		*outcome = (enum gw_outcome)f.arg;
		snprintf(text, len, "%.*s", (int)f.len, (const char *)f.payload);
	}
	gw_frame_free(&f);
	gw_transport_close(&t);
	return rc;
}

/* What the user or the destination says became of a guest in doubt. */
static int find_outcome(const json_t *args, const struct gw_journal *j, enum gw_outcome *outcome)
{
	const char *said = json_string_value(json_object_get(args, "outcome"));
	char text[512] = "";
	int rc;

	*outcome = said && !strcmp(said, "resume")    ? GW_OUTCOME_ABORTED
		   : said && !strcmp(said, "discard") ? GW_OUTCOME_RUNNING
						      : 0;
	if (*outcome)
		return 0;
	rc = ask(j, outcome, text, sizeof(text));
	if (rc)
		return gw_fail_prefix(rc, "the destination cannot be asked; look there, then use "
					  "--resume (it does not run there) or --discard (it "
					  "does). Reason: ");
	gw_info("the destination says: %s", text);
	return 0;
}

static int recover_source(struct gw_worker *w, const json_t *args, const char *name,
			  const struct gw_journal *j, json_t **result)
{
	gw_autofd int lock = -1;
	struct gw_source_env *e = gw_source_env_new(w, name, &lock);
	enum gw_outcome outcome = GW_OUTCOME_ABORTED;
	int rc = 0;

	if (!e)
		return -EIO;
	e->journal = *j;
	e->settings = gw_settings_parse(j->settings);
	e->saving = true; /* it may have been under way; ending none is harmless */
	e->s.stopped = j->was_running;
	if (j->phase == GW_SOURCE_COMMITTING) {
		rc = find_outcome(args, j, &outcome);
		if (!rc && outcome == GW_OUTCOME_ABORTED && !j->was_running)
			rc = gw_source_end_saving(e);
		else if (!rc)
			rc = gw_source_settle(&gw_source_live_ops, e, outcome);
	} else {
		rc = j->was_running ? gw_source_recover(&gw_source_live_ops, e, GW_SOURCE_MOVING)
				    : gw_source_end_saving(e);
	}
	if (!rc && outcome != GW_OUTCOME_RUNNING)
		gw_source_put_back(e); /* of a guest that stays paused */
	if (!rc && outcome != GW_OUTCOME_RUNNING)
		gw_journal_remove(w->paths, name);
	if (!rc)
		*result = json_pack("{s:s}", "outcome",
				    outcome == GW_OUTCOME_RUNNING ? "moved" : "resumed");
	gw_source_env_free(e);
	return rc;
}

int gw_worker_recover(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_journal j;
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	rc = gw_journal_load(w->paths, name, &j);
	if (rc == -ENOENT)
		return gw_fail(rc, "VM '%s' has no migration to settle", name);
	if (rc)
		return rc;
	if (j.role == GW_ROLE_SOURCE)
		return recover_source(w, args, name, &j, result);
	switch (gw_dest_put_right(w, name, &j)) {
	case GW_OUTCOME_RUNNING:
		*result = json_pack("{s:s}", "outcome", "running");
		return 0;
	case GW_OUTCOME_ABORTED:
		*result = json_pack("{s:s}", "outcome", "removed");
		return 0;
	case GW_OUTCOME_LOST:
		return gw_fail(-ESRCH,
			       "VM '%s' was committed to this host, but its guest cannot be "
			       "resumed: %s",
			       name, gw_error());
	default:
		return gw_fail(-EBUSY,
			       "what became of VM '%s' cannot be told now: it still "
			       "arrives, or its QEMU does not answer; try again",
			       name);
	}
}
