// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * main.c - godwitd: one per host.
 *
 * It owns the control socket and the peer listener, and forks a worker for
 * everything that can block (worker.h). Guests, and workers past COMMIT, do
 * not depend on it (invariant 12); started again, it finds its VMs by their
 * records and puts right what an earlier one left half done.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <ini.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "address.h"
#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "control.h"
#include "error.h"
#include "io.h"
#include "jobs.h"
#include "log.h"
#include "loop.h"
#include "own.h"
#include "paths.h"
#include "peer.h"
#include "qemu_log.h"
#include "registrar.h"
#include "registry.h"
#include "swap.h"

#define TICK_MS 500

/* Characters for NAME/FILE of a socket in {dir}: an ordinary name, and one like vnc.sock. */
#define SOCKET_ROOM 40
#define LOW_S	    5 /* between looks at what images can give back */

struct options {
	char *root, *listen, *name, *ram_dir, *swap_dir, *disk_map_dir, *registry;
	uint64_t memory_limit, server_limit;
	uint64_t swap_limit;  /* UINT64_MAX: nobody has said */
	uint64_t image_quota; /* UINT64_MAX: as gw_paths_ram() has it */
	uint64_t image_disk;
	unsigned int overcommit;
	bool untracked;
	bool verbose;
	bool config_failed; /* the parser goes on after an error; the first is the message */
};

struct daemon {
	struct gw_loop *loop;
	struct gw_jobs *jobs;
	struct gw_peers *peers;
	struct gw_registrar *registrar;
	const struct gw_paths *paths;
	int64_t looked; /* at images, because memory is low */
	int signals;
	struct gw_watch *watch_signals;
};

static void usage(FILE *out)
{
	fprintf(out,
		"godwitd - serve one host's VMs and their live migrations\n"
		"\n"
		"usage: godwitd [--root DIR] [--listen IP:PORT] [options]\n"
		"\n"
		"  --root DIR           keep everything of this host in DIR/run (default: in /run/godwit)\n"
		"  --listen IP:PORT     where other hosts reach this one (:PORT: on all addresses);\n"
		"                       without it VMs can only leave. Anyone who reaches it can\n"
		"                       start a QEMU here: use a trusted network\n"
		"  --name HOST          this host's name in messages and registry (default: the\n"
		"                       host name)\n"
		"  --memory-limit SIZE  memory that VMs may use here (default: all)\n"
		"  --memory-server-limit SIZE  memory that VMs which run on other hosts may have\n"
		"                       here (default: none): godwitd(8), MEMORY\n"
		"  --swap-dir DIR       folder on a disk for those that find no room in it\n"
		"  --swap-limit SIZE    what they may have there\n"
		"  --disk-map-dir DIR   folder of replicas of VMs' disks, which hosts that send VMs here\n"
		"                       may have read instead of pages (default: none); godwitd(8)\n"
		"  --memory-overcommit PERCENT  promise VMs more than there is: godwitd(8), MEMORY\n"
		"  --ram-dir DIR        put RAM files in DIR, which should be a tmpfs (default: two\n"
		"                       tmpfs of our own, with and without huge pages)\n"
		"  --image-quota SIZE   memory for what VMs leave here when they move away, in case\n"
		"                       they come back (default: a quarter of all; 0: none)\n"
		"  --image-disk SIZE    room for it in DIR/lib/image, or /var/lib/godwit/image, once\n"
		"                       memory is full (default: 0, none)\n"
		"  --track-arrivals yes|no\n"
		"                       track what VMs that arrive write, so that only that is looked\n"
		"                       at when they leave again; costs them huge pages (default: yes)\n"
		"  --registry URL       where hosts tell each other of themselves: sqlite:PATH,\n"
		"                       godwit://IP:PORT (another godwitd's), redis://HOST:PORT or\n"
		"                       rediss://HOST:PORT (default: a database of our own)\n"
		"  --config FILE        read these options from FILE (godwit.conf(5))\n"
		"  --verbose            log more\n"
		"  --help, --version\n"
		"\n"
		"godwitd runs in the foreground and logs to standard error; see godwitd(8).\n");
}

static int set_flag(bool *flag, const char *key, const char *value)
{
	*flag = !strcmp(value, "yes") || !strcmp(value, "true");
	if (!*flag && strcmp(value, "no") != 0 && strcmp(value, "false") != 0)
		return gw_fail(-EINVAL, "%s is yes or no, not '%s'", key, value);
	return 0;
}

