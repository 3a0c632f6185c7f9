// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_split_record.c - what is written down of a VM's split: it comes back as it was, a sub-host's
 * place in it stays, and what cannot be is refused.
 */
#include "unit.h"

#include <errno.h>

#include "error.h"
#include "split_record.h"

#define MIB(n) ((uint64_t)(n) << 20)

/* A VM of 256 MiB, of which 64 stay: @to are "address" or "address=MiB", up to a NULL. */
static int ask(struct gw_split_record *r, int replicas, const char *const *to)
{
	json_t *list = json_array(), *args;
	int rc;

	for (; *to; to++) {
		gw_autofree char *copy = strdup(*to);
		char *size = strchr(copy, '=');
		json_t *one = json_object();

		if (size) {
			*size++ = '\0';
			json_object_set_new(one, "size",
					    json_integer(strtoll(size, NULL, 10) << 20));
		}
		json_object_set_new(one, "address", json_string(copy));
		json_array_append_new(list, one);
	}
	args = json_pack("{s:I,s:o}", "main-memory", (json_int_t)MIB(64), "to", list);
	if (replicas)
		json_object_set_new(args, "replicas", json_integer(replicas));
	rc = gw_split_record_ask(r, args, MIB(256));
	json_decref(args);
	return rc;
}

#define ask_for(r, ...)	  ask(r, 0, (const char *const[]){ __VA_ARGS__, NULL })
#define ask_twice(r, ...) ask(r, 2, (const char *const[]){ __VA_ARGS__, NULL })

static json_t *to_of(const char *address)
{
	return json_pack("[{s:s}]", "address", address);
}

static int evacuate(struct gw_split_record *r, const char *who, const char *to)
{
	const int i = gw_split_record_find(r, who);
	json_t *list = to ? to_of(to) : NULL;
	int rc;

	assert_true(i >= 0);
	rc = gw_split_record_join(r, (unsigned int)i, list, MIB(256));
	json_decref(list);
	if (!rc)
		r->servers[i].leaves = true;
	return rc;
}

/* Nothing is at @who any more. */
static void part(struct gw_split_record *r, const char *who)
{
	const int i = gw_split_record_find(r, who);

	assert_true(i >= 0 && r->servers[i].leaves);
	r->servers[i].leaves = false;
	r->servers[i].gone = true;
	assert_int_equal(gw_split_record_find(r, who), -ENOENT);
}

static void check_kept(const struct gw_split_record *r)
{
	struct gw_split_record again;
	json_t *json = gw_split_record_json(r);

	assert_int_equal(gw_split_record_parse(&again, json), 0);
	json_decref(json);
	assert_memory_equal(again.id, r->id, sizeof(r->id));
	assert_int_equal(again.main_memory, r->main_memory);
	assert_int_equal(again.replicas, r->replicas);
	assert_int_equal(again.nr_servers, r->nr_servers);
	for (unsigned int i = 0; i < r->nr_servers; i++) {
		assert_string_equal(again.servers[i].address, r->servers[i].address);
		assert_int_equal(again.servers[i].size, r->servers[i].size);
		assert_int_equal(again.servers[i].leaves, r->servers[i].leaves);
		assert_int_equal(again.servers[i].gone, r->servers[i].gone);
	}
}

static void refuses(int rc, const char *why)
{
	assert_int_equal(rc, -EINVAL);
	assert_non_null(strstr(gw_error(), why));
	gw_error_clear();
}

static void what_is_asked_for(void **state)
{
	struct gw_split_record r;

	(void)state;
	assert_int_equal(ask_for(&r, "b:1", "c:1=100"), 0);
	assert_int_equal(r.servers[0].size, MIB(192)); /* all that does not stay */
	assert_int_equal(r.servers[1].size, MIB(100));
	check_kept(&r);
	refuses(ask_for(&r, "b:1", "b:1"), "named twice");
	refuses(ask_for(&r, "b:1=100", "c:1=91"), "191 MiB in all");
	assert_int_equal(ask_for(&r, "b:1=100", "c:1=92"), 0);
}

