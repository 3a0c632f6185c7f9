// SPDX-License-Identifier: GPL-2.0-or-later
/* client.c - a request to godwitd and its answer; daemon/control.h has the protocol. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"
#include "lines.h"
#include "sockets.h"

/* A thousand VMs, and each with many blocks; this bounds what is no godwitd. */
#define ANSWER_MAX (64UL << 20)

struct connection {
	int fd;
	struct gw_lines in;
};

static int open_connection(struct connection *c)
{
	gw_autofree char *path = gw_cli_root ? gw_path("%s/run/control.sock", gw_cli_root)
					     : gw_path("/run/godwit/control.sock");
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	int rc;

	*c = (struct connection){ .in = { .max = ANSWER_MAX } };
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = c->fd < 0 ? -errno : gw_unix_connect(c->fd, path);
	if (!rc && !getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
	    (peer.uid == 0 || peer.uid == geteuid()))
		return 0;
	if (c->fd >= 0)
		close(c->fd);
	if (!rc)
		return gw_fail(-EPERM,
			       "%s is served by user %u, not by root or by you: look who that is",
			       path, (unsigned int)peer.uid);
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return gw_fail(rc,
			       "no godwitd answers at %s: start it, or give the --root that it "
			       "serves",
			       path);
	if (rc == -EACCES)
		return gw_fail(rc,
			       "%s: only root, and the user who runs godwitd, may use it; try "
			       "sudo",
			       path);
	return gw_fail(rc, "%s: %s", path, strerror(-rc));
}

static void close_connection(struct connection *c)
{
	close(c->fd);
	gw_lines_free(&c->in);
}

static int send_request(const struct connection *c, const char *command, json_t *args)
{
	json_t *request = json_pack("{s:s,s:o?}", "execute", command, "arguments", args);
	gw_autofree char *text = json_dumps(request, JSON_COMPACT);
	gw_autofree char *line = text ? gw_path("%s\n", text) : NULL;

	json_decref(request);
	return line ? gw_write_all(c->fd, line, strlen(line)) : gw_fail(-ENOMEM, "no memory");
}

/* The next whole line; NULL if there is none yet. */
static json_t *take_line(struct connection *c)
{
	size_t len;
	const char *line = gw_lines_next(&c->in, &len);
	json_t *json = line ? json_loadb(line, len, 0, NULL) : NULL;

	return json || !line ? json : json_object();
}

static int fill(struct connection *c)
{
	int rc = gw_lines_fill(&c->in, c->fd);

	if (!rc || rc == -EAGAIN)
		return 0;
	if (rc != -EPIPE)
		return gw_fail(rc, "godwitd's answer is too long");
	return gw_fail(-EPIPE, "godwitd ended before it answered; guests run on. Start it "
			       "again, and see godwit list");
}

/* How long the answer to Ctrl-C may take before the wait for the migration goes on. */
#define CANCEL_MS 2000

/* Ask for an end; a refusal (it comes too late, for example) is said at once. */
static void send_cancel(const char *name)
{
	struct connection c;
	struct pollfd pfd = { .events = POLLIN };
	json_t *line = NULL;
	int rc;

	if (open_connection(&c))
		return;
	pfd.fd = c.fd;
	rc = send_request(&c, "cancel", json_pack("{s:s}", "name", name));
	while (!rc && !(line = take_line(&c)) && poll(&pfd, 1, CANCEL_MS) > 0)
		rc = fill(&c);
	if (json_object_get(line, "error"))
		fprintf(stderr, "\ngodwit: %s\n",
			json_string_value(json_object_get(line, "error")));
	json_decref(line);
	close_connection(&c);
}

/* Ctrl-C and a polite kill, as a descriptor; -1 if they shall end us. */
static int catch_interrupt(const struct gw_call *call)
{
	sigset_t set;

	if (!call->cancel_name)
		return -1;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int wait_readable(const struct gw_call *call, const struct connection *c, int signals)
{
	struct pollfd fds[2] = { { .fd = c->fd, .events = POLLIN },
				 { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo info;

	if (poll(fds, 2, -1) > 0 && fds[1].revents && read(signals, &info, sizeof(info)) > 0)
		send_cancel(call->cancel_name);
	return fds[0].revents != 0;
}

int gw_cli_call(struct gw_call *call, json_t **result)
{
	struct connection c;
	gw_autofd int signals = catch_interrupt(call);
	int rc = open_connection(&c);

	*result = NULL;
	call->status = NULL;
	if (rc) {
		json_decref(call->args);
		return rc;
	}
	rc = send_request(&c, call->command, call->args);
	while (!rc) {
		json_t *line = take_line(&c), *progress, *error;

		if (!line) {
			if (wait_readable(call, &c, signals))
				rc = fill(&c);
			continue;
		}
		progress = json_object_get(line, "progress");
		error = json_object_get(line, "error");
		if (progress && call->on_progress)
			call->on_progress(call->arg, progress);
		if (error) {
			call->status = json_incref(json_object_get(line, "status"));
			rc = gw_fail(-EREMOTEIO, "%s", json_string_value(error));
		}
		if (!progress && !error)
			*result = json_incref(json_object_get(line, "return"));
		json_decref(line);
		if (!progress)
			break;
	}
	close_connection(&c);
	return rc;
}

int gw_cli_number(const char *text, long min, long max, long *value)
{
	char *end;

	errno = 0;
	*value = strtol(text, &end, 10);
	if (errno || end == text || *end || *value < min || *value > max)
		return gw_fail(-EINVAL, "'%s' is not a number from %ld to %ld", text, min, max);
	return 0;
}

int gw_cli_fail(void)
{
	fprintf(stderr, "godwit: %s\n", gw_error());
	return 1;
}

void gw_cli_print(json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(json);
}

int gw_cli_options(int argc, char **argv, const struct option *longs, const char *help)
{
	int opt;

	opterr = 0;
	/* "+": what follows the first plain word may be somebody else's options. */
	opt = getopt_long(argc, argv, "+h", longs, NULL);
	if (opt == 'h') {
		fputs(help, stdout);
		exit(0);
	}
	if (opt == '?') {
		fprintf(stderr,
			"godwit %s: unknown or incomplete option '%s'; see godwit %s "
			"--help\n",
			argv[0], argv[optind - 1], argv[0]);
		exit(GW_EXIT_USAGE);
	}
	return opt;
}

int gw_cli_usage(const char *command, const char *complaint)
{
	fprintf(stderr, "godwit %s: %s; see godwit %s --help\n", command, complaint, command);
	return GW_EXIT_USAGE;
}
