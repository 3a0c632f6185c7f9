// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * machine.c - the source's states and the road through them; diagram in source.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "holes.h"
#include "internal.h"
#include "pipeline.h"

/* How long a destination that ended it may take to clear up before it says why. */
#define REASON_NS (3 * GW_S)

/* Between two attempts to resume a guest that does not. */
#define RESUME_AGAIN_NS (100 * GW_MS)

/* Which states may follow which. */
static const unsigned int follows[] = {
#define BIT(s) (1U << (s))
	[GW_SOURCE_SETUP] = BIT(GW_SOURCE_ACTIVE) | BIT(GW_SOURCE_FAILED) |
			    BIT(GW_SOURCE_CANCELLING),
	[GW_SOURCE_ACTIVE] = BIT(GW_SOURCE_PRE_SWITCHOVER) | BIT(GW_SOURCE_FAILED) |
			     BIT(GW_SOURCE_CANCELLING),
	[GW_SOURCE_PRE_SWITCHOVER] = BIT(GW_SOURCE_DEVICE) | BIT(GW_SOURCE_ACTIVE) |
				     BIT(GW_SOURCE_FAILED) | BIT(GW_SOURCE_CANCELLING),
	[GW_SOURCE_DEVICE] = BIT(GW_SOURCE_COMPLETED) | BIT(GW_SOURCE_POSTCOPY_ACTIVE) |
			     BIT(GW_SOURCE_ACTIVE) | BIT(GW_SOURCE_FAILED) |
			     BIT(GW_SOURCE_CANCELLING) | BIT(GW_SOURCE_IN_DOUBT),
	[GW_SOURCE_POSTCOPY_ACTIVE] = BIT(GW_SOURCE_POSTCOPY_PAUSED) | BIT(GW_SOURCE_COMPLETED) |
				      BIT(GW_SOURCE_IN_DOUBT),
	[GW_SOURCE_POSTCOPY_PAUSED] = BIT(GW_SOURCE_POSTCOPY_ACTIVE) | BIT(GW_SOURCE_COMPLETED) |
				      BIT(GW_SOURCE_IN_DOUBT),
	[GW_SOURCE_COMPLETED] = 0,
	[GW_SOURCE_FAILED] = 0,
	[GW_SOURCE_CANCELLING] = BIT(GW_SOURCE_CANCELLED),
	[GW_SOURCE_CANCELLED] = 0,
	[GW_SOURCE_IN_DOUBT] = 0,
#undef BIT
};

static const char *const names[] = {
	[GW_SOURCE_SETUP] = "setup",
	[GW_SOURCE_ACTIVE] = "active",
	[GW_SOURCE_PRE_SWITCHOVER] = "pre-switchover",
	[GW_SOURCE_DEVICE] = "device",
	[GW_SOURCE_POSTCOPY_ACTIVE] = "postcopy-active",
	[GW_SOURCE_POSTCOPY_PAUSED] = "postcopy-paused",
	[GW_SOURCE_COMPLETED] = "completed",
	[GW_SOURCE_FAILED] = "failed",
	[GW_SOURCE_CANCELLING] = "cancelling",
	[GW_SOURCE_CANCELLED] = "cancelled",
	[GW_SOURCE_IN_DOUBT] = "failed",
};

const char *gw_source_state_name(enum gw_source_state state)
{
	return names[state];
}

int gw_source_enter(struct gw_source *s, enum gw_source_state next)
{
	if (!(follows[s->state] >> next & 1))
		return gw_fail(-EPROTO, "internal error: state %s cannot follow %s", names[next],
			       names[s->state]);
	s->state = next;
	s->ops->report(s->env);
	return 0;
}

