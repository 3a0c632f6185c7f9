/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * address.h - "HOST:PORT", as users write where a godwitd listens.
 *
 * HOST is an IPv4 address, an IPv6 address in brackets, or a name. PORT is a number
 * from 1 to 65535. Rules: a name that the resolver does not answer for never makes
 * anybody wait beyond a deadline; all addresses of a name are tried.
 */
#ifndef GW_ADDRESS_H
#define GW_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

/** struct gw_wake - what else somebody who waits for a peer heeds. */
struct gw_wake {
	int fd; /* -1: none */
	/* Called while @fd is readable: 0 to go on waiting, -errno (message recorded) to give up.
	 */
	int (*fn)(void *arg);
	void *arg;
};

/**
 * gw_address_check() - whether @address can be one, without looking any name up.
 * @listens: it is one to listen on: HOST may be empty or "*" (all addresses), and PORT 0
 *
 * Return: 0, or -EINVAL with a message.
 */
int gw_address_check(const char *address, bool listens);

/**
 * gw_address_resolve() - the socket addresses of @address, best first.
 * @deadline: ns
 * @wake: heeded meanwhile; may be NULL
 *
 * Return: a list for freeaddrinfo(), or NULL with a message; *rc says why.
 */
struct addrinfo *gw_address_resolve(const char *address, bool listens, int64_t deadline,
				    const struct gw_wake *wake, int *rc);

#endif
