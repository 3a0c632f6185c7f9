// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hostile_source.c - sources that break the rules of messages.h.
 *
 * Each script follows the protocol up to some point and then does not. The
 * real destination must end with a reason, in time, with nothing left and
 * without ever running a guest (invariant 10).
 */
#include <errno.h>
#include <string.h>

#include "away.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "hostile.h"
#include "runs.h"

#define KEYED "\"features\":[\"keyed-digests\"],\"secret\":\"" SECRET "\""

struct gw_transport *control;
struct gw_transport *streams[STREAMS + 2];

static const struct scenario sc = {
	.name = "hostile-source",
	.guest = { .writes_per_ms = 1, .working_set = 10, .caches = true },
	.streams = STREAMS,
	.downtime_limit_ms = 300,
	.unequal = true, /* no script sends any memory */
	.reuse = REUSE_BACK,
};

struct gw_transport *dial(unsigned int kind, unsigned int stream)
{
	struct gw_open open = { GW_VERSION_MIN, GW_VERSION, (uint16_t)kind, 0, stream, 0, { 1 } };
	struct gw_transport *t, *peer;
	uint8_t wire[GW_OPEN_LEN];

	t = net_open(&sim.src.worker, &sim.dst.daemon, &peer, sim_now() + GW_S);
	dest_accept(peer);
	gw_open_encode(&open, wire);
	gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire));
	return t;
}

bool expect(struct gw_transport *t, unsigned int type)
{
	struct gw_frame f = { 0 };
	bool ok = !gw_frame_recv(t, &f, sim_now() + 10 * GW_S) && f.type == type;

	gw_frame_free(&f);
	return ok;
}

void say(struct gw_transport *t, unsigned int type, uint64_t arg)
{
	gw_frame_send(t, type, arg, NULL, 0);
}

void define(const char *text)
{
	control = dial(GW_OPEN_MIGRATE, 0);
	if (expect(control, GW_MSG_ACCEPT))
		gw_frame_send_buf(control, GW_MSG_DEFINE, 0, text, strlen(text));
}

/* The protocol, as far as it goes well, in pieces. */
static bool defined_with(const char *feature)
{
	json_t *json = json_pack("{s:O,s:b,s:i,s:i,s:[s]}", "definition", sim.definition, "run", 1,
				 "streams", STREAMS, "resident", 0, "features", feature);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	define(text);
	free(text);
	return expect(control, GW_MSG_READY);
}

static bool defined(void)
{
	return defined_with("what is to come");
}

bool joined_streams(void)
{
	for (unsigned int i = 0; i < STREAMS; i++) {
		streams[i] = dial(GW_OPEN_STREAM, i);
		if (!expect(streams[i], GW_MSG_ACCEPT))
			return false;
	}
	return true;
}

/* The same with the departure that the destination keeps an image of, and @more features. */
static bool come_back(const char *more)
{
	json_t *json = json_pack("{s:O,s:b,s:i,s:i,s:[s,s*],s:s,s:{s:i,s:[s]}}", "definition",
				 sim.definition, "run", 1, "streams", STREAMS, "resident", 0,
				 "features", "keyed-digests", more, "secret", SECRET, "reuse",
				 "departures", 1, "ids", "01000000000000000000000000000000");
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	define(text);
	free(text);
	return expect(control, GW_MSG_READY);
}

static bool came_back(void)
{
	return come_back(NULL) && expect(control, GW_MSG_ABSENT) && joined_streams();
}

bool joined(void)
{
	return defined() && joined_streams();
}

static bool first_round(void)
{
	for (unsigned int i = 0; i < STREAMS; i++)
		say(streams[i], GW_MSG_BARRIER, 1);
	say(control, GW_MSG_ROUND_END, 1);
	return expect(control, GW_MSG_ROUND_DONE);
}

static bool round_sent(void)
{
	return joined() && first_round();
}

static void device(const char *text)
{
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, text, strlen(text));
}

/* A switchover that may be taken back, with some device state in it. */
static bool device_begun(void)
{
	if (!defined_with("switchover-again") || !joined_streams() || !first_round())
		return false;
	device("some of it");
	return true;
}

