/* SPDX-License-Identifier: GPL-2.0-or-later */
/* killed.h - a process that is killed between two system calls, each in turn. */
#ifndef TEST_KILLED_H
#define TEST_KILLED_H

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "store.h"

/** killed_at() - run @fn in a child and kill it at its @n-th system call stop. True if it was
 * killed. */
static inline bool killed_at(unsigned int n, int (*fn)(const struct host *, struct vm *),
			     struct host *h, struct vm *vm)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(fn(h, vm) != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL), 0);
	for (unsigned int i = 0; i <= n; i++) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return false;
		}
		assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	}
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	return true;
}

#endif
