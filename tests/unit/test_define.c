// SPDX-License-Identifier: GPL-2.0-or-later
/* test_define.c - definitions from users and from peers. */
#include "unit.h"

#include <errno.h>

#include "define.h"

#define MIB (1ULL << 20)

static json_t *words(const char *const list[])
{
	json_t *argv = json_array();

	for (; *list; list++)
		json_array_append_new(argv, json_string(*list));
	return argv;
}

static int run(struct gw_definition *def, const char *name, uint64_t memory,
	       const char *const list[])
{
	json_t *argv = words(list);
	int rc = gw_definition_run(def, name, memory, argv, "/root");

	json_decref(argv);
	return rc;
}

static void names(void **state)
{
	static const char *const good[] = { "a", "web1", "A.b_c-9", "0" };
	static const char *const bad[] = {
		"", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "ä", "{dir}", "a,b",
	};
	char longest[GW_NAME_MAX + 1];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(good); i++)
		assert_true(gw_name_ok(good[i]));
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++)
		assert_false(gw_name_ok(bad[i]));
	assert_false(gw_name_ok(NULL));
	memset(longest, 'n', sizeof(longest));
	longest[GW_NAME_MAX] = '\0';
	assert_false(gw_name_ok(longest));
	longest[GW_NAME_MAX - 1] = '\0';
	assert_true(gw_name_ok(longest));
}

static void run_takes_a_qemu(void **state)
{
	static const char *const qemus[] = { "qemu-system-x86_64", "/opt/q/qemu-system-aarch64",
					     "kvm", "/usr/bin/kvm", "qemu-kvm" };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(qemus); i++) {
		const char *const argv[] = { qemus[i], "-nographic", NULL };

		assert_int_equal(run(&def, "web1", 64 * MIB, argv), 0);
		assert_string_equal(def.name, "web1");
		assert_string_equal(def.cwd, "/root");
		assert_true(def.managed);
		assert_false(def.discards);
		assert_int_equal(def.nr_memory, 1);
		assert_int_equal(def.memory[0].size, 64 * MIB);
		gw_definition_free(&def);
		assert_null(def.argv);
	}
}

static void run_refuses(void **state)
{
	static const struct {
		const char *argv[4];
		const char *why;
	} bad[] = {
		{ { "sh", "-c", "reboot" }, "is not a QEMU" },
		{ { "/qemu-system-x86_64/sh" }, "is not a QEMU" },
		{ { "qemu-img" }, "is not a QEMU" },
		{ { "" }, "is not a QEMU" },
		{ { NULL }, "command line of 0 words" },
		{ { "kvm", "-m", "2G" }, "leave -m out" },
		{ { "kvm", "--m", "2G" }, "leave -m out" },
		{ { "kvm", "-mem-path", "/x" }, "leave -mem-path out" },
		{ { "kvm", "-daemonize" }, "leave -daemonize out" },
		{ { "kvm", "-incoming", "defer" }, "leave -incoming out" },
		{ { "kvm", "-S" }, "leave -S out" },
		{ { "kvm", "-m", "size=2G,slots=2" }, "leave -m out" },
		{ { "kvm", "-object", "memory-backend-ram,id=a" }, "is not a size" },
		{ { "kvm", "-object", "memory-backend-ram,size=1M" }, "needs an id" },
		{ { "kvm", "-object", "memory-backend-ram,size=1M,id=godwit-ram" },
		  "two memory backends 'godwit-ram'" },
	};
	static const char *const fine[] = { "kvm", "-smp", "2", "-machine", "q35", NULL };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		const char *argv[5] = { NULL };

		memcpy(argv, bad[i].argv, sizeof(bad[i].argv));
		gw_error_clear();
		assert_int_equal(run(&def, "web1", 64 * MIB, argv), -EINVAL);
		assert_message(bad[i].why);
		gw_definition_free(&def);
	}
	assert_int_equal(run(&def, "web1", 0, fine), -EINVAL);
	gw_definition_free(&def);
	assert_int_equal(run(&def, "web1", 4097, fine), -EINVAL);
	gw_definition_free(&def);
	assert_int_equal(run(&def, "../web1", 64 * MIB, fine), -EINVAL);
}

/* Units are easily forgotten; and QEMU rounds up what is no multiple of 8 KiB. */
static void sizes_have_a_grain(void **state)
{
	static const char *const argv[] = { "kvm", NULL };
	static const struct {
		uint64_t size;
		const char *hint;
	} bad[] = { { 256, "--memory 256: the size must be a multiple of 8 KiB; units are K, M, "
			   "G, T, as in --memory 256M" },
		    { 64 * MIB + 4096, "--memory 67112960: the size must be a multiple of 8 KiB" },
		    { 0, "--memory 0: " } };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		assert_int_equal(run(&def, "web1", bad[i].size, argv), -EINVAL);
		assert_message(bad[i].hint);
		gw_definition_free(&def);
	}
	assert_int_equal(run(&def, "web1", 64 * MIB + 8192, argv), 0);
	gw_definition_free(&def);
}

