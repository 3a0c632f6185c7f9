// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * handover.c - the device state of a stopped guest, until QEMU at the destination has it.
 *
 * The destination holds what arrives and says when that is all of it, the last
 * round's pages included (HELD). Only then, and only within the downtime limit,
 * does LOAD let its QEMU have it. Past the limit before that, whoever waits resumes
 * the guest first (on_tick); what is under way ends as it can, and RESUMED makes the
 * destination forget it (decision 26). After LOAD nothing can be taken back: a
 * destination that is late then has lost the guest, and all that was moved.
 *
 * A destination without the feature loads while it receives: it has the same time.
 *
 * Rules: one thread sends, receives and resumes, so that each of these is before
 * or after the others.
 */
#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "feature.h"
#include "internal.h"

#define DEVICE_PART (256UL << 10)

/* How far it has come: what the destination is still to say, and has to forget. */
struct handover {
	bool begun, ended; /* DEVICE, DEVICE_END were sent */
	bool round_done, held;
	int64_t ns; /* that it took, without the last pages */
};

int64_t gw_handover_end(const struct gw_source *s)
{
	return s->deadline == GW_FOREVER ? s->ops->now(s->env) + GW_SWITCHOVER_NS
					 : s->deadline + GW_LATE_NS;
}

int gw_handover_in_time(struct gw_source *s)
{
	gw_source_tick(s);
	return s->over ? gw_fail(-EAGAIN, "the guest's device state took too long") : 0;
}

static int send_device_state(struct gw_source *s, struct handover *h, bool again)
{
	gw_autofree uint8_t *buf = malloc(DEVICE_PART);
	/* What it may take of QEMU; past that the tick has its turn. */
	const int64_t deadline = again ? s->deadline : gw_handover_end(s);
	int rc = 0;

	if (!buf)
		return gw_fail(-ENOMEM, "no memory for device state");
	for (;;) {
		long n;

		rc = again ? gw_handover_in_time(s) : 0;
		if (rc)
			return rc;
		n = s->ops->device_read(s->env, buf, DEVICE_PART, deadline);
		if (n < 0)
			return again && gw_handover_in_time(s) ? -EAGAIN : (int)n;
		if (n == 0)
			break;
		s->device_bytes += (uint64_t)n;
		h->begun = true;
		rc = gw_frame_send_buf(s->holder.control, GW_MSG_DEVICE, 0, buf, (size_t)n);
		if (rc)
			return gw_fail_prefix(rc, "destination: ");
	}
	/* An aborted save ends its stream too: QEMU says which it was. */
	rc = s->ops->device_end(s->env, deadline);
	if (again && gw_handover_in_time(s))
		return -EAGAIN;
	if (!rc)
		rc = gw_frame_send(s->holder.control, GW_MSG_DEVICE_END, 0, NULL, 0);
	h->ended = !rc;
	return rc;
}

/* Until it holds everything; however long that takes, the guest does not wait for it. */
static int await_held(struct gw_source *s, struct handover *h)
{
	const int64_t deadline = s->ops->now(s->env) + GW_ROUND_NS;
	int64_t mark;
	int rc = 0;

	if (!h->round_done) {
		rc = gw_holder_wait_round(&s->holder, deadline);
		h->round_done = !rc;
	}
	mark = s->ops->now(s->env);
	if (!rc && h->ended && !h->held) {
		rc = gw_holder_expect(&s->holder, GW_MSG_HELD, deadline);
		h->held = !rc;
	}
	h->ns += s->ops->now(s->env) - mark;
	return rc;
}

/* The guest runs: the destination forgets its device state, and has its last pages. */
static int take_back(struct gw_source *s, struct handover *h)
{
	int rc = 0;

	if (s->stopped) /* it does not resume: gw_source_again() says so */
		return gw_fail(-EAGAIN, "the guest does not go on");
	if (h->begun)
		rc = gw_frame_send(s->holder.control, GW_MSG_RESUMED, 0, NULL, 0);
	if (!rc)
		rc = await_held(s, h);
	if (rc)
		return rc;
	gw_round_late(s);
	return gw_fail(-EAGAIN, "the guest's device state took too long");
}

/* Why it ended, where that is the time that is over. */
static int late(const struct gw_source *s, int rc)
{
	const unsigned int limit = s->params.downtime_limit_ms;

	if (rc != -ETIMEDOUT || s->deadline == GW_FOREVER ||
	    s->ops->now(s->env) < gw_handover_end(s))
		return rc;
	return gw_fail_prefix(rc,
			      "the guest's device state was not loaded within %lld ms of its stop "
			      "(--downtime-limit %u, and %lld ms more where it cannot be taken "
			      "back); use --downtime-limit %u, or look at the destination's load "
			      "and at the network: ",
			      (long long)(limit + GW_LATE_NS / GW_MS), limit,
			      (long long)(GW_LATE_NS / GW_MS), limit * 3);
}

int gw_handover(struct gw_source *s, bool round_done)
{
	const bool again = gw_holder_has(&s->holder, GW_FEATURE_AGAIN);
	struct handover h = { .round_done = round_done };
	const int64_t mark = s->ops->now(s->env);
	int rc;

	s->device_bytes = 0;
	rc = gw_handover_in_time(s);
	if (!again)
		s->holder.control->on_tick = NULL;
	if (!rc)
		rc = send_device_state(s, &h, again);
	h.ns = s->ops->now(s->env) - mark;
	if (!rc && again)
		rc = await_held(s, &h);
	if (!rc && again)
		rc = gw_handover_in_time(s);
	if (rc == -EAGAIN && s->over)
		return take_back(s, &h);
	s->holder.control->on_tick = NULL;
	if (!rc && s->postcopy && !s->params.verify)
		rc = gw_serve_tell(s);
	if (!rc && s->spread)
		rc = gw_spread_leave(s);
	if (!rc && s->carried)
		rc = gw_carried_leave(s);
	if (!rc && again)
		rc = gw_frame_send(s->holder.control, GW_MSG_LOAD, gw_converge_leg(s, h.ns), NULL,
				   0);
	if (!rc && s->postcopy)
		rc = gw_serve_begin(s);
	/* QEMU there may wait for a page, which then never comes. */
	if (!rc && s->postcopy)
		s->holder.control->on_tick = gw_serve_failed;
	if (!rc && !h.round_done)
		rc = gw_holder_wait_round(&s->holder, gw_handover_end(s));
	if (!rc)
		rc = gw_holder_expect(&s->holder, GW_MSG_LOADED, gw_handover_end(s));
	s->holder.control->on_tick = NULL;
	return late(s, rc);
}
