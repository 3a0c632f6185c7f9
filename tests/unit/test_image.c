// SPDX-License-Identifier: GPL-2.0-or-later
/* test_image.c - what a VM leaves on a host, and what it finds there when it comes back. */
#include "store.h"

#include "killed.h"

static void kept_and_taken(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *kept = gw_path("%s/kept/web1/a", h->ram);
	gw_autofree char *folder = gw_path("%s/kept", h->ram);
	struct gw_image image;
	struct stat before, after;
	uint8_t id[GW_ID_LEN];

	vm_set(vm, 0, PAGES, 1);
	vm_set(vm, 10, 20, 0);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_false(exists(vm->paths[0]));
	assert_int_equal(stat(folder, &before), 0);
	assert_int_equal(before.st_mode & 0777, 0700);
	assert_int_equal(stat(kept, &before), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	memset(id, 1, sizeof(id));
	assert_memory_equal(image.id, id, GW_ID_LEN);
	assert_int_equal(image.departure, 1);
	assert_true(image.left > 1000000000);
	assert_false(image.pinned || image.on_disk || image.discards);
	assert_true(image.bytes >= (ALL_DATA - 10) * GW_PAGE_SIZE);
	assert_true(gw_image_fits(&image, &vm->def));
	assert_int_equal(gw_image_take(&h->st, &image, vm->paths, GW_FOREVER), 0);
	/* The very file, not a copy. */
	assert_int_equal(stat(vm->paths[0], &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_false(exists(folder));
	assert_int_equal(absent_pages(vm, &image), 0);
	gw_image_close(&image);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_true(exists(vm->paths[0]) && exists(vm->paths[1]));
	assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOENT);
	assert_true(store_is_empty(h));
	vm_free(vm);
}

static void given_back(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	static uint8_t page[GW_PAGE_SIZE];
	struct gw_image image;
	struct gw_ram ram;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	/* The arrival overwrote two pages and punched one, and failed. */
	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	memset(page, 'x', sizeof(page));
	assert_int_equal(gw_memory_write(&ram.memory, 7, 1, page), 0);
	assert_int_equal(gw_memory_write(&ram.memory, FIRST_B, 1, page), 0);
	assert_int_equal(gw_memory_punch(&ram.memory, 100, 1), 0);
	gw_ram_close(&ram);
	gw_image_close(&image);
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_false(exists(vm->paths[0]) || exists(vm->paths[1]));
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(absent_pages(vm, &image), 3);
	gw_image_close(&image);
	vm_free(vm);
}

/* Only what was taken is given back: not the new files of a VM that did not use its image. */
static void nothing_else_is_given_back(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_image image;
	struct gw_ram ram;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(vm_ram(vm, &ram, O_CREAT), 0); /* two empty ones */
	gw_ram_close(&ram);
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_true(exists(vm->paths[0]) && exists(vm->paths[1]));
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(absent_pages(vm, &image), 0);
	/* Taken, but of another size now; and a list that ends early. */
	assert_int_equal(truncate(vm->paths[0], GW_PAGE_SIZE), 0);
	free(gw_steal(vm->paths[1]));
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_true(exists(vm->paths[0]));
	gw_image_close(&image);
	/* Without a manifest nothing is touched. */
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_int_equal(truncate(vm->paths[0], PAGES_A * GW_PAGE_SIZE), 0);
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_true(exists(vm->paths[0]));
	vm_free(vm);
}

static void others_do_not_fit(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_definition other;
	struct gw_image image;

	vm_set(vm, 0, 4, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	assert_true(gw_image_fits(&image, &vm->def));
	other = vm->def;
	other.memory[1].size += GW_PAGE_SIZE;
	assert_false(gw_image_fits(&image, &other));
	other = vm->def;
	other.memory[0].id[0] = 'c';
	assert_false(gw_image_fits(&image, &other));
	other = vm->def;
	other.nr_memory = 1;
	assert_false(gw_image_fits(&image, &other));
	other = vm->def;
	other.discards = true; /* its RAM files lie on another file system */
	assert_false(gw_image_fits(&image, &other));
	gw_image_close(&image);
	vm_free(vm);
}

static void names_are_checked(void **state)
{
	static const char *const bad[] = { "", ".", "..", ".lock", "../x", "a/b", NULL };
	char *const paths[] = { NULL };
	struct host *h = *state;
	struct gw_ledger ledger;
	struct gw_image image;

	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(gw_image_begin(&h->st, bad[i], 1, &ledger), -EINVAL);
		assert_int_equal(gw_image_load(&h->st, bad[i], &image), -EINVAL);
		assert_int_equal(gw_image_drop(&h->st, bad[i]), -EINVAL);
		assert_int_equal(gw_image_pin(&h->st, bad[i], true), -EINVAL);
		assert_int_equal(gw_image_give_back(&h->st, bad[i], paths), -EINVAL);
	}
	assert_false(exists(h->images));
}

/* Where there can be no folder there is no image, and nobody waits for one. */
static void no_place_for_images(void **state)
{
	struct host *h = *state;
	struct gw_ledger ledger;
	struct gw_image image;

	assert_int_equal(gw_write_file(h->images, "a file"), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOTDIR);
	assert_int_equal(gw_image_begin(&h->st, "web1", 1, &ledger), -ENOTDIR);
	assert_int_equal(gw_image_drop(&h->st, "web1"), -ENOTDIR);
	assert_int_equal(store_balance(&h->st, 1), 0);
	gw_image_sweep(&h->st);
	assert_int_equal(evictable(&h->st, NULL), 0);
}

/* Whatever does not belong together is no image, and is removed. */
static void damaged_manifest(void **state)
{
	static const char *const fields[] = { "format",	  "name",   "id",    "departure", "left",
					      "discards", "pinned", "place", "memory" };
	static const char *const texts[] = {
		"", "null", "[]", "{}", "7",
	};
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *path = gw_path("%s/web1/manifest.json", h->images);
	gw_autofree char *good = NULL;
	struct gw_image image;

	vm_set(vm, 0, 4, 1);
	for (size_t i = 0; i < GW_ARRAY_SIZE(fields) * 2 + GW_ARRAY_SIZE(texts) + 6; i++) {
		gw_autofree char *text = NULL;
		json_t *json;

		vm->departures = 0;
		assert_int_equal(vm_leave(h, vm), 0);
		free(gw_steal(good));
		good = gw_read_file(path, 1 << 16, NULL);
		json = json_loads(good, 0, NULL);
		assert_non_null(json);
		if (i < GW_ARRAY_SIZE(fields)) {
			json_object_del(json, fields[i]);
		} else if (i < GW_ARRAY_SIZE(fields) * 2) {
			json_object_set_new(json, fields[i - GW_ARRAY_SIZE(fields)], json_array());
		} else if (i < GW_ARRAY_SIZE(fields) * 2 + GW_ARRAY_SIZE(texts)) {
			json_decref(json);
			json = json_loads(texts[i - GW_ARRAY_SIZE(fields) * 2], JSON_DECODE_ANY,
					  NULL);
		} else {
			const char *name[] = { "format", "departure", "name",
					       "place",	 "id",	      "memory" };
			json_t *to[] = { json_integer(2),
					 json_integer(2),
					 json_string("web2"),
					 json_string("disk"),
					 json_string("02020202020202020202020202020202"),
					 json_pack("[{s:s,s:i},{s:s,s:i}]", "id", "../a", "size",
						   4096, "id", "b", "size", 4096) };
			size_t k = i - GW_ARRAY_SIZE(fields) * 2 - GW_ARRAY_SIZE(texts);

			for (size_t n = 0; n < GW_ARRAY_SIZE(to); n++)
				if (n == k)
					json_object_set_new(json, name[n], to[n]);
				else
					json_decref(to[n]);
		}
		text = json ? json_dumps(json, JSON_ENCODE_ANY) : strdup("{");
		json_decref(json);
		assert_int_equal(gw_write_file(path, text), 0);
		if (gw_image_load(&h->st, "web1", &image) != -EBADMSG)
			fail_msg("accepted: %s", text);
		assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOENT);
		assert_true(store_is_empty(h));
	}
	vm_free(vm);
}

static void damaged_ledger(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *path = gw_path("%s/web1/ledger", h->images);
	struct gw_image image;

	vm_set(vm, 0, 4, 1);
	for (int way = 0; way < 3; way++) {
		struct stat st;

		vm->departures = 0;
		assert_int_equal(vm_leave(h, vm), 0);
		assert_int_equal(stat(path, &st), 0);
		if (way == 0) {
			gw_autofd int fd = open(path, O_WRONLY);

			assert_int_equal(pwrite(fd, "!", 1, st.st_size - 1), 1);
		} else if (way == 1) {
			assert_int_equal(truncate(path, st.st_size - 1), 0);
		} else {
			assert_int_equal(unlink(path), 0);
		}
		assert_int_equal(gw_image_load(&h->st, "web1", &image), -EBADMSG);
		assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOENT);
		assert_true(store_is_empty(h));
	}
	vm_free(vm);
}

