// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe.c - the table of probes, and F1: system calls made in another process.
 *
 * The rest: probe_track.c (F2, F3, F4, F8), probe_paging.c (F9), probe_minor.c (F19). F5 to F7 need
 * more than a process: two QEMUs, a slow file system. They are in tests/probe.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "io.h"
#include "probe.h"
#include "probe_child.h"

const struct gw_probe gw_probes[] = {
	{ "F1", "injection", "a system call can be made inside a running QEMU",
	  "everything: a QEMU is tracked and paged from outside through it",
	  "run as root, with CAP_SYS_PTRACE, kernel.yama.ptrace_scope below 3, and a kernel with "
	  "CONFIG_USERFAULTFD (Linux 5.7 or newer)",
	  NULL, gw_probe_inject },
	{ "F2", "written", "written pages are told apart, by asynchronous write-protection",
	  "migrating without stopping the VM for every look at its memory",
	  "run Linux 6.7 or newer", "F1", gw_probe_written },
	{ "F3", "accessed", "accessed pages are told apart, in the same table",
	  "choosing what a split VM keeps at its main host, and predicting its working set",
	  "run Linux 6.7 or newer", "F2", gw_probe_accessed },
	{ "F4", "soft-dirty", "written pages are told apart, by soft-dirty bits",
	  "migrating on kernels without F2; not used where F2 holds",
	  "run a kernel with CONFIG_MEM_SOFT_DIRTY, without swap, or better Linux 6.7 or newer",
	  NULL, gw_probe_softdirty },
	{ "F8", "holes", "pages that the guest gave back are found by their holes",
	  "VMs with a balloon, free page reporting or virtio-mem", "run Linux 6.7 or newer", "F2",
	  gw_probe_holes },
	{ "F9", "paging", "memory can be taken from a running VM and given back on demand",
	  "split migration", "run Linux 5.19 or newer", "F1", gw_probe_paging },
	{ "F19", "minor", "old memory can be paged, and goes on being tracked afterwards",
	  "post-copy (godwit migrate --postcopy) to this host", "run Linux 6.7 or newer", "F2",
	  gw_probe_minor },
};
const size_t gw_nr_probes = GW_ARRAY_SIZE(gw_probes);

const struct gw_probe *gw_probe_find(const char *fact)
{
	for (size_t i = 0; i < gw_nr_probes; i++)
		if (!strcmp(gw_probes[i].fact, fact))
			return &gw_probes[i];
	return NULL;
}

const char *gw_probe_verdict(int rc)
{
	switch (rc) {
	case 0:
		return "ok";
	case -ENOTSUP:
		return "missing";
	case -EPERM:
		return "forbidden";
	case -EPROTO:
		return "wrong";
	default:
		return "untried";
	}
}

/*
 * Wait until the child sits in system call @nr, or in the continuation of an
 * interrupted one.
 */
static int until_in(const struct gw_probe_child *c, long nr, bool again)
{
	gw_autofree char *path = gw_path("/proc/%d/syscall", (int)c->pid);
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;

	while (gw_now() < deadline) {
		gw_autofree char *text = gw_read_file(path, 4096, NULL);
		char *end;
		long now;

		if (!text)
			return -ENOTSUP; /* CONFIG_HAVE_ARCH_TRACEHOOK, or gone */
		now = strtol(text, &end, 10);
		if (end != text && (now == nr || (again && now == SYS_restart_syscall)))
			return 0;
		sched_yield();
	}
	return gw_fail(-EPROTO,
		       "a system call that was interrupted by an injection did not "
		       "restart (number %ld)",
		       nr);
}

/* What ends system call @nr in the child, and what it then returns there. */
static long release(struct gw_probe_child *c, long nr)
{
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;

	switch (nr) {
	case SYS_futex:
		/* It may still be on its way back into the call. */
		while (syscall(SYS_futex, &c->control->futex, FUTEX_WAKE, 1, NULL, NULL, 0) == 0 &&
		       gw_now() < deadline)
			sched_yield();
		return 0;
	default:
		return send(c->sock, "", 1, MSG_NOSIGNAL);
	}
}

