// SPDX-License-Identifier: GPL-2.0-or-later
/* test_memserver.c - a memory server, and main hosts that are right, wrong, or gone. */
#include "memserver.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "feature.h"
#include "pipeline.h"

static uint64_t resident(const struct host *h)
{
	return gw_memory_resident(&h->store.ram.memory) / GW_PAGE_SIZE;
}

/* What left comes back, alone or with its chunk; what never left is absent. */
static void pages_come_back(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 10, 30);
	leave(h, FIRST_PAGES + 120, 8);
	assert_int_equal(resident(h), 38);
	say_run(h, 0, GW_MSG_REQUEST, 12, 1);
	assert_int_equal(hear_pages(h, 0), 1);
	assert_true(gw_bitmap_test(&h->came, 12));
	/* Each run by itself where a guest waits, all of a chunk where it does not. */
	say_runs(h, 0, GW_MSG_REQUEST, (const size_t[][2]){ { 11, 1 }, { 38, 4 } }, 2);
	assert_int_equal(hear_pages(h, 0), 1);
	assert_int_equal(hear_pages(h, 0), 2);
	hear(h, 0, GW_MSG_ABSENT);
	assert_int_equal(h->f.len, GW_RUN_LEN);
	assert_run(&h->f, 0, 40, 2);
	say_runs(h, 1, GW_MSG_REQUEST,
		 (const size_t[][2]){ { 0, 20 }, { 25, 300 }, { FIRST_PAGES + 127, 1 } }, 3);
	assert_int_equal(hear_pages(h, 1), 25);
	assert_int_equal(hear_pages(h, 1), 1);
	hear(h, 1, GW_MSG_ABSENT);
	assert_int_equal(h->f.len, 2 * GW_RUN_LEN);
	assert_run(&h->f, 0, 0, 10);
	assert_run(&h->f, 1, 40, 285);
	/* All of what lies there is there still. */
	assert_int_equal(resident(h), 38);
}

static void what_came_is_released(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 256);
	leave(h, 256, 256);
	/* Over two chunks, and of pages that are not there. */
	say_runs(h, 1, GW_MSG_RELEASE, (const size_t[][2]){ { 250, 10 }, { 700, 68 } }, 2);
	leave(h, 255, 1);
	assert_int_equal(resident(h), 503);
	assert_int_equal(h->store.pages, 503);
	say_run(h, 0, GW_MSG_REQUEST, 250, 10);
	assert_int_equal(hear_pages(h, 0), 1);
	assert_true(gw_bitmap_test(&h->came, 255));
	hear(h, 0, GW_MSG_ABSENT);
	assert_run(&h->f, 0, 250, 5);
	assert_run(&h->f, 1, 256, 4);
}

/* A page of zeros needs no server, but one that was sent comes back. */
static void zeros_come_back(void **state)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	struct host *h = *state;
	uint8_t record[GW_RECORD_HEADER] = { GW_STAGE_ZERO, 7, 1 };

	begin(h, 0, 0);
	say(h, 1, GW_MSG_PAGES, record, sizeof(record));
	hear(h, 1, GW_MSG_STORED);
	assert_int_equal(h->f.arg, 1);
	say_run(h, 0, GW_MSG_REQUEST, 7, 2);
	memset(h->got + 7 * GW_PAGE_SIZE, 1, 2 * GW_PAGE_SIZE);
	hear(h, 0, GW_MSG_PAGES);
	assert_int_equal(gw_pipeline_decode(&h->decoder, h->f.arg, h->f.payload, h->f.len), 0);
	assert_memory_equal(h->got + 7 * GW_PAGE_SIZE, zeros, GW_PAGE_SIZE);
	assert_memory_equal(h->got + 8 * GW_PAGE_SIZE, zeros, GW_PAGE_SIZE);
}

