// SPDX-License-Identifier: GPL-2.0-or-later
/* test_image_cache.c - quotas: what goes to disk and comes back, and what is evicted. */
#include "store.h"

#include <sched.h>
#include <sys/mount.h>

#include "killed.h"

#define BYTES(pages) ((uint64_t)(pages)*GW_PAGE_SIZE)

static bool may_mount;

/* When it left, so that there is an order. */
static void set_left(const struct host *h, const char *name, int64_t left)
{
	struct gw_image image;

	assert_int_equal(gw_manifest_find(&h->st, name, &image), 0);
	image.left = left;
	assert_int_equal(gw_manifest_write(&h->st, &image), 0);
}

static uint64_t bytes_of(const struct host *h, const char *name)
{
	struct gw_image image;
	uint64_t bytes = 0;
	int rc = gw_image_load(&h->st, name, &image);

	if (!rc) {
		bytes = image.bytes;
		gw_image_close(&image);
	}
	return bytes;
}

static const char *place_of(const struct host *h, const char *name)
{
	struct gw_image image;
	bool on_disk;

	if (gw_image_load(&h->st, name, &image))
		return "none";
	on_disk = image.on_disk;
	gw_image_close(&image);
	return on_disk ? "disk" : "memory";
}

/* Which pages of the image are absent, in @lost. It is taken and given back. */
static size_t lost_pages(const struct host *h, const struct vm *vm, bool lost[PAGES])
{
	struct gw_bitmap absent;
	struct gw_image image;
	struct gw_ram ram;
	size_t nr;

	assert_int_equal(vm_return(h, vm, &image), 0);
	nr = absent_pages(vm, &image);
	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	assert_int_equal(gw_bitmap_init(&absent, PAGES), 0);
	assert_int_equal(gw_image_absent(&image, test_key(), &ram.memory, 0, PAGES, &absent), 0);
	for (size_t page = 0; page < PAGES; page++)
		lost[page] = gw_bitmap_test(&absent, page);
	gw_bitmap_free(&absent);
	gw_ram_close(&ram);
	gw_image_close(&image);
	assert_int_equal(gw_image_give_back(&h->st, vm->def.name, vm->paths), 0);
	return nr;
}

/* Three departures: pages from 0 on are of the first, from 100 of the second, from 200 of the
 * third. */