/* Its pages are compared one by one, so damage costs just them. */
static void damaged_ram_file(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *a = gw_path("%s/kept/web1/a", h->ram);
	gw_autofree char *b = gw_path("%s/kept/web1/b", h->ram);
	gw_autofd int fd = -1;
	struct gw_image image;

	vm_set(vm, 0, PAGES, 1);
	vm_set(vm, 30, 40, 0);
	assert_int_equal(vm_leave(h, vm), 0);
	fd = open(a, O_RDWR);
	assert_int_equal(pwrite(fd, "!", 1, 5 * GW_PAGE_SIZE - 1), 1);
	assert_int_equal(pwrite(fd, "!", 1, 35 * GW_PAGE_SIZE), 1); /* was zero */
	assert_int_equal(truncate(b, 0), 0);
	assert_int_equal(truncate(b, PAGES_B * GW_PAGE_SIZE), 0);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(absent_pages(vm, &image), 2 + PAGES_B);
	gw_image_close(&image);
	vm_free(vm);
}

static void lost_ram_file(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	gw_autofree char *b = gw_path("%s/kept/web1/b", h->ram);
	struct gw_image image;

	vm_set(vm, 0, PAGES, 1);
	for (int way = 0; way < 2; way++) {
		vm->departures = 0;
		assert_int_equal(vm_leave(h, vm), 0);
		assert_int_equal(way ? unlink(b) : truncate(b, GW_PAGE_SIZE), 0);
		assert_int_equal(vm_return(h, vm, &image), -EBADMSG);
		assert_false(exists(vm->paths[0]) || exists(vm->paths[1]));
		assert_int_equal(gw_image_load(&h->st, "web1", &image), -ENOENT);
		assert_true(store_is_empty(h));
	}
	vm_free(vm);
}

