/* SPDX-License-Identifier: GPL-2.0-or-later */
/* registry_suite.h - what every engine of a registry must do. Each part begins with an empty one.
 */
#ifndef TEST_REGISTRY_SUITE_H
#define TEST_REGISTRY_SUITE_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "registry.h"

#define SUITE_CLAIMS 1000

static inline void suite_hosts(struct gw_registry *r)
{
	const struct gw_host_record a = { .name = "a",
					  .address = "10.0.0.1:7373",
					  .memory = 64ULL << 30,
					  .free = 5,
					  .load = 0.25,
					  .reported = 1795000000 };
	struct gw_host_record b = { .name = "b-2.example",
				    .memory = INT64_MAX,
				    .server_limit = 8,
				    .server_free = 3,
				    .swap_limit = 1ULL << 50,
				    .swap_free = 2,
				    .held = { { "web1", "a", 5, 4, true },
					      { "web2", "", 0, 0, false } },
				    .nr_held = 2 },
			      *list;
	size_t nr;

	assert_int_equal(gw_registry_hosts(r, &list, &nr), 0);
	assert_int_equal(nr, 0);
	free(list);
	assert_int_equal(gw_registry_put_host(r, &a), 0);
	assert_int_equal(gw_registry_put_host(r, &b), 0);
	b.free = 7;
	assert_int_equal(gw_registry_put_host(r, &b), 0);
	assert_int_equal(gw_registry_hosts(r, &list, &nr), 0);
	assert_int_equal(nr, 2);
	for (size_t i = 0; i < nr; i++) {
		const bool first = !strcmp(list[i].name, "a");

		assert_string_equal(list[i].name, first ? "a" : "b-2.example");
		assert_string_equal(list[i].address, first ? "10.0.0.1:7373" : "");
		assert_int_equal(list[i].memory, first ? 64ULL << 30 : INT64_MAX);
		assert_int_equal(list[i].free, first ? 5 : 7);
		assert_true(list[i].load > (first ? 0.24 : -0.01) &&
			    list[i].load < (first ? 0.26 : 0.01));
		assert_int_equal(list[i].reported, first ? 1795000000 : 0);
		assert_int_equal(list[i].server_limit, first ? 0 : 8);
		assert_int_equal(list[i].server_free, first ? 0 : 3);
		assert_int_equal(list[i].swap_limit, first ? 0 : 1ULL << 50);
		assert_int_equal(list[i].swap_free, first ? 0 : 2);
		assert_int_equal(list[i].nr_held, first ? 0 : 2);
		assert_memory_equal(list[i].held, first ? a.held : b.held, sizeof(a.held));
	}
	assert_string_not_equal(list[0].name, list[1].name);
	free(list);
}

static inline void suite_names(struct gw_registry *r)
{
	static const char *const bad[] = { "",
					   " ",
					   "a b",
					   "a\nb",
					   "\x7f",
					   "\xc3\xa4",
					   "tab\t",
					   "0123456789012345678901234567890123456789"
					   "012345678901234567890123" };
	struct gw_host_record host = { .name = "" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		snprintf(host.name, sizeof(host.name), "%.63s", bad[i]);
		assert_int_equal(gw_registry_key_ok(bad[i]), false);
		assert_int_equal(gw_registry_claim(r, bad[i], "a"), -EINVAL);
		assert_int_equal(gw_registry_claim(r, "web1", bad[i]), -EINVAL);
		if (strlen(bad[i]) < sizeof(host.name))
			assert_int_equal(gw_registry_put_host(r, &host), -EINVAL);
	}
	assert_true(gw_registry_key_ok("0123456789012345678901234567890123456789"
				       "01234567890123456789012"));
}

