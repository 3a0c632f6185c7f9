// SPDX-License-Identifier: GPL-2.0-or-later
/* test_registry_report.c - what workers tell a registry, and that its loss costs them nothing. */
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "registry.h"
#include "registry_report.h"

#define PAGES 1024

/* A worker of host a, and a migration to host b that has completed. */
struct world {
	char *root;
	struct gw_paths paths;
	struct gw_worker w;
	struct gw_source *s;
	struct gw_ram ram;
	struct gw_ledger ledger;
	struct gw_registry *r;
};

static int make(void **state)
{
	static char data[3 * GW_PAGE_SIZE];
	struct world *x = calloc(1, sizeof(*x));
	int fd = memfd_create("ram", MFD_CLOEXEC);

	*state = x;
	if (!x || unit_folder((void **)&x->root) || ftruncate(fd, PAGES * GW_PAGE_SIZE) ||
	    gw_pwrite_all(fd, data, sizeof(data), 0) ||
	    gw_ram_add(&x->ram, "ram", fd, PAGES * GW_PAGE_SIZE, 0) ||
	    gw_ledger_create(&x->ledger, NULL, PAGES))
		return -1;
	x->paths.registry = gw_path("sqlite:%s/registry.sqlite", x->root);
	x->w = (struct gw_worker){ .paths = &x->paths, .host = "a", .ctl = -1 };
	x->s = calloc(1, sizeof(*x->s));
	x->s->memory = &x->ram.memory;
	x->s->holder.bandwidth = 125000000;
	x->s->rounds[0].wire_bytes = 16 << 20;
	x->s->holder.round_trip = 300000;
	x->s->dirty_rate = 50;
	x->s->id[0] = 2;
	snprintf(x->s->holder.host, sizeof(x->s->holder.host), "b");
	x->s->pages[GW_STAGE_ZERO] = x->s->pages[GW_STAGE_SAME] = 1000000;
	x->s->pages[GW_STAGE_COMPRESS] = 3;
	x->s->pages[GW_STAGE_RAW] = 1;
	x->s->bytes[GW_STAGE_ZERO] = 1000000;
	x->s->bytes[GW_STAGE_COMPRESS] = 3896;
	x->s->bytes[GW_STAGE_RAW] = 4104;
	gw_ledger_add(&x->ledger, (uint8_t[GW_ID_LEN]){ 1 });
	gw_ledger_add(&x->ledger, x->s->id);
	for (uint32_t page = 0; page < 3; page++) {
		x->ledger.digests[page].low = 7;
		x->ledger.generations[page] = page;
	}
	x->r = gw_registry_open(x->paths.registry, 120000);
	return x->r ? 0 : -1;
}

static int drop(void **state)
{
	struct world *x = *state;

	gw_registry_close(x->r);
	gw_ledger_close(&x->ledger);
	gw_ram_close(&x->ram);
	gw_paths_free(&x->paths);
	unit_folder_remove((void **)&x->root);
	free(x->s);
	free(x);
	return 0;
}

/* Host b reported @ago seconds ago. */
static void b_reported(struct world *x, int64_t ago)
{
	const struct gw_host_record b = { .name = "b", .reported = time(NULL) - ago };

	assert_int_equal(gw_registry_put_host(x->r, &b), 0);
}

static void claim_and_release(void **state)
{
	struct world *x = *state;
	struct gw_vm_record vm;

	assert_int_equal(gw_registry_claim(x->r, "web2", "b"), 0);
	assert_int_equal(gw_report_claim(&x->w, "web1"), 0);
	assert_int_equal(gw_registry_vm(x->r, "web1", &vm), 0);
	assert_string_equal(vm.host, "a");
	assert_int_equal(gw_report_claim(&x->w, "web1"), 0);
	assert_int_equal(gw_report_claim(&x->w, "web2"), -EEXIST);
	assert_message("host 'b'");
	/* The message of what failed is the user's: releasing leaves it alone. */
	gw_fail(-EIO, "what failed");
	gw_report_release(&x->w, "web1");
	assert_string_equal(gw_error(), "what failed");
	assert_int_equal(gw_registry_vm(x->r, "web1", &vm), -ENOENT);
	gw_report_release(&x->w, "web2");
	assert_int_equal(gw_registry_vm(x->r, "web2", &vm), 0);
}

