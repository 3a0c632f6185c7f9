// SPDX-License-Identifier: GPL-2.0-or-later
/* test_registrar.c - the daemon's processes that report to a registry, and serve one. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "frame.h"
#include "record.h"
#include "registrar.h"
#include "registry.h"

/* A host with a registry of its own, and a log that can be read. */
struct host {
	char *root, *log;
	struct gw_paths paths;
	struct gw_registrar *registrar;
	int err; /* the real standard error */
};

static int make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));
	gw_autofree char *ram = NULL;

	*state = h;
	if (!h || unit_folder((void **)&h->root) || gw_paths_init(&h->paths, h->root))
		return -1;
	ram = gw_path("%s/ram-files", h->root);
	h->log = gw_path("%s/log", h->root);
	h->err = dup(STDERR_FILENO);
	h->paths.registry = gw_path("sqlite:%s/registry.sqlite", h->root);
	return gw_paths_ram(&h->paths, ram, 1 << 20) ||
	       !freopen(h->log, "a", stderr); /* NOLINT: put back in drop() */
}

static int drop(void **state)
{
	struct host *h = *state;

	gw_registrar_free(h->registrar);
	dup2(h->err, STDERR_FILENO);
	close(h->err);
	gw_paths_free(&h->paths);
	unit_folder_remove((void **)&h->root);
	free(h->log);
	free(h);
	return 0;
}

static void begin(struct host *h, const char *address)
{
	gw_registrar_free(h->registrar);
	h->registrar = gw_registrar_new(&h->paths, "a", address);
	assert_non_null(h->registrar);
}

/* Tick until @done(h, arg). */
static void tick_until(struct host *h, bool (*done)(struct host *h, const char *arg),
		       const char *arg)
{
	const int64_t deadline = gw_now() + 60 * GW_S;

	while (!done(h, arg)) {
		assert_true(gw_now() < deadline);
		gw_registrar_tick(h->registrar);
		poll(NULL, 0, 2);
	}
}

static unsigned int count_in_log(const struct host *h, const char *text)
{
	gw_autofree char *log = gw_read_file(h->log, 1 << 20, NULL);
	unsigned int n = 0;

	for (const char *at = log; at && (at = strstr(at, text)); at++)
		n++;
	return n;
}

static bool logged(struct host *h, const char *text)
{
	return count_in_log(h, text) > 0;
}

/*
 * What @fn finds in the registry, in a process of its own: a database must not
 * be open across the forks of the registrar.
 */
