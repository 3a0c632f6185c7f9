// SPDX-License-Identifier: GPL-2.0-or-later
/* test_launch.c - processes that outlive their launcher; a shell script stands in for QEMU. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"

struct vm {
	char *root; /* holds {dir} as "root/vm" and the stand-in */
	char *dir;
	char *qemu;
	char *ram[1];
	struct gw_definition def;
	struct gw_process process;
};

/* @script: what the stand-in does; it sits in the folder "root". */
static void define(struct vm *v, const char *script)
{
	gw_autofree char *text = gw_path("#!/bin/sh\n%s\n", script);
	json_t *argv = json_pack("[s,s,s]", v->qemu, "-serial", "{dir}/serial");

	assert_int_equal(gw_write_file(v->qemu, text), 0);
	assert_int_equal(chmod(v->qemu, 0700), 0);
	gw_definition_free(&v->def);
	assert_int_equal(gw_definition_run(&v->def, "web1", 8192, argv, v->root), 0);
	json_decref(argv);
}

static int make(void **state)
{
	struct vm *v = calloc(1, sizeof(*v));

	*state = v;
	if (!v || unit_folder((void **)&v->root))
		return -1;
	v->dir = gw_path("%s/vm", v->root);
	v->qemu = gw_path("%s/qemu-system-fake", v->root);
	v->ram[0] = gw_path("%s/ram", v->root);
	return mkdir(v->dir, 0700);
}

static int drop(void **state)
{
	struct vm *v = *state;

	if (v->process.pid)
		gw_process_kill(&v->process);
	gw_definition_free(&v->def);
	free(v->dir);
	free(v->qemu);
	free(v->ram[0]);
	unit_folder_remove((void **)&v->root);
	free(v);
	return 0;
}

static int launch(struct vm *v)
{
	return gw_launch(&v->def, v->dir, v->ram, false, &v->process);
}

static char *file_in(const char *dir, const char *name)
{
	gw_autofree char *path = gw_path("%s/%s", dir, name);
	char *text = gw_read_file(path, 1 << 20, NULL);

	assert_non_null(text);
	return text;
}

/* The stand-in is told what QEMU would be told, in the surroundings it would have. */
static void surroundings(void **state)
{
	struct vm *v = *state;
	gw_autofree char *args = NULL, *cwd = NULL, *serial = NULL, *session = NULL;
	gw_autofree char *expected = NULL;

	define(v, "for a; do echo \"$a\"; done >args; pwd >cwd; cut -d' ' -f6 /proc/$$/stat >sid; "
		  "exit 3");
	assert_int_equal(launch(v), 0);
	assert_true(gw_process_ended(&v->process, 10000));
	args = file_in(v->root, "args");
	serial = gw_path("-serial\n%s/serial\n", v->dir);
	assert_ptr_equal(strstr(args, serial), args);
	assert_non_null(strstr(args, "\nsocket,id=godwit-qmp,fd=3,server=on,wait=off\n"));
	cwd = file_in(v->root, "cwd");
	expected = gw_path("%s\n", v->root);
	assert_string_equal(cwd, expected);
	session = file_in(v->root, "sid");
	assert_int_equal(atoi(session),
			 v->process.pid); /* also where it ended before it was looked at */
}

/* A shell would unblock its signals by itself, so this program is the stand-in. */
static void signals_are_as_usual(void **state)
{
	struct vm *v = *state;
	gw_autofree char *self = realpath("/proc/self/exe", NULL);
	gw_autofree char *signals = NULL;
	sigset_t usr1;

	define(v, "");
	assert_int_equal(unlink(v->qemu), 0);
	assert_int_equal(symlink(self, v->qemu), 0);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(launch(v), 0);
	sigprocmask(SIG_UNBLOCK, &usr1, NULL);
	signal(SIGPIPE, SIG_DFL);
	assert_true(gw_process_ended(&v->process, 10000));
	signals = file_in(v->root, "signals");
	assert_string_equal(signals, "blocked 0 ignored 0");
}

/* Nothing but standard streams and the monitor is inherited. */
static void no_stray_descriptors(void **state)
{
	struct vm *v = *state;
	gw_autofd int stray = fcntl(STDIN_FILENO, F_DUPFD, 20);
	gw_autofree char *list = NULL;

	assert_true(stray >= 20);
	define(v, "exec ls /proc/self/fd >fds");
	assert_int_equal(launch(v), 0);
	assert_true(gw_process_ended(&v->process, 10000));
	list = file_in(v->root, "fds");
	assert_string_equal(list, "0\n1\n2\n3\n4\n"); /* 4 is the listing's own */
}

