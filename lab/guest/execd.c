/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * execd: runs one line of shell for each TCP connection on port 7001.
 *
 * The client sends a line, gets all that it prints, then end of file. No
 * password: the lab's network is closed. What the line leaves running in the
 * background keeps the connection open as long as it holds its output; /bin/run
 * starts a workload that writes to the console instead.
 *
 * reaper: process 1 once the guest is up; it buries orphans and is idle else.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

#define LINE_MAX_BYTES 8192

/* Returns the line without its newline; a missing newline at the end is forgiven. */
static char *read_line(int fd)
{
	static char line[LINE_MAX_BYTES];
	size_t length = 0;

	while (length < sizeof(line) - 1) {
		ssize_t bytes = read(fd, line + length, sizeof(line) - 1 - length);
		char *newline;

		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes <= 0)
			return line;
		length += bytes;
		newline = memchr(line, '\n', length);
		if (newline) {
			*newline = '\0';
			return line;
		}
	}
	die(0, "a line is longer than %d bytes", LINE_MAX_BYTES - 1);
}

static _Noreturn void run_line(int fd)
{
	signal(SIGCHLD, SIG_DFL);
	setsid();
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execl("/bin/busybox", "sh", "-c", read_line(fd), NULL);
	die(errno, "cannot run the shell");
}

int execd_main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(EXEC_PORT),
		.sin_addr.s_addr = htonl(INADDR_ANY),
	};

	(void)argc;
	(void)argv;

	if (listener < 0)
		die(errno, "cannot make a socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, SOMAXCONN) < 0)
		die(errno, "cannot listen on port %d", EXEC_PORT);
	/* Children bury themselves. */
	signal(SIGCHLD, SIG_IGN);
	go_background();

	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		if (fork() == 0)
			run_line(fd);
		close(fd);
	}
}

int reaper_main(int argc, char **argv)
{
	sigset_t child;

	(void)argc;
	(void)argv;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		sigwaitinfo(&child, NULL);
	}
}