/* What the destination is told of the VM, and of what we can do. */
static char *make_define(const struct gw_source *s)
{
	json_t *define = json_pack("{s:O,s:b,s:i,s:I,s:s*,s:o*}", "definition", s->definition,
				   "run", s->ran, "streams", (int)s->params.streams, "resident",
				   (json_int_t)gw_memory_resident(s->memory), "listen", s->listen,
				   "reuse", gw_reuse_offer(s));
	char secret[2 * GW_SECRET_LEN + 1];
	char *text;

	if (define && s->holder.version >= 2) {
		json_object_set_new(define, "features", gw_features_json());
		json_object_set_new(define, "stages", gw_stages_json());
		json_object_set_new(define, "legs", gw_legs_json(&s->legs));
		gw_secret_format(s->secret, secret);
		json_object_set_new(define, "secret", json_string(secret));
		/* Without the feature it does not read these. */
		if (s->spread)
			json_object_set(define, "split", (json_t *)(uintptr_t)s->spread->define);
		if (s->carried)
			json_object_set(define, "split", (json_t *)(uintptr_t)s->carried->define);
		if (s->params.postcopy)
			json_object_set_new(define, "postcopy", json_integer(s->paging));
		if (s->storage)
			json_object_set(define, "storage", (json_t *)(uintptr_t)s->storage);
		if (gw_teleport_wanted(s))
			json_object_set_new(define, "disks", json_true());
		if (gw_teleport_wanted(s) && s->disk_map)
			json_object_set(define, "disk-map", (json_t *)(uintptr_t)s->disk_map);
	}
	text = define ? json_dumps(define, JSON_COMPACT) : NULL;
	json_decref(define);
	return text;
}

/* One connection for what the guest waits for, as many to push as there are streams. */
static unsigned int paging_connections(const struct gw_source *s)
{
	const unsigned int n = s->params.streams + 1;

	return n > GW_PAGING_MAX ? GW_PAGING_MAX : n;
}

static int check_postcopy(struct gw_source *s)
{
	/* What is missing is told between device state and LOAD. */
	if (!s->params.postcopy || (gw_holder_has(&s->holder, GW_FEATURE_POSTCOPY) &&
				    gw_holder_has(&s->holder, GW_FEATURE_AGAIN)))
		return 0;
	if (s->params.postcopy == GW_POSTCOPY_NOW)
		return gw_fail(
			-ENOTSUP,
			"host '%s' cannot run a guest before its memory is there: its godwitd "
			"is older, or its kernel lacks what that needs (see godwit check "
			"there); move it without --postcopy now",
			s->holder.host);
	s->params.postcopy = GW_POSTCOPY_NEVER;
	return 0;
}

static int start_tracking(struct gw_source *s)
{
	int rc = gw_bitmap_init(&s->due, s->memory->nr_pages);

	if (!rc)
		rc = gw_bitmap_init(&s->again, s->memory->nr_pages);
	/* Where pages leave, files are punched all the time; and its tracker knows which. */
	if (!rc)
		rc = s->carried ? gw_holes_open_deaf(&s->holes, s->memory)
				: gw_holes_open(&s->holes, s->memory, s->reports);
	if (rc)
		return rc;
	s->tracker = s->ops->track(s->env, &s->resumed, &s->since_arrival);
	/* What such a guest gave back, and read, before we came looks like what it never touched.
	 */
	s->since_arrival &= !s->discards;
	return s->tracker ? gw_defer_start(s) : -ENOTSUP;
}

/*
 * The destination starts its QEMU, which takes a while. What the guest writes meanwhile is a guess
 * at what it writes next. Not where it is known what it has written since it came here: a
 * destination that refuses the VM now would cost its next move that knowledge. Nor where it is
 * still to be looked what it accesses, which would pass for writes.
 */
static int await_ready(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	int rc = 0;

	if (gw_defer_wanted(s) && !s->ledger && !s->spread)
		rc = start_tracking(s);
	if (!rc && s->defer.mode) {
		h->control->tick_arg = s;
		h->control->on_tick = gw_defer_tick;
	}
	if (!rc)
		rc = gw_holder_expect_patiently(h, GW_MSG_READY, GW_READY_NS, GW_FOREVER);
	h->control->on_tick = NULL;
	return rc;
}

