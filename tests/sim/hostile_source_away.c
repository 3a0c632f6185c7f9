// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hostile_source_away.c - sources that break the rules of a migration to several hosts; see
 * hostile_source.c. What runs of pages may be, unit test_spread has.
 */
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "hostile.h"
#include "runs.h"

/* DEFINE with what the main host needs to know, and @feature beside those that it takes. */
static void define_any(const char *feature, int postcopy, bool carried)
{
	json_t *json = json_pack("{s:O,s:b,s:i,s:i,s:[s*,s*,s*],s:i,s:{s:b}}", "definition",
				 sim.definition, "run", 1, "streams", STREAMS, "resident", 0,
				 "features", "switchover-again", feature,
				 postcopy ? "postcopy" : NULL, "postcopy", postcopy, "split",
				 "carried", (int)carried);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	define(text);
	free(text);
}

static void define_split(const char *feature, int postcopy)
{
	define_any(feature, postcopy, false);
}

static bool split(void)
{
	define_split("split", 0);
	return expect(control, GW_MSG_READY) && joined_streams();
}

static void away(uint64_t holder, size_t first, size_t count)
{
	uint8_t run[GW_RUN_LEN];

	gw_run_put(run, first, count);
	gw_frame_send_buf(control, GW_MSG_AWAY, holder, run, sizeof(run));
}

static bool round_sent(uint64_t round)
{
	for (unsigned int i = 0; i < STREAMS; i++)
		say(streams[i], GW_MSG_BARRIER, round);
	say(control, GW_MSG_ROUND_END, round);
	return expect(control, GW_MSG_ROUND_DONE);
}

static void some_device(void)
{
	gw_frame_send_buf(control, GW_MSG_DEVICE, 0, "some of it", 10);
}

static void not_agreed(void)
{
	define_split(NULL, 0);
}

static void carried_not_agreed(void)
{
	define_any("split", 0, true);
}

static void with_postcopy(void)
{
	define_split("split", GW_PAGING_MIN);
}

static void away_unasked(void)
{
	if (joined())
		away(0, 0, 1);
}

static void history_unasked(void)
{
	if (joined())
		gw_frame_send_buf(control, GW_MSG_HISTORY, 0, "", 1);
}

static void history_late(void)
{
	if (split() && round_sent(1))
		gw_frame_send_buf(control, GW_MSG_HISTORY, 0, "", 1);
}

static void history_beyond(void)
{
	if (split())
		gw_frame_send_buf(control, GW_MSG_HISTORY, 1UL << 40, "", 1);
}

static void away_to_nobody(void)
{
	if (split() && round_sent(1))
		away(2, 0, 1);
}

static void miscounted(void)
{
	if (!split() || !round_sent(1))
		return;
	away(0, 0, 4);
	say(control, GW_MSG_AWAY_END, 5);
}

static void away_in_device_state(void)
{
	if (!split() || !round_sent(1))
		return;
	some_device();
	away(0, 0, 1);
}

static void load_untold(void)
{
	if (!split() || !round_sent(1))
		return;
	away(0, 0, 1);
	some_device();
	say(control, GW_MSG_DEVICE_END, 0);
	if (expect(control, GW_MSG_HELD))
		say(control, GW_MSG_LOAD, 0);
}

/* It has left the sub-hosts to the main host, and there is a round more. */
static void round_after_end(void)
{
	if (!split() || !round_sent(1))
		return;
	say(control, GW_MSG_AWAY_END, 0);
	if (!round_sent(2))
		return;
	some_device();
	say(control, GW_MSG_DEVICE_END, 0);
	if (expect(control, GW_MSG_HELD))
		say(control, GW_MSG_LOAD, 0);
}

const struct script away_scripts[] = {
	{ "several hosts, not agreed", not_agreed, "was not offered" },
	{ "a split VM, not agreed", carried_not_agreed, "was not offered" },
	{ "several hosts and post-copy", with_postcopy, "was not offered" },
	{ "pages away of a VM in one place", away_unasked, "AWAY, which is not due" },
	{ "a history of one", history_unasked, "HISTORY, which is not due" },
	{ "a history after a round", history_late, "HISTORY, which is not due" },
	{ "a history beyond memory", history_beyond, "memory that there is not" },
	{ "pages of no sub-host", away_to_nobody, "pages of sub-host 2" },
	{ "pages away miscounted", miscounted, "says that 5 pages are away" },
	{ "AWAY amid device state", away_in_device_state, "AWAY, which is not due" },
	{ "LOAD before all is told", load_untold, "LOAD, which is not due" },
	{ "a round after AWAY_END", round_after_end, "LOAD, which is not due" },
};

const unsigned int nr_away_scripts = sizeof(away_scripts) / sizeof(away_scripts[0]);
