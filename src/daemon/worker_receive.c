// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_receive.c - the worker at the destination's end of a migration.
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
	e->d.version = e->pages.version = version;
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
	if (e->paged && (!rc || e->d.committed)) {
		if (rc)
			gw_fail(rc, "%s", e->d.error);
		rc = gw_dest_env_paged(e, rc);
	} else if (!rc) {
		e->vm.legs = e->d.legs;
		if (gw_vm_save(w->paths, &e->vm)) /* a hint less */
			gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
		gw_dest_put_back(e);
		/* Its memory is the VM's now. */
		gw_image_drop(&w->paths->store, e->vm.def.name);
		gw_journal_remove(w->paths, e->vm.def.name);
		if (e->keeper)
			rc = gw_dest_split_keep(e);
		if (rc == -ESTALE) /* it has not failed: another goes on */
			rc = 0;
	} else {
		if (!e->d.committed)
			gw_dest_split_end(e, true);
		gw_fail(rc, "%s", e->d.error);
	}
	gw_dest_env_free(e);
	return rc;
}