static void pages(uint64_t chunk, const void *payload, size_t len)
{
	if (!joined())
		return;
	gw_frame_send_buf(streams[1], GW_MSG_PAGES, chunk, payload, len);
}

static void no_json(void)
{
	define("streams: many");
}

static void no_streams(void)
{
	define("{\"streams\":0,\"resident\":0,\"definition\":[]}");
}

static void many_streams(void)
{
	define("{\"streams\":65,\"resident\":0,\"definition\":[]}");
}

static void negative_resident(void)
{
	define("{\"streams\":1,\"resident\":-1,\"definition\":[]}");
}

static void no_definition(void)
{
	define("{\"streams\":1,\"resident\":0}");
}

static void no_secret(void)
{
	define("{\"streams\":1,\"resident\":0,\"features\":[\"keyed-digests\"]}");
}

static void short_secret(void)
{
	define("{\"streams\":1,\"resident\":0,\"features\":[\"keyed-digests\"],\"secret\":\"00\"}");
}

static void no_features(void)
{
	define("{\"streams\":1,\"resident\":0,\"features\":7}");
}

/* Without having said that it can. */
static void storage_unasked(void)
{
	define("{\"streams\":1,\"resident\":0,\"definition\":[]," KEYED
	       ",\"storage\":{\"disks\":[]}}");
}

static void negative_departures(void)
{
	define("{\"streams\":1,\"resident\":0,\"definition\":[]," KEYED
	       ",\"reuse\":{\"departures\":-1,\"ids\":[]}}");
}

static void more_ids_than_departures(void)
{
	define("{\"streams\":1,\"resident\":0,\"definition\":[]," KEYED
	       ",\"reuse\":{\"departures\":1,\"ids\":[\"\",\"\"]}}");
}

static void no_ids(void)
{
	define("{\"streams\":1,\"resident\":0,\"definition\":[]," KEYED
	       ",\"reuse\":{\"departures\":1,\"ids\":[\"0123\"]}}");
}

static void want(size_t first, size_t count, size_t len)
{
	uint8_t run[GW_RUN_LEN + 1] = { 0 };

	gw_put64(run, first);
	gw_put32(run + 8, (uint32_t)count);
	gw_frame_send_buf(control, GW_MSG_WANT, 0, run, len);
}

static void want_unkept(void)
{
	if (joined())
		want(0, 1, GW_RUN_LEN);
}

static void want_nothing(void)
{
	if (came_back())
		want(0, 0, 0);
}

static void want_beyond(void)
{
	if (came_back())
		want(4 * GW_CHUNK_PAGES - 1, 2, GW_RUN_LEN);
}

static void want_cut_short(void)
{
	if (came_back())
		want(0, 1, GW_RUN_LEN + 1);
}

/* More than one question may have, of pages that exist. */
static void want_too_much(void)
{
	uint8_t runs[3 * GW_RUN_LEN] = { 0 };

	if (!came_back())
		return;
	gw_put64(runs, 0);
	gw_put32(runs + 8, UINT32_MAX);
	gw_frame_send_buf(control, GW_MSG_WANT, 0, runs, sizeof(runs));
}

static void ask_disks(const char *text)
{
	gw_frame_send_buf(control, GW_MSG_SAMPLE, 0, text, strlen(text));
}

#define BLOCKS "[{\"disk\":\"d0\",\"depth\":0,\"blocks\":[0,4096]}]"

static void disks_without_key(void)
{
	if (joined())
		ask_disks(BLOCKS);
}

static void disks_of_nothing(void)
{
	if (came_back())
		ask_disks("7");
}

static void disks_for_ever(void)
{
	if (!came_back())
		return;
	for (int i = 0; i < GW_SAMPLES_ASKED; i++) {
		ask_disks(BLOCKS);
		sim_check(expect(control, GW_MSG_SAMPLED), "question %d was not answered", i);
	}
	ask_disks(BLOCKS);
}

