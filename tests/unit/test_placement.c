// SPDX-License-Identifier: GPL-2.0-or-later
/* test_placement.c - predictions on numbers that can be checked by hand. */
#include "unit.h"

#include "history.h"
#include "page.h"
#include "placement.h"

#define NOW	    1795000000LL
#define GB	    1000000000ULL
#define PAGES	    250000ULL /* 1 GB on the wire at 4000 bytes a page */
#define about(a, b) assert_true((a) > (b)-0.01 && (a) < (b) + 0.01)

static const struct gw_history history = {
	.nr = 3,
	.at = { { .departure = 1, .id = { 1 }, .pages = 100000 },
		{ .departure = 2, .id = { 2 }, .pages = 200000 },
		{ .departure = 3, .id = { 3 }, .pages = 240000 } },
};

static struct gw_placement_vm make_vm(void)
{
	return (struct gw_placement_vm){ .host = "a",
					 .pages = PAGES,
					 .history = &history,
					 .wire_per_page = 4000,
					 .device_ms = 25,
					 .downtime_limit_ms = 300 };
}

static struct gw_host_record make_host(const char *name)
{
	struct gw_host_record host = { .address = "10.0.0.2:7373",
				       .free = 4 * GB,
				       .reported = NOW };

	snprintf(host.name, sizeof(host.name), "%s", name);
	return host;
}

static struct gw_image_record make_image(const char *host, uint32_t departure, uint8_t id)
{
	struct gw_image_record image = { .vm = "web1", .departure = departure, .id = { id } };

	snprintf(image.host, sizeof(image.host), "%s", host);
	return image;
}

static struct gw_placement_link link_of(uint64_t bandwidth, bool assumed)
{
	return (struct gw_placement_link){ .bandwidth = bandwidth, .assumed = assumed };
}

/* 1 GB at 125 MB/s: 8 s and the 25 ms that it always takes. */
static void idle_guest(void **state)
{
	const struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_placement p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, true),
						     NOW);
	char text[128];

	(void)state;
	assert_ptr_equal(p.host, &host);
	assert_int_equal(p.reused, 0);
	assert_int_equal(p.travel, PAGES);
	assert_int_equal(p.wire_bytes, GB);
	assert_int_equal(p.rounds, 2);
	about(p.total_ms, 8025);
	about(p.downtime_ms, 25);
	assert_int_equal(p.obstacle, GW_PLACEMENT_FINE);
	assert_string_equal(gw_placement_note(&p, text, sizeof(text)), "bandwidth assumed");
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	assert_string_equal(gw_placement_note(&p, text, sizeof(text)), "");
}

/* What a host has kept is looked through first. */
static void kept_image(void **state)
{
	struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_image_record image = make_image("b", 1, 1);
	struct gw_history past = { .nr = 1, .at = { { .departure = 1, .id = { 1 } } } };
	struct gw_placement p;

	(void)state;
	past.at[0].pages = PAGES;
	vm.history = &past;
	vm.setup_ms = 60;
	vm.device_bytes = 300000;
	image.bytes = 2000000000;
	p = gw_placement_predict(&vm, &host, &image, link_of(125000000, false), NOW);
	assert_int_equal(p.wire_bytes, 300000);
	about(p.total_ms, 60 + 500 + 25);
	about(p.downtime_ms, 25);
	/* A fifth has changed since, and costs what such pages cost: a quarter of a page. */
	past.at[0].pages = PAGES / 5 * 4;
	vm.wire_per_changed = 1000;
	p = gw_placement_predict(&vm, &host, &image, link_of(125000000, false), NOW);
	assert_int_equal(p.wire_bytes, PAGES / 5 * 1000 + 300000);
	image.departure = 2; /* not one of its own: every page is sent whole */
	p = gw_placement_predict(&vm, &host, &image, link_of(125000000, false), NOW);
	assert_int_equal(p.wire_bytes, GB + 300000);
}

/* The same 20 ms away: eight trips before it, one a round, two and a half of the downtime. */
static void far_away(void **state)
{
	const struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_placement_link link = link_of(125000000, false);
	struct gw_placement p;

	(void)state;
	link.round_trip_ms = 20;
	p = gw_placement_predict(&vm, &host, NULL, link, NOW);
	about(p.downtime_ms, 25 + 50);
	about(p.total_ms, 8025 + 50 + (2 + 8) * 20);
}

/*
 * 3125 pages a second at 4000 bytes are a tenth of 125 MB/s: 8 s, 0.8 s, 0.08 s,
 * and that is below 300 - 25 ms.
 */
static void busy_guest(void **state)
{
	struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_placement p;

	(void)state;
	vm.dirty_rate = 3125;
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	assert_int_equal(p.rounds, 3);
	assert_int_equal(p.travel, 250000 + 25000 + 2500);
	assert_int_equal(p.wire_bytes, 1110000000);
	about(p.total_ms, 8000 + 800 + 80 + 25);
	about(p.downtime_ms, 105);
	vm.downtime_limit_ms = 104; /* one round more */
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	assert_int_equal(p.rounds, 4);
	about(p.downtime_ms, 33);
	vm.downtime_limit_ms = 900; /* one less */
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	assert_int_equal(p.rounds, 2);
	about(p.downtime_ms, 825);
	/* Not measured: a page travels as it is. */
	vm.wire_per_page = 0;
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	about(p.total_ms, 8192 * (1 + 0.1024) + 25);
}

