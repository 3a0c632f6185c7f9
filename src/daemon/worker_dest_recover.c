// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_dest_recover.c - what a destination's worker that died has left: an arrival that is
 * to be settled (dest/recover.c), or a guest that waits for its pages (dest/paging.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "io.h"
#include "kept.h"
#include "log.h"
#include "vm_folder.h"

static enum gw_dest_verdict verdict(const struct gw_recovery *why, bool doubted)
{
	if (why->forbid)
		return GW_DEST_FORBID;
	if (!doubted || why->confirmed)
		return GW_DEST_FINISH;
	return why->asked ? GW_DEST_ASKED : GW_DEST_LOOK;
}

/*
 * It ran here. Where whoever paged has not said how that ended, it died with QEMU, or after
 * the memory was whole. UNKNOWN: to be written down in another try.
 */
static enum gw_outcome paged_outcome(const struct gw_dest_env *e)
{
	const bool whole = e->vm.watch.mode != GW_WATCH_PAGING;
	enum gw_outcome outcome = gw_settled_load(e->w->paths, e->journal.id);

	if (outcome != GW_OUTCOME_PAGING)
		return outcome == GW_OUTCOME_ENDED ? outcome : GW_OUTCOME_RUNNING;
	outcome = whole ? GW_OUTCOME_RUNNING : GW_OUTCOME_ENDED;
	return gw_settled_save(e->w->paths, e->journal.id, outcome) ? GW_OUTCOME_UNKNOWN : outcome;
}

enum gw_outcome gw_dest_put_right(struct gw_worker *w, const char *name, struct gw_journal *j,
				  const struct gw_recovery *why)
{
	gw_autofree char *dir = gw_vm_dir(w->paths, name);
	struct gw_dest_env *e = gw_dest_env_new(w);
	enum gw_outcome outcome;
	int rc;

	if (!e)
		return GW_OUTCOME_UNKNOWN;
	e->lock = gw_vm_lock(w->paths, name);
	/* It may have been settled before we had the lock. */
	if (e->lock < 0 || gw_journal_load(w->paths, name, j)) {
		gw_dest_env_free(e);
		return GW_OUTCOME_UNKNOWN;
	}
	e->journal = *j;
	e->d.run = j->was_running;
	e->settings = gw_settings_parse(j->settings);
	e->asked = why->asked || why->confirmed;
	/* Without vm.json its QEMU was never started; the folder still goes. */
	rc = gw_vm_load(w->paths, name, &e->vm);
	if (rc)
		snprintf(e->vm.def.name, sizeof(e->vm.def.name), "%s", name);
	else if (!e->vm.process.pid && gw_launch_find(dir, &e->vm.process))
		gw_error_clear(); /* not started yet: nothing to end */
	/* Its QEMU may wait for a page that is at a sub-host. */
	if (!rc && e->vm.split && j->phase != GW_DEST_PHASE_RECEIVING &&
	    gw_process_alive(&e->vm.process) && gw_dest_split_take_over(e))
		gw_warn("VM '%s' has no pager yet: %s", name, gw_error());
	if (!rc && j->phase != GW_DEST_PHASE_RECEIVING)
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	outcome = gw_dest_recover(&gw_dest_live_ops, e, (enum gw_dest_phase)j->phase,
				  j->was_running,
				  verdict(why, gw_settled_doubted(w->paths, j->id)));
	if (outcome == GW_OUTCOME_LOST && gw_settled_save(w->paths, j->id, outcome))
		outcome = GW_OUTCOME_UNKNOWN; /* to be written down in another try */
	if (outcome == GW_OUTCOME_RUNNING && e->qmp)
		gw_dest_put_back(e);
	if (outcome == GW_OUTCOME_RUNNING)
		outcome = paged_outcome(e);
	if (outcome == GW_OUTCOME_RUNNING || outcome == GW_OUTCOME_LOST ||
	    outcome == GW_OUTCOME_ENDED) {
		gw_image_drop(&w->paths->store, name);
		gw_journal_remove(w->paths, name);
	}
	gw_dest_split_end(e, outcome == GW_OUTCOME_ABORTED || outcome == GW_OUTCOME_LOST);
	gw_dest_env_free(e);
	return outcome;
}

/* Its RAM files, as they lie in the folder that is the VM's. */
static int open_memory(struct gw_dest_env *e)
{
	int rc = gw_vm_make_ram(e->w->paths, &e->vm.def, true, &e->ram);

	e->d.memory = &e->ram.memory;
	return rc;
}

/*
 * What the ledger that comes in the end is told against: the image whose RAM files these are
 * is there until then.
 */
static void recall_reuse(struct gw_dest_env *e)
{
	json_t *reuse = gw_pages_recall(&e->pages);

	if (reuse && e->d.keyed && !gw_kept_heed(&e->d, reuse) &&
	    !gw_image_load(&e->w->paths->store, e->vm.def.name, &e->arrival.image)) {
		e->d.kept.departure = e->arrival.image.departure;
		e->d.kept.ledger = &e->arrival.image.ledger;
	}
	json_decref(reuse);
	gw_error_clear();
}

/* How it ended: the guest's memory is whole, or nobody needs it any more. */
static int end(struct gw_dest_env *e, enum gw_outcome outcome)
{
	const char *name = e->vm.def.name;

	if (outcome == GW_OUTCOME_RUNNING && e->qmp)
		gw_dest_put_back(e);
	if (outcome == GW_OUTCOME_RUNNING || outcome == GW_OUTCOME_LOST) {
		if (gw_settled_save(e->w->paths, e->journal.id, outcome))
			return -EIO;
		gw_image_drop(&e->w->paths->store, name);
		gw_journal_remove(e->w->paths, name);
	}
	return 0;
}

int gw_dest_env_paged(struct gw_dest_env *e, int rc)
{
	/* The guest has run here and has ended: its source needs to keep nothing. */
	if (rc == -ECANCELED) {
		gw_info("%s, before all of its memory had come", e->d.error);
		return gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_RUNNING);
	}
	if (rc == -ECHILD && !gw_settled_save(e->w->paths, e->journal.id, GW_OUTCOME_ENDED))
		return gw_fail(rc, "%s", e->d.error);
	return rc ? rc : end(e, GW_OUTCOME_RUNNING);
}