/* Who takes another's place has one of its own, until nothing is there any more. */
static void who_leaves(void **state)
{
	struct gw_split_record r, before;

	(void)state;
	assert_int_equal(ask_for(&r, "b:1=100", "c:1=192"), 0);
	assert_int_equal(evacuate(&r, "b:1", NULL), 0); /* the other may take all */
	assert_true(r.servers[0].leaves && !r.servers[1].leaves);
	check_kept(&r);
	before = r;
	refuses(evacuate(&r, "c:1", NULL), "0 MiB in all");
	refuses(evacuate(&r, "c:1", "b:1"), "one already"); /* it is, until it is gone */
	assert_memory_equal(&r, &before, sizeof(r));
	part(&r, "b:1");
	check_kept(&r);
	assert_int_equal(evacuate(&r, "c:1", "b:1"), 0);
	assert_int_equal(r.nr_servers, 2);
	assert_int_equal(gw_split_record_find(&r, "b:1"), 0);
	assert_int_equal(r.servers[0].size, MIB(192)); /* as much as that one might have */
	assert_false(r.servers[0].leaves || r.servers[0].gone);
	assert_int_equal(evacuate(&r, "b:1", "d:1"), 0);
	assert_int_equal(gw_split_record_find(&r, "d:1"), 2);
	check_kept(&r);
}

/* Each page is at two of them: what one may take beyond all there is, is no room for a second. */
static void by_two(void **state)
{
	struct gw_split_record r;
	json_t *json;

	(void)state;
	assert_int_equal(ask_for(&r, "b:1"), 0);
	assert_int_equal(r.replicas, 1);
	json = gw_split_record_json(&r);
	json_object_del(json, "replicas"); /* written down before there were any */
	assert_int_equal(gw_split_record_parse(&r, json), 0);
	json_decref(json);
	assert_int_equal(r.replicas, 1);
	refuses(ask_twice(&r, "b:1"), "as many sub-hosts");
	refuses(ask(&r, 3, (const char *const[]){ "b:1", "c:1", "d:1", NULL }), "two sub-hosts");
	assert_int_equal(ask_twice(&r, "b:1", "c:1"), 0);
	check_kept(&r);
	refuses(ask_twice(&r, "b:1=1000", "c:1=191"), "stored by two");
	assert_int_equal(ask_twice(&r, "b:1=1000", "c:1=192"), 0);
	refuses(ask_twice(&r, "b:1=128", "c:1=128", "d:1=127"), "383 MiB in all");
	assert_int_equal(ask_twice(&r, "b:1=128", "c:1=128", "d:1=128"), 0);
	refuses(evacuate(&r, "c:1", NULL), "256 MiB in all");
	assert_int_equal(evacuate(&r, "c:1", "e:1"), 0);
	check_kept(&r);
}

/* There are so many places, and no more. */
static void all_places(void **state)
{
	struct gw_split_record r;
	char address[16];

	(void)state;
	assert_int_equal(ask_for(&r, "h0:1"), 0);
	for (unsigned int i = 1; i < GW_HOLDERS_MAX; i++) {
		gw_autofree char *last = gw_path("h%u:1", i - 1);

		snprintf(address, sizeof(address), "h%u:1", i);
		assert_int_equal(evacuate(&r, last, address), 0);
	}
	snprintf(address, sizeof(address), "h%d:1", GW_HOLDERS_MAX - 1);
	refuses(evacuate(&r, address, "x:1"), "more than");
	check_kept(&r);
	part(&r, "h3:1");
	assert_int_equal(evacuate(&r, address, "x:1"), 0);
	assert_int_equal(gw_split_record_find(&r, "x:1"), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_asked_for),
		cmocka_unit_test(who_leaves),
		cmocka_unit_test(by_two),
		cmocka_unit_test(all_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
