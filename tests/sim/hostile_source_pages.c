// SPDX-License-Identifier: GPL-2.0-or-later
/* hostile_source_pages.c - sources that break the rules of post-copy; see hostile_source.c. */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "codec.h"
#include "digest.h"
#include "error.h"
#include "hostile.h"
#include "runs.h"
#include "stage.h"

static struct gw_transport *paging[GW_PAGING_MIN];

/* Post-copy, as far as READY; with @reuse a ledger is to follow, with @disks places on disks may.
 */
static bool paged_with(int connections, json_t *reuse, bool disks)
{
	const bool keyed = reuse || disks;
	json_t *json = json_pack("{s:O,s:b,s:i,s:i,s:[s,s,s*,s*],s:s*,s:i,s:o*,s:b}", "definition",
				 sim.definition, "run", 1, "streams", STREAMS, "resident", 0,
				 "features", "switchover-again", "postcopy",
				 keyed ? "keyed-digests" : NULL, disks ? "postcopy-disks" : NULL,
				 "secret", keyed ? SECRET : NULL, "postcopy", connections, "reuse",
				 reuse, "disks", disks);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	define(text);
	free(text);
	sim.src.resumes++; /* nobody has stopped the guest for it, so its memory is as it may be */
	return expect(control, GW_MSG_READY) && joined_streams();
}

static bool paged(int connections)
{
	return paged_with(connections, NULL, false);
}

static void missing(size_t first, size_t count)
{
	uint8_t run[GW_RUN_LEN];

	gw_put64(run, first);
	gw_put32(run + 8, (uint32_t)count);
	gw_frame_send_buf(control, GW_MSG_MISSING, 0, run, sizeof(run));
}

static bool dialled(void)
{
	for (unsigned int i = 0; i < GW_PAGING_MIN; i++) {
		paging[i] = dial(GW_OPEN_PAGING, i);
		if (!expect(paging[i], GW_MSG_ACCEPT))
			return false;
	}
	return true;
}

static bool begun(void)
{
	missing(8, 8);
	say(control, GW_MSG_MISSING_END, 8);
	return expect(paging[0], GW_MSG_MISSING) && expect(paging[0], GW_MSG_MISSING_END);
}

/* Pages 8 to 15 are missing, and memory faults. */
static bool paging_begun(void)
{
	return paged(GW_PAGING_MIN) && dialled() && begun();
}

static void paging_of_none(void)
{
	paged(1);
}

static void paging_of_many(void)
{
	paged(GW_PAGING_MAX + 1);
}

static void missing_unasked(void)
{
	if (joined())
		missing(0, 1);
}

static void missing_beyond(void)
{
	if (paged(GW_PAGING_MIN))
		missing(4 * GW_CHUNK_PAGES - 1, 2);
}

static void missing_padding(void)
{
	if (paged(GW_PAGING_MIN))
		missing(4 * GW_CHUNK_PAGES - 1, 1);
}

static void missing_miscounted(void)
{
	if (!paged(GW_PAGING_MIN))
		return;
	missing(3, 2);
	missing(3, 2); /* said twice, missing once */
	say(control, GW_MSG_MISSING_END, 4);
}

static void paging_never(void)
{
	if (!paged(GW_PAGING_MIN))
		return;
	missing(3, 2);
	say(control, GW_MSG_MISSING_END, 2);
	expect(control, GW_MSG_LOADED);
}

static void missing_again(void)
{
	if (paging_begun())
		missing(20, 1);
}

static void round_after_missing(void)
{
	if (paging_begun())
		say(control, GW_MSG_ROUND_END, 1);
}

static void push_page(unsigned int i, size_t chunk, unsigned int page, const uint8_t *bytes)
{
	uint8_t frame[8 + GW_PAGE_SIZE] = { GW_STAGE_RAW, (uint8_t)page };

	gw_put32(frame + 4, GW_PAGE_SIZE);
	memcpy(frame + 8, bytes, GW_PAGE_SIZE);
	gw_frame_send_buf(paging[i], GW_MSG_PAGES, chunk, frame, sizeof(frame));
}

static void push(unsigned int i, size_t chunk, unsigned int page, unsigned int fill)
{
	uint8_t bytes[GW_PAGE_SIZE];

	memset(bytes, (int)fill, sizeof(bytes));
	push_page(i, chunk, page, bytes);
}

/* As expect(), of what comes behind requests, lists and FAULTS. */
static bool comes(unsigned int type)
{
	struct gw_frame f = { 0 };
	bool ok = false;

	while (!ok && !gw_frame_recv(paging[0], &f, sim_now() + 10 * GW_S))
		ok = f.type == type;
	gw_frame_free(&f);
	return ok;
}

