// SPDX-License-Identifier: GPL-2.0-or-later
/* test_images_job.c - kept images as a host's memory, and what `godwit images` asks for. */
#include "store.h"

#include <sched.h>
#include <sys/mount.h>

#include "worker.h"

#define BYTES(pages) ((uint64_t)(pages)*GW_PAGE_SIZE)

struct site {
	struct host *h;
	struct gw_paths paths;
	struct gw_worker w;
};

static bool may_mount;

/* A host by godwitd's own folders, RAM files in @ram_dir or in tmpfs that it mounts. */
static void site_open(struct site *s, struct host *h, const char *ram_dir)
{
	memset(s, 0, sizeof(*s));
	s->h = h;
	assert_int_equal(gw_paths_init(&s->paths, h->root), 0);
	assert_int_equal(gw_paths_ram(&s->paths, ram_dir, 0), 0);
	s->w = (struct gw_worker){ .paths = &s->paths, .host = "unit", .ctl = -1 };
	/* The VMs of store.h go by these. */
	free(h->images);
	free(h->ram);
	free(h->small);
	free(h->disk);
	h->images = strdup(s->paths.images);
	h->ram = strdup(s->paths.ram);
	h->small = strdup(s->paths.ram_small);
	h->disk = strdup(s->paths.disk_images);
	h->st = s->paths.store;
}

static int ask(struct site *s, const char *action, const char *name, const char *other,
	       json_t **result)
{
	json_t *names = json_array(), *args;
	int rc;

	if (name)
		json_array_append_new(names, json_string(name));
	if (other)
		json_array_append_new(names, json_string(other));
	args = json_pack("{s:s?,s:o}", "action", action, "names", names);
	*result = NULL;
	rc = gw_worker_images(&s->w, args, result);
	json_decref(args);
	return rc;
}

static size_t count(struct site *s, bool pinned)
{
	json_t *list, *one;
	size_t i, nr = 0;

	assert_int_equal(ask(s, NULL, NULL, NULL, &list), 0);
	json_array_foreach(list, i, one)
		nr += !pinned || json_is_true(json_object_get(one, "pinned"));
	json_decref(list);
	return nr;
}

static void folders(void **state)
{
	struct host *h = *state;
	struct site s;
	gw_autofree char *lib = gw_path("%s/lib", h->root);
	gw_autofree char *image = gw_path("%s/lib/image", h->root);

	site_open(&s, h, h->ram);
	assert_string_equal(s.paths.lib, lib);
	assert_string_equal(s.paths.store.disk, image);
	assert_string_equal(s.paths.store.ram, s.paths.ram);
	assert_string_equal(s.paths.store.images, s.paths.images);
	assert_false(exists(lib)); /* made when it is needed */
	assert_true(s.paths.store.quota >= BYTES(PAGES));
	assert_int_equal(s.paths.store.disk_quota, 0);
	gw_paths_free(&s.paths);
}

static void actions(void **state)
{
	struct host *h = *state;
	struct vm *a, *b;
	struct site s;
	json_t *result;

	site_open(&s, h, h->ram);
	a = vm_new(h, "a");
	b = vm_new(h, "b");
	vm_set(a, 0, PAGES, 1);
	vm_set(b, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, a), 0);
	assert_int_equal(vm_leave(h, b), 0);
	assert_int_equal(count(&s, false), 2);
	assert_int_equal(ask(&s, "pin", "a", "b", &result), 0);
	assert_int_equal(json_array_size(json_object_get(result, "names")), 2);
	json_decref(result);
	assert_int_equal(count(&s, true), 2);
	assert_int_equal(ask(&s, "unpin", "b", NULL, &result), 0);
	json_decref(result);
	assert_int_equal(count(&s, true), 1);
	/* One that is not there is named, and nothing is done to the other. */
	assert_int_equal(ask(&s, "rm", "a", "none", &result), -ENOENT);
	assert_message("no image of VM 'none' is kept on this host");
	assert_null(result);
	assert_int_equal(count(&s, false), 2);
	assert_int_equal(ask(&s, "rm", "a", "../b", &result), -EINVAL);
	assert_int_equal(ask(&s, "rm", NULL, NULL, &result), -EINVAL);
	assert_int_equal(ask(&s, "burn", "a", NULL, &result), -EINVAL);
	assert_message("unknown action 'burn'");
	assert_int_equal(ask(&s, "rm", "a", NULL, &result), 0); /* pinned or not */
	json_decref(result);
	assert_int_equal(count(&s, false), 1);
	assert_int_equal(ask(&s, "rm", "a", NULL, &result), -ENOENT);
	s.paths.store.quota = 0;
	assert_int_equal(ask(&s, "gc", NULL, NULL, &result), 0);
	assert_true(json_integer_value(json_object_get(result, "freed")) >=
		    (json_int_t)BYTES(PAGES_A));
	json_decref(result);
	assert_int_equal(count(&s, false), 0);
	assert_true(store_is_empty(h));
	vm_free(a);
	vm_free(b);
	gw_paths_free(&s.paths);
}

/* godwitd ends and comes again: the images are still there, and then their folder goes. */
static void images_outlive_godwitd(void **state)
{
	struct host *h = *state;
	struct gw_image image;
	struct vm *vm;
	struct site s;

	if (!may_mount)
		skip();
	site_open(&s, h, NULL);
	assert_true(s.paths.mounted);
	vm = vm_new(h, "web1");
	vm_set(vm, 0, PAGES, 1);
	assert_int_equal(vm_leave(h, vm), 0);
	gw_paths_unmount(&s.paths);
	assert_false(exists(s.paths.ram_small));
	gw_paths_free(&s.paths);
	site_open(&s, h, NULL);
	assert_int_equal(vm_return(h, vm, &image), 0);
	assert_int_equal(absent_pages(vm, &image), 0);
	gw_image_close(&image);
	assert_int_equal(gw_image_give_back(&h->st, "web1", vm->paths), 0);
	assert_int_equal(gw_image_drop(&h->st, "web1"), 0);
	gw_paths_unmount(&s.paths);
	assert_false(exists(s.paths.ram) || exists(s.paths.ram_small));
	vm_free(vm);
	gw_paths_free(&s.paths);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(folders),
		host_test(actions),
		host_test(images_outlive_godwitd),
	};

	/* Mounts of our own, which nobody else sees and which end with us. */
	may_mount = !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
