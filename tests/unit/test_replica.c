// SPDX-License-Identifier: GPL-2.0-or-later
/* test_replica.c - what a peer may have this host read of what lies in a folder, and what not. */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "opened.h"
#include "replica.h"

#define SIZE (1 << 20)

static const char *folder;

#define shell(...) unit_shell(folder, __VA_ARGS__)
/* Two folders: of replicas, and of what is none of the peer's business. */
static int make(void **state)
{
	const int rc = unit_folder(state);

	if (rc)
		return rc;
	folder = *state;
	shell("mkdir -m 700 maps maps/below other");
	shell("dd if=/dev/zero bs=1M count=1 status=none | tr '\\0' r >maps/web.img");
	shell("dd if=/dev/zero bs=1M count=1 status=none | tr '\\0' s >other/secret");
	return 0;
}

/* Images of a VM of one disk, which a QEMU that is not there has open. */
static json_t *images_of(json_int_t size)
{
	return json_pack("[{s:s,s:i,s:s,s:I}]", "disk", "virtio0", "depth", 0, "file", "/its/own",
			 "size", size);
}

struct found {
	struct gw_replicas replicas;
	json_t *images;
	struct gw_opened opened;
};

static int find_in(const char *where, const char *name, json_int_t size, struct found *f)
{
	json_t *map = json_pack("{s:s}", "virtio0", name);
	int rc;

	memset(f, 0, sizeof(*f));
	f->opened.fd = -1;
	f->images = images_of(size);
	rc = gw_replicas_open(&f->replicas, where, map, f->images);
	json_decref(map);
	return rc;
}

static int find(const char *name, json_int_t size, struct found *f)
{
	gw_autofree char *maps = gw_path("%s/maps", folder);

	return find_in(maps, name, size, f);
}

static void forget(struct found *f)
{
	gw_opened_close(&f->opened);
	gw_replicas_close(&f->replicas);
	json_decref(f->images);
}

static void refused(const char *name, int rc, const char *why)
{
	struct found f;

	assert_int_equal(find(name, SIZE, &f), rc);
	assert_message(why);
	assert_message("virtio0");
	forget(&f);
}

/* What is read there is @filling, from any thread's own description. */
static void expect(struct found *f, uint64_t offset, char filling)
{
	gw_autofree char *bytes = aligned_alloc(GW_READ_ALIGN, GW_READ_ALIGN);

	if (f->opened.fd < 0 && !f->opened.view)
		assert_int_equal(
			gw_opened_open(&f->opened, json_array_get(f->images, 0), 1, folder), 0);
	assert_int_equal(gw_opened_read(&f->opened, bytes, GW_READ_ALIGN, offset), 0);
	for (size_t i = 0; i < GW_READ_ALIGN; i++)
		assert_int_equal(bytes[i], filling);
}

static void by_word_and_by_path(void **state)
{
	gw_autofree char *path = gw_path("%s/maps/web.img", folder);
	const char *const names[] = { "web.img", path };
	struct found f;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
		assert_int_equal(find(names[i], SIZE, &f), 0);
		expect(&f, SIZE - GW_READ_ALIGN, 'r');
		forget(&f);
	}
}

/* The operator's link; and what has another name once it is open is read on. */
static void links_and_names(void **state)
{
	struct found f;

	(void)state;
	shell("ln -s ../other/secret maps/linked");
	assert_int_equal(find("linked", SIZE, &f), 0);
	shell("mv other/secret other/gone && cp maps/web.img other/secret");
	expect(&f, 0, 's');
	forget(&f);
}