/* All memory is missing, and then placed. */
static bool all_pushed(void)
{
	const struct gw_memory *m = sim.guest.memory;
	uint8_t bytes[GW_PAGE_SIZE];
	size_t pages = 0;

	for (size_t page = 0; page < m->nr_pages; page++)
		if (gw_memory_block_of(m, page)) {
			missing(page, 1);
			pages++;
		}
	say(control, GW_MSG_MISSING_END, pages);
	if (!comes(GW_MSG_MISSING_END))
		return false;
	for (size_t page = 0; page < m->nr_pages; page++) {
		if (!gw_memory_block_of(m, page))
			continue;
		gw_memory_read(m, page, 1, bytes);
		push_page(1, page / GW_CHUNK_PAGES, (unsigned int)(page % GW_CHUNK_PAGES), bytes);
		if (!expect(paging[1], GW_MSG_PLACED))
			return false;
	}
	return true;
}

/* The guest leaves, post-copy's way, and its source owes a ledger. */
static bool left(void)
{
	json_t *reuse = json_pack("{s:i,s:[]}", "departures", 0, "ids");

	if (!paged_with(GW_PAGING_MIN, reuse, false) || !dialled())
		return false;
	sim.src.qemu = QEMU_STOPPED;
	guest_stop(&sim.guest);
	sim.device_len = 64;
	memset(sim.device_state, 7, sim.device_len);
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, sim.device_state, sim.device_len);
	say(control, GW_MSG_DEVICE_END, 0);
	if (!expect(control, GW_MSG_HELD) || !all_pushed())
		return false;
	say(control, GW_MSG_LOAD, 0);
	if (!expect(control, GW_MSG_LOADED))
		return false;
	sim.src.journal = JOURNAL_COMMITTING;
	say(control, GW_MSG_COMMIT, 0);
	return expect(control, GW_MSG_RUNNING);
}

/* Each time that it hears that nothing is missing it has called again already, to hear it again. */
void paging_calls_for_ever(void *arg, unsigned int i)
{
	int64_t first = 0, last = 0;
	unsigned int calls = 0;
	struct gw_frame f = { 0 };

	(void)arg;
	(void)i;
	if (!left())
		return;
	while (comes(GW_MSG_COMPLETE) && last - first < 60 * GW_S) {
		struct gw_transport *old[GW_PAGING_MIN];

		last = sim_now();
		first = first ?: last;
		calls++;
		gw_frame_recv(paging[0], &f, last + 3 * GW_S); /* nothing comes */
		memcpy(old, paging, sizeof(old));
		memset(paging, 0, sizeof(paging));
		dialled();
		for (unsigned int k = 0; k < GW_PAGING_MIN; k++)
			gw_transport_close(&old[k]);
	}
	sim_check(calls > 1 && last - first <= 30 * GW_S, "%u calls in %.1f s were heeded", calls,
		  (double)(last - first) / GW_S);
	gw_frame_free(&f);
	gw_transport_close(&control);
	for (unsigned int k = 0; k < STREAMS; k++)
		gw_transport_close(&streams[k]);
	paging_close();
}

static void push_beyond(void)
{
	if (paging_begun())
		push(1, 4, 0, 1);
}

static void push_of_padding(void)
{
	if (!paging_begun())
		return;
	push(1, 3, 200, 1); /* no page of it is missing, so none is placed */
	if (expect(paging[1], GW_MSG_PLACED))
		say(control, GW_MSG_COMMIT, 0);
}

static void push_cut_short(void)
{
	if (paging_begun())
		gw_frame_send_buf(paging[1], GW_MSG_PAGES, 0, "short", 5);
}

/* Of a page that is not missing, and of one that came a moment ago: the guest's, and left alone. */
static void push_unasked(void)
{
	uint8_t bytes[GW_PAGE_SIZE];

	if (!paging_begun())
		return;
	push(1, 0, 5, 0xee);
	push(1, 0, 9, 0xdd);
	push(1, 0, 9, 0xcc);
	for (int i = 0; i < 3; i++)
		sim_check(expect(paging[1], GW_MSG_PLACED), "push %d was not taken", i);
	sim_check(!gw_memory_read(sim.dst.memory, 5, 1, bytes) && bytes[0] != 0xee,
		  "a page that was not missing was placed");
	sim_check(!gw_memory_read(sim.dst.memory, 9, 1, bytes) && bytes[0] == 0xdd,
		  "a page was placed twice");
	say(control, GW_MSG_COMMIT, 0);
}

