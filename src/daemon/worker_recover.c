// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_recover.c - the worker behind `godwit recover`, which the daemon starts by itself, too.
 *
 * At the source a guest in doubt is resumed on three grounds only: the destination
 * says that it never ran there and never will; or that its QEMU there is dead, and
 * the operator accepts that it may have run (--resume, which has it killed there);
 * or the operator vouches for a destination that says nothing (--confirm).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "mirror.h"
#include "peers.h"
#include "source_env.h"

#define CONNECT_NS (5 * GW_S)
/* A little longer than the destination takes before it answers that it does not know. */
#define SETTLE_NS  (40 * GW_S)

/* The text, and behind it perhaps the name of a host. */
static void take_said(const struct gw_frame *f, struct gw_said *said)
{
	const char *text = (const char *)f->payload;
	const size_t n = strnlen(text, f->len);

	said->outcome = (enum gw_outcome)f->arg;
	snprintf(said->text, sizeof(said->text), "%.*s", (int)n, text);
	if (said->outcome == GW_OUTCOME_UNKNOWN && n < f->len) {
		gw_autofree char *host = gw_path("%.*s", (int)(f->len - n - 1), text + n + 1);

		gw_copy_whole(said->host, sizeof(said->host), host);
	}
}

int gw_ask(const char *address, enum gw_open_kind kind, const uint8_t id[GW_ID_LEN], int64_t ns,
	   struct gw_said *said)
{
	const struct gw_peer peer = { .address = address, .wake = { .fd = -1 } };
	struct gw_open open = { .version_min = kind > GW_OPEN_REGISTRY ? 2 : 0,
				.kind = (uint16_t)kind };
	int64_t deadline = gw_now() + ns;
	struct gw_transport *t = gw_peer_connect(&peer, gw_now() + CONNECT_NS);
	struct gw_frame f = { 0 };
	int rc;

	memset(said, 0, sizeof(*said));
	if (!t)
		return -EHOSTUNREACH;
	memcpy(open.id, id, GW_ID_LEN);
	rc = gw_peer_open(t, &open, GW_MSG_SETTLED, &f, deadline);
	if (!rc && f.arg > GW_OUTCOME_ENDED)
		rc = gw_fail(-EPROTO, "an outcome %llu that is none", (unsigned long long)f.arg);
	if (rc == -EREMOTEIO || rc == -EPROTO)
		gw_fail_prefix(rc, "%s: ", address);
	if (!rc)
		take_said(&f, said);
	gw_frame_free(&f);
	gw_transport_close(&t);
	return rc;
}

int gw_ask_of_served(const struct gw_journal *j, bool forbid, struct gw_said *said)
{
	int rc = gw_ask(j->peer, forbid ? GW_OPEN_FORBID : GW_OPEN_SETTLE, j->id, SETTLE_NS, said);

	if (rc || !said->host[0])
		return rc;
	if (strcmp(said->host, j->host) != 0)
		return gw_fail(-EREMOTEIO, "%s: host '%s' answers there, and not '%s'", j->peer,
			       said->host, j->host[0] ? j->host : "?");
	said->outcome = GW_OUTCOME_FORGOTTEN;
	return 0;
}

/* What the user wants of `recover`. */
struct wish {
	bool resume, discard, confirm;
};

static struct wish read_wish(const json_t *args)
{
	const char *said = json_string_value(json_object_get(args, "outcome"));

	return (struct wish){ .resume = said && !strcmp(said, "resume"),
			      .discard = said && !strcmp(said, "discard"),
			      .confirm = json_is_true(json_object_get(args, "confirm")) };
}

/* A guest in doubt, and nobody has said which it is to be. */
static int undecided(const char *name, enum gw_outcome outcome, int rc, const char *text)
{
	if (rc)
		return gw_fail(rc,
			       "the destination cannot be asked: %s. Try again when it can be "
			       "reached. If that will never be, look there: 'godwit recover %s "
			       "--resume --confirm' if the guest runs there neither now nor "
			       "later, '--discard --confirm' if it does",
			       text, name);
	if (outcome == GW_OUTCOME_LOST)
		return gw_fail(-EINPROGRESS,
			       "the destination: %s. Nobody knows whether the guest ran there "
			       "first; if it did, its disks are newer than its memory here. "
			       "'godwit recover %s --resume' resumes it here, '--discard "
			       "--confirm' gives its memory up",
			       text, name);
	return gw_fail(
		-EINPROGRESS,
		"the destination cannot tell whether the guest ran there: %s. Try again; "
		"or 'godwit recover %s --resume' has it killed there and resumes it here; or "
		"look there, and if it runs, use '--discard --confirm'",
		text, name);
}

