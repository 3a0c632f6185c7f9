// SPDX-License-Identifier: GPL-2.0-or-later
/* test_registry.c - a registry in SQLite, and the same served by another host. */
#include "registry_suite.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>

#include "codec.h"
#include "frame.h"
#include "transport.h"

/* A database, and perhaps a process that serves it. */
struct place {
	char *dir, *url, *peer_url;
	int listener;
	char address[64];
	pid_t server;
	struct gw_registry *r;
};

static int make(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	*state = p;
	if (!p || unit_folder((void **)&p->dir))
		return -1;
	p->listener = -1;
	p->url = gw_path("sqlite:%s/registry.sqlite", p->dir);
	p->r = gw_registry_open(p->url, 120000);
	return p->r ? 0 : -1;
}

static void end_server(struct place *p)
{
	if (p->server > 0) {
		kill(-p->server, SIGKILL); /* and what it has forked */
		waitpid(p->server, NULL, 0);
	}
	p->server = 0;
	if (p->listener >= 0)
		close(p->listener);
	p->listener = -1;
}

static int drop(void **state)
{
	struct place *p = *state;

	end_server(p);
	gw_registry_close(p->r);
	unit_folder_remove((void **)&p->dir);
	free(p->url);
	free(p->peer_url);
	free(p);
	return 0;
}

/* Listen on @p->address, or on a free port if there is none yet. */
static void listen_at(struct place *p)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	p->listener = gw_tcp_listen(p->address[0] ? p->address : "127.0.0.1:0");
	assert_true(p->listener >= 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&addr, &len), 0);
	snprintf(p->address, sizeof(p->address), "127.0.0.1:%d", ntohs(addr.sin_port));
	fcntl(p->listener, F_SETFL, 0);
}

/* What the daemon does with a connection, in a process of its own. */
static _Noreturn void serve(const struct place *p, int fd)
{
	struct gw_transport *t = gw_tcp_adopt(fd);
	struct gw_registry *r = gw_registry_open(p->url, 120000);
	struct gw_frame f = { 0 };
	struct gw_open open;
	uint16_t version;

	if (gw_frame_recv(t, &f, gw_now() + 120 * GW_S) || f.type != GW_MSG_OPEN ||
	    gw_open_decode(f.payload, f.len, &open, &version) || open.kind != GW_OPEN_REGISTRY ||
	    gw_frame_send_buf(t, GW_MSG_ACCEPT, version, NULL, 0))
		_exit(1);
	gw_frame_free(&f);
	gw_registry_serve(r, t, 120000, 60000);
	gw_registry_close(r);
	gw_transport_close(&t);
	_exit(0);
}

/* Serve the database on p->address, a process for each connection, all of which end with it. */
static void start_server(struct place *p)
{
	listen_at(p);
	p->server = fork();
	setpgid(p->server, 0);
	if (p->server)
		return;
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(p->listener, NULL, NULL);

		if (fork() == 0) {
			close(p->listener);
			serve(p, fd);
		}
		close(fd);
	}
}

static int make_served(void **state)
{
	int rc = make(state);
	struct place *p = *state;

	if (rc)
		return rc;
	start_server(p);
	gw_registry_close(p->r);
	p->peer_url = gw_path("godwit://%s", p->address);
	p->r = gw_registry_open(p->peer_url, 120000);
	return p->r ? 0 : -1;
}

static const char *url_of(const struct place *p)
{
	return p->peer_url ? p->peer_url : p->url;
}

static void hosts(void **state)
{
	suite_hosts(((struct place *)*state)->r);
}

static void names(void **state)
{
	suite_names(((struct place *)*state)->r);
}

static void images(void **state)
{
	suite_images(((struct place *)*state)->r);
}

static void links(void **state)
{
	suite_links(((struct place *)*state)->r);
}

static void claims(void **state)
{
	suite_claims(((struct place *)*state)->r);
}

/* Both make the database, too. */
static void race(void **state)
{
	suite_race(url_of(*state));
}

