// SPDX-License-Identifier: GPL-2.0-or-later
/* test_registry_redis.c - a registry in a real Redis server, with and without TLS, and in lies. */
#include "registry_suite.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "redis.h"

#define HOST "127.0.0.1"

/* A server in a process of its own, on a port of its own. */
struct server {
	char *dir;
	int port;
	pid_t pid;
	bool tls, clients; /* with TLS; only for clients with a certificate */
	const char *certificate;
	char *url;
	struct gw_registry *r;
};

static int run(const char *command)
{
	gw_autofree char *quiet = gw_path("%s >/dev/null 2>&1", command);

	return system(quiet); /* NOLINT: our own words */
}

/* A port that nobody listens on, now. */
static int free_port(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	gw_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	return ntohs(addr.sin_port);
}

static _Noreturn void become_redis(const struct server *s)
{
	gw_autofree char *port = gw_path("%d", s->port);
	gw_autofree char *cert = gw_path("%s/%s.pem", s->dir, s->certificate ? s->certificate : "");
	gw_autofree char *key = gw_path("%s/%s.key", s->dir, s->certificate ? s->certificate : "");
	gw_autofree char *ca = gw_path("%s/client.pem", s->dir);
	gw_autofree char *log = gw_path("%s/redis.log", s->dir);
	const char *const plain[] = {
		"redis-server", "--bind",    HOST,    "--port", port,
		"--save",	"",	     "--dir", s->dir,	"--requirepass",
		"pass@word",	"--logfile", log,     NULL
	};
	const char *const tls[] = { "redis-server",
				    "--bind",
				    HOST,
				    "--port",
				    "0",
				    "--tls-port",
				    port,
				    "--save",
				    "",
				    "--dir",
				    s->dir,
				    "--requirepass",
				    "pass@word",
				    "--logfile",
				    log,
				    "--tls-cert-file",
				    cert,
				    "--tls-key-file",
				    key,
				    "--tls-ca-cert-file",
				    ca,
				    "--tls-auth-clients",
				    s->clients ? "yes" : "no",
				    NULL };
	char *const *argv = (char *const *)(uintptr_t)(s->tls ? tls : plain);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp("redis-server", argv);
	execvp("valkey-server", argv);
	_exit(127);
}