static void leave_thrice(const struct host *h, struct vm *vm)
{
	vm_set(vm, 0, 300, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	vm_set(vm, 100, 300, 2);
	assert_int_equal(vm_leave(h, vm), 0);
	vm_set(vm, 200, 300, 3);
	assert_int_equal(vm_leave(h, vm), 0);
}

static void what_changes_goes_first(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *kept = gw_path("%s/kept/web1/a", h->ram);
	bool lost[PAGES];
	uint64_t before;
	struct stat st;

	leave_thrice(h, vm);
	before = bytes_of(h, "web1");
	assert_int_equal(store_balance(&h->st, 0), 0);
	assert_int_equal(store_balance(&h->st, BYTES(50)), BYTES(50));
	assert_int_equal(bytes_of(h, "web1"), before - BYTES(50));
	assert_int_equal(stat(kept, &st), 0);
	assert_int_equal((uint64_t)st.st_blocks * 512, BYTES(250));
	assert_int_equal(lost_pages(h, vm, lost), 50);
	for (size_t page = 0; page < PAGES; page++)
		assert_true(!lost[page] || (page >= 200 && page < 300));
	/* The rest of the third, then of the second. */
	assert_int_equal(store_balance(&h->st, BYTES(80)), BYTES(80));
	assert_int_equal(lost_pages(h, vm, lost), 130);
	for (size_t page = 0; page < PAGES; page++)
		assert_true(lost[page] == (page >= 200 && page < 300) ||
			    (page >= 100 && page < 200));
	/* Its last pages, and then there is no use in a ledger. */
	assert_true(store_balance(&h->st, BYTES(170)) >= BYTES(170));
	assert_string_equal(place_of(h, "web1"), "none");
	assert_true(store_is_empty(h));
	vm_free(vm);
}

/* Pages that hold zeros are no loss at all. */
static void zeros_go_before_all(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	static uint8_t zeros[GW_CHUNK_SIZE];
	bool lost[PAGES];
	struct gw_ram ram;

	assert_int_equal(vm_ram(vm, &ram, O_CREAT), 0);
	assert_int_equal(gw_memory_write(&ram.memory, FIRST_B, 100, zeros), 0);
	gw_ram_close(&ram);
	vm_set(vm, 0, 100, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(store_balance(&h->st, BYTES(100)), BYTES(100));
	assert_int_equal(lost_pages(h, vm, lost), 0);
	assert_int_equal(store_balance(&h->st, BYTES(1)), BYTES(1));
	assert_int_equal(lost_pages(h, vm, lost), 1);
	vm_free(vm);
}

static void oldest_goes_first(void **state)
{
	struct host *h = *state;
	struct vm *a = vm_new(h, "a"), *b = vm_new(h, "b"), *c = vm_new(h, "c");
	uint64_t one;

	vm_set(a, 0, PAGES, 1);
	vm_set(b, 0, PAGES, 1);
	vm_set(c, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, a), 0);
	assert_int_equal(vm_leave(h, b), 0);
	assert_int_equal(vm_leave(h, c), 0);
	set_left(h, "b", 1000);
	set_left(h, "c", 2000);
	one = bytes_of(h, "b");
	assert_int_equal(evictable(&h->st, NULL), 3 * one);
	assert_int_equal(evictable(&h->st, h->ram), 3 * one);
	assert_int_equal(evictable(&h->st, h->small), 0);
	h->st.quota = 2 * one;
	assert_true(store_balance(&h->st, 0) >= one);
	assert_string_equal(place_of(h, "b"), "none");
	assert_int_equal(bytes_of(h, "c"), one);
	assert_int_equal(store_balance(&h->st, 0), 0);
	/* Pinned, it is left alone, and counts. */
	assert_int_equal(gw_image_pin(&h->st, "c", true), 0);
	assert_int_equal(evictable(&h->st, NULL), one);
	h->st.quota = one;
	assert_true(store_balance(&h->st, 0) >= one);
	assert_string_equal(place_of(h, "a"), "none");
	assert_int_equal(bytes_of(h, "c"), one);
	h->st.quota = 0;
	assert_int_equal(store_balance(&h->st, UINT64_MAX), 0);
	assert_int_equal(bytes_of(h, "c"), one);
	assert_int_equal(gw_image_pin(&h->st, "c", false), 0);
	assert_true(store_balance(&h->st, 0) >= one);
	assert_true(store_is_empty(h));
	vm_free(a);
	vm_free(b);
	vm_free(c);
}

/* A departure brings the host within its quota by itself. */
static void quota_holds_after_a_departure(void **state)
{
	struct host *h = *state;
	struct vm *a = vm_new(h, "a"), *b = vm_new(h, "b");

	vm_set(a, 0, PAGES, 1);
	vm_set(b, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, a), 0);
	set_left(h, "a", 1000);
	h->st.quota = bytes_of(h, "a") + BYTES(100);
	assert_int_equal(vm_leave(h, b), 0);
	assert_true(bytes_of(h, "a") + bytes_of(h, "b") <= h->st.quota);
	assert_true(bytes_of(h, "a") < BYTES(200) && bytes_of(h, "a") > 0);
	h->st.quota = 0;
	a->departures = 0;
	assert_int_equal(vm_leave(h, a), 0);
	assert_true(store_is_empty(h));
	vm_free(a);
	vm_free(b);
}

/* What a VM has taken is its memory now. */
static void taken_is_not_evicted(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_image image;

	h->st.disk_quota = UINT64_MAX;
	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(evictable(&h->st, NULL), 0);
	h->st.quota = 0;
	assert_int_equal(store_balance(&h->st, UINT64_MAX), 0);
	assert_int_equal(absent_pages(vm, &image), 0);
	h->st.quota = UINT64_MAX;
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_string_equal(place_of(h, "web1"), "memory");
	gw_image_close(&image);
	vm_free(vm);
}