/* The user's own backends are RAM files like the first, whatever file he named, in any form. */
static void run_takes_memory_backends(void **state)
{
	static const char *const argv[] = {
		"kvm",
		"-m",
		"slots=2,maxmem=4G",
		"-object",
		"memory-backend-ram,id=vm0,size=1G",
		"-object",
		"{\"qom-type\":\"memory-backend-file\",\"id\":\"a\",\"size\":8192,\"mem-path\":\"/x\"}",
		"-object",
		"iothread,id=io0",
		"-device",
		"virtio-mem-pci,memdev=vm0",
		NULL,
	};
	static const char *const left[] = { "kvm",
					    "-m",
					    "slots=2,maxmem=4G",
					    "-object",
					    "iothread,id=io0",
					    "-device",
					    "virtio-mem-pci,memdev=vm0",
					    NULL };
	char *const paths[] = { (char *)"/r/a", (char *)"/r/main", (char *)"/r/vm0" };
	struct gw_definition def;
	json_t *expected = words(left);
	char **command;
	int found = 0;

	(void)state;
	assert_int_equal(run(&def, "web1", 64 * MIB, argv), 0);
	assert_true(json_equal(def.argv, expected));
	assert_true(def.discards);
	/* By id, as attach numbers them, and still the right one is the machine's. */
	assert_int_equal(def.nr_memory, 3);
	assert_string_equal(def.memory[0].id, "a");
	assert_int_equal(def.memory[0].size, 8192);
	assert_string_equal(def.memory[1].id, "godwit-ram");
	assert_string_equal(def.memory[2].id, "vm0");
	assert_int_equal(def.memory[2].size, 1024 * MIB);
	command = gw_definition_command(&def, "/d", paths, 3, false);
	for (char **w = command; *w; w++)
		found += !strcmp(*w, "67108864B") || !strcmp(*w, "memory-backend=godwit-ram") ||
			 !strcmp(*w, "memory-backend-file,id=vm0,size=1073741824,"
				     "mem-path=/r/vm0,share=on,align=2M");
	assert_int_equal(found, 3);
	gw_strings_free(command);
	json_decref(expected);
	gw_definition_free(&def);
}

/* What can never move is refused at once, in whichever form it is written. */
static void run_refuses_what_never_moves(void **state)
{
	static const struct {
		const char *option, *value;
	} never[] = {
		{ "-device", "vfio-pci,host=01:00.0" },
		{ "--device", "driver=vfio-pci,host=01:00.0" },
		{ "-device", "{\"driver\":\"vfio-pci\",\"host\":\"01:00.0\"}" },
		{ "-device", "id=x,driver=nvdimm,memdev=m" },
		{ "-device", "virtio-pmem-pci,memdev=m" },
		{ "-device", "ivshmem-plain,memdev=m" },
		{ "-device", "vhost-user-fs-pci,chardev=c" },
		{ "-netdev", "vhost-user,chardev=c,id=n" },
		{ "-netdev", "{\"type\":\"vhost-vdpa\",\"id\":\"n\"}" },
		{ "-drive", "file=nvme://0000:01:00.0/1,if=none" },
		{ "-drive", "file=/a,snapshot=on" },
		{ "-blockdev", "driver=nvme,node-name=n" },
		{ "-object", "memory-backend-file,id=a,size=1M,mem-path=/a,pmem=on" },
		{ "-object", "{\"qom-type\":\"memory-backend-file\",\"id\":\"a\",\"size\":4096,"
			     "\"readonly\":true}" },
		{ "-snapshot", NULL },
	};
	static const char *const fine[] = { "kvm",
					    "-device",
					    "virtio-net-pci,id=vfio-pci",
					    "-drive",
					    "file=/a,,snapshot=on,if=none",
					    "-device",
					    "{\"driver\":\"e1000\",\"id\":\"nvdimm\"}",
					    NULL };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(never); i++) {
		const char *const argv[] = { "kvm", never[i].option, never[i].value, NULL };

		assert_int_equal(run(&def, "web1", 64 * MIB, argv), -ENOTSUP);
		assert_message("could never be moved");
		gw_definition_free(&def);
	}
	assert_int_equal(run(&def, "web1", 64 * MIB, fine), 0);
	gw_definition_free(&def);
}

static void balloons_are_noticed(void **state)
{
	static const char *const devices[] = { "virtio-balloon-pci", "virtio-mem-pci,id=x",
					       "virtio-balloon,free-page-reporting=on" };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(devices); i++) {
		const char *const argv[] = { "kvm", "-device", devices[i], NULL };

		assert_int_equal(run(&def, "web1", 64 * MIB, argv), 0);
		assert_true(def.discards);
		gw_definition_free(&def);
	}
}

#define GOOD                                                                   \
	"{\"name\":\"web1\",\"argv\":[\"qemu-system-x86_64\",\"-nographic\"]," \
	"\"cwd\":\"/root\",\"machine\":\"pc-q35-7.2\",\"managed\":true,"       \
	"\"discards\":true,\"memory\":[{\"id\":\"godwit-ram\",\"size\":4096}]}"