static void compare_unkept(void)
{
	if (joined())
		say(control, GW_MSG_COMPARE, 0);
}

/* One who did not say that he could wait has heard of all at once. */
static void compare_too_late(void)
{
	if (came_back())
		say(control, GW_MSG_COMPARE, 0);
}

/* Questions without end, each with all the time in the world, and then a bad one. */
static void compare_for_ever(void)
{
	const int64_t began = sim_now();

	if (!come_back("compared-later") || !joined_streams())
		return;
	for (int i = 0; i < 50; i++) {
		say(control, GW_MSG_COMPARE, UINT64_MAX);
		sim_check(expect(control, GW_MSG_COMPARED), "question %d was not answered", i);
	}
	sim_check(sim_now() < began + GW_S, "what is known is waited for");
	want(0, 0, 0);
}

static void want_late(void)
{
	if (!came_back())
		return;
	want(0, 1, GW_RUN_LEN);
	if (!expect(control, GW_MSG_BLOCKS))
		return;
	for (unsigned int i = 0; i < STREAMS; i++)
		say(streams[i], GW_MSG_BARRIER, 1);
	say(control, GW_MSG_ROUND_END, 1);
	if (expect(control, GW_MSG_ROUND_DONE))
		want(0, 1, GW_RUN_LEN);
}

static void commit_first(void)
{
	control = dial(GW_OPEN_MIGRATE, 0);
	if (expect(control, GW_MSG_ACCEPT))
		say(control, GW_MSG_COMMIT, 0);
}

static void stream_beyond(void)
{
	if (defined())
		streams[0] = dial(GW_OPEN_STREAM, STREAMS);
}

static void stream_twice(void)
{
	if (!defined())
		return;
	for (unsigned int i = 0; i < 2; i++)
		streams[i] = dial(GW_OPEN_STREAM, 1);
}

static void streams_never(void)
{
	if (defined())
		expect(control, GW_MSG_ROUND_DONE);
}

static void commit_unloaded(void)
{
	if (round_sent())
		say(control, GW_MSG_COMMIT, 0);
}

static void device_unasked(void)
{
	if (joined())
		gw_frame_send_buf(control, GW_MSG_DEVICE, 0, "state", 5);
}

static void round_skipped(void)
{
	if (joined())
		say(control, GW_MSG_ROUND_END, 2);
}

static void barrier_skipped(void)
{
	if (joined())
		say(streams[0], GW_MSG_BARRIER, 2);
}

static void commit_on_stream(void)
{
	if (joined())
		say(streams[1], GW_MSG_COMMIT, 0);
}

static void pages_beyond(void)
{
	uint8_t record[8] = { GW_STAGE_ZERO };

	pages(4, record, sizeof(record));
}

static void pages_far_beyond(void)
{
	uint8_t record[8] = { GW_STAGE_ZERO };

	pages(UINT64_MAX / GW_CHUNK_PAGES, record, sizeof(record));
}

/* The second file ends within its chunk: what follows belongs to nobody. */
static void pages_of_padding(void)
{
	uint8_t record[8] = { GW_STAGE_ZERO, 30, 20 };

	pages(3, record, sizeof(record));
}

static void pages_malformed(void)
{
	pages(0, "no record at all", 16);
}

static void verify_ahead(void)
{
	uint8_t digest[16] = { 0 };

	if (round_sent())
		gw_frame_send_buf(control, GW_MSG_VERIFY, 1, digest, sizeof(digest));
}

static void verify_too_much(void)
{
	uint8_t digests[5 * 16] = { 0 };

	if (round_sent())
		gw_frame_send_buf(control, GW_MSG_VERIFY, 0, digests, sizeof(digests));
}

static void verify_a_part(void)
{
	uint8_t digest[16] = { 0 };
	struct gw_digest zero = gw_digest_chunk(NULL, GW_CHUNK_PAGES);

	gw_put64(digest, zero.low);
	gw_put64(digest + 8, zero.high);
	if (!round_sent())
		return;
	gw_frame_send_buf(control, GW_MSG_VERIFY, 0, digest, sizeof(digest));
	say(control, GW_MSG_VERIFY_END, 0);
}

