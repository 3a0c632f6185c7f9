// SPDX-License-Identifier: GPL-2.0-or-later
/* worker.c - the packets between godwitd and its workers; see worker.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "sockets.h"
#include "worker.h"

#define PACKET_MAX (192UL << 10)

int gw_ctl_send(int ctl, json_t *json, int fd)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int rc;

	json_decref(json);
	if (!text || ctl < 0)
		return -EPIPE;
	rc = gw_send_fd(ctl, text, strlen(text), fd, 0);
	return rc ? -EPIPE : 0;
}

int gw_ctl_recv(int ctl, json_t **json, int *fd)
{
	gw_autofree char *text = malloc(PACKET_MAX);
	long n;

	*json = NULL;
	*fd = -1;
	if (!text)
		return -EAGAIN;
	n = gw_recv_fd(ctl, text, PACKET_MAX, fd, MSG_DONTWAIT);
	if (n <= 0)
		return n == -EAGAIN ? -EAGAIN : -EPIPE;
	*json = json_loadb(text, (size_t)n, 0, NULL);
	return 0;
}

void gw_worker_progress(struct gw_worker *w, json_t *status)
{
	gw_ctl_send(w->ctl, json_pack("{s:o}", "progress", status), -1);
}

void gw_worker_heed(struct gw_worker *w, int *stream, unsigned int *index)
{
	for (;;) {
		json_t *json;
		int fd, rc;

		if (w->ctl < 0)
			return;
		rc = gw_ctl_recv(w->ctl, &json, &fd);
		if (rc == -EAGAIN)
			return;
		if (rc) {
			w->orphaned = true;
			close(w->ctl);
			w->ctl = -1;
			return;
		}
		if (json_is_true(json_object_get(json, "cancel")))
			w->cancelled = true;
		if (fd >= 0 && stream && *stream < 0) {
			*stream = fd;
			*index = (unsigned int)json_integer_value(json_object_get(json, "stream"));
			json_decref(json);
			return; /* one at a time; the rest stays queued */
		}
		if (fd >= 0)
			close(fd); /* a stream that nobody waits for */
		json_decref(json);
	}
}

void gw_worker_yield(void)
{
	/* Not SCHED_IDLE: on a host that is busy for good, somebody waits for our end. */
	if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19))
		gw_debug("nice: %s", strerror(errno));
}