static void guest_that_is_too_fast(void **state)
{
	struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_placement p;
	char text[128];

	(void)state;
	vm.dirty_rate = 31250 * 1.01;
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, false), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_NEVER_ENDS);
	assert_int_equal(p.travel, PAGES);
	about(p.total_ms, 8025);
	assert_string_equal(gw_placement_note(&p, text, sizeof(text)),
			    "writes faster than the link");
	/* On a faster link it goes. */
	p = gw_placement_predict(&vm, &host, NULL, link_of(10 * GB / 8, false), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_FINE);
	/* What is fixed takes longer than what is allowed. */
	vm.downtime_limit_ms = 24;
	p = gw_placement_predict(&vm, &host, NULL, link_of(10 * GB / 8, false), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_NEVER_ENDS);
}

/* An image counts by the number and the id of its departure. */
static void reuse(void **state)
{
	static const struct {
		uint32_t departure;
		uint8_t id;
		uint64_t reused;
	} images[] = {
		{ 1, 1, 100000 }, { 3, 3, 240000 }, { 2, 3, 0 },
		{ 3, 2, 0 },	  { 4, 4, 0 },	    { 0, 0, 0 },
	};
	struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	char text[128];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(images); i++) {
		const struct gw_image_record image = make_image("b", images[i].departure,
								images[i].id);
		const struct gw_placement p = gw_placement_predict(&vm, &host, &image,
								   link_of(125000000, false), NOW);

		assert_int_equal(p.reused, images[i].reused);
		assert_int_equal(p.travel, PAGES - images[i].reused);
		assert_int_equal(p.wire_bytes, (PAGES - images[i].reused) * 4000);
		assert_int_equal(p.stale, !images[i].reused);
		assert_string_equal(gw_placement_note(&p, text, sizeof(text)),
				    images[i].reused ? "" : "its image is of no use");
	}
	/* A history of more pages than it has now. */
	vm.pages = 1000;
	{
		const struct gw_image_record image = make_image("b", 3, 3);
		const struct gw_placement p = gw_placement_predict(&vm, &host, &image,
								   link_of(125000000, false), NOW);

		assert_int_equal(p.reused, 1000);
		assert_int_equal(p.travel, 0);
		about(p.total_ms, 25);
	}
}

static void bandwidth(void **state)
{
	const struct gw_link_record links[] = {
		{ .from = "a", .to = "b", .bandwidth = 7 },
		{ .from = "a", .to = "c", .bandwidth = 5 },
		{ .from = "a", .to = "d", .bandwidth = 6, .round_trip = 2000000 }
	};
	struct gw_placement_link link;

	(void)state;
	link = gw_placement_link(links, 3, "d");
	assert_int_equal(link.bandwidth, 6);
	assert_true(link.round_trip_ms > 1.9 && link.round_trip_ms < 2.1);
	assert_false(link.assumed);
	link = gw_placement_link(links, 3, "e");
	assert_int_equal(link.bandwidth, 5);
	assert_true(link.assumed);
	link = gw_placement_link(NULL, 0, "e");
	assert_int_equal(link.bandwidth, GW_PLACEMENT_BANDWIDTH);
	assert_true(link.assumed);
}

static void memory(void **state)
{
	const struct gw_placement_vm vm = make_vm();
	struct gw_host_record host = make_host("b");
	struct gw_image_record image = make_image("b", 3, 3);
	struct gw_placement p;
	char text[128];

	(void)state;
	host.free = PAGES * GW_PAGE_SIZE;
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, true), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_FINE);
	host.free--;
	p = gw_placement_predict(&vm, &host, NULL, link_of(125000000, true), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_NO_MEMORY);
	assert_string_equal(gw_placement_note(&p, text, sizeof(text)),
			    "not enough free memory, bandwidth assumed");
	/* What its image takes becomes the VM's; one of no use does not count. */
	image.bytes = 1;
	p = gw_placement_predict(&vm, &host, &image, link_of(125000000, true), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_FINE);
	image.departure = 9;
	p = gw_placement_predict(&vm, &host, &image, link_of(125000000, true), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_NO_MEMORY);
}

