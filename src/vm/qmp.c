// SPDX-License-Identifier: GPL-2.0-or-later
/* qmp.c - a client of QEMU's monitor; see qmp.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "lines.h"
#include "qmp.h"
#include "sockets.h"

/* The longest answers are device trees; this bounds a broken peer. */
#define ANSWER_MAX (64UL << 20)

/* Questions that are sent in one go: they fit into the socket, so QEMU need not read meanwhile. */
#define ASKED_MAX 32

/* Events that somebody may still wait for; QEMU sends a handful in each migration. */
#define EVENTS_MAX 64

struct gw_qmp {
	int fd;
	char *path;
	int timeout_ms; /* of a command */
	bool greeted;
	const char *asked; /* the command whose answer is awaited */
	struct gw_lines in;
	json_t *events; /* array, oldest first */
	json_int_t last_id;
	unsigned int resumes;
	bool shut_down;
	bool asleep; /* RESUME events so far */
};

static int broken(const char *what)
{
	return gw_fail(-EPIPE, "QEMU's monitor %s, as it does when QEMU ends", what);
}

/* The state of QEMU's main thread, which serves the monitor: 'T', 'D', ... or 0. */
static char state_of(const struct gw_qmp *q, pid_t *pid)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	gw_autofree char *path = NULL, *text = NULL;
	const char *name_end;

	*pid = getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? 0 : cred.pid;
	if (*pid <= 0)
		return 0;
	path = gw_path("/proc/%d/stat", (int)*pid);
	text = access(path, F_OK) ? NULL : gw_read_file(path, 4096, NULL);
	name_end = text ? strrchr(text, ')') : NULL;
	return name_end && name_end[1] ? name_end[2] : 0;
}

/* Whether this is the monitor that Godwit made for itself (gw_launch()). */
static bool is_own(const char *path)
{
	const char *slash = strrchr(path, '/');
	gw_autofree char *note = NULL;

	if (!slash || strcmp(slash, "/qmp.sock") != 0)
		return false;
	note = gw_path("%.*s/qemu.pid", (int)(slash - path), path);
	return access(note, F_OK) == 0;
}

/* Nothing came in time: say what was waited for, and what is known of why. */
static int silent(const struct gw_qmp *q)
{
	char waited[128];
	pid_t pid;
	const char state = state_of(q, &pid);

	if (q->asked)
		snprintf(waited, sizeof(waited), "did not answer %s", q->asked);
	else
		snprintf(waited, sizeof(waited), "%s",
			 q->greeted ? "sent no event" : "does not answer");
	if (state == 'T' || state == 't')
		return gw_fail(-ETIMEDOUT,
			       "QEMU's monitor %s in time: QEMU is stopped as a process; let it go "
			       "on with 'kill -CONT %d'",
			       waited, (int)pid);
	if (state == 'D')
		return gw_fail(-ETIMEDOUT,
			       "QEMU's monitor %s in time: QEMU (process %d) waits for the kernel, "
			       "most likely for storage that hangs",
			       waited, (int)pid);
	if (!q->greeted && !is_own(q->path))
		return gw_fail(-ETIMEDOUT,
			       "QEMU's monitor %s (%s); if another program uses this socket, give "
			       "Godwit one of its own (-qmp unix:PATH,server=on,wait=off)",
			       waited, q->path);
	return gw_fail(
		-ETIMEDOUT,
		"QEMU's monitor %s in time: QEMU is busy or hangs (storage that does not answer?)",
		waited);
}

/* What is remembered of what happens to the guest, however many events it causes. */
static void note_event(struct gw_qmp *q, const json_t *msg)
{
	const char *event = json_string_value(json_object_get(msg, "event"));
	const json_t *data = json_object_get(msg, "data");

	if (!event)
		return;
	if (!strcmp(event, "RESUME"))
		q->resumes++;
	else if (!strcmp(event, "SUSPEND"))
		q->asleep = true;
	else if (!strcmp(event, "WAKEUP") || !strcmp(event, "RESET"))
		q->asleep = false;
	else if (!strcmp(event, "SHUTDOWN"))
		q->shut_down = json_is_true(json_object_get(data, "guest")) ||
			       !strcmp(gw_qmp_text(data, "reason"), "host-qmp-quit");
}

