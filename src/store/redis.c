// SPDX-License-Identifier: GPL-2.0-or-later
/* redis.c - one connection to a Redis server; see redis.h. */
#include <ctype.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "redis.h"

struct gw_redis {
	char *host, *port, *user, *password, *db;
	char *ca, *cert, *key; /* NULL: the host's own trust; no certificate of ours */
	char *shown;	       /* host and port, for messages */
	bool tls;
	int fd;
	gnutls_session_t session; /* NULL: none */
	gnutls_certificate_credentials_t credentials;
	redisReader *reader;
	bool answered; /* something came over this connection */
	int64_t deadline;
};

/* %XX in @text become bytes, none of which may be NUL. */
static int unescape(char *text)
{
	char *to = text;
	unsigned int byte;

	for (const char *at = text; *at; at++) {
		if (*at != '%') {
			*to++ = *at;
			continue;
		}
		if (!isxdigit((unsigned char)at[1]) || !isxdigit((unsigned char)at[2]) ||
		    sscanf(at + 1, "%2x", &byte) != 1 || !byte)
			return -EINVAL;
		*to++ = (char)byte;
		at += 2;
	}
	*to = '\0';
	return 0;
}

static int parse_files(struct gw_redis *c, char *query)
{
	char *rest = query, *one;

	while ((one = strsep(&rest, "&"))) {
		char **file = !strncmp(one, "ca=", 3)	  ? &c->ca
			      : !strncmp(one, "cert=", 5) ? &c->cert
			      : !strncmp(one, "key=", 4)  ? &c->key
							  : NULL;

		if (!file || !c->tls || *file)
			return -EINVAL;
		*file = gw_path("%s", strchr(one, '=') + 1);
		if (unescape(*file))
			return -EINVAL;
	}
	return !c->cert == !c->key ? 0 : -EINVAL;
}

/* [USER:PASSWORD@], which it takes off @*rest. */
static int parse_user(struct gw_redis *c, char **rest)
{
	char *at = strrchr(*rest, '@'), *colon;

	if (!at)
		return 0;
	*at = '\0';
	colon = strchr(*rest, ':');
	if (!colon)
		return -EINVAL;
	*colon = '\0';
	if ((*rest)[0])
		c->user = gw_path("%s", *rest);
	c->password = gw_path("%s", colon + 1);
	*rest = at + 1;
	return unescape(c->password) || (c->user && unescape(c->user)) ? -EINVAL : 0;
}

static int parse_url(struct gw_redis *c, const char *url)
{
	gw_autofree char *copy = gw_path("%s", strstr(url, "://") + 3);
	char *rest = copy, *query, *slash, *port;
	int rc;

	c->tls = !strncmp(url, "rediss:", 7);
	query = strchr(copy, '?');
	if (query)
		*query++ = '\0';
	rc = query ? parse_files(c, query) : 0;
	if (!rc)
		rc = parse_user(c, &rest);
	slash = rc ? NULL : strchr(rest, '/');
	if (slash)
		*slash++ = '\0';
	if (slash && *slash) {
		if (strspn(slash, "0123456789") != strlen(slash))
			return -EINVAL;
		c->db = gw_path("%s", slash);
	}
	if (rc)
		return rc;
	port = strrchr(rest, ':');
	if (port && strchr(port, ']'))
		port = NULL; /* a colon of [IPv6] */
	if (port)
		*port++ = '\0';
	if (rest[0] == '[' && strlen(rest) > 2 && rest[strlen(rest) - 1] == ']') {
		rest[strlen(rest) - 1] = '\0';
		rest++;
	}
	if (!rest[0] || (port && (!port[0] || strspn(port, "0123456789") != strlen(port))))
		return -EINVAL;
	c->host = gw_path("%s", rest);
	c->port = gw_path("%s", port ? port : GW_REDIS_PORT);
	c->shown = gw_path("redis%s://%s:%s", c->tls ? "s" : "", c->host, c->port);
	return 0;
}

struct gw_redis *gw_redis_new(const char *url)
{
	struct gw_redis *c = calloc(1, sizeof(*c));