/* Between load and take another process may have removed it, or a later one lie there. */
static void gone_since_loaded(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_image image;

	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	assert_int_equal(vm_leave(h, vm), 0);
	assert_int_equal(gw_image_take(&h->st, &image, vm->paths, GW_FOREVER), -ENOENT);
	assert_false(exists(vm->paths[0]));
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_int_equal(gw_image_take(&h->st, &image, vm->paths, GW_FOREVER), -ENOENT);
	gw_image_close(&image);
	vm_free(vm);
}

static void failed_departure_leaves_nothing(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_ledger ledger;
	struct gw_ram ram;
	const uint8_t id[GW_ID_LEN] = { 7 };
	int way;

	for (way = 0; way < 3; way++) {
		assert_int_equal(vm_ram(vm, &ram, O_CREAT), 0);
		gw_ram_close(&ram);
		assert_int_equal(gw_image_begin(&h->st, "web1", way == 1 ? 1 : PAGES, &ledger), 0);
		if (way)
			gw_ledger_add(&ledger, id); /* else there was no departure */
		if (way == 2)
			assert_int_equal(unlink(vm->paths[1]), 0);
		assert_int_equal(gw_image_finish(&h->st, &vm->def, vm->paths, &ledger),
				 way == 2 ? -ENOENT : -EINVAL);
		assert_false(exists(vm->paths[0]) || exists(vm->paths[1]));
		assert_true(store_is_empty(h));
	}
	vm_free(vm);
}

