// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hostile_dest_pages.c - destinations that break the rules of post-copy; see hostile_dest.c.
 *
 * On the connections for pages. Before COMMIT: the guest must run on at its source, within
 * what it may stand still, and the reason must be told. And each again once the guest runs there
 * (late): the source must stay a source, come again, and bring the rest to a destination
 * that then keeps to the rules; and nothing may ever resume the guest here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "codec.h"
#include "error.h"
#include "fiber.h"
#include "hostile.h"
#include "pipeline.h"
#include "runs.h"

#define HANG_UP	  GW_MSG_COUNT
#define SILENCE	  (GW_MSG_COUNT + 1U)
#define FOR_EVER  (GW_MSG_COUNT + 2U)
/* A run of pages, or of more than there are. */
#define BEYOND	  (4 * GW_CHUNK_PAGES - 1)
#define NO_RUN	  SIZE_MAX
#define ALL_KNOWN 1

static const struct scenario sc = {
	.name = "hostile-pages",
	.guest = { .writes_per_ms = 1, .working_set = 10 },
	.streams = 1,
	.downtime_limit_ms = 300,
	.postcopy = GW_POSTCOPY_NOW,
};

#define READY                                                                             \
	"{\"features\":[\"keyed-digests\",\"switchover-again\",\"postcopy\"],\"stages\":" \
	"[\"raw\"]}"
#define RETURNS                                                               \
	"{\"features\":[\"keyed-digests\",\"switchover-again\",\"postcopy\"," \
	"\"return-at-once\"],\"stages\":[\"raw\"]}"

static const struct lie {
	enum where {
		IN_LIST,
		ON_REQUESTS,
		ON_PUSHES
	} where;
	unsigned int with; /* a message, or one of the above */
	uint64_t arg;
	size_t first;	  /* page of its run */
	const char *text; /* in place of a run */
	const char *says; /* the source, somewhere in its reason */
	bool returns;
} lies[] = {
	{ IN_LIST, GW_MSG_MISSING, 0, BEYOND, "", "destination: ", false },
	{ IN_LIST, GW_MSG_MISSING, 0, NO_RUN, "half a run", "destination: ", false },
	{ IN_LIST, GW_MSG_LOADED, 0, NO_RUN, "", "LOADED where MISSING", false },
	{ IN_LIST, GW_MSG_ERROR, 0, NO_RUN, "%s%n no", "%s%n no", false },
	{ IN_LIST, SILENCE, 0, NO_RUN, "", "did not answer in time", false },
	{ IN_LIST, FOR_EVER, 0, NO_RUN, "", "more pages than there are", false },
	{ IN_LIST, HANG_UP, 0, NO_RUN, "", "closed", false },
	{ ON_REQUESTS, GW_MSG_REQUEST, 0, BEYOND, "", "destination: ", false },
	{ ON_REQUESTS, GW_MSG_REQUEST, 0, NO_RUN, "half a run", "destination: ", false },
	{ ON_REQUESTS, GW_MSG_COMPLETE, 0, NO_RUN, "", "is complete without", false },
	{ ON_REQUESTS, GW_MSG_PLACED, 1, NO_RUN, "", "PLACED where REQUEST", false },
	{ ON_REQUESTS, GW_MSG_FAULTS, 0, NO_RUN, "few", "a FAULTS of 3 bytes", false },
	{ ON_REQUESTS, GW_MSG_FAULTS, 0, NO_RUN, "", "a FAULTS of 0 bytes", false },
	{ ON_REQUESTS, HANG_UP, 0, NO_RUN, "", "closed", false },
	{ ON_PUSHES, GW_MSG_PLACED, 1ULL << 40, NO_RUN, "", "placed what was not sent", false },
	{ ON_PUSHES, GW_MSG_REQUEST, 0, 8, "", "REQUEST where PLACED", false },
	{ ON_PUSHES, GW_MSG_COMPLETE, 0, NO_RUN, "", "COMPLETE where PLACED", false },
	{ ON_PUSHES, GW_MSG_REFUSED, 0, 8, "", "REFUSED where PLACED", false },
	{ ON_PUSHES, GW_MSG_REFUSED, 0, BEYOND, "", "destination: ", true },
	{ ON_PUSHES, HANG_UP, 0, NO_RUN, "", "closed", false },
};

