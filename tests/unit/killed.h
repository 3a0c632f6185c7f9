/* SPDX-License-Identifier: GPL-2.0-or-later */
/* killed.h - a process that is killed, or overtaken, between two system calls: each in turn. */
#ifndef TEST_KILLED_H
#define TEST_KILLED_H

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "store.h"

typedef int (*step_fn)(const struct host *h, struct vm *vm);

/* Run @fn in a child up to its @n-th stop at a system call. -1 if it had ended before. */
static inline pid_t stopped_at(unsigned int n, step_fn fn, const struct host *h, struct vm *vm)
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
			return -1;
		}
		assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	}
	return child;
}

/** killed_at() - run @fn and kill it there. False if it had ended before. */
static inline bool killed_at(unsigned int n, step_fn fn, const struct host *h, struct vm *vm)
{
	pid_t child = stopped_at(n, fn, h, vm);
	int status;

	if (child < 0)
		return false;
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	return true;
}

/** overtaken_at() - run @fn, there do @meanwhile, and let it go on to its end, which is 0. */
static inline bool overtaken_at(unsigned int n, step_fn fn, const struct host *h, struct vm *vm,
				void (*meanwhile)(const struct host *h, struct vm *vm))
{
	pid_t child = stopped_at(n, fn, h, vm);
	int status;

	if (child < 0)
		return false;
	meanwhile(h, vm);
	assert_int_equal(ptrace(PTRACE_DETACH, child, NULL, NULL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	return true;
}

#endif