static void verify_wrong(void)
{
	uint8_t digests[4 * 16] = { 1 };

	if (!round_sent())
		return;
	gw_frame_send(control, GW_MSG_VERIFY, 0, NULL, 0);
	gw_frame_send_buf(control, GW_MSG_VERIFY, 0, digests, sizeof(digests));
	say(control, GW_MSG_VERIFY_END, 0);
}

/* Nothing after the first digests, with all that time of a large guest. */
static void verify_never(void)
{
	if (round_sent())
		gw_frame_send(control, GW_MSG_VERIFY, 0, NULL, 0);
}

static void text_and_percents(void)
{
	char text[4096];

	memset(text, '%', sizeof(text));
	memcpy(text, "%s%n%s%n", 8);
	if (joined())
		gw_frame_send_buf(control, GW_MSG_ERROR, 0, text, sizeof(text));
}

static void no_frame(void)
{
	char text[64] = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
	struct iovec iov = { text, sizeof(text) };

	if (joined())
		control->ops->send(control, &iov, 1);
}

/* Half a frame and then nothing, on a connection that stays up: the source has no such right. */
static void silent_in_switchover(void)
{
	if (!round_sent())
		return;
	sim.src.qemu = QEMU_STOPPED;
	guest_stop(&sim.guest);
	sim.device_len = 64;
	memset(sim.device_state, 7, sim.device_len);
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, sim.device_state, 32);
	expect(control, GW_MSG_LOADED);
	expect(control, GW_MSG_LOADED);
}

/* Pages that come after the last barrier: QEMU has seen memory by then. */
static void pages_after_loading(void)
{
	uint8_t frame[8 + GW_PAGE_SIZE] = { GW_STAGE_RAW, 5 }, bytes[GW_PAGE_SIZE];

	if (!round_sent())
		return;
	sim.src.qemu = QEMU_STOPPED;
	guest_stop(&sim.guest);
	sim.device_len = 64;
	memset(sim.device_state, 7, sim.device_len);
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, sim.device_state, sim.device_len);
	say(control, GW_MSG_DEVICE_END, 0);
	if (!expect(control, GW_MSG_LOADED))
		return;
	gw_put32(frame + 4, GW_PAGE_SIZE);
	memset(frame + 8, 0xee, GW_PAGE_SIZE);
	gw_frame_send_buf(streams[1], GW_MSG_PAGES, 0, frame, sizeof(frame));
	expect(streams[1], GW_MSG_ACCEPT); /* nothing comes: until it has hung up, or for a while */
	sim_check(!gw_memory_read(sim.dst.memory, 5, 1, bytes), "no memory at the destination");
	sim_check(bytes[0] != 0xee, "a page was placed after the device state was loaded");
	say(control, GW_MSG_ROUND_END, 2);
}

static void resumed_unasked(void)
{
	if (!round_sent())
		return;
	device("state");
	say(control, GW_MSG_RESUMED, 0);
}

static void resumed_from_nothing(void)
{
	if (defined_with("switchover-again") && joined_streams() && first_round())
		say(control, GW_MSG_RESUMED, 0);
}

static void resumed_twice(void)
{
	if (!device_begun())
		return;
	say(control, GW_MSG_RESUMED, 0);
	say(control, GW_MSG_RESUMED, 0);
}

static void load_unasked(void)
{
	if (!round_sent())
		return;
	device("state");
	say(control, GW_MSG_LOAD, 0);
}

static void load_a_part(void)
{
	if (device_begun())
		say(control, GW_MSG_LOAD, 0);
}

static void load_forgotten(void)
{
	if (!device_begun())
		return;
	say(control, GW_MSG_DEVICE_END, 0);
	say(control, GW_MSG_RESUMED, 0);
	say(control, GW_MSG_LOAD, 0);
}

static void commit_held(void)
{
	if (!device_begun())
		return;
	say(control, GW_MSG_DEVICE_END, 0);
	if (expect(control, GW_MSG_HELD))
		say(control, GW_MSG_COMMIT, 0);
}

