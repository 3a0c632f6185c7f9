// SPDX-License-Identifier: GPL-2.0-or-later
/* inject.c - system calls inside QEMU; see inject.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "io.h"

#ifndef __x86_64__
#error "inject.c knows x86-64 only"
#endif

#define SYSCALL_INSN	0x050f
#define PATIENCE_NS	(3 * GW_S)
/* Linux 5.18; older headers do not know it. */
#define DONTNEED_LOCKED 24

/*
 * Calls that restart by themselves after an interruption, most patient first.
 * epoll_wait(), rt_sigtimedwait() and KVM_RUN return EINTR instead, so they are
 * left alone. A call with a time-out goes on as restart_syscall().
 */
static const long restartable[] = { SYS_futex, SYS_ppoll, SYS_poll, SYS_restart_syscall, SYS_read };

/* The system call that @tid sits in, or -1. */
static long current_syscall(pid_t pid, pid_t tid)
{
	gw_autofree char *path = gw_path("/proc/%d/task/%d/syscall", (int)pid, (int)tid);
	gw_autofree char *text = gw_read_file(path, 4096, NULL);
	char *end;
	long nr;

	if (!text)
		return -1;
	nr = strtol(text, &end, 10);
	return end == text ? -1 : nr;
}

/* Wait until @tid stops. 0, or -ESRCH if it ended instead. */
static int wait_for_stop(pid_t tid, int *status)
{
	pid_t got;

	do
		got = waitpid(tid, status, __WALL);
	while (got < 0 && errno == EINTR);
	return got == tid && WIFSTOPPED(*status) ? 0 : -ESRCH;
}

/* Stop @tid inside its system call. 0, or -EAGAIN if it was not in one. */
static int stop_thread(struct gw_inject *inj, pid_t tid)
{
	int status, sig;
	long insn;

	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD)) {
		if (errno == EPERM)
			return gw_fail(-EPERM,
				       "may not trace process %d: run as root, and check "
				       "that no debugger is attached and that "
				       "kernel.yama.ptrace_scope is below 3",
				       inj->pid);
		return -EAGAIN; /* the thread is gone */
	}
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) || wait_for_stop(tid, &status))
		return -EAGAIN;
	sig = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
	errno = 0;
	if (!sig && !ptrace(PTRACE_GETREGS, tid, 0, &inj->saved)) {
		insn = ptrace(PTRACE_PEEKTEXT, tid, inj->saved.rip - 2, 0);
		if (!errno && (insn & 0xffff) == SYSCALL_INSN &&
		    (long long)inj->saved.orig_rax >= 0 &&
		    !ptrace(PTRACE_GETSIGMASK, tid, sizeof(inj->sigmask), &inj->sigmask)) {
			unsigned long long all = ~0ULL;

			inj->tid = tid;
			ptrace(PTRACE_SETSIGMASK, tid, sizeof(all), &all);
			return 0;
		}
	}
	ptrace(PTRACE_DETACH, tid, 0, sig); /* a signal on its way is passed on */
	return -EAGAIN;
}

int gw_inject_begin(struct gw_inject *inj, pid_t pid)
{
	gw_autofree char *path = gw_path("/proc/%d/task", (int)pid);

	memset(inj, 0, sizeof(*inj));
	inj->pid = pid;
	/*
	 * A thread may leave its call between our look and our stop, and on a busy
	 * host all may be on their way somewhere: look again for a while.
	 */
	for (int64_t deadline = gw_now() + PATIENCE_NS; gw_now() < deadline;) {
		for (size_t i = 0; i < GW_ARRAY_SIZE(restartable); i++) {
			DIR *dir = opendir(path);
			struct dirent *e;
			int rc = -EAGAIN;

			if (!dir)
				return gw_fail(-ESRCH, "process %d is gone", pid);
			while (rc == -EAGAIN && (e = readdir(dir))) {
				pid_t tid = (pid_t)atoi(e->d_name);

				if (tid && current_syscall(pid, tid) == restartable[i])
					rc = stop_thread(inj, tid);
			}
			closedir(dir);
			if (rc != -EAGAIN)
				return rc;
		}
		poll(NULL, 0, 1); /* nothing announces a thread that begins to wait */
	}
	return gw_fail(-EAGAIN,
		       "no thread of process %d waits in a system call just now; try again", pid);
}

/*
 * Let the thread run to its next system call stop. SIGSTOP cannot be blocked;
 * one that comes meanwhile is sent again when we are done.
 */