static void ranking(void **state)
{
	static const char *const expected[] = { "image", "fast",   "b",	   "c",
						"slow",	 "silent", "full", "deaf" };
	struct gw_host_record hosts[] = {
		make_host("deaf"), make_host("full"), make_host("silent"),
		make_host("slow"), make_host("c"),    make_host("a"),
		make_host("b"),	   make_host("fast"), make_host("image"),
	};
	const struct gw_image_record images[] = { make_image("image", 3, 3),
						  make_image("b", 3, 9) };
	const struct gw_link_record links[] = {
		{ .from = "a", .to = "slow", .bandwidth = 12500000 },
		{ .from = "a", .to = "fast", .bandwidth = 1250000000 },
		{ .from = "a", .to = "b", .bandwidth = 125000000 },
		{ .from = "a", .to = "c", .bandwidth = 125000000 },
		{ .from = "a", .to = "full", .bandwidth = 1250000000 },
		{ .from = "a", .to = "image", .bandwidth = 125000000 },
	};
	struct gw_placement out[GW_ARRAY_SIZE(hosts)];
	struct gw_placement_vm vm = make_vm();
	size_t n;

	(void)state;
	hosts[0].address[0] = '\0';
	hosts[1].free = 1;
	hosts[2].reported = NOW - GW_REGISTRY_SILENT_S - 1;
	hosts[3].reported = NOW - GW_REGISTRY_SILENT_S;
	n = gw_placement_rank(&vm, hosts, GW_ARRAY_SIZE(hosts), images, 2, links,
			      GW_ARRAY_SIZE(links), NOW, out);
	assert_int_equal(n, GW_ARRAY_SIZE(expected));
	for (size_t i = 0; i < n; i++)
		assert_string_equal(out[i].host->name, expected[i]);
	assert_true(out[2].stale);
	assert_true(out[7].link.assumed);
	/* Where it would never end comes after where it would, however slow; 3200 pages a second.
	 */
	vm.dirty_rate = 3200;
	n = gw_placement_rank(&vm, hosts, GW_ARRAY_SIZE(hosts), images, 2, links,
			      GW_ARRAY_SIZE(links), NOW, out);
	assert_int_equal(n, GW_ARRAY_SIZE(expected));
	assert_string_equal(out[4].host->name, "slow");
	assert_int_equal(out[4].obstacle, GW_PLACEMENT_NEVER_ENDS);
	assert_int_equal(gw_placement_rank(&vm, hosts, 0, NULL, 0, NULL, 0, NOW, out), 0);
}

/* What a registry may say at worst. */
static void absurd_numbers(void **state)
{
	struct gw_placement_vm vm = make_vm();
	const struct gw_host_record host = make_host("b");
	struct gw_placement p;

	(void)state;
	vm.pages = INT64_MAX / GW_PAGE_SIZE;
	vm.wire_per_page = 1e6;
	vm.dirty_rate = 1e12;
	p = gw_placement_predict(&vm, &host, NULL, link_of(1, false), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_NO_MEMORY);
	assert_int_equal(p.wire_bytes, INT64_MAX);
	vm.pages = 0;
	p = gw_placement_predict(&vm, &host, NULL, link_of(1, false), NOW);
	assert_int_equal(p.obstacle, GW_PLACEMENT_FINE);
	assert_int_equal(p.wire_bytes, 0);
	about(p.total_ms, 25);
}

/* A ledger of 70 departures, where page n changed last at departure n, and some are zero. */
static void history_of_a_ledger(void **state)
{
	const uint8_t some[GW_ID_LEN] = { 5 };
	struct gw_history h;
	struct gw_ledger l;

	(void)state;
	assert_int_equal(gw_ledger_create(&l, NULL, 1024), 0);
	gw_history_of(&h, &l);
	assert_int_equal(h.nr, 0);
	for (uint8_t n = 1; n <= 70; n++)
		gw_ledger_add(&l, (uint8_t[GW_ID_LEN]){ n });
	for (uint32_t page = 0; page <= 70; page++) {
		l.generations[page] = page;
		if (page % 2)
			l.digests[page].low = 1;
	}
	gw_history_of(&h, &l);
	assert_int_equal(h.nr, GW_HISTORY_MAX);
	for (uint32_t i = 0; i < h.nr; i++) {
		assert_int_equal(h.at[i].departure, 7 + i);
		assert_int_equal(h.at[i].id[0], 7 + i);
		assert_int_equal(h.at[i].pages, (7 + i + 1) / 2);
	}
	assert_null(gw_history_find(&h, 5, some));
	assert_null(gw_history_find(&h, 7, some));
	assert_ptr_equal(gw_history_find(&h, 70, (uint8_t[GW_ID_LEN]){ 70 }), &h.at[63]);
	/* A tenth was looked at. */
	gw_history_begin(&h, &l);
	gw_history_count(&h, 0);
	gw_history_count(&h, 8);
	gw_history_count(&h, 71); /* newer than all: no image has it */
	gw_history_end(&h, 100, 1000);
	assert_int_equal(h.at[0].pages, 10);
	assert_int_equal(h.at[1].pages, 20);
	assert_int_equal(h.at[63].pages, 20);
	gw_ledger_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idle_guest),
		cmocka_unit_test(kept_image),
		cmocka_unit_test(far_away),
		cmocka_unit_test(busy_guest),
		cmocka_unit_test(guest_that_is_too_fast),
		cmocka_unit_test(reuse),
		cmocka_unit_test(bandwidth),
		cmocka_unit_test(memory),
		cmocka_unit_test(ranking),
		cmocka_unit_test(absurd_numbers),
		cmocka_unit_test(history_of_a_ledger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
