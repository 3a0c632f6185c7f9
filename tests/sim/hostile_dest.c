// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hostile_dest.c - destinations that break the rules of messages.h.
 *
 * An impostor answers as a destination should, but for one answer. The real
 * source must end it with a reason, the guest running on; only after COMMIT it
 * must not, and say that the matter is in doubt.
 */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "hostile.h"
#include "runs.h"

#define SILENCE GW_MSG_COUNT
#define HANG_UP (GW_MSG_COUNT + 1U)

/* The destination has the feature switchover-again. */
#define AGAIN 0x1000U

static const struct scenario sc = {
	.name = "hostile-destination",
	.guest = { .writes_per_ms = 1, .working_set = 10, .caches = true },
	.streams = 2,
	.downtime_limit_ms = 300,
	.verify = true,
	.reuse = REUSE_BACK,
};

#define STAGES \
	"\"features\":[\"keyed-digests\"],\"stages\":[\"raw\",\"patched\",\"what is to come\"]"
/* What SIM_BLOCK is in bytes. */
#define BLOCK "wwwwwwwwwwwwwwww"
#define OTHER "something stale!"
#define DISKS "{\"features\":[\"keyed-digests\",\"disk-samples\"],\"stages\":[\"raw\"]}"
#define READY "{" STAGES "}"
#define LATER                                                                              \
	"{\"image\":{\"departure\":1,\"comparing\":true},\"features\":[\"keyed-digests\"," \
	"\"compared-later\"],\"stages\":[\"raw\"]}"
#define IMAGE "{\"image\":{\"departure\":1,\"absent\":0}," STAGES "}"
#define READY_DISKS                                                              \
	"{\"features\":[\"keyed-digests\"],\"stages\":[\"raw\",\"teleported\"]," \
	"\"disks\":[\"vda\",\"vdb\"]}"
#define READY_AGAIN "{\"features\":[\"switchover-again\"],\"stages\":[\"raw\"]}"

/* A run of all of them, which is no text. */
#define ALL_PAGES "all pages"