static void pinned_and_listed(void **state)
{
	struct host *h = *state;
	struct vm *web = vm_new(h, "web1"), *db = vm_new(h, "db");
	struct gw_image image;
	json_t *list, *one;

	list = gw_image_list(&h->st);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	vm_set(web, 0, PAGES, 1);
	vm_set(db, 0, 4, 1);
	assert_int_equal(vm_leave(h, db), 0);
	assert_int_equal(vm_leave(h, web), 0);
	assert_int_equal(gw_image_pin(&h->st, "none", true), -ENOENT);
	assert_int_equal(gw_image_pin(&h->st, "web1", true), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	assert_true(image.pinned);
	list = gw_image_list(&h->st);
	assert_int_equal(json_array_size(list), 2);
	for (size_t i = 0; i < 2; i++) {
		bool is_web;

		one = json_array_get(list, i);
		is_web = !strcmp(json_string_value(json_object_get(one, "name")), "web1");
		assert_int_equal(json_is_true(json_object_get(one, "pinned")), is_web);
		assert_string_equal(json_string_value(json_object_get(one, "place")), "memory");
		assert_int_equal(json_integer_value(json_object_get(one, "departure")), 1);
		assert_int_equal(json_integer_value(json_object_get(one, "memory")),
				 ALL_DATA * GW_PAGE_SIZE);
		if (is_web)
			assert_int_equal(json_integer_value(json_object_get(one, "bytes")),
					 image.bytes);
	}
	json_decref(list);
	gw_image_close(&image);
	assert_int_equal(gw_image_pin(&h->st, "web1", false), 0);
	assert_int_equal(gw_image_load(&h->st, "web1", &image), 0);
	assert_false(image.pinned);
	gw_image_close(&image);
	vm_free(web);
	vm_free(db);
}

/* What a killed process left goes; what is in the making or taken stays. */
static void garbage_is_swept(void **state)
{
	struct host *h = *state;
	struct vm *taken = vm_new(h, "taken"), *kept = vm_new(h, "kept"), *lost = vm_new(h, "lost");
	gw_autofree char *folder = gw_path("%s/kept/orphan", h->ram);
	gw_autofree char *orphan = gw_path("%s/a", folder);
	gw_autofree char *small = gw_path("%s/kept/orphan", h->small);
	gw_autofree char *half = gw_path("%s/half", h->images);
	gw_autofree char *ledger_of_half = gw_path("%s/ledger.new", half);
	gw_autofree char *on_disk = gw_path("%s/half", h->disk);
	gw_autofree char *on_disk_too = gw_path("%s/kept", h->disk);
	struct gw_image image;
	struct gw_ledger ledger;

	vm_set(taken, 0, PAGES, 1);
	vm_set(kept, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, taken), 0);
	assert_int_equal(vm_leave(h, kept), 0);
	assert_int_equal(vm_leave(h, lost), 0);
	assert_int_equal(vm_return(h, taken, &image), 0);
	gw_image_close(&image);
	assert_int_equal(vm_return(h, lost, &image), 0);
	gw_image_close(&image);
	unlink(lost->paths[0]); /* that VM has ended */
	unlink(lost->paths[1]);
	assert_int_equal(gw_image_begin(&h->st, "making", 1, &ledger), 0);
	assert_int_equal(gw_own_mkdirs(folder), 0);
	assert_int_equal(gw_write_file(orphan, "memory"), 0);
	assert_int_equal(gw_own_mkdirs(small), 0);
	assert_int_equal(gw_own_mkdirs(half), 0);
	assert_int_equal(gw_write_file(ledger_of_half, "x"), 0);
	assert_int_equal(gw_own_mkdirs(on_disk), 0);
	assert_int_equal(gw_own_mkdirs(on_disk_too), 0);

	gw_image_sweep(&h->st);
	assert_false(exists(folder) || exists(small) || exists(half) || exists(on_disk) ||
		     exists(on_disk_too));
	assert_int_equal(gw_image_load(&h->st, "lost", &image), -ENOENT);
	assert_int_equal(gw_image_give_back(&h->st, "taken", taken->paths), 0);
	assert_int_equal(vm_return(h, taken, &image), 0);
	assert_int_equal(absent_pages(taken, &image), 0);
	gw_image_close(&image);
	assert_int_equal(vm_return(h, kept, &image), 0);
	assert_int_equal(absent_pages(kept, &image), 0);
	gw_image_close(&image);
	assert_int_equal(gw_ledger_seal(&ledger), 0); /* its folder is there */
	gw_ledger_close(&ledger);
	gw_image_sweep(&h->st); /* nobody makes it now */
	assert_int_equal(gw_image_drop(&h->st, "taken"), 0);
	assert_int_equal(gw_image_drop(&h->st, "kept"), 0);
	assert_true(store_is_empty(h));
	vm_free(taken);
	vm_free(kept);
	vm_free(lost);
}

