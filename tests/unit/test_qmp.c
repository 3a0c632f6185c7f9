// SPDX-License-Identifier: GPL-2.0-or-later
/* test_qmp.c - the monitor's client against a monitor that follows a script. */
#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#define EVENT(name, status) \
	"{\"event\":\"" name "\",\"data\":{\"status\":\"" status "\"},\"timestamp\":{}}\r\n"

/* A monitor that greets, agrees, and is not heard of again; it is left in passed_fd. */
static void *agree(void *arg)
{
	struct monitor *m = arg;
	char text[4096];

	m->passed_fd = accept(m->listener, NULL, NULL);
	if (send(m->passed_fd, GREETING, strlen(GREETING), MSG_NOSIGNAL) > 0 &&
	    recv(m->passed_fd, text, sizeof(text), 0) > 0)
		send(m->passed_fd, OK, strlen(OK), MSG_NOSIGNAL);
	return NULL;
}

static void commands_and_answers(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "\"execute\":\"qmp_capabilities\"", OK },
		{ "\"execute\":\"query-status\"", "{\"return\":{\"status\":\"paused\"}}\n" },
		{ "\"arguments\":{\"a\":7}", "{\"return\":[1,2]}\n" },
		{ "\"execute\":\"cont\"", OK },
		{ "\"command-line\":\"info mtree\"", "{\"return\":\"text\\r\\n\"}\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	gw_autofree char *text = NULL;
	json_t *answer = NULL;
	char status[32];

	assert_int_equal(gw_qmp_status(q, status, sizeof(status)), 0);
	assert_string_equal(status, "paused");
	assert_int_equal(gw_qmp_call(q, "x", json_pack("{s:i}", "a", 7), &answer), 0);
	assert_int_equal(json_array_size(answer), 2);
	json_decref(answer);
	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), 0);
	text = gw_qmp_hmp(q, "info mtree");
	assert_string_equal(text, "text\r\n");
	end(*state);
	gw_qmp_close(q);
}

/* The monitor answers only when it has heard all three: they came without waiting. */
static void several_in_one_go(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"execute\":\"a\",\"id\":2}", NULL },
		{ "\"execute\":\"b\",\"id\":3,\"arguments\":{\"x\":7}", NULL },
		{ "\"command-line\":\"info c\"",
		  EVENT("MIGRATION", "completed") "{\"return\":[1],\"id\":2}\r\n" EVENT(
			  "RESUME",
			  "x") "{\"id\":3,\"error\":{\"desc\":\"no way\"}}\r\n" EVENT("STOP",
										      "x") },
		{ NULL, "{\"return\":\"text\",\"id\":4}\r\n" },
		{ "\"execute\":\"d\",\"id\":5}", OK },
		{ 0 },
	};
	struct gw_question asked[] = {
		{ .command = "a" },
		{ .command = "b", .args = json_pack("{s:i}", "x", 7) },
		gw_question_hmp("info c"),
	};
	struct gw_qmp *q = open_with(*state, steps);
	const json_t *answer = NULL;

	assert_int_equal(gw_qmp_ask(q, asked, GW_ARRAY_SIZE(asked)), 0);
	assert_int_equal(gw_question_answer(&asked[0], &answer), 0);
	assert_int_equal(json_array_size(answer), 1);
	assert_int_equal(gw_question_answer(&asked[1], &answer), -EREMOTEIO);
	assert_string_equal(gw_error(), "QEMU refused b: no way");
	assert_null(gw_question_text(&asked[1]));
	assert_string_equal(gw_error(), "QEMU refused b: no way");
	assert_string_equal(gw_question_text(&asked[2]), "text");
	assert_null(gw_question_text(&asked[0]));
	assert_message("without text");
	gw_questions_free(asked, GW_ARRAY_SIZE(asked));
	/* What happened meanwhile is not lost, and the next command has its own answer. */
	assert_int_equal(gw_qmp_resumes(q), 1);
	assert_int_equal(gw_qmp_call(q, "d", NULL, NULL), 0);
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), 0);
	end(*state);
	gw_qmp_close(q);
}