/* Receive until there is a line, and parse it. */
static int receive(struct gw_qmp *q, int64_t deadline, json_t **out)
{
	for (;;) {
		struct pollfd pfd = { .fd = q->fd, .events = POLLIN };
		size_t len;
		const char *line = gw_lines_next(&q->in, &len);
		int rc;

		if (line) {
			*out = json_loadb(line, len, 0, NULL);
			note_event(q, *out);
			return *out ? 0 : gw_fail(-EPROTO, "QEMU's monitor sent no JSON");
		}
		if (poll(&pfd, 1, gw_poll_ms(deadline)) == 0)
			return silent(q);
		rc = gw_lines_fill(&q->in, q->fd);
		if (rc == -ENOMEM || rc == -EMSGSIZE)
			return gw_fail(rc, "QEMU's answer is too long");
		if (rc == -EPIPE)
			return broken("closed the connection");
	}
}

/* Whether @msg answers a command that its caller gave up waiting for, before @asked. */
static bool too_late(const json_t *msg, json_int_t asked)
{
	const json_t *id = json_object_get(msg, "id");

	return json_is_integer(id) && json_integer_value(id) != asked;
}

/* Keep what gw_qmp_wait_migration() may want; a guest can cause any number of others. */
static void keep_event(struct gw_qmp *q, json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));

	if (name && !strcmp(name, "MIGRATION")) {
		if (json_array_size(q->events) == EVENTS_MAX)
			json_array_remove(q->events, 0);
		json_array_append(q->events, event);
	}
	json_decref(event);
}

/* The answer to command @id; events on the way are kept. */
static int receive_answer(struct gw_qmp *q, json_int_t id, int64_t deadline, json_t **out)
{
	for (;;) {
		json_t *msg;
		int rc = receive(q, deadline, &msg);

		if (rc)
			return rc;
		if (json_object_get(msg, "event")) {
			keep_event(q, msg);
			if (gw_now() > deadline)
				return silent(q);
		} else if (too_late(msg, id)) {
			json_decref(msg);
		} else {
			*out = msg;
			return 0;
		}
	}
}

/* Commands as QEMU reads them, one behind the other; caller frees. */
static char *text_of(const struct gw_question *asked, size_t n, json_int_t id)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	bool good = out;

	for (size_t i = 0; good && i < n; i++) {
		json_t *msg = json_pack("{s:s,s:I}", "execute", asked[i].command, "id",
					id + (json_int_t)i);

		if (asked[i].args)
			json_object_set(msg, "arguments", asked[i].args);
		good = !json_dumpf(msg, out, JSON_COMPACT);
		json_decref(msg);
	}
	if (out && fclose(out))
		good = false;
	if (good)
		return text;
	free(text);
	gw_fail(-ENOMEM, "no memory for a QMP command");
	return NULL;
}

/* Send @n commands, of ids from q->last_id + 1 on. */
static int send_commands(struct gw_qmp *q, const struct gw_question *asked, size_t n, int fd)
{
	gw_autofree char *text = text_of(asked, n, q->last_id + 1);
	int rc;

	q->last_id += (json_int_t)n;
	if (!text)
		return -ENOMEM;
	rc = gw_send_fd(q->fd, text, strlen(text), fd, 0);
	if (!rc)
		return 0;
	/* A part may have left, and what would follow it is no command. */
	shutdown(q->fd, SHUT_RDWR);
	return rc == -EAGAIN ? silent(q) : broken("cannot be written to");
}

static int take_answer(struct gw_qmp *q, struct gw_question *asked, json_int_t id)
{
	json_t *msg = NULL;
	const json_t *error;
	int rc = receive_answer(q, id, gw_now() + q->timeout_ms * GW_MS, &msg);

	if (rc)
		return rc;
	error = json_object_get(msg, "error");
	if (error) {
		const char *desc = json_string_value(json_object_get(error, "desc"));

		asked->refusal = gw_path("QEMU refused %s: %s", asked->command, desc ? desc : "?");
	} else {
		asked->answer = json_incref(json_object_get(msg, "return"));
	}
	json_decref(msg);
	return 0;
}

/* At most ASKED_MAX. */
static int ask(struct gw_qmp *q, struct gw_question *asked, size_t n, int fd)
{
	const json_int_t id = q->last_id + 1;
	int rc;

	q->asked = q->greeted ? asked->command : NULL;
	rc = send_commands(q, asked, n, fd);
	for (size_t i = 0; !rc && i < n; i++) {
		q->asked = q->greeted ? asked[i].command : NULL;
		rc = take_answer(q, &asked[i], id + (json_int_t)i);
	}
	q->asked = NULL;
	return rc;
}