static int unconfirmed(const char *name, const struct wish *wish, const char *text)
{
	return gw_fail(-EINPROGRESS,
		       "the destination says nothing of the guest: %s. Only you can make sure: if "
		       "%s, use 'godwit recover %s --%s --confirm'. A guest that runs on two hosts "
		       "destroys its disks",
		       text,
		       wish->resume ? "its host is off, or no QEMU of it is left there"
				    : "you see it run there, or want to give it up",
		       name, wish->resume ? "resume" : "discard");
}

/* What the destination's answer leaves no choice in. 1: nothing; 0: it is as the user wishes. */
static int forced(const char *name, const struct wish *wish, enum gw_outcome outcome,
		  const char *text)
{
	if (outcome == GW_OUTCOME_PAGING)
		return !wish->resume && !wish->discard
			       ? 0
			       : gw_fail(-EINPROGRESS,
					 "the destination: %s. It needs the memory that is here: "
					 "it is neither resumed here nor discarded; 'godwit recover "
					 "%s' brings it",
					 text, name);
	if (outcome == GW_OUTCOME_RUNNING)
		return !wish->resume ? 0
				     : gw_fail(-EINPROGRESS,
					       "the destination: %s. So it is not resumed here; "
					       "'godwit recover %s' removes what is left of it",
					       text, name);
	if (outcome == GW_OUTCOME_ABORTED)
		return !wish->discard ? 0
				      : gw_fail(-EINPROGRESS,
						"the destination: %s. So it is not discarded here; "
						"'godwit recover %s' resumes it",
						text, name);
	return 1;
}

/*
 * A guest that has run there, and is gone. What is here is older than its disks, so it is only
 * resumed by somebody who says that he has put them back, too. As find_outcome().
 */
static int decide_gone(const struct gw_journal *j, const char *name, const struct wish *wish,
		       bool sure, const char *text, enum gw_outcome *outcome)
{
	char fate[GW_ERROR_MAX];

	gw_journal_gone_text(j, name, fate, sizeof(fate));
	if (!wish->resume && !wish->discard)
		return gw_fail(-EINPROGRESS, "%s", fate);
	if (wish->resume && !wish->confirm)
		return gw_fail(
			-EINPROGRESS,
			"VM '%s' is not resumed here: it had run on host '%s' since its memory was "
			"what is here, and its disks hold what it wrote there. To go on from "
			"older memory destroys the file systems on them. Start it from its disks "
			"('godwit recover %s --discard' first). Only if each disk has been put "
			"back to what it was when the VM left, use '--resume --confirm'",
			name, j->host[0] ? j->host : j->peer, name);
	if (!sure && !wish->confirm)
		return unconfirmed(name, wish, text);
	*outcome = wish->resume ? GW_OUTCOME_ABORTED : GW_OUTCOME_RUNNING;
	gw_warn("VM '%s': %s by order", name, wish->resume ? "resumed here" : "discarded here");
	return 0;
}

/* What it lacks there is lost here, so nothing that is left here is of use. As find_outcome(). */
static int decide_lost(const struct gw_journal *j, const char *name, const struct wish *wish,
		       enum gw_outcome *outcome)
{
	char fate[GW_ERROR_MAX];

	gw_journal_gone_text(j, name, fate, sizeof(fate));
	if (!wish->discard)
		return gw_fail(-EINPROGRESS, "%s%s", wish->resume ? "It cannot run here: " : "",
			       fate);
	*outcome = GW_OUTCOME_RUNNING;
	gw_warn("VM '%s': discarded here by order", name);
	return 0;
}

static int recover_gone(struct gw_source_env *e, const char *name, const struct wish *wish,
			enum gw_outcome *outcome)
{
	struct gw_said said;
	int rc = gw_ask_of_served(&e->journal, wish->resume, &said);
	bool sure;

	if (rc)
		snprintf(said.text, sizeof(said.text), "%s", gw_error());
	*outcome = said.outcome;
	/* A file may be back, or have been out of sight. */
	if (e->journal.lost && (rc || said.outcome != GW_OUTCOME_RUNNING) && gw_serve_gone(e))
		return decide_lost(&e->journal, name, wish, outcome);
	sure = !rc && said.outcome != GW_OUTCOME_UNKNOWN;
	rc = rc ? 1 : forced(name, wish, said.outcome, said.text);
	return rc > 0 ? decide_gone(&e->journal, name, wish, sure, said.text, outcome) : rc;
}

/*
 * What became of a guest in doubt. 0: *outcome is ABORTED (it is ours) or RUNNING (it is
 * not), and sure, or vouched for.
 */
static int find_outcome(struct gw_source_env *e, const char *name, const struct wish *wish,
			enum gw_outcome *outcome)
{
	struct gw_journal *j = &e->journal;
	struct gw_said said;
	const char *text = said.text;
	int rc = gw_ask(j->peer, wish->resume ? GW_OPEN_FORBID : GW_OPEN_SETTLE, j->id, SETTLE_NS,
			&said),
	    decided;

