/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * redis.h - one connection to a Redis or Valkey server, with or without TLS.
 *
 * hiredis writes the commands and reads the replies; the socket is ours,
 * because its own has a time limit for each read where we need one for the
 * whole call, and its TLS is missing in Debian 12. TLS is GnuTLS's: the
 * server's certificate must name the host of the URL, and be signed by one
 * that the host, or `ca`, trusts.
 */
#ifndef GW_REDIS_H
#define GW_REDIS_H

#include <hiredis/hiredis.h>
#include <stdint.h>

#define GW_REDIS_PORT "6379"

/* A reply of more bytes is given up. */
#define GW_REDIS_REPLY_MAX (16UL << 20)

struct gw_redis;

/**
 * gw_redis_new() - a connection as @url tells, not made yet.
 * Return: it, or NULL with what is wrong with @url.
 */
struct gw_redis *gw_redis_new(const char *url);
void gw_redis_free(struct gw_redis *c);

/**
 * gw_redis_call() - one command by @deadline (ns).
 * @reply: freeReplyObject(); never one of REDIS_REPLY_ERROR
 *
 * Connects where there is no connection; where an old one turns out to have
 * been closed, asks once more on a new one. So a command must be one that may
 * come twice. Return: 0 or -errno with a message that names the server.
 */
int gw_redis_call(struct gw_redis *c, int argc, const char *const argv[], int64_t deadline,
		  redisReply **reply);

#endif