static int look(const struct host *h, int (*fn)(struct gw_registry *r, const char *arg),
		const char *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct gw_registry *r = gw_registry_open(h->paths.registry, 120000);

		_exit(-fn(r, arg));
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static int find_host(struct gw_registry *r, const char *address)
{
	struct gw_host_record *list;
	size_t nr;
	int rc = gw_registry_hosts(r, &list, &nr);

	if (rc || nr != 1 || strcmp(list[0].address, address) != 0)
		return rc ? rc : -ENOENT;
	return strcmp(list[0].name, "a") != 0 || list[0].memory != 1 << 20 ||
			       list[0].free > 1 << 20 || time(NULL) - list[0].reported > 60
		       ? -EINVAL
		       : 0;
}

static bool reported(struct host *h, const char *address)
{
	int rc = look(h, find_host, address);

	assert_true(!rc || rc == -ENOENT);
	return !rc;
}

static int find_vm(struct gw_registry *r, const char *name)
{
	struct gw_vm_record vm;
	int rc = gw_registry_vm(r, name, &vm);

	return rc ? rc : strcmp(vm.host, "a") ? -EEXIST : 0;
}

static bool is_held(struct host *h, const char *name)
{
	int rc = look(h, find_vm, name);

	assert_true(!rc || rc == -ENOENT || rc == -EEXIST);
	return !rc;
}

static bool is_not_held(struct host *h, const char *name)
{
	return !is_held(h, name);
}

static int claim_for_a(struct gw_registry *r, const char *name)
{
	return gw_registry_claim(r, name, "a");
}

static int claim_for_b(struct gw_registry *r, const char *name)
{
	return gw_registry_claim(r, name, "b");
}

/* VMs came or went at a time that is not now: claims follow when it has been calm. */
static void calm(const struct host *h)
{
	static time_t when = 1700000000;
	gw_autofree char *path = gw_path("%s/vm", h->paths.run);
	const struct timespec times[2] = { { ++when, 0 }, { when, 0 } };

	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void make_vm(const struct host *h, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(&h->paths, name);
	gw_autofree char *record = gw_path("%s/vm.json", dir);

	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(gw_write_file(record, "{}"), 0);
}

static void remove_vm(const struct host *h, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(&h->paths, name);

	assert_int_equal(gw_remove_tree(dir), 0);
}

static void host_is_reported(void **state)
{
	static const struct {
		const char *listen, *address;
	} addresses[] = {
		{ "10.0.0.1:7373", "10.0.0.1:7373" },
		{ NULL, "" },
		{ ":7373", "a:7373" },
		{ "0.0.0.0:7373", "a:7373" },
		{ "[::]:7373", "a:7373" },
		{ "[fe80::1]:7373", "[fe80::1]:7373" },
	};
	struct host *h = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(addresses); i++) {
		begin(h, addresses[i].listen);
		tick_until(h, reported, addresses[i].address);
	}
}

/* What is here is claimed, but for what is still arriving; what is gone is released. */
static void claims_follow(void **state)
{
	const struct gw_journal arriving = { .role = GW_ROLE_DEST };
	const struct gw_journal leaving = { .role = GW_ROLE_SOURCE };
	struct host *h = *state;

	make_vm(h, "web1");
	make_vm(h, "arriving");
	make_vm(h, "leaving");
	assert_int_equal(gw_journal_save(&h->paths, "arriving", &arriving), 0);
	assert_int_equal(gw_journal_save(&h->paths, "leaving", &leaving), 0);
	assert_int_equal(look(h, claim_for_a, "gone"), 0);
	assert_int_equal(look(h, claim_for_b, "other"), 0);
	calm(h);
	begin(h, NULL);
	tick_until(h, is_not_held, "gone");
	tick_until(h, is_held, "web1");
	tick_until(h, is_held, "leaving");
	assert_false(is_held(h, "arriving"));
	assert_int_equal(look(h, claim_for_a, "other"), -EEXIST);
	/* It has arrived. Its folder is seen when another change is. */
	gw_journal_remove(&h->paths, "arriving");
	remove_vm(h, "web1");
	calm(h);
	tick_until(h, is_not_held, "web1");
	tick_until(h, is_held, "arriving");
}

/* Right after a folder went its claim stays: a worker may be about to hand it on. */
static void not_at_once(void **state)
{
	struct host *h = *state;

	assert_int_equal(look(h, claim_for_a, "gone"), 0);
	make_vm(h, "web1"); /* now */
	begin(h, "10.0.0.1:7373");
	tick_until(h, is_held, "web1");
	assert_true(is_held(h, "gone"));
	/* And then it goes, without waiting for the next report. */
	tick_until(h, is_not_held, "gone");
}

static void conflict_is_told_once(void **state)
{
	struct host *h = *state;

	assert_int_equal(look(h, claim_for_b, "web1"), 0);
	make_vm(h, "web1");
	calm(h);
	begin(h, NULL);
	tick_until(h, logged, "host 'b'");
	for (int i = 0; i < 3; i++) {
		gw_autofree char *name = gw_path("new%d", i);

		make_vm(h, name);
		calm(h);
		tick_until(h, is_held, name);
	}
	assert_int_equal(count_in_log(h, "host 'b'"), 1);
}

/* Damaged, removed, used again: two lines. */
static void loss_is_told_once(void **state)
{
	struct host *h = *state;
	gw_autofree char *path = gw_path("%s/registry.sqlite", h->root);
	gw_autofree char *text = gw_path("%0200d", 0);
	siginfo_t info;

	assert_int_equal(gw_write_file(path, text), 0);
	calm(h);
	begin(h, NULL);
	tick_until(h, logged, "remove it");
	make_vm(h, "web1");
	calm(h);
	gw_registrar_tick(h->registrar);
	assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(info.si_status, 2); /* the next report, in vain too */
	assert_int_equal(unlink(path), 0);
	make_vm(h, "web2");
	calm(h);
	tick_until(h, logged, "answers again");
	assert_int_equal(count_in_log(h, "remove it"), 1);
	tick_until(h, is_held, "web1");
}

/* A client's connection; the registrar has the other end. */
static struct gw_transport *call(struct host *h, int *rc)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*rc = gw_registrar_serve(h->registrar, pair[1], 1);
	if (*rc)
		close(pair[1]);
	return gw_tcp_adopt(pair[0]);
}

