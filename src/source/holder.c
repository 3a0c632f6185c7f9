// SPDX-License-Identifier: GPL-2.0-or-later
/* holder.c - what is said to a host that holds pages of the VM, and heard from it; see holder.h. */
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "clock.h"
#include "error.h"
#include "feature.h"
#include "internal.h"
#include "io.h"
#include "peers.h"

int gw_holder_connect(struct gw_holder *h, enum gw_open_kind kind, unsigned int index,
		      struct gw_transport **out)
{
	struct gw_open open = { .kind = (uint16_t)kind, .stream = index };
	int64_t deadline = h->ops->now(h->env) + GW_ANSWER_NS;
	struct gw_transport *t = h->ops->connect(h->env, deadline);
	struct gw_frame f = { 0 };
	int rc;

	if (!t)
		return -ECONNREFUSED;
	memcpy(open.id, h->id, GW_ID_LEN);
	rc = gw_peer_open(t, &open, GW_MSG_ACCEPT, &f, deadline);
	if (rc == -EREMOTEIO || rc == -EPROTO)
		gw_fail_prefix(rc, "destination: ");
	else if (!rc && h->control && f.arg != h->version)
		rc = gw_fail(-EPROTO, "destination: speaks version %llu on a stream, %u before",
			     (unsigned long long)f.arg, h->version);
	if (!rc)
		h->version = (uint16_t)f.arg;
	gw_frame_free(&f);
	if (rc)
		gw_transport_close(&t);
	*out = t;
	return rc;
}

int gw_holder_open(struct gw_holder *h)
{
	int rc = gw_holder_connect(h, GW_OPEN_MIGRATE, 0, &h->control);

	if (!rc)
		h->round_trip = h->control->round_trip;
	return rc;
}

/* The control connection works, and so do the streams before this one. */
int gw_holder_open_streams(struct gw_holder *h, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		int rc = gw_holder_connect(h, GW_OPEN_STREAM, i, &h->streams[i]);

		/* It knows nothing of us any more: on the control connection it has said why. */
		if (rc == -EREMOTEIO)
			rc = -ECONNRESET;
		if (rc)
			return gw_fail_prefix(rc, "connection %u of %u (%u work): ", i + 2, nr + 1,
					      i + 1);
		h->nr_streams++;
	}
	return 0;
}

static int said(const struct gw_holder *h)
{
	return gw_fail(-EREMOTEIO, "destination: %.*s", (int)h->inbox.len,
		       (const char *)h->inbox.payload);
}

/* What may come before what is waited for, and is none of the waiter's business. */
static bool is_aside(struct gw_holder *h, int *rc)
{
	if (h->inbox.type == GW_MSG_BLOCKS && h->late) {
		h->late--;
		return true;
	}
	if (h->inbox.type != GW_MSG_REFUSED || !h->on_refused)
		return false;
	*rc = h->on_refused(h->refused_arg);
	return !*rc;
}

int gw_holder_expect(struct gw_holder *h, unsigned int type, int64_t deadline)
{
	int rc;

	do
		rc = gw_frame_recv(h->control, &h->inbox, deadline);
	while (!rc && is_aside(h, &rc));
	h->waited = !rc && h->inbox.type == GW_MSG_WAIT;
	if (gw_transport_lost(rc) || rc == -EPROTO)
		return gw_fail_prefix(rc, "destination: ");
	if (rc) /* something here, such as a cancellation */
		return rc;
	if (h->inbox.type == GW_MSG_ERROR || h->inbox.type == GW_MSG_CANCEL)
		return said(h);
	if (type == GW_MSG_RUNNING && h->inbox.type == GW_MSG_SETTLED &&
	    h->inbox.arg == GW_OUTCOME_ABORTED) {
		h->revoked = true;
		return said(h);
	}
	if (h->inbox.type != type)
		return gw_fail(-EPROTO, "destination: sent %s where %s was due",
			       gw_message_name(h->inbox.type), gw_message_name(type));
	return 0;
}

static void note_waits_for(struct gw_holder *h)
{
	snprintf(h->waits_for, sizeof(h->waits_for), "%.*s", (int)h->inbox.len,
		 (const char *)h->inbox.payload);
	for (char *c = h->waits_for; *c; c++)
		if (*c < ' ' || *c > '~') /* it goes to a terminal */
			*c = '?';
	h->ops->report(h->env);
}