static void round_while_held(void)
{
	if (device_begun())
		say(control, GW_MSG_ROUND_END, 2);
}

static void device_after_its_end(void)
{
	if (!device_begun())
		return;
	say(control, GW_MSG_DEVICE_END, 0);
	device("and more");
}

static void device_of_nothing(void)
{
	if (device_begun())
		device("");
}

static void device_end_of_nothing(void)
{
	if (round_sent())
		say(control, GW_MSG_DEVICE_END, 0);
}

/* All but ten bytes of what may be held at most: not sent, that is 1 GiB. */
static void device_for_ever(void)
{
	if (!device_begun())
		return;
	say(control, GW_MSG_RESUMED, 0);
	device("all but ten bytes");
	say(control, GW_MSG_DEVICE_END, 0);
	if (!expect(control, GW_MSG_HELD))
		return;
	sim.dst.d.held.len = GW_HELD_MAX - 10;
	sim.dst.d.whole = false;
	device("10 bytes...");
}

static const struct script scripts[] = {
	{ "no JSON", no_json, "0 streams" },
	{ "no streams", no_streams, "0 streams" },
	{ "many streams", many_streams, "65 streams" },
	{ "negative size", negative_resident, "1 streams" },
	{ "no definition", no_definition, "definition" },
	{ "a key without its secret", no_secret, "a VM's secret that is none" },
	{ "half a secret", short_secret, "a VM's secret that is none" },
	{ "features that are none", no_features, "a list of names that is none" },
	{ "disks to copy, without the feature", storage_unasked,
	  "disks copied, which was not offered" },
	{ "negative departures", negative_departures, "departures that cannot be" },
	{ "ids of no departure", more_ids_than_departures, "departures that cannot be" },
	{ "no id", no_ids, "not a migration id" },
	{ "blocks of no image", want_unkept, "WANT, which is not due" },
	{ "blocks of no page", want_nothing, "wants 0 pages" },
	{ "blocks beyond memory", want_beyond, "wants" },
	{ "half a question", want_cut_short, "wants" },
	{ "blocks of too much", want_too_much, "wants" },
	{ "disks without a key", disks_without_key, "SAMPLE, which is not due" },
	{ "disks that are none", disks_of_nothing, "a list of blocks that is none" },
	{ "disks for ever", disks_for_ever, "SAMPLE, which is not due" },
	{ "blocks after a round", want_late, "WANT, which is not due" },
	{ "a comparison of no image", compare_unkept, "COMPARE, which is not due" },
	{ "a comparison that is over", compare_too_late, "COMPARE, which is not due" },
	{ "comparisons for ever", compare_for_ever, "wants 0 pages" },
	{ "COMMIT first", commit_first, "COMMIT, which is not due" },
	{ "a stream too many", stream_beyond, "stream 2" },
	{ "a stream twice", stream_twice, "stream 1" },
	{ "no stream comes", streams_never, "streams" },
	{ "COMMIT before the device state", commit_unloaded, "COMMIT, which is not due" },
	{ "device state before memory", device_unasked, "DEVICE, which is not due" },
	{ "a round skipped", round_skipped, "ROUND_END, which is not due" },
	{ "a barrier skipped", barrier_skipped, "barrier 2" },
	{ "COMMIT on a stream", commit_on_stream, "a COMMIT frame on a stream" },
	{ "pages beyond memory", pages_beyond, "beyond the VM's memory" },
	{ "pages far beyond", pages_far_beyond, "beyond the VM's memory" },
	{ "pages of padding", pages_of_padding, "not memory of the VM" },
	{ "malformed pages", pages_malformed, "" },
	{ "digests ahead", verify_ahead, "VERIFY, which is not due" },
	{ "too many digests", verify_too_much, "VERIFY, which is not due" },
	{ "too few digests", verify_a_part, "VERIFY_END, which is not due" },
	{ "wrong digests", verify_wrong, "verification failed" },
	{ "no digests", verify_never, "did not answer in time" },
	{ "4 KiB of percent signs", text_and_percents, "%s%n%s%n%%%" },
	{ "HTTP", no_frame, "does not speak" },
	{ "pages after the device state", pages_after_loading, "ROUND_END, which is not due" },
	{ "silence in the switchover", silent_in_switchover, "did not answer in time" },
	{ "RESUMED without the feature", resumed_unasked, "RESUMED, which is not due" },
	{ "RESUMED from nothing", resumed_from_nothing, "RESUMED, which is not due" },
	{ "RESUMED twice", resumed_twice, "RESUMED, which is not due" },
	{ "LOAD without the feature", load_unasked, "LOAD, which is not due" },
	{ "LOAD of a part", load_a_part, "LOAD, which is not due" },
	{ "LOAD of what was taken back", load_forgotten, "LOAD, which is not due" },
	{ "COMMIT of what is held", commit_held, "COMMIT, which is not due" },
	{ "a round while it is held", round_while_held, "ROUND_END, which is not due" },
	{ "device state after its end", device_after_its_end, "DEVICE, which is not due" },
	{ "device state of nothing", device_of_nothing, "DEVICE, which is not due" },
	{ "the end of no device state", device_end_of_nothing, "DEVICE_END, which is not due" },
	{ "device state for ever", device_for_ever, "more than 1024 MiB of device state" },
};