/* Setup: the destination has everything the VM needs before a byte of memory moves. */
static int gw_source_setup(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	gw_autofree char *text = NULL;
	int rc = s->ops->guest_look(s->env, &s->ran);

	if (!rc)
		rc = gw_key_init(&s->key, s->secret);
	s->params.pages.key = &s->key;
	if (!rc && s->ledger && !gw_ledger_has_key(s->ledger, s->key.id))
		s->ledger = NULL; /* its digests tell nothing */
	if (!rc)
		rc = s->ops->journal(s->env, GW_SOURCE_MOVING);
	if (!rc)
		rc = gw_holder_open(h);
	if (rc)
		return rc;
	s->paging = paging_connections(s);
	text = make_define(s);
	if (!text)
		return gw_fail(-ENOMEM, "no memory for the VM's definition");
	rc = gw_frame_send_buf(h->control, GW_MSG_DEFINE, 0, text, strlen(text));
	if (!rc)
		rc = await_ready(s);
	if (!rc)
		rc = gw_holder_heed_ready(h);
	if (!rc)
		rc = check_postcopy(s);
	if (!rc)
		rc = gw_teleport_start(s);
	/* Without keys no digest that it kept can be believed. */
	s->params.reuse &= gw_holder_has(h, GW_FEATURE_KEYED);
	if (!rc)
		rc = gw_reuse_answer(s);
	if (!rc)
		rc = gw_holder_open_streams(h, s->params.streams);
	if (!rc)
		rc = gw_source_compare_disks(s);
	if (!rc)
		rc = gw_source_copy_storage(s);
	if (!rc && s->spread)
		rc = gw_spread_open(s);
	if (!rc && s->carried)
		rc = gw_carried_open(s);
	return rc;
}

/* Pages that one thread scans at a time: 256 MiB. */
#define SCAN_PART (256 * GW_CHUNK_PAGES)

struct scan {
	struct gw_source *s;
	bool heard; /* something was punched */
	_Atomic size_t next;
	_Atomic bool halted;
};

static int scan_parts(void *arg, unsigned int i)
{
	struct scan *pass = arg;
	struct gw_source *s = pass->s;

	(void)i;
	while (!pass->halted) {
		size_t first = pass->next++ * SCAN_PART;
		int rc;

		if (first >= s->memory->nr_pages)
			return 0;
		rc = s->tracker->ops->scan(s->tracker, first, SCAN_PART, &s->due);
		if (!rc && pass->heard)
			rc = gw_holes_due(s->holes, first, SCAN_PART, &s->holder.encoder.held,
					  &s->due);
		if (rc)
			return rc;
		if (s->carried)
			gw_carried_due(s, first, SCAN_PART);
	}
	return gw_fail(GW_HALTED, "the scan was ended");
}

static void scan_halt(void *arg)
{
	((struct scan *)arg)->halted = true;
}

/* Collect what is due now (invariant 4): written, unknown, or emptied. */
int gw_source_scan(struct gw_source *s)
{
	struct scan pass = { .s = s };
	const int64_t began = s->ops->now(s->env);
	const struct gw_tracker_ops *ops = s->tracker->ops;
	int rc;

	/* What a last round that was cut has not sent stays due. */
	if (s->unsent == s->memory->nr_pages)
		gw_bitmap_zero(&s->due);
	else
		gw_bitmap_clear_range(&s->due, 0, s->unsent);
	s->unsent = 0;
	rc = gw_holes_heard(s->holes);
	if (rc < 0)
		return rc;
	pass.heard = rc;
	/* A thread costs more than it saves where memory is small. */
	if (s->memory->nr_pages <= SCAN_PART)
		rc = scan_parts(&pass, 0);
	else
		rc = s->ops->parallel(s->env, s->params.streams, scan_parts, &pass, scan_halt,
				      NULL);
	if (!rc && ops->forget)
		rc = ops->forget(s->tracker);
	gw_teleport_due(s);
	s->scan_ns = s->ops->now(s->env) - began;
	return rc;
}