static inline void suite_images(struct gw_registry *r)
{
	struct gw_image_record image = { .vm = "web1",
					 .host = "a",
					 .departure = UINT32_MAX,
					 .id = { 0xab, 0, 0xff },
					 .bytes = 1ULL << 40,
					 .left = 1795000001 },
			       *list;
	size_t nr;

	assert_int_equal(gw_registry_put_image(r, &image), 0);
	snprintf(image.host, sizeof(image.host), "b");
	assert_int_equal(gw_registry_put_image(r, &image), 0);
	snprintf(image.vm, sizeof(image.vm), "web2");
	assert_int_equal(gw_registry_put_image(r, &image), 0);
	assert_int_equal(gw_registry_drop_image(r, "web1", "b"), 0);
	assert_int_equal(gw_registry_drop_image(r, "web1", "none"), 0);
	assert_int_equal(gw_registry_images(r, "web1", &list, &nr), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(list[0].vm, "web1");
	assert_string_equal(list[0].host, "a");
	assert_int_equal(list[0].departure, UINT32_MAX);
	assert_memory_equal(list[0].id, image.id, GW_ID_LEN);
	assert_int_equal(list[0].bytes, 1ULL << 40);
	assert_int_equal(list[0].left, 1795000001);
	free(list);
	assert_int_equal(gw_registry_images(r, "web3", &list, &nr), 0);
	assert_int_equal(nr, 0);
	free(list);
}

static inline void suite_links(struct gw_registry *r)
{
	struct gw_link_record link = { .from = "a",
				       .to = "b",
				       .bandwidth = 125000000,
				       .round_trip = 200000,
				       .measured = 3 },
			      *list;
	size_t nr;

	assert_int_equal(gw_registry_put_link(r, &link), 0);
	link.bandwidth = 1250000000;
	assert_int_equal(gw_registry_put_link(r, &link), 0);
	snprintf(link.from, sizeof(link.from), "b");
	assert_int_equal(gw_registry_put_link(r, &link), 0);
	assert_int_equal(gw_registry_links(r, "a", &list, &nr), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(list[0].from, "a");
	assert_string_equal(list[0].to, "b");
	assert_int_equal(list[0].bandwidth, 1250000000);
	assert_int_equal(list[0].round_trip, 200000);
	assert_int_equal(list[0].measured, 3);
	free(list);
}

/* The names that @host holds are those of @expected, in any order. */
static inline void suite_holds(struct gw_registry *r, const char *host, const char *expected)
{
	json_t *names;

	assert_int_equal(gw_registry_held(r, host, &names), 0);
	if (!expected) {
		assert_int_equal(json_array_size(names), 0);
	} else {
		assert_int_equal(json_array_size(names), 1);
		assert_string_equal(json_string_value(json_array_get(names, 0)), expected);
	}
	json_decref(names);
}

static inline void suite_claims(struct gw_registry *r)
{
	struct gw_vm_record vm = { .name = "web1",
				   .host = "b",
				   .address = "10.0.0.2:7373",
				   .reported = 1795000002,
				   .departures = 7,
				   .resident = 1ULL << 33,
				   .dirty_rate = 1234.5,
				   .setup_ms = 60.5,
				   .device_bytes = 300000,
				   .wire_per_changed = 700.5,
				   .wire_per_page = 900.25 },
			    back;

	assert_int_equal(gw_registry_vm(r, "web1", &back), -ENOENT);
	assert_int_equal(gw_registry_claim(r, "web1", "a"), 0);
	assert_int_equal(gw_registry_vm(r, "web1", &back), 0);
	assert_string_equal(back.name, "web1");
	assert_string_equal(back.host, "a");
	assert_int_equal(back.reported, 0);
	suite_holds(r, "a", "web1");
	assert_int_equal(gw_registry_claim(r, "web1", "b"), -EEXIST);
	assert_message("host 'a'");
	assert_int_equal(gw_registry_release(r, "web1", "b"), 0);
	assert_int_equal(gw_registry_claim(r, "web1", "b"), -EEXIST);
	/* Only from the one that has it, with all that is told of it. */
	vm.history.nr = GW_HISTORY_MAX;
	for (unsigned int i = 0; i < GW_HISTORY_MAX; i++)
		vm.history.at[i] = (struct gw_history_entry){ .departure = 1000000U + i,
							      .id = { (uint8_t)i, 1 },
							      .pages = 1000000000UL + i };
	assert_int_equal(gw_registry_move(r, &vm, "c"), -EEXIST);
	assert_message("'a'");
	assert_int_equal(gw_registry_move(r, &vm, "a"), 0);
	suite_holds(r, "a", NULL);
	suite_holds(r, "b", "web1");
	/* Repeated, as after an answer that was lost. */
	assert_int_equal(gw_registry_move(r, &vm, "a"), 0);
	/* Claiming what it has leaves what is known. */
	assert_int_equal(gw_registry_claim(r, "web1", "b"), 0);
	assert_int_equal(gw_registry_vm(r, "web1", &back), 0);
	assert_string_equal(back.host, "b");
	assert_string_equal(back.address, "10.0.0.2:7373");
	assert_int_equal(back.reported, 1795000002);
	assert_int_equal(back.departures, 7);
	assert_int_equal(back.resident, 1ULL << 33);
	assert_true(back.dirty_rate > 1234.4 && back.dirty_rate < 1234.6);
	assert_true(back.setup_ms > 60.4 && back.setup_ms < 60.6);
	assert_int_equal(back.device_bytes, 300000);
	assert_true(back.wire_per_changed > 700.4 && back.wire_per_changed < 700.6);
	assert_true(back.wire_per_page > 900.2 && back.wire_per_page < 900.3);
	assert_int_equal(back.history.nr, GW_HISTORY_MAX);
	assert_memory_equal(back.history.at, vm.history.at, sizeof(vm.history.at));
	assert_int_equal(gw_registry_release(r, "web1", "a"), 0);
	assert_int_equal(gw_registry_vm(r, "web1", &back), 0);
	assert_int_equal(gw_registry_release(r, "web1", "b"), 0);
	assert_int_equal(gw_registry_vm(r, "web1", &back), -ENOENT);
	suite_holds(r, "b", NULL);
	/* One that nobody holds any more is moved all the same: its host's report came first. */
	assert_int_equal(gw_registry_move(r, &vm, "a"), 0);
	suite_holds(r, "b", "web1");
	assert_int_equal(gw_registry_release(r, "web1", "b"), 0);
}

/* For each byte from @go claim the next name; write to @out, a byte each, whether it is ours. */
static inline _Noreturn void suite_claimant(const char *url, const char *host, int go, int out)
{
	struct gw_registry *r = gw_registry_open(url, 20000);
	char name[32], won;

	for (int i = 0; read(go, &won, 1) == 1; i++) {
		int rc;

		snprintf(name, sizeof(name), "vm%d", i);
		rc = gw_registry_claim(r, name, host);
		won = rc == 0 ? 1 : rc == -EEXIST ? 0 : 2;
		if (won == 2)
			fprintf(stderr, "%s: %s\n", host, gw_error());
		if (write(out, &won, 1) != 1)
			_exit(1);
	}
	gw_registry_close(r);
	_exit(0);
}

/* Two processes want the same name at the same time, again and again: one of them gets it. */
static inline void suite_race(const char *url)
{
	struct gw_registry *r;
	int go[2][2], out[2][2], wins = 0;
	pid_t pids[2];

	for (int p = 0; p < 2; p++) {
		assert_int_equal(pipe2(go[p], O_CLOEXEC), 0);
		assert_int_equal(pipe2(out[p], O_CLOEXEC), 0);
		pids[p] = fork();
		if (!pids[p]) {
			close(go[p][1]);
			if (p)
				close(go[0][1]);
			suite_claimant(url, p ? "b" : "a", go[p][0], out[p][1]);
		}
		close(go[p][0]);
		close(out[p][1]);
	}
	r = gw_registry_open(url, 20000);
	for (int i = 0; i < SUITE_CLAIMS; i++) {
		struct gw_vm_record vm;
		char name[32], won[2];

		/* Whoever is told first has the better chance: take turns. */
		assert_int_equal(write(go[i % 2][1], "", 1), 1);
		assert_int_equal(write(go[!(i % 2)][1], "", 1), 1);
		assert_int_equal(read(out[0][0], &won[0], 1), 1);
		assert_int_equal(read(out[1][0], &won[1], 1), 1);
		assert_int_equal(won[0] + won[1], 1);
		wins += won[0];
		snprintf(name, sizeof(name), "vm%d", i);
		assert_int_equal(gw_registry_vm(r, name, &vm), 0);
		assert_string_equal(vm.host, won[0] ? "a" : "b");
		assert_int_equal(gw_registry_release(r, name, vm.host), 0);
	}
	for (int p = 0; p < 2; p++) {
		int status;

		close(go[p][1]);
		waitpid(pids[p], &status, 0);
		assert_int_equal(status, 0);
		close(out[p][0]);
	}
	print_message("a won %d of %d\n", wins, SUITE_CLAIMS);
	gw_registry_close(r);
}

/* A call comes to @code, with nothing, and not long after the registry's limit of @ms. */
static inline void suite_fails_in_time(struct gw_registry *r, int code, unsigned int ms)
{
	struct gw_host_record *list;
	const int64_t begun = gw_now();
	size_t nr;

	assert_int_equal(gw_registry_hosts(r, &list, &nr), code);
	assert_int_equal(nr, 0);
	assert_true(!code || !list);
	free(list);
	/* Generous: machines that run tests are busy. What is excluded is the minutes of TCP. */
	assert_true(gw_now() - begun < (ms + 60000LL) * GW_MS);
}

#endif