	/* A destination of version 1 does not know the question. */
	if (rc == -EREMOTEIO && wish->resume)
		rc = gw_ask(j->peer, GW_OPEN_SETTLE, j->id, SETTLE_NS, &said);
	*outcome = said.outcome;
	if (rc)
		snprintf(said.text, sizeof(said.text), "%s", gw_error());
	else
		gw_info("VM '%s': the destination says: %s", name, text);
	if (!rc && said.outcome == GW_OUTCOME_ENDED) {
		/* So it ran there. */
		j->phase = GW_SOURCE_GONE;
		snprintf(j->why, sizeof(j->why), "%s", text);
		rc = gw_journal_save(e->w->paths, name, j);
		return rc ? rc : decide_gone(j, name, wish, true, text, outcome);
	}
	decided = rc ? 1 : forced(name, wish, said.outcome, text);
	if (decided <= 0)
		return decided;
	if (!wish->resume && !wish->discard)
		return undecided(name, *outcome, rc, text);
	/* Dead there is all that --resume needs. */
	if (!wish->confirm && (rc || wish->discard || *outcome != GW_OUTCOME_LOST))
		return unconfirmed(name, wish, text);
	*outcome = wish->resume ? GW_OUTCOME_ABORTED : GW_OUTCOME_RUNNING;
	gw_warn("VM '%s': %s by order, where the destination says: %s", name,
		wish->resume ? "resumed here" : "discarded here", text);
	return 0;
}

static int recover_doubt(struct gw_source_env *e, const char *name, const struct wish *wish,
			 enum gw_outcome *outcome)
{
	int rc = e->journal.phase == GW_SOURCE_GONE ? recover_gone(e, name, wish, outcome)
						    : find_outcome(e, name, wish, outcome);

	/* A destination that comes back later asks before it resumes anything. */
	if (!rc && *outcome == GW_OUTCOME_ABORTED)
		rc = gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_ABORTED);
	if (rc)
		return rc;
	/* Not before: as long as that is not known its sub-hosts may be another's. */
	if (*outcome == GW_OUTCOME_ABORTED && e->qmp && e->vm.split)
		rc = gw_carry_begin(e, false);
	if (rc)
		return rc;
	if (*outcome == GW_OUTCOME_ABORTED && !e->qmp) {
		/* So it has ended like any other whose QEMU has. */
		gw_spread_give_up(e);
		gw_journal_remove(e->w->paths, name);
		return gw_fail(-ESRCH, "VM '%s' is this host's, but its QEMU here has ended", name);
	}
	if (*outcome == GW_OUTCOME_ABORTED && !e->journal.was_running)
		return gw_source_end_saving(e);
	return gw_source_settle(&gw_source_live_ops, e, *outcome);
}

/* It runs elsewhere, or may: so that it can be told of without a QEMU here. */
static bool needs_no_qemu(const struct gw_journal *j)
{
	return j->phase == GW_SOURCE_GONE || j->phase == GW_SOURCE_SERVING ||
	       (j->phase == GW_SOURCE_COMMITTING && j->paging);
}

/* It never left, and there is nothing to resume. */
static int ended_in_mid_move(struct gw_source_env *e, const char *name)
{
	gw_spread_give_up(e);
	gw_journal_remove(e->w->paths, name);
	return gw_fail(-ESRCH, "the QEMU of VM '%s' ended here in mid-move; it runs nowhere now",
		       name);
}

static int recover_source(struct gw_worker *w, const struct wish *wish, const char *name,
			  struct gw_journal *j, json_t **result)
{
	gw_autofd int lock = -1;
	struct gw_source_env *e = gw_source_env_served(w, name, &lock);
	enum gw_outcome outcome = GW_OUTCOME_ABORTED;
	int rc;