/* Neither a lost connection nor the end of the process loses a page. */
static void a_restart_keeps_all(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 100, 100);
	/* Some that the main host was not told of: it has them still. */
	assert_int_equal(put(h, 200, 56), 0);
	host_hang_up(h);
	assert_true(gw_transport_lost(h->rc[0]));
	for (unsigned int i = 0; i < 2; i++) {
		size_t pages;

		if (i)
			host_restart(h);
		host_connect(h);
		pages = say_hold(h);
		assert_true(pages == 100 || (!i && pages == 156));
		say_run(h, 0, GW_MSG_MISSING, 100, 100);
		say(h, 0, GW_MSG_MISSING_END, NULL, 0);
		hear(h, 0, GW_MSG_HOLDING);
		assert_int_equal(h->f.arg, 100);
		assert_int_equal(resident(h), 100);
		say_run(h, 0, GW_MSG_REQUEST, 100, 100);
		assert_int_equal(hear_pages(h, 0), 100);
		host_hang_up(h);
	}
}

/* Only what the main host has not stays, and it hears what of it is not here. */
static void both_compare(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 256);
	leave(h, FIRST_PAGES, 100);
	host_hang_up(h);
	host_connect(h);
	assert_int_equal(say_hold(h), 356);
	say_runs(h, 0, GW_MSG_MISSING, (const size_t[][2]){ { 5, 10 }, { 20, 1 } }, 2);
	say_runs(h, 0, GW_MSG_MISSING, (const size_t[][2]){ { 250, 10 }, { FIRST_PAGES + 90, 38 } },
		 2);
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(h, 0, GW_MSG_ABSENT);
	assert_int_equal(h->f.len, 2 * GW_RUN_LEN);
	assert_run(&h->f, 0, 256, 4);
	assert_run(&h->f, 1, FIRST_PAGES + 100, 28);
	hear(h, 0, GW_MSG_HOLDING);
	assert_int_equal(h->f.arg, 27);
	assert_int_equal(resident(h), 27);
	host_hang_up(h);
	/* It has all of it now. */
	host_connect(h);
	assert_int_equal(say_hold(h), 27);
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(h, 0, GW_MSG_HOLDING);
	assert_int_equal(h->f.arg, 0);
	assert_int_equal(resident(h), 0);
}

/* Who is not the main host yet says what it lacks, and hears what is not here; nothing goes. */
static void carried(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 256);
	leave(h, FIRST_PAGES, 100);
	host_hang_up(h);
	for (unsigned int i = 0; i < 3; i++) {
		h->hold.carried = i < 2;
		host_connect(h);
		assert_int_equal(say_hold(h), 356);
		assert_int_equal(h->serve.hold.carried, i < 2);
		say_runs(h, 0, GW_MSG_MISSING, (const size_t[][2]){ { 5, 10 }, { 250, 10 } }, 2);
		say(h, 0, GW_MSG_MISSING_END, NULL, 0);
		hear(h, 0, GW_MSG_ABSENT);
		assert_int_equal(h->f.len, GW_RUN_LEN);
		assert_run(&h->f, 0, 256, 4);
		hear(h, 0, GW_MSG_HOLDING);
		assert_int_equal(h->f.arg, i < 2 ? 356 : 16);
		assert_int_equal(resident(h), i < 2 ? 356 : 16);
		/* Named or not, what is asked for comes. */
		say_run(h, 0, GW_MSG_REQUEST, i < 2 ? 100 : 250, 6);
		assert_int_equal(hear_pages(h, 0), 6);
		/* Its process may end in between. */
		if (i)
			host_restart(h);
		else
			host_hang_up(h);
	}
	/* Named by nobody. */
	h->hold.carried = true;
	host_connect(h);
	assert_int_equal(say_hold(h), 16);
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(h, 0, GW_MSG_HOLDING);
	assert_int_equal(resident(h), 16);
}