	if (!c) {
		gw_fail(-ENOMEM, "no memory for a connection");
		return NULL;
	}
	c->fd = -1;
	if (parse_url(c, url)) {
		gw_redis_free(c);
		gw_fail(-EINVAL,
			"not the URL of a Redis server; write redis://[USER:PASSWORD@]HOST:PORT[/DB], "
			"or rediss://...[?ca=FILE[&cert=FILE&key=FILE]], with %%XX for special "
			"characters");
		return NULL;
	}
	return c;
}

static void disconnect(struct gw_redis *c)
{
	if (c->session)
		gnutls_deinit(c->session);
	if (c->credentials)
		gnutls_certificate_free_credentials(c->credentials);
	if (c->reader)
		redisReaderFree(c->reader);
	if (c->fd >= 0)
		close(c->fd);
	c->session = NULL;
	c->credentials = NULL;
	c->reader = NULL;
	c->answered = false;
	c->fd = -1;
}

void gw_redis_free(struct gw_redis *c)
{
	disconnect(c);
	free(c->host);
	free(c->port);
	free(c->user);
	free(c->password);
	free(c->db);
	free(c->ca);
	free(c->cert);
	free(c->key);
	free(c->shown);
	free(c);
}

static int failed(const struct gw_redis *c, int err)
{
	return gw_fail(-err, "registry %s: %s", c->shown,
		       err == ETIMEDOUT	   ? "no answer in time"
		       : err == ECONNRESET ? "it closed the connection"
					   : strerror(err));
}

static int tls_failed(const struct gw_redis *c, int code)
{
	if (code == GNUTLS_E_PREMATURE_TERMINATION || code == GNUTLS_E_PULL_ERROR ||
	    code == GNUTLS_E_PUSH_ERROR)
		return failed(c, ECONNRESET);
	if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR && c->session) {
		gnutls_datum_t why = { NULL, 0 };

		gnutls_certificate_verification_status_print(
			gnutls_session_get_verify_cert_status(c->session), GNUTLS_CRT_X509, &why,
			0);
		code = gw_fail(-EACCES, "registry %s: %s Name its authority with ?ca=FILE",
			       c->shown, why.data ? (const char *)why.data : "");
		gnutls_free(why.data);
		return code;
	}
	return gw_fail(-EPROTO, "registry %s: TLS: %s", c->shown, gnutls_strerror(code));
}

/* Wait until the socket is ready for @events. */
static int wait_for(const struct gw_redis *c, short events)
{
	struct pollfd pfd = { .fd = c->fd, .events = events };
	int n;

	do {
		n = poll(&pfd, 1, gw_poll_ms(c->deadline));
	} while (n < 0 && errno == EINTR);
	return n > 0 ? 0 : failed(c, n ? errno : ETIMEDOUT);
}

/*
 * A name is looked up by a thread of libc's, which is left to itself when it
 * takes too long: no time limit can be given to a name server.
 */
static int look_up(const struct gw_redis *c, struct addrinfo **list)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST };
	struct {
		struct gaicb request;
		struct addrinfo hints;
		char host[NI_MAXHOST], port[NI_MAXSERV];
	} * lookup;
	const struct gaicb *waiting[1];
	const int64_t left = c->deadline - gw_now();
	struct timespec limit = { left > 0 ? left / GW_S : 0, left > 0 ? left % GW_S : 0 };
	struct gaicb *request;
	int rc;

	if (!getaddrinfo(c->host, c->port, &hints, list))
		return 0;
	lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return failed(c, ENOMEM);
	hints.ai_flags = AI_NUMERICSERV;
	lookup->hints = hints;
	snprintf(lookup->host, sizeof(lookup->host), "%s", c->host);
	snprintf(lookup->port, sizeof(lookup->port), "%s", c->port);
	request = &lookup->request;
	*request = (struct gaicb){ .ar_name = lookup->host,
				   .ar_service = lookup->port,
				   .ar_request = &lookup->hints };
	waiting[0] = request;
	rc = getaddrinfo_a(GAI_NOWAIT, &request, 1, NULL);
	while (!rc && gai_error(request) == EAI_INPROGRESS && gw_now() < c->deadline)
		gai_suspend(waiting, 1, &limit);
	if (!rc)
		rc = gai_error(request);
	if (rc == EAI_INPROGRESS && gai_cancel(request) != EAI_CANCELED)
		return failed(c, ETIMEDOUT); /* the thread still uses what it was given */
	*list = rc ? NULL : request->ar_result;
	free(lookup);
	if (rc == EAI_INPROGRESS)
		return failed(c, ETIMEDOUT);
	return rc ? gw_fail(-ENOENT, "registry %s: %s", c->shown, gai_strerror(rc)) : 0;
}

