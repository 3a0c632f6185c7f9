// SPDX-License-Identifier: GPL-2.0-or-later
/* launch.c - start a QEMU that outlives us; see launch.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "launch.h"
#include "log.h"
#include "own.h"
#include "sockets.h"

#define QMP_FD 3 /* of the monitor's listening socket in QEMU */

/* QEMU says what went wrong in one to three lines, from the cause to the consequence. */
#define REASON_LINES 3
#define REASON_HALF  250 /* bytes of its beginning and of its end: a message has room for them */
#define LOG_TAIL     (64UL << 10)

char *gw_vm_qmp_path(const char *dir)
{
	return gw_path("%s/qmp.sock", dir);
}

/* What the new process tells its parent: its pid, or why it could not become QEMU. */
struct report {
	pid_t pid;
	int err;
};

static int listen_at(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int rc;

	unlink(path);
	rc = fd < 0 ? -errno : gw_unix_bind(fd, path);
	if (rc)
		errno = -rc;
	return rc || listen(fd, 4) ? -1 : fd;
}

/* Fill in @process for a running @pid; no message, because "no" is an answer to some. */
static bool identify(pid_t pid, struct gw_process *process)
{
	gw_autofree char *path = gw_path("/proc/%d/stat", (int)pid);
	gw_autofile FILE *f = fopen(path, "re");
	char text[1024] = "";
	const char *at;
	char state = 'X';

	process->pid = 0;
	process->start = 0;
	at = f && fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
	if (!at ||
	    sscanf(at,
		   ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lu",
		   &state, &process->start) != 2 ||
	    state == 'Z' || state == 'X')
		return false;
	process->pid = pid;
	return true;
}

int gw_process_identify(pid_t pid, struct gw_process *process)
{
	return identify(pid, process) ? 0 : gw_fail(-ESRCH, "process %d is gone", (int)pid);
}

/*
 * Note who we are before becoming QEMU: if the launcher dies before it has
 * recorded us, whoever clears up can still find us.
 */
static int note_pid(const char *dir)
{
	gw_autofree char *path = gw_path("%s/qemu.pid", dir);
	gw_autofree char *text = NULL;
	struct gw_process self;

	if (gw_process_identify(getpid(), &self))
		return -1;
	text = gw_path("%d %llu\n", (int)self.pid, (unsigned long long)self.start);
	return gw_write_file(path, text);
}

int gw_launch_find(const char *dir, struct gw_process *process)
{
	gw_autofree char *path = gw_path("%s/qemu.pid", dir);
	gw_autofree char *text = gw_own_read(path, 128, NULL);
	unsigned long long start;
	int pid;

	if (!text || sscanf(text, "%d %llu", &pid, &start) != 2)
		return gw_fail(-ENOENT, "%s: no QEMU was started", path);
	process->pid = pid;
	process->start = start;
	return 0;
}

