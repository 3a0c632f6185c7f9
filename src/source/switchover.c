// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * switchover.c - quiesced scans, and the moment when the guest changes hosts.
 *
 * Direct I/O escapes the tracker (F7): data that lands after a scan in a page
 * pinned before it sets no flag. While the guest is stopped QEMU has drained
 * its I/O, so a scan made then loses nothing, and every pin after it faults
 * and is seen. What landed unseen earlier, in any page (even one pinned before
 * tracking began), is found by comparing all pages with the digests of what
 * travelled, once, while the guest runs on. From there every scan must be
 * quiesced; the final one is, because the guest is stopped.
 *
 *   source                         destination
 *   guest_stop
 *   storage_settle (--copy-storage)
 *   device_begin (QEMU saves)
 *   final scan, last round    ->   placed
 *   VERIFY... (--verify)      ->   compared
 *                             <-   VERIFIED
 *                             <-   ROUND_DONE
 *   DEVICE... DEVICE_END      ->   held (handover.c)
 *                             <-   HELD
 *   LOAD                      ->   QEMU loads
 *                             <-   LOADED
 *   journal: committing
 *   COMMIT {run}              ->   journal: committed, guest resumes
 *                             <-   RUNNING
 *   (post-copy: here, what is missing is brought; serve.c)
 *   LEDGER... LEDGER_END        ->   for the way back (reuse.c)
 *   guest_quit
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "feature.h"
#include "internal.h"

int gw_source_quiesce(struct gw_source *s, bool compare)
{
	int64_t began = s->ops->now(s->env);
	char why[GW_ERROR_MAX];
	int rc = gw_source_stop(s), resumed;

	if (!rc)
		rc = gw_source_scan(s);
	if (!rc)
		rc = s->ops->guest_stayed(s->env);
	snprintf(why, sizeof(why), "%s", gw_error());
	resumed = gw_source_resume(s);
	s->quiesce_ns += s->ops->now(s->env) - began;
	if (rc) /* the reason is what went wrong first */
		gw_fail(rc, "%s", why);
	else
		rc = resumed;
	if (!rc && compare)
		rc = gw_round_compare(s);
	return rc;
}

/*
 * QEMU there refused a guest that had not taken a step, and is dead: the answer
 * is as final as one to SETTLE, so the guest goes on here. 0, or -EAGAIN: still in doubt.
 */
static int revoked(struct gw_source *s)
{
	char why[GW_ERROR_MAX];

	snprintf(why, sizeof(why), "%s", gw_error());
	if (s->ops->journal(s->env, GW_SOURCE_MOVING))
		return -EAGAIN; /* its message is as good a reason */
	s->committed = false;
	gw_fail(-EREMOTEIO, "%s", why);
	return 0;
}

/* Whether it is to run there; a destination that cannot be told now was told at the start. */
static int check_told(const struct gw_source *s)
{
	if (gw_holder_has(&s->holder, GW_FEATURE_RUN) || s->runs == s->ran)
		return 0;
	return gw_fail(-ENOTSUP,
		       "the guest was %s while it moved, and the destination has an older godwitd, "
		       "which cannot be told: move it again",
		       s->runs ? "continued" : "paused");
}

/* Write down that the guest may be the destination's from now on; undone if it is not to be. */
static int journal_commit(struct gw_source *s)
{
	char why[GW_ERROR_MAX];
	int rc = s->ops->journal(s->env, GW_SOURCE_COMMITTING);

	if (rc)
		return rc;
	s->committed = true;
	/* Looked at again, because that may have taken its time. */
	rc = s->ops->guest_stayed(s->env);
	if (!rc)
		return 0;
	snprintf(why, sizeof(why), "%s", gw_error());
	s->committed = s->ops->journal(s->env, GW_SOURCE_MOVING);
	return gw_fail(rc, "%s", why);
}

/* From here on nothing on this host resumes the guest (invariant 1). */
static int commit(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	const uint64_t run = gw_holder_has(h, GW_FEATURE_RUN) && s->runs;
	int rc = s->ops->guest_stayed(s->env);

	if (!rc)
		rc = s->ops->cancelled(s->env);
	if (!rc)
		rc = journal_commit(s);
	if (rc)
		return rc;
	rc = gw_frame_send(h->control, GW_MSG_COMMIT, run, NULL, 0);
	if (!rc)
		rc = gw_holder_expect(h, GW_MSG_RUNNING, s->ops->now(s->env) + GW_SWITCHOVER_NS);
	if (rc && h->revoked && !revoked(s))
		return rc;
	if (s->postcopy && !h->revoked && gw_transport_lost(rc))
		rc = gw_serve_doubt(s, rc);
	if (rc)
		return gw_fail_prefix(
			rc,
			"the destination did not confirm that the guest runs there, so it stays "
			"stopped here; settle it with 'godwit recover %s'. Reason: ",
			json_string_value(json_object_get(s->definition, "name")) ?: "NAME");
	/* From here on whoever finds us dead knows that, too. */
	if (s->ops->journal(s->env, s->postcopy ? GW_SOURCE_SERVING : GW_SOURCE_LEFT))
		gw_error_clear();
	return 0;
}

/* The guest runs there: bring what it lacks, however long that takes. */
static int serve(struct gw_source *s)
{
	int rc = gw_source_enter(s, GW_SOURCE_POSTCOPY_ACTIVE);

	gw_holder_close(&s->holder);
	if (!rc)
		rc = gw_serve_rest(s);
	return rc ? gw_serve_lost(s, rc) : 0;
}

