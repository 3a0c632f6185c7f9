// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * report.c - a migration as JSON: query-migrate's names and units, and one
 * object of our own (design, section 2).
 */
#include "clock.h"
#include "internal.h"
#include "pipeline.h"

static double ms(int64_t ns)
{
	return (double)ns / GW_MS;
}

static json_t *rounds_json(const struct gw_source *s)
{
	unsigned int n = s->nr_rounds < GW_ROUNDS_KEPT ? s->nr_rounds : GW_ROUNDS_KEPT;
	json_t *list = json_array();

	for (unsigned int i = 0; i < n; i++) {
		const struct gw_round_stats *r = &s->rounds[i];
		unsigned int number = i + 1 == n ? s->nr_rounds : i + 1;

		json_array_append_new(
			list,
			json_pack("{s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "round", (int)number,
				  "pages", (json_int_t)r->pages, "redirtied",
				  (json_int_t)r->redirtied, "same", (json_int_t)r->same, "reused",
				  (json_int_t)r->reused, "sent", (json_int_t)r->sent, "teleported",
				  (json_int_t)r->teleported, "wire-bytes",
				  (json_int_t)r->wire_bytes, "ms", ms(r->ns + r->disks_ns)));
	}
	return list;
}

/* Every key of the design's list; a stage that this build lacks counts nothing. @s: of pages */
static json_t *counts_json(const _Atomic uint64_t *counts, const struct gw_source *s)
{
	static const char *const keys[] = { "zero",	  "same",      "reused",   "patched",
					    "teleported", "duplicate", "delta",	   "compressed",
					    "raw",	  "deferred",  "redirtied" };
	json_t *object = json_object();

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		json_object_set_new(object, keys[i], json_integer(0));
	for (unsigned int id = 0; id < GW_STAGE_MAX; id++)
		if (gw_stage_name(id))
			json_object_set_new(object, gw_stage_name(id),
					    json_integer((json_int_t)counts[id]));
	if (!s)
		return object;
	json_object_set_new(object, "redirtied", json_integer((json_int_t)s->redirtied));
	json_object_set_new(object, "reused", json_integer((json_int_t)s->reused));
	if (s->defer.mode)
		json_object_set_new(object, "deferred",
				    json_integer((json_int_t)s->defer.waiting.nr_predicted));
	return object;
}

static json_t *ram_json(const struct gw_source *s, uint64_t transferred, int64_t elapsed)
{
	uint64_t due = s->due_pages, done = s->done_pages;
	uint64_t normal = s->pages[GW_STAGE_RAW] + s->pages[GW_STAGE_COMPRESS];
	json_int_t remaining = s->state == GW_SOURCE_COMPLETED || due < done
				       ? 0
				       : (json_int_t)((due - done) * GW_PAGE_SIZE);
	uint64_t numbers[GW_FAULT_NUMBERS];
	json_t *ram;

	ram = json_pack("{s:I,s:I,s:I,s:i,s:I,s:I,s:I,s:i,s:f,s:I,s:I}", "total",
			(json_int_t)gw_memory_bytes(s->memory), "transferred",
			(json_int_t)transferred, "remaining", remaining, "page-size",
			(int)GW_PAGE_SIZE, "duplicate", (json_int_t)s->pages[GW_STAGE_ZERO],
			"normal", (json_int_t)normal, "normal-bytes",
			(json_int_t)normal * (json_int_t)GW_PAGE_SIZE, "dirty-sync-count",
			(int)s->nr_rounds, "mbps",
			elapsed > GW_MS ? (double)transferred * 8e3 / (double)elapsed : 0.0,
			"dirty-pages-rate", (json_int_t)s->dirty_rate, "postcopy-requests",
			(json_int_t)s->postcopy_requests);
	if (s->postcopy) {
		for (size_t i = 0; i < GW_FAULT_NUMBERS; i++)
			numbers[i] = s->faults[i];
		gw_faults_json(numbers, ram);
	}
	return ram;
}

