// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hostile_dest_pages.c - destinations that break the rules of post-copy; see hostile_dest.c.
 *
 * All of it before COMMIT, on the connections for pages: the guest must run on at its source,
 * within what it may stand still, and the reason must be told.
 */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "codec.h"
#include "error.h"
#include "hostile.h"
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
	enum {
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

static const struct lie *lie;

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

/* What it lacks, once the source has called. */
static bool list(struct gw_transport *t)
{
	if (lie->where == IN_LIST)
		return tell(t);
	put_run(t, GW_MSG_MISSING, 8, 600);
	gw_frame_send(t, GW_MSG_MISSING_END, ALL_KNOWN, NULL, 0);
	return lie->where != ON_REQUESTS || tell(t);
}

static bool answer(struct gw_transport *t, const struct gw_frame *f)
{
	const char *ready = lie->returns ? RETURNS : READY;

	if (f->type == GW_MSG_DEFINE)
		gw_frame_send_buf(t, GW_MSG_READY, 0, ready, strlen(ready));
	else if (f->type == GW_MSG_DEVICE_END)
		gw_frame_send(t, GW_MSG_HELD, f->arg, NULL, 0);
	return true;
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
	while (on && !gw_frame_recv(t, &f, GW_FOREVER))
		on = open.kind == GW_OPEN_MIGRATE ? answer(t, &f)
		     : open.kind == GW_OPEN_PAGING && open.stream && lie->where == ON_PUSHES
			     ? tell(t)
			     : true;
	gw_frame_free(&f);
	gw_transport_close(&t);
}

unsigned int hostile_pagers(void)
{
	const unsigned int n = sizeof(lies) / sizeof(lies[0]);

	for (unsigned int i = 0; i < n; i++) {
		lie = &lies[i];
		meet(&sc, impostor, i, lie->says);
		guest_runs_on(i, 2400 * GW_MS);
		sim_end();
	}
	return n;
}