/* Two injections into a child that sits in system call @nr: the call goes on and ends as ever. */
static int inject_into(struct gw_probe_child *c, long nr)
{
	long answer = 0, expected, got;
	struct gw_inject inj;
	int rc = gw_probe_child_tell(c, GW_PROBE_WAIT, 0, 0, nr);

	for (int i = 0; !rc && i < 2; i++) {
		rc = until_in(c, nr, i > 0);
		if (!rc)
			rc = gw_inject_begin(&inj, c->pid);
		if (rc)
			return rc;
		got = gw_inject_call(&inj, SYS_getppid, 0, 0, 0);
		gw_inject_end(&inj);
		if (got != getpid())
			return gw_fail(-EPROTO, "an injected getppid() returned %ld instead of %d",
				       got, (int)getpid());
	}
	if (!rc)
		rc = until_in(c, nr, true);
	if (rc)
		return rc;
	expected = release(c, nr);
	rc = gw_probe_child_hear(c, &answer);
	if (!rc && answer != expected)
		rc = gw_fail(-EPROTO,
			     "system call %ld returned %ld instead of %ld after an "
			     "injection",
			     nr, answer, expected);
	return rc;
}

/* A SIGSTOP in the middle of an injection neither spoils it nor is lost. */
static int inject_while_stopping(struct gw_probe_child *c)
{
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;
	struct gw_inject inj;
	int status, rc = gw_inject_begin(&inj, c->pid);
	long got;

	if (rc)
		return rc;
	kill(c->pid, SIGSTOP);
	got = gw_inject_call(&inj, SYS_getppid, 0, 0, 0);
	gw_inject_end(&inj);
	if (got != getpid())
		return gw_fail(-EPROTO,
			       "an injected getppid() returned %ld instead of %d when "
			       "the process was stopped",
			       got, (int)getpid());
	while (waitpid(c->pid, &status, WUNTRACED | WNOHANG) == 0) {
		if (gw_now() >= deadline)
			return gw_fail(-EPROTO, "an injection swallowed a SIGSTOP");
		sched_yield();
	}
	kill(c->pid, SIGCONT);
	return gw_probe_child_do(c, GW_PROBE_READ, 0, 1);
}

static int count_fds(pid_t pid)
{
	gw_autofree char *path = gw_path("/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* A userfaultfd from inside the child works here, on the child's memory, and is not left there. */
static int bring_userfaultfd(struct gw_probe_child *c)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { c->hva, GW_PROBE_BYTES },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	int before = count_fds(c->pid);
	gw_autofd int uffd = gw_inject_userfaultfd(c->pid);

	if (uffd < 0)
		return uffd == -ENOSYS ? gw_fail(-ENOTSUP, "this kernel has no userfaultfd") : uffd;
	if (ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return gw_fail(-ENOTSUP,
			       "this kernel's userfaultfd does not take another "
			       "process's shared memory: %s",
			       strerror(errno));
	if (count_fds(c->pid) != before)
		return gw_fail(-EPROTO, "an injection left a descriptor behind");
	return 0;
}

int gw_probe_inject(int ram_fd)
{
	/* Where QEMU's threads sit; inject.c chooses among these. */
	static const long calls[] = { SYS_read, SYS_ppoll, SYS_poll, SYS_futex };
	struct gw_probe_child c;
	int rc = gw_probe_child_start(&c, ram_fd);

	for (size_t i = 0; !rc && i < GW_ARRAY_SIZE(calls); i++)
		rc = inject_into(&c, calls[i]);
	if (!rc)
		rc = inject_while_stopping(&c);
	if (!rc)
		rc = bring_userfaultfd(&c);
	gw_probe_child_stop(&c);
	return rc;
}