/* Only late: pages that it was not told to lack, thousands of times. */
static const struct lie flood = { ON_PUSHES, FOR_EVER, 0, NO_RUN, "", "", true };

static const struct lie *lie;

/* Of a late one. */
static struct {
	bool on, runs, told;
	unsigned int lists;	       /* that were sent */
	struct gw_transport *requests; /* of the newest */
	struct gw_bitmap placed;
} late;

#define FLOOD	     2000
#define LISTED	     600UL
#define LISTED_FIRST 8UL

static int put_run(struct gw_transport *t, unsigned int type, size_t first, uint32_t count)
{
	uint8_t run[GW_RUN_LEN];

	gw_put64(run, first);
	gw_put32(run + 8, count);
	return gw_frame_send_buf(t, type, 0, run, sizeof(run));
}

/* Return: whether to go on. */
static bool tell(struct gw_transport *t)
{
	switch (lie->with) {
	case HANG_UP:
		return false;
	case SILENCE:
		break;
	case FOR_EVER:
		if (lie->where == ON_PUSHES) {
			for (unsigned int i = 0; i < FLOOD; i++)
				put_run(t, GW_MSG_REFUSED, LISTED_FIRST + LISTED, 8);
			break;
		}
		while (!put_run(t, GW_MSG_MISSING, 8, 8))
			;
		return false;
	default:
		if (lie->first != NO_RUN)
			put_run(t, lie->with, lie->first, 2);
		else
			gw_frame_send_buf(t, lie->with, lie->arg, lie->text, strlen(lie->text));
	}
	return true;
}

static bool runs_there(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return late.runs;
}

/* Once the guest runs here it is time, and but once. */
static bool is_time(enum where where)
{
	if (!late.on)
		return lie->where == where;
	if (where == IN_LIST)
		return lie->where == IN_LIST && late.lists == 2;
	if (lie->where != where || late.told)
		return false;
	late.told = fiber_wait(runs_there, NULL, GW_FOREVER);
	return true;
}

/* What it lacks, once the source has called. */
static bool list(struct gw_transport *t)
{
	late.lists++;
	late.requests = t;
	if (is_time(IN_LIST))
		return tell(t);
	for (size_t page = LISTED_FIRST, n; page < LISTED_FIRST + LISTED; page += n) {
		const bool here = gw_bitmap_test(&late.placed, page);

		n = gw_bitmap_next(&late.placed, page, LISTED_FIRST + LISTED, !here) - page;
		if (!here)
			put_run(t, GW_MSG_MISSING, page, (uint32_t)n);
	}
	gw_frame_send(t, GW_MSG_MISSING_END, ALL_KNOWN, NULL, 0);
	return !is_time(ON_REQUESTS) || tell(t);
}

static int place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	(void)sink;
	(void)bytes;
	gw_bitmap_set_range(&late.placed, page, count);
	return 0;
}

static int right(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	return place(sink, page, count, NULL);
}

/* Keep to the rules, with what comes on connection @i for pages. */
static bool take(struct gw_transport *t, const struct gw_frame *f, unsigned int i)
{
	static struct gw_sink sink = { .place = place, .zero = right, .same = right };
	struct gw_decoder d;

	if (f->type != GW_MSG_PAGES)
		return true;
	/* None is acknowledged before, so that some are left to be pushed. */
	fiber_wait(runs_there, NULL, GW_FOREVER);
	gw_decoder_init(&d, &sink, BEYOND + 1);
	if (gw_pipeline_decode(&d, f->arg, f->payload, f->len))
		sim_wrong("late lie: %s", gw_error());
	gw_decoder_free(&d);
	if (i)
		gw_frame_send(t, GW_MSG_PLACED, t->received, NULL, 0);
	if (gw_bitmap_count(&late.placed, LISTED_FIRST, LISTED) == LISTED)
		gw_frame_send(late.requests, GW_MSG_COMPLETE, 0, NULL, 0);
	return true;
}

