// SPDX-License-Identifier: GPL-2.0-or-later
/* peer.c - the daemon's --listen socket; see peer.h. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "frame.h"
#include "log.h"
#include "peer.h"
#include "peers.h"
#include "transport.h"

#define OPEN_BYTES     (GW_FRAME_HEADER + GW_OPEN_LEN)
#define OPEN_NS	       (10 * GW_S)
#define CALLERS_MAX    256
#define CALLERS_OF_ONE 80 /* a migration's connections, and some */

struct caller {
	struct gw_peers *peers;
	struct caller *next;
	int fd;
	struct gw_watch *watch;
	int64_t deadline;
	struct sockaddr_storage from;
	uint8_t buf[OPEN_BYTES];
	size_t used;
};

struct gw_peers {
	struct gw_loop *loop;
	struct gw_jobs *jobs;
	struct gw_registrar *registrar;
	int fd;
	struct gw_watch *watch;
	struct caller *callers;
	unsigned int nr_callers;
};

/* Forget a caller; its descriptor is returned, open. */
static int release(struct caller *c)
{
	struct caller **at = &c->peers->callers;
	int fd = c->fd;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->peers->nr_callers--;
	gw_loop_remove(c->peers->loop, c->watch);
	free(c);
	return fd;
}

/* Tell a caller why not. The reply is small, so it never waits. */
static void refuse(int fd)
{
	struct gw_transport *t;

	gw_info("refused a connection: %s", gw_error());
	t = gw_peer_accept(fd);
	if (t)
		gw_frame_send_buf(t, GW_MSG_ERROR, 0, gw_error(), strlen(gw_error()));
	gw_transport_close(&t);
}

/* Whether OPEN has come whole and is sound. */
static int parse(const struct caller *c, struct gw_open *open, uint16_t *version)
{
	struct gw_frame f = { 0 };
	int rc = gw_frame_parse_header(c->buf, &f);

	if (!rc && (f.type != GW_MSG_OPEN || f.len != GW_OPEN_LEN))
		rc = gw_fail(-EPROTO, "a connection that begins with %s", gw_message_name(f.type));
	if (!rc)
		rc = gw_frame_check(c->buf, c->buf + GW_FRAME_HEADER, GW_OPEN_LEN);
	return rc ? rc : gw_open_decode(c->buf + GW_FRAME_HEADER, GW_OPEN_LEN, open, version);
}

static void hand_on(struct caller *c)
{
	struct gw_registrar *registrar = c->peers->registrar;
	struct gw_jobs *jobs = c->peers->jobs;
	struct gw_open open;
	uint16_t version = 0;
	int rc = parse(c, &open, &version);
	int fd = release(c);

	if (!rc && (open.kind == GW_OPEN_SETTLE || open.kind == GW_OPEN_FORBID)) {
		gw_jobs_settle(jobs, fd, open.id, open.kind == GW_OPEN_FORBID);
		return;
	}
	if (!rc && open.kind == GW_OPEN_CLAIM) {
		gw_jobs_claim(jobs, fd, open.id);
		return;
	}
	if (!rc && open.kind == GW_OPEN_MIGRATE)
		rc = gw_jobs_receive(jobs, fd, &open, version);
	else if (!rc && open.kind == GW_OPEN_REGISTRY)
		rc = gw_registrar_serve(registrar, fd, version);
	else if (!rc && open.kind == GW_OPEN_PAGING)
		rc = gw_jobs_paging(jobs, fd, &open);
	else if (!rc && open.kind == GW_OPEN_STORAGE)
		rc = gw_jobs_storage(jobs, fd, &open);
	else if (!rc && open.kind == GW_OPEN_MEMORY)
		rc = gw_jobs_hold(jobs, fd, &open, version);
	else if (!rc)
		rc = gw_jobs_stream(jobs, fd, &open);
	if (rc)
		refuse(fd);
}

static void on_caller(void *arg)
{
	struct caller *c = arg;
	ssize_t n = recv(c->fd, c->buf + c->used, OPEN_BYTES - c->used, MSG_DONTWAIT);
	struct gw_frame f;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(release(c));
		return;
	}
	c->used += (size_t)n;
	/* A stranger is told at its first header, not when it stops talking. */
	if (c->used >= GW_FRAME_HEADER && c->used < OPEN_BYTES && gw_frame_parse_header(c->buf, &f))
		refuse(release(c));
	else if (c->used == OPEN_BYTES)
		hand_on(c);
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	/* Who has one IPv6 address has a network of them. */
	return a->ss_family == AF_INET6 && !memcmp(&a6->sin6_addr, &b6->sin6_addr, 8) &&
	       (!IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr) ||
		!memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)));
}

/* Before one more: whoever has kept silent for the longest time goes, where it is crowded. */
static void make_room(struct gw_peers *p, const struct sockaddr_storage *from)
{
	struct caller *oldest = NULL, *oldest_of_it = NULL;
	unsigned int of_it = 0;

	/* The newest come first. */
	for (struct caller *c = p->callers; c; c = c->next) {
		oldest = c;
		if (same_host(&c->from, from)) {
			oldest_of_it = c;
			of_it++;
		}
	}
	if (of_it >= CALLERS_OF_ONE)
		close(release(oldest_of_it));
	else if (p->nr_callers >= CALLERS_MAX)
		close(release(oldest));
}

static void on_accept(void *arg)
{
	struct gw_peers *p = arg;
	gw_autofd int fd = gw_loop_accept(p->loop, p->watch);
	struct sockaddr_storage from = { 0 };
	socklen_t len = sizeof(from);
	struct caller *c;

	if (fd < 0)
		return;
	if (getpeername(fd, (struct sockaddr *)&from, &len))
		return; /* it has gone already */
	make_room(p, &from);
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->peers = p;
	c->from = from;
	c->fd = fd;
	c->deadline = gw_now() + OPEN_NS;
	c->watch = gw_loop_add(p->loop, fd, on_caller, c);
	if (!c->watch) {
		free(c);
		return;
	}
	gw_steal_fd(&fd);
	c->next = p->callers;
	p->callers = c;
	p->nr_callers++;
}

struct gw_peers *gw_peers_new(struct gw_loop *loop, struct gw_jobs *jobs,
			      struct gw_registrar *registrar, const char *address)
{
	struct gw_peers *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->loop = loop;
	p->jobs = jobs;
	p->registrar = registrar;
	p->fd = gw_tcp_listen(address);
	if (p->fd >= 0)
		p->watch = gw_loop_add(loop, p->fd, on_accept, p);
	if (!p->watch) {
		if (p->fd >= 0)
			close(p->fd);
		free(p);
		return NULL;
	}
	return p;
}

void gw_peers_expire(struct gw_peers *p)
{
	struct caller *next;

	for (struct caller *c = p ? p->callers : NULL; c; c = next) {
		next = c->next;
		if (gw_now() > c->deadline)
			close(release(c));
	}
}

void gw_peers_free(struct gw_peers *p)
{
	if (!p)
		return;
	while (p->callers)
		close(release(p->callers)); /* NOLINT: release() takes it off the list */
	gw_loop_remove(p->loop, p->watch);
	close(p->fd);
	free(p);
}