/* What the destination's image was worth: whole pages, and blocks of changed ones. */
static json_t *reuse_json(const struct gw_source *s)
{
	const json_int_t patched = (json_int_t)s->pages[GW_STAGE_PATCH];

	return json_pack("{s:I,s:I,s:I,s:I,s:I}", "departure", (json_int_t)s->holder.image,
			 "ledger-bytes", (json_int_t)s->ledger_bytes, "absent",
			 (json_int_t)s->holder.absent_pages, "page-bytes-saved",
			 (json_int_t)s->reused * (json_int_t)GW_PAGE_SIZE, "block-bytes-saved",
			 patched * (json_int_t)GW_PAGE_SIZE - (json_int_t)s->bytes[GW_STAGE_PATCH]);
}

static const char *mode(const struct gw_source *s)
{
	return s->spread || s->carried ? "split"
	       : !s->postcopy	       ? "precopy"
	       : s->nr_rounds	       ? "hybrid"
				       : "postcopy";
}

static json_t *godwit_json(const struct gw_source *s)
{
	const int64_t running = s->resumed_ns ? s->resumed_ns - s->started_ns : 0;

	return json_pack(
		"{s:s,s:f,s:b,s:o,s:o,s:o,s:o,s:I,s:f,s:{s:f,s:f,s:f,s:f,s:i}}", "mode", mode(s),
		"running-ms", ms(running), "verified", s->verified, "reuse", reuse_json(s), "pages",
		counts_json(s->pages, s), "bytes", counts_json(s->bytes, NULL), "rounds",
		rounds_json(s), "device-state-bytes", (json_int_t)s->device_bytes, "quiesce-ms",
		ms(s->quiesce_ns), "switchover", "stop-ms", ms(s->stop_ns), "final-pages-ms",
		ms(s->final_pages_ns), "device-state-ms", ms(s->device_ns), "resume-ms",
		ms(s->resume_ns), "taken-back", (int)s->attempts);
}

json_t *gw_source_json(const struct gw_source *s, int64_t now)
{
	uint64_t transferred = gw_holder_transferred(&s->holder) + gw_spread_bytes(s->spread);
	int64_t end = s->ended_ns ? s->ended_ns : now;
	int64_t ready = s->ready_ns ? s->ready_ns : end;
	json_t *o;

	o = json_pack("{s:s,s:I,s:I,s:f,s:o,s:o}", "status", gw_source_state_name(s->state),
		      "total-time", (json_int_t)((end - s->started_ns) / GW_MS), "setup-time",
		      (json_int_t)((ready - s->started_ns) / GW_MS), "expected-downtime",
		      ms(s->expected_downtime), "ram", ram_json(s, transferred, end - ready),
		      "godwit", godwit_json(s));
	if (s->state == GW_SOURCE_COMPLETED || s->state == GW_SOURCE_POSTCOPY_ACTIVE ||
	    s->state == GW_SOURCE_POSTCOPY_PAUSED)
		json_object_set_new(o, "downtime", json_real(ms(s->resumed_ns - s->stopped_ns)));
	if (s->spread)
		json_object_set_new(json_object_get(o, "godwit"), "sub-hosts",
				    gw_spread_json(s->spread));
	if (s->carried)
		json_object_set_new(json_object_get(o, "godwit"), "sub-hosts",
				    gw_carried_json(s->carried));
	if (s->defer.mode)
		json_object_set_new(json_object_get(o, "godwit"), "working-set", gw_defer_json(s));
	if (s->teleport.offered)
		json_object_set_new(json_object_get(o, "godwit"), "teleport",
				    json_pack("{s:s?,s:I,s:b}", "by", s->teleport.by, "refused",
					      (json_int_t)s->teleport.lacked, "given-up",
					      !s->teleport.on));
	if (s->storage)
		json_object_set_new(o, "disk",
				    json_pack("{s:I,s:I,s:I}", "total",
					      (json_int_t)s->storage_total, "transferred",
					      (json_int_t)s->storage_done, "remaining",
					      (json_int_t)(s->storage_total - s->storage_done)));
	if (s->holder.waits_for[0])
		json_object_set_new(json_object_get(o, "godwit"), "waits-for",
				    json_string(s->holder.waits_for));
	if (s->error[0])
		json_object_set_new(o, "error-desc", json_string(s->error));
	return o;
}