/* It loads and every page is there, or nothing at all is left of it. */
static void whole_or_nothing(struct host *h, struct vm *vm)
{
	struct gw_image image;
	int rc;

	gw_image_sweep(&h->st);
	rc = vm_return(h, vm, &image);
	if (rc == 0) {
		assert_int_equal(absent_pages(vm, &image), 0);
		gw_image_close(&image);
		assert_int_equal(gw_image_drop(&h->st, vm->def.name), 0);
	} else {
		assert_int_equal(rc, -ENOENT);
	}
	assert_true(store_is_empty(h));
	vm_remove(vm);
}

static int leave(const struct host *h, struct vm *vm)
{
	return vm_leave(h, vm);
}

static void killed_as_it_leaves(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed;

	do {
		some_pages(vm);
		killed = killed_at(n++, leave, h, vm);
		some_pages(vm);
		whole_or_nothing(h, vm);
	} while (killed);
	assert_true(n > 40);
	vm_free(vm);
}

/* With an older image of its own in the way: that one, the new one, or none. */
static void killed_as_it_leaves_again(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	struct gw_image image;
	unsigned int n = 0;
	bool killed;

	do {
		int rc;

		some_pages(vm);
		assert_int_equal(vm_leave(h, vm), 0);
		vm_set(vm, 0, 1, 2);
		killed = killed_at(n++, leave, h, vm);
		gw_image_sweep(&h->st);
		rc = gw_image_load(&h->st, "web1", &image);
		if (!rc && image.departure == 1)
			vm_set(vm, 0, 1, 1);
		if (!rc)
			gw_image_close(&image);
		whole_or_nothing(h, vm);
	} while (killed);
	assert_true(n > 40);
	vm_free(vm);
}

static int come_and_go(const struct host *h, struct vm *vm)
{
	struct gw_image image;
	int rc = vm_return(h, vm, &image);

	gw_image_close(&image);
	return rc ? rc : gw_image_give_back(&h->st, vm->def.name, vm->paths);
}

/* Whoever puts it right gives back what was taken: nothing is lost. */
static void killed_as_it_comes(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed;

	some_pages(vm);
	assert_int_equal(vm_leave(h, vm), 0);
	do {
		struct gw_image image;

		killed = killed_at(n++, come_and_go, h, vm);
		gw_image_sweep(&h->st);
		assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
		assert_false(exists(vm->paths[0]) || exists(vm->paths[1]));
		assert_int_equal(vm_return(h, vm, &image), 0);
		assert_int_equal(absent_pages(vm, &image), 0);
		gw_image_close(&image);
		assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	} while (killed);
	assert_true(n > 40);
	vm_free(vm);
}

