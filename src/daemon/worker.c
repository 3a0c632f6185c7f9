// SPDX-License-Identifier: GPL-2.0-or-later
/* worker.c - the packets between godwitd and its workers; see worker.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "sockets.h"
#include "worker.h"

/* Less than the least buffer that a kernel gives a socket, or it would never find room. */
#define PACKET_MAX (96UL << 10)
#define RESULT_MAX (64L << 20)

int gw_ctl_send(int ctl, json_t *json, int fd)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int rc;

	json_decref(json);
	if (!text || ctl < 0)
		return -EPIPE;
	if (strlen(text) > PACKET_MAX)
		return -EMSGSIZE;
	rc = gw_send_fd(ctl, text, strlen(text), fd, MSG_DONTWAIT);
	/* Descriptors that nobody has taken yet are counted by the kernel, too. */
	return !rc || rc == -EAGAIN || rc == -EMSGSIZE ? rc
	       : rc == -ENOBUFS || rc == -ETOOMANYREFS ? -EAGAIN
						       : -EPIPE;
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

/* Offer the newest progress, if the daemon has not taken it. */
static void say_progress(struct gw_worker *w)
{
	int rc = w->unsaid ? gw_ctl_send(w->ctl, json_pack("{s:O}", "progress", w->unsaid), -1) : 0;

	if (rc == -EAGAIN)
		return;
	json_decref(w->unsaid);
	w->unsaid = NULL;
}

int gw_worker_result(struct gw_worker *w, json_t *json)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	say_progress(w);
	return text ? gw_pwrite_all(w->result, text, strlen(text), 0) : -ENOMEM;
}

json_t *gw_worker_result_load(int fd)
{
	gw_autofree char *text = NULL;
	struct stat st;

	if (fstat(fd, &st) || st.st_size <= 0 || st.st_size > RESULT_MAX)
		return NULL;
	text = malloc((size_t)st.st_size);
	if (!text || gw_pread_all(fd, text, (size_t)st.st_size, 0))
		return NULL;
	return json_loadb(text, (size_t)st.st_size, 0, NULL);
}

void gw_worker_progress(struct gw_worker *w, json_t *status)
{
	json_decref(w->unsaid);
	w->unsaid = status;
	say_progress(w);
}

void gw_worker_late(struct gw_worker *w)
{
	if (w->cancelled && !w->late && !gw_ctl_send(w->ctl, json_pack("{s:b}", "late", 1), -1))
		w->late = true;
}

/* Nobody opens one before the last was answered: those that find no room are given up. */
static void keep_caller(struct gw_worker *w, int fd, json_int_t index)
{
	if (index < 0 || index >= GW_PAGING_MAX || w->nr_callers == GW_CALLERS_KEPT) {
		close(fd);
		return;
	}
	w->callers[w->nr_callers++] = (struct gw_caller){ fd, (unsigned int)index };
}

static void keep_storage(struct gw_worker *w, int fd)
{
	if (w->nr_storage == GW_CALLERS_KEPT)
		close(fd);
	else
		w->storage[w->nr_storage++] = fd;
}

int gw_worker_storage(struct gw_worker *w)
{
	return w->nr_storage ? w->storage[--w->nr_storage] : -1;
}

struct gw_transport *gw_worker_caller(struct gw_worker *w, unsigned int *index)
{
	struct gw_transport *t = NULL;

	while (!t && w->nr_callers) {
		*index = w->callers[0].index;
		t = gw_peer_accept(w->callers[0].fd);
		memmove(w->callers, w->callers + 1, --w->nr_callers * sizeof(w->callers[0]));
	}
	return t;
}

void gw_worker_heed(struct gw_worker *w, int *stream, unsigned int *index)
{
	say_progress(w);
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
		if (json_is_true(json_object_get(json, "retry")))
			w->retry = true;
		if (json_is_true(json_object_get(json, "give-up")))
			w->give_up = true;
		if (json_is_true(json_object_get(json, "stop")))
			w->stop = true;
		if (json_is_true(json_object_get(json, "merge")))
			w->merge = true;
		if (json_is_true(json_object_get(json, "yield")))
			w->yield = true;
		if (json_is_object(json_object_get(json, "evacuate"))) {
			w->evacuate = w->evacuate ?: json_array();
			json_array_append(w->evacuate, json_object_get(json, "evacuate"));
		}
		if (fd >= 0 && json_object_get(json, "paging")) {
			keep_caller(w, fd, json_integer_value(json_object_get(json, "paging")));
			fd = -1;
		}
		if (fd >= 0 && json_object_get(json, "storage")) {
			keep_storage(w, fd);
			fd = -1;
		}
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

bool gw_worker_replaced(const struct gw_worker *w, int64_t *next)
{
	gw_autofree char *path = NULL;
	gw_autofd int fd = -1;

	if (!w->orphaned || gw_now() < *next)
		return false;
	*next = gw_now() + GW_S / 2;
	path = gw_path("%s/control.sock", w->paths->run);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && !gw_unix_connect(fd, path);
}

void gw_worker_answer(struct gw_worker *w, json_t *json)
{
	if (gw_ctl_send(w->ctl, json_pack("{s:o}", "answer", json), -1))
		gw_warn("godwitd does not take an answer");
}

static void tell_who_waits(struct gw_worker *w, json_t *json)
{
	if (gw_ctl_send(w->ctl, json, -1))
		gw_warn("godwitd does not take an answer");
}

void gw_worker_refuse(struct gw_worker *w, const char *command, const char *who, const char *why)
{
	tell_who_waits(w, json_pack("{s:s,s:s,s:s*}", "refused", why, "of", command, "who", who));
}

void gw_worker_done(struct gw_worker *w, const char *command, const char *who, json_t *json)
{
	tell_who_waits(w, json_pack("{s:o,s:s,s:s*}", "done", json, "of", command, "who", who));
}