static int set_percent(unsigned int *percent, const char *key, const char *value)
{
	char *end;
	const unsigned long n = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < 100 || n > 10000)
		return gw_fail(-EINVAL, "%s is a percentage from 100 to 10000, not '%s'", key,
			       value);
	*percent = (unsigned int)n;
	return 0;
}

static int set_option(struct options *o, const char *key, const char *value)
{
	bool track = true;
	int rc;
	char **text = !strcmp(key, "root")	     ? &o->root
		      : !strcmp(key, "listen")	     ? &o->listen
		      : !strcmp(key, "name")	     ? &o->name
		      : !strcmp(key, "ram-dir")	     ? &o->ram_dir
		      : !strcmp(key, "swap-dir")     ? &o->swap_dir
		      : !strcmp(key, "disk-map-dir") ? &o->disk_map_dir
		      : !strcmp(key, "registry")     ? &o->registry
						     : NULL;

	if (text == &o->registry && gw_registry_url_ok(value))
		return -EINVAL;
	if (text == &o->listen && gw_address_check(value, true))
		return -EINVAL;
	if (text) {
		free(*text);
		*text = strdup(value);
		return 0;
	}
	if (!strcmp(key, "memory-limit"))
		return gw_parse_size(value, &o->memory_limit);
	if (!strcmp(key, "memory-server-limit"))
		return gw_parse_size(value, &o->server_limit);
	if (!strcmp(key, "swap-limit"))
		return gw_parse_size(value, &o->swap_limit);
	if (!strcmp(key, "memory-overcommit"))
		return set_percent(&o->overcommit, key, value);
	if (!strcmp(key, "image-quota"))
		return gw_parse_size(value, &o->image_quota);
	if (!strcmp(key, "image-disk"))
		return gw_parse_size(value, &o->image_disk);
	if (!strcmp(key, "track-arrivals")) {
		rc = set_flag(&track, key, value);
		o->untracked = !track;
		return rc;
	}
	if (!strcmp(key, "verbose"))
		return set_flag(&o->verbose, key, value);
	return gw_fail(-EINVAL, "unknown option '%s'", key);
}

static int on_setting(void *arg, const char *section, const char *key, const char *value)
{
	struct options *o = arg;

	(void)section;
	if (!o->config_failed)
		o->config_failed = set_option(o, key, value) != 0;
	return !o->config_failed;
}

static int read_config(struct options *o, const char *path)
{
	int rc;

	gw_error_clear();
	rc = ini_parse(path, on_setting, o);
	if (rc < 0)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (rc > 0 && !o->config_failed)
		return gw_fail(-EINVAL,
			       "%s, line %d: write KEY = VALUE, in fewer than 200 characters", path,
			       rc);
	if (rc > 0)
		return gw_fail_prefix(-EINVAL, "%s, line %d: ", path, rc);
	return 0;
}

/* 0: run; 1: done (help was asked for); -errno. */
static int parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "root", 1, NULL, 'o' },
		{ "listen", 1, NULL, 'o' },
		{ "name", 1, NULL, 'o' },
		{ "ram-dir", 1, NULL, 'o' },
		{ "registry", 1, NULL, 'o' },
		{ "memory-limit", 1, NULL, 'o' },
		{ "memory-server-limit", 1, NULL, 'o' },
		{ "swap-dir", 1, NULL, 'o' },
		{ "swap-limit", 1, NULL, 'o' },
		{ "disk-map-dir", 1, NULL, 'o' },
		{ "config", 1, NULL, 'c' },
		{ "image-quota", 1, NULL, 'o' },
		{ "memory-overcommit", 1, NULL, 'o' },
		{ "image-disk", 1, NULL, 'o' },
		{ "track-arrivals", 1, NULL, 'o' },
		{ "verbose", 0, NULL, 'v' },
		{ "help", 0, NULL, 'h' },
		{ "version", 0, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, index, rc = 0;

	/* The file first, so that the command line overrides it. */
	while (!rc && (opt = getopt_long(argc, argv, "", longs, &index)) != -1)
		if (opt == 'c')
			rc = read_config(o, optarg);
		else if (opt == '?')
			return gw_fail(-EINVAL, "see godwitd --help");
	optind = 1;
	while (!rc && (opt = getopt_long(argc, argv, "", longs, &index)) != -1) {
		if (opt == 'h') {
			usage(stdout);
			return 1;
		}
		if (opt == 'V') {
			printf("godwitd %s\n", GW_PROJECT_VERSION);
			return 1;
		}
		if (opt == 'v')
			o->verbose = true;
		else if (opt == 'o')
			rc = set_option(o, longs[index].name, optarg);
	}
	if (!rc && optind < argc)
		rc = gw_fail(-EINVAL, "unexpected '%s'; see godwitd --help", argv[optind]);
	return rc;
}

