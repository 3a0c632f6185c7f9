/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inject.h - system calls made inside another process; the only ptrace here.
 *
 * F1: a QEMU thread that sits in a system call is stopped for about 0.1 ms,
 * makes ours, gets all its registers back (orig_rax too, so that its own call
 * restarts as if nothing had happened) and goes on.
 *
 * Rules: x86-64 only. The thread's signals are blocked meanwhile. One
 * injection per process at a time; the caller must be the thread that began it.
 */
#ifndef GW_INJECT_H
#define GW_INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct gw_inject {
	pid_t pid, tid;
	struct user_regs_struct saved;
	unsigned long long sigmask;
	bool stopped; /* somebody sent SIGSTOP meanwhile */
};

/**
 * gw_inject_begin() - stop one thread of @pid that sits in a system call.
 *
 * Return: 0; -EPERM if we may not trace it; -EAGAIN if no thread sat in a
 * restartable call. End with gw_inject_end().
 */
int gw_inject_begin(struct gw_inject *inj, pid_t pid);

/** gw_inject_call() - make one system call there. Return: its result (-errno on failure). */
long gw_inject_call(struct gw_inject *inj, long nr, unsigned long a0, unsigned long a1,
		    unsigned long a2);

/** gw_inject_end() - restore the thread and let it go. */
void gw_inject_end(struct gw_inject *inj);

/**
 * gw_inject_userfaultfd() - a userfaultfd over the memory of process @pid.
 *
 * It is created there, brought here with pidfd_getfd and closed there, so it
 * lives exactly as long as our descriptor: when we die, the kernel unregisters
 * everything and the guest runs on.
 *
 * Return: a descriptor here (close it), or -errno with a message.
 */
int gw_inject_userfaultfd(pid_t pid);

/**
 * gw_inject_staying() - the same, but it stays open in the process too.
 * @number: set to its number there
 *
 * So what it is told to track is tracked until somebody asks, whether or not
 * anything of Godwit lives (gw_inject_found()).
 */
int gw_inject_staying(pid_t pid, int *number);

/**
 * gw_inject_found() - the userfaultfd that stayed in @pid as its descriptor @number.
 *
 * Return: a descriptor here (close it), or -ENOENT if there is none.
 */
int gw_inject_found(pid_t pid, int number);

/** gw_inject_close() - close @n descriptors of @pid. 0 or -errno with a message. */
int gw_inject_close(pid_t pid, const int *numbers, unsigned int n);

/**
 * gw_inject_unmap() - let @pid see nothing of the shared file that it has mapped at
 * [@at, @at + @len), until it touches it again; the file keeps what it holds.
 *
 * Memory that QEMU locks (-overcommit mem-lock=on) or allocates beforehand (-mem-prealloc) is
 * in its page table before the guest runs, so that nobody would ever fault there.
 *
 * Return: 0, or -errno with a message.
 */
int gw_inject_unmap(pid_t pid, uint64_t at, uint64_t len);

#endif