int gw_worker_page(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	const struct gw_recovery why = {
		.asked = json_is_true(json_object_get(args, "asked")),
		.forbid = json_is_true(json_object_get(args, "forbid")),
	};
	struct gw_dest_env *e = gw_dest_env_new(w);
	enum gw_outcome outcome;
	int rc = e ? 0 : -ENOMEM;

	if (rc)
		return rc;
	e->lock = gw_vm_lock(w->paths, name);
	rc = e->lock < 0 ? e->lock : gw_journal_load(w->paths, name, &e->journal);
	if (!rc)
		rc = gw_vm_load(w->paths, name, &e->vm);
	if (!rc)
		rc = open_memory(e);
	if (rc) {
		gw_dest_env_free(e);
		return rc;
	}
	memcpy(e->d.id, e->journal.id, GW_ID_LEN);
	e->d.version = GW_VERSION;
	e->d.run = e->journal.was_running;
	e->d.keyed = e->vm.has_secret;
	memcpy(e->d.secret, e->vm.secret, sizeof(e->d.secret));
	gw_copy_whole(e->d.lost, sizeof(e->d.lost), e->journal.why);
	e->settings = gw_settings_parse(e->journal.settings);
	e->asked = why.asked;
	rc = e->d.keyed ? gw_key_init(&e->d.key, e->d.secret) : 0;
	recall_reuse(e);
	if (!rc)
		rc = gw_dest_page_on(&e->d, (enum gw_dest_phase)e->journal.phase,
				     verdict(&why, gw_settled_doubted(w->paths, e->d.id)),
				     &outcome);
	if (!rc && outcome != GW_OUTCOME_RUNNING)
		rc = end(e, outcome);
	else
		rc = gw_dest_env_paged(e, rc);
	if (!rc)
		*result = json_pack("{s:s}", "status", "completed");
	gw_dest_env_free(e);
	return rc;
}
