// SPDX-License-Identifier: GPL-2.0-or-later
/* test_budget.c - memory is promised once, and images give way to guests before these need it. */
#include "store.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "budget.h"
#include "promise.h"
#include "serve.h"
#include "vm_folder.h"
#include "worker.h"

#define BYTES(pages) ((uint64_t)(pages)*GW_PAGE_SIZE)
#define LIMIT	     2000 /* pages of memory that the host has for VMs */

static bool may_mount;

struct site {
	struct host *h;
	struct gw_paths paths;
};

static void site_open(struct site *s, struct host *h)
{
	memset(s, 0, sizeof(*s));
	s->h = h;
	assert_int_equal(gw_paths_init(&s->paths, h->root), 0);
	assert_int_equal(gw_paths_ram(&s->paths, NULL, BYTES(LIMIT)), 0);
	free(h->images);
	free(h->ram);
	free(h->small);
	h->images = strdup(s->paths.images);
	h->ram = strdup(s->paths.ram);
	h->small = strdup(s->paths.ram_small);
	h->st = s->paths.store;
}

static void site_close(struct site *s)
{
	assert_int_equal(umount2(s->paths.ram, MNT_DETACH), 0);
	assert_int_equal(umount2(s->paths.ram_small, MNT_DETACH), 0);
	gw_paths_free(&s->paths);
}

/*
 * A VM that comes here, with @resident pages in use: folder, lock, record. Return: the
 * lock, or what gw_budget_reserve() says.
 */
static int arrive(const struct site *s, const char *name, uint64_t pages, uint64_t resident,
		  bool discards)
{
	struct gw_vm vm = { 0 };
	int lock = gw_vm_claim(&s->paths, "here", name), rc;

	if (lock < 0)
		return lock;
	snprintf(vm.def.name, sizeof(vm.def.name), "%s", name);
	vm.def.argv = json_pack("[s]", "qemu-system-fake");
	vm.def.cwd = strdup("/");
	vm.def.discards = discards;
	snprintf(vm.def.memory[0].id, GW_MEMORY_ID_MAX, "ram");
	vm.def.memory[0].size = BYTES(pages);
	vm.def.nr_memory = 1;
	vm.qmp = strdup("/none");
	rc = gw_budget_reserve(&s->paths, "here", &vm, BYTES(resident));
	if (!rc) {
		struct gw_ram ram = { 0 };

		gw_budget_make_room(&s->paths, GW_FOREVER);
		rc = gw_vm_make_ram(&s->paths, &vm.def, false, &ram);
		gw_ram_close(&ram);
	}
	if (rc) {
		gw_autofree char *why = strdup(gw_error());

		gw_vm_remove(&s->paths, &vm.def, false);
		gw_fail(rc, "%s", why);
		close(lock);
		lock = rc;
	}
	gw_vm_free(&vm);
	return lock;
}

static int come(const struct site *s, const char *name, uint64_t pages, bool discards)
{
	return arrive(s, name, pages, 0, discards);
}

static void go(const struct site *s, const char *name, int lock)
{
	struct gw_vm vm;

	assert_int_equal(gw_vm_load(&s->paths, name, &vm), 0);
	assert_int_equal(gw_vm_remove(&s->paths, &vm.def, false), 0);
	gw_vm_free(&vm);
	close(lock);
}

/* The guest writes all of its pages in [first, end). 0 or -errno: -ENOSPC kills a guest. */
static int touch(const struct site *s, const char *name, uint64_t first, uint64_t end)
{
	static const uint8_t page[GW_PAGE_SIZE] = { 1 };
	gw_autofree char *path = NULL;
	gw_autofd int fd = -1;
	struct gw_vm vm;
	int rc = 0;

	assert_int_equal(gw_vm_load(&s->paths, name, &vm), 0);
	path = gw_vm_ram_path(&s->paths, &vm.def, 0);
	gw_vm_free(&vm);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (uint64_t i = first; !rc && i < end; i++)
		rc = gw_pwrite_all(fd, page, sizeof(page), (off_t)BYTES(i));
	return rc;
}

/* An image of ALL_DATA pages, small ones: they go one by one. */
static struct vm *leave_image(const struct site *s, const char *name)
{
	struct vm *vm = vm_new(s->h, name);

