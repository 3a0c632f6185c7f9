/* SPDX-License-Identifier: GPL-2.0-or-later */
/* killed.h - a process that is killed, or overtaken, between two system calls: each in turn. */
#ifndef TEST_KILLED_H
#define TEST_KILLED_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "unit.h"

struct host; /* the test's, store.h's or another; and a VM on it, if it wants one */
struct vm;

typedef int (*step_fn)(const struct host *h, struct vm *vm);

/* System calls after which nothing is as it was for others, nor was before: no stop there. */
static const unsigned int of_no_effect[] = { SYS_brk,	  SYS_mmap,	SYS_munmap, SYS_mprotect,
					     SYS_madvise, SYS_futex,	SYS_getpid, SYS_getppid,
					     SYS_gettid,  SYS_getrandom };

/* And these only look: whoever is killed there might as well be killed later. */
static const unsigned int of_no_trace[] = { SYS_read,  SYS_pread64,    SYS_fstat,  SYS_newfstatat,
					    SYS_lseek, SYS_getdents64, SYS_close,  SYS_fcntl,
#ifdef SYS_access
					    SYS_stat,  SYS_lstat,      SYS_access,
#endif
					    SYS_statx, SYS_faccessat,  SYS_statfs };

static inline void trace_calls(bool that_only_look)
{
	struct sock_filter code[64];
	struct sock_fprog program = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < GW_ARRAY_SIZE(of_no_effect); i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, of_no_effect[i],
							 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	for (size_t i = 0; !that_only_look && i < GW_ARRAY_SIZE(of_no_trace); i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, of_no_trace[i],
							 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	program.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		_exit(2);
}

/* Let @child go on to its next stop. False: it has ended, with 0. */
static inline bool next_stop(pid_t child)
{
	int status;

	assert_int_equal(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status)) {
		assert_int_equal(WEXITSTATUS(status), 0);
		return false;
	}
	assert_int_equal(status >> 8, SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
	return true;
}

/* Run @fn in a child up to its @n-th system call that counts. -1 if it had ended before. */
static inline pid_t stopped_at(unsigned int n, bool looks, step_fn fn, const struct host *h,
			       struct vm *vm)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		trace_calls(looks);
		_exit(fn(h, vm) != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(
		ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP),
		0);
	for (unsigned int i = 0; i <= n; i++)
		if (!next_stop(child))
			return -1;
	return child;
}

/** killed_at() - run @fn and kill it there. False if it had ended before. */
static inline bool killed_at(unsigned int n, step_fn fn, const struct host *h, struct vm *vm)
{
	pid_t child = stopped_at(n, false, fn, h, vm);
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
	pid_t child = stopped_at(n, true, fn, h, vm);

	if (child < 0)
		return false;
	meanwhile(h, vm);
	while (next_stop(child))
		;
	return true;
}

#endif