static bool answers(int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons((uint16_t)port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	gw_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return !connect(fd, (struct sockaddr *)&addr, sizeof(addr));
}

/* Start it, on s->port if there is one. It listens when this returns. */
static void start(struct server *s)
{
	const bool any = !s->port;
	const int64_t deadline = gw_now() + 120 * GW_S;

	while (gw_now() < deadline) {
		int status = 0;

		if (any)
			s->port = free_port();
		s->pid = fork();
		if (!s->pid)
			become_redis(s);
		while (!waitpid(s->pid, &status, WNOHANG) && gw_now() < deadline) {
			if (answers(s->port))
				return;
			poll(NULL, 0, 1);
		}
		assert_int_not_equal(WEXITSTATUS(status), 127);
		s->pid = 0; /* somebody else was faster to take the port */
	}
	fail_msg("redis-server does not start");
}

static void end(struct server *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
}

static int make(void **state)
{
	struct server *s = calloc(1, sizeof(*s));

	*state = s;
	if (!s || unit_folder((void **)&s->dir))
		return -1;
	if (run("(command -v redis-server || command -v valkey-server)"))
		return 0;
	start(s);
	s->url = gw_path("redis://:pass%%40word@" HOST ":%d/1", s->port);
	s->r = gw_registry_open(s->url, 120000);
	return s->r ? 0 : -1;
}

static int drop(void **state)
{
	struct server *s = *state;

	end(s);
	gw_registry_close(s->r);
	unit_folder_remove((void **)&s->dir);
	free(s->url);
	free(s);
	return 0;
}

static struct server *server_of(void **state)
{
	struct server *s = *state;

	if (!s->r) {
		print_message("skipped: no redis-server; run tools/deps test\n");
		skip();
	}
	return s;
}

static void hosts(void **state)
{
	suite_hosts(server_of(state)->r);
}

static void names(void **state)
{
	suite_names(server_of(state)->r);
}

static void images(void **state)
{
	suite_images(server_of(state)->r);
}

static void links(void **state)
{
	suite_links(server_of(state)->r);
}

static void claims(void **state)
{
	suite_claims(server_of(state)->r);
}

static void race(void **state)
{
	suite_race(server_of(state)->url);
}

/* Without the password, with a wrong one, for a database that is none. */
static void refused(void **state)
{
	const struct server *s = server_of(state);
	static const struct {
		const char *before, *after;
		int code;
	} wrong[] = {
		{ "", "", -EACCES },
		{ ":pass@", "", -EACCES },
		{ "nobody:pass%40word@", "", -EACCES },
		{ ":pass%40word@", "/99", -EIO },
		{ "default:pass%40word@", "/15", 0 },
	};

	for (size_t i = 0; i < GW_ARRAY_SIZE(wrong); i++) {
		gw_autofree char *url = gw_path("redis://%s" HOST ":%d%s", wrong[i].before, s->port,
						wrong[i].after);
		struct gw_registry *r = gw_registry_open(url, 120000);

		suite_fails_in_time(r, wrong[i].code, 120000);
		if (wrong[i].code)
			assert_message(HOST);
		assert_null(strstr(gw_error(), "@word"));
		assert_null(strstr(gw_error(), "%40"));
		gw_registry_close(r);
	}
}

static void execute(const struct server *s, const char *const argv[], int argc)
{
	struct gw_redis *c = gw_redis_new(s->url);
	redisReply *reply;

	assert_int_equal(gw_redis_call(c, argc, argv, gw_now() + 20 * GW_S, &reply), 0);
	freeReplyObject(reply);
	gw_redis_free(c);
}

/* Values that somebody else wrote: the bad ones are left out. */
static void damaged_values(void **state)
{
	const struct server *s = server_of(state);
	const char *const bad[] = {
		"HSET", "{godwit}:host:", "a", "", "b", "{}", "a b", "{}", "\n", "\n",
		"c",	"{\"address\":7}"
	};
	const char *const vm[] = { "HSET", "{godwit}:vm", "web1", "no newline" };
	const char *const holder[] = { "HSET", "{godwit}:vm", "web2", "a b\n{}" };
	const char *const other[] = { "SET", "{godwit}:image:web1", "7" };
	const struct gw_host_record good = { .name = "good" };
	struct gw_host_record *list;
	struct gw_image_record *found;
	struct gw_vm_record back;
	size_t nr;

	execute(s, bad, GW_ARRAY_SIZE(bad));
	execute(s, vm, GW_ARRAY_SIZE(vm));
	execute(s, holder, GW_ARRAY_SIZE(holder));
	execute(s, other, GW_ARRAY_SIZE(other));
	assert_int_equal(gw_registry_put_host(s->r, &good), 0);
	assert_int_equal(gw_registry_hosts(s->r, &list, &nr), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(list[0].name, "good");
	free(list);
	assert_int_equal(gw_registry_vm(s->r, "web1", &back), -EBADMSG);
	assert_int_equal(gw_registry_vm(s->r, "web2", &back), -EBADMSG);
	assert_int_equal(gw_registry_claim(s->r, "web2", "a"), -EBADMSG);
	assert_int_equal(gw_registry_images(s->r, "web1", &found, &nr), -EIO);
	assert_message("WRONGTYPE");
	/* What has no holder may be claimed. */
	assert_int_equal(gw_registry_claim(s->r, "web1", "a"), 0);
}

/* Killed, away, and started again, empty: the same registry goes on. */
static void comes_back(void **state)
{
	struct server *s = server_of(state);

	assert_int_equal(gw_registry_claim(s->r, "web1", "a"), 0);
	end(s);
	suite_fails_in_time(s->r, -ECONNREFUSED, 120000);
	suite_fails_in_time(s->r, -ECONNREFUSED, 120000);
	start(s);
	assert_int_equal(gw_registry_claim(s->r, "web1", "b"), 0);
	/* Away and back between two calls: nobody notices. */
	end(s);
	start(s);
	assert_int_equal(gw_registry_claim(s->r, "web1", "a"), 0);
	suite_holds(s->r, "a", "web1");
}

/* Stopped: that costs the time limit. Its late answer is not taken for the next one's. */
static void is_slow(void **state)
{
	const struct server *s = server_of(state);
	struct gw_registry *r = gw_registry_open(s->url, 100);
	struct gw_vm_record vm;

	assert_int_equal(gw_registry_claim(s->r, "web1", "a"), 0);
	assert_int_equal(gw_registry_claim(r, "web2", "a"), 0);
	kill(s->pid, SIGSTOP);
	suite_fails_in_time(r, -ETIMEDOUT, 100);
	kill(s->pid, SIGCONT);
	r->timeout_ms = 120000;
	assert_int_equal(gw_registry_vm(r, "web1", &vm), 0);
	assert_string_equal(vm.name, "web1");
	gw_registry_close(r);
}

/* Make NAME.pem and NAME.key in the server's folder, a certificate for @san. */
static void certify(const struct server *s, const char *name, const char *san)
{
	gw_autofree char *command =
		gw_path("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
			"-keyout %s/%s.key -out %s/%s.pem -days 2 -subj /CN=%s -addext "
			"subjectAltName=%s",
			s->dir, name, s->dir, name, name, san);

	assert_int_equal(run(command), 0);
}

/* @url_end of a rediss:// URL, and what a call comes to. */
static void try_tls(const struct server *s, const char *url_end, int code)
{
	gw_autofree char *url = gw_path("rediss://:pass%%40word@" HOST ":%d%s", s->port, url_end);
	struct gw_registry *r = gw_registry_open(url, 120000);

	assert_non_null(r);
	suite_fails_in_time(r, code, 120000);
	gw_registry_close(r);
}

static void tls(void **state)
{
	struct server *s = server_of(state);
	gw_autofree char *ca = gw_path("?ca=%s/server.pem", s->dir);
	gw_autofree char *other = gw_path("?ca=%s/other.pem", s->dir);
	gw_autofree char *none = gw_path("?ca=%s/none.pem", s->dir);
	gw_autofree char *client = gw_path("%s&cert=%s/client.pem&key=%s/client.key", ca, s->dir,
					   s->dir);
	gw_autofree char *url = NULL;

	end(s);
	certify(s, "server", "IP:" HOST);
	certify(s, "other", "IP:127.0.0.2");
	certify(s, "client", "DNS:client");
	s->tls = true;
	s->certificate = "server";
	s->port = 0;
	start(s);
	gw_registry_close(s->r);
	url = gw_path("rediss://:pass%%40word@" HOST ":%d/1%s", s->port, ca);
	s->r = gw_registry_open(url, 120000);
	suite_claims(s->r);
	suite_race(url);
	try_tls(s, none, -ENOENT);
	/* Signed by nobody we trust. */
	try_tls(s, other, -EACCES);
	assert_message("?ca=FILE");
	/* Killed and started again with the certificate of another host. */
	assert_int_equal(gw_registry_claim(s->r, "web1", "a"), 0);
	end(s);
	suite_fails_in_time(s->r, -ECONNREFUSED, 120000);
	s->certificate = "other";
	start(s);
	try_tls(s, other, -EACCES);
	/* And as one that asks for ours. */
	end(s);
	s->certificate = "server";
	s->clients = true;
	start(s);
	try_tls(s, ca, -EPROTO);
	try_tls(s, client, 0);
}

/* A server that shakes hands, and resets the connection before it has said another word. */
static void start_resetter(struct server *s, int listener)
{
	const struct linger at_once = { .l_onoff = 1 };
	gw_autofree char *cert = gw_path("%s/server.pem", s->dir);
	gw_autofree char *key = gw_path("%s/server.key", s->dir);
	gnutls_certificate_credentials_t credentials;
	gnutls_session_t session;
	char byte;
	int fd;

	s->pid = fork();
	if (s->pid)
		return;
	fd = accept(listener, NULL, NULL);
	if (gnutls_certificate_allocate_credentials(&credentials) ||
	    gnutls_certificate_set_x509_key_file(credentials, cert, key, GNUTLS_X509_FMT_PEM) < 0 ||
	    gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NO_TICKETS) ||
	    gnutls_set_default_priority(session) ||
	    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials))
		_exit(1);
	gnutls_transport_set_int(session, fd);
	if (gnutls_handshake(session))
		_exit(1);
	/* The client has sent its command: its handshake is over. */
	if (recv(fd, &byte, 1, 0) != 1 ||
	    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)))
		_exit(1);
	close(fd);
	_exit(0);
}