static bool answer(struct gw_transport *t, const struct gw_frame *f)
{
	const char *ready = lie->returns ? RETURNS : READY;

	if (f->type == GW_MSG_DEFINE)
		gw_frame_send_buf(t, GW_MSG_READY, 0, ready, strlen(ready));
	else if (f->type == GW_MSG_DEVICE_END)
		gw_frame_send(t, GW_MSG_HELD, f->arg, NULL, 0);
	else if (f->type == GW_MSG_LOAD && late.on)
		gw_frame_send(t, GW_MSG_LOADED, 0, NULL, 0);
	else if (f->type == GW_MSG_COMMIT && late.on)
		late.runs = !gw_frame_send(t, GW_MSG_RUNNING, 0, NULL, 0);
	return true;
}

static bool heed(struct gw_transport *t, const struct gw_frame *f, const struct gw_open *open)
{
	if (open->kind == GW_OPEN_MIGRATE)
		return answer(t, f);
	if (open->kind != GW_OPEN_PAGING)
		return true;
	if (open->stream && is_time(ON_PUSHES)) {
		const bool on = tell(t);

		if (lie != &flood)
			return on;
	}
	return !late.on || take(t, f, open->stream);
}

static void impostor(void *arg, unsigned int i)
{
	struct gw_transport *t = arg;
	struct gw_frame f = { 0 };
	struct gw_open open = { 0 };
	uint16_t version;
	bool on = !gw_frame_recv(t, &f, GW_FOREVER) &&
		  !gw_open_decode(f.payload, f.len, &open, &version);

	(void)i;
	if (on)
		gw_frame_send(t, GW_MSG_ACCEPT, GW_VERSION, NULL, 0);
	if (on && open.kind == GW_OPEN_PAGING && !open.stream)
		on = list(t);
	/* A lie in the second list: there must be one. */
	if (on && late.on && lie->where == IN_LIST && late.lists == 1 &&
	    open.kind == GW_OPEN_PAGING && !open.stream)
		on = !fiber_wait(runs_there, NULL, GW_FOREVER);
	while (on && !gw_frame_recv(t, &f, GW_FOREVER))
		on = heed(t, &f, &open);
	gw_frame_free(&f);
	gw_transport_close(&t);
}

/* The guest runs there already: whatever happens now, it is not lost, and not here. */
static void lie_late(const struct lie *this, unsigned int i)
{
	static const struct fault none[2];

	lie = this;
	late.on = true;
	late.runs = late.told = false;
	late.lists = 0;
	gw_bitmap_zero(&late.placed);
	sim_begin(&sc, i, none);
	sim.impostor = impostor;
	source_start();
	sim_go();
	sim_check(late.lists > 1 || lie == &flood, "late lie %u: the source has not come again", i);
	sim_check(sim.src.ended && !sim.src.rc && sim.src.s.state == GW_SOURCE_COMPLETED,
		  "late lie %u: it did not end: %s", i, sim.src.s.error);
	sim_check(sim.src.qemu == QEMU_NONE || sim.src.qemu == QEMU_ENDED,
		  "late lie %u: the guest is still here", i);
	sim_end();
}

unsigned int hostile_pagers(void)
{
	const unsigned int n = sizeof(lies) / sizeof(lies[0]);

	if (gw_bitmap_init(&late.placed, BEYOND + 1))
		abort();
	for (unsigned int i = 0; i < n; i++) {
		lie = &lies[i];
		meet(&sc, impostor, i, lie->says);
		guest_runs_on(i, 2400 * GW_MS);
		sim_end();
	}
	for (unsigned int i = 0; i < n; i++)
		lie_late(&lies[i], i);
	lie_late(&flood, n);
	gw_bitmap_free(&late.placed);
	return 2 * n + 1;
}