static int run_to_stop(struct gw_inject *inj)
{
	int status, rc;

	do {
		if (ptrace(PTRACE_SYSCALL, inj->tid, 0, 0))
			return -errno;
		rc = wait_for_stop(inj->tid, &status);
		if (!rc && status >> 8 == SIGSTOP)
			inj->stopped = true;
	} while (!rc && WSTOPSIG(status) != (SIGTRAP | 0x80));
	return rc;
}

long gw_inject_call(struct gw_inject *inj, long nr, unsigned long a0, unsigned long a1,
		    unsigned long a2)
{
	struct user_regs_struct regs = inj->saved;
	int rc;

	regs.rip -= 2;
	regs.rax = (unsigned long)nr;
	regs.orig_rax = (unsigned long long)-1; /* nothing to restart before ours */
	regs.rdi = a0;
	regs.rsi = a1;
	regs.rdx = a2;
	if (ptrace(PTRACE_SETREGS, inj->tid, 0, &regs))
		return -errno;
	rc = run_to_stop(inj); /* entry */
	if (!rc)
		rc = run_to_stop(inj); /* exit */
	if (!rc && ptrace(PTRACE_GETREGS, inj->tid, 0, &regs))
		rc = -errno;
	return rc ? rc : (long)regs.rax;
}

void gw_inject_end(struct gw_inject *inj)
{
	ptrace(PTRACE_SETREGS, inj->tid, 0, &inj->saved);
	ptrace(PTRACE_SETSIGMASK, inj->tid, sizeof(inj->sigmask), &inj->sigmask);
	ptrace(PTRACE_DETACH, inj->tid, 0, 0);
	if (inj->stopped)
		kill(inj->pid, SIGSTOP);
}

/* Descriptor @number of process @pid, here. -errno without a message. */
static int fetch(pid_t pid, int number)
{
	gw_autofd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);

	return fd < 0 ? -errno : fd;
}

static int inject_userfaultfd(pid_t pid, int *stays)
{
	struct gw_inject inj;
	long remote;
	int fd = -1, rc = gw_inject_begin(&inj, pid);

	if (rc)
		return rc;
	remote = gw_inject_call(&inj, SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK, 0, 0);
	if (remote >= 0)
		fd = fetch(pid, (int)remote);
	if (remote >= 0 && (!stays || fd < 0))
		gw_inject_call(&inj, SYS_close, (unsigned long)remote, 0, 0);
	gw_inject_end(&inj);
	if (remote == -EPERM)
		return gw_fail(-EPERM, "QEMU may not create a userfaultfd: run it as root or set "
				       "vm.unprivileged_userfaultfd=1");
	if (remote < 0)
		return gw_fail((int)remote, "userfaultfd in process %d: %s", pid,
			       strerror((int)-remote));
	if (fd < 0)
		return gw_fail(fd, "userfaultfd from process %d: %s", pid, strerror(-fd));
	if (stays)
		*stays = (int)remote;
	return fd;
}

int gw_inject_userfaultfd(pid_t pid)
{
	return inject_userfaultfd(pid, NULL);
}

int gw_inject_staying(pid_t pid, int *number)
{
	return inject_userfaultfd(pid, number);
}

int gw_inject_found(pid_t pid, int number)
{
	gw_autofree char *path = gw_path("/proc/%d/fd/%d", (int)pid, number);
	char link[64] = "";
	int fd;

	if (readlink(path, link, sizeof(link) - 1) < 0 ||
	    strcmp(link, "anon_inode:[userfaultfd]") != 0)
		return gw_fail(-ENOENT, "process %d has no userfaultfd as %d", (int)pid, number);
	fd = fetch(pid, number);
	return fd < 0 ? gw_fail(-ENOENT, "userfaultfd from process %d: %s", pid, strerror(-fd))
		      : fd;
}

int gw_inject_close(pid_t pid, const int *numbers, unsigned int n)
{
	struct gw_inject inj;
	long remote = 0;
	int rc = gw_inject_begin(&inj, pid);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < n; i++) {
		const long one = gw_inject_call(&inj, SYS_close, (unsigned long)numbers[i], 0, 0);

		remote = remote ? remote : one;
	}
	gw_inject_end(&inj);
	return remote ? gw_fail((int)remote, "close in process %d: %s", (int)pid,
				strerror((int)-remote))
		      : 0;
}

int gw_inject_unmap(pid_t pid, uint64_t at, uint64_t len)
{
	struct gw_inject inj;
	long remote;
	int rc = gw_inject_begin(&inj, pid);

	if (rc)
		return rc;
	remote = gw_inject_call(&inj, SYS_madvise, at, len, DONTNEED_LOCKED);
	gw_inject_end(&inj);
	return remote ? gw_fail((int)remote, "madvise in process %d: %s", (int)pid,
				strerror((int)-remote))
		      : 0;
}
