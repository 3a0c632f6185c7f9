// SPDX-License-Identifier: GPL-2.0-or-later
/* machine.c - the destination's states and the road through them; diagram in dest.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "away.h"
#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "dest.h"
#include "digest.h"
#include "error.h"
#include "feature.h"
#include "io.h"
#include "kept.h"
#include "log.h"
#include "paging.h"
#include "pipeline.h"
#include "receive.h"
#include "teleport.h"
#include "verify.h"

/* A live source sends at least this often while the guest is stopped, and QEMU loads faster. */
#define SWITCHOVER_NS (15 * GW_S)
#define JOIN_NS	      (10 * GW_S) /* between two streams */
#define ROUND_NS      (60 * GW_S) /* without a byte on any stream */

/* So often it is looked at whether pages still come while QEMU loads. */
#define PAGING_LOOK_NS (100 * GW_MS)

static const unsigned int follows[] = {
#define BIT(s) (1U << (s))
	[GW_DEST_SETUP] = BIT(GW_DEST_RECEIVING) | BIT(GW_DEST_FAILED),
	[GW_DEST_RECEIVING] = BIT(GW_DEST_LOADING) | BIT(GW_DEST_FAILED),
	[GW_DEST_LOADING] = BIT(GW_DEST_LOADED) | BIT(GW_DEST_FAILED),
	[GW_DEST_LOADED] = BIT(GW_DEST_RUNNING) | BIT(GW_DEST_PAGING) | BIT(GW_DEST_FAILED),
	[GW_DEST_PAGING] = BIT(GW_DEST_RUNNING),
	[GW_DEST_PAUSED] = BIT(GW_DEST_RUNNING),
	[GW_DEST_RUNNING] = 0,
	[GW_DEST_FAILED] = 0,
#undef BIT
};

static int enter(struct gw_dest *d, enum gw_dest_state next)
{
	if (!(follows[d->state] >> next & 1))
		return gw_fail(-EPROTO, "internal error: state %d cannot follow %d", next,
			       d->state);
	d->state = next;
	d->ops->report(d->env);
	return 0;
}

int gw_dest_next(struct gw_dest *d, int64_t deadline)
{
	int rc = d->held_back ? 0 : gw_frame_recv(d->control, &d->inbox, deadline);

	d->held_back = false;
	if (gw_transport_lost(rc) || rc == -EPROTO)
		return gw_fail_prefix(rc, "source: ");
	if (rc) /* something here, not the source */
		return rc;
	if (d->inbox.type == GW_MSG_ERROR || d->inbox.type == GW_MSG_CANCEL)
		return gw_fail(-EREMOTEIO, "source: %.*s", (int)d->inbox.len,
			       (const char *)d->inbox.payload);
	return 0;
}

static int unexpected(const struct gw_dest *d)
{
	return gw_fail(-EPROTO, "source: sent %s, which is not due now",
		       gw_message_name(d->inbox.type));
}

/* What the source can do: nothing else is asked of it. Which stages it reads, we need not know. */
static int note_features(struct gw_dest *d, const json_t *define)
{
	uint32_t features = 0;
	int rc = d->version < 2 ? 0
				: gw_names_parse(json_object_get(define, "features"),
						 GW_FEATURE_COUNT, gw_feature_name, &features);

	d->features = features & GW_FEATURES_ALL;
	d->keyed = d->features & 1U << GW_FEATURE_KEYED;
	if (!rc && d->keyed)
		rc = gw_secret_parse(json_string_value(json_object_get(define, "secret")),
				     d->secret);
	if (rc)
		return gw_fail_prefix(-EPROTO, "source: ");
	return d->keyed ? gw_key_init(&d->key, d->secret) : 0;
}