/* In use just now by its owner: left alone, and nobody waits. */
static void locked_is_left_alone(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	int lock;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	lock = gw_image_lock(&h->st, "web1", true);
	assert_true(lock >= 0);
	assert_int_equal(gw_image_lock(&h->st, "web1", false), -EBUSY);
	h->st.quota = 0;
	h->st.disk_quota = UINT64_MAX;
	assert_int_equal(store_balance(&h->st, 0), 0);
	gw_image_sweep(&h->st);
	gw_image_unlock(&h->st, "web1", lock);
	assert_string_equal(place_of(h, "web1"), "memory");
	vm_free(vm);
}

/* By the huge page where there are such: a split one would serve its VM badly. */
static void huge_pages_go_whole(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *kept = gw_path("%s/kept/web1/a", h->ram);
	bool lost[PAGES];
	struct stat st;

	if (!may_mount || mount("unit", h->ram, "tmpfs", 0, "size=64m,huge=always")) {
		vm_free(vm);
		skip();
	}
	/* Most of a's first 2 MiB are of the second departure, b is of the first. */
	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	vm_set(vm, 0, 300, 2);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(stat(kept, &st), 0);
	assert_int_equal(st.st_blksize, 512 * GW_PAGE_SIZE);
	assert_true(store_balance(&h->st, BYTES(1)) >= BYTES(512));
	assert_int_equal(lost_pages(h, vm, lost), 512);
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(lost[page], page < 512);
	vm_free(vm);
	assert_int_equal(umount2(h->ram, MNT_DETACH), 0);
}

/* It goes to disk at once, because memory has no room for any. */
static void leave_to_disk(struct host *h, struct vm *vm)
{
	h->st.quota = 0;
	h->st.disk_quota = UINT64_MAX;
	assert_int_equal(vm_leave(h, vm), 0);
	assert_string_equal(place_of(h, vm->def.name), "disk");
}

static void to_disk_and_back(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *kept = gw_path("%s/kept", h->ram);
	gw_autofree char *memory = gw_path("%s/web1", h->images);
	struct gw_image image;
	struct stat st;
	json_t *list;

	vm_set(vm, 0, 400, 1);
	vm_set(vm, FIRST_B, FIRST_B + 1, 1);
	leave_to_disk(h, vm);
	assert_false(exists(kept) || exists(memory));
	list = gw_image_list(&h->st);
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "place")),
			    "disk");
	json_decref(list);
	assert_true(bytes_of(h, "web1") < BYTES(401)); /* every second page is half zeros */
	assert_int_equal(evictable(&h->st, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(vm_return(h, vm, &image), 0);
		assert_true(image.on_disk);
		assert_int_equal(absent_pages(vm, &image), 0);
		assert_int_equal(stat(vm->paths[0], &st), 0);
		assert_int_equal((uint64_t)st.st_blocks * 512, BYTES(400)); /* holes are holes */
		gw_image_close(&image);
		/* It did not come after all: what lies on disk is still the image. */
		assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
		assert_true(exists(vm->paths[0]));
	}
	assert_int_equal(gw_image_pin(&h->st, "web1", true), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	assert_true(image.pinned && image.on_disk);
	gw_image_close(&image);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_true(store_is_empty(h));
	vm_free(vm);
}

/* Evicted pages are not on disk either, and nothing else is missing. */
static void evicted_then_demoted(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	bool lost[PAGES];

	leave_thrice(h, vm);
	assert_int_equal(store_balance(&h->st, BYTES(100)), BYTES(100));
	h->st.quota = 0;
	h->st.disk_quota = UINT64_MAX;
	assert_true(store_balance(&h->st, 0) >= BYTES(200));
	assert_string_equal(place_of(h, "web1"), "disk");
	assert_int_equal(lost_pages(h, vm, lost), 100);
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(lost[page], page >= 200 && page < 300);
	vm_free(vm);
}

static void flip(const char *path, off_t at)
{
	gw_autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* A later departure leaves one image: what lay on disk is of an older one. */
static void disk_copy_is_replaced(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *old = gw_path("%s/web1", h->disk);

	vm_set(vm, 0, PAGES, 1);
	leave_to_disk(h, vm);
	assert_true(exists(old));
	h->st.quota = UINT64_MAX;
	assert_int_equal(vm_leave(h, vm), 0);
	assert_false(exists(old));
	assert_string_equal(place_of(h, "web1"), "memory");
	vm_free(vm);
}

static void damage_on_disk(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *a = gw_path("%s/web1/a.zst", h->disk);
	gw_autofree char *b = gw_path("%s/web1/b.zst", h->disk);
	gw_autofree char *ledger = gw_path("%s/web1/ledger", h->disk);
	struct rng rng = { 3 };
	bool lost[PAGES];
	struct gw_image image;
	struct stat st;
	size_t nr;

	vm_set(vm, 0, PAGES, 1);
	leave_to_disk(h, vm);
	assert_int_equal(lost_pages(h, vm, lost), 0);
	/* The last byte of a's last chunk, which has five pages. */
	assert_int_equal(stat(a, &st), 0);
	flip(a, st.st_size - 1);
	assert_int_equal(lost_pages(h, vm, lost), 5);
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(lost[page], page >= 512 && page < PAGES_A);
	flip(a, st.st_size - 1);
	/* Anywhere: a chunk, or all of the file if it is the table, and never wrong bytes. */
	for (int i = 0; i < 40; i++) {
		off_t at = (off_t)rng_below(&rng, i % 2 ? 160 : (uint64_t)st.st_size);

		flip(a, at);
		nr = lost_pages(h, vm, lost);
		assert_true(nr == 5 || nr == GW_CHUNK_PAGES || nr == PAGES_A);
		flip(a, at);
	}
	assert_int_equal(lost_pages(h, vm, lost), 0);
	/* Cut short, and gone. */
	assert_int_equal(truncate(a, st.st_size - 1), 0);
	assert_int_equal(lost_pages(h, vm, lost), 5);
	assert_int_equal(truncate(a, 10), 0);
	assert_int_equal(lost_pages(h, vm, lost), PAGES_A);
	assert_int_equal(unlink(b), 0);
	assert_int_equal(lost_pages(h, vm, lost), ALL_DATA);
	flip(ledger, 20);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), -EBADMSG);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOENT);
	assert_true(store_is_empty(h));
	vm_free(vm);
}