static void monitor_listens_at_once(void **state)
{
	struct vm *v = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	gw_autofree char *path = gw_vm_qmp_path(v->dir);
	gw_autofd int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	define(v, "exec sleep 1000");
	assert_int_equal(launch(v), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void identity_and_end(void **state)
{
	struct vm *v = *state;
	struct gw_process found = { 0 }, same = { 0 };
	gw_autofd int fd = -1;
	struct pollfd pfd = { .events = POLLIN };

	assert_int_equal(gw_launch_find(v->dir, &found), -ENOENT);
	define(v, "exec sleep 1000");
	assert_int_equal(launch(v), 0);
	assert_true(gw_process_alive(&v->process));
	assert_false(gw_process_ended(&v->process, 0));
	assert_int_equal(gw_launch_find(v->dir, &found), 0);
	assert_int_equal(found.pid, v->process.pid);
	assert_int_equal(found.start, v->process.start);
	assert_int_equal(gw_process_identify(v->process.pid, &same), 0);
	assert_int_equal(same.start, v->process.start);
	/* Another process that has got the number is not it. */
	same.start++;
	assert_false(gw_process_alive(&same));
	assert_true(gw_process_ended(&same, 0));
	assert_int_equal(gw_process_open(&same), -ESRCH);
	gw_process_kill(&same);
	assert_true(gw_process_alive(&v->process));
	fd = gw_process_open(&v->process);
	assert_true(fd >= 0);
	pfd.fd = fd;
	assert_int_equal(poll(&pfd, 1, 0), 0);
	gw_process_kill(&v->process);
	assert_int_equal(poll(&pfd, 1, 0), 1);
	assert_false(gw_process_alive(&v->process));
	assert_true(gw_process_ended(&v->process, 0));
	gw_process_kill(&v->process);			     /* gone already: no harm */
	assert_int_equal(gw_launch_find(v->dir, &found), 0); /* its note stays */
	assert_false(gw_process_alive(&found));
}

static void nobody(void **state)
{
	const struct gw_process none = { 0 };
	struct gw_process found;
	pid_t child = fork();
	siginfo_t info;

	(void)state;
	if (child == 0)
		_exit(0);
	/* Ended and not yet waited for: a zombie does not live. */
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(gw_process_identify(child, &found), -ESRCH);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(gw_process_identify(child, &found), -ESRCH);
	assert_false(gw_process_alive(&none));
	assert_true(gw_process_ended(&none, 0));
	assert_int_equal(gw_process_identify(getpid(), &found), 0);
	assert_true(gw_process_alive(&found));
}

static void reasons(void **state)
{
	static const struct {
		const char *script, *reason;
	} ends[] = {
		{ "exit 1", "QEMU ended without a message" },
		{ "echo starting; echo bye", "starting; bye" },
		{ "echo 'qemu-system-fake: -foo: invalid option' >&2; exit 1",
		  "qemu-system-fake: -foo: invalid option" },
		{ "echo one; echo two >&2; echo three; echo four; echo; echo", "two; three; four" },
		{ "printf 'no newline'", "no newline" },
		{ "printf '\\n\\n'", "QEMU ended without a message" },
	};
	struct vm *v = *state;
	gw_autofree char *none = gw_launch_reason(v->dir);

	assert_string_equal(none, "no qemu.log");
	for (size_t i = 0; i < GW_ARRAY_SIZE(ends); i++) {
		gw_autofree char *reason = NULL;

		define(v, ends[i].script);
		assert_int_equal(launch(v), 0);
		assert_true(gw_process_ended(&v->process, 10000));
		reason = gw_launch_reason(v->dir);
		assert_string_equal(reason, ends[i].reason);
	}
}

static void missing_binary(void **state)
{
	struct vm *v = *state;

	define(v, "exit 0");
	assert_int_equal(unlink(v->qemu), 0);
	assert_int_equal(launch(v), -ENOENT);
	assert_message("cannot run ");
	assert_message("qemu-system-fake: No such file");
	assert_message("install QEMU on this host");
	v->process.pid = 0;
}

static void not_executable(void **state)
{
	struct vm *v = *state;

	define(v, "exit 0");
	assert_int_equal(chmod(v->qemu, 0600), 0);
	assert_int_equal(launch(v), -EACCES);
	v->process.pid = 0;
}

static void no_folder(void **state)
{
	struct vm *v = *state;

	define(v, "exit 0");
	assert_int_equal(rmdir(v->dir), 0);
	assert_int_equal(launch(v), -ENOENT);
	v->process.pid = 0;
	assert_int_equal(mkdir(v->dir, 0700), 0);
}

/* A cwd that does not exist on this host is no reason not to run. */
static void foreign_cwd(void **state)
{
	struct vm *v = *state;

	define(v, "exec sleep 1000");
	free(v->def.cwd);
	v->def.cwd = strdup("/no/such/folder");
	assert_int_equal(launch(v), 0);
	assert_true(gw_process_alive(&v->process));
}

/* Invariant 12: the launcher dies, the guest does not; and no zombie is left to it. */
static void outlives_its_launcher(void **state)
{
	struct vm *v = *state;
	int pipes[2], status;
	pid_t launcher;

	define(v, "exec sleep 1000");
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	launcher = fork();
	if (launcher == 0) {
		int rc = launch(v);

		if (rc || waitpid(-1, NULL, WNOHANG) != -1 ||
		    write(pipes[1], &v->process, sizeof(v->process)) != sizeof(v->process))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &v->process, sizeof(v->process)), sizeof(v->process));
	close(pipes[0]);
	assert_int_equal(waitpid(launcher, &status, 0), launcher);
	assert_true(WIFSIGNALED(status));
	assert_true(gw_process_alive(&v->process));
}

#define vm_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

/* As QEMU's stand-in, in "root": what has become of the signals. */
static int stand_in(void)
{
	gw_autofree char *text = NULL;
	struct sigaction pipe_action;
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	sigaction(SIGPIPE, NULL, &pipe_action);
	text = gw_path("blocked %d ignored %d", sigismember(&blocked, SIGUSR1),
		       pipe_action.sa_handler == SIG_IGN);
	return gw_write_file("signals", text);
}

int main(int argc, char *argv[])
{
	const struct CMUnitTest tests[] = {
		vm_test(surroundings),
		vm_test(signals_are_as_usual),
		vm_test(no_stray_descriptors),
		vm_test(monitor_listens_at_once),
		vm_test(identity_and_end),
		cmocka_unit_test(nobody),
		vm_test(reasons),
		vm_test(missing_binary),
		vm_test(not_executable),
		vm_test(no_folder),
		vm_test(foreign_cwd),
		vm_test(outlives_its_launcher),
	};

	if (argc > 1 && strstr(argv[0], "qemu-system-fake"))
		return stand_in();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