static int drop_it(const struct host *h, struct vm *vm)
{
	return gw_image_drop(&h->st, vm->def.name);
}

static void killed_as_it_is_dropped(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;
	bool killed;

	do {
		some_pages(vm);
		assert_int_equal(vm_leave(h, vm), 0);
		killed = killed_at(n++, drop_it, h, vm);
		whole_or_nothing(h, vm);
	} while (killed);
	assert_true(n > 10);
	vm_free(vm);
}

/* Whoever has the lock has the file that others will find. */
static int lock_it(const struct host *h, struct vm *vm)
{
	gw_autofree char *path = gw_path("%s/%s/lock", h->images, vm->def.name);
	int lock = gw_image_lock(&h->st, vm->def.name, true);
	struct stat held, named;

	return lock < 0 || fstat(lock, &held) || stat(path, &named) || held.st_ino != named.st_ino;
}

static void lock_and_unlock(const struct host *h, struct vm *vm)
{
	gw_autofree char *path = gw_path("%s/%s/lock", h->images, vm->def.name);
	int lock = gw_image_lock(&h->st, vm->def.name, false);

	if (lock < 0)
		return;
	gw_image_unlock(&h->st, vm->def.name, lock);
	/* And another file by that name, which the next holder has just made. */
	lock = gw_image_lock(&h->st, vm->def.name, false);
	assert_true(lock >= 0);
	close(lock);
	assert_true(exists(path));
}

static void lock_is_for_one(void **state)
{
	struct host *h = *state;
	struct vm *vm = vm_new(h, "web1");
	unsigned int n = 0;

	while (overtaken_at(n, lock_it, h, vm, lock_and_unlock))
		n++;
	assert_true(n > 10);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	assert_true(store_is_empty(h));
	vm_free(vm);
}

/* One VM's image is no other's, wherever it lies, and no file of it is one of ours. */
static void images_never_meet(void **state)
{
	static const char *const ids[] = { "ledger", "manifest.json", "lock", "ledger.new", "b.c" };
	struct host *h = *state;
	struct gw_image one = { .name = "a.b", .nr_memory = 1 },
			other = { .name = "a", .nr_memory = 5 };
	gw_autofree char *dir = gw_image_dir(&h->st, "a"), *of = gw_image_dir(&h->st, "a.b");
	gw_autofree char *path = NULL;

	snprintf(one.memory[0].id, sizeof(one.memory[0].id), "c");
	path = gw_image_kept_path(&h->st, &one, 0);
	assert_string_not_equal(dir, of);
	for (unsigned int i = 0; i < other.nr_memory; i++) {
		gw_autofree char *kept = NULL;

		snprintf(other.memory[i].id, sizeof(other.memory[i].id), "%s", ids[i]);
		kept = gw_image_kept_path(&h->st, &other, i);
		assert_string_not_equal(kept, path);
		assert_true(strncmp(kept, dir, strlen(dir)) != 0);
		assert_false(gw_name_ok(".lock") || gw_name_ok(".demotion"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(kept_and_taken),
		host_test(given_back),
		host_test(nothing_else_is_given_back),
		host_test(others_do_not_fit),
		host_test(names_are_checked),
		host_test(no_place_for_images),
		host_test(damaged_manifest),
		host_test(damaged_ledger),
		host_test(damaged_ram_file),
		host_test(lost_ram_file),
		host_test(gone_since_loaded),
		host_test(failed_departure_leaves_nothing),
		host_test(pinned_and_listed),
		host_test(images_never_meet),
		host_test(garbage_is_swept),
		host_test(lock_is_for_one),
		host_test(killed_as_it_leaves),
		host_test(killed_as_it_leaves_again),
		host_test(killed_as_it_comes),
		host_test(killed_as_it_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
