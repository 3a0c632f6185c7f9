// SPDX-License-Identifier: GPL-2.0-or-later
/* peers.c - the one way to another host's godwitd; see peers.h. */
#include <errno.h>

#include "error.h"
#include "peers.h"

struct gw_transport *gw_peer_connect(const struct gw_peer *peer, int64_t deadline)
{
	return gw_tcp_dial(peer->address, deadline, &peer->wake);
}

struct gw_transport *gw_peer_accept(int fd)
{
	return gw_tcp_adopt(fd);
}

int gw_peer_open(struct gw_transport *t, const struct gw_open *open, unsigned int answer,
		 struct gw_frame *f, int64_t deadline)
{
	struct gw_open mine = *open;
	uint8_t wire[GW_OPEN_LEN];
	int rc;

	mine.version_min = open->version_min ? open->version_min : GW_VERSION_MIN;
	mine.version_max = GW_VERSION;
	gw_open_encode(&mine, wire);
	rc = gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire));
	if (!rc)
		rc = gw_frame_recv(t, f, deadline);
	if (rc)
		return rc;
	if (f->type == GW_MSG_ERROR)
		return gw_fail(-EREMOTEIO, "%.*s", (int)f->len, (const char *)f->payload);
	if (f->type != answer)
		return gw_fail(-EPROTO, "%s where %s was due", gw_message_name(f->type),
			       gw_message_name(answer));
	if (answer == GW_MSG_ACCEPT && (f->arg < GW_VERSION_MIN || f->arg > GW_VERSION))
		return gw_fail(-EPROTO, "version %llu, which was not offered",
			       (unsigned long long)f->arg);
	return 0;
}
