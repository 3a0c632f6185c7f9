// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * recover.c - what becomes of a VM that was arriving when its worker died.
 *
 * The answer is final: once ABORTED has been said here, no COMMIT can take
 * effect any more, because the worker that could read it is dead and the QEMU
 * is gone. So the source may resume the guest on it (invariant 1).
 */
#include <errno.h>

#include "dest.h"
#include "error.h"
#include "log.h"

enum gw_outcome gw_dest_recover(const struct gw_dest_ops *ops, void *env, enum gw_dest_phase phase,
				bool run)
{
	int rc;

	switch (phase) {
	case GW_DEST_PHASE_RECEIVING:
		ops->discard(env);
		return GW_OUTCOME_ABORTED;
	case GW_DEST_PHASE_COMMITTED:
		rc = run ? ops->guest_resume(env) : 0;
		if (rc) {
			gw_err("the guest was committed to this host but does not resume: %s",
			       gw_error());
			/* A QEMU that lives may yet run it, or be running it. */
			return rc == -EPIPE ? GW_OUTCOME_LOST : GW_OUTCOME_UNKNOWN;
		}
		if (ops->journal(env, GW_DEST_PHASE_RUNNING))
			gw_err("%s", gw_error());
		if (run)
			ops->guest_announce(env);
		return GW_OUTCOME_RUNNING;
	case GW_DEST_PHASE_RUNNING:
	default:
		return GW_OUTCOME_RUNNING;
	}
}