/*
 * Make it stand still, whoever it is that stops it: its user may have paused or
 * continued it at any moment before. Only what is stopped here is resumed here.
 */
int gw_source_stop(struct gw_source *s)
{
	bool ours = true;
	int rc = s->ops->guest_look(s->env, &s->runs);

	s->over = false;
	s->deadline = GW_FOREVER; /* one that does not run anyway misses nothing */
	if (rc || !s->runs)
		return rc;
	s->deadline = s->ops->now(s->env) + s->params.downtime_limit_ms * GW_MS;
	s->stopped = true; /* even a failed stop may have stopped it: resume it then */
	rc = s->ops->journal(s->env, GW_SOURCE_MOVING);
	if (!rc)
		rc = s->ops->guest_stop(s->env, &ours);
	if (ours)
		return rc;
	s->runs = s->stopped = false;
	s->deadline = GW_FOREVER;
	if (s->ops->journal(s->env, GW_SOURCE_MOVING) && !rc)
		rc = -EIO;
	return rc;
}

int gw_source_resume(struct gw_source *s)
{
	int rc;

	gw_carried_thaw(s); /* the guest may wait for what only the sub-hosts have */
	if (!s->stopped)
		return 0;
	rc = s->ops->guest_resume(s->env);
	if (rc)
		return rc;
	s->stopped = false;
	s->deadline = GW_FOREVER;
	/* To resume what runs does no harm, so it does not matter if that stays written. */
	if (s->ops->journal(s->env, GW_SOURCE_MOVING))
		gw_error_clear();
	return 0;
}

void gw_source_tick(struct gw_source *s)
{
	const int64_t now = s->ops->now(s->env);

	if (now < s->deadline)
		return;
	/* Did the last scan see a guest that stood still? Afterwards nobody can tell. */
	if (!s->over)
		s->disturbed = s->ops->guest_stayed(s->env) != 0;
	s->over = true;
	/* One that does not resume is tried again here, and told of in give_up(). */
	s->deadline = now + RESUME_AGAIN_NS;
	if (gw_source_resume(s))
		gw_error_clear();
	else
		gw_holder_send_by(&s->holder, 0); /* what is still under way keeps nobody */
}

static int due_everything(struct gw_source *s)
{
	struct gw_memory_walk walk = gw_memory_walk(s->memory);
	size_t first, stop;
	int rc;

	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0)
		gw_bitmap_set_range(&s->due, first, stop - first);
	return rc;
}

/* Pages written by now, without forgetting that they were. */
static int peek_all(struct gw_source *s, uint64_t *pages)
{
	int rc;

	gw_bitmap_zero(&s->again);
	rc = s->tracker->ops->peek(s->tracker, 0, s->memory->nr_pages, &s->again);
	*pages = gw_bitmap_count(&s->again, 0, s->memory->nr_pages);
	/* All of it is due next, though it is known to have changed little: not while stopped. */
	if (gw_holes_surprise(s->holes))
		*pages = gw_bitmap_count(&s->holder.encoder.held.filled, 0, s->memory->nr_pages);
	/* And what a last round that was cut has left. */
	*pages += gw_source_unsent(s);
	*pages += gw_defer_left(s, &s->again);
	*pages += s->teleport.nr_lacks;
	return rc;
}

/* What the first round is to look at. */
static int first_due(struct gw_source *s)
{
	int rc = s->resumed ? gw_source_scan(s) : 0;

	if (rc)
		return rc;
	gw_defer_early(s);
	if (s->holder.image)
		return gw_reuse_due(s);
	return due_everything(s);
}

/*
 * The rest is to follow the guest (serve.c). What direct I/O has changed unseen is found as
 * ever.
 */