static void urls(void **state)
{
	static const char *const good[] = {
		"sqlite:/x",
		"godwit://10.0.0.1:7373",
		"godwit://[::1]:7373",
		"redis://h",
		"redis://h:6379",
		"redis://:pass%40word@h:6379/3",
		"redis://user:pass@[fe80::1]:6379",
		"rediss://h:6379/0?ca=/x",
		"rediss://h?ca=/x&cert=/y&key=/z",
	};
	static const char *const bad[] = {
		"",
		"x",
		"sqlite:",
		"sqlite:x",
		"godwit:10.0.0.1:7373",
		"godwit://",
		"godwit://10.0.0.1",
		"godwit://10.0.0.1:",
		"godwit://10.0.0.1:x",
		"godwit://host:7373",
		"godwit://[::1:7373",
		"redis://",
		"redis://:6379",
		"redis://h:",
		"redis://h:x",
		"redis://h/x",
		"redis://pass@h",
		"redis://:pass%4@h",
		"redis://:pass%00@h",
		"redis://h?ca=/x",
		"rediss://h?cert=/x",
		"rediss://h?what=/x",
		"http://h",
	};
	char text[64];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++)
		assert_int_equal(gw_registry_url_ok(good[i]), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		gw_error_clear();
		assert_int_equal(gw_registry_url_ok(bad[i]), -EINVAL);
		assert_string_not_equal(gw_error(), "no error recorded");
	}
	assert_string_equal(gw_registry_url_shown("redis://u:se:c@et@h:1", text, sizeof(text)),
			    "redis://...@h:1");
	assert_string_equal(gw_registry_url_shown("sqlite:/a@b", text, sizeof(text)),
			    "sqlite:/a@b");
}