/* QEMU stops answering in the middle: it is said at what, and what comes later is dropped. */
static void silence_in_the_middle(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"a\"", "{\"return\":1,\"id\":2}\n" },
		{ "\"b\"", NULL },
		{ "\"c\"", NULL },
		{ "\"d\"",
		  "{\"return\":2,\"id\":3}\n{\"return\":3,\"id\":4}\n{\"return\":4,\"id\":5}\n" },
		{ 0 },
	};
	struct gw_question asked[] = { { .command = "a" }, { .command = "b" }, { .command = "c" } };
	struct gw_qmp *q = open_with(*state, steps);
	json_t *answer = NULL;

	gw_qmp_patience(q, 30);
	assert_int_equal(gw_qmp_ask(q, asked, GW_ARRAY_SIZE(asked)), -ETIMEDOUT);
	assert_message("did not answer b in time");
	gw_questions_free(asked, GW_ARRAY_SIZE(asked));
	gw_qmp_patience(q, 120000);
	assert_int_equal(gw_qmp_call(q, "d", NULL, &answer), 0);
	assert_int_equal(json_integer_value(answer), 4);
	json_decref(answer);
	end(*state);
	gw_qmp_close(q);
}

static void hanging_up_in_the_middle(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"a\"", NULL },
		{ "\"b\"", "{\"return\":1,\"id\":2}\n{\"return\":" },
		{ 0 },
	};
	struct gw_question asked[] = { { .command = "a" }, { .command = "b" } };
	struct gw_qmp *q = open_with(*state, steps);

	assert_int_equal(gw_qmp_ask(q, asked, GW_ARRAY_SIZE(asked)), -EPIPE);
	assert_message("as it does when QEMU ends");
	gw_questions_free(asked, GW_ARRAY_SIZE(asked));
	end(*state);
	gw_qmp_close(q);
}

#define MANY 100

/* More than are sent at a time. */
static void many_questions(void **state)
{
	static const char *const words[] = { "one", "two", "three" };
	static struct step steps[MANY + 3] = { { NULL, GREETING }, { "qmp_capabilities", OK } };
	struct gw_question asked[MANY];
	struct gw_qmp *q;

	for (size_t i = 0; i < MANY; i++) {
		asked[i] = (struct gw_question){ .command = words[i % 3] };
		steps[i + 2] = (struct step){ words[i % 3], OK };
	}
	q = open_with(*state, steps);
	assert_int_equal(gw_qmp_ask(q, asked, MANY), 0);
	for (size_t i = 0; i < MANY; i++)
		assert_true(json_is_object(asked[i].answer));
	gw_questions_free(asked, MANY);
	assert_int_equal(gw_qmp_ask(q, NULL, 0), 0);
	end(*state);
	gw_qmp_close(q);
}

/* An answer that its caller has given up must not be taken for the next one. */
static void late_answers(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "\"id\":1", "{\"return\":{},\"id\":1}\n" },
		{ "\"id\":2", "{\"return\":\"late\",\"id\":1}\n{\"return\":7,\"id\":2}\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *answer = NULL;

	assert_int_equal(gw_qmp_call(q, "x", NULL, &answer), 0);
	assert_int_equal(json_integer_value(answer), 7);
	json_decref(answer);
	end(*state);
	gw_qmp_close(q);
}

/* Where a VM's monitor was, somebody else may answer by now. */
static void a_monitor_of_somebody_else(void **state)
{
	struct monitor *m = *state;
	gw_autofree char *us = gw_path("{\"return\":[{\"cpu-index\":0,\"thread-id\":%d}]}\n",
				       (int)getpid());
	const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "query-cpus-fast", us },
		{ "query-cpus-fast", us },
		{ 0 },
	};
	const struct step lies[] = { { NULL, GREETING },
				     { "qmp_capabilities", OK },
				     { "query-cpus-fast", us }, /* which is not asked */
				     { 0 } };
	struct gw_qmp *q = open_with(m, steps);
	int status;
	pid_t pid;

	assert_int_equal(gw_qmp_check(q, getpid()), 0);
	assert_int_equal(gw_qmp_check(q, getppid()), -ESRCH);
	assert_message("is the monitor of process");
	end(m);
	gw_qmp_close(q);
	if (geteuid())
		skip(); /* only root can be somebody else */
	pid = fork();
	if (!pid)
		_exit(setuid(65534) || listen(m->listener, 1));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	q = open_with(m, lies);
	assert_int_equal(gw_qmp_check(q, getpid()), -EPERM);
	assert_message("served by user 65534");
	gw_qmp_close(q);
	pthread_join(m->thread, NULL);
}