	if (!e)
		return -EIO;
	/* It may have been settled before we had the lock. */
	rc = gw_journal_load(w->paths, name, j);
	e->journal = *j;
	if (!rc && j->phase == GW_SOURCE_MOVING && j->split_to[0] &&
	    !gw_process_alive(&e->vm.process))
		rc = ended_in_mid_move(e, name);
	if (!rc && j->phase == GW_SOURCE_MOVING && e->vm.split && gw_process_alive(&e->vm.process))
		rc = gw_carry_begin(e, false);
	if (!rc && (gw_process_alive(&e->vm.process) || !needs_no_qemu(j)))
		rc = gw_source_env_monitor(e);
	if (rc) {
		gw_source_env_free(e);
		return rc;
	}
	e->settings = gw_settings_parse(j->settings);
	e->saving = true; /* it may have been under way; ending none is harmless */
	e->s.stopped = j->was_running;
	if (j->phase == GW_SOURCE_SERVING) {
		outcome = GW_OUTCOME_PAGING;
		rc = forced(name, wish, outcome, "it runs there");
	} else if (j->phase == GW_SOURCE_COMMITTING || j->phase == GW_SOURCE_GONE)
		rc = recover_doubt(e, name, wish, &outcome);
	else if (j->phase == GW_SOURCE_MOVING && !j->was_running)
		rc = gw_source_end_saving(e);
	else
		rc = gw_source_recover(&gw_source_live_ops, e, (enum gw_source_phase)j->phase);
	if (j->phase == GW_SOURCE_LEFT)
		outcome = GW_OUTCOME_RUNNING;
	if (!rc && outcome == GW_OUTCOME_PAGING) {
		*result = json_pack("{s:s}", "outcome", "serving");
		gw_source_env_free(e);
		return 0;
	}
	if (!rc && outcome != GW_OUTCOME_RUNNING)
		gw_settings_put_back(e->qmp, &e->settings,
				     e->vm.def.name); /* of a guest that stays paused */
	if (!rc && outcome != GW_OUTCOME_RUNNING && gw_mirror_forget(e->qmp))
		gw_warn("VM '%s': %s", name, gw_error());
	if (!rc && outcome != GW_OUTCOME_RUNNING) {
		gw_spread_give_up(e);
		gw_journal_remove(w->paths, name);
	}
	if (!rc)
		*result = json_pack("{s:s}", "outcome",
				    outcome == GW_OUTCOME_RUNNING ? "moved" : "resumed");
	gw_source_env_free(e);
	return rc;
}

/* An arrival of which nothing is known now: what will help? */
static int still_unknown(struct gw_worker *w, const char *name, const struct gw_journal *j)
{
	gw_autofree char *why = strdup(gw_error());

	if (!gw_settled_doubted(w->paths, j->id))
		return gw_fail(
			-EBUSY,
			"what became of VM '%s' cannot be told now: it still arrives, or its "
			"QEMU does not answer (%s). godwitd keeps trying",
			name, why);
	return gw_fail(-EBUSY,
		       "VM '%s' was committed to this host, but its source was told that nobody "
		       "knew whether it runs, so it is not resumed by itself. Run 'godwit recover "
		       "%s' at its source (%s). If that host is gone for good, use '--resume "
		       "--confirm' here, or '--discard' to remove what arrived",
		       name, name, j->peer[0] ? j->peer : "its address is not known");
}

static int recover_dest(struct gw_worker *w, const json_t *args, const struct wish *wish,
			const char *name, struct gw_journal *j, json_t **result)
{
	const struct gw_recovery why = {
		.asked = json_is_true(json_object_get(args, "asked")),
		.forbid = wish->discard || json_is_true(json_object_get(args, "forbid")),
		.confirmed = wish->resume && wish->confirm,
	};

	if (wish->resume && !wish->confirm)
		return gw_fail(
			-EINVAL,
			"VM '%s' came from another host: 'godwit recover %s' there settles it. "
			"If it is gone for good there, use '--resume --confirm' here",
			name, name);
	switch (gw_dest_put_right(w, name, j, &why)) {
	case GW_OUTCOME_RUNNING:
		*result = json_pack("{s:s}", "outcome", "running");
		return wish->discard
			       ? gw_fail(-EBUSY, "VM '%s' runs here; 'godwit stop %s' would end it",
					 name, name)
			       : 0;
	case GW_OUTCOME_ABORTED:
		*result = json_pack("{s:s}", "outcome", "removed");
		return 0;
	case GW_OUTCOME_ENDED:
		*result = json_pack("{s:s}", "outcome", "removed");
		return why.forbid
			       ? 0
			       : gw_fail(-ESRCH,
					 "VM '%s' ran on this host, and its QEMU has ended before "
					 "all of its memory had come",
					 name);
	case GW_OUTCOME_LOST:
		*result = json_pack("{s:s}", "outcome", "removed");
		return why.forbid ? 0
				  : gw_fail(-ESRCH,
					    "VM '%s' was committed to this host, but its QEMU is "
					    "gone. Its source may have it yet: run 'godwit recover "
					    "%s' there",
					    name, name);
	default:
		return still_unknown(w, name, j);
	}
}

int gw_worker_recover(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	const struct wish wish = read_wish(args);
	struct gw_journal j;
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	rc = gw_journal_load(w->paths, name, &j);
	if (rc == -ENOENT)
		return gw_fail(rc, "VM '%s' has no migration to settle; see godwit list", name);
	if (rc)
		return rc;
	return j.role == GW_ROLE_SOURCE ? recover_source(w, &wish, name, &j, result)
					: recover_dest(w, args, &wish, name, &j, result);
}