static void on_signal(void *arg)
{
	struct daemon *d = arg;
	struct signalfd_siginfo info;

	if (read(d->signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGCHLD)
		gw_loop_quit(d->loop);
}

static void on_tick(void *arg)
{
	struct daemon *d = arg;

	gw_jobs_unhang(d->jobs);
	gw_jobs_sweep(d->jobs);
	gw_peers_expire(d->peers);
	gw_registrar_tick(d->registrar);
	if (gw_now() - d->looked > LOW_S * GW_S && gw_budget_is_low(d->paths)) {
		d->looked = gw_now();
		gw_jobs_relieve(d->jobs);
	}
}

/* One daemon per root: the lock is held until we end, however we end. */
static int lock_root(const struct gw_paths *paths)
{
	gw_autofree char *path = gw_path("%s/lock", paths->run);
	int fd = gw_own_open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		return gw_fail(-EBUSY, "another godwitd serves %s already", paths->run);
	}
	return fd;
}

static int catch_signals(struct daemon *d)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	d->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signals >= 0)
		d->watch_signals = gw_loop_add(d->loop, d->signals, on_signal, d);
	if (!d->watch_signals)
		return gw_fail(-errno, "signals: %s", strerror(errno));
	return 0;
}

/* A descriptor or two for each VM, job, client and peer: the usual 1024 are few. */
static void raise_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur == files.rlim_max)
		return;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files))
		gw_debug("open files: %s", strerror(errno));
}

/*
 * Ours may lie at any depth (gw_unix_bind()). But a QEMU that makes one in {dir} (-vnc,
 * -chardev) has no more than everybody has, and finds out at a VM's start, or arrival.
 */
static void note_depth(const struct options *o, const struct gw_paths *paths)
{
	const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	const size_t used = strlen(paths->run) + strlen("/vm/");
	const size_t left = used < most ? most - used : 0;

	if (left < SOCKET_ROOM)
		gw_warn("%s lies deep: sockets that QEMUs make in {dir} have %zu characters left for "
			"the VM's name and theirs; with a %s of %zu they have %d",
			paths->run, left, o->root ? "--root" : "path",
			most - SOCKET_ROOM - strlen("/vm/") - (o->root ? strlen("/run") : 0),
			SOCKET_ROOM);
}

static int serve(const struct options *o, struct gw_paths *paths)
{
	struct daemon d = { .signals = -1, .paths = paths };
	struct gw_control *control = NULL;
	int rc = -ENOMEM;

	raise_limit();
	d.loop = gw_loop_new();
	d.jobs = d.loop ? gw_jobs_new(d.loop, paths, o->name) : NULL;
	if (d.jobs)
		rc = catch_signals(&d);
	if (!rc) {
		d.registrar = gw_registrar_new(paths, o->name, o->listen);
		rc = d.registrar ? 0 : -ENOMEM;
	}
	if (!rc && o->listen) {
		d.peers = gw_peers_new(d.loop, d.jobs, d.registrar, o->listen);
		rc = d.peers ? 0 : -EADDRINUSE;
	}
	if (!rc) {
		control = gw_control_new(d.loop, d.jobs, paths);
		rc = control ? 0 : -EADDRINUSE;
	}
	if (!rc) {
		gw_info("host '%s', root %s, %s%s", o->name, paths->run,
			o->listen ? "listening on " : "not listening", o->listen ? o->listen : "");
		gw_jobs_sweep(d.jobs);
		gw_jobs_tidy(d.jobs);
		gw_qemu_logs_prune(paths);
		note_depth(o, paths);
		if ((o->server_limit || paths->swap) && !o->listen)
			gw_warn("memory-server-limit and swap-dir are of no use without --listen: "
				"no host reaches this one");
		gw_registrar_tick(d.registrar);
		sd_notify(0, "READY=1");
		gw_loop_run(d.loop, TICK_MS, on_tick, &d);
		gw_info("ending; VMs run on");
	}
	gw_control_free(control);
	gw_peers_free(d.peers);
	gw_registrar_free(d.registrar);
	if (d.jobs)
		gw_jobs_free(d.jobs);
	gw_loop_remove(d.loop, d.watch_signals);
	gw_loop_free(d.loop);
	if (d.signals >= 0)
		close(d.signals);
	return rc;
}

