// SPDX-License-Identifier: GPL-2.0-or-later
/* test_inject.c - system calls inside a process that must not notice (F1). */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "inject.h"

#define TIMES 100

/* Shared with the child. */
struct shared {
	_Atomic uint32_t futex;
	_Atomic uint32_t signals; /* SIGUSR1 that its handler has seen */
	_Atomic uint32_t ended;	  /* its call returned */
	_Atomic uint32_t spinning;
	long result;
	int err;
};

struct child {
	pid_t pid;
	int pipes[2]; /* it reads the first */
	struct shared *shared;
};

static struct shared *handlers;

static void on_signal(int sig)
{
	(void)sig;
	handlers->signals++;
}

enum wait_in {
	IN_FUTEX,
	IN_FUTEX_TIMEOUT,
	IN_POLL,
	IN_POLL_TIMEOUT,
	IN_PPOLL,
	IN_READ,
	IN_NOTHING,
};

static long sit(struct child *c, enum wait_in where)
{
	struct timespec hour = { .tv_sec = 3600 };
	struct pollfd pfd = { .fd = c->pipes[0], .events = POLLIN };
	char byte;

	switch (where) {
	case IN_FUTEX:
		return syscall(SYS_futex, &c->shared->futex, FUTEX_WAIT, 0, NULL, NULL, 0);
	case IN_FUTEX_TIMEOUT:
		return syscall(SYS_futex, &c->shared->futex, FUTEX_WAIT, 0, &hour, NULL, 0);
	case IN_POLL:
		return poll(&pfd, 1, -1);
	case IN_POLL_TIMEOUT:
		return poll(&pfd, 1, 3600 * 1000);
	case IN_PPOLL:
		return syscall(SYS_ppoll, &pfd, 1, &hour, NULL, 0);
	case IN_READ:
		return read(c->pipes[0], &byte, 1);
	default:
		c->shared->spinning = 1;
		while (!c->shared->futex)
			;
		return 0;
	}
}

