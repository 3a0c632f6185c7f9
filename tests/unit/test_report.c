// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_report.c - a migration as JSON: the keys and units of the design's
 * section 2, which scripts rely on.
 */
#include "unit.h"

#include "clock.h"
#include "source.h"

static struct gw_source *source(struct gw_memory *memory)
{
	struct gw_source *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	memset(memory, 0, sizeof(*memory));
	assert_int_equal(gw_memory_add(memory, "ram", 8UL << 20), 0);
	s->memory = memory;
	s->state = GW_SOURCE_ACTIVE;
	s->started_ns = 1000 * GW_MS;
	s->ready_ns = 1250 * GW_MS;
	return s;
}

static const json_t *at(const json_t *json, const char *path)
{
	gw_autofree char *copy = strdup(path);
	char *save = NULL;

	for (char *key = strtok_r(copy, "/", &save); key; key = strtok_r(NULL, "/", &save)) {
		json = json_is_array(json) ? json_array_get(json, (size_t)atoi(key))
					   : json_object_get(json, key);
		if (!json)
			fail_msg("no '%s' in %s", key, path);
	}
	return json;
}

static json_int_t number(const json_t *json, const char *path)
{
	const json_t *value = at(json, path);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static double real(const json_t *json, const char *path)
{
	return json_number_value(at(json, path));
}

static void under_way(void **state)
{
	struct gw_memory memory;
	struct gw_source *s = source(&memory);
	json_t *json;

	(void)state;
	s->due_pages = 100;
	s->done_pages = 40;
	s->pages[GW_STAGE_RAW] = 30;
	s->pages[GW_STAGE_ZERO] = 10;
	s->bytes[GW_STAGE_RAW] = 123456;
	s->redirtied = 5;
	s->dirty_rate = 77.9;
	s->expected_downtime = 12500000;
	s->holder.transferred = 1000000;
	json = gw_source_json(s, 2250 * GW_MS);
	assert_string_equal(json_string_value(at(json, "status")), "active");
	assert_int_equal(number(json, "total-time"), 1250);
	assert_int_equal(number(json, "setup-time"), 250);
	assert_true(real(json, "expected-downtime") == 12.5);
	assert_int_equal(number(json, "ram/total"), 8 << 20);
	assert_int_equal(number(json, "ram/remaining"), 60 * 4096);
	assert_int_equal(number(json, "ram/page-size"), 4096);
	assert_int_equal(number(json, "ram/duplicate"), 10);
	assert_int_equal(number(json, "ram/normal"), 30);
	assert_int_equal(number(json, "ram/normal-bytes"), 30 * 4096);
	assert_int_equal(number(json, "ram/transferred"), 1000000);
	assert_int_equal(number(json, "ram/dirty-pages-rate"), 77);
	assert_int_equal(number(json, "ram/postcopy-requests"), 0);
	assert_true(real(json, "ram/mbps") == 8.0); /* 1 MB in 1 s since ready */
	assert_string_equal(json_string_value(at(json, "godwit/mode")), "precopy");
	assert_int_equal(number(json, "godwit/pages/raw"), 30);
	assert_int_equal(number(json, "godwit/pages/redirtied"), 5);
	assert_int_equal(number(json, "godwit/bytes/raw"), 123456);
	assert_null(json_object_get(json, "downtime")); /* not known before it was */
	assert_null(json_object_get(json, "error-desc"));
	json_decref(json);
	free(s);
}

/* Scripts may look at any of these, whether this build has the stage or not. */
static void every_key_is_there(void **state)
{
	static const char *const keys[] = { "zero",	  "same",      "reused",   "patched",
					    "teleported", "duplicate", "delta",	   "compressed",
					    "raw",	  "deferred",  "redirtied" };
	static const char *const steps[] = { "stop-ms", "final-pages-ms", "device-state-ms",
					     "resume-ms", "taken-back" };
	struct gw_memory memory;
	struct gw_source *s = source(&memory);
	json_t *json = gw_source_json(s, s->ready_ns);

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(keys); i++) {
		assert_non_null(json_object_get(at(json, "godwit/pages"), keys[i]));
		assert_non_null(json_object_get(at(json, "godwit/bytes"), keys[i]));
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(steps); i++)
		assert_non_null(json_object_get(at(json, "godwit/switchover"), steps[i]));
	assert_true(json_is_false(at(json, "godwit/verified")));
	assert_int_equal(number(json, "godwit/device-state-bytes"), 0);
	assert_true(json_is_real(at(json, "godwit/quiesce-ms")));
	assert_true(real(json, "ram/mbps") == 0.0); /* no time has passed: no division by it */
	json_decref(json);
	free(s);
}

