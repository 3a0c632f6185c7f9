// SPDX-License-Identifier: GPL-2.0-or-later
/* test_image_absent.c - which pages of a taken image are not what its ledger says, by many threads.
 */
#include "store.h"

#include <pthread.h>

static void ranges_are_checked(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_bitmap absent;
	struct gw_image image;
	struct gw_ram ram;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	assert_int_equal(gw_bitmap_init(&absent, PAGES), 0);
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, PAGES, 1, &absent),
			 -EINVAL);
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 0, SIZE_MAX, &absent),
			 -EINVAL);
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 1, SIZE_MAX, &absent),
			 -EINVAL);
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 0, PAGES, &absent), 0);
	assert_int_equal(gw_bitmap_count(&absent, 0, PAGES), 0);
	ram.memory.nr_pages -= GW_CHUNK_PAGES;
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 0, 1, &absent), -EINVAL);
	gw_bitmap_free(&absent);
	gw_ram_close(&ram);
	gw_image_close(&image);
	vm_free(vm);
}

#define THREADS 4

struct share {
	const struct gw_image *image;
	const struct gw_memory *memory;
	struct gw_bitmap *absent;
	size_t first;
	int rc;
};

/* Every fourth chunk. */
static void *look(void *arg)
{
	struct share *s = arg;

	for (size_t at = s->first; !s->rc && at < PAGES; at += THREADS * GW_CHUNK_PAGES)
		s->rc = gw_image_absent(s->image, test_key(), s->memory, at, GW_CHUNK_PAGES,
					s->absent);
	return NULL;
}

static void threads_share_the_work(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	static uint8_t page[GW_PAGE_SIZE];
	struct share shares[THREADS];
	struct gw_bitmap absent, alone;
	pthread_t threads[THREADS];
	struct gw_image image;
	struct gw_ram ram;
	struct rng rng = { 5 };
	size_t damaged = 0;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	for (size_t at = 0; at < PAGES; at++) {
		if (!is_page(at) || !rng_one_in(&rng, 5))
			continue;
		damaged++;
		if (rng_one_in(&rng, 2))
			assert_int_equal(gw_memory_punch(&ram.memory, at, 1), 0);
		else
			assert_int_equal(gw_memory_write(&ram.memory, at, 1, page), 0);
	}
	assert_int_equal(gw_bitmap_init(&absent, PAGES), 0);
	assert_int_equal(gw_bitmap_init(&alone, PAGES), 0);
	for (size_t i = 0; i < THREADS; i++) {
		shares[i] = (struct share){ &image, &ram.memory, &absent, i * GW_CHUNK_PAGES, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, look, &shares[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(shares[i].rc, 0);
	}
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 0, PAGES, &alone), 0);
	assert_memory_equal(absent.words, alone.words, PAGES / 8);
	assert_int_equal(gw_bitmap_count(&absent, 0, PAGES), damaged);
	assert_int_equal(absent_pages(vm, &image), damaged);
	gw_bitmap_free(&absent);
	gw_bitmap_free(&alone);
	gw_ram_close(&ram);
	gw_image_close(&image);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(ranges_are_checked),
		host_test(threads_share_the_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