static void disk_quota(void **state)
{
	struct host *h = *state;
	struct vm *a = vm_new(h, "a"), *b = vm_new(h, "b");
	uint64_t one;

	vm_set(a, 0, PAGES, 1);
	vm_set(b, 0, PAGES, 1);
	leave_to_disk(h, a);
	set_left(h, "a", 1000);
	one = bytes_of(h, "a");
	/* Both do not fit: the older one makes room. */
	h->st.disk_quota = one + one / 2;
	assert_int_equal(vm_leave(h, b), 0);
	assert_string_equal(place_of(h, "a"), "none");
	assert_string_equal(place_of(h, "b"), "disk");
	/* None fits, so it is evicted from memory instead. */
	h->st.disk_quota = one / 2;
	a->departures = 0;
	assert_int_equal(vm_leave(h, a), 0);
	assert_string_equal(place_of(h, "a"), "none");
	assert_string_equal(place_of(h, "b"), "none");
	/* A pinned one on disk takes room from the others. */
	h->st.disk_quota = UINT64_MAX;
	b->departures = 0;
	assert_int_equal(vm_leave(h, b), 0);
	assert_int_equal(gw_image_pin(&h->st, "b", true), 0);
	h->st.disk_quota = one + one / 2;
	h->st.quota = BYTES(100);
	a->departures = 0;
	assert_int_equal(vm_leave(h, a), 0);
	assert_string_equal(place_of(h, "a"), "memory");
	assert_true(bytes_of(h, "a") <= BYTES(100));
	assert_string_equal(place_of(h, "b"), "disk");
	vm_free(a);
	vm_free(b);
}

static void full_disk(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *left = gw_path("%s/web1", h->disk);
	bool lost[PAGES];

	assert_int_equal(gw_own_mkdirs(h->disk), 0);
	if (!may_mount || mount("unit", h->disk, "tmpfs", 0, "size=1m")) {
		vm_free(vm);
		skip();
	}
	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	h->st.disk_quota = UINT64_MAX;
	/* Pages go instead, as many as are needed. */
	assert_int_equal(store_balance(&h->st, BYTES(100)), BYTES(100));
	assert_false(exists(left));
	assert_string_equal(place_of(h, "web1"), "memory");
	assert_int_equal(lost_pages(h, vm, lost), 100);
	vm_free(vm);
	assert_int_equal(umount(h->disk), 0);
}