static int reach(struct gw_redis *c)
{
	struct addrinfo *list = NULL;
	int rc = look_up(c, &list), one = 1, err = 0;
	socklen_t len = sizeof(err);

	if (rc || !list)
		return rc ? rc : failed(c, EHOSTUNREACH);
	c->fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || (connect(c->fd, list->ai_addr, list->ai_addrlen) && errno != EINPROGRESS))
		err = errno;
	freeaddrinfo(list);
	if (err)
		return failed(c, err);
	rc = wait_for(c, POLLOUT);
	if (rc)
		return rc;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err)
		return failed(c, err);
	if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		return failed(c, errno);
	return 0;
}

static bool is_ip(const char *host)
{
	return strchr(host, ':') || strspn(host, "0123456789.") == strlen(host);
}

static int trust(struct gw_redis *c)
{
	int rc = gnutls_certificate_allocate_credentials(&c->credentials);

	if (rc)
		return tls_failed(c, rc);
	rc = c->ca ? gnutls_certificate_set_x509_trust_file(c->credentials, c->ca,
							    GNUTLS_X509_FMT_PEM)
		   : gnutls_certificate_set_x509_system_trust(c->credentials);
	if (rc <= 0)
		return gw_fail(-ENOENT, "registry %s: no certificate can be read in %s", c->shown,
			       c->ca ? c->ca : "the host's store; name one with ?ca=FILE");
	rc = c->cert ? gnutls_certificate_set_x509_key_file(c->credentials, c->cert, c->key,
							    GNUTLS_X509_FMT_PEM)
		     : 0;
	if (rc < 0)
		return gw_fail(-EINVAL, "registry %s: %s and %s: %s", c->shown, c->cert, c->key,
			       gnutls_strerror(rc));
	return 0;
}

static int start_tls(struct gw_redis *c)
{
	int rc = trust(c);

	if (rc)
		return rc;
	rc = gnutls_init(&c->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (!rc)
		rc = gnutls_set_default_priority(c->session);
	if (!rc)
		rc = gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials);
	if (!rc && !is_ip(c->host))
		rc = gnutls_server_name_set(c->session, GNUTLS_NAME_DNS, c->host, strlen(c->host));
	if (rc)
		return tls_failed(c, rc);
	gnutls_session_set_verify_cert(c->session, c->host, 0);
	gnutls_transport_set_int(c->session, c->fd);
	while ((rc = gnutls_handshake(c->session)) < 0) {
		if (rc != GNUTLS_E_AGAIN && rc != GNUTLS_E_INTERRUPTED && gnutls_error_is_fatal(rc))
			return tls_failed(c, rc);
		if (rc != GNUTLS_E_AGAIN)
			continue;
		rc = wait_for(c, gnutls_record_get_direction(c->session) ? POLLOUT : POLLIN);
		if (rc)
			return rc;
	}
	return 0;
}

/* What the socket takes or gives at once: bytes, 0 if it must be waited for, or -errno. */
static long some(struct gw_redis *c, void *buf, size_t len, bool out)
{
	ssize_t n;

	if (c->session) {
		n = out ? gnutls_record_send(c->session, buf, len)
			: gnutls_record_recv(c->session, buf, len);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			return 0;
		if (n < 0)
			return tls_failed(c, (int)n);
	} else {
		n = out ? send(c->fd, buf, len, MSG_NOSIGNAL) : recv(c->fd, buf, len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0)
			return failed(c, errno == EPIPE ? ECONNRESET : errno);
	}
	return n ? n : failed(c, ECONNRESET);
}