/* What one says the other reads. */
static void what_travels(void **state)
{
	struct host *h = *state;
	struct gw_memory m = { .nr_blocks = 2,
			       .blocks = {
				       { .id = "ram", .size = FIRST_PAGES * GW_PAGE_SIZE },
				       { .id = "more", .size = SECOND_PAGES * GW_PAGE_SIZE } } };
	uint32_t stages, features;
	char host[GW_HOST_MAX];

	for (unsigned int i = 0; i < 2; i++) {
		gw_autofree char *text = gw_hold_text("web1", "A", &m, 8 * GW_PAGE_SIZE, i);
		json_t *json = json_loads(text, 0, NULL);
		struct gw_hold hold;

		assert_int_equal(gw_hold_parse(&hold, json), 0);
		assert_true(gw_hold_same_blocks(&hold, &h->hold));
		assert_string_equal(hold.name, "web1");
		assert_string_equal(hold.host, "A");
		assert_int_equal(hold.size, 8 * GW_PAGE_SIZE);
		assert_int_equal(hold.carried, i);
		assert_true(hold.features >> GW_FEATURE_CARRIED & 1);
		assert_true(hold.stages >> GW_STAGE_RAW & 1);
		json_decref(json);
	}
	host_connect(h);
	say_hold(h);
	assert_int_equal(gw_holding_parse(h->f.payload, h->f.len, host, &stages, &features), 0);
	assert_string_equal(host, "B");
	assert_true(features >> GW_FEATURE_CARRIED & 1);
	assert_int_equal(stages, h->serve.hold.stages);
	assert_int_equal(features, h->serve.hold.features);
	for (unsigned int i = 0; i < 6; i++) {
		static const char *const texts[] = {
			/* of an older one, and of a younger one */
			"{\"host\":\"B\",\"stages\":[\"raw\"]}",
			"{\"host\":\"B\",\"stages\":[\"raw\"],\"features\":[\"split-carried\",\"?\"]}",
			"{\"host\":\"B\",\"stages\":[\"raw\"],\"features\":1}",
			"{\"host\":\"B\",\"stages\":[\"raw\"],\"features\":{\"split-carried\":1}}",
			"{\"stages\":[\"raw\"],\"features\":[]}",
			"no JSON",
		};
		const int rc = gw_holding_parse(texts[i], strlen(texts[i]), host, &stages,
						&features);

		assert_int_equal(rc, i < 2 ? 0 : -EPROTO);
		assert_true(i > 1 || (features >> GW_FEATURE_CARRIED & 1) == i);
	}
}

/* More of them than are kept: they are told before all were named. */
static void much_is_absent(void **state)
{
	const size_t runs = 65 * GW_RUNS_MAX;
	gw_autofree uint8_t *wire = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	struct host *h = *state;
	size_t at = 0;

	h->hold.nr_blocks = 1;
	h->hold.blocks[0].size = 2 * runs * GW_PAGE_SIZE;
	host_connect(h);
	assert_int_equal(say_hold(h), 0);
	for (size_t n = 0; n < runs; n += GW_RUNS_MAX) {
		for (size_t k = 0; k < GW_RUNS_MAX; k++) {
			gw_put64(wire + k * GW_RUN_LEN, 2 * (n + k));
			gw_put32(wire + k * GW_RUN_LEN + 8, 1);
		}
		say(h, 0, GW_MSG_MISSING, wire, GW_RUNS_MAX * GW_RUN_LEN);
	}
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	while (at < runs) {
		hear(h, 0, GW_MSG_ABSENT);
		for (size_t k = 0; k < h->f.len / GW_RUN_LEN; k++, at++)
			assert_run(&h->f, k, 2 * at, 1);
	}
	hear(h, 0, GW_MSG_HOLDING);
}

/* What was promised is what may lie here, and more is refused before it is written. */
static void no_more_than_promised(void **state)
{
	struct host *h = *state;

	h->hold.size = 100 * GW_PAGE_SIZE;
	begin(h, 0, 0);
	leave(h, 0, 90);
	leave(h, 80, 20); /* ten of them again */
	leave(h, 0, 100);
	assert_int_equal(put(h, 99, 2), 0);
	hear_error(h, 1, "more pages than the 100 that were promised room");
	assert_int_equal(resident(h), 100);
	begin(h, 0, 100);
	say_run(h, 1, GW_MSG_RELEASE, 0, 1);
	leave(h, 100, 1);
}

static void a_refusal_is_told(void **state)
{
	struct host *h = *state;
	json_t *json = gw_hold_json(&h->hold);
	gw_autofree char *text = json_dumps(json, 0);

	json_decref(json);
	h->refuses = "no memory for that, see --memory-server-limit";
	host_connect(h);
	say(h, 0, GW_MSG_HOLD, text, strlen(text));
	hear_error(h, 0, "no memory for that, see --memory-server-limit");
}