	vm->def.discards = true;
	for (unsigned int i = 0; i < vm->def.nr_memory; i++) {
		free(vm->paths[i]);
		vm->paths[i] = gw_vm_ram_path(&s->paths, &vm->def, i);
	}
	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(s->h, vm), 0);
	return vm;
}

static uint64_t images(const struct site *s)
{
	return gw_image_held(&s->paths.store, NULL, NULL, false) +
	       gw_image_held(&s->paths.store, NULL, NULL, true);
}

/* Full size counts from the record on, whatever is used; both folders are one host. */
static void promises_add_up(void **state)
{
	struct site s;
	int a, b;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(LIMIT));
	a = come(&s, "a", 1200, false);
	assert_true(a >= 0);
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(LIMIT - 1200));
	assert_int_equal(come(&s, "b", 801, true), -ENOMEM);
	assert_message("host 'here' has 3.1 MiB of memory for another VM, 'b' needs 3.1 MiB (other "
		       "VMs there were promised 4.7 MiB, pinned images hold 0 ");
	b = come(&s, "b", 800, true);
	assert_true(b >= 0);
	assert_int_equal(gw_budget_free(&s.paths, NULL), 0);
	assert_int_equal(touch(&s, "a", 0, 1200), 0);
	assert_int_equal(touch(&s, "b", 0, 800), 0);
	go(&s, "a", a);
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(1200));
	/* Whoever died between the record and the RAM files promised it, too. */
	go(&s, "b", b);
	site_close(&s);
}

/* One wins, whoever that is. */
static void two_that_fit_singly(void **state)
{
	struct site s;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	for (int n = 0; n < 20; n++) {
		int go_on[2], winners = 0, status, lock;

		assert_int_equal(pipe(go_on), 0);
		for (int i = 0; i < 4; i++) {
			char name[8], byte;

			snprintf(name, sizeof(name), "vm%d", i);
			if (fork())
				continue;
			close(go_on[1]);
			if (read(go_on[0], &byte, 1)) /* until all are there */
				_exit(2);
			_exit(come(&s, name, 1100, i % 2) < 0);
		}
		close(go_on[0]);
		close(go_on[1]);
		while (wait(&status) > 0)
			winners += WIFEXITED(status) && !WEXITSTATUS(status);
		assert_int_equal(winners, 1);
		for (int i = 0; i < 4; i++) {
			struct gw_definition def = { .nr_memory = 0 };

			snprintf(def.name, sizeof(def.name), "vm%d", i);
			assert_int_equal(gw_vm_remove(&s.paths, &def, true), 0);
		}
		lock = come(&s, "next", 1100, false); /* what the dead were promised is free */
		assert_true(lock >= 0);
		go(&s, "next", lock);
	}
	site_close(&s);
}

/* The guest uses all that it was promised, and an image was in its place. */
static void images_give_way(void **state)
{
	struct site s;
	struct vm *web;
	int a;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	web = leave_image(&s, "web1");
	assert_int_equal(images(&s), BYTES(ALL_DATA));
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(LIMIT));
	a = come(&s, "a", LIMIT - 300, false);
	assert_true(a >= 0);
	/* Before it is touched: afterwards is too late. */
	assert_in_range(images(&s), BYTES(200), BYTES(300));
	assert_int_equal(touch(&s, "a", 0, LIMIT - 300), 0);
	assert_in_range(images(&s), BYTES(200), BYTES(300));
	go(&s, "a", a);
	a = come(&s, "a", LIMIT, true);
	assert_true(a >= 0);
	assert_int_equal(images(&s), 0);
	assert_int_equal(touch(&s, "a", 0, LIMIT), 0);
	go(&s, "a", a);
	vm_free(web);
	site_close(&s);
}