int gw_qmp_ask(struct gw_qmp *q, struct gw_question *asked, size_t n)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i += ASKED_MAX)
		rc = ask(q, asked + i, n - i < ASKED_MAX ? n - i : ASKED_MAX, -1);
	return rc;
}

int gw_question_answer(const struct gw_question *asked, const json_t **answer)
{
	if (asked->refusal)
		return gw_fail(-EREMOTEIO, "%s", asked->refusal);
	if (answer)
		*answer = asked->answer;
	return 0;
}

struct gw_question gw_question_hmp(const char *command)
{
	return (struct gw_question){ .command = "human-monitor-command",
				     .args = json_pack("{s:s}", "command-line", command) };
}

const char *gw_question_text(const struct gw_question *asked)
{
	const char *text = json_string_value(asked->answer);

	if (!gw_question_answer(asked, NULL) && !text)
		gw_fail(-EPROTO, "QEMU answered '%s' without text",
			gw_qmp_text(asked->args, "command-line"));
	return text;
}

void gw_questions_free(struct gw_question *asked, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		json_decref(asked[i].args);
		json_decref(asked[i].answer);
		free(asked[i].refusal);
	}
}

static int execute(struct gw_qmp *q, const char *command, json_t *args, int fd, json_t **answer)
{
	struct gw_question one = { .command = command, .args = args };
	int rc;

	/* What an earlier one came to is not to be taken for this one's end. */
	if (!strcmp(command, "migrate") || !strcmp(command, "migrate-incoming"))
		json_array_clear(q->events);
	rc = ask(q, &one, 1, fd);
	if (!rc)
		rc = gw_question_answer(&one, NULL);
	if (!rc && answer)
		*answer = json_incref(one.answer);
	gw_questions_free(&one, 1);
	return rc;
}

int gw_qmp_call(struct gw_qmp *q, const char *command, json_t *args, json_t **answer)
{
	return execute(q, command, args, -1, answer);
}

int gw_qmp_send_fd(struct gw_qmp *q, const char *name, int fd)
{
	return execute(q, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL);
}

char *gw_qmp_hmp(struct gw_qmp *q, const char *command)
{
	struct gw_question one = gw_question_hmp(command);
	const char *text = gw_qmp_ask(q, &one, 1) ? NULL : gw_question_text(&one);
	char *copy = text ? strdup(text) : NULL;

	gw_questions_free(&one, 1);
	return copy;
}

static int migration_reached(struct gw_qmp *q, json_t *event, const char *status)
{
	const char *now =
		json_string_value(json_object_get(json_object_get(event, "data"), "status"));
	json_t *answer = NULL;
	int rc;

	if (!now || strcmp(json_string_value(json_object_get(event, "event")), "MIGRATION"))
		return -EAGAIN;
	if (!strcmp(now, status))
		return 0;
	if (strcmp(now, "failed") && strcmp(now, "cancelled"))
		return -EAGAIN;
	rc = gw_qmp_call(q, "query-migrate", NULL, &answer);
	if (!rc) {
		const char *desc = json_string_value(json_object_get(answer, "error-desc"));

		rc = gw_fail(-EREMOTEIO, "QEMU could not move its device state: %s",
			     desc ? desc : now);
	}
	json_decref(answer);
	return rc;
}

int gw_qmp_wait_migration(struct gw_qmp *q, const char *status, int64_t deadline)
{
	for (;;) {
		json_t *event = NULL;
		int rc;

		if (json_array_size(q->events)) {
			event = json_incref(json_array_get(q->events, 0));
			json_array_remove(q->events, 0);
		} else {
			rc = receive(q, deadline, &event);
			if (rc)
				return rc;
		}
		rc = json_object_get(event, "event") ? migration_reached(q, event, status)
						     : -EAGAIN;
		json_decref(event);
		if (rc != -EAGAIN)
			return rc;
	}
}

bool gw_qmp_shut_down(struct gw_qmp *q)
{
	json_t *msg = NULL;

	while (!receive(q, 0, &msg)) {
		if (json_object_get(msg, "event"))
			keep_event(q, msg);
		else
			json_decref(msg);
	}
	gw_error_clear();
	return q->shut_down;
}

unsigned int gw_qmp_resumes(const struct gw_qmp *q)
{
	return q->resumes;
}

bool gw_qmp_asleep(const struct gw_qmp *q)
{
	return q->asleep;
}

int gw_qmp_status(struct gw_qmp *q, char *status, size_t len)
{
	json_t *answer = NULL;
	const char *text;
	int rc = gw_qmp_call(q, "query-status", NULL, &answer);

	if (rc)
		return rc;
	text = json_string_value(json_object_get(answer, "status"));
	snprintf(status, len, "%s", text ? text : "");
	json_decref(answer);
	return 0;
}

