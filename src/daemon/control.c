// SPDX-License-Identifier: GPL-2.0-or-later
/* control.c - the daemon's end of the control socket; see control.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control.h"
#include "error.h"
#include "io.h"
#include "lines.h"
#include "log.h"
#include "record.h"
#include "sockets.h"
#include "source.h"

#define REQUEST_MAX (1UL << 20)
#define ANSWER_MAX  (64UL << 20) /* what a client has not read */
#define CLIENTS_MAX 256

struct client {
	struct gw_control *control;
	struct client *next;
	int fd;
	struct gw_watch *watch;
	struct gw_job *job; /* whose end it waits for */
	struct gw_lines in;
	char *out; /* what it has not read */
	size_t sent, queued;
	int64_t unread_since; /* 0: all is read */
	bool broken;
};

struct gw_control {
	struct gw_loop *loop;
	struct gw_jobs *jobs;
	const struct gw_paths *paths;
	char *path;
	int fd;
	struct gw_watch *watch;
	struct client *clients;
	unsigned int nr_clients;
};

static void drop(struct client *c)
{
	struct client **at = &c->control->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->control->nr_clients--;
	if (c->job)
		gw_jobs_detach(c->job, c);
	gw_loop_remove(c->control->loop, c->watch);
	close(c->fd);
	gw_lines_free(&c->in);
	free(c->out);
	free(c);
}

/* Send what the client takes now. Its requests wait until it has read their answers. */
static void flush_out(struct client *c)
{
	while (c->sent < c->queued) {
		ssize_t n = send(c->fd, c->out + c->sent, c->queued - c->sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			c->broken = true;
		if (n < 0)
			break;
		c->sent += (size_t)n;
		c->unread_since = gw_now();
	}
	if (c->sent == c->queued) {
		free(c->out);
		c->out = NULL;
		c->sent = c->queued = 0;
		c->unread_since = 0;
	}
	gw_loop_want(c->control->loop, c->watch, !c->queued, c->queued);
}

/* Never waits: what a client does not read is kept for it. */
static void say(struct client *c, const json_t *json)
{
	gw_autofree char *text = json_dumps(json, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;
	char *more;

	if (!len || c->broken)
		return;
	more = c->queued + len < ANSWER_MAX ? realloc(c->out, c->queued + len + 1) : NULL;
	if (!more) {
		gw_warn("a client does not read its answers, and is given up");
		c->broken = true;
		shutdown(c->fd, SHUT_RDWR); /* the loop then drops it */
		return;
	}
	c->out = more;
	memcpy(c->out + c->queued, text, len);
	c->out[c->queued + len] = '\n';
	c->queued += len + 1;
	if (!c->unread_since)
		c->unread_since = gw_now();
	flush_out(c);
}

static void say_error(struct client *c)
{
	json_t *json = json_pack("{s:s}", "error", gw_error());

	say(c, json);
	json_decref(json);
}

static void say_return(struct client *c, json_t *value)
{
	json_t *json = json_pack("{s:o?}", "return", value);

	say(c, json);
	json_decref(json);
}

/* One that does not read loses progress, and never its answer. */
static void on_progress(void *arg, json_t *status)
{
	const struct client *c = arg;
	json_t *json;

	if (c->queued)
		return;
	json = json_pack("{s:O}", "progress", status);
	say(arg, json);
	json_decref(json);
}

static void on_end(void *arg, json_t *result)
{
	struct client *c = arg;

	c->job = NULL;
	say(c, result);
}

/* Of a VM that this godwitd has not moved. */
static json_t *past(const struct gw_paths *paths, const char *name)
{
	char text[GW_ERROR_MAX];
	struct gw_journal j;

	if (gw_journal_load(paths, name, &j) || j.role != GW_ROLE_SOURCE ||
	    (j.phase != GW_SOURCE_GONE && (j.phase != GW_SOURCE_SERVING || !j.lost)))
		return json_pack("{s:s}", "status", "none");
	gw_journal_gone_text(&j, name, text, sizeof(text));
	return json_pack("{s:s,s:s}", "status", "failed", "error-desc", text);
}

static void do_status(struct client *c, const char *name)
{
	json_t *status = gw_jobs_status(c->control->jobs, name);
	struct gw_vm vm;

	if (!status && gw_vm_load(c->control->paths, name, &vm)) {
		gw_fail(-ENOENT,
			"no VM '%s' on this host, and no migration of it; see godwit "
			"list",
			name);
		say_error(c);
		return;
	}
	if (!status) {
		gw_vm_free(&vm);
		status = past(c->control->paths, name);
	}
	say_return(c, status);
}

static void execute(struct client *c, const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "execute"));
	const json_t *args = json_object_get(request, "arguments");
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_job_client client = { .on_progress = on_progress, .on_end = on_end, .arg = c };

	if (!command || c->job) {
		gw_fail(-EINVAL, "not a request of godwit's control protocol");
		say_error(c);
	} else if (!strcmp(command, "version")) {
		say_return(c, json_string(GW_PROJECT_VERSION));
	} else if (!strcmp(command, "status")) {
		do_status(c, name ? name : "");
	} else if (!strcmp(command, "cancel")) {
		client.on_progress = NULL;
		if (gw_jobs_cancel(c->control->jobs, name ? name : "", client, &c->job))
			say_error(c);
	} else if (!strcmp(command, "recover") && !json_object_get(args, "outcome") &&
		   !gw_jobs_retry(c->control->jobs, name ? name : "")) {
		say_return(c, json_pack("{s:s}", "outcome", "serving"));
	} else {
		c->job = gw_jobs_start(c->control->jobs, command, args, client);
		if (!c->job)
			say_error(c);
	}
}

