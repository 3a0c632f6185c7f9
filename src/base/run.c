// SPDX-License-Identifier: GPL-2.0-or-later
/* run.c - other programs; see run.h. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "run.h"

/* All of it is read, so that it never waits for us; what finds no room is dropped. */
static void take(int fd, char *out, size_t len)
{
	size_t used = 0;
	char rest[4096];
	ssize_t n;

	do {
		n = used < len - 1 ? read(fd, out + used, len - 1 - used)
				   : read(fd, rest, sizeof(rest));
		if (n > 0 && used < len - 1)
			used += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	out[used] = '\0';
}

int gw_run(char *const argv[], bool errors, char *out, size_t len)
{
	extern char **environ;
	posix_spawn_file_actions_t actions;
	int pipes[2], status = -1, rc;
	pid_t pid;

	out[0] = '\0';
	if (pipe2(pipes, O_CLOEXEC))
		return gw_fail(-errno, "pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
	if (errors)
		posix_spawn_file_actions_adddup2(&actions, pipes[1], STDERR_FILENO);
	rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	if (!rc)
		take(pipes[0], out, len);
	close(pipes[0]);
	if (rc)
		return gw_fail(-rc, "%s: %s", argv[0], strerror(rc));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}