static void dismissed(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 100);
	say(h, 0, GW_MSG_DISMISS, NULL, 0);
	host_join(h);
	assert_int_equal(h->rc[0], GW_MEMSERVE_DISMISSED);
	/* Or at once: whoever wants nothing of it need not say what it lacks. */
	host_connect(h);
	assert_int_equal(say_hold(h), 100);
	say(h, 0, GW_MSG_DISMISS, NULL, 0);
	host_join(h);
	assert_int_equal(h->rc[0], GW_MEMSERVE_DISMISSED);
}

/* What a main host may say after it was held, and why that is no use. */
struct lie {
	unsigned int way, type;
	size_t runs[2][2];
	size_t n;
	const char *why;
};

static const struct lie lies[] = {
	{ 0, GW_MSG_HOLD, { { 0 } }, 0, "HOLD is not due now" },
	{ 0, GW_MSG_RELEASE, { { 1, 1 } }, 1, "RELEASE is not due now" },
	{ 0, GW_MSG_PAGES, { { 0 } }, 0, "PAGES is not due now" },
	{ 1, GW_MSG_DISMISS, { { 0 } }, 0, "DISMISS is not due now" },
	{ 1, GW_MSG_MISSING, { { 1, 1 } }, 1, "MISSING is not due now" },
	{ 0, GW_MSG_REQUEST, { { ALL_PAGES, 1 } }, 1, "a set of pages that cannot be" },
	{ 0, GW_MSG_REQUEST, { { 60, 1 }, { 60, 1 } }, 2, "a set of pages that cannot be" },
	{ 1, GW_MSG_REQUEST, { { 5, ALL_PAGES } }, 1, "a set of pages that cannot be" },
	{ 1, GW_MSG_RELEASE, { { ~0UL, 1 } }, 1, "a set of pages that cannot be" },
	{ 1, GW_MSG_RELEASE, { { 5, 0 } }, 1, "a set of pages that cannot be" },
};

/* Each ends the connections with a reason, and what lies here is served on. */
static void lies_are_told(void **state)
{
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 50);
	for (size_t i = 0; i < GW_ARRAY_SIZE(lies); i++) {
		const struct lie *l = &lies[i];

		if (i)
			begin(h, 0, 50);
		say_runs(h, l->way, l->type, l->runs, l->n);
		hear_error(h, l->way, l->why);
	}
	/* Before both know what lies here. */
	for (unsigned int i = 0; i < 4; i++) {
		host_connect(h);
		if (i)
			assert_int_equal(say_hold(h), 50);
		if (i == 1)
			say_run(h, 0, GW_MSG_MISSING, 0, 50); /* and the same again */
		if (i == 3)
			say(h, 0, GW_MSG_MISSING, NULL, 0);
		else if (i == 2)
			say_run(h, 0, GW_MSG_REQUEST, 0, 1);
		else
			say_run(h, 0, GW_MSG_MISSING, 49, 1);
		hear_error(h, 0, i == 1 ? "a set of pages that cannot be" : "is not due now");
	}
	begin(h, 0, 50);
	say_run(h, 0, GW_MSG_REQUEST, 0, 50);
	assert_int_equal(hear_pages(h, 0), 50);
}

