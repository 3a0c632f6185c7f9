// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * recover.c - what becomes of a VM that was arriving when its worker died.
 *
 * An answer is final: once ABORTED has been said here, no COMMIT can take
 * effect any more, because the worker that could read it is dead and the QEMU
 * is gone. So the source may resume the guest on it (invariant 1). An answer
 * that nothing is known is final, too, in that from then on nobody here resumes
 * the guest by himself: its source, or its operator, may have acted on it.
 *
 *   committed, and QEMU says that the guest    finish      look        asked       forbid
 *     runs, or has run                         running     running     running     running
 *     has not taken a step                     resume it   (unknown)   aborted     aborted
 *     (does not answer)                        (unknown)   (unknown)   (unknown)   lost
 *     is gone                                  lost        lost        lost        lost
 */
#include <errno.h>

#include "dest.h"
#include "error.h"
#include "log.h"

/* The journal first: whoever finds us dead half-way removes the rest, and says the same. */
static enum gw_outcome abort_it(const struct gw_dest_ops *ops, void *env)
{
	if (ops->journal(env, GW_DEST_PHASE_RECEIVING))
		return GW_OUTCOME_UNKNOWN;
	ops->discard(env);
	return GW_OUTCOME_ABORTED;
}

int gw_dest_never_ran(const struct gw_dest_ops *ops, void *env)
{
	if (ops->guest_ran(env) != GW_DEST_RAN_NEVER)
		return -EINPROGRESS;
	return ops->journal(env, GW_DEST_PHASE_RECEIVING);
}

static enum gw_outcome runs_here(const struct gw_dest_ops *ops, void *env, bool run)
{
	if (ops->journal(env, GW_DEST_PHASE_RUNNING)) {
		gw_err("%s", gw_error());
		return GW_OUTCOME_UNKNOWN;
	}
	if (run)
		ops->guest_announce(env);
	return GW_OUTCOME_RUNNING;
}

/* It waits for its first step, and nobody was told that it might not take it. */
static enum gw_outcome finish(const struct gw_dest_ops *ops, void *env)
{
	int rc = ops->claim(env);

	if (rc == -ECANCELED)
		return abort_it(ops, env);
	if (!rc)
		rc = ops->guest_resume(env);
	if (!rc)
		return runs_here(ops, env, true);
	gw_err("the guest was committed to this host but does not resume: %s", gw_error());
	/* A refusal is an answer; a QEMU that says nothing may yet run it. */
	if (rc == -EREMOTEIO && ops->guest_ran(env) == GW_DEST_RAN_NEVER)
		return abort_it(ops, env);
	return rc == -EPIPE && ops->guest_ran(env) == GW_DEST_RAN_GONE ? GW_OUTCOME_LOST
								       : GW_OUTCOME_UNKNOWN;
}

static enum gw_outcome committed(const struct gw_dest_ops *ops, void *env, bool run,
				 enum gw_dest_verdict verdict)
{
	switch (ops->guest_ran(env)) {
	case GW_DEST_RAN_GONE:
		return GW_OUTCOME_LOST;
	case GW_DEST_RAN:
		return runs_here(ops, env, run);
	case GW_DEST_RAN_NEVER:
		if (!run) /* it was paused, and is here as it was */
			return runs_here(ops, env, run);
		if (verdict == GW_DEST_FINISH)
			return finish(ops, env);
		if (verdict == GW_DEST_LOOK)
			break;
		return abort_it(ops, env);
	case GW_DEST_RAN_UNKNOWN:
	default:
		if (verdict != GW_DEST_FORBID)
			break;
		ops->guest_kill(env);
		return ops->guest_ran(env) == GW_DEST_RAN_GONE ? GW_OUTCOME_LOST
							       : GW_OUTCOME_UNKNOWN;
	}
	return GW_OUTCOME_UNKNOWN;
}

enum gw_outcome gw_dest_recover(const struct gw_dest_ops *ops, void *env, enum gw_dest_phase phase,
				bool run, enum gw_dest_verdict verdict)
{
	switch (phase) {
	case GW_DEST_PHASE_RECEIVING:
		ops->discard(env);
		return GW_OUTCOME_ABORTED;
	case GW_DEST_PHASE_COMMITTED:
		return committed(ops, env, run, verdict);
	case GW_DEST_PHASE_RUNNING:
	default:
		return GW_OUTCOME_RUNNING;
	}
}
