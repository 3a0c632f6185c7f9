// SPDX-License-Identifier: GPL-2.0-or-later
/* control.c - the daemon's end of the control socket; see control.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "control.h"
#include "error.h"
#include "io.h"
#include "lines.h"
#include "log.h"
#include "record.h"
#include "sockets.h"

#define REQUEST_MAX (1UL << 20)

struct client {
	struct gw_control *control;
	struct client *next;
	int fd;
	struct gw_watch *watch;
	struct gw_job *job;
	struct gw_lines in;
};

struct gw_control {
	struct gw_loop *loop;
	struct gw_jobs *jobs;
	const struct gw_paths *paths;
	char *path;
	int fd;
	struct gw_watch *watch;
	struct client *clients;
};

static void drop(struct client *c)
{
	struct client **at = &c->control->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (c->job)
		gw_jobs_detach(c->job);
	gw_loop_remove(c->control->loop, c->watch);
	close(c->fd);
	gw_lines_free(&c->in);
	free(c);
}

/* Never waits: a client that does not read loses progress lines, then its answer. */
static void say(struct client *c, const json_t *json)
{
	gw_autofree char *text = json_dumps(json, JSON_COMPACT);
	gw_autofree char *line = text ? gw_path("%s\n", text) : NULL;

	if (line && send(c->fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		gw_debug("a client does not read: %s", strerror(errno));
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

static void on_progress(void *arg, json_t *status)
{
	json_t *json = json_pack("{s:O}", "progress", status);

	say(arg, json);
	json_decref(json);
}

static void on_end(void *arg, json_t *result)
{
	struct client *c = arg;

	c->job = NULL;
	say(c, result);
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
		status = json_pack("{s:s}", "status", "none");
	}
	say_return(c, status);
}

static void execute(struct client *c, const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "execute"));
	const json_t *args = json_object_get(request, "arguments");
	const char *name = json_string_value(json_object_get(args, "name"));

	if (!command || c->job) {
		gw_fail(-EINVAL, "not a request of godwit's control protocol");
		say_error(c);
	} else if (!strcmp(command, "version")) {
		say_return(c, json_string(GW_PROJECT_VERSION));
	} else if (!strcmp(command, "status")) {
		do_status(c, name ? name : "");
	} else if (!strcmp(command, "cancel")) {
		if (gw_jobs_cancel(c->control->jobs, name ? name : ""))
			say_error(c);
		else
			say_return(c, json_object());
	} else {
		struct gw_job_client client = { .on_progress = on_progress,
						.on_end = on_end,
						.arg = c };

		c->job = gw_jobs_start(c->control->jobs, command, args, client);
		if (!c->job)
			say_error(c);
	}
}

static void on_client(void *arg)
{
	struct client *c = arg;
	int rc = gw_lines_fill(&c->in, c->fd);
	const char *line;
	size_t len;

	if (rc && rc != -EAGAIN) {
		drop(c);
		return;
	}
	while ((line = gw_lines_next(&c->in, &len))) {
		json_t *request = json_loadb(line, len, 0, NULL);

		execute(c, request);
		json_decref(request);
	}
}

static void on_accept(void *arg)
{
	struct gw_control *control = arg;
	gw_autofd int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
	struct client *c;

	if (fd < 0)
		return;
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
}

struct gw_control *gw_control_new(struct gw_loop *loop, struct gw_jobs *jobs,
				  const struct gw_paths *paths)
{
	struct gw_control *c = calloc(1, sizeof(*c));
	struct sockaddr_un addr;

	if (!c)
		return NULL;
	c->loop = loop;
	c->jobs = jobs;
	c->paths = paths;
	c->path = gw_path("%s/control.sock", paths->run);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!gw_unix_address(&addr, c->path)) {
		unlink(c->path); /* RUN/lock says that no other daemon uses it */
		if (bind(c->fd, (struct sockaddr *)&addr, sizeof(addr)) || chmod(c->path, 0600) ||
		    listen(c->fd, 16))
			gw_fail(-errno, "%s: %s", c->path, strerror(errno));
		else
			c->watch = gw_loop_add(loop, c->fd, on_accept, c);
	}
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