static void execute(const struct place *p, const char *sql)
{
	gw_autofree char *path = gw_path("%s/registry.sqlite", p->dir);
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

/* Somebody else's rows: each is left out, and the good one stays. */
/* One that knew no disk for others' memory. */
static void older_server(void **state)
{
	const struct gw_host_record old = { .name = "old", .address = "x" };
	struct place *p = *state;
	struct gw_host_record *list;
	size_t nr;

	assert_int_equal(gw_registry_put_host(p->r, &old), 0);
	execute(p, "UPDATE document SET text = '"
		   "{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1,"
		   "\"memory-server\":{\"limit\":7,\"free\":6,\"vms\":1,\"held\":[{\"vm\":\"a\","
		   "\"host\":\"b\",\"promised\":5,\"here\":4}]}}'");
	assert_int_equal(gw_registry_hosts(p->r, &list, &nr), 0);
	assert_int_equal(nr, 1);
	assert_int_equal(list[0].server_limit, 7);
	assert_int_equal(list[0].swap_limit + list[0].swap_free, 0);
	assert_int_equal(list[0].held[0].here, 4);
	assert_false(list[0].held[0].on_disk);
	free(list);
}

static void damaged_rows(void **state)
{
	static const char *const texts[] = {
		"",
		"7",
		"[]",
		"{",
		"{}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":0}",
		"{\"address\":\"x\",\"memory\":-1,\"free\":1,\"load\":0,\"reported\":1}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1.5,\"load\":0,\"reported\":1}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":-1,\"reported\":1}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":1e999,\"reported\":1}",
		"{\"address\":\"\\u001b[2J\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1}",
		"{\"address\":7,\"memory\":1,\"free\":1,\"load\":0,\"reported\":1}",
		"{\"address\":\"x\",\"address\":\"y\",\"memory\":1,\"free\":1,\"load\":0,"
		"\"reported\":1}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1,"
		"\"memory-server\":{\"limit\":1,\"free\":1,\"swap-limit\":1,\"vms\":0,\"held\":[]}}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1,"
		"\"memory-server\":{\"limit\":1,\"free\":1,\"vms\":1,\"held\":[{\"vm\":\"a\","
		"\"host\":\"b\",\"promised\":1,\"here\":1,\"where\":\"tape\"}]}}",
		"{\"address\":\"x\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1,"
		"\"memory-server\":{\"limit\":1,\"free\":1,\"vms\":1,\"held\":[{\"vm\":\"a\","
		"\"host\":\"b\",\"promised\":1,\"here\":1,\"where\":7}]}}",
	};
	static const char *const vms[] = {
		"{\"address\":\"x\"}",
		"{\"address\":\"x\",\"reported\":1,\"departures\":1,\"resident\":1,\"setup\":0,"
		"\"device\":0,\"dirty-rate\":0,"
		"\"wire-per-page\":0,\"wire-per-changed\":0,\"history\":[[0,\"000102030405060708090a0b0c0d0e0f\",1]]}",
		"{\"address\":\"x\",\"reported\":1,\"departures\":1,\"resident\":1,\"setup\":0,"
		"\"device\":0,\"dirty-rate\":0,"
		"\"wire-per-page\":0,\"wire-per-changed\":0,\"history\":[[1,\"00\",1]]}",
		"{\"address\":\"x\",\"reported\":1,\"departures\":1,\"resident\":1,\"setup\":0,"
		"\"device\":0,\"dirty-rate\":0,"
		"\"wire-per-page\":0,\"wire-per-changed\":0,\"history\":[[2,\"000102030405060708090a0b0c0d0e0f\",1],"
		"[1,\"000102030405060708090a0b0c0d0e0f\",1]]}",
		"{\"address\":\"x\",\"reported\":1,\"departures\":1,\"resident\":1,\"setup\":0,"
		"\"device\":0,\"dirty-rate\":0,"
		"\"wire-per-page\":0,\"wire-per-changed\":0,\"history\":[[1,\"000102030405060708090a0b0c0d0e0f\",2],"
		"[2,\"000102030405060708090a0b0c0d0e0f\",1]]}",
		"{\"address\":\"x\",\"reported\":1,\"departures\":1,\"resident\":1,\"setup\":0,"
		"\"device\":0,\"dirty-rate\":0,"
		"\"wire-per-page\":0,\"wire-per-changed\":0,\"history\":7}",
	};
	struct place *p = *state;
	const struct gw_host_record good = { .name = "good", .address = "x" };
	struct gw_host_record *list;
	struct gw_vm_record vm;
	size_t nr;

	assert_int_equal(gw_registry_put_host(p->r, &good), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(texts); i++) {
		gw_autofree char *sql = gw_path("INSERT INTO document VALUES"
						" ('host', '', 'bad%zu', '', '%s')",
						i, texts[i]);

		execute(p, sql);
	}
	execute(p, "INSERT INTO document SELECT kind, grp, 'a b', '', text FROM document"
		   " WHERE key = 'good'");
	execute(p, "INSERT INTO document SELECT kind, grp, 'long', '',"
		   " text || printf('%20000s', '') FROM document WHERE key = 'good'");
	gw_error_clear();
	assert_int_equal(gw_registry_hosts(p->r, &list, &nr), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(list[0].name, "good");
	free(list);
	assert_message("cannot be");
	for (size_t i = 0; i < GW_ARRAY_SIZE(vms); i++) {
		gw_autofree char *sql = gw_path("INSERT OR REPLACE INTO document VALUES"
						" ('vm', '', 'web1', 'a', '%s')",
						vms[i]);

		execute(p, sql);
		assert_int_equal(gw_registry_vm(p->r, "web1", &vm), -EBADMSG);
		assert_message("vm 'web1'");
		assert_int_equal(vm.history.nr, 0);
	}
	/* It can be put right. */
	vm = (struct gw_vm_record){ .name = "web1", .host = "a" };
	assert_int_equal(gw_registry_move(p->r, &vm, "a"), 0);
	assert_int_equal(gw_registry_vm(p->r, "web1", &vm), 0);
}

/* A file that is none, one of another format, one that cannot be. */
static void damaged_file(void **state)
{
	struct place *p = *state;
	gw_autofree char *path = gw_path("%s/registry.sqlite", p->dir);
	gw_autofree char *nowhere = gw_path("sqlite:%s/none/registry.sqlite", p->dir);
	struct gw_host_record *list;
	struct gw_registry *r;
	size_t nr;

	assert_int_equal(gw_registry_hosts(p->r, &list, &nr), 0);
	execute(p, "PRAGMA user_version = 99");
	r = gw_registry_open(p->url, 1000);
	suite_fails_in_time(r, -EPROTONOSUPPORT, 1000);
	assert_message("another release");
	gw_registry_close(r);
	gw_registry_close(p->r);
	p->r = NULL;
	assert_int_equal(gw_write_file(path, "This is a text and not a database at all, and is "
					     "longer than the header of one, which has a hundred "
					     "bytes."),
			 0);
	p->r = gw_registry_open(p->url, 1000);
	suite_fails_in_time(p->r, -EBADMSG, 1000);
	assert_message("remove it");
	/* Removed, it begins anew, in the process that found it damaged too. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(gw_registry_claim(p->r, "web1", "a"), 0);
	r = gw_registry_open(nowhere, 1000);
	suite_fails_in_time(r, -EIO, 1000);
	gw_registry_close(r);
}

/* Somebody sits on the database: that costs the time limit, and no more. */
static void locked_file(void **state)
{
	struct place *p = *state;
	gw_autofree char *path = gw_path("%s/registry.sqlite", p->dir);
	struct gw_registry *r = gw_registry_open(p->url, 200);
	int64_t begun;
	sqlite3 *db;

	assert_int_equal(gw_registry_claim(r, "web1", "a"), 0);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
	begun = gw_now();
	assert_int_equal(gw_registry_claim(r, "web2", "a"), -ETIMEDOUT);
	assert_true(gw_now() - begun >= 200 * GW_MS && gw_now() - begun < 60 * GW_S);
	assert_message("within 200 ms");
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	assert_int_equal(gw_registry_claim(r, "web2", "a"), 0);
	assert_int_equal(gw_registry_claim(r, "web1", "b"), -EEXIST);
	sqlite3_close(db);
	gw_registry_close(r);
}

/* The server dies, stays away, and comes back: one and the same registry goes on. */
static void server_comes_back(void **state)
{
	struct place *p = *state;

	assert_int_equal(gw_registry_claim(p->r, "web1", "a"), 0);
	end_server(p);
	suite_fails_in_time(p->r, -ECONNREFUSED, 120000);
	assert_message(p->address);
	suite_fails_in_time(p->r, -ECONNREFUSED, 120000);
	start_server(p);
	assert_int_equal(gw_registry_claim(p->r, "web1", "b"), -EEXIST);
	/* Away and back between two calls: nobody notices. */
	end_server(p);
	start_server(p);
	assert_int_equal(gw_registry_claim(p->r, "web1", "b"), -EEXIST);
	assert_message("host 'a'");
}

/* One that accepts and says nothing, as a stopped process does. */
static void server_is_silent(void **state)
{
	struct place *p = *state;
	struct gw_registry *r;
	gw_autofree char *url = NULL;

	listen_at(p);
	url = gw_path("godwit://%s", p->address);
	r = gw_registry_open(url, 100);
	suite_fails_in_time(r, -ETIMEDOUT, 100);
	gw_registry_close(r);
}

/* A server that answers each query with @answer, of type @type. */
static void answers(struct place *p, unsigned int type, const char *answer)
{
	listen_at(p);
	p->server = fork();
	setpgid(p->server, 0);
	if (p->server)
		return;
	for (;;) {
		struct gw_transport *t = gw_tcp_adopt(accept(p->listener, NULL, NULL));
		struct gw_frame f = { 0 };

		if (!gw_frame_recv(t, &f, GW_FOREVER))
			gw_frame_send_buf(t, GW_MSG_ACCEPT, 1, NULL, 0);
		while (!gw_frame_recv(t, &f, GW_FOREVER))
			gw_frame_send_buf(t, type, 0, answer, strlen(answer));
		gw_frame_free(&f);
		gw_transport_close(&t);
	}
}

static void server_lies(void **state)
{
	static const struct {
		unsigned int type;
		const char *answer;
		int hosts, claim; /* what comes of it */
	} lies[] = {
		{ GW_MSG_ANSWER, "", -EPROTO, -EPROTO },
		{ GW_MSG_ANSWER, "[]", -EPROTO, -EPROTO },
		{ GW_MSG_ANSWER, "{}", -EPROTO, 0 },
		{ GW_MSG_ANSWER, "{\"documents\":7}", -EPROTO, 0 },
		{ GW_MSG_ANSWER, "{\"documents\":[7]}", -EPROTO, 0 },
		{ GW_MSG_ANSWER, "{\"documents\":[[\"\",\"a\",\"\"]]}", -EPROTO, 0 },
		{ GW_MSG_ANSWER, "{\"documents\":[[\"\",\"a\",\"\",7]]}", -EPROTO, 0 },
		{ GW_MSG_ANSWER, "{\"documents\":[[\"\",\"a\",\"\",\"7\"]]}", 0, 0 },
		{ GW_MSG_ANSWER, "{\"error\":\"x\"}", -EIO, -EIO },
		{ GW_MSG_ANSWER, "{\"error\":\"x\",\"code\":\"timeout\"}", -ETIMEDOUT, -ETIMEDOUT },
		{ GW_MSG_ANSWER, "{\"error\":\"x\",\"code\":\"exists\"}", -EPROTO, -EPROTO },
		{ GW_MSG_ANSWER, "{\"error\":\"x\",\"code\":\"exists\",\"holder\":\"a b\"}",
		  -EPROTO, -EPROTO },
		{ GW_MSG_ANSWER, "{\"error\":\"x\",\"code\":\"exists\",\"holder\":\"b\"}", -EPROTO,
		  -EEXIST },
		{ GW_MSG_ERROR, "go away", -ECONNREFUSED, -ECONNREFUSED },
		{ GW_MSG_SETTLED, "", -EPROTO, -EPROTO },
	};
	struct place *p = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(lies); i++) {
		gw_autofree char *url = NULL;
		struct gw_host_record *list;
		struct gw_registry *r;
		size_t nr;

		answers(p, lies[i].type, lies[i].answer);
		url = gw_path("godwit://%s", p->address);
		r = gw_registry_open(url, 120000);
		assert_int_equal(gw_registry_hosts(r, &list, &nr), lies[i].hosts);
		assert_int_equal(nr, 0);
		free(list);
		assert_int_equal(gw_registry_claim(r, "web1", "a"), lies[i].claim);
		gw_registry_close(r);
		end_server(p);
	}
}

/* What is asked by somebody who is no Godwit. */
static void hostile_queries(void **state)
{
	static const char *const queries[] = {
		"",
		"7",
		"[]",
		"{}",
		"{\"do\":7}",
		"{\"do\":\"drop\"}",
		"{\"do\":\"list\"}",
		"{\"do\":\"list\",\"kind\":\"x\",\"group\":\"\"}",
		"{\"do\":\"list\",\"kind\":\"host\",\"group\":\"a b\"}",
		"{\"do\":\"get\",\"kind\":\"host\"}",
		"{\"do\":\"put\",\"kind\":\"host\",\"key\":\"a\"}",
		"{\"do\":\"put\",\"kind\":\"host\",\"key\":\"a\\nb\",\"text\":\"{}\"}",
		"{\"do\":\"put\",\"kind\":\"host\",\"key\":\"a\",\"text\":\"7\"}",
		"{\"do\":\"put\",\"kind\":\"vm\",\"key\":\"a\",\"text\":\"{}\"}",
		"{\"do\":\"put\",\"key\":\"a\",\"text\":\"{}\"}",
		"{\"do\":\"remove\",\"kind\":\"vm\",\"key\":\"a\"}",
		"{\"do\":\"change\",\"from\":\"a\",\"to\":\"b\"}",
		"{\"do\":\"change\",\"key\":\"a\",\"from\":\"a\",\"to\":\"b c\"}",
		"{\"do\":\"held\"}",
	};
	struct place *p = *state;
	struct gw_transport *t = gw_tcp_dial(p->address, gw_now() + 120 * GW_S, NULL);
	struct gw_open open = { .version_min = 1, .version_max = 1, .kind = GW_OPEN_REGISTRY };
	uint8_t wire[GW_OPEN_LEN];
	struct gw_frame f = { 0 };

	gw_open_encode(&open, wire);
	assert_int_equal(gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire)), 0);
	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 120 * GW_S), 0);
	assert_int_equal(f.type, GW_MSG_ACCEPT);
	for (size_t i = 0; i < GW_ARRAY_SIZE(queries); i++) {
		json_t *json;

		assert_int_equal(
			gw_frame_send_buf(t, GW_MSG_QUERY, 0, queries[i], strlen(queries[i])), 0);
		assert_int_equal(gw_frame_recv(t, &f, gw_now() + 120 * GW_S), 0);
		assert_int_equal(f.type, GW_MSG_ANSWER);
		json = json_loadb((const char *)f.payload, f.len, 0, NULL);
		assert_string_equal(json_string_value(json_object_get(json, "code")), "invalid");
		json_decref(json);
	}
	/* Anything but a query ends it, with a reason. */
	assert_int_equal(gw_frame_send_buf(t, GW_MSG_COMMIT, 0, NULL, 0), 0);
	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 120 * GW_S), 0);
	assert_int_equal(f.type, GW_MSG_ERROR);
	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 120 * GW_S), -ECONNRESET);
	gw_frame_free(&f);
	gw_transport_close(&t);
}

