/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sockets.h - what the sockets of one host need: paths, and descriptors that are passed on. */
#ifndef GW_SOCKETS_H
#define GW_SOCKETS_H

#include <stddef.h>

/**
 * gw_unix_bind() - give @fd the name @path, for nobody but us.
 *
 * @path may be longer than the 107 characters of a socket's address.
 *
 * Return: 0 or -errno; no message.
 */
int gw_unix_bind(int fd, const char *path);

/** gw_unix_connect() - connect @fd to @path, of any length. 0 or -errno; no message. */
int gw_unix_connect(int fd, const char *path);

/**
 * gw_send_fd() - send @buf whole, and with it a descriptor (-1: none).
 * @flags: of sendmsg(), beside MSG_NOSIGNAL
 *
 * Return: 0; -EAGAIN if it would wait and shall not (nothing was sent), or if a
 * socket's send time limit is over; -errno; no message.
 */
int gw_send_fd(int sock, const void *buf, size_t len, int fd, int flags);

/**
 * gw_recv_fd() - receive once, and with it a descriptor, if one was sent.
 * @flags: of recvmsg(), beside MSG_CMSG_CLOEXEC
 * @fd: owned by the caller, or -1
 *
 * Return: bytes, 0 at the end; -errno; no message.
 */
long gw_recv_fd(int sock, void *buf, size_t len, int *fd, int flags);

#endif