static void start(struct child *c, enum wait_in where)
{
	pid_t parent = getpid();

	c->shared = mmap(NULL, sizeof(*c->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(c->shared, MAP_FAILED);
	assert_int_equal(pipe2(c->pipes, O_CLOEXEC), 0);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

		handlers = c->shared;
		sigaction(SIGUSR1, &sa, NULL);
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
			_exit(1);
		c->shared->result = sit(c, where);
		c->shared->err = errno;
		c->shared->ended = 1;
		for (;;)
			pause();
	}
}

static void stop(struct child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	close(c->pipes[0]);
	close(c->pipes[1]);
	munmap(c->shared, sizeof(*c->shared));
}

/* Whatever it sits in, wake it; its call must return what that call returns when woken. */
static void wake(struct child *c, enum wait_in where)
{
	if (where == IN_FUTEX || where == IN_FUTEX_TIMEOUT) {
		while (syscall(SYS_futex, &c->shared->futex, FUTEX_WAKE, 1, NULL, NULL, 0) == 0 &&
		       !c->shared->ended)
			sched_yield();
	} else {
		assert_int_equal(write(c->pipes[1], "x", 1), 1);
	}
}

static bool comes_true(_Atomic uint32_t *what)
{
	for (int64_t deadline = gw_now() + 120 * GW_S; gw_now() < deadline; sched_yield())
		if (*what)
			return true;
	return false;
}

static unsigned int descriptors_of(pid_t pid)
{
	gw_autofree char *path = gw_path("/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* A hundred injections into one call, which then ends as if there had been none. */
static void call_goes_on(enum wait_in where, long result)
{
	unsigned int theirs, ours;
	struct child c;

	start(&c, where);
	theirs = descriptors_of(c.pid);
	ours = descriptors_of(getpid());
	for (int i = 0; i < TIMES; i++) {
		struct uffdio_api api = { .api = UFFD_API };
		int fd = gw_inject_userfaultfd(c.pid);

		if (fd < 0)
			fail_msg("injection %d: %s", i, gw_error());
		assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
		assert_int_not_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
		close(fd);
	}
	assert_int_equal(descriptors_of(c.pid), theirs);
	assert_int_equal(descriptors_of(getpid()), ours);
	assert_int_equal(c.shared->ended, 0);
	wake(&c, where);
	assert_true(comes_true(&c.shared->ended));
	assert_int_equal(c.shared->result, result);
	assert_int_equal(c.shared->signals, 0);
	stop(&c);
}

static void in_futex(void **state)
{
	(void)state;
	call_goes_on(IN_FUTEX, 0);
	call_goes_on(IN_FUTEX_TIMEOUT, 0);
}

static void in_poll(void **state)
{
	(void)state;
	call_goes_on(IN_POLL, 1);
	call_goes_on(IN_POLL_TIMEOUT, 1);
	call_goes_on(IN_PPOLL, 1);
}

static void in_read(void **state)
{
	(void)state;
	call_goes_on(IN_READ, 1);
}

/* One that stays is the process' own too, and can be fetched again, but nothing else can. */
static void one_that_stays(void **state)
{
	struct uffdio_api api = { .api = UFFD_API };
	unsigned int theirs;
	int number = -1, fd;
	struct child c;

	(void)state;
	start(&c, IN_FUTEX);
	theirs = descriptors_of(c.pid);
	fd = gw_inject_staying(c.pid, &number);
	assert_true(fd >= 0 && number >= 0);
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	close(fd);
	assert_int_equal(descriptors_of(c.pid), theirs + 1);
	fd = gw_inject_found(c.pid, number);
	assert_true(fd >= 0);
	/* It is the same: the API has been agreed on already. */
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), -1);
	close(fd);
	assert_int_equal(descriptors_of(c.pid), theirs + 1);
	assert_int_equal(gw_inject_found(c.pid, number + 1), -ENOENT);
	assert_int_equal(gw_inject_found(c.pid, c.pipes[0]), -ENOENT);
	assert_int_equal(c.shared->ended, 0);
	stop(&c);
	assert_int_equal(gw_inject_found(c.pid, number), -ENOENT);
}

static void results_come_back(void **state)
{
	struct gw_inject inj;
	struct child c;

	(void)state;
	start(&c, IN_READ);
	assert_int_equal(gw_inject_begin(&inj, c.pid), 0);
	assert_int_equal(gw_inject_call(&inj, SYS_getpid, 0, 0, 0), c.pid);
	assert_int_equal(gw_inject_call(&inj, SYS_getppid, 0, 0, 0), getpid());
	assert_int_equal(gw_inject_call(&inj, SYS_close, 9999, 0, 0), -EBADF);
	assert_int_equal(gw_inject_call(&inj, SYS_dup2, (unsigned long)c.pipes[0], 99, 0), 99);
	assert_int_equal(gw_inject_call(&inj, SYS_close, 99, 0, 0), 0);
	gw_inject_end(&inj);
	wake(&c, IN_READ);
	assert_true(comes_true(&c.shared->ended));
	assert_int_equal(c.shared->result, 1);
	stop(&c);
}

/* Blocked meanwhile, delivered afterwards, each once. */
static void signals_wait(void **state)
{
	struct gw_inject inj;
	struct child c;

	(void)state;
	start(&c, IN_READ);
	for (uint32_t i = 1; i <= TIMES; i++) {
		assert_int_equal(gw_inject_begin(&inj, c.pid), 0);
		assert_int_equal(kill(c.pid, SIGUSR1), 0);
		assert_int_equal(gw_inject_call(&inj, SYS_getpid, 0, 0, 0), c.pid);
		assert_int_equal(c.shared->signals, i - 1);
		gw_inject_end(&inj);
		for (int64_t deadline = gw_now() + 120 * GW_S;
		     c.shared->signals < i && gw_now() < deadline;)
			sched_yield();
		assert_int_equal(c.shared->signals, i);
	}
	assert_int_equal(c.shared->ended, 0);
	wake(&c, IN_READ);
	assert_true(comes_true(&c.shared->ended));
	assert_int_equal(c.shared->result, 1);
	stop(&c);
}

/* SIGSTOP cannot be blocked: it takes effect when we are done. */
static void stop_signal_is_kept(void **state)
{
	struct gw_inject inj;
	struct child c;
	int status;

	(void)state;
	start(&c, IN_READ);
	assert_int_equal(gw_inject_begin(&inj, c.pid), 0);
	assert_int_equal(kill(c.pid, SIGSTOP), 0);
	assert_int_equal(gw_inject_call(&inj, SYS_getpid, 0, 0, 0), c.pid);
	gw_inject_end(&inj);
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(WSTOPSIG(status), SIGSTOP);
	wake(&c, IN_READ);
	assert_int_equal(c.shared->ended, 0);
	kill(c.pid, SIGCONT);
	assert_true(comes_true(&c.shared->ended));
	assert_int_equal(c.shared->result, 1);
	stop(&c);
}

/* Locked memory, too, is out of its page table; the file has what it had. */
static void nothing_is_mapped(void **state)
{
	const size_t len = 64UL * 4096;
	unsigned char *at, there[64];
	gw_autofree char *path = NULL;
	gw_autofd int mem = memfd_create("ram", MFD_CLOEXEC), pagemap = -1;
	uint64_t entries[64] = { 0 };
	struct child c;

	(void)state;
	assert_int_equal(ftruncate(mem, (off_t)len), 0);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, mem, 0);
	assert_ptr_not_equal(at, MAP_FAILED);
	memset(at, 7, len);
	start(&c, IN_READ);
	path = gw_path("/proc/%d/pagemap", (int)c.pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(pagemap >= 0);
	for (int pass = 0; pass < 2; pass++) {
		struct gw_inject inj;

		/* Its own lock, which would bring it all back. */
		assert_int_equal(gw_inject_begin(&inj, c.pid), 0);
		assert_int_equal(gw_inject_call(&inj, SYS_mlock, (unsigned long)at, len, 0), 0);
		gw_inject_end(&inj);
		assert_int_equal(
			pread(pagemap, entries, sizeof(entries), (off_t)((uintptr_t)at / 4096 * 8)),
			sizeof(entries));
		for (size_t i = 0; i < 64; i++)
			assert_true(entries[i] >> 63);
		assert_int_equal(gw_inject_unmap(c.pid, (uintptr_t)at, len), 0);
		assert_int_equal(
			pread(pagemap, entries, sizeof(entries), (off_t)((uintptr_t)at / 4096 * 8)),
			sizeof(entries));
		for (size_t i = 0; i < 64; i++)
			assert_false(entries[i] >> 63);
	}
	assert_int_equal(pread(mem, there, sizeof(there), (off_t)len - 64), 64);
	assert_int_equal(there[0], 7);
	assert_int_equal(gw_inject_unmap(c.pid, 1, len), -EINVAL);
	assert_message("madvise");
	stop(&c);
	munmap(at, len);
}

static void who_never_waits(void **state)
{
	struct child c;

	(void)state;
	start(&c, IN_NOTHING);
	assert_true(comes_true(&c.shared->spinning));
	assert_int_equal(gw_inject_userfaultfd(c.pid), -EAGAIN);
	assert_message("waits in a system call");
	c.shared->futex = 1; /* it was let go, and runs on */
	assert_true(comes_true(&c.shared->ended));
	stop(&c);
}

static void who_is_gone(void **state)
{
	struct child c;
	pid_t pid;

	(void)state;
	start(&c, IN_READ);
	pid = c.pid;
	stop(&c);
	assert_int_equal(gw_inject_userfaultfd(pid), -ESRCH);
	assert_message("is gone");
}

static void who_is_traced_already(void **state)
{
	struct child c;
	int pipes[2];
	pid_t tracer;
	char byte = 0;

	(void)state;
	start(&c, IN_READ);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	tracer = fork();
	if (tracer == 0) {
		byte = ptrace(PTRACE_SEIZE, c.pid, 0, 0) == 0;
		if (write(pipes[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(byte, 1);
	assert_int_equal(gw_inject_userfaultfd(c.pid), -EPERM);
	assert_message("no debugger is attached");
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	close(pipes[0]);
	close(pipes[1]);
	/* Now it may be. */
	close(gw_inject_userfaultfd(c.pid));
	wake(&c, IN_READ);
	assert_true(comes_true(&c.shared->ended));
	stop(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_futex),
		cmocka_unit_test(in_poll),
		cmocka_unit_test(in_read),
		cmocka_unit_test(one_that_stays),
		cmocka_unit_test(results_come_back),
		cmocka_unit_test(signals_wait),
		cmocka_unit_test(stop_signal_is_kept),
		cmocka_unit_test(nothing_is_mapped),
		cmocka_unit_test(who_never_waits),
		cmocka_unit_test(who_is_gone),
		cmocka_unit_test(who_is_traced_already),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
