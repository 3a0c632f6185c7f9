// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * address.c - "HOST:PORT"; see address.h.
 *
 * The resolver may take half a minute, and cannot be interrupted: a thread of its
 * own asks it. Whoever waits may give up; the last of the two frees what they share.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "messages.h"

struct lookup {
	char host[NI_MAXHOST];
	char port[8];
	_Atomic int holders;
	int done; /* eventfd */
	struct addrinfo *list;
	int rc; /* of getaddrinfo() */
};

static void release(struct lookup *l)
{
	if (atomic_fetch_sub(&l->holders, 1) > 1)
		return;
	if (l->list)
		freeaddrinfo(l->list);
	close(l->done);
	free(l);
}

static int not_an_address(const char *address, bool listens)
{
	return gw_fail(-EINVAL, "'%s' is not an address: write %s, with a port from 1 to 65535",
		       address,
		       listens ? "IP:PORT, [IPV6]:PORT or :PORT"
			       : "HOST:PORT or "
				 "[IPV6]:PORT");
}

/* Cut @address in two. The brackets of an IPv6 address are taken off. */
static int split(const char *address, bool listens, char host[NI_MAXHOST], char port[8])
{
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	long number;

	if (!colon || len >= NI_MAXHOST || strlen(colon + 1) > 5 || !colon[1] ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return not_an_address(address, listens);
	number = strtol(colon + 1, NULL, 10);
	if (number > 65535 || (!number && !listens))
		return not_an_address(address, listens);
	memcpy(port, colon + 1, strlen(colon + 1) + 1);
	memcpy(host, address, len);
	host[len] = '\0';
	if (listens && !strcmp(host, "*"))
		host[0] = '\0';
	if (host[0] == '[' && len > 2 && host[len - 1] == ']') {
		host[len - 1] = '\0';
		memmove(host, host + 1, len - 1);
	} else if (strpbrk(host, ":[] ")) {
		return not_an_address(address, listens); /* perhaps IPv6 without brackets */
	}
	return host[0] || listens ? 0 : not_an_address(address, listens);
}

int gw_address_check(const char *address, bool listens)
{
	char host[NI_MAXHOST], port[8];

	if (strlen(address) >= GW_ADDRESS_MAX)
		return gw_fail(-EINVAL,
			       "the address '%s' is too long: at most %d bytes; write the host's "
			       "IP address",
			       address, GW_ADDRESS_MAX - 1);
	return split(address, listens, host, port);
}

static int ask_resolver(struct lookup *l, int flags)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_NUMERICSERV | flags };

	return getaddrinfo(l->host[0] ? l->host : NULL, l->port, &hints, &l->list);
}

static void *look_up(void *arg)
{
	struct lookup *l = arg;
	const uint64_t one = 1;

	l->rc = ask_resolver(l, 0);
	if (write(l->done, &one, sizeof(one)) != sizeof(one))
		abort(); /* an eventfd of ours takes one */
	release(l);
	return NULL;
}

static int start_thread(struct lookup *l)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	atomic_fetch_add(&l->holders, 1);
	rc = pthread_create(&thread, &attr, look_up, l);
	pthread_attr_destroy(&attr);
	if (!rc)
		return 0;
	atomic_fetch_sub(&l->holders, 1);
	return gw_fail(-rc, "no thread to look a name up: %s", strerror(rc));
}

static int wait_for(struct lookup *l, int64_t deadline, const struct gw_wake *wake)
{
	struct pollfd fds[2] = { { .fd = l->done, .events = POLLIN },
				 { .fd = wake ? wake->fd : -1, .events = POLLIN } };
	uint64_t one;

	for (;;) {
		int n = poll(fds, 2, gw_poll_ms(deadline)), rc;

		/* Read, not only seen: this orders the other thread's answer before us. */
		if (n > 0 && fds[0].revents)
			return read(l->done, &one, sizeof(one)) == sizeof(one)
				       ? 0
				       : gw_fail(-errno, "eventfd: %s", strerror(errno));
		if (n == 0)
			return gw_fail(-ETIMEDOUT,
				       "the name '%s' is not resolved in time; does DNS work here?",
				       l->host);
		rc = n > 0 && wake ? wake->fn(wake->arg) : 0;
		if (rc)
			return rc;
		fds[1].fd = wake ? wake->fd : -1;
	}
}

struct addrinfo *gw_address_resolve(const char *address, bool listens, int64_t deadline,
				    const struct gw_wake *wake, int *rc)
{
	struct lookup *l = calloc(1, sizeof(*l));
	struct addrinfo *list = NULL;

	if (!l) {
		*rc = gw_fail(-ENOMEM, "no memory");
		return NULL;
	}
	l->holders = 1;
	l->done = eventfd(0, EFD_CLOEXEC);
	*rc = l->done < 0 ? gw_fail(-errno, "eventfd: %s", strerror(errno))
			  : split(address, listens, l->host, l->port);
	/* What is a number needs no resolver. */
	if (!*rc)
		l->rc = ask_resolver(l, AI_NUMERICHOST | (listens ? AI_PASSIVE : 0));
	if (!*rc && l->rc) {
		*rc = start_thread(l);
		if (!*rc)
			*rc = wait_for(l, deadline, wake);
	}
	if (!*rc && l->rc)
		*rc = gw_fail(-EINVAL, "'%s' is not an address: %s", address, gai_strerror(l->rc));
	if (!*rc) {
		list = l->list;
		l->list = NULL;
	}
	release(l);
	return list;
}