/* No room in memory for what lies on disk: it stays there. */
static void full_memory(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_image image;

	vm_set(vm, 0, PAGES, 1);
	leave_to_disk(h, vm);
	if (!may_mount || mount("unit", h->ram, "tmpfs", 0, "size=1m,huge=never")) {
		vm_free(vm);
		skip();
	}
	assert_int_equal(vm_return(h, vm, &image), -ENOSPC);
	assert_false(exists(vm->paths[0]) || exists(vm->paths[1]));
	assert_int_equal(umount(h->ram), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(absent_pages(vm, &image), 0);
	gw_image_close(&image);
	vm_free(vm);
}

/* Copying to disk takes long; an image that is wanted meanwhile stays where it is. */
static void demotion_is_overtaken(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *left = gw_path("%s/web1", h->disk);
	struct gw_image old, image;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(gw_manifest_find(&h->st, "web1", &old), 0);
	assert_int_equal(gw_image_pin(&h->st, "web1", true), 0);
	assert_int_equal(gw_image_demote(&h->st, &old, UINT64_MAX, GW_FOREVER), -ESTALE);
	assert_int_equal(gw_image_pin(&h->st, "web1", false), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	gw_image_close(&image);
	assert_int_equal(gw_image_demote(&h->st, &old, UINT64_MAX, GW_FOREVER), -ENOENT);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_int_equal(gw_image_demote(&h->st, &old, UINT64_MAX, GW_FOREVER), -ENOENT);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(gw_image_demote(&h->st, &old, UINT64_MAX, GW_FOREVER), -ESTALE);
	assert_false(exists(left));
	assert_string_equal(place_of(h, "web1"), "memory");
	assert_int_equal(gw_manifest_find(&h->st, "web1", &old), 0);
	assert_int_equal(gw_image_demote(&h->st, &old, BYTES(10), GW_FOREVER), -ENOSPC);
	assert_false(exists(left));
	assert_int_equal(gw_image_demote(&h->st, &old, UINT64_MAX, GW_FOREVER), 0);
	assert_string_equal(place_of(h, "web1"), "disk");
	vm_free(vm);
}

static int balance(const struct host *h, struct vm *vm)
{
	(void)vm;
	store_balance(&h->st, 0);
	return 0;
}

/* In memory or on disk, it is somewhere. */
static void killed_as_it_is_demoted(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed, lost[PAGES];

	some_pages(vm);
	h->st.disk_quota = UINT64_MAX;
	do {
		h->st.quota = UINT64_MAX;
		vm->departures = 0;
		assert_int_equal(vm_leave(h, vm), 0);
		h->st.quota = 0;
		killed = killed_at(n++, balance, h, vm);
		if (n % 2)
			gw_image_sweep(&h->st); /* or not: it makes no difference */
		assert_int_equal(lost_pages(h, vm, lost), 0);
		vm_remove(vm);
		gw_image_sweep(&h->st);
		assert_int_equal(lost_pages(h, vm, lost), 0);
		vm_remove(vm);
		assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
		assert_true(store_is_empty(h));
	} while (killed);
	assert_true(n > 60);
	vm_free(vm);
}

static int come_from_disk(const struct host *h, struct vm *vm)
{
	struct gw_image image;
	int rc = vm_return(h, vm, &image);

	gw_image_close(&image);
	return rc ? rc : gw_image_give_back(&h->st, vm->def.name, vm->paths);
}

static void killed_as_it_is_promoted(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed, lost[PAGES];

	some_pages(vm);
	leave_to_disk(h, vm);
	do {
		killed = killed_at(n++, come_from_disk, h, vm);
		gw_image_sweep(&h->st);
		assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
		vm_remove(vm);
		assert_int_equal(lost_pages(h, vm, lost), 0);
		vm_remove(vm);
	} while (killed);
	assert_true(n > 40);
	vm_free(vm);
}

/* Each page evicted, or none: what was punched is absent, the rest is there. */
static void killed_as_pages_are_evicted(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed, lost[PAGES];

	some_pages(vm);
	do {
		int64_t quota;

		h->st.quota = UINT64_MAX;
		vm->departures = 0;
		assert_int_equal(vm_leave(h, vm), 0);
		quota = (int64_t)bytes_of(h, "web1") - (int64_t)BYTES(2);
		h->st.quota = (uint64_t)quota;
		killed = killed_at(n++, balance, h, vm);
		assert_true(lost_pages(h, vm, lost) <= 2);
		assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
		vm_remove(vm);
		assert_true(store_is_empty(h));
	} while (killed);
	assert_true(n > 40);
	vm_free(vm);
}

/* Unless the image is locked just then, its VM comes, and the guest writes to a page. */
static bool came, from_memory;

static void vm_comes(const struct host *h, struct vm *vm)
{
	static uint8_t buf[GW_PAGE_SIZE];
	struct gw_image image;
	struct gw_ram ram;
	int lock = gw_image_lock(&h->st, vm->def.name, false);

	came = false;
	if (lock < 0)
		return;
	gw_image_unlock(&h->st, vm->def.name, lock);
	if (vm_return(h, vm, &image))
		return; /* it is gone: evicted */
	came = true;
	from_memory = !image.on_disk;
	gw_image_close(&image);
	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	for (size_t page = 0; page < PAGES; page++) {
		if (!vm->version[page])
			continue;
		vm->version[page] = 9;
		page_content(vm, page, buf);
		assert_int_equal(gw_memory_write(&ram.memory, page, 1, buf), 0);
	}
	gw_ram_close(&ram);
}

/* Whatever a balance was about to do: not a byte of the VM's memory changes any more. */
static void memory_of_a_vm_is_left_alone(struct host *h, uint64_t disk_quota)
{
	static uint8_t want[GW_PAGE_SIZE];
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0, times = 0;
	struct gw_ram ram;
	bool more;

	h->st.disk_quota = disk_quota;
	do {
		some_pages(vm);
		h->st.quota = UINT64_MAX;
		assert_int_equal(vm_leave(h, vm), 0);
		h->st.quota = disk_quota ? 0 : bytes_of(h, "web1") - BYTES(2);
		more = overtaken_at(n++, balance, h, vm, vm_comes);
		if (more && came) {
			times++;
			assert_int_equal(vm_ram(vm, &ram, 0), 0);
			for (size_t page = 0; page < PAGES; page++) {
				page_content(vm, page, want);
				assert_memory_equal(memory_at(&ram, page), want, GW_PAGE_SIZE);
			}
			gw_ram_close(&ram);
			/* It may still fail to arrive, and what it took is the image again. */
			assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
			assert_int_equal(exists(vm->paths[0]), !from_memory);
		}
		assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
		assert_true(store_is_empty(h));
		vm_remove(vm);
	} while (more);
	assert_true(times > 20);
	vm_free(vm);
}

static void eviction_is_overtaken(void **state)
{
	memory_of_a_vm_is_left_alone(*state, 0);
}

static void copying_is_overtaken(void **state)
{
	memory_of_a_vm_is_left_alone(*state, UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(what_changes_goes_first),
		host_test(zeros_go_before_all),
		host_test(oldest_goes_first),
		host_test(quota_holds_after_a_departure),
		host_test(taken_is_not_evicted),
		host_test(locked_is_left_alone),
		host_test(huge_pages_go_whole),
		host_test(to_disk_and_back),
		host_test(evicted_then_demoted),
		host_test(disk_copy_is_replaced),
		host_test(damage_on_disk),
		host_test(disk_quota),
		host_test(full_disk),
		host_test(full_memory),
		host_test(demotion_is_overtaken),
		host_test(killed_as_it_is_demoted),
		host_test(killed_as_it_is_promoted),
		host_test(killed_as_pages_are_evicted),
		host_test(eviction_is_overtaken),
		host_test(copying_is_overtaken),
	};

	/* Mounts of our own, which nobody else sees and which end with us. */
	may_mount = !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