static void refusals(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "cont", "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no way\"}}\n" },
		{ "cont", "{\"error\":{}}\n" },
		{ "command-line", "{\"return\":{}}\n" },
		{ "cont", OK },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);

	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), -EREMOTEIO);
	assert_string_equal(gw_error(), "QEMU refused cont: no way");
	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), -EREMOTEIO);
	assert_null(gw_qmp_hmp(q, "info mtree"));
	assert_message("without text");
	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), 0);
	end(*state);
	gw_qmp_close(q);
}

/* Events between command and answer are kept for whoever waits for them later. */
static void events_between(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", EVENT("MIGRATION", "setup") OK },
		{ "cont", EVENT("STOP", "completed") EVENT("MIGRATION", "active")
				  OK EVENT("MIGRATION", "completed") },
		{ "query-status", EVENT("RESUME", "x") "{\"return\":{\"status\":\"running\"}}\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	char status[4];

	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), 0);
	assert_int_equal(gw_qmp_wait_migration(q, "active", SOON), 0);
	assert_int_equal(gw_qmp_status(q, status, sizeof(status)), 0);
	assert_string_equal(status, "run"); /* cut to the room there is */
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), 0);
	end(*state);
	gw_qmp_close(q);
}

/* A guest that falls asleep is called paused by a QEMU that is then told to stop it. */
static void asleep(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "stop", EVENT("SUSPEND", "x") EVENT("SUSPEND_DISK", "x") OK },
		{ "cont", EVENT("RESUME", "x") OK },
		{ "system_wakeup", EVENT("WAKEUP", "x") OK },
		{ "stop", EVENT("SUSPEND", "x") OK },
		{ "system_reset", EVENT("RESET", "x") OK },
		{ 0 },
	};
	static const bool then[] = { true, true, false, true, false };
	struct gw_qmp *q = open_with(*state, steps);

	assert_false(gw_qmp_asleep(q));
	for (size_t i = 0; i < GW_ARRAY_SIZE(then); i++) {
		assert_int_equal(gw_qmp_call(q, steps[i + 2].expect, NULL, NULL), 0);
		assert_int_equal(gw_qmp_asleep(q), then[i]);
	}
	end(*state);
	gw_qmp_close(q);
}

/* By the guest, or by a monitor; not by a signal, and not without a word. */
static void shut_down(void **state)
{
	static const struct {
		const char *last;
		bool is;
	} ends[] = {
		{ OK "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":"
		     "\"guest-shutdown\"}}\r\n" EVENT("STOP", "x"),
		  true },
		{ OK "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":"
		     "\"host-qmp-quit\"}}\r\n",
		  true },
		{ OK "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":"
		     "\"host-signal\"}}\r\n",
		  false },
		{ OK EVENT("STOP", "x"), false },
	};

	for (size_t i = 0; i < GW_ARRAY_SIZE(ends); i++) {
		const struct step steps[] = {
			{ NULL, GREETING },
			{ "qmp_capabilities", OK },
			{ "cont", ends[i].last },
			{ 0 },
		};
		struct gw_qmp *q = open_with(*state, steps);

		assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), 0);
		end(*state);
		assert_int_equal(gw_qmp_shut_down(q), ends[i].is);
		gw_qmp_close(q);
		if (i + 1 < GW_ARRAY_SIZE(ends)) {
			assert_int_equal(drop(state), 0);
			assert_int_equal(make(state), 0);
		}
	}
}

static void migration_fails(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "migrate", OK EVENT("MIGRATION", "active") EVENT("MIGRATION", "failed") },
		{ "query-migrate", "{\"return\":{\"error-desc\":\"no space\"}}\n" },
		{ "migrate", OK EVENT("MIGRATION", "cancelled") },
		{ "query-migrate", "{\"return\":{}}\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);

	assert_int_equal(gw_qmp_call(q, "migrate", NULL, NULL), 0);
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), -EREMOTEIO);
	assert_message("device state: no space");
	assert_int_equal(gw_qmp_call(q, "migrate", NULL, NULL), 0);
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), -EREMOTEIO);
	assert_message("device state: cancelled");
	end(*state);
	gw_qmp_close(q);
}