static const struct lie {
	unsigned int to;   /* answered wrongly, every time */
	unsigned int with; /* a message, SILENCE or HANG_UP */
	uint64_t arg;
	const char *text;
	const char *says; /* the source, somewhere in its reason */
} lies[] = {
	{ GW_MSG_OPEN, GW_MSG_ACCEPT, 0, "", "version 0, which was not offered" },
	{ GW_MSG_OPEN, GW_MSG_ACCEPT, GW_VERSION + 1, "", "which was not offered" },
	{ GW_MSG_OPEN, GW_MSG_RUNNING, 0, "", "RUNNING where ACCEPT" },
	{ GW_MSG_OPEN, GW_MSG_ERROR, 0, "too many cooks", "too many cooks" },
	{ GW_MSG_OPEN, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_OPEN, HANG_UP, 0, "", "closed" },
	{ GW_MSG_DEFINE, GW_MSG_RUNNING, 0, "", "RUNNING where READY" },
	{ GW_MSG_DEFINE, GW_MSG_ERROR, 0, "%s%n%s%n", "%s%n%s%n" },
	{ GW_MSG_DEFINE, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_DEFINE, HANG_UP, 0, "", "closed" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":2,\"absent\":0}}",
	  "image that cannot be" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":-1,\"absent\":0}}",
	  "image that cannot be" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":1,\"absent\":-1}}",
	  "image that cannot be" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":1,\"absent\":99999}}",
	  "image that cannot be" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":1,\"absent\":9}}",
	  "did not answer in time" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\"],\"image\":{\"departure\":1,\"comparing\":true}}",
	  "image that cannot be" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0,
	  "{\"features\":[\"keyed-digests\",\"compared-later\"],"
	  "\"image\":{\"departure\":1,\"absent\":9,\"comparing\":true}}",
	  "image that cannot be" },
	{ GW_MSG_COMPARE, GW_MSG_COMPARED, 1 << 20, "", "which cannot be" },
	{ GW_MSG_COMPARE, GW_MSG_COMPARED, 1, "half a run", "which cannot be" },
	{ GW_MSG_COMPARE, GW_MSG_COMPARED, 1, "a run far beyond", "which cannot be" },
	{ GW_MSG_COMPARE, GW_MSG_ABSENT, 0, "", "ABSENT where COMPARED" },
	{ GW_MSG_COMPARE, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_COMPARE, HANG_UP, 0, "", "closed" },
	/* One that never has any news: the guest moves without its image. */
	{ GW_MSG_COMPARE, GW_MSG_COMPARED, 0, "", "far enough" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0, "{\"stages\":7}", "a list of names that is none" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0, "{\"stages\":[\"raw\",7]}", "something else in it" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0, "{\"features\":{},\"stages\":[\"raw\"]}",
	  "a list of names that is none" },
	{ GW_MSG_SAMPLE, GW_MSG_SAMPLED, 0, "", "digests of 0 blocks" },
	{ GW_MSG_SAMPLE, GW_MSG_SAMPLED, 0, BLOCK BLOCK BLOCK BLOCK, "digests of 4 blocks" },
	{ GW_MSG_SAMPLE, GW_MSG_SAMPLED, 0, OTHER OTHER OTHER,
	  "disk 'd0' (/d0) holds something else on host" },
	{ GW_MSG_SAMPLE, GW_MSG_BLOCKS, 0, "", "BLOCKS where SAMPLED" },
	{ GW_MSG_SAMPLE, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_SAMPLE, HANG_UP, 0, "", "closed" },
	{ GW_MSG_WANT, GW_MSG_BLOCKS, 0, "", "blocks that cannot be" },
	{ GW_MSG_WANT, GW_MSG_BLOCKS, 0, "\377\377\377 and nothing behind",
	  "blocks that cannot be" },
	{ GW_MSG_WANT, GW_MSG_ABSENT, 0, "", "ABSENT where BLOCKS" },
	/* One that never answers, or answers another question with it: the pages travel whole. */
	{ GW_MSG_WANT, SILENCE, 0, "", "far enough" },
	{ GW_MSG_WANT, HANG_UP, 0, "", "closed" },
	{ GW_MSG_ROUND_END, GW_MSG_ROUND_DONE, 77, "", "round 77" },
	{ GW_MSG_ROUND_END, GW_MSG_RUNNING, 0, "", "RUNNING where ROUND_DONE" },
	{ GW_MSG_ROUND_END, GW_MSG_BLOCKS, 0, "", "BLOCKS where ROUND_DONE" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0, "{" STAGES ",\"disks\":7}", "disks that is none" },
	{ GW_MSG_DEFINE, GW_MSG_READY, 0, "{" STAGES ",\"disks\":[7]}", "without a name" },
	{ GW_MSG_ROUND_END, GW_MSG_REFUSED, 0, "half a run", "a set of pages that cannot be" },
	{ GW_MSG_ROUND_END, GW_MSG_REFUSED, 0, "a run far beyond memory", "that cannot be" },
	{ GW_MSG_ROUND_END, GW_MSG_REFUSED, 0, ALL_PAGES, "which no disk was to bring" },
	{ GW_MSG_ROUND_END, GW_MSG_WAIT, 0, "for ever", "did not answer in time" },
	{ GW_MSG_ROUND_END, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_ROUND_END, HANG_UP, 0, "", "closed" },
	{ GW_MSG_VERIFY_END, GW_MSG_LOADED, 0, "", "LOADED where VERIFIED" },
	{ GW_MSG_VERIFY_END, GW_MSG_RUNNING, 0, "", "RUNNING where VERIFIED" },
	{ GW_MSG_VERIFY_END, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_DEVICE_END, GW_MSG_RUNNING, 0, "", "RUNNING where LOADED" },
	{ GW_MSG_DEVICE_END, SILENCE, 0, "", "did not answer in time" },
	{ GW_MSG_DEVICE_END, HANG_UP, 0, "", "closed" },
	{ AGAIN | GW_MSG_DEVICE_END, GW_MSG_LOADED, 0, "", "LOADED where HELD" },
	{ AGAIN | GW_MSG_DEVICE_END, SILENCE, 0, "", "did not answer in time" },
	{ AGAIN | GW_MSG_DEVICE_END, HANG_UP, 0, "", "closed" },
	{ AGAIN | GW_MSG_LOAD, GW_MSG_HELD, 0, "", "HELD where LOADED" },
	{ AGAIN | GW_MSG_LOAD, GW_MSG_RUNNING, 0, "", "RUNNING where LOADED" },
	{ AGAIN | GW_MSG_LOAD, SILENCE, 0, "", "not loaded within 2300 ms" },
	{ AGAIN | GW_MSG_LOAD, HANG_UP, 0, "", "closed" },
	{ GW_MSG_COMMIT, GW_MSG_LOADED, 0, "", "did not confirm" },
	{ GW_MSG_COMMIT, GW_MSG_ERROR, 0, "no", "did not confirm" },
	{ GW_MSG_COMMIT, GW_MSG_READY, 0, "{}", "did not confirm" },
	{ GW_MSG_COMMIT, SILENCE, 0, "", "did not confirm" },
	{ GW_MSG_COMMIT, HANG_UP, 0, "", "did not confirm" },
};

static const struct lie *lie;

