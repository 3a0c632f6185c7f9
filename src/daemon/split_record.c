// SPDX-License-Identifier: GPL-2.0-or-later
/* split_record.c - what is written down of a VM's split; see split_record.h. */
#include <errno.h>
#include <string.h>

#include "address.h"
#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "split_record.h"

#define PERIOD_MS     1000
#define SHIFT_PERIODS 10

json_t *gw_split_record_json(const struct gw_split_record *r)
{
	char id[2 * GW_ID_LEN + 1];
	json_t *servers = json_array();

	gw_id_format(r->id, id);
	for (unsigned int i = 0; i < r->nr_servers; i++)
		json_array_append_new(servers, json_pack("{s:s,s:I,s:b,s:b}", "address",
							 r->servers[i].address, "size",
							 (json_int_t)r->servers[i].size, "leaves",
							 (int)r->servers[i].leaves, "gone",
							 (int)r->servers[i].gone));
	return json_pack("{s:s,s:I,s:i,s:i,s:i,s:i,s:b,s:b,s:b,s:b,s:o}", "id", id, "main-memory",
			 (json_int_t)r->main_memory, "chunk-pages", (int)r->unit_pages, "replicas",
			 (int)r->replicas, "history-period-ms", (int)r->period_ms, "history-shift",
			 (int)r->shift_periods, "direct-io", (int)r->direct_io, "merging",
			 (int)r->merging, "stopped", (int)r->stopped, "carried", (int)r->carried,
			 "servers", servers);
}

int gw_split_record_find(const struct gw_split_record *r, const char *who)
{
	for (unsigned int i = 0; i < r->nr_servers; i++)
		if (!r->servers[i].gone && !strcmp(r->servers[i].address, who))
			return (int)i;
	return -ENOENT;
}

/* @place: below nr_servers, or that. */
static int take_server(struct gw_split_record *r, unsigned int place, const json_t *one,
		       uint64_t size)
{
	const char *address = json_string_value(json_object_get(one, "address"));
	const json_t *said = json_object_get(one, "size");

	if (place == GW_HOLDERS_MAX)
		return gw_fail(-EINVAL, "more than %d sub-hosts", GW_HOLDERS_MAX);
	if (!address || gw_address_check(address, false))
		return address ? -EINVAL : gw_fail(-EINVAL, "a sub-host without an address");
	if (gw_split_record_find(r, address) >= 0)
		return gw_fail(-EINVAL, "sub-host %s is named twice, or one already", address);
	if (said && json_integer_value(said) <= 0)
		return gw_fail(-EINVAL, "sub-host %s with a size of nothing", address);
	memset(&r->servers[place], 0, sizeof(r->servers[place]));
	snprintf(r->servers[place].address, sizeof(r->servers[place].address), "%s", address);
	r->servers[place].size = said ? (uint64_t)json_integer_value(said) : size;
	if (place == r->nr_servers)
		r->nr_servers++;
	return 0;
}

/* One of a record; it keeps its place, by which the page table knows it. */
static int parse_server(struct gw_split_record *r, const json_t *one)
{
	const unsigned int i = r->nr_servers;
	int rc = take_server(r, i, one, 0);

	if (rc)
		return rc;
	r->servers[i].leaves = json_is_true(json_object_get(one, "leaves"));
	r->servers[i].gone = json_is_true(json_object_get(one, "gone"));
	return 0;
}

static unsigned int number(const json_t *json, const char *key, unsigned int usual)
{
	const json_t *value = json_object_get(json, key);
	const json_int_t n = json_integer_value(value);

	return !value ? usual : n < 0 || n > INT32_MAX ? 0 : (unsigned int)n;
}

static int check(const struct gw_split_record *r)
{
	if (!r->nr_servers)
		return gw_fail(-EINVAL, "no sub-host is named");
	if (!r->unit_pages || r->unit_pages > GW_UNIT_PAGES_MAX ||
	    r->unit_pages & (r->unit_pages - 1))
		return gw_fail(-EINVAL, "a chunk has 1 to %d pages, a power of two",
			       GW_UNIT_PAGES_MAX);
	if (r->replicas < 1 || r->replicas > GW_COPIES_MAX)
		return gw_fail(-EINVAL, "each page is stored once, or by two sub-hosts");
	if (r->nr_servers < r->replicas)
		return gw_fail(-EINVAL, "--replicas %u needs as many sub-hosts", r->replicas);
	if (r->period_ms < 10 || r->period_ms > 3600000)
		return gw_fail(-EINVAL, "the history's period is 10 ms to an hour");
	if (!r->shift_periods || r->shift_periods > 100000)
		return gw_fail(-EINVAL, "the history is shifted every 1 to 100000 periods");
	return 0;
}

uint64_t gw_split_record_spare(const struct gw_split_record *r)
{
	const uint64_t target = r->main_memory / GW_PAGE_SIZE;
	const uint64_t spare = 4ULL * r->unit_pages;

	return target > 8 * spare ? spare : target / 8;
}