static void on_client(void *arg)
{
	struct client *c = arg;
	const char *line;
	size_t len;
	int rc = -EAGAIN;

	if (c->queued)
		flush_out(c);
	if (!c->queued)
		rc = gw_lines_fill(&c->in, c->fd);
	while (!c->broken && !c->queued && (line = gw_lines_next(&c->in, &len))) {
		json_t *request = json_loadb(line, len, 0, NULL);

		execute(c, request);
		json_decref(request);
	}
	if (c->broken || (rc && rc != -EAGAIN))
		drop(c);
}

/* The client that has not read its answer for the longest time; NULL if all do. */
static struct client *idlest(const struct gw_control *control)
{
	struct client *found = NULL;

	for (struct client *c = control->clients; c; c = c->next)
		if (c->unread_since && (!found || c->unread_since < found->unread_since))
			found = c;
	return found;
}

/* The socket's mode says the same; but a mode is changed by a slip, or to be helpful. */
static bool is_allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

/* What one is told that is not served. */
static void turn_away(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		gw_debug("a client has gone: %s", strerror(errno));
}

static void on_accept(void *arg)
{
	struct gw_control *control = arg;
	gw_autofd int fd = gw_loop_accept(control->loop, control->watch);
	struct client *c;

	if (fd < 0)
		return;
	if (!is_allowed(fd)) {
		turn_away(fd,
			  "{\"error\":\"only root, and the user who runs godwitd, may use it\"}\n");
		return;
	}
	if (control->nr_clients >= CLIENTS_MAX && idlest(control))
		drop(idlest(control));
	if (control->nr_clients >= CLIENTS_MAX) {
		turn_away(fd, "{\"error\":\"godwitd has too many clients; try again\"}\n");
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->control = control;
	c->fd = fd;
	c->in.max = REQUEST_MAX;
	c->watch = gw_loop_add(control->loop, fd, on_client, c);
	if (!c->watch) {
		free(c);
		return;
	}
	gw_steal_fd(&fd);
	c->next = control->clients;
	control->clients = c;
	control->nr_clients++;
}

struct gw_control *gw_control_new(struct gw_loop *loop, struct gw_jobs *jobs,
				  const struct gw_paths *paths)
{
	struct gw_control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return NULL;
	c->loop = loop;
	c->jobs = jobs;
	c->paths = paths;
	c->path = gw_path("%s/control.sock", paths->run);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(c->path); /* RUN/lock says that no other daemon uses it */
	rc = c->fd < 0 ? -errno : gw_unix_bind(c->fd, c->path);
	if (!rc && listen(c->fd, 64))
		rc = -errno;
	if (rc)
		gw_fail(rc, "%s: %s", c->path, strerror(-rc));
	else
		c->watch = gw_loop_add(loop, c->fd, on_accept, c);
	if (!c->watch) {
		gw_control_free(c);
		return NULL;
	}
	return c;
}

void gw_control_free(struct gw_control *c)
{
	if (!c)
		return;
	while (c->clients)
		drop(c->clients); /* NOLINT: drop() takes it off the list */
	gw_loop_remove(c->loop, c->watch);
	unlink(c->path);
	close(c->fd);
	free(c->path);
	free(c);
}
