// SPDX-License-Identifier: GPL-2.0-or-later
/* saved.c - device state kept for another attempt; see saved.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "own.h"
#include "saved.h"

#define PART	   (256UL << 10)
#define RECORD_MAX (16UL << 20)

static char *path_of(const struct gw_source_env *e, const char *file)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);

	return gw_path("%s/%s", dir, file);
}

void gw_saved_drop(const struct gw_source_env *e)
{
	gw_autofree char *record = path_of(e, "device.json");
	gw_autofree char *state = path_of(e, "device.state");

	unlink(record);
	unlink(state);
}

/* What is as it was for as long as the guest has not run. */
static int moment(const struct gw_source_env *e, json_t **out)
{
	gw_autofree char *registers = gw_qmp_hmp(e->qmp, "info registers -a");
	json_t *migration = NULL;
	int rc = registers ? gw_qmp_call(e->qmp, "query-migrate", NULL, &migration) : -EREMOTEIO;

	if (rc)
		return rc;
	/* What QEMU counts there depends on x-ignore-shared, which is put back. */
	json_object_del(json_object_get(migration, "ram"), "total");
	*out = json_pack("{s:i,s:I,s:o,s:s,s:O}", "pid", (int)e->vm.process.pid, "start",
			 (json_int_t)e->vm.process.start, "migration", migration, "registers",
			 registers, "live", e->live);
	return *out ? 0 : gw_fail(-ENOMEM, "no memory to describe the guest's state");
}

static int copy_state(int from, int to)
{
	gw_autofree char *buf = malloc(PART);

	if (!buf)
		return gw_fail(-ENOMEM, "no memory for device state");
	for (;;) {
		struct pollfd pfd = { .fd = from, .events = POLLIN };
		ssize_t n;
		int rc;

		if (poll(&pfd, 1, GW_QMP_TIMEOUT_MS) == 0)
			return gw_fail(-ETIMEDOUT, "QEMU does not hand out its device state");
		n = recv(from, buf, PART, 0);
		if (n <= 0)
			return n ? gw_fail(-errno, "device state: %s", strerror(errno)) : 0;
		rc = gw_write_all(to, buf, (size_t)n);
		if (rc)
			return rc;
	}
}

int gw_saved_make(struct gw_source_env *e)
{
	gw_autofree char *path = path_of(e, "device.state");
	gw_autofree char *record = path_of(e, "device.json");
	gw_autofree char *text = NULL;
	gw_autofd int fd = -1;
	json_t *now = NULL;
	int rc;

	gw_saved_drop(e);
	fd = gw_own_make(path, O_RDWR);
	if (fd < 0)
		return fd;
	rc = copy_state(e->device, fd);
	if (!rc)
		rc = gw_qmp_wait_migration(e->qmp, "completed", gw_now() + 10 * GW_S);
	if (rc)
		return rc;
	e->saving = false;
	rc = moment(e, &now);
	text = now ? json_dumps(now, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(now);
	if (!rc)
		rc = text ? gw_write_file(record, text) : -ENOMEM;
	if (!rc && lseek(fd, 0, SEEK_SET) < 0)
		rc = gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (rc)
		return rc;
	close(e->device);
	e->device = gw_steal_fd(&fd);
	return 0;
}

int gw_saved_find(const struct gw_source_env *e)
{
	gw_autofree char *path = path_of(e, "device.state");
	gw_autofree char *record = path_of(e, "device.json");
	gw_autofree char *text = gw_own_read(record, RECORD_MAX, NULL);
	json_t *then = text ? json_loads(text, 0, NULL) : NULL, *now = NULL;
	bool same = then && !moment(e, &now) && json_equal(then, now);
	int fd = same ? gw_own_open(path, O_RDONLY, 0) : -1;

	json_decref(then);
	json_decref(now);
	if (fd < 0)
		return gw_fail(-ENOENT,
			       "the guest is paused after a migration of its QEMU ('postmigrate'), "
			       "and QEMU does not save it a second time: let it run for a moment "
			       "(QMP cont, then stop), then migrate again");
	return fd;
}
