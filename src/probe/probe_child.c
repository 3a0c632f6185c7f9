// SPDX-License-Identifier: GPL-2.0-or-later
/* probe_child.c - the process that the probes try things on; see probe_child.h. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "probe.h"
#include "probe_child.h"

/* Longer than any probe: a call that returns by itself was not restarted, but begun anew. */
#define LONG_WAIT_S 3600

static uint8_t fill_byte(size_t page)
{
	return (uint8_t)(1 + page % 251);
}

static bool as_filled(const uint8_t *bytes, size_t page)
{
	return bytes[0] == fill_byte(page) && !memcmp(bytes, bytes + 1, GW_PAGE_SIZE - 1);
}

/* In the child: sit in system call @nr, of those that inject.c knows. */
static long wait_in(int sock, struct gw_probe_control *control, long nr)
{
	struct pollfd pfd = { .fd = sock, .events = POLLIN };
	struct timespec ts = { .tv_sec = LONG_WAIT_S };
	sigset_t mask;
	char byte = 0;
	long rc;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	switch (nr) {
	case SYS_futex: /* with a time-out, so that it restarts by restart_syscall() */
		rc = syscall(SYS_futex, &control->futex, FUTEX_WAIT, 0, &ts, NULL, 0);
		break;
	case SYS_ppoll:
		rc = syscall(SYS_ppoll, &pfd, 1, &ts, &mask, sizeof(uint64_t));
		break;
	case SYS_poll:
		rc = syscall(SYS_poll, &pfd, 1, LONG_WAIT_S * 1000);
		break;
	default:
		rc = read(sock, &byte, 1);
		return rc < 0 ? -errno : rc;
	}
	if (rc < 0)
		return -errno;
	if ((nr == SYS_poll || nr == SYS_ppoll) && read(sock, &byte, 1) != 1)
		return -EIO;
	return rc;
}

/* Each turn all over the pages, in another order than the scans, and not in step with them. */
static void spin(uint8_t *ram, struct gw_probe_control *control, const struct gw_probe_command *cmd)
{
	for (uint64_t turn = 1; !control->stop; turn++) {
		for (size_t i = 0; i < cmd->count && !control->stop; i++) {
			size_t page = cmd->first + i * 389 % cmd->count;

			memcpy(ram + page * GW_PAGE_SIZE + turn % 500 * 8, &turn, sizeof(turn));
		}
		control->turns = turn;
	}
}