static int go_before(struct gw_source *s, struct gw_converge *c)
{
	int rc = 0;

	s->postcopy = true;
	if (!s->nr_rounds)
		rc = gw_teleport_ask(s);
	/* Without a round there was no scan after which something could land unseen. */
	if (s->direct_io && !c->compared && s->nr_rounds) {
		rc = gw_source_quiesce(s, true);
		c->compared = !rc;
	}
	return rc;
}

/* Switchovers by rounds alone that may be taken back, before what is left follows the guest. */
#define TAKEN_BACK_MAX 2

/* Whether what is left follows the guest, whatever more rounds would come to. */
static bool is_decided(const struct gw_source *s)
{
	return s->postcopy || s->params.postcopy == GW_POSTCOPY_NOW ||
	       (s->params.postcopy == GW_POSTCOPY_AUTO && s->attempts >= TAKEN_BACK_MAX);
}

/*
 * Whether rounds alone have had their chance; @rc: what they came to. While device state alone
 * seems to take too long there are more of them, since it follows no guest.
 */
static bool is_time(const struct gw_source *s, const struct gw_converge *c, int rc)
{
	const bool due = s->behind ||
			 (s->params.postcopy_after && s->nr_rounds >= s->params.postcopy_after);

	return s->params.postcopy == GW_POSTCOPY_AUTO &&
	       (rc == -ETIME || (!rc && !c->heavy && due));
}

/* Quiesced scans that the guest's user may spoil by continuing it. */
#define DISTURBED_MAX 8

/*
 * Rounds until the rest can be moved within the downtime limit. Where direct
 * I/O is possible, the last scan before the guest's final stop is a quiesced
 * one, followed by a comparison of everything (switchover.c says why). Entered
 * again after a switchover whose last pages took too long: then at least one
 * round comes before the next.
 */
static int gw_source_rounds(struct gw_source *s, struct gw_converge *c)
{
	const bool quiesce_always = s->tracker->ops->needs_quiesce;
	const int64_t limit = s->params.downtime_limit_ms * GW_MS;
	bool again = s->attempts;
	uint64_t pages;
	int rc = 0;

	if (!again) {
		rc = first_due(s);
		if (!rc && s->params.postcopy == GW_POSTCOPY_NOW) {
			gw_defer_expect(s);
			if (!s->holder.comparing)
				return go_before(s, c);
		} else if (!rc) {
			gw_defer_first(s);
		}
		if (!rc)
			rc = gw_round_send(s, false);
		if (!rc && s->holder.comparing)
			rc = gw_compared_rest(s);
		s->holder.encoder.reuses = false;
	}
	for (;;) {
		int64_t cost, now;

		if (!rc)
			rc = s->ops->cancelled(s->env);
		if (!rc)
			rc = peek_all(s, &pages);
		if (!rc)
			rc = gw_source_storage_left(s);
		if (rc)
			return rc;
		now = s->ops->now(s->env);
		if (now > c->last_scan)
			s->dirty_rate = (double)pages * GW_S / (double)(now - c->last_scan);
		s->device_weight = s->ops->device_weight(s->env);
		if (!again && gw_converge_behind(s, c, now, pages))
			s->behind = true;
		cost = gw_converge_cost(s, pages);
		s->expected_downtime = cost;
		s->ops->report(s->env);
		if (!again && is_decided(s))
			return go_before(s, c);
		/* Where each scan stops the guest, none is made that need not be. */
		if (!again && cost <= limit &&
		    (c->compared ||
		     (!s->direct_io && (quiesce_always || gw_converge_enough(s, c, cost)))))
			return 0;
		rc = gw_converge_check(s, c, cost);
		if (is_time(s, c, rc)) {
			if (!again)
				return go_before(s, c);
			/* One more round comes first. */
			s->behind = true;
			gw_error_clear();
			rc = 0;
		}
		if (rc)
			return rc;
		c->last_scan = now;
		again = false;
		if (quiesce_always || c->compared || (s->direct_io && cost <= limit)) {
			rc = gw_source_quiesce(s, !c->compared && s->direct_io);
			c->compared = !rc && s->direct_io;
			/* Its user has continued it in that moment: a scan like any other. */
			if (rc == -EAGAIN && !quiesce_always && ++c->disturbed < DISTURBED_MAX)
				rc = 0;
		} else {
			rc = gw_source_scan(s);
		}
		if (!rc)
			gw_defer_round(s, cost);
		if (!rc)
			rc = gw_round_send(s, false);
	}
}

