// SPDX-License-Identifier: GPL-2.0-or-later
/* registrar.c - the daemon's dealings with registries; see registrar.h. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "frame.h"
#include "host.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "record.h"
#include "registrar.h"
#include "registry.h"

#define IDLE_MS	 5000
#define LIFE_MS	 30000
#define SERVE_MS 2000 /* for SQLite, while the client's own limit is GW_REGISTRY_MS */
#define HUNG_S	 30
#define END_NS	 (2 * GW_S) /* for all of them, when the daemon ends */

/* How a report ended; the exit status of its process. */
enum outcome {
	TOLD,
	CONFLICT, /* a VM that is here is another host's, says the registry */
	UNTOLD,	  /* the registry cannot be used */
};

struct gw_registrar {
	const struct gw_paths *paths;
	const char *host;
	char *address;
	pid_t reporter; /* 0: none */
	int64_t started, due;
	struct timespec seen; /* the VMs' folder when it was last told of */
	enum outcome last;
	pid_t clients[GW_REGISTRY_CLIENTS]; /* 0: none */
};

/* In a new process: nothing of the daemon's but @keep (-1: nothing), and no life without it. */
static void leave_daemon(const char *who, int keep, pid_t daemon)
{
	sigset_t none;

	gw_log_rename(who);
	prctl(PR_SET_NAME, "registry");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != daemon)
		_exit(UNTOLD);
	gw_close_all_but(&keep, 1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Ctrl-C on a daemon in the foreground is the daemon's business. */
	setsid();
}

static int tell_host(const struct gw_registrar *r, struct gw_registry *registry)
{
	struct gw_host_record host;

	gw_host_look(r->paths, r->host, r->address, &host);
	return gw_registry_put_host(registry, &host);
}

static bool has(const json_t *names, const char *name)
{
	const json_t *one;
	size_t i;

	json_array_foreach(names, i, one) {
		if (!strcmp(json_string_value(one), name))
			return true;
	}
	return false;
}

/* Whether VM @name is here for good: one that arrives is its source's until it has. */
static bool is_here(const struct gw_paths *p, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *record = gw_path("%s/vm.json", dir);
	struct gw_journal j;

	return !access(record, F_OK) && (gw_journal_load(p, name, &j) || j.role == GW_ROLE_SOURCE);
}

/* What is here and not claimed. Return: -EEXIST if another host has one of them. */
static int claim_missing(const struct gw_registrar *r, struct gw_registry *registry,
			 const json_t *held)
{
	gw_autofree char *path = gw_path("%s/vm", r->paths->run);
	DIR *dir = opendir(path);
	struct dirent *e;
	int rc = 0, conflict = 0;

	while (dir && !rc && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || has(held, e->d_name) || !is_here(r->paths, e->d_name))
			continue;
		rc = gw_registry_claim(registry, e->d_name, r->host);
		if (rc != -EEXIST)
			continue;
		conflict = rc;
		rc = 0;
		if (r->last != CONFLICT)
			gw_warn("VM '%s' is on this host, but: %s", e->d_name, gw_error());
	}
	if (dir)
		closedir(dir);
	return rc ? rc : conflict;
}

static int release_gone(const struct gw_registrar *r, struct gw_registry *registry,
			const json_t *held)
{
	const json_t *one;
	int rc = 0;
	size_t i;

	json_array_foreach(held, i, one) {
		const char *name = json_string_value(one);
		gw_autofree char *dir = NULL;

		if (!gw_name_ok(name))
			continue;
		dir = gw_vm_dir(r->paths, name);
		if (access(dir, F_OK) && errno == ENOENT)
			rc = gw_registry_release(registry, name, r->host);
		if (rc)
			break;
	}
	return rc;
}

static enum outcome report(const struct gw_registrar *r, bool calm)
{
	struct gw_registry *registry = gw_registry_open(r->paths->registry, 0);
	json_t *held = NULL;
	int rc = registry ? tell_host(r, registry) : -EINVAL;

	if (!rc)
		rc = gw_registry_held(registry, r->host, &held);
	if (!rc && calm)
		rc = release_gone(r, registry, held);
	if (!rc)
		rc = claim_missing(r, registry, held);
	if (rc && rc != -EEXIST && r->last != UNTOLD)
		gw_warn("%s. Nothing but predictions depends on it", gw_error());
	json_decref(held);
	gw_registry_close(registry);
	return !rc ? TOLD : rc == -EEXIST ? CONFLICT : UNTOLD;
}

static void start_report(struct gw_registrar *r, bool calm)
{
	const pid_t daemon = getpid();

	r->reporter = fork();
	if (!r->reporter) {
		leave_daemon("godwitd[registry]", -1, daemon);
		_exit(report(r, calm));
	}
	if (r->reporter < 0) {
		gw_warn("no process can be made to report to the registry: %s", strerror(errno));
		r->reporter = 0;
	}
	r->started = gw_now();
}

