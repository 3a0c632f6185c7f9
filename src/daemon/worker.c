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
#include "worker.h"

#define PACKET_MAX (192UL << 10)

int gw_ctl_send(int ctl, json_t *json, int fd)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { text, text ? strlen(text) : 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	json_decref(json);
	if (!text || ctl < 0)
		return -EPIPE;
	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return sendmsg(ctl, &msg, MSG_NOSIGNAL) < 0 ? -EPIPE : 0;
}

int gw_ctl_recv(int ctl, json_t **json, int *fd)
{
	gw_autofree char *text = malloc(PACKET_MAX);
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { text, PACKET_MAX };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	ssize_t n;

	*json = NULL;
	*fd = -1;
	if (!text)
		return -EAGAIN;
	n = recvmsg(ctl, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
	if (n == 0)
		return -EPIPE;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
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