static char *make_ready(const struct gw_dest *d)
{
	const bool pages = d->page_ops && !d->no_paging;
	const uint32_t without =
		(pages ? 0 : 1U << GW_FEATURE_POSTCOPY | 1U << GW_FEATURE_PUSH_DISKS) |
		(d->ops->split ? 0 : 1U << GW_FEATURE_SPLIT | 1U << GW_FEATURE_CARRIED);
	json_t *json = json_pack("{s:s,s:o*}", "host", d->host, "image", gw_kept_offer(d));
	char *text;

	if (json && d->version >= 2) {
		json_object_set_new(json, "features",
				    gw_names_json(GW_FEATURES_ALL & ~without, GW_FEATURE_COUNT,
						  gw_feature_name));
		json_object_set_new(json, "stages", gw_stages_json());
		if (d->disks && d->keyed)
			json_object_set(json, "disks", d->disks);
	}
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

static int want_paging(struct gw_dest *d, json_int_t connections)
{
	if (!connections)
		return 0;
	if (!d->page_ops)
		return gw_fail(-EPROTO, "source: wants post-copy, which was not offered");
	if (connections < GW_PAGING_MIN || connections > GW_PAGING_MAX)
		return gw_fail(-EPROTO, "source: wants %lld paging connections",
			       (long long)connections);
	d->paging = (unsigned int)connections;
	return 0;
}

static int want_split(struct gw_dest *d, const json_t *split)
{
	if (!split)
		return 0;
	/* What was not offered cannot be asked for, and what excludes it is not. */
	d->split.carried = json_is_true(json_object_get(split, "carried"));
	if (!d->ops->split || !(d->features >> GW_FEATURE_SPLIT & 1) ||
	    !(d->features >> GW_FEATURE_AGAIN & 1) || d->paging ||
	    (d->split.carried && !(d->features >> GW_FEATURE_CARRIED & 1)))
		return gw_fail(-EPROTO, "source: wants the VM's memory on several hosts, which was "
					"not offered");
	d->wants_split = split;
	return 0;
}

static int want_storage(struct gw_dest *d, const json_t *storage)
{
	if (storage && (!d->ops->storage_sealed || !(d->features >> GW_FEATURE_STORAGE & 1)))
		return gw_fail(-EPROTO, "source: wants disks copied, which was not offered");
	d->wants_storage = storage;
	return 0;
}

static int want_disks(struct gw_dest *d, const json_t *define)
{
	const json_t *map = json_object_get(define, "disk-map");

	d->wants_disks = d->keyed && d->ops->fetch &&
			 json_is_true(json_object_get(define, "disks"));
	if (map && (!json_is_object(map) || !d->wants_disks))
		return gw_fail(-EPROTO, "source: wants replicas of disks, and no disks");
	d->disk_map = map;
	return 0;
}

static int define(struct gw_dest *d)
{
	json_t *json = json_loadb((const char *)d->inbox.payload, d->inbox.len, 0, NULL);
	json_int_t streams = json_integer_value(json_object_get(json, "streams"));
	json_int_t resident = json_integer_value(json_object_get(json, "resident"));
	const json_t *reuse;
	int rc;

	if (streams < 1 || streams > GW_DEST_STREAMS_MAX || resident < 0) {
		json_decref(json);
		return gw_fail(-EPROTO, "source: a definition with %lld streams",
			       (long long)streams);
	}
	d->nr_streams = (unsigned int)streams;
	rc = want_paging(d, json_integer_value(json_object_get(json, "postcopy")));
	if (rc) {
		json_decref(json);
		return rc;
	}
	d->run = json_is_true(json_object_get(json, "run"));
	gw_copy_whole(d->listen, sizeof(d->listen),
		      json_string_value(json_object_get(json, "listen")));
	gw_legs_parse(&d->legs, json_object_get(json, "legs"));
	rc = note_features(d, json);
	/* Without a secret nothing that is kept can be believed. */
	reuse = d->keyed ? json_object_get(json, "reuse") : NULL;
	if (!rc)
		rc = want_split(d, json_object_get(json, "split"));
	if (d->wants_split)
		reuse = NULL;
	if (!rc)
		rc = want_storage(d, json_object_get(json, "storage"));
	if (!rc)
		rc = want_disks(d, json);
	if (!rc)
		rc = gw_kept_heed(d, reuse);
	if (!rc)
		rc = d->ops->prepare(d->env, json_object_get(json, "definition"),
				     (uint64_t)resident, reuse, &d->memory, &d->kept);
	d->wants_split = d->wants_storage = d->disk_map = NULL;
	json_decref(json);
	return rc;
}

void gw_dest_wait(struct gw_dest *d, const char *what)
{
	/* A source that is gone is noticed by whoever waits for it next. */
	if (d->version >= 2 && gw_frame_send_buf(d->control, GW_MSG_WAIT, 0, what, strlen(what)))
		gw_error_clear();
}

static int join_streams(struct gw_dest *d)
{
	for (unsigned int n = 0; n < d->nr_streams; n++) {
		int64_t deadline = d->ops->now(d->env) + JOIN_NS;
		unsigned int index = 0;
		struct gw_transport *t = d->ops->stream(d->env, &index, deadline);

		if (!t)
			return -ETIMEDOUT;
		if (index >= d->nr_streams || d->streams[index]) {
			gw_transport_close(&t);
			return gw_fail(-EPROTO, "source: stream %u joined twice or is too many",
				       index);
		}
		d->streams[index] = t;
	}
	return 0;
}

static int gw_dest_setup(struct gw_dest *d)
{
	gw_autofree char *ready = NULL;
	int rc = gw_frame_send(d->control, GW_MSG_ACCEPT, d->version, NULL, 0);

	if (!rc)
		rc = gw_dest_next(d, d->ops->now(d->env) + JOIN_NS);
	if (!rc && d->inbox.type != GW_MSG_DEFINE)
		rc = unexpected(d);
	if (!rc)
		rc = define(d);
	if (rc)
		return rc;
	ready = make_ready(d);
	if (!ready)
		return gw_fail(-ENOMEM, "no memory for an answer");
	rc = gw_frame_send_buf(d->control, GW_MSG_READY, 0, ready, strlen(ready));
	if (!rc)
		rc = gw_kept_send_absent(d);
	return rc ? rc : join_streams(d);
}

/* The source compares disks: tell it what blocks of them are here. */
static int tell_samples(struct gw_dest *d)
{
	gw_autofree struct gw_samples *blocks = calloc(1, sizeof(*blocks));
	gw_autofree uint8_t *digests = calloc(GW_SAMPLES_MAX, GW_DIGEST_LEN);
	int rc = blocks && digests ? gw_samples_parse(d->inbox.payload, d->inbox.len, blocks)
				   : gw_fail(-ENOMEM, "no memory to compare disks with");

	if (!rc)
		rc = d->ops->disks(d->env, blocks);
	for (size_t i = 0; !rc && i < blocks->nr; i++)
		gw_put_digest(digests + i * GW_DIGEST_LEN, blocks->at[i].digest);
	if (!rc)
		rc = gw_frame_send_buf(d->control, GW_MSG_SAMPLED, 0, digests,
				       blocks->nr * GW_DIGEST_LEN);
	if (blocks)
		gw_samples_free(blocks);
	return rc;
}

/* Whether the message in the inbox is about device state; nothing else may come once some has. */
static bool is_of_device(const struct gw_dest *d)
{
	return d->held.len || d->inbox.type == GW_MSG_DEVICE ||
	       d->inbox.type == GW_MSG_DEVICE_END || d->inbox.type == GW_MSG_LOAD ||
	       d->inbox.type == GW_MSG_RESUMED;
}

/* QEMU does not get its device state before nobody takes that back any more: @load. */
static int hold(struct gw_dest *d, bool *load)
{
	const bool again = d->features >> GW_FEATURE_AGAIN & 1;
	int rc;

	switch (d->inbox.type) {
	case GW_MSG_DEVICE:
		if (d->whole || !d->inbox.len)
			return unexpected(d);
		rc = gw_held_add(&d->held, d->inbox.payload, d->inbox.len);
		return rc ? gw_fail_prefix(rc, "source: ") : 0;
	case GW_MSG_DEVICE_END:
		if (d->whole || !d->held.len)
			return unexpected(d);
		d->whole = true;
		*load = !again;
		return again ? gw_frame_send(d->control, GW_MSG_HELD, 0, NULL, 0) : 0;
	case GW_MSG_LOAD:
		*load = again && d->whole;
		d->leg_us = d->inbox.arg;
		return *load ? 0 : unexpected(d);
	case GW_MSG_RESUMED:
		/* After MISSING no round can follow. */
		if (!again || !d->held.len || d->page)
			return unexpected(d);
		gw_held_drop(&d->held);
		d->whole = false;
		return 0;
	default:
		return unexpected(d);
	}
}

/* Post-copy: some pages, and with the last of them all, that are to follow the guest. */
static bool is_missing(const struct gw_dest *d)
{
	return d->inbox.type == GW_MSG_MISSING || d->inbox.type == GW_MSG_MISSING_END;
}

static int take_missing(struct gw_dest *d)
{
	if (!d->paging || (d->held.len && !d->whole))
		return unexpected(d);
	/* The rounds are over, and what comes on the streams with them. */
	gw_receive_hand_over(d);
	gw_receive_stop(d);
	return gw_page_heed(d);
}

static bool is_away(const struct gw_dest *d)
{
	return d->inbox.type == GW_MSG_AWAY || d->inbox.type == GW_MSG_AWAY_END;
}

/* Between rounds, or once all device state is here. */
static int take_away(struct gw_dest *d)
{
	return !d->split.table || (d->held.len && !d->whole) ? unexpected(d) : gw_away_heed(d);
}

static int round_done(struct gw_dest *d, uint64_t round)
{
	uint8_t ns[8];

	gw_put64(ns, (uint64_t)d->disks_ns);
	return gw_frame_send_buf(d->control, GW_MSG_ROUND_DONE, round, ns,
				 d->disks && d->keyed ? sizeof(ns) : 0);
}

/* A message between rounds. */
static int heed_source(struct gw_dest *d, uint64_t *round)
{
	int rc;

	switch (d->inbox.type) {
	case GW_MSG_VERIFY:
		return gw_dest_verify(d);
	case GW_MSG_HISTORY:
		return d->split.table && !*round ? gw_away_history(d) : unexpected(d);
	case GW_MSG_WANT:
		return d->kept.departure && !*round ? gw_kept_tell(d) : unexpected(d);
	case GW_MSG_COMPARE:
		return d->kept.later ? gw_kept_compared(d) : unexpected(d);
	case GW_MSG_SAMPLE:
		if (!d->keyed || !d->ops->disks || *round || d->samples >= GW_SAMPLES_ASKED)
			return unexpected(d);
		d->samples++;
		return tell_samples(d);
	case GW_MSG_ROUND_END:
		if (d->inbox.arg != *round + 1 || d->page)
			return unexpected(d);
		d->split.sealed = false;
		rc = gw_receive_wait(d, ++*round, ROUND_NS);
		return rc ? rc : round_done(d, *round);
	default:
		return unexpected(d);
	}
}

/* Rounds, verification and device state, until that is to be loaded. */
static int gw_dest_receive(struct gw_dest *d)
{
	int rc = gw_receive_start(d);
	uint64_t round = 0;
	bool load = false;

	while (!rc && !load) {
		/* With the guest stopped there it is not silent for long, on whatever link. */
		rc = gw_dest_next(d, d->held.len ? d->ops->now(d->env) + ROUND_NS : GW_FOREVER);
		if (!rc && is_missing(d))
			rc = take_missing(d);
		else if (!rc && is_away(d))
			rc = take_away(d);
		else if (!rc && is_of_device(d))
			rc = round || d->paging ? hold(d, &load) : unexpected(d);
		else if (!rc)
			rc = heed_source(d, &round);
	}
	/* What nobody has compared is compared by who pages. */
	if (!rc && (d->page ? !gw_page_sealed(d) : !round || d->kept.unchecked))
		rc = unexpected(d);
	if (!rc && d->split.table && !d->split.sealed)
		rc = unexpected(d);
	return rc;
}

/* What has taken since @began belongs to the leg, of which the source told the rest. */
static void count_leg(struct gw_dest *d, int64_t began)
{
	const int64_t ns = d->ops->now(d->env) - began;

	/* It told nothing, or something absurd: invariant 10. */
	if (!d->leg_us || d->leg_us > GW_LEG_US_MAX || ns < 0)
		d->leg_us = 0;
	else
		d->leg_us += (uint64_t)(ns / GW_US);
}

static int write_part(void *arg, const void *bytes, size_t len)
{
	struct gw_dest *d = arg;

	return d->ops->device_write(d->env, bytes, len);
}

/* QEMU may look at memory meanwhile, and what keeps a page from it keeps it from its end. */
static int await_loaded(struct gw_dest *d)
{
	const int64_t end = d->ops->now(d->env) + SWITCHOVER_NS;
	int rc;

	do {
		const int64_t look = d->ops->now(d->env) + PAGING_LOOK_NS;

		rc = d->ops->device_end(d->env, d->page && look < end ? look : end);
	} while (rc == -ETIMEDOUT && d->ops->now(d->env) < end && !gw_page_failed(d));
	return rc;
}

/*
 * Every stream has reached the last barrier. QEMU looks at memory from the first
 * byte of its state on, and the guest after it: nobody else writes to it any more
 * (invariant 6), whatever the source may still send.
 */
static int gw_dest_load(struct gw_dest *d)
{
	const int64_t began = d->ops->now(d->env);
	int rc = enter(d, GW_DEST_LOADING);

	if (d->kept.later)
		d->ops->compare_end(d->env);
	gw_receive_stop(d);
	if (!rc && d->ops->storage_sealed)
		rc = d->ops->storage_sealed(d->env);
	if (!rc && d->split.table)
		rc = d->ops->split(d->env);
	if (!rc)
		rc = gw_held_give(&d->held, write_part, d);
	gw_held_drop(&d->held);
	if (!rc)
		rc = await_loaded(d);
	/* The reason, where there is one, and no QEMU that has nothing to load with. */
	if (rc && rc != -ECHILD && gw_page_failed(d))
		rc = gw_page_failed(d);
	if (!rc)
		rc = enter(d, GW_DEST_LOADED);
	count_leg(d, began);
	return rc ? rc : gw_frame_send(d->control, GW_MSG_LOADED, 0, NULL, 0);
}

/*
 * QEMU does not resume the guest: a disk is locked, for instance. Where it has
 * not taken a step this is a failure like any before COMMIT; else it is ours.
 */
static int refused(struct gw_dest *d, int rc)
{
	char why[GW_ERROR_MAX];

	snprintf(why, sizeof(why), "%s", gw_error());
	if (!gw_dest_never_ran(d->ops, d->env)) {
		d->committed = false;
		d->revoked = true;
	}
	return gw_fail(rc, "%s", why);
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

/* Serve it for a while; of a split VM others do that. */
static int pump(struct gw_dest *d)
{
	const int64_t until = d->ops->now(d->env) + GW_S;

	if (d->page)
		return gw_page_pump(d, until);
	d->ops->wait(d->env, never, NULL, until);
	return 0;
}

/* QEMU may wait for a page of the guest's itself, and its monitor with it: serve it meanwhile. */
static int resume(struct gw_dest *d)
{
	int rc = d->ops->guest_resume(d->env);

	while ((d->page || d->split.table) && rc && rc != -EREMOTEIO && rc != -EPIPE) {
		gw_warn("the guest is not resumed yet, its QEMU does not answer: %s", gw_error());
		rc = pump(d);
		if (rc)
			return rc == -ECHILD ? -EPIPE : rc;
		switch (d->ops->guest_ran(d->env)) {
		case GW_DEST_RAN:
			return 0;
		case GW_DEST_RAN_GONE:
			return gw_fail(-EPIPE, "its QEMU has ended");
		case GW_DEST_RAN_NEVER:
			rc = d->ops->guest_resume(d->env);
			break;
		case GW_DEST_RAN_UNKNOWN:
		default:
			rc = -ETIMEDOUT;
		}
	}
	return rc;
}

static int gw_dest_commit(struct gw_dest *d)
{
	const bool told = d->features >> GW_FEATURE_RUN & 1;
	int64_t began;
	int rc = gw_dest_next(d, d->ops->now(d->env) + gw_memory_hash_ns(d->memory));

	if (!rc && (d->inbox.type != GW_MSG_COMMIT || d->inbox.arg > told))
		rc = unexpected(d);
	if (rc)
		return rc;
	began = d->ops->now(d->env);
	if (told) /* as it was at its last stop, and not when it set out */
		d->run = d->inbox.arg;
	rc = d->ops->journal(d->env, GW_DEST_PHASE_COMMITTED);
	if (rc)
		return rc;
	d->committed = true;
	if (d->run)
		rc = resume(d);
	if (rc == -EREMOTEIO)
		return refused(d, rc);
	count_leg(d, began);
	if (!rc)
		rc = d->ops->journal(d->env, GW_DEST_PHASE_RUNNING);
	if (!rc)
		rc = enter(d, d->page ? GW_DEST_PAGING : GW_DEST_RUNNING);
	if (rc)
		return rc;
	if (d->run)
		d->ops->guest_announce(d->env);
	if (d->run)
		gw_legs_add(&d->legs, d->leg_us);
	/* The guest is ours, whether or not the source still hears it. */
	if (gw_frame_send(d->control, GW_MSG_RUNNING, 0, NULL, 0))
		gw_error_clear();
	return 0;
}

/* Why it ended; after COMMIT also how the guest stands, where that is certain. */
static void tell(struct gw_dest *d)
{
	const bool settled = d->revoked && d->version >= 2;

	if (gw_frame_send_buf(d->control, settled ? GW_MSG_SETTLED : GW_MSG_ERROR,
			      settled ? GW_OUTCOME_ABORTED : 0, d->error, strlen(d->error)))
		gw_error_clear();
}

static void close_all(struct gw_dest *d)
{
	gw_page_end(d);
	gw_receive_stop(d);
	gw_teleport_close(d->teleport);
	d->teleport = NULL;
	for (unsigned int i = 0; i < GW_DEST_STREAMS_MAX; i++)
		gw_transport_close(&d->streams[i]);
	gw_transport_close(&d->control);
	gw_frame_free(&d->inbox);
	gw_held_drop(&d->held);
	gw_bitmap_free(&d->kept.absent);
	json_decref(d->ids);
	json_decref(d->disks);
}

/* The guest runs here; some of its memory does not yet. */
static int serve(struct gw_dest *d)
{
	int rc = gw_page_serve(d);

	if (!rc)
		rc = enter(d, GW_DEST_RUNNING);
	if (rc)
		snprintf(d->error, sizeof(d->error), "%s", gw_error());
	close_all(d);
	return rc;
}

int gw_dest_page_on(struct gw_dest *d, enum gw_dest_phase phase, enum gw_dest_verdict verdict,
		    enum gw_outcome *outcome)
{
	int rc = gw_page_take_over(d);

	*outcome = GW_OUTCOME_UNKNOWN;
	d->committed = true;
	d->state = GW_DEST_PAUSED;
	while (!rc && *outcome == GW_OUTCOME_UNKNOWN) {
		*outcome = gw_dest_recover(d->ops, d->env, phase, d->run, verdict);
		/* Its QEMU may wait for a page. */
		if (*outcome == GW_OUTCOME_UNKNOWN)
			rc = gw_page_pump(d, d->ops->now(d->env) + GW_S);
	}
	/* Nobody has written down that it ran before its QEMU ended. */
	if (rc == -ECHILD && phase == GW_DEST_PHASE_COMMITTED && *outcome == GW_OUTCOME_UNKNOWN) {
		*outcome = GW_OUTCOME_LOST;
		rc = 0;
	}
	if (rc || *outcome != GW_OUTCOME_RUNNING) {
		if (rc)
			snprintf(d->error, sizeof(d->error), "%s", gw_error());
		close_all(d);
		return rc;
	}
	d->ops->report(d->env);
	return serve(d);
}

int gw_dest_run(struct gw_dest *d)
{
	int rc;

	d->state = GW_DEST_SETUP;
	rc = d->ops->journal(d->env, GW_DEST_PHASE_RECEIVING);
	if (!rc)
		rc = gw_dest_setup(d);
	if (!rc)
		rc = enter(d, GW_DEST_RECEIVING);
	if (!rc)
		rc = gw_dest_receive(d);
	if (!rc)
		rc = gw_dest_load(d);
	if (!rc)
		rc = gw_dest_commit(d);
	if (!rc && d->page)
		return serve(d);
	if (!rc && d->reuse && gw_kept_remember(d))
		gw_kept_unknown();
	if (rc) {
		snprintf(d->error, sizeof(d->error), "%s", gw_error());
		if (!d->committed) {
			enter(d, GW_DEST_FAILED);
			/* Before the source hears of it: then nothing is left when it tells. */
			gw_receive_stop(d);
			gw_page_end(d);
			d->ops->discard(d->env);
		}
		tell(d);
	}
	close_all(d);
	return rc;
}