/* It is its operator's, and is not made for him: who misspells it would find it empty. */
static int find_disk_map(const struct options *o, struct gw_paths *paths)
{
	int rc = 0;

	if (!o->disk_map_dir)
		return 0;
	if (access(o->disk_map_dir, F_OK))
		rc = gw_fail(-errno, "%s: %s", o->disk_map_dir, strerror(errno));
	if (!rc)
		rc = gw_own_place(o->disk_map_dir, false, &paths->disk_map);
	return rc ? gw_fail_prefix(rc, "disk-map-dir: ") : 0;
}

static int open_swap(const struct options *o, struct gw_paths *paths)
{
	if (!o->swap_dir)
		return o->swap_limit != UINT64_MAX
			       ? gw_fail(-EINVAL,
					 "swap-limit says how much may lie in a folder on a "
					 "disk: name that with swap-dir")
			       : 0;
	if (o->swap_limit == UINT64_MAX)
		return gw_fail(-EINVAL, "swap-dir %s: say with swap-limit how much may lie there",
			       o->swap_dir);
	return gw_swap_open(paths, o->swap_dir, o->swap_limit);
}

/* Without --registry, a database of our own: in /var/lib/godwit, or DIR/lib. */
static void choose_registry(const struct options *o, struct gw_paths *paths)
{
	if (o->registry)
		paths->registry = gw_path("%s", o->registry);
	else if (gw_own_mkdirs(paths->lib))
		gw_warn("no registry: %s", gw_error());
	else
		paths->registry = gw_path("sqlite:%s/registry.sqlite", paths->lib);
}

static int run(struct options *o)
{
	struct gw_paths paths = { 0 };
	gw_autofd int lock = -1;
	int rc = gw_paths_init(&paths, o->root);

	if (!rc) {
		lock = lock_root(&paths);
		rc = lock < 0 ? lock : 0;
	}
	if (!rc)
		rc = gw_paths_ram(&paths, o->ram_dir, o->memory_limit);
	if (!rc) {
		rc = open_swap(o, &paths);
		if (!rc)
			rc = find_disk_map(o, &paths);
		if (rc)
			gw_paths_unmount(&paths);
	}
	if (!rc) {
		if (o->image_quota != UINT64_MAX)
			paths.store.quota = o->image_quota;
		paths.store.disk_quota = o->image_disk;
		paths.overcommit = o->overcommit;
		paths.server_limit = o->server_limit;
		paths.store.untracked = o->untracked;
		paths.listen = o->listen;
		choose_registry(o, &paths);
		rc = serve(o, &paths);
		gw_paths_unmount(&paths);
	}
	gw_paths_free(&paths);
	return rc;
}

/* Peers keep it and compare it, and it is a key in a registry: one that they would cut is none. */
static int check_name(const struct options *o)
{
	json_t *text = json_string(o->name);
	const bool ok = text && o->name[0] && strlen(o->name) < GW_HOST_MAX;

	json_decref(text);
	if (!ok)
		return gw_fail(-EINVAL,
			       "'%s' is no name for a host: 1 to %d bytes of UTF-8; give another "
			       "with --name",
			       o->name, GW_HOST_MAX - 1);
	if (o->registry && !gw_registry_key_ok(o->name))
		return gw_fail(
			-EINVAL,
			"a registry knows hosts only by names of 1 to %d printable characters "
			"without blanks, and '%s' is none; give another with --name",
			GW_REGISTRY_KEY_MAX - 1, o->name);
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { .image_quota = UINT64_MAX, .swap_limit = UINT64_MAX };
	char host[HOST_NAME_MAX + 1] = "host"; /* zeroed to its end */
	int rc;

	gethostname(host, sizeof(host) - 1);
	o.name = strdup(host);
	gw_log_init("godwitd", GW_LOG_INFO);
	rc = parse_options(&o, argc, argv);
	if (!rc)
		rc = check_name(&o);
	if (!rc) {
		if (o.verbose)
			gw_log_init("godwitd", GW_LOG_DEBUG);
		rc = run(&o);
	}
	if (rc < 0)
		gw_err("%s", gw_error());
	free(o.root);
	free(o.listen);
	free(o.name);
	free(o.ram_dir);
	free(o.swap_dir);
	free(o.disk_map_dir);
	free(o.registry);
	return rc < 0;
}