/* What the destination measured, by QEMU's names; nothing of it without post-copy. */
static void faults(void **state)
{
	struct gw_memory memory;
	struct gw_source *s = source(&memory);
	json_t *json = gw_source_json(s, s->ready_ns);

	(void)state;
	assert_null(json_object_get(at(json, "ram"), "postcopy-latency"));
	json_decref(json);
	s->postcopy = true;
	json = gw_source_json(s, s->ready_ns);
	assert_int_equal(number(json, "ram/postcopy-latency"), 0);
	json_decref(json);
	s->faults[GW_FAULT_MEASURED] = 4;
	s->faults[GW_FAULT_SUM_NS] = 6000000;
	s->faults[GW_FAULT_MOST_NS] = 3000000;
	s->faults[GW_FAULT_LATENCY + 10] = 4;
	json = gw_source_json(s, s->ready_ns);
	assert_int_equal(number(json, "ram/postcopy-latency"), 1500000);
	assert_int_equal(number(json, "ram/postcopy-latency-max"), 3000000);
	assert_int_equal(json_array_size(at(json, "ram/postcopy-latency-dist")),
			 GW_FAULT_LATENCIES);
	assert_int_equal(
		json_integer_value(json_array_get(at(json, "ram/postcopy-latency-dist"), 10)), 4);
	json_decref(json);
	free(s);
}

static void at_the_end(void **state)
{
	struct gw_memory memory;
	struct gw_source *s = source(&memory);
	json_t *json;

	(void)state;
	s->state = GW_SOURCE_COMPLETED;
	s->due_pages = 7;
	s->stopped_ns = 3000 * GW_MS;
	s->resumed_ns = 3021500000;
	s->ended_ns = 3100 * GW_MS;
	s->verified = true;
	json = gw_source_json(s, 9999 * GW_MS);
	assert_string_equal(json_string_value(at(json, "status")), "completed");
	assert_int_equal(number(json, "total-time"), 2100); /* it does not go on counting */
	assert_true(real(json, "downtime") == 21.5);
	assert_int_equal(number(json, "ram/remaining"), 0);
	assert_true(json_is_true(at(json, "godwit/verified")));
	json_decref(json);
	s->state = GW_SOURCE_IN_DOUBT;
	snprintf(s->error, sizeof(s->error), "why");
	json = gw_source_json(s, 9999 * GW_MS);
	assert_string_equal(json_string_value(at(json, "status")), "failed");
	assert_string_equal(json_string_value(at(json, "error-desc")), "why");
	json_decref(json);
	free(s);
}

/* More rounds than are kept: the last one stays the last. */
static void rounds_are_bounded(void **state)
{
	struct gw_memory memory;
	struct gw_source *s = source(&memory);
	json_t *json;

	(void)state;
	for (unsigned int i = 0; i < GW_ROUNDS_KEPT; i++)
		s->rounds[i] = (struct gw_round_stats){
			.pages = i, .sent = i, .wire_bytes = i, .ns = (int64_t)i * GW_MS
		};
	s->nr_rounds = 3;
	json = gw_source_json(s, s->ready_ns);
	assert_int_equal(json_array_size(at(json, "godwit/rounds")), 3);
	assert_int_equal(number(json, "godwit/rounds/2/round"), 3);
	assert_int_equal(number(json, "godwit/rounds/2/pages"), 2);
	assert_int_equal(number(json, "godwit/rounds/2/wire-bytes"), 2);
	assert_true(real(json, "godwit/rounds/2/ms") == 2.0);
	json_decref(json);
	s->nr_rounds = GW_ROUNDS_KEPT + 44;
	json = gw_source_json(s, s->ready_ns);
	assert_int_equal(json_array_size(at(json, "godwit/rounds")), GW_ROUNDS_KEPT);
	assert_int_equal(number(json, "godwit/rounds/255/round"), GW_ROUNDS_KEPT + 44);
	assert_int_equal(number(json, "ram/dirty-sync-count"), GW_ROUNDS_KEPT + 44);
	json_decref(json);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(under_way),
		cmocka_unit_test(every_key_is_there),
		cmocka_unit_test(faults),
		cmocka_unit_test(at_the_end),
		cmocka_unit_test(rounds_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