/* @count pages of chunk 0 are said to lie on a disk, with digests that nothing has. */
static void push_place(unsigned int disk, unsigned int page, unsigned int count)
{
	uint8_t frame[GW_RECORD_HEADER + 8 + 8 * GW_DIGEST_LEN] = { GW_STAGE_TELEPORT,
								    (uint8_t)page,
								    (uint8_t)(count - 1) };
	const size_t body = 8 + count * GW_DIGEST_LEN;

	gw_put32(frame + 4, (uint32_t)body);
	gw_put64(frame + GW_RECORD_HEADER, (uint64_t)disk << 48);
	gw_frame_send_buf(paging[1], GW_MSG_PAGES, 0, frame, GW_RECORD_HEADER + body);
}

static bool disks_follow(void)
{
	return paged_with(GW_PAGING_MIN, NULL, true) && dialled() && begun();
}

static void places_unasked(void)
{
	if (paging_begun())
		push_place(0, 8, 1);
}

static void place_beyond(void)
{
	if (disks_follow())
		push_place(7, 8, 1);
}

/* Of what is the guest's it is told nothing, and nothing of it is placed. */
static void places_that_lie(void)
{
	struct gw_frame f = { 0 };
	struct gw_reader r;
	size_t first = 0, count = 0;

	if (!disks_follow())
		return;
	push_place(0, 4, 8);
	while (!gw_frame_recv(paging[1], &f, sim_now() + 10 * GW_S) && f.type != GW_MSG_REFUSED)
		;
	r = (struct gw_reader){ f.payload, f.len };
	sim_check(f.type == GW_MSG_REFUSED && gw_runs_take(&r, 1024, &first, &count) == 1 &&
			  first == 8 && count == 4 && !r.left,
		  "not what is missing was refused");
	gw_frame_free(&f);
	say(control, GW_MSG_COMMIT, 0);
}

static void barrier_on_paging(void)
{
	if (paging_begun())
		say(paging[1], GW_MSG_BARRIER, 1);
}

static void ledger_too_early(void)
{
	if (paging_begun())
		say(paging[0], GW_MSG_LEDGER, 0);
}

/* The first part of a frame and then nothing: neither its guest nor its QEMU waits for ever. */
static void half_a_push(void)
{
	char half[7] = { 0 };
	struct iovec iov = { half, sizeof(half) };

	if (!paging_begun())
		return;
	sim.src.qemu = QEMU_STOPPED;
	guest_stop(&sim.guest);
	sim.device_len = 64;
	memset(sim.device_state, 7, sim.device_len);
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, sim.device_state, sim.device_len);
	say(control, GW_MSG_DEVICE_END, 0);
	if (!expect(control, GW_MSG_HELD))
		return;
	paging[1]->ops->send(paging[1], &iov, 1);
	say(control, GW_MSG_LOAD, 0);
	for (int i = 0; i < 5; i++)
		expect(control, GW_MSG_LOADED);
}

const struct script paging_scripts[] = {
	{ "too few connections for pages", paging_of_none, "wants 1 paging connections" },
	{ "too many of them", paging_of_many, "paging connections" },
	{ "MISSING without post-copy", missing_unasked, "MISSING, which is not due" },
	{ "missing beyond memory", missing_beyond, "source: " },
	{ "missing padding", missing_padding, "not memory of the VM" },
	{ "missing twice", missing_miscounted, "said that 2 pages are missing" },
	{ "no connection for pages", paging_never, "paging connections: " },
	{ "MISSING after its end", missing_again, "MISSING, which is not due" },
	{ "a round after MISSING", round_after_missing, "ROUND_END, which is not due" },
	{ "pushed beyond memory", push_beyond, "beyond the VM's memory" },
	{ "pushed padding", push_of_padding, "COMMIT, which is not due" },
	{ "a push cut short", push_cut_short, "cut short" },
	{ "pushed unasked, and twice", push_unasked, "COMMIT, which is not due" },
	{ "places on disks that follow, unasked", places_unasked, "which were not offered" },
	{ "a place on a disk beyond, that follows", place_beyond, "disk 7, which was not offered" },
	{ "places that lie, and follow", places_that_lie, "COMMIT, which is not due" },
	{ "a barrier among pages", barrier_on_paging, "a BARRIER frame on a paging connection" },
	{ "a ledger too early", ledger_too_early, "a LEDGER frame on a paging connection" },
	{ "half a push", half_a_push, "in time" },
};

const unsigned int nr_paging_scripts = sizeof(paging_scripts) / sizeof(paging_scripts[0]);

void paging_close(void)
{
	for (unsigned int i = 0; i < GW_PAGING_MIN; i++)
		gw_transport_close(&paging[i]);
}