static void tell(struct gw_holder *h, int rc, const char *why)
{
	unsigned int type = rc == -ECANCELED ? GW_MSG_CANCEL : GW_MSG_ERROR;

	if (h->control)
		gw_frame_send_buf(h->control, type, 0, why, strlen(why));
}

/*
 * Who ended it knows better than the thread that noticed: the user, or a
 * destination that said why before it closed its connections. Within @ns, or it has not.
 */
static int find_reason(struct gw_source *s, int rc, int64_t ns)
{
	char noticed[GW_ERROR_MAX];
	int64_t deadline = s->ops->now(s->env) + ns;
	int told;

	snprintf(noticed, sizeof(noticed), "%s", gw_error());
	told = s->ops->cancelled(s->env);
	if (told)
		return told;
	if (!s->holder.control || (rc != GW_HALTED && !gw_transport_lost(rc)))
		return gw_fail(rc, "%s", noticed);
	/* At most ROUND_DONE and LOADED come before it. */
	for (int i = 0; i < 3; i++) {
		told = gw_holder_expect(&s->holder, GW_MSG_ERROR, deadline);
		if (told != -EPROTO)
			break;
	}
	if (told == -EREMOTEIO || (rc == GW_HALTED && (ns || told != -ETIMEDOUT)))
		return told;
	return gw_fail(rc, "%s", noticed);
}

/*
 * Resume what was stopped here. Whoever continued it meanwhile has it since, however it
 * stands: then nobody tries again (invariant 14).
 */
static int resume_own(struct gw_source *s)
{
	char why[GW_ERROR_MAX];
	const int rc = gw_source_resume(s);

	if (!rc)
		return 0;
	snprintf(why, sizeof(why), "%s", gw_error());
	if (s->ops->guest_stayed(s->env) != -EAGAIN)
		return gw_fail(rc, "%s", why);
	s->stopped = false;
	if (s->ops->journal(s->env, GW_SOURCE_MOVING))
		gw_error_clear();
	return 0;
}

/* Undo: whatever happened, the guest runs here again. Return: why it ended. */
static int give_up(struct gw_source *s, int rc)
{
	char why[GW_ERROR_MAX];
	int resumed;

	snprintf(why, sizeof(why), "%s", gw_error());
	if (s->committed) {
		snprintf(s->error, sizeof(s->error), "%s", why);
		gw_source_enter(s, GW_SOURCE_IN_DOUBT);
		return rc;
	}
	/* The guest first: hearing from a dead peer, and telling it, can take seconds. */
	resumed = resume_own(s);
	if (resumed) {
		char stays[GW_ERROR_MAX];

		/* Whoever tries next waits for our end, and the guest for him. */
		snprintf(stays, sizeof(stays), "%s", gw_error());
		gw_fail(rc, "%s", why);
		find_reason(s, rc, 0);
		snprintf(why, sizeof(why), "%s", gw_error());
		gw_fail(resumed,
			"%s; and the guest did not resume here, where godwitd keeps trying: %s",
			why, stays);
		if (s->holder.control)
			gw_holder_send_by(&s->holder, s->ops->now(s->env));
	} else {
		gw_fail(rc, "%s", why);
		rc = find_reason(s, rc, REASON_NS);
	}
	snprintf(s->error, sizeof(s->error), "%s", gw_error());
	gw_source_enter(s, rc == -ECANCELED ? GW_SOURCE_CANCELLING : GW_SOURCE_FAILED);
	tell(&s->holder, rc, s->error);
	gw_spread_dismiss(s);
	if (rc == -ECANCELED)
		gw_source_enter(s, GW_SOURCE_CANCELLED);
	return rc;
}