static void departure(void **state)
{
	struct world *x = *state;
	struct gw_image_record *images;
	struct gw_link_record *links;
	struct gw_vm_record vm;
	const struct gw_image_record kept_there = { .vm = "web1", .host = "b", .departure = 1 };
	size_t nr;

	b_reported(x, 0);
	assert_int_equal(gw_registry_claim(x->r, "web1", "a"), 0);
	assert_int_equal(gw_registry_put_image(x->r, &kept_there), 0);
	x->s->holder.image = 1;
	x->s->pages[GW_STAGE_PATCH] = 1000000; /* next to which the others do not count */
	x->s->bytes[GW_STAGE_PATCH] = 500000000;
	gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", &x->ledger, 12288);
	assert_int_equal(gw_registry_vm(x->r, "web1", &vm), 0);
	assert_true(vm.wire_per_changed > 499 && vm.wire_per_changed < 510);
	assert_string_equal(vm.host, "b");
	assert_string_equal(vm.address, "10.0.0.2:7373");
	assert_true(time(NULL) - vm.reported < 60);
	assert_int_equal(vm.departures, 2);
	assert_int_equal(vm.resident, 3 * GW_PAGE_SIZE);
	assert_true(vm.dirty_rate > 49.9 && vm.dirty_rate < 50.1);
	/* Zero pages and unchanged ones do not travel. */
	assert_true(vm.wire_per_page > 1999.9 && vm.wire_per_page < 2000.1);
	assert_int_equal(vm.history.nr, 2);
	assert_int_equal(vm.history.at[0].pages, 2);
	assert_int_equal(vm.history.at[1].pages, 3);
	assert_int_equal(vm.history.at[1].id[0], 2);
	assert_int_equal(gw_registry_images(x->r, "web1", &images, &nr), 0);
	assert_int_equal(nr, 1); /* what b had kept is the VM's memory now */
	assert_string_equal(images[0].host, "a");
	assert_int_equal(images[0].departure, 2);
	assert_int_equal(images[0].id[0], 2);
	assert_int_equal(images[0].bytes, 12288);
	assert_int_equal(gw_registry_links(x->r, "a", &links, &nr), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(links[0].to, "b");
	assert_int_equal(links[0].bandwidth, 125000000);
	assert_int_equal(links[0].round_trip, 300000);
	free(images);
	free(links);
	gw_report_image_gone(&x->w, "web1");
	assert_int_equal(gw_registry_images(x->r, "web1", &images, &nr), 0);
	assert_int_equal(nr, 0);
	free(images);
}

/* A few pages travelled: what their pace was says nothing of the link. */
static void departure_of_little(void **state)
{
	struct world *x = *state;
	struct gw_link_record *links;
	size_t nr;

	b_reported(x, 0);
	x->s->rounds[0].wire_bytes--;
	gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", &x->ledger, 12288);
	assert_int_equal(gw_registry_links(x->r, "a", &links, &nr), 0);
	assert_int_equal(nr, 0);
	free(links);
}

/* Nothing was kept: it went, and what was measured is known. */
static void departure_without_ledger(void **state)
{
	struct world *x = *state;
	struct gw_image_record *images;
	struct gw_link_record *links;
	struct gw_vm_record vm;
	size_t nr;

	b_reported(x, 0);
	x->s->params.max_bandwidth = 1; /* so that the link was not measured either */
	gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", NULL, 0);
	assert_int_equal(gw_registry_vm(x->r, "web1", &vm), 0);
	assert_string_equal(vm.host, "b");
	assert_int_equal(vm.departures, 0);
	assert_int_equal(vm.history.nr, 0);
	assert_int_equal(gw_registry_images(x->r, "web1", &images, &nr), 0);
	assert_int_equal(nr, 0);
	free(images);
	assert_int_equal(gw_registry_links(x->r, "a", &links, &nr), 0);
	assert_int_equal(nr, 0);
	free(links);
	x->s->params.max_bandwidth = x->s->holder.bandwidth = 0;
	gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", NULL, 0);
	assert_int_equal(gw_registry_links(x->r, "a", &links, &nr), 0);
	assert_int_equal(nr, 0);
	free(links);
}

/*
 * To a host that has a registry of its own, or a name that cannot be: the name is
 * free, so that the VM may come back.
 */
static void to_a_stranger(void **state)
{
	static const char *const names[] = { "b", "b", "b c\n", "" };
	struct world *x = *state;
	struct gw_image_record *images;
	struct gw_vm_record vm;
	size_t nr;

	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
		snprintf(x->s->holder.host, sizeof(x->s->holder.host), "%s", names[i]);
		assert_int_equal(gw_report_claim(&x->w, "web1"), 0);
		gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", &x->ledger, 4096);
		assert_int_equal(gw_registry_vm(x->r, "web1", &vm), -ENOENT);
		b_reported(x, 2 * GW_REGISTRY_SILENT_S); /* and no more since */
	}
	/* What is kept here is. */
	assert_int_equal(gw_registry_images(x->r, "web1", &images, &nr), 0);
	assert_int_equal(nr, 1);
	free(images);
}

/* None, one that is away, one that is damaged: each is a success, and soon. */
static void no_registry(void **state)
{
	struct world *x = *state;
	gw_autofree char *damaged = gw_path("%s/damaged", x->root);
	gw_autofree char *text = gw_path("%0200d", 0);
	char *const urls[] = { NULL, gw_path("godwit://127.0.0.1:1"),
			       gw_path("redis://127.0.0.1:1"), gw_path("sqlite:%s", damaged) };

	assert_int_equal(gw_write_file(damaged, text), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(urls); i++) {
		const int64_t begun = gw_now();

		free(x->paths.registry);
		x->paths.registry = urls[i];
		assert_int_equal(gw_report_claim(&x->w, "web1"), 0);
		gw_report_departure(&x->w, x->s, "web1", "10.0.0.2:7373", &x->ledger, 1);
		gw_report_image_gone(&x->w, "web1");
		gw_report_release(&x->w, "web1");
		assert_true(gw_now() - begun < 120 * GW_S);
	}
}

#define with_world(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_world(claim_and_release),	 with_world(departure),
		with_world(departure_of_little), with_world(departure_without_ledger),
		with_world(to_a_stranger),	 with_world(no_registry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