int gw_split_record_parse(struct gw_split_record *r, const json_t *json)
{
	const json_t *one;
	size_t i;
	int rc;

	memset(r, 0, sizeof(*r));
	rc = gw_id_parse(json_string_value(json_object_get(json, "id")), r->id);
	r->main_memory = (uint64_t)json_integer_value(json_object_get(json, "main-memory"));
	r->unit_pages = number(json, "chunk-pages", 0);
	r->replicas = number(json, "replicas", 1);
	r->period_ms = number(json, "history-period-ms", 0);
	r->shift_periods = number(json, "history-shift", 0);
	r->direct_io = json_is_true(json_object_get(json, "direct-io"));
	r->merging = json_is_true(json_object_get(json, "merging"));
	r->stopped = json_is_true(json_object_get(json, "stopped"));
	r->carried = json_is_true(json_object_get(json, "carried"));
	json_array_foreach(json_object_get(json, "servers"), i, one) {
		rc = rc ? rc : parse_server(r, one);
	}
	return rc ? rc : check(r);
}

static const char *twice(const struct gw_split_record *r)
{
	return r->replicas > 1 ? ", each page of which is to be stored by two" : "";
}

/*
 * Whether the servers, without the one at @but, may take all of @bytes, as often as it is to be
 * stored: no two copies of a page are at one. @all: how much they may take of that.
 */
static bool may_hold(const struct gw_split_record *r, unsigned int but, uint64_t bytes,
		     uint64_t *all)
{
	*all = 0;
	for (unsigned int i = 0; i < r->nr_servers; i++) {
		const uint64_t size = r->servers[i].size;

		if (i == but || r->servers[i].leaves || r->servers[i].gone)
			continue;
		*all += r->replicas > 1 && size > bytes ? bytes : size;
	}
	return *all / r->replicas >= bytes;
}

/*
 * All that does not fit here. Where two are to have it, there is none that has room when one is
 * full: so they get what is on its way, and what the main host keeps free, too.
 */
static uint64_t usual_size(const struct gw_split_record *r, uint64_t memory)
{
	const uint64_t more = r->replicas > 1 ? 8ULL * GW_UNIT_PAGES_MAX * GW_PAGE_SIZE : 0;

	return memory - r->main_memory + more;
}

int gw_split_record_ask(struct gw_split_record *r, const json_t *args, uint64_t memory)
{
	const json_t *one;
	uint64_t sizes;
	size_t i;
	int rc = 0;

	memset(r, 0, sizeof(*r));
	r->replicas = number(args, "replicas", 1);
	r->main_memory = (uint64_t)json_integer_value(json_object_get(args, "main-memory"));
	r->unit_pages = number(args, "chunk-pages", GW_CHUNK_PAGES);
	r->period_ms = number(args, "history-period-ms", PERIOD_MS);
	r->shift_periods = number(args, "history-shift", SHIFT_PERIODS);
	if (r->main_memory < GW_MAIN_MEMORY_LEAST || r->main_memory >= memory)
		return gw_fail(-EINVAL,
			       "--main-memory is what stays here: at least %llu MiB, and less than "
			       "the VM's %llu MiB",
			       GW_MAIN_MEMORY_LEAST >> 20, (unsigned long long)memory >> 20);
	json_array_foreach(json_object_get(args, "to"), i, one) {
		rc = rc ? rc : take_server(r, r->nr_servers, one, usual_size(r, memory));
	}
	if (!rc)
		rc = check(r);
	if (!rc && !may_hold(r, r->nr_servers, memory - r->main_memory, &sizes))
		rc = gw_fail(-EINVAL,
			     "the sub-hosts are to take %llu MiB in all, but the VM has %llu MiB "
			     "beyond --main-memory%s",
			     (unsigned long long)sizes >> 20,
			     (unsigned long long)(memory - r->main_memory) >> 20, twice(r));
	return rc;
}

/* For another server: one that is gone, or the next. */
static unsigned int free_place(const struct gw_split_record *r)
{
	unsigned int i = 0;

	while (i < r->nr_servers && !r->servers[i].gone)
		i++;
	return i;
}

int gw_split_record_join(struct gw_split_record *r, unsigned int index, const json_t *to,
			 uint64_t memory)
{
	struct gw_split_record next = *r;
	const json_t *one;
	uint64_t sizes;
	size_t i;
	int rc = 0;

	json_array_foreach(to, i, one) {
		rc = rc ? rc : take_server(&next, free_place(&next), one, r->servers[index].size);
	}
	if (!rc && !may_hold(&next, index, memory - r->main_memory, &sizes))
		rc = gw_fail(-EINVAL,
			     "without sub-host %s the others are to take %llu MiB in all, but the "
			     "VM has %llu MiB beyond its main memory%s: name another with --to",
			     r->servers[index].address, (unsigned long long)sizes >> 20,
			     (unsigned long long)(memory - r->main_memory) >> 20, twice(r));
	if (!rc)
		*r = next;
	return rc;
}