int gw_holder_expect_patiently(struct gw_holder *h, unsigned int type, int64_t silence, int64_t by)
{
	int rc;

	for (;;) {
		const int64_t next = h->ops->now(h->env) + silence;

		rc = gw_holder_expect(h, type, next < by ? next : by);
		if (!rc || !h->waited)
			break;
		if (h->ops->now(h->env) >= by) {
			rc = gw_fail(-ETIMEDOUT, "destination: has not done in time with: %.*s",
				     (int)h->inbox.len, (const char *)h->inbox.payload);
			break;
		}
		note_waits_for(h);
	}
	h->waits_for[0] = '\0';
	return rc;
}

/* What it can do that its release may lack: from here on it is asked for nothing else. */
static int note_features(struct gw_holder *h, const json_t *ready)
{
	uint32_t features;
	int rc;

	h->features = 0;
	h->stages = GW_STAGES_FIRST;
	if (h->version < 2)
		return 0;
	rc = gw_names_parse(json_object_get(ready, "features"), GW_FEATURE_COUNT, gw_feature_name,
			    &features);
	if (!rc)
		rc = gw_names_parse(json_object_get(ready, "stages"), GW_STAGE_MAX, gw_stage_name,
				    &h->stages);
	h->features = features & GW_FEATURES_ALL;
	return rc ? gw_fail_prefix(rc, "destination: ") : 0;
}

/* Their numbers in records are those in this list. */
static int note_disks(struct gw_holder *h, const json_t *disks)
{
	const json_t *one;
	size_t i;

	if (!disks)
		return 0;
	if (!json_is_array(disks) || json_array_size(disks) > GW_HINT_DISKS)
		return gw_fail(-EPROTO, "destination: a list of disks that is none");
	json_array_foreach(disks, i, one)
		if (!json_is_string(one))
			return gw_fail(-EPROTO, "destination: a disk without a name");
	if (json_array_size(disks))
		h->disks = json_deep_copy(disks);
	return 0;
}

int gw_holder_heed_ready(struct gw_holder *h)
{
	json_t *ready = json_loadb((const char *)h->inbox.payload, h->inbox.len, 0, NULL);
	const char *host = json_string_value(json_object_get(ready, "host"));
	int rc = note_features(h, ready);

	if (!rc)
		rc = note_disks(h, json_object_get(ready, "disks"));
	/* One that is too long is none. */
	gw_copy_whole(h->host, sizeof(h->host), host);
	json_decref(ready);
	return rc;
}

int gw_holder_wait_round(struct gw_holder *h, int64_t deadline)
{
	int rc = h->on_refused
			 ? gw_holder_expect_patiently(h, GW_MSG_ROUND_DONE, GW_ROUND_NS, deadline)
			 : gw_holder_expect(h, GW_MSG_ROUND_DONE, deadline);

	if (!rc && h->inbox.arg != h->round)
		rc = gw_fail(-EPROTO, "destination: ended round %llu where %llu was due",
			     (unsigned long long)h->inbox.arg, (unsigned long long)h->round);
	return rc;
}

void gw_holder_send_by(struct gw_holder *h, int64_t deadline)
{
	h->control->send_by = deadline;
	for (unsigned int i = 0; i < h->nr_streams; i++)
		h->streams[i]->send_by = deadline;
}

void gw_holder_halt(struct gw_holder *h)
{
	for (unsigned int i = 0; i < h->nr_streams; i++)
		h->streams[i]->ops->shutdown(h->streams[i]);
}

uint64_t gw_holder_wire_bytes(const struct gw_holder *h)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < h->nr_streams; i++)
		bytes += h->streams[i]->sent;
	return bytes;
}

uint64_t gw_holder_transferred(const struct gw_holder *h)
{
	uint64_t bytes = h->transferred;

	if (h->control)
		bytes += h->control->sent + h->control->received;
	for (unsigned int i = 0; i < h->nr_streams; i++)
		bytes += h->streams[i]->sent + h->streams[i]->received;
	return bytes;
}

void gw_holder_close(struct gw_holder *h)
{
	const unsigned int nr = h->nr_streams;

	h->transferred = gw_holder_transferred(h);
	h->nr_streams = 0;
	gw_transport_close(&h->control);
	for (unsigned int i = 0; i < nr; i++)
		gw_transport_close(&h->streams[i]);
	gw_frame_free(&h->inbox);
	gw_bitmap_free(&h->absent);
	json_decref(h->disks);
	h->disks = NULL;
}