/* Records that need what nobody has, or are none. */
static void records_that_are_refused(void **state)
{
	static const struct {
		uint8_t record[GW_RECORD_HEADER + 16];
		size_t len;
		uint64_t chunk;
		const char *why;
	} bad[] = {
		{ { GW_STAGE_SAME, 0, 0 }, 8, 0, "that are the same" },
		{ { GW_STAGE_SAME, 0, 0, 1, 16 }, 24, 0, "that are the same" },
		{ { GW_STAGE_DUPLICATE, 0, 0, 0, 8, 0, 0, 0, 9 }, 16, 0, "told by another" },
		{ { GW_STAGE_DELTA, 0, 0, 0, 4, 0, 0, 0, 0, 1, 0, 0 }, 12, 0, "" },
		{ { GW_STAGE_ZERO, 255, 1 }, 8, 0, "beyond its chunk" },
		{ { GW_STAGE_ZERO, 0, 0 }, 8, 5, "beyond the VM's memory" },
		/* Between a block's end and the next chunk. */
		{ { GW_STAGE_ZERO, 128, 0 }, 8, 4, "are not memory of the VM" },
		{ { GW_STAGE_ZERO, 120, 20 }, 8, 4, "are not memory of the VM" },
		{ { 99 }, 8, 0, "unknown stage" },
		{ { GW_STAGE_RAW, 0, 0, 0, 8 }, 16, 0, "raw record" },
		{ { GW_STAGE_ZERO }, 5, 0, "cut short" },
	};
	struct host *h = *state;

	begin(h, 0, 0);
	leave(h, 0, 50);
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		if (i)
			begin(h, 0, 50);
		assert_int_equal(gw_frame_send_buf(h->main[1], GW_MSG_PAGES, bad[i].chunk,
						   bad[i].record, bad[i].len),
				 0);
		hear_error(h, 1, bad[i].why);
		/* Part of a record may lie there: the comparison drops it. */
		host_connect(h);
		say_hold(h);
		say_run(h, 0, GW_MSG_MISSING, 0, 50);
		say(h, 0, GW_MSG_MISSING_END, NULL, 0);
		hear(h, 0, GW_MSG_HOLDING);
		assert_int_equal(h->f.arg, 50);
		host_hang_up(h);
	}
}

static void too_much_at_once(void **state)
{
	struct host *h = *state;

	h->hold.blocks[0].size = 8192 * GW_PAGE_SIZE;
	begin(h, 0, 0);
	say_run(h, 1, GW_MSG_REQUEST, 0, GW_MEMORY_REQUEST_PAGES);
	hear(h, 1, GW_MSG_ABSENT);
	assert_run(&h->f, 0, 0, GW_MEMORY_REQUEST_PAGES);
	say_run(h, 1, GW_MSG_REQUEST, 0, GW_MEMORY_REQUEST_PAGES + 1);
	hear_error(h, 1, "a request for more than 4096 pages");
}

/* Somebody cut a file: an error, and no signal. */
static void a_file_that_was_cut(void **state)
{
	struct host *h = *state;
	gw_autofree char *path = gw_path("%s/ram", h->folder);

	begin(h, 0, 0);
	leave(h, 0, 50);
	assert_int_equal(truncate(path, GW_PAGE_SIZE), 0);
	say_run(h, 0, GW_MSG_REQUEST, 40, 1);
	hear_error(h, 0, "RAM file of ram");
	host_restart(h);
	host_connect(h);
	assert_int_equal(say_hold(h), 1);
	say_run(h, 0, GW_MSG_MISSING, 0, 50);
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(h, 0, GW_MSG_ABSENT);
	assert_run(&h->f, 0, 1, 49);
	hear(h, 0, GW_MSG_HOLDING);
}

/* What was written of a run that found no room is not there, and takes none. */
static void a_full_file_system(void **state)
{
	struct host *h = *state;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("unit", h->folder, "tmpfs", 0, "mode=0700,size=400k"))
		skip();
	begin(h, 0, 0);
	leave(h, 0, 80);
	h->encoder.options.off |= 1U << GW_STAGE_COMPRESS; /* one run, in one call */
	assert_int_equal(put(h, 80, 80), 0);
	hear_error(h, 1, "the file system of /tmp is full; free some of it");
	assert_int_equal(resident(h), 80);
	begin(h, 0, 80);
	say_run(h, 0, GW_MSG_REQUEST, 0, 80);
	assert_int_equal(hear_pages(h, 0), 80);
	host_restart(h);
	assert_int_equal(umount2(h->folder, MNT_DETACH), 0);
}

static void *ask_all_along(void *arg)
{
	struct host *h = arg;
	struct gw_frame f = { 0 };
	uint8_t run[GW_RUN_LEN];
	intptr_t rc = 0;

	for (size_t n = 0; !rc && n < 2000; n++) {
		gw_put64(run, n % 128);
		gw_put32(run + 8, 1);
		rc = gw_frame_send_buf(h->main[0], GW_MSG_REQUEST, 0, run, sizeof(run));
		if (!rc)
			rc = gw_frame_recv(h->main[0], &f, SOON);
		if (!rc && f.type != GW_MSG_PAGES)
			rc = -EPROTO;
	}
	gw_frame_free(&f);
	return (void *)rc;
}