/* In the new process: set its surroundings up and become QEMU. */
static void become_qemu(char *const argv[], const char *dir, const char *cwd, int report_fd)
{
	gw_autofree char *log_path = gw_path("%s/qemu.log", dir);
	gw_autofree char *qmp_path = gw_vm_qmp_path(dir);
	struct report r = { .pid = getpid() };
	int null, log, qmp;
	sigset_t none;

	setsid();
	null = open("/dev/null", O_RDONLY);
	log = gw_own_make(log_path, O_WRONLY | O_APPEND);
	qmp = listen_at(qmp_path);
	/* Numbers above QMP_FD first, so that dup2() overwrites none of ours. */
	report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, QMP_FD + 1);
	if (log < 0)
		errno = -log;
	if (null >= 0 && log >= 0 && qmp >= 0 && report_fd >= 0 && !note_pid(dir)) {
		qmp = fcntl(qmp, F_DUPFD, QMP_FD + 1);
		log = fcntl(log, F_DUPFD, QMP_FD + 1);
		dup2(null, 0);
		dup2(log, 1);
		dup2(log, 2);
		dup2(qmp, QMP_FD);
		syscall(SYS_close_range, (unsigned int)QMP_FD + 1, (unsigned int)report_fd - 1, 0);
		syscall(SYS_close_range, (unsigned int)report_fd + 1, ~0U, 0);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		/* A cwd of another host may not exist here; absolute paths still work. */
		if (chdir(cwd) && chdir("/"))
			_exit(1);
		if (write(report_fd, &r, sizeof(r)) == sizeof(r))
			execvp(argv[0], argv);
	}
	r.err = errno;
	if (write(report_fd, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(1);
}

int gw_launch(const struct gw_definition *def, const char *dir, char *const ram_paths[],
	      bool incoming, struct gw_process *process)
{
	char **argv = gw_definition_command(def, dir, ram_paths, QMP_FD, incoming);
	struct report r = { 0 };
	int pipes[2], rc = 0, status;
	pid_t child, pid = 0;

	if (pipe2(pipes, O_CLOEXEC)) {
		gw_strings_free(argv);
		return gw_fail(-errno, "pipe: %s", strerror(errno));
	}
	child = fork();
	if (child == 0) {
		/* Twice, so that QEMU belongs to init and leaves us no zombie. */
		child = fork();
		if (child == 0)
			become_qemu(argv, dir, def->cwd, pipes[1]);
		_exit(child < 0);
	}
	close(pipes[1]);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		rc = gw_fail(-EAGAIN, "cannot start a process for QEMU");
	if (!rc && read(pipes[0], &r, sizeof(r)) != sizeof(r))
		rc = gw_fail(-EIO, "the process for QEMU ended early");
	if (!rc) {
		process->pid = pid = r.pid;
		/* Closed by exec: silence means that QEMU runs. */
		if (read(pipes[0], &r, sizeof(r)) == sizeof(r) || r.err)
			rc = gw_fail(-r.err, "cannot run %s: %s%s", argv[0], strerror(r.err),
				     r.err == ENOENT ? "; install QEMU on this host or give its "
						       "full path"
						     : "");
	}
	close(pipes[0]);
	gw_strings_free(argv);
	/* A QEMU that ended at once is reported by its monitor, with its reason. */
	if (!rc && gw_process_identify(pid, process))
		*process = (struct gw_process){ .pid = pid };
	return rc;
}

char *gw_launch_reason(const char *dir)
{
	gw_autofree char *path = gw_path("%s/qemu.log", dir);
	char *reason = NULL, *save = NULL, *at;
	size_t len = 0, most = 2 * (size_t)REASON_HALF;
	gw_autofree char *text = gw_own_tail(path, LOG_TAIL, &len);
	int lines = 0;

	if (!text)
		return strdup("no qemu.log");
	/* A guest's console may be in it. */
	while ((at = memchr(text, '\0', len)))
		*at = ' ';
	at = text + len;
	while (at > text && at[-1] == '\n')
		*--at = '\0';
	while (at > text && (at[-1] != '\n' || ++lines < REASON_LINES))
		at--;
	for (char *line = strtok_r(at, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
		char *longer = reason ? gw_path("%s; %s", reason, line) : strdup(line);

		free(reason);
		reason = longer;
	}
	if (reason && strlen(reason) > most) {
		char *shorter = gw_path("%.*s ... %s", REASON_HALF, reason,
					reason + strlen(reason) - REASON_HALF);

		free(reason);
		reason = shorter;
	}
	return reason ? reason : strdup("QEMU ended without a message");
}

bool gw_process_alive(const struct gw_process *process)
{
	struct gw_process now;

	return process->pid > 0 && identify(process->pid, &now) && now.start == process->start;
}

/* A pidfd, or -1 without a message. */
static int open_process(const struct gw_process *process)
{
	gw_autofd int fd = (int)syscall(SYS_pidfd_open, process->pid, 0);

	/* Opened first, then checked: the number cannot be reused in between. */
	return fd >= 0 && gw_process_alive(process) ? gw_steal_fd(&fd) : -1;
}

int gw_process_open(const struct gw_process *process)
{
	int fd = open_process(process);

	return fd < 0 ? gw_fail(-ESRCH, "QEMU (process %d) is gone", (int)process->pid) : fd;
}

bool gw_process_ended(const struct gw_process *process, int ms)
{
	gw_autofd int fd = open_process(process);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return fd < 0 || poll(&pfd, 1, ms) > 0;
}

void gw_process_yield(const struct gw_process *process)
{
	gw_autofree char *path = gw_path("/proc/%d/task", (int)process->pid);
	const struct sched_param none = { 0 };
	gw_autofd int fd = open_process(process);
	DIR *tasks = fd >= 0 ? opendir(path) : NULL;
	const struct dirent *task;

	while (tasks && (task = readdir(tasks)))
		if (task->d_name[0] != '.' &&
		    sched_setscheduler((pid_t)strtol(task->d_name, NULL, 10), SCHED_IDLE, &none))
			gw_debug("thread %s: %s", task->d_name, strerror(errno));
	if (tasks)
		closedir(tasks);
}

bool gw_process_end(const struct gw_process *process, int ms)
{
	gw_autofd int fd = open_process(process);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int n;

	if (fd < 0)
		return true;
	syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	while ((n = poll(&pfd, 1, ms)) < 0 && errno == EINTR)
		;
	return n > 0;
}

void gw_process_kill(const struct gw_process *process)
{
	gw_process_end(process, -1);
}
