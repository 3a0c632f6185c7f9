// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * keeper_quiesce.c - a split VM with direct I/O (F10): no protection stops what is in flight, so
 * what is to leave is protected while its guest stands still for a moment, with its I/O drained.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "keeper.h"
#include "log.h"

#define QUIESCE_NS (100 * GW_MS)
/* Its I/O is drained before it stands still, which takes what its storage takes. */
#define QUIESCE_MS 10000

/*
 * Whoever stops the guest has it go on, whatever comes in between: another process, too, which
 * finds that written down (invariant 14).
 */
static int go_on(struct gw_keeper *k, struct gw_qmp *qmp)
{
	int rc = k->record.stopped ? gw_qmp_call(qmp, "cont", NULL, NULL) : 0;

	if (rc || !k->record.stopped)
		return rc;
	k->record.stopped = false;
	return gw_keeper_save(k);
}

static int quiesce(struct gw_keeper *k, struct gw_qmp *qmp)
{
	char status[32];
	int rc = gw_qmp_status(qmp, status, sizeof(status));

	if (rc || strcmp(status, "running") != 0)
		return rc;
	k->record.stopped = true;
	rc = gw_keeper_save(k);
	return rc ? rc : gw_qmp_call(qmp, "stop", NULL, NULL);
}

/* As many of the coldest units as are to leave are protected with no direct I/O in flight (F10). */
static int protect_quiesced(struct gw_keeper *k, struct gw_qmp *qmp)
{
	const uint64_t here = gw_split_here(&k->split), aim = gw_keeper_aim(k);
	const uint64_t most = here > aim ? (here - aim) / k->record.unit_pages + 4 : 0;
	size_t units[GW_VICTIMS] = { 0 };
	unsigned int n = 0, all = 0;
	int rc = go_on(k, qmp);

	if (!rc)
		rc = quiesce(k, qmp);
	if (!rc) {
		gw_locked(&k->lock);
		all = gw_ageing_coldest(&k->ageing, &k->filled,
					most < GW_VICTIMS ? (unsigned int)most : GW_VICTIMS, units);
	}
	for (unsigned int i = 0; i < all; i++)
		if (gw_split_prepare(&k->split, units[i]))
			units[n++] = units[i];
	if (!rc)
		rc = go_on(k, qmp);
	gw_locked(&k->lock);
	memcpy(k->victims, units, n * sizeof(units[0]));
	k->nr_victims = n;
	return rc;
}

/* Whether something is to leave, and nothing may; or the guest was stopped by who died. */
static bool is_due(struct gw_keeper *k)
{
	bool enough;

	{
		gw_locked(&k->lock);
		enough = k->nr_victims;
	}
	if (gw_now() < k->next_prepare)
		return false;
	return k->record.stopped || (k->record.direct_io && !k->record.merging && !enough &&
				     k->known && gw_split_here(&k->split) > gw_keeper_aim(k));
}

void gw_keeper_quiesce_by(struct gw_keeper *k, struct gw_qmp *monitor)
{
	struct gw_qmp *qmp = monitor;

	if (!is_due(k))
		return;
	k->next_prepare = gw_now() + QUIESCE_NS;
	/* Whoever waits for room would wait for us, who wait for him. */
	k->split.quiesces = true;
	gw_split_ask(&k->split);
	if (!qmp)
		qmp = gw_qmp_open(k->vm.qmp, gw_now() + QUIESCE_MS * GW_MS);
	if (!qmp || gw_qmp_check(qmp, k->vm.process.pid) || protect_quiesced(k, qmp)) {
		gw_warn("VM '%s' has direct I/O, and nothing more can leave while that cannot be "
			"quiesced: %s",
			k->vm.def.name, gw_error());
		gw_error_clear();
	}
	if (!monitor)
		gw_qmp_close(qmp);
	k->split.quiesces = false;
	gw_servers_wake(&k->all);
}