static int send_all(struct gw_redis *c, char *bytes, size_t len)
{
	while (len) {
		const long n = some(c, bytes, len, true);
		const int rc = n < 0 ? (int)n : n ? 0 : wait_for(c, POLLOUT);

		if (rc)
			return rc;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive(struct gw_redis *c, redisReply **reply)
{
	char buf[16384];
	size_t total = 0;

	for (;;) {
		void *one = NULL;
		long n;
		int rc;

		if (redisReaderGetReply(c->reader, &one))
			return gw_fail(-EPROTO, "registry %s: %s", c->shown, c->reader->errstr);
		*reply = one;
		if (one)
			return 0;
		n = some(c, buf, sizeof(buf), false);
		rc = n < 0 ? (int)n : n ? 0 : wait_for(c, POLLIN);
		if (rc)
			return rc;
		c->answered |= n > 0;
		/* An endless reply must not outlast the deadline by always being there. */
		if (gw_now() > c->deadline)
			return failed(c, ETIMEDOUT);
		total += (size_t)n;
		if (total > GW_REDIS_REPLY_MAX)
			return failed(c, EMSGSIZE);
		if (n && redisReaderFeed(c->reader, buf, (size_t)n))
			return gw_fail(-EPROTO, "registry %s: %s", c->shown, c->reader->errstr);
	}
}

static int exchange(struct gw_redis *c, int argc, const char *const argv[], redisReply **reply)
{
	char *command = NULL;
	int len, rc;

	len = redisFormatCommandArgv(&command, argc, (const char **)(uintptr_t)argv, NULL);
	if (len < 0)
		return failed(c, ENOMEM);
	rc = send_all(c, command, (size_t)len);
	free(command);
	if (!rc)
		rc = receive(c, reply);
	if (!rc && *reply && (*reply)->type == REDIS_REPLY_ERROR) {
		const char *text = (*reply)->str;
		const bool denied = !strncmp(text, "NOAUTH", 6) || !strncmp(text, "WRONGPASS", 9) ||
				    !strncmp(text, "NOPERM", 6);

		rc = gw_fail(denied ? -EACCES : -EIO, "registry %s: %s%s", c->shown, text,
			     denied ? " Give user and password in its URL" : "");
		freeReplyObject(*reply);
		*reply = NULL;
	}
	return rc;
}

/*
 * Our handshake of TLS 1.3 is over before the server has seen our certificate, or that
 * there is none. Its refusal follows, and a reset that may get here first and then is
 * all that can be read.
 */
static int explain(const struct gw_redis *c, int rc)
{
	if (rc != -ECONNRESET || !c->session || c->answered)
		return rc;
	return gw_fail(-EPROTO,
		       "registry %s: TLS: it closed the connection before its first answer; does "
		       "it ask for %s certificate? See ?cert=FILE&key=FILE",
		       c->shown, c->cert ? "another" : "a");
}

/* Connect, and say who we are. */
static int begin(struct gw_redis *c)
{
	const char *auth[3] = { "AUTH", c->user ? c->user : c->password, c->password };
	const char *select[2] = { "SELECT", c->db };
	redisReply *reply = NULL;
	int rc = reach(c);

	if (!rc && c->tls)
		rc = start_tls(c);
	if (rc)
		return rc;
	c->reader = redisReaderCreate();
	if (!c->reader)
		return failed(c, ENOMEM);
	if (c->password)
		rc = exchange(c, c->user ? 3 : 2, auth, &reply);
	freeReplyObject(reply);
	reply = NULL;
	if (!rc && c->db)
		rc = exchange(c, 2, select, &reply);
	freeReplyObject(reply);
	return rc;
}

int gw_redis_call(struct gw_redis *c, int argc, const char *const argv[], int64_t deadline,
		  redisReply **reply)
{
	c->deadline = deadline;
	*reply = NULL;
	for (;;) {
		const bool fresh = c->fd < 0;
		int rc = fresh ? begin(c) : 0;

		if (!rc)
			rc = exchange(c, argc, argv, reply);
		if (!rc)
			return 0;
		if (fresh)
			rc = explain(c, rc);
		/* What was not read would be the next call's answer. */
		disconnect(c);
		if (fresh || rc != -ECONNRESET || gw_now() >= deadline)
			return rc;
	}
}
