// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_receive.c - the worker at the destination's end of a migration, and what puts right
 * an arrival whose worker died.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "log.h"
#include "peers.h"

static void note_caller(struct gw_dest_env *e, int conn)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (getpeername(conn, (struct sockaddr *)&addr, &len) ||
	    getnameinfo((struct sockaddr *)&addr, len, e->from, sizeof(e->from), NULL, 0,
			NI_NUMERICHOST))
		e->from[0] = '\0';
}

int gw_worker_receive(struct gw_worker *w, int conn, const struct gw_open *open, uint16_t version)
{
	struct gw_dest_env *e = gw_dest_env_new(w);
	int rc;

	if (!e) {
		close(conn);
		return -ENOMEM;
	}
	e->d.ops = &gw_dest_live_ops;
	e->d.env = e;
	e->d.version = version;
	e->d.host = w->host;
	e->journal.role = GW_ROLE_DEST;
	memcpy(e->journal.id, open->id, GW_ID_LEN);
	memcpy(e->d.id, open->id, GW_ID_LEN);
	note_caller(e, conn);
	e->d.control = gw_peer_accept(conn);
	if (!e->d.control) {
		gw_dest_env_free(e);
		return -ENOMEM;
	}
	e->d.control->wake_fd = e->wake;
	e->d.control->on_wake = gw_dest_on_wake;
	e->d.control->wake_arg = e;
	rc = gw_dest_run(&e->d);
	if (!rc) {
		e->vm.legs = e->d.legs;
		if (gw_vm_save(w->paths, &e->vm)) /* a hint less */
			gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
		gw_dest_put_back(e);
		/* Its memory is the VM's now. */
		gw_image_drop(&w->paths->store, e->vm.def.name);
		gw_journal_remove(w->paths, e->vm.def.name);
	} else {
		gw_fail(rc, "%s", e->d.error);
	}
	gw_dest_env_free(e);
	return rc;
}

static enum gw_dest_verdict verdict(const struct gw_recovery *why, bool doubted)
{
	if (why->forbid)
		return GW_DEST_FORBID;
	if (!doubted || why->confirmed)
		return GW_DEST_FINISH;
	return why->asked ? GW_DEST_ASKED : GW_DEST_LOOK;
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
	if (!rc && j->phase != GW_DEST_PHASE_RECEIVING)
		e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	outcome = gw_dest_recover(&gw_dest_live_ops, e, (enum gw_dest_phase)j->phase,
				  j->was_running,
				  verdict(why, gw_settled_doubted(w->paths, j->id)));
	if (outcome == GW_OUTCOME_LOST && gw_settled_save(w->paths, j->id, outcome))
		outcome = GW_OUTCOME_UNKNOWN; /* to be written down in another try */
	if (outcome == GW_OUTCOME_RUNNING && e->qmp)
		gw_dest_put_back(e);
	if (outcome == GW_OUTCOME_RUNNING || outcome == GW_OUTCOME_LOST) {
		gw_image_drop(&w->paths->store, name);
		gw_journal_remove(w->paths, name);
	}
	gw_dest_env_free(e);
	return outcome;
}