/* As many hosts as an answer may have, and more. */
static void many_hosts(void **state)
{
	struct place *p = *state;
	struct gw_host_record *list;
	size_t nr;

	assert_int_equal(gw_registry_hosts(p->r, &list, &nr), 0); /* it is made now */
	execute(p,
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 17000)"
		" INSERT INTO document SELECT 'host', '', 'host' || i, '',"
		" '{\"address\":\"10.0.0.1:7373\",\"memory\":1,\"free\":1,\"load\":0,\"reported\":1}'"
		" FROM n");
	assert_int_equal(gw_registry_hosts(p->r, &list, &nr), 0);
	assert_true(nr > 10000 && nr <= GW_REGISTRY_LIST_MAX);
	free(list);
}

#define lite(fn) cmocka_unit_test_setup_teardown(fn, make, drop)
#define peer(fn) cmocka_unit_test_setup_teardown(fn, make_served, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls),
		lite(hosts),
		lite(names),
		lite(images),
		lite(links),
		lite(claims),
		lite(race),
		lite(older_server),
		lite(damaged_rows),
		lite(damaged_file),
		lite(locked_file),
		peer(hosts),
		peer(names),
		peer(images),
		peer(links),
		peer(claims),
		peer(race),
		peer(damaged_rows),
		peer(server_comes_back),
		peer(hostile_queries),
		lite(server_is_silent),
		lite(server_lies),
		peer(many_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