/* What is held for a VM of another host counts as a VM here does, and images give way to it. */
static void other_hosts_count(void **state)
{
	static const char id[] = "000102030405060708090a0b0c0d0e0f";
	static const struct gw_promise in_memory = { .swap = "" };
	struct gw_hold hold = { .name = "far",
				.host = "A",
				.blocks = { { "ram", BYTES(2 * LIMIT) } },
				.nr_blocks = 1,
				.size = BYTES(LIMIT - 300) };
	gw_autofree uint8_t *bytes = calloc(GW_CHUNK_PAGES, GW_PAGE_SIZE);
	gw_autofree char *folder = NULL;
	struct gw_memstore store;
	struct site s;
	struct vm *web;
	int a, lock;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	s.paths.server_limit = BYTES(LIMIT);
	s.paths.overcommit = 200; /* not of what leaves another host because it is used */
	folder = gw_promise_store(&s.paths, id, &in_memory);
	web = leave_image(&s, "web1");
	lock = gw_promise_lock(&s.paths, id, GW_FOREVER);
	assert_true(lock >= 0);
	assert_int_equal(gw_budget_promise(&s.paths, "here", id, &hold), 0);
	gw_budget_make_room(&s.paths, GW_FOREVER);
	assert_in_range(images(&s), BYTES(200), BYTES(300));
	assert_int_equal(gw_memstore_open(&store, folder, &hold), 0);
	for (size_t page = 0; page < LIMIT - 300; page += 100)
		assert_int_equal(gw_memstore_put(&store, page, 50, bytes), 0);
	assert_int_equal(gw_promise_used(&s.paths, id, &in_memory), BYTES((LIMIT - 300) / 2));
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(600));
	s.paths.overcommit = 100;
	assert_int_equal(come(&s, "a", 301, false), -ENOMEM);
	a = come(&s, "a", 300, false);
	assert_true(a >= 0);
	assert_int_equal(images(&s), 0);
	gw_memstore_close(&store);
	assert_int_equal(gw_promise_remove(&s.paths, id), 0);
	close(lock);
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(LIMIT - 300));
	go(&s, "a", a);
	vm_free(web);
	site_close(&s);
}

/* What is pinned is not free for others; to the VM itself it is no obstacle. */
static void pinned_images_stay(void **state)
{
	struct site s;
	struct vm *web;
	int a;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	web = leave_image(&s, "web1");
	assert_int_equal(gw_image_pin(&s.paths.store, "web1", true), 0);
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(LIMIT - ALL_DATA));
	assert_int_equal(gw_budget_free(&s.paths, &web->def), BYTES(LIMIT));
	assert_int_equal(come(&s, "a", LIMIT - ALL_DATA + 1, false), -ENOMEM);
	assert_message("pinned images hold 3.0 MiB");
	a = come(&s, "a", LIMIT - ALL_DATA, false);
	assert_true(a >= 0);
	assert_int_equal(images(&s), BYTES(ALL_DATA));
	assert_int_equal(touch(&s, "a", 0, LIMIT - ALL_DATA), 0);
	go(&s, "a", a);
	vm_free(web);
	site_close(&s);
}

/* What an arrival has in use it will have here at once, however much may be promised. */
static void what_is_used_is_not_overcommitted(void **state)
{
	struct site s;
	int a, b;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	s.paths.overcommit = 200;
	a = come(&s, "a", LIMIT, false);
	assert_true(a >= 0);
	assert_int_equal(arrive(&s, "b", LIMIT, LIMIT * 3 / 4, true), -ENOMEM);
	b = arrive(&s, "b", LIMIT, LIMIT / 4, true);
	assert_true(b >= 0);
	go(&s, "a", a);
	go(&s, "b", b);
	site_close(&s);
}

/* With overcommit guests grow into what images have: these are told in time. */
static void pressure_evicts(void **state)
{
	struct site s;
	struct vm *web;
	int a, b;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	s.paths.overcommit = 200;
	assert_false(gw_budget_is_low(&s.paths));
	assert_int_equal(gw_budget_free(&s.paths, NULL), BYTES(2 * LIMIT));
	web = leave_image(&s, "web1");
	a = come(&s, "a", 1200, false);
	b = come(&s, "b", 1200, true);
	assert_true(a >= 0 && b >= 0);
	assert_in_range(images(&s), BYTES(700), BYTES(800));
	assert_int_equal(touch(&s, "a", 0, 1000), 0);
	assert_true(gw_budget_is_low(&s.paths));
	assert_true(gw_budget_make_room(&s.paths, 0) > 0);
	/* "a" has 1000 and grows by an eighth of 1200; "b" counts for half. */
	assert_in_range(images(&s), BYTES(150), BYTES(250));
	assert_int_equal(touch(&s, "a", 1000, 1200), 0);
	gw_budget_make_room(&s.paths, 0);
	assert_in_range(images(&s), BYTES(100), BYTES(200));
	go(&s, "a", a);
	go(&s, "b", b);
	vm_free(web);
	site_close(&s);
}