static void nothing_else(void **state)
{
	gw_autofree char *secret = gw_path("%s/other/secret", folder);
	gw_autofree char *near = gw_path("%s/maps/../other/secret", folder);
	gw_autofree char *maps = gw_path("%s/maps", folder);
	struct found f;

	(void)state;
	refused("../other/secret", -EPERM, "not in the folder");
	refused(secret, -EPERM, "not in the folder");
	refused(near, -EPERM, "not in the folder");
	refused("below/web.img", -EPERM, "not in the folder");
	refused("..", -EPERM, "not in the folder");
	refused(".", -EPERM, "not in the folder");
	refused("", -EPERM, "not in the folder");
	refused(maps, -EPERM, "not in the folder");
	refused("below", -EINVAL, "neither a file nor a block device");
	refused("web", -ENOENT, "No such file");
	shell("mkfifo maps/pipe && ln -s /dev/null maps/null");
	refused("pipe", -EINVAL, "neither a file nor a block device");
	refused("null", -EINVAL, "neither a file nor a block device");
	assert_int_equal(find_in(NULL, "web.img", SIZE, &f), -EPERM);
	assert_message("--disk-map-dir");
	forget(&f);
}

/* Others who may write there could put a link to anything there. */
static void others_folder(void **state)
{
	struct found f;

	(void)state;
	shell("chmod 777 maps");
	assert_int_equal(find("web.img", SIZE, &f), -EPERM);
	forget(&f);
	shell("chmod 700 maps");
	shell("mv maps real && ln -s real maps");
	assert_int_not_equal(find("web.img", SIZE, &f), 0);
	forget(&f);
}

static void too_small(void **state)
{
	struct found f;

	(void)state;
	assert_int_equal(find("web.img", SIZE + 512, &f), -EINVAL);
	assert_message("fewer than the disk's");
	forget(&f);
	assert_int_equal(find("web.img", SIZE - 512, &f), 0);
	forget(&f);
}

static void no_such_disk(void **state)
{
	gw_autofree char *maps = gw_path("%s/maps", folder);
	const char *const maps_of[] = { "{\"virtio1\":\"web.img\"}", "{\"virtio0\":7}" };

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(maps_of); i++) {
		struct gw_replicas r = { .nr = 0 };
		json_t *map = json_loads(maps_of[i], 0, NULL), *images = images_of(SIZE);

		assert_int_equal(gw_replicas_open(&r, maps, map, images), -EINVAL);
		assert_message("has no disk");
		gw_replicas_close(&r);
		json_decref(map);
		json_decref(images);
	}
}

/* By its name and not by its bytes, which the guest has written; and it stands alone. */
static void formats(void **state)
{
	struct found f;

	(void)state;
	shell("qemu-img create -q -f raw other/base 1M && tr '\\0' b <other/base >base.b");
	shell("qemu-img create -q -f qcow2 -F raw -b ../base.b maps/top.qcow2");
	shell("qemu-io -c 'write -q -P 116 0 64k' maps/top.qcow2");
	assert_int_equal(find("top.qcow2", SIZE, &f), 0);
	expect(&f, 4096, 't');
	expect(&f, 128 << 10, '\0'); /* and not the base's 'b' */
	forget(&f);
	assert_int_equal(find("top.qcow2", SIZE + 512, &f), -EINVAL);
	assert_message("fewer than the disk's");
	forget(&f);
	shell("cp maps/top.qcow2 maps/raw.img && truncate -s 2M maps/raw.img");
	assert_int_equal(find("raw.img", SIZE, &f), 0);
	assert_null(json_object_get(json_array_get(f.images, 0), "node"));
	forget(&f);
	shell("qemu-img create -q -f qcow2 -o data_file=other/secret,data_file_raw=on "
	      "maps/outside.qcow2 1M");
	refused("outside.qcow2", -ENOTSUP, "in another file");
	shell("cp maps/web.img maps/web.qcow2");
	refused("web.qcow2", -EINVAL, "no qcow2 image");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_word_and_by_path, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(links_and_names, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(nothing_else, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(others_folder, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(too_small, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(no_such_disk, make, unit_folder_remove),
		cmocka_unit_test_setup_teardown(formats, make, unit_folder_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