static void reap_report(struct gw_registrar *r)
{
	enum outcome outcome;
	int status;

	if (gw_now() - r->started > HUNG_S * GW_S)
		kill(r->reporter, SIGKILL); /* asleep in a file system that does not answer */
	if (waitpid(r->reporter, &status, WNOHANG) != r->reporter)
		return;
	r->reporter = 0;
	outcome = WIFEXITED(status) && WEXITSTATUS(status) <= UNTOLD ? WEXITSTATUS(status) : UNTOLD;
	if (r->last == UNTOLD && outcome != UNTOLD)
		gw_info("the registry answers again");
	r->last = outcome;
}

static void reap_clients(struct gw_registrar *r)
{
	for (size_t i = 0; i < GW_REGISTRY_CLIENTS; i++)
		if (r->clients[i] && waitpid(r->clients[i], NULL, WNOHANG) == r->clients[i])
			r->clients[i] = 0;
}

/* Whether VMs have come or gone, and that is GW_CALM_S ago. */
static bool is_calm(const struct gw_registrar *r, struct timespec *changed)
{
	gw_autofree char *path = gw_path("%s/vm", r->paths->run);
	struct timespec now;
	struct stat st;

	if (stat(path, &st))
		return false;
	*changed = st.st_mtim;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec - changed->tv_sec > GW_CALM_S;
}

void gw_registrar_tick(struct gw_registrar *r)
{
	struct timespec changed = { 0, 0 };
	bool calm, news;

	reap_clients(r);
	if (r->reporter)
		reap_report(r);
	if (r->reporter || !r->paths->registry)
		return;
	calm = is_calm(r, &changed);
	news = calm && (changed.tv_sec != r->seen.tv_sec || changed.tv_nsec != r->seen.tv_nsec);
	if (gw_now() < r->due && !news)
		return;
	if (calm)
		r->seen = changed;
	r->due = gw_now() + GW_REPORT_S * GW_S;
	start_report(r, calm);
}

int gw_registrar_serve(struct gw_registrar *r, int conn, uint16_t version)
{
	const pid_t daemon = getpid();
	struct gw_registry *registry;
	struct gw_transport *t;
	size_t i = 0;

	if (!r->paths->registry || strncmp(r->paths->registry, "sqlite:", 7) != 0)
		return gw_fail(-ENOTSUP,
			       "host '%s' keeps no registry itself; use the one that it "
			       "uses",
			       r->host);
	reap_clients(r);
	while (i < GW_REGISTRY_CLIENTS && r->clients[i])
		i++;
	if (i == GW_REGISTRY_CLIENTS)
		return gw_fail(-EBUSY, "the registry of host '%s' has too many clients; try again",
			       r->host);
	r->clients[i] = fork();
	if (r->clients[i] < 0) {
		r->clients[i] = 0;
		return gw_fail(-errno, "no process for a client of the registry: %s",
			       strerror(errno));
	}
	if (r->clients[i]) {
		close(conn);
		return 0;
	}
	leave_daemon("godwitd[registry]", conn, daemon);
	/* The end for one that does not take its answer either. */
	alarm(2 * LIFE_MS / 1000);
	t = gw_peer_accept(conn);
	registry = gw_registry_open(r->paths->registry, SERVE_MS);
	if (t && registry && !gw_frame_send_buf(t, GW_MSG_ACCEPT, version, NULL, 0))
		gw_registry_serve(registry, t, IDLE_MS, LIFE_MS);
	gw_transport_close(&t);
	gw_registry_close(registry);
	_exit(0);
}

/* "0.0.0.0:7373" is no address for others: there the host's name stands for it. */
static char *reachable(const char *host, const char *listen)
{
	static const char *const any[] = { ":", "0.0.0.0:", "[::]:", "*:" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(any); i++)
		if (!strncmp(listen, any[i], strlen(any[i])))
			return gw_path("%s:%s", host, listen + strlen(any[i]));
	return gw_path("%s", listen);
}

struct gw_registrar *gw_registrar_new(const struct gw_paths *paths, const char *host,
				      const char *address)
{
	struct gw_registrar *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->paths = paths;
	r->host = host;
	r->address = address ? reachable(host, address) : gw_path("%s", "");
	return r;
}

/* One that sleeps in a file system may not end: then init has it. */
static void end_process(pid_t pid, int64_t deadline)
{
	gw_autofd int fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return;
	kill(pid, SIGKILL);
	poll(&pfd, 1, gw_poll_ms(deadline));
	waitpid(pid, NULL, WNOHANG);
}

void gw_registrar_free(struct gw_registrar *r)
{
	const int64_t deadline = gw_now() + END_NS;

	if (!r)
		return;
	end_process(r->reporter, deadline);
	for (size_t i = 0; i < GW_REGISTRY_CLIENTS; i++)
		end_process(r->clients[i], deadline);
	free(r->address);
	free(r);
}