/* What a server that wants a certificate comes to, where its alert is overtaken by the reset. */
static void tls_reset(void **state)
{
	struct server *s = server_of(state);
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	gw_autofree char *ca = gw_path("?ca=%s/server.pem", s->dir);
	gw_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int status;

	end(s);
	certify(s, "server", "IP:" HOST);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	s->port = ntohs(addr.sin_port);
	start_resetter(s, fd);
	try_tls(s, ca, -EPROTO);
	assert_message("does it ask for a certificate?");
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	s->pid = 0;
	assert_int_equal(status, 0);
}

/* A server that says @answer to everything. */
static void start_liar(struct server *s, const char *answer, size_t len)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);
	gw_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, size), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &size), 0);
	s->port = ntohs(addr.sin_port);
	s->pid = fork();
	if (s->pid)
		return;
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		gw_autofd int one = accept(fd, NULL, NULL);
		char buf[4096];

		while (recv(one, buf, sizeof(buf), 0) > 0)
			if (send(one, answer, len, MSG_NOSIGNAL) < 0)
				break;
	}
}

static void lies(void **state)
{
	static const struct {
		const char *answer;
		int code;
	} all[] = {
		{ "x", -EPROTO },
		{ "+OK\r\n", 0 },
		{ "$-1\r\n", 0 },
		{ ":7\r\n", 0 },
		{ "*1\r\n:7\r\n", 0 },
		{ "*2\r\n:7\r\n:7\r\n", 0 },
		{ "*3\r\n$1\r\na\r\n$2\r\n{}\r\n$1\r\nb\r\n", 0 },
		{ "-ERR x\r\n", -EIO },
		{ "-LOADING x\r\n", -EIO },
		{ "*1000000\r\n", -ETIMEDOUT },
		{ "$1000000\r\n", -ETIMEDOUT },
		{ "$5\r\nabc", -ETIMEDOUT },
	};
	struct server *s = *state;
	gw_autofree char *endless = gw_path("$99999999\r\n%020000000d", 0);

	end(s);
	for (size_t i = 0; i < GW_ARRAY_SIZE(all); i++) {
		gw_autofree char *url = NULL;
		struct gw_registry *r;

		start_liar(s, all[i].answer, strlen(all[i].answer));
		url = gw_path("redis://" HOST ":%d", s->port);
		r = gw_registry_open(url, all[i].code == -ETIMEDOUT ? 50 : 120000);
		suite_fails_in_time(r, all[i].code, 120000);
		gw_registry_close(r);
		end(s);
	}
	start_liar(s, endless, strlen(endless));
	free(s->url);
	s->url = gw_path("redis://" HOST ":%d", s->port);
	gw_registry_close(s->r);
	s->r = gw_registry_open(s->url, 60000);
	suite_fails_in_time(s->r, -EMSGSIZE, 60000);
}

#define with_server(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(hosts),	 with_server(names),
		with_server(images),	 with_server(links),
		with_server(claims),	 with_server(race),
		with_server(refused),	 with_server(damaged_values),
		with_server(comes_back), with_server(is_slow),
		with_server(tls),	 with_server(tls_reset),
		with_server(lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