static void release(struct gw_source *s)
{
	gw_serve_end(s);
	gw_defer_free(s);
	gw_teleport_free(s);
	gw_spread_free(s->spread);
	gw_carried_free(s->carried);
	gw_round_stop(s);
	gw_tracker_stop(s->tracker);
	s->tracker = NULL;
	gw_holes_close(s->holes);
	s->holes = NULL;
	gw_holder_close(&s->holder);
	gw_bitmap_free(&s->due);
	gw_bitmap_free(&s->again);
	gw_compared_free(&s->holder);
}

static void begin(struct gw_source *s)
{
	s->holder.ops = s->ops;
	s->holder.env = s->env;
	s->holder.id = s->id;
}

static int finish(struct gw_source *s, int rc)
{
	s->ended_ns = s->ops->now(s->env);
	if (!rc)
		rc = gw_source_enter(s, GW_SOURCE_COMPLETED);
	else
		rc = give_up(s, rc);
	release(s);
	return rc;
}

int gw_source_serve(struct gw_source *s)
{
	int rc;

	begin(s);
	s->holder.stages = gw_stages_read();
	s->holder.features = GW_FEATURES_ALL;
	s->holder.version = GW_VERSION;
	s->state = GW_SOURCE_POSTCOPY_PAUSED;
	s->committed = s->postcopy = true;
	s->started_ns = s->ready_ns = s->ops->now(s->env);
	s->ops->report(s->env);
	rc = gw_key_init(&s->key, s->secret);
	s->params.pages.key = &s->key;
	if (!rc && s->ledger && !gw_ledger_has_key(s->ledger, s->key.id))
		s->ledger = NULL; /* its digests tell nothing */
	/* The destination counts by what it had kept. */
	s->params.reuse &= s->ledger || !s->holder.image;
	if (!rc)
		rc = gw_bitmap_init(&s->due, s->memory->nr_pages);
	if (!rc)
		rc = gw_round_start(s);
	if (!rc) {
		rc = gw_serve_on(s);
		if (rc)
			gw_serve_lost(s, rc);
	}
	/* Whoever cannot be told what the memory was here will not ask for it, either. */
	if (!rc && s->params.reuse && (!s->holder.control || gw_reuse_rehash(s)))
		s->params.reuse = false;
	if (!rc)
		rc = gw_source_leave(s);
	return finish(s, rc);
}

int gw_source_run(struct gw_source *s)
{
	struct gw_converge c = { .best = INT64_MAX };
	int rc;

	begin(s);
	s->state = GW_SOURCE_SETUP;
	s->deadline = GW_FOREVER;
	s->started_ns = s->ops->now(s->env);
	s->ops->report(s->env);
	rc = gw_source_setup(s);
	if (!rc)
		rc = gw_round_start(s);
	if (!rc && s->spread)
		rc = gw_spread_start(s);
	if (!rc && !s->tracker)
		rc = start_tracking(s);
	s->ready_ns = s->ops->now(s->env);
	if (!rc)
		rc = gw_source_enter(s, GW_SOURCE_ACTIVE);
	if (!rc)
		rc = gw_defer_watch(s);
	c.last_scan = s->ops->now(s->env);
	while (!rc) {
		rc = gw_source_rounds(s, &c);
		if (!rc)
			rc = gw_source_switchover(s);
		if (rc != -EAGAIN || !s->over)
			break;
		rc = gw_source_again(s);
		c.compared &= !s->disturbed;
	}
	return finish(s, rc);
}