static const struct {
	unsigned int to, with;
} honest[] = {
	{ GW_MSG_OPEN, GW_MSG_ACCEPT },		{ GW_MSG_ROUND_END, GW_MSG_ROUND_DONE },
	{ GW_MSG_VERIFY_END, GW_MSG_VERIFIED }, { GW_MSG_DEVICE_END, GW_MSG_LOADED },
	{ GW_MSG_COMMIT, GW_MSG_RUNNING },
}, honest_again[] = {
	{ GW_MSG_OPEN, GW_MSG_ACCEPT },		{ GW_MSG_ROUND_END, GW_MSG_ROUND_DONE },
	{ GW_MSG_VERIFY_END, GW_MSG_VERIFIED }, { GW_MSG_DEVICE_END, GW_MSG_HELD },
	{ GW_MSG_LOAD, GW_MSG_LOADED },
};

static bool lies_again(void)
{
	return lie->to & AGAIN;
}

static void refuse_all(struct gw_transport *t)
{
	uint8_t run[GW_RUN_LEN];

	gw_run_put(run, 0, sim.guest.memory->nr_pages);
	gw_frame_send_buf(t, GW_MSG_REFUSED, 0, run, sizeof(run));
}

/* Return: whether to go on. */
static bool answer(struct gw_transport *t, const struct gw_frame *f)
{
	if (f->type == (lie->to & ~AGAIN)) {
		if (lie->with == HANG_UP)
			return false;
		if (lie->text && !strcmp(lie->text, ALL_PAGES))
			refuse_all(t);
		else if (lie->with != SILENCE)
			gw_frame_send_buf(t, lie->with, lie->arg, lie->text, strlen(lie->text));
		return true;
	}
	if ((lie->to == GW_MSG_COMPARE || lie->to == GW_MSG_WANT) && f->type == GW_MSG_VERIFY_END) {
		gw_frame_send_buf(t, GW_MSG_ERROR, 0, "far enough", 10);
		return true;
	}
	if (f->type == GW_MSG_DEFINE) {
		const char *ready = lie->to == GW_MSG_WANT	  ? IMAGE
				    : lie->to == GW_MSG_COMPARE	  ? LATER
				    : lie->to == GW_MSG_SAMPLE	  ? DISKS
				    : lie->to == GW_MSG_ROUND_END ? READY_DISKS
				    : lies_again()		  ? READY_AGAIN
								  : READY;

		gw_frame_send_buf(t, GW_MSG_READY, 0, ready, strlen(ready));
		return true;
	}
	_Static_assert(sizeof(honest) == sizeof(honest_again), "as many answers");
	for (size_t i = 0; i < sizeof(honest) / sizeof(honest[0]); i++) {
		const unsigned int to = lies_again() ? honest_again[i].to : honest[i].to;
		const unsigned int with = lies_again() ? honest_again[i].with : honest[i].with;

		if (to == f->type)
			gw_frame_send(t, with, f->type == GW_MSG_OPEN ? GW_VERSION : f->arg, NULL,
				      0);
	}
	return true;
}

static void impostor(void *arg, unsigned int i)
{
	struct gw_transport *t = arg;
	struct gw_frame f = { 0 };

	(void)i;
	while (!gw_frame_recv(t, &f, GW_FOREVER) && answer(t, &f))
		;
	gw_frame_free(&f);
	gw_transport_close(&t);
}

void meet(const struct scenario *to, void (*liar)(void *arg, unsigned int i), unsigned int i,
	  const char *says)
{
	static const struct fault none[2];

	sim_begin(to, i, none);
	sim.impostor = liar;
	source_start();
	sim_go();
	sim_check(sim.src.ended && sim.src.rc && strstr(sim.src.s.error, says),
		  "lie %u: wrong reason", i);
}

void guest_runs_on(unsigned int i, int64_t most_ns)
{
	sim_check(sim.src.s.state == GW_SOURCE_FAILED && sim.src.qemu == QEMU_RUNNING &&
			  sim.src.journal == JOURNAL_NONE,
		  "lie %u: the guest does not run on", i);
	sim_check(sim.src.longest_stop < most_ns, "lie %u: the guest stood still for %.1f s", i,
		  (double)sim.src.longest_stop / GW_S);
}

unsigned int hostile_destinations(void)
{
	const unsigned int n = sizeof(lies) / sizeof(lies[0]);

	for (unsigned int i = 0; i < n; i++) {
		lie = &lies[i];
		meet(&sc, impostor, i, lie->says);
		if (lie->to == GW_MSG_COMMIT)
			sim_check(sim.src.in_doubt && sim.src.s.state == GW_SOURCE_IN_DOUBT &&
					  sim.src.qemu == QEMU_STOPPED,
				  "lie %u: the source decides what it cannot know", i);
		else /* time for the comparison is another's (scenario with verify) */
			guest_runs_on(i, lies_again() ? 2400 * GW_MS : INT64_MAX);
		sim_end();
	}
	return n;
}
