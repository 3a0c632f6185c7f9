// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storage.c - disks that are copied with the memory, as the machine sees them (decision 35).
 *
 * They are copied before the first round, so that a page that went over with a disk need not go
 * again. What the guest writes to them afterwards goes there beside the rounds, and what is left of
 * that when it is stopped is a part of its downtime, as pages are.
 */
#include <errno.h>

#include "error.h"
#include "feature.h"
#include "internal.h"

int gw_source_copy_storage(struct gw_source *s)
{
	if (!s->storage)
		return 0;
	if (!gw_holder_has(&s->holder, GW_FEATURE_STORAGE))
		return gw_fail(
			-ENOTSUP,
			"host '%s' has an older godwitd, which cannot take a copy of the VM's "
			"disks",
			s->holder.host);
	return s->ops->storage_copy(s->env);
}

int gw_source_storage_left(struct gw_source *s)
{
	uint64_t bytes = 0;
	const int rc = s->storage ? s->ops->storage_left(s->env, &bytes) : 0;

	s->storage_left = bytes;
	return rc;
}

int gw_source_settle_storage(struct gw_source *s)
{
	int64_t began = s->ops->now(s->env);
	int rc = s->storage ? s->ops->storage_settle(s->env, s->deadline) : 0;

	s->storage_ns = s->ops->now(s->env) - began;
	/* It goes on being copied, and the guest goes on, too. */
	if (rc == -EAGAIN)
		gw_source_tick(s);
	return rc;
}