static int parse(struct gw_definition *def, const char *text)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	int rc = gw_definition_parse(def, json);

	json_decref(json);
	return rc;
}

static void json_round_trip(void **state)
{
	struct gw_definition def;
	json_t *expected = json_loads(GOOD, 0, NULL), *json;

	(void)state;
	assert_int_equal(parse(&def, GOOD), 0);
	assert_true(def.managed && def.discards);
	assert_string_equal(def.machine, "pc-q35-7.2");
	assert_int_equal(def.memory[0].size, 4096);
	json = gw_definition_json(&def);
	assert_true(json_equal(json, expected));
	json_decref(json);
	json_decref(expected);
	gw_definition_free(&def);
}

/* GOOD with field @key replaced by @value, JSON text; NULL: without it. */
static char *altered(const char *key, const char *value)
{
	json_t *json = json_loads(GOOD, 0, NULL);
	char *text;

	if (value)
		json_object_set_new(json, key, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(json, key);
	text = json_dumps(json, 0);
	json_decref(json);
	return text;
}

/* A peer may send anything (invariant 10). */
static void hostile_json(void **state)
{
	static const struct {
		const char *key, *value;
	} bad[] = {
		{ "name", NULL },
		{ "name", "\"../../etc\"" },
		{ "name", "7" },
		{ "name", "\"\"" },
		{ "argv", NULL },
		{ "argv", "[]" },
		{ "argv", "{}" },
		{ "argv", "\"qemu-system-x86_64\"" },
		{ "argv", "[\"/bin/sh\",\"-c\",\"reboot\"]" },
		{ "argv", "[\"qemu-system-x86_64\",7]" },
		{ "argv", "[\"qemu-system-x86_64\",null]" },
		{ "argv", "[7]" },
		{ "cwd", NULL },
		{ "cwd", "\"relative\"" },
		{ "cwd", "\"\"" },
		{ "cwd", "[]" },
		{ "machine", NULL },
		{ "machine", "7" },
		{ "memory", NULL },
		{ "memory", "[]" },
		{ "memory", "{}" },
		{ "memory", "7" },
		{ "memory", "[7]" },
		{ "memory", "[{}]" },
		{ "memory", "[{\"id\":\"a\"}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":0}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":4097}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":-4096}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":\"4096\"}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":4096.0}]" },
		{ "memory", "[{\"id\":\"../a\",\"size\":4096}]" },
		{ "memory", "[{\"id\":\"a,share=off\",\"size\":4096}]" },
		{ "memory", "[{\"id\":\"a\",\"size\":4096},{\"id\":\"a\",\"size\":4096}]" },
	};
	static const char *const no_objects[] = { "7", "null", "[]", "\"text\"", "{}" };
	struct gw_definition def;

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++) {
		gw_autofree char *text = altered(bad[i].key, bad[i].value);

		if (parse(&def, text) != -EINVAL)
			fail_msg("accepted: %s", text);
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(no_objects); i++)
		assert_int_equal(parse(&def, no_objects[i]), -EINVAL);
	assert_int_equal(gw_definition_parse(&def, NULL), -EINVAL);
}

/* What is too long or too much is refused, not cut. */
static void hostile_sizes(void **state)
{
	char longer[300] = "";
	json_t *many = json_array();
	gw_autofree char *list = NULL, *backends = NULL, *id = NULL, *machine = NULL;
	gw_autofree char *quoted = NULL, *entry = NULL, *arguments = NULL;
	struct gw_definition def;

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	quoted = gw_path("\"%s\"", longer);
	entry = gw_path("[{\"id\":\"%s\",\"size\":4096}]", longer);
	id = altered("memory", entry);
	machine = altered("machine", quoted);
	assert_int_equal(parse(&def, id), -EINVAL);
	assert_int_equal(parse(&def, machine), -EINVAL);
	for (int i = 0; i <= GW_MEMORY_BLOCKS_MAX; i++)
		json_array_append_new(
			many, json_pack("{s:o,s:i}", "id", json_sprintf("m%d", i), "size", 4096));
	backends = json_dumps(many, 0);
	list = altered("memory", backends);
	assert_int_equal(parse(&def, list), -EINVAL);
	json_array_clear(many);
	for (int i = 0; i < 5000; i++)
		json_array_append_new(many, json_string("kvm"));
	free(gw_steal(backends));
	backends = json_dumps(many, 0);
	arguments = altered("argv", backends);
	assert_int_equal(parse(&def, arguments), -EINVAL);
	json_decref(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(run_takes_a_qemu),
		cmocka_unit_test(run_refuses),
		cmocka_unit_test(balloons_are_noticed),
		cmocka_unit_test(sizes_have_a_grain),
		cmocka_unit_test(run_takes_memory_backends),
		cmocka_unit_test(run_refuses_what_never_moves),
		cmocka_unit_test(json_round_trip),
		cmocka_unit_test(hostile_json),
		cmocka_unit_test(hostile_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