static const struct script *script_of(unsigned int i)
{
	const unsigned int n = sizeof(scripts) / sizeof(scripts[0]);

	if (i < n)
		return &scripts[i];
	i -= n;
	if (i < nr_paging_scripts)
		return &paging_scripts[i];
	i -= nr_paging_scripts;
	return i < nr_away_scripts ? &away_scripts[i] : &disk_scripts[i - nr_away_scripts];
}

static void script(void *arg, unsigned int i)
{
	struct gw_frame f = { 0 };

	(void)arg;
	control = NULL;
	memset(streams, 0, sizeof(streams));
	script_of(i)->run();
	/* Whatever it says, until it hangs up. */
	while (control && !gw_frame_recv(control, &f, sim_now() + 60 * GW_S))
		;
	gw_frame_free(&f);
	gw_transport_close(&control);
	for (size_t k = 0; k < STREAMS + 2; k++)
		gw_transport_close(&streams[k]);
	paging_close();
}

/* Its guest runs here, and so it is a VM like any other before long, whatever the source does. */
static void called_for_ever(void)
{
	static const struct fault none[2];

	sim_begin(&sc, 0, none);
	control = NULL;
	memset(streams, 0, sizeof(streams));
	fiber_new(&sim.src.worker, "calls for ever", paging_calls_for_ever, NULL, 0);
	sim_go();
	sim_check(sim.dst.ended && sim.dst.d.state == GW_DEST_RUNNING &&
			  sim.dst.journal == JOURNAL_NONE && sim.dst.qemu == QEMU_RUNNING,
		  "a source that calls for ever keeps the destination");
	sim_end();
}

unsigned int hostile_sources(void)
{
	static const struct fault none[2];
	const unsigned int n = sizeof(scripts) / sizeof(scripts[0]) + nr_paging_scripts +
			       nr_away_scripts + nr_disk_scripts;

	for (unsigned int i = 0; i < n; i++) {
		const struct script *s = script_of(i);

		sim_begin(&sc, i, none);
		fiber_new(&sim.src.worker, s->name, script, NULL, i);
		sim_go();
		away_drop();
		sim_check(sim.dst.ended && sim.dst.d.state == GW_DEST_FAILED,
			  "%s: the destination did not end it", s->name);
		sim_check(strstr(sim.dst.d.error, s->says), "%s: wrong reason", s->name);
		sim_check(!sim.dst.took_over && !sim.dst.left_behind &&
				  sim.dst.journal == JOURNAL_NONE &&
				  (sim.dst.qemu == QEMU_NONE || sim.dst.qemu == QEMU_ENDED),
			  "%s: something stays behind", s->name);
		sim_end();
	}
	called_for_ever();
	return n + 1;
}