/* "a.b" with backend "c" and "a" with "b.c": one name, until RAM files got folders. */
static void dots_do_not_collide(void **state)
{
	struct gw_definition one = { .name = "a.b", .nr_memory = 1 };
	struct gw_definition other = { .name = "a", .nr_memory = 1 };
	gw_autofree char *path = NULL, *path_of_other = NULL;
	struct gw_ram ram = { 0 }, ram_of_other = { 0 };
	uint8_t page[GW_PAGE_SIZE] = { 1 };
	struct site s;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	snprintf(one.memory[0].id, GW_MEMORY_ID_MAX, "c");
	snprintf(other.memory[0].id, GW_MEMORY_ID_MAX, "b.c");
	one.memory[0].size = other.memory[0].size = GW_CHUNK_SIZE;
	path = gw_vm_ram_path(&s.paths, &one, 0);
	path_of_other = gw_vm_ram_path(&s.paths, &other, 0);
	assert_string_not_equal(path, path_of_other);
	assert_int_equal(gw_vm_make_ram(&s.paths, &one, false, &ram), 0);
	assert_int_equal(gw_memory_write(&ram.memory, 0, 1, page), 0);
	assert_int_equal(gw_vm_make_ram(&s.paths, &other, false, &ram_of_other), 0);
	gw_ram_close(&ram_of_other);
	assert_int_equal(gw_vm_remove(&s.paths, &other, false), 0);
	assert_true(exists(path));
	gw_ram_close(&ram);
	/* A link in the place of a RAM file leads nowhere. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/dev/shm/gw-unit-elsewhere", path), 0);
	assert_true(gw_vm_make_ram(&s.paths, &one, true, &ram) < 0);
	gw_ram_close(&ram);
	assert_int_equal(gw_vm_make_ram(&s.paths, &one, false, &ram), 0);
	gw_ram_close(&ram);
	assert_false(exists("/dev/shm/gw-unit-elsewhere"));
	assert_int_equal(gw_vm_remove(&s.paths, &one, false), 0);
	assert_false(exists(path));
	site_close(&s);
}

/* A VM that started under a godwitd that named them NAME.ID keeps its file. */
static void older_names_stay(void **state)
{
	gw_autofree char *flat = NULL, *record = NULL, *text = NULL;
	struct gw_vm vm;
	struct site s;
	json_t *json;
	int lock;

	if (!may_mount)
		skip();
	site_open(&s, *state);
	lock = come(&s, "a", 10, false);
	assert_true(lock >= 0);
	flat = gw_path("%s/a.ram", s.paths.ram);
	record = gw_path("%s/vm/a/vm.json", s.paths.run);
	assert_int_equal(gw_write_file(flat, "memory"), 0);
	text = gw_read_file(record, 1 << 16, NULL);
	json = json_loads(text, 0, NULL);
	assert_int_equal(json_object_del(json, "ram-folder"), 0);
	assert_int_equal(json_dump_file(json, record, 0), 0);
	json_decref(json);
	for (int n = 0; n < 2; n++) { /* and after it was written again */
		gw_autofree char *path = NULL;

		assert_int_equal(gw_vm_load(&s.paths, "a", &vm), 0);
		path = gw_vm_ram_path(&s.paths, &vm.def, 0);
		assert_string_equal(path, flat);
		assert_int_equal(gw_vm_save(&s.paths, &vm), 0);
		gw_vm_free(&vm);
	}
	go(&s, "a", lock);
	assert_false(exists(flat));
	site_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(promises_add_up),	host_test(two_that_fit_singly),
		host_test(images_give_way),	host_test(other_hosts_count),
		host_test(pinned_images_stay),	host_test(what_is_used_is_not_overcommitted),
		host_test(dots_do_not_collide), host_test(pressure_evicts),
		host_test(dots_do_not_collide), host_test(older_names_stay),
	};

	/* Mounts of our own, which nobody else sees and which end with us. */
	may_mount = !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
