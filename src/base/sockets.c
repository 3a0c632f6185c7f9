// SPDX-License-Identifier: GPL-2.0-or-later
/* sockets.c - what the sockets of one host need; see sockets.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "cleanup.h"
#include "io.h"
#include "sockets.h"

/*
 * @path as an address: by way of its folder, which is opened for it, if it is too long
 * itself. 0 or -errno.
 */
static int address(struct sockaddr_un *addr, const char *path, int *folder)
{
	const char *slash = strrchr(path, '/');
	gw_autofree char *dir = NULL;
	int n;

	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	*folder = -1;
	if (strlen(path) < sizeof(addr->sun_path)) {
		memcpy(addr->sun_path, path, strlen(path));
		return 0;
	}
	dir = slash ? gw_path("%.*s/", (int)(slash - path), path) : gw_path(".");
	*folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*folder < 0)
		return -errno;
	n = snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/%s", *folder,
		     slash ? slash + 1 : path);
	return n < (int)sizeof(addr->sun_path) ? 0 : -ENAMETOOLONG;
}

int gw_unix_bind(int fd, const char *path)
{
	struct sockaddr_un addr;
	gw_autofd int folder = -1;
	int rc = address(&addr, path, &folder);

	/* The name gets the mode that the socket has: at no time is it anybody else's. */
	if (!rc && (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&addr, sizeof(addr))))
		rc = -errno;
	return rc;
}

int gw_unix_connect(int fd, const char *path)
{
	struct sockaddr_un addr;
	gw_autofd int folder = -1;
	int rc = address(&addr, path, &folder);

	if (!rc && connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		rc = -errno;
	return rc;
}

int gw_send_fd(int sock, const void *buf, size_t len, int fd, int flags)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	size_t sent = 0;

	do {
		struct iovec iov = { (char *)buf + sent, len - sent };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		/* It goes with the first byte. */
		if (fd >= 0 && !sent) {
			struct cmsghdr *c;

			msg.msg_control = control;
			msg.msg_controllen = sizeof(control);
			c = CMSG_FIRSTHDR(&msg);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(c), &fd, sizeof(int));
		}
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		sent += (size_t)n;
	} while (sent < len);
	return 0;
}

long gw_recv_fd(int sock, void *buf, size_t len, int *fd, int flags)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	ssize_t n;

	*fd = -1;
	do
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return n;
}