int gw_qmp_pid(struct gw_qmp *q, pid_t *pid)
{
	json_t *answer = NULL;
	gw_autofree char *path = NULL, *text = NULL;
	const char *tgid;
	json_int_t tid;
	int rc = gw_qmp_call(q, "query-cpus-fast", NULL, &answer);

	if (rc)
		return rc;
	tid = json_integer_value(json_object_get(json_array_get(answer, 0), "thread-id"));
	json_decref(answer);
	path = gw_path("/proc/%lld/status", (long long)tid);
	text = gw_read_file(path, 1 << 16, NULL);
	tgid = text ? strstr(text, "\nTgid:") : NULL;
	if (!tgid)
		return gw_fail(-ESRCH,
			       "QEMU's vCPU thread %lld is not on this host (another PID "
			       "namespace?)",
			       (long long)tid);
	*pid = (pid_t)atol(tgid + 6);
	return 0;
}

/* The user as whom @pid runs; root's (who may anything anyway) if that is not told. */
static uid_t user_of(pid_t pid)
{
	gw_autofree char *path = gw_path("/proc/%d/status", (int)pid);
	gw_autofree char *text = access(path, F_OK) ? NULL : gw_read_file(path, 1 << 16, NULL);
	const char *at = text ? strstr(text, "\nUid:") : NULL;
	unsigned int effective = 0;

	return at && sscanf(at, " Uid: %*u %u", &effective) == 1 ? (uid_t)effective : 0;
}

int gw_qmp_check(struct gw_qmp *q, pid_t pid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	pid_t is = 0;
	int rc;

	if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return gw_fail(-errno, "QMP socket %s: %s", q->path, strerror(errno));
	if (peer.uid != 0 && peer.uid != geteuid() && peer.uid != user_of(pid))
		return gw_fail(-EPERM,
			       "QMP socket %s is served by user %u, and QEMU (process %d) is not "
			       "that user's: look who made it",
			       q->path, (unsigned int)peer.uid, (int)pid);
	rc = gw_qmp_pid(q, &is);
	if (!rc && is != pid)
		return gw_fail(-ESRCH,
			       "QMP socket %s is the monitor of process %d now, and not of the "
			       "VM's QEMU (process %d): give that one's its name back",
			       q->path, (int)is, (int)pid);
	return rc;
}

void gw_qmp_patience(struct gw_qmp *q, int ms)
{
	/* 0 would be for ever. */
	const int left = ms > 0 ? ms : 1;
	const struct timeval limit = { .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000L };

	q->timeout_ms = left;
	setsockopt(q->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

/* A monitor that serves somebody else takes a few connections and then blocks the next. */
static int connect_until(struct gw_qmp *q, int64_t deadline)
{
	while (gw_now() < deadline) {
		int rc;

		/* SO_SNDTIMEO bounds connect(), too. */
		gw_qmp_patience(q, gw_poll_ms(deadline));
		rc = gw_unix_connect(q->fd, q->path);
		if (!rc)
			return 0;
		if (rc != -EINTR && rc != -EAGAIN)
			return gw_fail(rc, "QMP socket %s: %s", q->path, strerror(-rc));
	}
	return silent(q);
}

struct gw_qmp *gw_qmp_open(const char *path, int64_t deadline)
{
	struct gw_qmp *q = calloc(1, sizeof(*q));
	json_t *greeting = NULL;
	int rc;

	if (!q)
		return NULL;
	q->in.max = ANSWER_MAX;
	q->path = gw_path("%s", path);
	q->events = json_array();
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = q->fd < 0 ? gw_fail(-errno, "QMP socket: %s", strerror(errno))
		       : connect_until(q, deadline);
	if (!rc)
		rc = receive(q, deadline, &greeting);
	json_decref(greeting);
	if (!rc) {
		q->greeted = true;
		gw_qmp_patience(q, gw_poll_ms(deadline));
		rc = gw_qmp_call(q, "qmp_capabilities", NULL, NULL);
	}
	gw_qmp_patience(q, GW_QMP_TIMEOUT_MS);
	if (rc) {
		gw_qmp_close(q);
		return NULL;
	}
	return q;
}

void gw_qmp_close(struct gw_qmp *q)
{
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	json_decref(q->events);
	free(q->path);
	gw_lines_free(&q->in);
	free(q);
}
