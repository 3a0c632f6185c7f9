// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * recover.c - what becomes of the guest when its migration ended without us.
 *
 * Run by whoever finds a journal whose worker is dead: the daemon when its
 * child ends, a restarted daemon, or `godwit recover` (tests/sim does all).
 */
#include <errno.h>

#include "error.h"
#include "internal.h"

int gw_source_recover(const struct gw_source_ops *ops, void *env, enum gw_source_phase phase)
{
	if (phase == GW_SOURCE_MOVING)
		return ops->guest_resume(env);
	if (phase == GW_SOURCE_LEFT)
		return ops->guest_quit(env, NULL);
	return gw_fail(-EINPROGRESS,
		       "the migration ended before the destination confirmed that the "
		       "guest runs there: settle it with 'godwit recover'");
}

int gw_source_settle(const struct gw_source_ops *ops, void *env, enum gw_outcome outcome)
{
	int rc;

	/* The journal first: what fails after it is tried again without asking anybody. */
	switch (outcome) {
	case GW_OUTCOME_ABORTED:
		rc = ops->journal(env, GW_SOURCE_MOVING);
		return rc ? rc : ops->guest_resume(env);
	case GW_OUTCOME_PAGING: /* whoever finds the journal brings it what it lacks */
		return ops->journal(env, GW_SOURCE_SERVING);
	case GW_OUTCOME_RUNNING:
		rc = ops->journal(env, GW_SOURCE_LEFT);
		return rc ? rc : ops->guest_quit(env, NULL);
	default:
		return gw_fail(-EINPROGRESS, "the destination cannot tell whether the guest ran");
	}
}