/* What an attempt came to is not taken for the end of the next one. */
static void events_of_an_attempt_before(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"migrate\"", OK EVENT("MIGRATION", "cancelled") },
		{ "query-status", "{\"return\":{\"status\":\"running\"}}\n" },
		{ "\"migrate\"", OK EVENT("MIGRATION", "completed") },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	char status[16];

	assert_int_equal(gw_qmp_call(q, "migrate", NULL, NULL), 0);
	assert_int_equal(gw_qmp_status(q, status, sizeof(status)), 0);
	assert_int_equal(gw_qmp_call(q, "migrate", NULL, NULL), 0);
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), 0);
	end(*state);
	gw_qmp_close(q);
}

static void descriptors_travel(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"arguments\":{\"fdname\":\"stream\"}", OK },
		{ 0 },
	};
	struct monitor *m = *state;
	struct gw_qmp *q = open_with(m, steps);
	char byte = 0;
	int pipes[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(gw_qmp_send_fd(q, "stream", pipes[1]), 0);
	end(m);
	assert_true(m->passed_fd >= 0);
	assert_int_equal(write(m->passed_fd, "x", 1), 1);
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close(pipes[0]);
	close(pipes[1]);
	gw_qmp_close(q);
}

/* Another program holds the monitor: nobody greets. */
static void silence(void **state)
{
	struct monitor *m = *state;
	int64_t deadline = gw_now() + 50 * GW_MS;

	assert_null(gw_qmp_open(m->path, deadline));
	assert_true(gw_now() >= deadline);
	assert_message("if another program uses this socket");
}

/* Nor does it take the connection: whoever holds it has filled the backlog. */
static void backlog_is_full(void **state)
{
	struct monitor *m = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int waiting[8], n = 0;
	int64_t began;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", m->path);
	for (; n < 8; n++) {
		waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(waiting[n], (struct sockaddr *)&addr, sizeof(addr)))
			break;
	}
	assert_in_range(n, 1, 7);
	began = gw_now();
	assert_null(gw_qmp_open(m->path, began + 50 * GW_MS));
	assert_true(gw_now() - began >= 50 * GW_MS);
	assert_message("does not answer");
	for (int i = 0; i <= n; i++)
		close(waiting[i]);
}

/* The monitor that Godwit made is nobody else's, so nobody is told to make another. */
static void silence_of_its_own(void **state)
{
	struct monitor *m = *state;
	gw_autofree char *own = gw_path("%s/qmp.sock", m->dir);
	gw_autofree char *note = gw_path("%s/qemu.pid", m->dir);

	assert_int_equal(rename(m->path, own), 0);
	assert_null(gw_qmp_open(own, gw_now() + 20 * GW_MS));
	assert_message("another program");
	assert_int_equal(gw_write_file(note, "1 1\n"), 0);
	assert_null(gw_qmp_open(own, gw_now() + 20 * GW_MS));
	assert_message("QEMU is busy or hangs");
	assert_null(strstr(gw_error(), "another program"));
}

/* The answer does not come, or QEMU does not even read; the message says for what we waited. */
static void commands_have_deadlines(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"execute\":\"stop\"", NULL },
		{ "good bye", NULL }, /* so it stops reading after the next one */
		{ 0 },
	};
	struct monitor *m = *state;
	struct gw_qmp *q = open_with(m, steps);

	gw_qmp_patience(q, 30);
	assert_int_equal(gw_qmp_call(q, "stop", NULL, NULL), -ETIMEDOUT);
	assert_message("did not answer stop in time");
	assert_null(strstr(gw_error(), "another program"));
	gw_qmp_close(q);
	pthread_join(m->thread, NULL);
}

static void sending_has_a_deadline(void **state)
{
	struct monitor *m = *state;
	const size_t len = 4 << 20; /* more than the socket holds */
	gw_autofree char *text = malloc(len + 1);
	struct gw_qmp *q;

	/* By hand: this monitor greets, agrees, and reads no more. */
	assert_int_equal(pthread_create(&m->thread, NULL, agree, m), 0);
	q = gw_qmp_open(m->path, SOON);
	assert_non_null(q);
	memset(text, 'x', len);
	text[len] = '\0';
	gw_qmp_patience(q, 30);
	assert_int_equal(gw_qmp_call(q, "long", json_pack("{s:s}", "a", text), NULL), -ETIMEDOUT);
	assert_message("did not answer long");
	/* Half a command has left: nothing may follow it. */
	assert_int_equal(gw_qmp_call(q, "next", NULL, NULL), -EPIPE);
	pthread_join(m->thread, NULL);
	gw_qmp_close(q);
	close(m->passed_fd);
	m->passed_fd = -1;
}