/* A guest waits for pages while others leave, come and go on the other connection. */
static void both_at_a_time(void **state)
{
	struct host *h = *state;
	pthread_t asks;
	void *rc;

	begin(h, 0, 0);
	leave(h, 0, 128);
	assert_int_equal(pthread_create(&asks, NULL, ask_all_along, h), 0);
	for (unsigned int n = 0; n < 50; n++) {
		for (unsigned int k = 0; k < 12; k++)
			assert_int_equal(put(h, 256 + 10 * k, 10), 0);
		do
			hear(h, 1, GW_MSG_STORED);
		while (h->f.arg < h->frames);
		say_run(h, 1, GW_MSG_REQUEST, 256, 120);
		assert_int_equal(hear_pages(h, 1), 120);
		say_run(h, 1, GW_MSG_RELEASE, 256, 120);
	}
	pthread_join(asks, &rc);
	assert_null(rc);
	leave(h, 128, 1);
	assert_int_equal(resident(h), 129);
}

static void holds_are_checked(void **state)
{
	static const struct {
		const char *json, *why;
	} bad[] = {
		{ "[]", "name" },
		{ "{\"name\":\"../x\"}", "name" },
		{ "{'name':'a'}", "a main host without a name" },
		{ "{'name':'a','host':''}", "a main host without a name" },
		{ "{'name':'a','host':'x\\u001b'}", "a main host without a name" },
		{ "{'name':'a','host':'A'}", "0 blocks" },
		{ "{'name':'a','host':'A','blocks':{}}", "0 blocks" },
		{ "{'name':'a','host':'A','blocks':[1]}", "" },
		{ "{'name':'a','host':'A','blocks':[{'id':'..','size':4096}]}", "" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4095}]}", "block 'r'" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':-4096}]}", "block 'r'" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':9223372036854771712}]}",
		  "block 'r'" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4096},{'id':'r','size':4096}]}",
		  "two blocks" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4096}]}", "memory for 0" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4096}],'size':-4096}",
		  "memory for -4096" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4096}],'size':4096,'stages':1}",
		  "list of names" },
		{ "{'name':'a','host':'A','blocks':[{'id':'r','size':4096}],'size':4096,'stages':[]}",
		  "no raw pages" },
	};
	struct host *h = *state;
	struct gw_hold hold;
	json_t *json = gw_hold_json(&h->hold);

	assert_int_equal(gw_hold_parse(&hold, json), 0);
	assert_true(gw_hold_same_blocks(&hold, &h->hold));
	assert_int_equal(hold.size, h->hold.size);
	json_object_set_new(json, "size", json_integer(1LL << 40));
	assert_int_equal(gw_hold_parse(&hold, json), 0);
	assert_int_equal(hold.size, (FIRST_PAGES + SECOND_PAGES) * GW_PAGE_SIZE);
	json_decref(json);
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		gw_autofree char *text = strdup(bad[i].json);

		for (char *at = text; *at; at++)
			if (*at == '\'')
				*at = '"';
		json = json_loads(text, 0, NULL);
		assert_non_null(json);
		assert_int_equal(gw_hold_parse(&hold, json), -EPROTO);
		assert_message(bad[i].why);
		json_decref(json);
		host_connect(h);
		say(h, 0, GW_MSG_HOLD, text, strlen(text));
		hear_error(h, 0, "HOLD: ");
	}
	host_connect(h);
	say(h, 0, GW_MSG_HOLD, "no JSON", 7);
	hear_error(h, 0, "HOLD: ");
}

#define host_test(fn) cmocka_unit_test_setup_teardown(fn, host_make, host_drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(pages_come_back),
		host_test(what_came_is_released),
		host_test(zeros_come_back),
		host_test(a_restart_keeps_all),
		host_test(both_compare),
		host_test(carried),
		host_test(what_travels),
		host_test(much_is_absent),
		host_test(no_more_than_promised),
		host_test(a_refusal_is_told),
		host_test(dismissed),
		host_test(lies_are_told),
		host_test(records_that_are_refused),
		host_test(too_much_at_once),
		host_test(a_file_that_was_cut),
		host_test(both_at_a_time),
		host_test(holds_are_checked),
		host_test(a_full_file_system),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