int gw_source_leave(struct gw_source *s)
{
	struct gw_ledger l = { 0 };
	bool keep;
	int rc;

	if (s->holder.control)
		gw_holder_send_by(&s->holder, s->ops->now(s->env) + GW_READY_NS);
	keep = s->params.reuse && !gw_reuse_depart(s, &l);
	rc = s->ops->guest_quit(s->env, keep ? &l : NULL);

	gw_ledger_close(&l);
	return rc;
}

/* Switchovers that may be taken back before it is said that it will not work. */
#define ATTEMPTS_MAX 5

int gw_source_again(struct gw_source *s)
{
	const unsigned int limit = s->params.downtime_limit_ms;

	gw_holder_send_by(&s->holder, 0);
	if (s->stopped)
		return gw_fail(-EIO,
			       "the guest's last pages and its device state took longer than the "
			       "%u ms that are allowed, and QEMU does not resume it",
			       limit);
	if (++s->attempts < ATTEMPTS_MAX)
		return gw_source_enter(s, GW_SOURCE_ACTIVE);
	return gw_fail(-ETIME,
		       "the guest was stopped %u times to be moved, and each time its last pages "
		       "and its device state took longer than the %u ms that are allowed, at %.1f "
		       "MiB/s: it runs on here; use --downtime-limit %u, or a steadier network",
		       s->attempts, limit, (double)s->holder.bandwidth / 1048576, limit * 3);
}

/* While the control connection is waited for: the guest goes on in time, and its user is heard. */
static int on_tick(void *arg)
{
	struct gw_source *s = arg;

	gw_source_tick(s);
	return s->ops->cancelled(s->env);
}

/* The guest's last pages are there; compare all, which takes a time of its own. */
static int verify_stopped(struct gw_source *s)
{
	const int64_t limit = s->deadline;
	int64_t began;
	int rc = 0;

	if (!s->postcopy)
		rc = gw_holder_wait_round(&s->holder, s->ops->now(s->env) + GW_ROUND_NS);
	if (!rc)
		rc = gw_handover_in_time(s);
	if (rc == -EAGAIN && s->over && !s->stopped)
		gw_round_late(s);
	/* Of what is missing both sides count zeros; and no round can follow any more. */
	if (!rc && s->postcopy)
		rc = gw_serve_tell(s);
	if (rc)
		return rc;
	began = s->ops->now(s->env);
	s->deadline = GW_FOREVER;
	gw_holder_send_by(&s->holder, began + gw_memory_hash_ns(s->memory));
	rc = gw_source_verify(s);
	if (limit != GW_FOREVER && !s->postcopy)
		s->deadline = limit + s->ops->now(s->env) - began;
	gw_holder_send_by(&s->holder, s->deadline == GW_FOREVER ? 0 : gw_handover_end(s));
	return rc;
}

/* From the guest's stop until its device state is loaded there. */
static int hand_over(struct gw_source *s)
{
	int64_t mark;
	int rc = gw_source_stop(s);

	s->holder.control->tick_arg = s;
	s->holder.control->on_tick = on_tick;
	gw_holder_send_by(&s->holder, s->deadline == GW_FOREVER ? 0 : gw_handover_end(s));
	if (!rc)
		rc = check_told(s);
	if (!rc && s->carried)
		rc = gw_carried_freeze(s);
	if (!rc)
		rc = gw_source_settle_storage(s);
	/* With it QEMU gives its disks up, until it is resumed. */
	if (!rc)
		rc = s->ops->device_begin(s->env);
	mark = s->ops->now(s->env);
	s->stop_ns = mark - s->stopped_ns;
	if (!rc)
		rc = gw_source_scan(s);
	if (!rc)
		gw_defer_end(s);
	if (!rc && !s->postcopy)
		rc = gw_round_send(s, true);
	s->final_pages_ns = s->ops->now(s->env) - mark;
	if (!rc)
		rc = gw_source_enter(s, GW_SOURCE_DEVICE);
	mark = s->ops->now(s->env);
	/* Before QEMU there loads its state: KVM then writes the guest's clock into its memory. */
	if (!rc && s->params.verify)
		rc = verify_stopped(s);
	if (!rc)
		rc = gw_handover(s, s->params.verify || s->postcopy);
	s->device_ns = s->ops->now(s->env) - mark;
	s->holder.control->on_tick = NULL;
	return rc;
}

int gw_source_switchover(struct gw_source *s)
{
	int64_t mark;
	int rc = gw_source_enter(s, GW_SOURCE_PRE_SWITCHOVER);

	/* While the guest still runs: if not, it goes on running. */
	if (!rc && s->ops->unchanged)
		rc = s->ops->unchanged(s->env);
	if (!rc && s->postcopy)
		rc = gw_serve_open(s);
	if (rc)
		return rc;
	s->verified = false;
	s->stopped_ns = s->ops->now(s->env);
	rc = hand_over(s);
	mark = s->ops->now(s->env);
	if (!rc)
		rc = commit(s);
	s->resumed_ns = s->ops->now(s->env);
	s->resume_ns = s->resumed_ns - mark;
	if (!rc && s->postcopy)
		rc = serve(s);
	if (rc)
		return rc;
	/* The outcome is known; what stays behind here is only told, and recover removes it. */
	if (gw_source_leave(s))
		snprintf(s->error, sizeof(s->error),
			 "the guest runs at the destination, but was not removed here ('godwit "
			 "recover' does): %s",
			 gw_error());
	return 0;
}