/* Only async-signal-safe calls from here on: the caller may have threads. */
static _Noreturn void obey(uint8_t *ram, int sock, struct gw_probe_control *control)
{
	struct gw_probe_command cmd;

	while (read(sock, &cmd, sizeof(cmd)) == sizeof(cmd)) {
		long answer = 0;

		for (size_t page = cmd.first; page < cmd.first + cmd.count; page++) {
			volatile uint8_t *bytes = ram + page * GW_PAGE_SIZE;

			if (cmd.chosen && !(control->pages[page / 64] >> page % 64 & 1))
				continue;
			if (cmd.op == GW_PROBE_FILL)
				memset(ram + page * GW_PAGE_SIZE, fill_byte(page), GW_PAGE_SIZE);
			else if (cmd.op == GW_PROBE_CHECK)
				answer += !as_filled(ram + page * GW_PAGE_SIZE, page);
			else if (cmd.op == GW_PROBE_WRITE)
				bytes[GW_PAGE_SIZE / 2]++;
			else if (cmd.op == GW_PROBE_READ)
				(void)bytes[GW_PAGE_SIZE / 2];
		}
		if (cmd.op == GW_PROBE_SPIN)
			spin(ram, control, &cmd);
		if (cmd.op == GW_PROBE_WAIT)
			answer = wait_in(sock, control, cmd.nr);
		if (write(sock, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

static _Noreturn void become_child(struct gw_probe_child *c, int sock, pid_t parent)
{
	sigset_t usr1;

	close(c->sock);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent ||
	    sigprocmask(SIG_SETMASK, &usr1, NULL))
		_exit(1);
	obey(c->ram, sock, c->control);
}

static void *map_shared(size_t len, int flags, int fd)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* The RAM file: the given one, or a memfd; empty and GW_PROBE_BYTES long. */
static int open_ram(struct gw_probe_child *c, int ram_fd)
{
	c->ram_fd = ram_fd < 0 ? memfd_create("godwit-probe", MFD_CLOEXEC) : dup(ram_fd);
	if (c->ram_fd < 0 || ftruncate(c->ram_fd, 0) || ftruncate(c->ram_fd, GW_PROBE_BYTES))
		return gw_fail(-errno, "RAM file for a probe: %s", strerror(errno));
	c->ram = map_shared(GW_PROBE_BYTES, MAP_SHARED, c->ram_fd);
	c->control = map_shared(GW_PAGE_SIZE, MAP_SHARED | MAP_ANONYMOUS, -1);
	if (!c->ram || !c->control)
		return gw_fail(-ENOMEM, "no memory for a probe");
	return 0;
}

int gw_probe_child_start(struct gw_probe_child *c, int ram_fd)
{
	pid_t parent = getpid();
	int socks[2] = { -1, -1 };
	int rc;

	*c = GW_PROBE_CHILD_NONE;
	rc = open_ram(c, ram_fd);
	if (!rc && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		rc = gw_fail(-errno, "socketpair: %s", strerror(errno));
	c->sock = socks[0];
	if (!rc) {
		c->pid = fork();
		if (c->pid == 0)
			become_child(c, socks[1], parent);
		if (c->pid < 0)
			rc = gw_fail(-errno, "fork: %s", strerror(errno));
	}
	if (socks[1] >= 0)
		close(socks[1]);
	c->hva = (uintptr_t)c->ram;
	if (rc)
		gw_probe_child_stop(c);
	return rc;
}

void gw_probe_child_stop(struct gw_probe_child *c)
{
	if (c->pid > 0) {
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (c->sock >= 0)
		close(c->sock);
	if (c->ram)
		munmap(c->ram, GW_PROBE_BYTES);
	if (c->control)
		munmap(c->control, GW_PAGE_SIZE);
	if (c->ram_fd >= 0)
		close(c->ram_fd);
	*c = GW_PROBE_CHILD_NONE;
}

static int tell(struct gw_probe_child *c, const struct gw_probe_command *cmd)
{
	if (send(c->sock, cmd, sizeof(*cmd), MSG_NOSIGNAL) != sizeof(*cmd))
		return gw_fail(-EIO, "the probe's child process is gone");
	return 0;
}

int gw_probe_child_tell(struct gw_probe_child *c, enum gw_probe_op op, size_t first, size_t count,
			long nr)
{
	struct gw_probe_command cmd = { .op = op, .first = first, .count = count, .nr = nr };

	return tell(c, &cmd);
}

int gw_probe_child_hear(struct gw_probe_child *c, long *answer)
{
	struct pollfd pfd = { .fd = c->sock, .events = POLLIN };
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;
	long ignored;
	int rc;

	do
		rc = poll(&pfd, 1, gw_poll_ms(deadline));
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return gw_fail(-EPROTO, "a process whose memory is tracked no longer runs on");
	if (recv(c->sock, answer ? answer : &ignored, sizeof(*answer), 0) != sizeof(*answer))
		return gw_fail(-EPROTO, "a process whose memory is tracked died of it");
	return 0;
}

int gw_probe_child_do(struct gw_probe_child *c, enum gw_probe_op op, size_t first, size_t count)
{
	int rc = gw_probe_child_tell(c, op, first, count, 0);

	return rc ? rc : gw_probe_child_hear(c, NULL);
}

int gw_probe_child_touch(struct gw_probe_child *c, enum gw_probe_op op,
			 const struct gw_bitmap *pages)
{
	struct gw_probe_command cmd = { .op = op, .count = GW_PROBE_PAGES, .chosen = true };
	int rc;

	memcpy(c->control->pages, pages->words, sizeof(c->control->pages));
	rc = tell(c, &cmd);
	return rc ? rc : gw_probe_child_hear(c, NULL);
}

int gw_probe_child_filled(struct gw_probe_child *c)
{
	long wrong = 0;
	int rc = gw_probe_child_hear(c, &wrong);

	if (!rc && wrong)
		rc = gw_fail(-EPROTO, "%ld pages have another content than was written", wrong);
	return rc;
}

int gw_probe_child_check(struct gw_probe_child *c, size_t first, size_t count)
{
	int rc = gw_probe_child_tell(c, GW_PROBE_CHECK, first, count, 0);

	return rc ? rc : gw_probe_child_filled(c);
}

void gw_probe_pick(struct gw_bitmap *pages, size_t first, size_t end, unsigned int one_of)
{
	for (size_t page = first; page < end; page++) {
		uint32_t mixed = (uint32_t)(page + one_of) * 2654435761U;

		if (page == first || page + 1 == end || (mixed >> 16) % one_of == 0)
			gw_bitmap_set(pages, page);
	}
}

int gw_probe_same(const struct gw_bitmap *found, const struct gw_bitmap *expected, const char *what)
{
	for (size_t page = 0; page < GW_PROBE_PAGES; page++) {
		bool is = gw_bitmap_test(found, page);

		if (is != gw_bitmap_test(expected, page))
			return gw_fail(-EPROTO, "%s: page %zu of %lu was %sreported", what, page,
				       GW_PROBE_PAGES, is ? "" : "not ");
	}
	return 0;
}
