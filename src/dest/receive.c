// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * receive.c - one receiver per stream: check, decode, place, count barriers.
 *
 * A receiver sees only PAGES and BARRIER frames; barriers must come in order.
 * The first failure is kept for the machine, which waits in gw_receive_wait().
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "away.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "paging.h"
#include "pipeline.h"
#include "place.h"
#include "receive.h"
#include "teleport.h"

struct gw_receive {
	struct gw_dest *d;
	struct gw_place place;
	uint64_t bytes; /* received before this round */
	int64_t began;	/* it */
	struct gw_decoder decoders[GW_DEST_STREAMS_MAX];
	pthread_mutex_t lock; /* rc, lost and message */
	int rc;
	bool lost; /* the connection ended, and control will say why */
	char message[GW_ERROR_MAX];
	_Atomic bool failed;
	_Atomic uint64_t reached[GW_DEST_STREAMS_MAX]; /* last barrier of each stream */
	uint64_t wanted;			       /* by gw_receive_wait() */
};

static int receive_frame(struct gw_receive *r, unsigned int i, const struct gw_frame *f)
{
	switch (f->type) {
	case GW_MSG_PAGES:
		return gw_pipeline_decode(&r->decoders[i], f->arg, f->payload, f->len)
			       ?: gw_away_check(r->d);
	case GW_MSG_BARRIER:
		if (f->arg != r->reached[i] + 1)
			return gw_fail(-EPROTO, "barrier %llu on a stream that is at %llu",
				       (unsigned long long)f->arg,
				       (unsigned long long)r->reached[i]);
		r->reached[i] = f->arg;
		r->d->ops->notify(r->d->env);
		return 0;
	default:
		return gw_fail(-EPROTO, "a %s frame on a stream", gw_message_name(f->type));
	}
}

static void receive_stream(void *arg, unsigned int i)
{
	struct gw_receive *r = arg;
	struct gw_frame f = { 0 };
	int rc = 0;

	while (!rc) {
		rc = gw_frame_recv(r->d->streams[i], &f, GW_FOREVER);
		if (!rc)
			rc = receive_frame(r, i, &f);
	}
	gw_frame_free(&f);
	{
		gw_locked(&r->lock);
		if (!r->rc) {
			r->rc = rc;
			r->lost = gw_transport_lost(rc);
			snprintf(r->message, sizeof(r->message), "%s", gw_error());
		}
	}
	r->failed = true;
	r->d->ops->notify(r->d->env);
}

static int fetch(struct gw_sink *sink, uint64_t page, unsigned int count, struct gw_hint at,
		 const uint8_t *digests)
{
	return gw_teleport_put(((struct gw_place *)sink)->teleport, page, count, at, digests);
}

/* Disks are read only where the digests that decide are the VM's own. */
static int start_teleport(struct gw_receive *r)
{
	if (!r->d->disks || !r->d->keyed)
		return 0;
	r->place.sink.fetch = fetch;
	return gw_teleport_open(r->d, &r->place.sink, &r->place.teleport);
}

int gw_receive_start(struct gw_dest *d)
{
	struct gw_receive *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return gw_fail(-ENOMEM, "no memory for the streams");
	d->receive = r;
	r->d = d;
	pthread_mutex_init(&r->lock, NULL);
	gw_place_init(&r->place, d->memory);
	for (unsigned int i = 0; i < GW_DEST_STREAMS_MAX; i++)
		gw_decoder_init(&r->decoders[i], &r->place.sink, d->memory->nr_pages);
	r->began = d->ops->now(d->env);
	rc = start_teleport(r);
	return rc ? rc : d->ops->spawn(d->env, d->nr_streams, receive_stream, r);
}

static bool round_reached(void *arg)
{
	struct gw_receive *r = arg;

	for (unsigned int i = 0; i < r->d->nr_streams; i++)
		if (r->reached[i] < r->wanted)
			return r->failed;
	return true;
}

static uint64_t received(const struct gw_dest *d)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < d->nr_streams; i++)
		bytes += d->streams[i]->received;
	return bytes;
}

/* What the streams have put aside is placed or told of, too. */
static int settle(struct gw_receive *r)
{
	struct gw_dest *d = r->d;
	const int64_t ns = d->ops->now(d->env) - r->began;
	const uint64_t bytes = received(d) - r->bytes;
	int rc = 0;

	if (r->place.teleport)
		rc = gw_teleport_settle(r->place.teleport,
					ns > 0 ? (uint64_t)((double)bytes * GW_S / (double)ns) : 0);
	r->bytes = received(d);
	r->began = d->ops->now(d->env);
	return rc;
}

int gw_receive_wait(struct gw_dest *d, uint64_t round, int64_t silence)
{
	struct gw_receive *r = d->receive;
	uint64_t before, now = received(d);
	int rc;

	r->wanted = round;
	do {
		before = now;
		rc = d->ops->wait(d->env, round_reached, r, d->ops->now(d->env) + silence);
		now = received(d);
	} while (rc == -ETIMEDOUT && now != before);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < d->nr_streams; i++) {
		if (r->reached[i] >= round)
			continue;
		gw_locked(&r->lock);
		return gw_fail(r->rc, "%s", r->message);
	}
	return settle(r);
}

int gw_dest_heed(struct gw_dest *d)
{
	struct gw_receive *r = d->receive;

	if (d->page)
		return gw_page_failed(d);
	if (!r || !r->failed)
		return 0;
	gw_locked(&r->lock);
	return r->lost ? 0 : gw_fail(r->rc, "%s", r->message);
}

void gw_receive_hand_over(struct gw_dest *d)
{
	if (!d->receive || !(d->features >> GW_FEATURE_PUSH_DISKS & 1))
		return;
	d->teleport = d->receive->place.teleport;
	d->receive->place.teleport = NULL;
}

void gw_receive_stop(struct gw_dest *d)
{
	if (!d->receive)
		return;
	for (unsigned int i = 0; i < d->nr_streams; i++)
		d->streams[i]->ops->shutdown(d->streams[i]);
	d->ops->join(d->env);
	gw_teleport_close(d->receive->place.teleport);
	for (unsigned int i = 0; i < GW_DEST_STREAMS_MAX; i++)
		gw_decoder_free(&d->receive->decoders[i]);
	pthread_mutex_destroy(&d->receive->lock);
	free(d->receive);
	d->receive = NULL;
}