static void silence_instead_of_an_event(void **state)
{
	/* It expects what never comes, so it neither speaks nor hangs up. */
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "good bye", NULL },
		{ 0 },
	};
	struct monitor *m = *state;
	struct gw_qmp *q = open_with(m, steps);

	assert_int_equal(gw_qmp_wait_migration(q, "completed", gw_now() + 50 * GW_MS), -ETIMEDOUT);
	gw_qmp_close(q);
	pthread_join(m->thread, NULL);
}

static void hanging_up(void **state)
{
	static const struct step greets[] = { { NULL, GREETING }, { 0 } };
	static const struct step half[] = { { NULL, "{\"QMP\":" }, { 0 } };
	static const struct step answers[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "cont", "{\"retu" },
		{ 0 },
	};
	struct monitor *m = *state;
	struct gw_qmp *q;

	begin(m, greets);
	assert_null(gw_qmp_open(m->path, SOON));
	assert_message("as it does when QEMU ends");
	end(m);
	begin(m, half);
	assert_null(gw_qmp_open(m->path, SOON));
	assert_message("as it does when QEMU ends");
	end(m);
	q = open_with(m, answers);
	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), -EPIPE);
	end(m);
	assert_int_equal(gw_qmp_call(q, "cont", NULL, NULL), -EPIPE);
	gw_qmp_close(q);
}

static void garbage(void **state)
{
	static const struct step http[] = { { NULL, "HTTP/1.0 400 Bad Request\r\n" }, { 0 } };
	static const struct step nul[] = { { NULL, GREETING },
					   { "qmp_capabilities", OK },
					   { "a", "\"return\"\n" },
					   { "b", "[]\n" },
					   { "c",
					     "{\"event\":7}\n{\"event\":\"MIGRATION\"}\n{}\n" },
					   { "d", "}{\n" },
					   { 0 } };
	struct monitor *m = *state;
	struct gw_qmp *q;
	json_t *answer = NULL;
	char status[8] = "x";

	begin(m, http);
	assert_null(gw_qmp_open(m->path, SOON));
	assert_message("sent no JSON");
	end(m);
	q = open_with(m, nul);
	/* JSON that is no answer: refused, or an answer without content; never a crash. */
	assert_int_equal(gw_qmp_call(q, "a", NULL, &answer), -EPROTO);
	assert_null(answer);
	assert_int_equal(gw_qmp_call(q, "b", NULL, &answer), 0);
	assert_null(answer);
	assert_int_equal(gw_qmp_call(q, "c", NULL, &answer), 0);
	assert_null(answer);
	assert_int_equal(gw_qmp_call(q, "d", NULL, &answer), -EPROTO);
	end(m);
	assert_int_equal(gw_qmp_wait_migration(q, "completed", SOON), -EPIPE);
	assert_int_equal(gw_qmp_status(q, status, sizeof(status)), -EPIPE);
	gw_qmp_close(q);
}

static void nobody_there(void **state)
{
	char longest[200];

	(void)state;
	assert_null(gw_qmp_open("/tmp/gw-unit-none/qmp", SOON));
	assert_message("QMP socket /tmp/gw-unit-none/qmp: No such file");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_null(gw_qmp_open(longest, SOON));
	assert_message("too long");
	gw_qmp_close(NULL);
}

#define qmp_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		qmp_test(commands_and_answers),
		qmp_test(several_in_one_go),
		qmp_test(silence_in_the_middle),
		qmp_test(hanging_up_in_the_middle),
		qmp_test(many_questions),
		qmp_test(late_answers),
		qmp_test(refusals),
		qmp_test(events_between),
		qmp_test(asleep),
		qmp_test(shut_down),
		qmp_test(migration_fails),
		qmp_test(descriptors_travel),
		qmp_test(silence),
		qmp_test(backlog_is_full),
		qmp_test(silence_of_its_own),
		qmp_test(commands_have_deadlines),
		qmp_test(sending_has_a_deadline),
		qmp_test(events_of_an_attempt_before),
		qmp_test(silence_instead_of_an_event),
		qmp_test(a_monitor_of_somebody_else),
		qmp_test(hanging_up),
		qmp_test(garbage),
		cmocka_unit_test(nobody_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
