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
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

struct connection {
	int fd;
	char *buf;
	size_t used, room;
};

static int open_connection(struct connection *c)
{
	gw_autofree char *path = gw_cli_root ? gw_path("%s/run/control.sock", gw_cli_root)
					     : gw_path("/run/godwit/control.sock");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memset(c, 0, sizeof(*c));
	if (strlen(path) >= sizeof(addr.sun_path))
		return gw_fail(-ENAMETOOLONG, "%s: too long for a socket's path", path);
	memcpy(addr.sun_path, path, strlen(path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int err = errno;

		if (c->fd >= 0)
			close(c->fd);
		if (err == ENOENT || err == ECONNREFUSED)
			return gw_fail(-err,
				       "no godwitd answers at %s: start it, or give the "
				       "--root that it serves",
				       path);
		return gw_fail(-err, "%s: %s", path, strerror(err));
	}
	return 0;
}

static void close_connection(struct connection *c)
{
	close(c->fd);
	free(c->buf);
}

static int send_request(const struct connection *c, const char *command, json_t *args)
{
	json_t *request = json_pack("{s:s,s:o?}", "execute", command, "arguments", args);
	gw_autofree char *text = json_dumps(request, JSON_COMPACT);
	gw_autofree char *line = text ? gw_path("%s\n", text) : NULL;

	json_decref(request);
	return line ? gw_write_all(c->fd, line, strlen(line)) : gw_fail(-ENOMEM, "no memory");
}

/* Cut the next whole line off the buffer; NULL if there is none yet. */
static json_t *take_line(struct connection *c)
{
	char *newline = c->used ? memchr(c->buf, '\n', c->used) : NULL;
	size_t len = newline ? (size_t)(newline - c->buf) + 1 : 0;
	json_t *json;

	if (!newline)
		return NULL;
	json = json_loadb(c->buf, len, 0, NULL);
	memmove(c->buf, c->buf + len, c->used - len);
	c->used -= len;
	return json ? json : json_object();
}

static int fill(struct connection *c)
{
	ssize_t n;

	if (c->used == c->room) {
		char *bigger = realloc(c->buf, c->room * 2 + 65536);

		if (!bigger)
			return gw_fail(-ENOMEM, "no memory for godwitd's answer");
		c->buf = bigger;
		c->room = c->room * 2 + 65536;
	}
	n = read(c->fd, c->buf + c->used, c->room - c->used);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return gw_fail(-EPIPE, "godwitd ended before it answered; the guest runs on. Start "
				       "godwitd again and see godwit list");
	c->used += (size_t)n;
	return 0;
}

static void send_cancel(const char *name)
{
	struct connection c;

	if (open_connection(&c))
		return;
	if (!send_request(&c, "cancel", json_pack("{s:s}", "name", name)))
		fill(&c);
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
