// SPDX-License-Identifier: GPL-2.0-or-later
/* test_arrival.c - a kept image is compared in the background, and nobody waits for it in vain. */
#include "store.h"

#include <semaphore.h>

#include "arrival.h"

/* What one test compares: an image with some damage. */
struct back {
	struct host *h;
	struct vm *vm;
	struct gw_arrival a;
	struct gw_ram ram;
	struct gw_dest_kept kept;
	sem_t part;
	_Atomic bool hangs;
	sem_t go;
};

static void part_done(void *arg)
{
	struct back *b = arg;

	sem_post(&b->part);
	if (b->hangs)
		sem_wait(&b->go);
}

static void come_back(struct back *b, struct host *h)
{
	static const uint8_t other[GW_PAGE_SIZE] = { 77 };

	memset(b, 0, sizeof(*b));
	b->h = h;
	b->vm = vm_new(h, "web1");
	sem_init(&b->part, 0, 0);
	sem_init(&b->go, 0, 0);
	vm_set(b->vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, b->vm), 0);
	assert_int_equal(vm_return(h, b->vm, &b->a.image), 0);
	assert_int_equal(vm_ram(b->vm, &b->ram, 0), 0);
	assert_int_equal(gw_memory_write(&b->ram.memory, 3, 1, other), 0);
	assert_int_equal(gw_memory_punch(&b->ram.memory, FIRST_B, 2), 0);
	b->a.took = true;
	b->a.key = *test_key();
	b->a.deadline = gw_now() + 300 * GW_S;
}

static void go_away(struct back *b)
{
	gw_arrival_free(&b->a);
	gw_bitmap_free(&b->kept.absent);
	gw_ram_close(&b->ram);
	vm_free(b->vm);
	sem_destroy(&b->part);
	sem_destroy(&b->go);
}

static void all_is_told(void **state)
{
	struct back b;

	come_back(&b, *state);
	b.a.deadline = gw_now(); /* for READY; but nobody waits for that */
	assert_int_equal(gw_arrival_compare(&b.a, &b.ram.memory, true, &b.kept, part_done, &b), 0);
	assert_int_equal(b.kept.departure, 1);
	sem_wait(&b.part);
	assert_int_equal(gw_arrival_compared(&b.a, 0, &b.kept.absent), PAGES);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), 3);
	assert_true(gw_bitmap_test(&b.kept.absent, 3));
	assert_true(gw_bitmap_test(&b.kept.absent, FIRST_B + 1));
	go_away(&b);
}

static void who_cannot_ask_waits(void **state)
{
	struct back b;

	come_back(&b, *state);
	gw_arrival_compare_all(&b.a, &b.kept.absent); /* none has begun */
	assert_int_equal(gw_arrival_compare(&b.a, &b.ram.memory, false, &b.kept, part_done, &b), 0);
	gw_arrival_compare_all(&b.a, &b.kept.absent);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), 3);
	go_away(&b);
}

/* Past the budget what is not compared is absent, and it is not even looked at. */
static void too_late(void **state)
{
	struct back b;

	come_back(&b, *state);
	b.a.deadline = gw_now();
	assert_int_equal(gw_arrival_compare(&b.a, &b.ram.memory, false, &b.kept, part_done, &b), 0);
	assert_int_equal(gw_arrival_compared(&b.a, 0, &b.kept.absent), PAGES);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), ALL_DATA); /* no padding */
	go_away(&b);
}

/* Memory that cannot be compared costs its reuse, and no migration. */
static void what_fails_is_absent(void **state)
{
	struct back b;

	come_back(&b, *state);
	b.ram.memory.nr_pages -= GW_CHUNK_PAGES; /* it is not what the ledger is of */
	gw_log_init("test", 0);
	assert_int_equal(gw_arrival_compare(&b.a, &b.ram.memory, false, &b.kept, part_done, &b), 0);
	gw_arrival_compare_all(&b.a, &b.kept.absent);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), PAGES_A);
	go_away(&b);
}

/* Threads that hang: whoever asks hears what is known, at once, and past the budget all. */
static void nobody_waits(void **state)
{
	struct back b;

	come_back(&b, *state);
	b.hangs = true;
	assert_int_equal(gw_arrival_compare(&b.a, &b.ram.memory, false, &b.kept, part_done, &b), 0);
	sem_wait(&b.part);   /* one has done its part, and hangs */
	b.a.done[0] = false; /* or has not */
	assert_int_equal(gw_arrival_compared(&b.a, 0, &b.kept.absent), 0);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), 0);
	b.a.deadline = gw_now();
	assert_int_equal(gw_arrival_compared(&b.a, 0, &b.kept.absent), PAGES);
	assert_int_equal(gw_bitmap_count(&b.kept.absent, 0, PAGES), ALL_DATA); /* no padding */
	gw_arrival_compare_end(&b.a);
	b.hangs = false;
	sem_post(&b.go);
	go_away(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(all_is_told),	 host_test(who_cannot_ask_waits),
		host_test(too_late),	 host_test(what_fails_is_absent),
		host_test(nobody_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