static void asks(struct gw_transport *t, const char *query, const char *answer)
{
	struct gw_frame f = { 0 };

	assert_int_equal(gw_frame_send_buf(t, GW_MSG_QUERY, 0, query, strlen(query)), 0);
	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 60 * GW_S), 0);
	assert_int_equal(f.type, GW_MSG_ANSWER);
	assert_int_equal(f.len, strlen(answer));
	assert_memory_equal(f.payload, answer, f.len);
	gw_frame_free(&f);
}

static void expects(struct gw_transport *t, unsigned int type)
{
	struct gw_frame f = { 0 };

	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 60 * GW_S), 0);
	assert_int_equal(f.type, type);
	gw_frame_free(&f);
}

/* Clients that say nothing do no harm: others are served, to the last place. */
static void serves(void **state)
{
	struct gw_transport *clients[GW_REGISTRY_CLIENTS], *more;
	struct gw_frame f = { 0 };
	struct host *h = *state;
	int rc;

	begin(h, NULL);
	for (size_t i = 0; i < GW_REGISTRY_CLIENTS; i++) {
		clients[i] = call(h, &rc);
		assert_int_equal(rc, 0);
		expects(clients[i], GW_MSG_ACCEPT);
	}
	more = call(h, &rc);
	assert_int_equal(rc, -EBUSY);
	gw_transport_close(&more);
	asks(clients[7], "{\"do\":\"change\",\"key\":\"web1\",\"to\":\"b\"}", "{\"documents\":[]}");
	asks(clients[7], "{\"do\":\"get\",\"kind\":\"vm\",\"key\":\"web1\"}",
	     "{\"documents\":[[\"\",\"web1\",\"b\",\"{}\"]]}");
	/* One goes, and there is a place again. */
	gw_transport_close(&clients[3]);
	do {
		clients[3] = call(h, &rc);
		if (rc)
			gw_transport_close(&clients[3]);
	} while (rc == -EBUSY);
	assert_int_equal(rc, 0);
	expects(clients[3], GW_MSG_ACCEPT);
	/* All end with the registrar. */
	gw_registrar_free(h->registrar);
	h->registrar = NULL;
	for (size_t i = 0; i < GW_REGISTRY_CLIENTS; i++) {
		assert_int_equal(gw_frame_recv(clients[i], &f, gw_now() + 60 * GW_S), -ECONNRESET);
		gw_transport_close(&clients[i]);
	}
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* A host whose registry is elsewhere is no registry. */
static void serves_its_own_only(void **state)
{
	struct host *h = *state;
	struct gw_transport *t;
	int rc;

	begin(h, NULL);
	free(h->paths.registry);
	h->paths.registry = gw_path("redis://10.0.0.1");
	t = call(h, &rc);
	assert_int_equal(rc, -ENOTSUP);
	assert_message("'a'");
	gw_transport_close(&t);
	free(gw_steal(h->paths.registry));
	t = call(h, &rc);
	assert_int_equal(rc, -ENOTSUP);
	gw_transport_close(&t);
	/* And without one nothing is reported, nor tried. */
	gw_registrar_tick(h->registrar);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

#define host(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		host(host_is_reported),	     host(claims_follow),     host(not_at_once),
		host(conflict_is_told_once), host(loss_is_told_once), host(serves),
		host(serves_its_own_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
