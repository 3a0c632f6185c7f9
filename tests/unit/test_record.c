// SPDX-License-Identifier: GPL-2.0-or-later
/* test_record.c - what a host writes down, damaged or not, and who may write it. */
#include "killed.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dest.h"
#include "own.h"
#include "record.h"
#include "source.h"
#include "vm_folder.h"

/* A host whose RUN is in a folder of its own, and a VM on it. */
struct host {
	char *root;
	struct gw_paths paths;
	struct gw_vm vm;
	char *dir;
};

static int make(void **state)
{
	static const char *const text =
		"{\"name\":\"web1\",\"argv\":[\"qemu-system-fake\"],\"cwd\":\"/root\","
		"\"machine\":\"pc\",\"managed\":true,\"discards\":false,"
		"\"memory\":[{\"id\":\"a\",\"size\":4096},{\"id\":\"b\",\"size\":8192}]}";
	struct host *h = calloc(1, sizeof(*h));
	gw_autofree char *ram = NULL;
	json_t *json = json_loads(text, 0, NULL);
	int rc = !h || unit_folder((void **)&h->root) || gw_paths_init(&h->paths, h->root);

	*state = h;
	if (!rc) {
		ram = gw_path("%s/ram-files", h->root);
		rc = gw_paths_ram(&h->paths, ram, 0) || gw_definition_parse(&h->vm.def, json);
	}
	json_decref(json);
	if (rc)
		return -1;
	h->vm.process = (struct gw_process){ .pid = 4711, .start = 1ULL << 40 };
	h->vm.qmp = strdup("/run/x/qmp.sock");
	h->dir = gw_vm_dir(&h->paths, "web1");
	return mkdir(h->dir, 0700);
}

static int drop(void **state)
{
	struct host *h = *state;

	gw_vm_free(&h->vm);
	gw_paths_free(&h->paths);
	free(h->dir);
	unit_folder_remove((void **)&h->root);
	free(h);
	return 0;
}

static void folders_are_private(void **state)
{
	struct host *h = *state;
	struct gw_paths again;
	struct stat st;

	assert_int_equal(h->paths.run[0], '/');
	assert_int_equal(stat(h->paths.run, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_false(h->paths.mounted);
	assert_int_equal(gw_paths_init(&again, h->root), 0);
	assert_string_equal(again.run, h->paths.run);
	gw_paths_free(&again);
	assert_int_equal(gw_paths_init(&again, "/dev/null"), -ENOTDIR);
}

static void assert_start(const char *root, const char *ram, int rc, const char *text)
{
	struct gw_paths p;
	int is = gw_paths_init(&p, root);

	gw_error_clear();
	if (!is && ram)
		is = gw_paths_ram(&p, ram, 0);
	if (is && !ram) { /* cleared above: the message, once more */
		gw_paths_free(&p);
		is = gw_paths_init(&p, root);
	}
	assert_int_equal(is, rc);
	assert_message(text);
	gw_paths_free(&p);
}

/* Decision 27: godwitd looks at all that is a host's, and then starts or does not. */
static void open_folders_stop_the_start(void **state)
{
	static const char *const folders[] = { "",	     "/run", "/run/vm",	  "/run/settled",
					       "/run/image", "/lib", "/lib/image" };
	static const char *const kinds[] = { "", "/vm", "/kept" };
	struct host *h = *state;
	gw_autofree char *image = gw_path("%s/run/image", h->root);
	gw_autofree char *lib = gw_path("%s/lib", h->root), *disk = gw_path("%s/disk", h->root);
	gw_autofree char *on_disk = gw_path("%s/lib/image", h->root);
	gw_autofree char *shm = gw_path("%s/shm", h->root);
	struct gw_paths p;

	assert_int_equal(gw_own_mkdirs(image), 0);
	assert_int_equal(gw_own_mkdirs(on_disk), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(folders); i++) {
		gw_autofree char *path = gw_path("%s%s", h->root, folders[i]);
		gw_autofree char *text = gw_path("chmod go-w %s'", path);

		assert_start(h->root, NULL, 0, "");
		assert_int_equal(chmod(path, 0777), 0);
		assert_start(h->root, NULL, -EPERM, text);
		assert_int_equal(chmod(path, 0755), 0);
	}
	/* To a larger disk. */
	assert_int_equal(rename(lib, disk), 0);
	assert_int_equal(symlink("disk", lib), 0);
	assert_int_equal(gw_paths_init(&p, h->root), 0);
	assert_string_equal(p.lib, disk);
	gw_paths_free(&p);
	/* RAM files in a folder that is everybody's, as /dev/shm is. */
	for (size_t i = 0; i < GW_ARRAY_SIZE(kinds); i++) {
		gw_autofree char *path = gw_path("%s%s", shm, kinds[i]);
		gw_autofree char *text = gw_path("chmod go-w %s'", path);

		assert_int_equal(gw_own_mkdirs(path), 0);
		assert_int_equal(chmod(path, 0777), 0);
		assert_start(h->root, shm, -EPERM, text);
		assert_int_equal(chmod(path, 0755), 0);
		assert_int_equal(chmod(shm, 01777), 0);
		assert_start(h->root, shm, 0, "");
	}
}

/* One that somebody was given is left alone, and the others are not. */
static void a_vm_in_a_strange_folder_is_not_read(void **state)
{
	struct host *h = *state;
	gw_autofree char *dir = gw_vm_dir(&h->paths, "web1");
	struct gw_journal j;
	struct gw_vm vm;

	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	assert_int_equal(chmod(dir, 0770), 0);
	assert_int_equal(gw_vm_load(&h->paths, "web1", &vm), -EPERM);
	assert_message("chmod go-w");
	assert_int_equal(gw_vm_lock(&h->paths, "web1"), -EPERM);
	assert_int_equal(gw_journal_load(&h->paths, "web1", &j), -EPERM);
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), -EPERM);
	assert_start(h->root, NULL, 0, "");
	assert_int_equal(chmod(dir, 0700), 0);
	assert_int_equal(gw_vm_load(&h->paths, "web1", &vm), 0);
	gw_vm_free(&vm);
}

/* Dots, dashes and words of ours in a name make no two VMs' files one, nor one's another's. */
static void names_never_meet(void **state)
{
	static const char *const names[] = { "a",      "a.b",	 "a.b.c", "a-b", "a.new",
					     "vm",     "kept",	 "lock",  "log", "image",
					     "ledger", "gone-a", "a_b",	  "A" };
	static const char *const none[] = { "",	  ".",	 "..",	".gone-a", ".lock",
					    "-a", "a/b", "a b", "a\n" };
	char *all[GW_ARRAY_SIZE(names)][3];
	struct host *h = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(none); i++)
		assert_false(gw_name_ok(none[i]));
	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
		struct gw_definition def = { .nr_memory = 1 };

		assert_true(gw_name_ok(names[i]));
		snprintf(def.name, sizeof(def.name), "%s", names[i]);
		snprintf(def.memory[0].id, sizeof(def.memory[0].id), "%s", names[i]);
		all[i][0] = gw_vm_dir(&h->paths, names[i]);
		all[i][1] = gw_vm_ram_dir(&h->paths, &def);
		def.discards = true;
		all[i][2] = gw_vm_ram_dir(&h->paths, &def);
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++)
		for (size_t k = 0; k < GW_ARRAY_SIZE(names); k++)
			for (size_t of = 0; of < 9 && i != k; of++) {
				const char *one = all[i][of / 3], *other = all[k][of % 3];
				const size_t len = strlen(one);

				assert_string_not_equal(one, other);
				assert_false(!strncmp(one, other, len) && other[len] == '/');
			}
	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++)
		for (size_t of = 0; of < 3; of++)
			free(all[i][of]);
}

static void vm_round_trip(void **state)
{
	struct host *h = *state;
	struct gw_ram ram = { 0 };
	struct gw_vm back;
	json_t *a, *b;

	assert_int_equal(gw_ram_add(&ram, "a", -1, 4096, 0), 0);
	ram.ranges[0] = (struct gw_ram_range){ .gpa = 1ULL << 32, .size = 4096 };
	ram.nr_ranges = 1;
	gw_vm_describe(&h->vm, &ram);
	h->vm.attached = true;
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	assert_int_equal(gw_vm_load(&h->paths, "web1", &back), 0);
	assert_int_equal(back.process.pid, 4711);
	assert_int_equal(back.process.start, 1ULL << 40);
	assert_string_equal(back.qmp, "/run/x/qmp.sock");
	assert_true(back.attached);
	assert_true(json_equal(back.blocks, h->vm.blocks));
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(back.blocks, 0), "address")),
		1LL << 32);
	a = gw_definition_json(&h->vm.def);
	b = gw_definition_json(&back.def);
	assert_true(json_equal(a, b));
	json_decref(a);
	json_decref(b);
	gw_vm_free(&back);
	assert_null(back.qmp);
}

/* What the last moves took is a hint, and may come from anybody. */
static void legs_are_hints(void **state)
{
	static const char *const garbage[] = {
		"{}",
		"7",
		"null",
		"[]",
		"[\"x\",null,[],{},true,1.5]",
		"[0,-1,60000001]",
		"[9223372036854775807,-9223372036854775807]",
	};
	struct host *h = *state;
	struct gw_legs legs = { 0 };
	struct gw_vm back;
	json_t *json;

	assert_int_equal(gw_legs_median(&legs), 0);
	for (uint64_t us = 1; us <= GW_LEGS_MAX + 2; us++)
		gw_legs_add(&h->vm.legs, us);
	gw_legs_add(&h->vm.legs, 0);
	gw_legs_add(&h->vm.legs, GW_LEG_US_MAX + 1ULL);
	gw_legs_add(&h->vm.legs, UINT64_MAX);
	assert_int_equal(h->vm.legs.nr, GW_LEGS_MAX);
	assert_int_equal(gw_legs_median(&h->vm.legs), 5);
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	assert_int_equal(gw_vm_load(&h->paths, "web1", &back), 0);
	assert_memory_equal(&back.legs, &h->vm.legs, sizeof(back.legs));
	assert_int_equal(back.legs.us[0], GW_LEGS_MAX + 2);
	gw_vm_free(&back);
	for (size_t i = 0; i < GW_ARRAY_SIZE(garbage); i++) {
		json = json_loads(garbage[i], JSON_DECODE_ANY, NULL);
		assert_non_null(json);
		gw_legs_parse(&legs, json);
		assert_int_equal(legs.nr, 0);
		json_decref(json);
	}
	gw_legs_parse(&legs, NULL);
	assert_int_equal(legs.nr, 0);
	json = json_loads("[8,-1,6,5,4,3,2,\"x\"]", 0, NULL);
	gw_legs_parse(&legs, json);
	json_decref(json);
	assert_int_equal(legs.nr, 4);
	assert_int_equal(legs.us[0], 8);
	assert_int_equal(gw_legs_median(&legs), 5);
}

/* A record that a daemon of before wrote: its VM is tracked still, and has no secret yet. */
static void record_of_before(void **state)
{
	struct host *h = *state;
	gw_autofree char *dir = gw_vm_dir(&h->paths, h->vm.def.name);
	gw_autofree char *path = gw_path("%s/vm.json", dir), *text = NULL;
	uint8_t secret[GW_SECRET_LEN];
	struct gw_vm back;
	json_t *json;

	assert_int_equal(gw_own_mkdirs(dir), 0);
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	json = json_load_file(path, 0, NULL);
	json_object_del(json, "watch");
	json_object_set_new(json, "uffd", json_integer(17));
	json_object_set_new(json, "since-arrival", json_true());
	text = json_dumps(json, 0);
	json_decref(json);
	assert_int_equal(gw_write_file(path, text), 0);
	assert_int_equal(gw_vm_load(&h->paths, h->vm.def.name, &back), 0);
	assert_true(back.watch.mode == GW_WATCH_TRACKING && back.watch.nr == 1 &&
		    back.watch.numbers[0] == 17 && back.watch.since_arrival);
	assert_false(back.has_secret);
	/* It gets one when it is needed, and keeps it. */
	assert_int_equal(gw_vm_need_secret(&h->paths, &back), 0);
	memcpy(secret, back.secret, sizeof(secret));
	gw_vm_free(&back);
	assert_int_equal(gw_vm_load(&h->paths, h->vm.def.name, &back), 0);
	assert_true(back.has_secret && !memcmp(secret, back.secret, sizeof(secret)));
	assert_int_equal(gw_vm_need_secret(&h->paths, &back), 0);
	assert_memory_equal(secret, back.secret, sizeof(secret));
	assert_int_equal(back.watch.numbers[0], 17);
	gw_vm_free(&back);
}

static void no_vm(void **state)
{
	struct host *h = *state;
	struct gw_journal j;
	struct gw_vm vm;

	assert_int_equal(gw_vm_load(&h->paths, "web1", &vm), -ENOENT);
	assert_int_equal(gw_vm_load(&h->paths, "none", &vm), -ENOENT);
	assert_int_equal(gw_journal_load(&h->paths, "web1", &j), -ENOENT);
	assert_int_equal(gw_vm_lock(&h->paths, "none"), -ENOENT);
	gw_journal_remove(&h->paths, "web1");
}

/* Cut at any byte, or with fields missing, it is damaged: never half a VM. */
static void damaged_vm(void **state)
{
	static const char *const texts[] = {
		"",
		"null",
		"[]",
		"{}",
		"7",
		"{\"definition\":{}}",
		"{\"definition\":7,\"qmp\":\"x\"}",
	};
	struct host *h = *state;
	gw_autofree char *path = gw_path("%s/vm.json", h->dir);
	gw_autofree char *text = NULL;
	struct gw_vm back;
	json_t *json;

	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	text = gw_read_file(path, 1 << 20, NULL);
	json = json_loads(text, 0, NULL);
	for (size_t len = strlen(text); len--;) {
		text[len] = '\0';
		assert_int_equal(gw_write_file(path, text), 0);
		assert_int_equal(gw_vm_load(&h->paths, "web1", &back), -EINVAL);
	}
	for (size_t i = 0; i < GW_ARRAY_SIZE(texts); i++) {
		assert_int_equal(gw_write_file(path, texts[i]), 0);
		assert_int_equal(gw_vm_load(&h->paths, "web1", &back), -EINVAL);
	}
	json_object_del(json, "qmp");
	free(gw_steal(text));
	text = json_dumps(json, 0);
	assert_int_equal(gw_write_file(path, text), 0);
	assert_int_equal(gw_vm_load(&h->paths, "web1", &back), -EINVAL);
	assert_message("is damaged");
	json_decref(json);
}

static void journal_round_trip(void **state)
{
	struct host *h = *state;
	struct gw_journal source = { .role = GW_ROLE_SOURCE,
				     .phase = GW_SOURCE_COMMITTING,
				     .id = { 1, 2, 0xff },
				     .peer = "10.0.0.2:7373",
				     .was_running = true,
				     .max_bandwidth = 8ULL << 30,
				     .host = "b",
				     .since = 1764143000,
				     .why = "it was booted",
				     .split_to = "10.0.0.3:7373=1048576,[::1]:7373=4096",
				     .split_id = { 7, 0xff } };
	struct gw_journal dest = { .role = GW_ROLE_DEST, .id = { 0xab } }, back;
	char text[GW_ERROR_MAX];

	assert_int_equal(gw_journal_save(&h->paths, "web1", &source), 0);
	assert_int_equal(gw_journal_load(&h->paths, "web1", &back), 0);
	assert_int_equal(back.role, GW_ROLE_SOURCE);
	assert_int_equal(back.phase, GW_SOURCE_COMMITTING);
	assert_memory_equal(back.id, source.id, GW_ID_LEN);
	assert_string_equal(back.peer, "10.0.0.2:7373");
	assert_true(back.was_running);
	assert_int_equal(back.max_bandwidth, source.max_bandwidth);
	assert_string_equal(back.split_to, source.split_to);
	assert_memory_equal(back.split_id, source.split_id, GW_ID_LEN);
	gw_journal_gone_text(&back, "web1", text, sizeof(text));
	assert_non_null(strstr(text, "on host 'b' (10.0.0.2:7373) since 2025-11-26 07:43:20 UTC"));
	assert_non_null(strstr(text, "gone there: it was booted."));
	assert_int_equal(gw_journal_save(&h->paths, "web1", &dest), 0);
	assert_int_equal(gw_journal_load(&h->paths, "web1", &back), 0);
	assert_int_equal(back.role, GW_ROLE_DEST);
	assert_memory_equal(back.id, dest.id, GW_ID_LEN);
	assert_false(back.was_running);
	assert_string_equal(back.split_to, "");
	gw_journal_remove(&h->paths, "web1");
	assert_int_equal(gw_journal_load(&h->paths, "web1", &back), -ENOENT);
}

/* What cannot be told apart must not be taken for either end of a migration. */
static void damaged_journal(void **state)
{
	static const char id[] = "000102030405060708090a0b0c0d0e0f";
	static const char *const formats[] = {
		"%.0s",
		"{%.0s",
		"[\"%s\"]",
		"{\"id\":\"%s\"}",
		"{\"role\":\"source\",\"phase\":1,\"peer\":\"%.31s\"}",
		"{\"role\":\"source\",\"phase\":1,\"id\":\"%.31s\"}",
		"{\"role\":\"source\",\"phase\":1,\"id\":\"%.31sg\"}",
		"{\"role\":\"both\",\"phase\":1,\"id\":\"%s\"}",
		"{\"role\":\"source\",\"id\":\"%s\"}",
		"{\"role\":\"source\",\"phase\":\"1\",\"id\":\"%s\"}",
	};
	struct host *h = *state;
	gw_autofree char *path = gw_path("%s/journal.json", h->dir);
	struct gw_journal back;

	for (size_t i = 0; i < GW_ARRAY_SIZE(formats); i++) {
		char text[128];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(text, sizeof(text), formats[i], id);
#pragma GCC diagnostic pop
		assert_int_equal(gw_write_file(path, text), 0);
		if (gw_journal_load(&h->paths, "web1", &back) != -EINVAL)
			fail_msg("accepted: %s", text);
	}
}

static void lock_is_for_one(void **state)
{
	struct host *h = *state;
	int fd = gw_vm_lock(&h->paths, "web1");
	int status;
	pid_t child;

	assert_true(fd >= 0);
	assert_int_equal(gw_vm_lock(&h->paths, "web1"), -EBUSY);
	assert_message("another operation on VM 'web1' is under way");
	close(fd);
	/* It ends with its holder, however that ends. */
	child = fork();
	if (child == 0)
		_exit(gw_vm_lock(&h->paths, "web1") < 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	fd = gw_vm_lock(&h->paths, "web1");
	assert_true(fd >= 0);
	close(fd);
}

static void outcomes_are_kept(void **state)
{
	struct host *h = *state;
	const uint8_t id[GW_ID_LEN] = { 9 }, other[GW_ID_LEN] = { 10 };
	gw_autofree char *path = NULL;
	char text[2 * GW_ID_LEN + 1];

	assert_int_equal(gw_settled_load(&h->paths, id), 0);
	for (unsigned int o = GW_OUTCOME_ABORTED; o <= GW_OUTCOME_ENDED; o++) {
		assert_int_equal(gw_settled_save(&h->paths, id, (enum gw_outcome)o), 0);
		assert_int_equal(gw_settled_load(&h->paths, id), o);
		assert_int_equal(gw_settled_load(&h->paths, other), 0);
	}
	/* That nothing is known is no outcome, and yet remembered, until one is known. */
	assert_int_equal(gw_settled_save(&h->paths, other, GW_OUTCOME_UNKNOWN), 0);
	assert_int_equal(gw_settled_load(&h->paths, other), 0);
	assert_true(gw_settled_doubted(&h->paths, other));
	assert_false(gw_settled_doubted(&h->paths, id));
	assert_int_equal(gw_settled_save(&h->paths, other, GW_OUTCOME_ABORTED), 0);
	assert_false(gw_settled_doubted(&h->paths, other));
	gw_id_format(id, text);
	path = gw_path("%s/settled/%s", h->paths.run, text);
	assert_int_equal(gw_write_file(path, "running "), 0);
	assert_int_equal(gw_settled_load(&h->paths, id), 0);
}

/* An attached VM's RAM files are the user's. */
static void removal(void **state)
{
	struct host *h = *state;
	gw_autofree char *a = gw_vm_ram_path(&h->paths, &h->vm.def, 0);
	gw_autofree char *users = gw_path("%s/web1.a", h->paths.ram);

	assert_int_equal(gw_vm_make_ram_folder(&h->paths, &h->vm.def), 0);
	assert_int_equal(gw_write_file(a, "memory"), 0);
	assert_int_equal(gw_write_file(users, "memory"), 0);
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	assert_int_equal(gw_vm_remove(&h->paths, &h->vm.def, true), 0);
	assert_int_equal(access(h->dir, F_OK), -1);
	assert_int_equal(access(users, F_OK), 0);
	assert_int_equal(gw_vm_remove(&h->paths, &h->vm.def, false), 0);
	assert_int_equal(access(a, F_OK), -1);
	assert_int_equal(access(users, F_OK), 0);
	assert_int_equal(gw_vm_remove(&h->paths, &h->vm.def, false), 0);
}

/* A VM that moves, in all its files. */
static void furnish(struct host *h)
{
	static const char *const files[] = { "lock", "qemu.log", "qemu.pid", "qmp.sock", "ledger" };
	const struct gw_journal j = { .role = GW_ROLE_SOURCE, .phase = GW_SOURCE_COMMITTING };

	if (mkdir(h->dir, 0700))
		assert_int_equal(errno, EEXIST);
	for (size_t i = 0; i < GW_ARRAY_SIZE(files); i++) {
		gw_autofree char *path = gw_path("%s/%s", h->dir, files[i]);

		assert_int_equal(gw_write_file(path, "x"), 0);
	}
	assert_int_equal(gw_vm_make_ram_folder(&h->paths, &h->vm.def), 0);
	for (unsigned int i = 0; i < h->vm.def.nr_memory; i++) {
		gw_autofree char *ram = gw_vm_ram_path(&h->paths, &h->vm.def, i);

		assert_int_equal(gw_write_file(ram, "memory"), 0);
	}
	assert_int_equal(gw_vm_save(&h->paths, &h->vm), 0);
	assert_int_equal(gw_journal_save(&h->paths, "web1", &j), 0);
}

static int remove_it(const struct host *h, struct vm *vm)
{
	(void)vm;
	return gw_vm_remove(&h->paths, &h->vm.def, false);
}

/* Killed anywhere, it leaves a VM that can be removed again, or a name that is free. */
static void removal_can_be_killed(void **state)
{
	struct host *h = *state;
	gw_autofree char *vms = gw_path("%s/vm", h->paths.run);
	unsigned int whole = 0, n = 0;

	for (;; n++) {
		bool killed;

		furnish(h);
		killed = killed_at(n, remove_it, h, NULL);
		if (!access(h->dir, F_OK)) {
			struct gw_journal j;
			struct gw_vm vm;

			whole++;
			assert_int_equal(gw_journal_load(&h->paths, "web1", &j), 0);
			assert_int_equal(gw_vm_load(&h->paths, "web1", &vm), 0);
			assert_int_equal(gw_vm_remove(&h->paths, &vm.def, false), 0);
			gw_vm_free(&vm);
		}
		gw_vm_sweep(&h->paths);
		assert_int_equal(rmdir(vms), 0); /* nothing was left in it */
		assert_int_equal(mkdir(vms, 0700), 0);
		for (unsigned int i = 0; i < h->vm.def.nr_memory; i++) {
			gw_autofree char *ram = gw_vm_ram_path(&h->paths, &h->vm.def, i);

			assert_int_equal(access(ram, F_OK), -1);
		}
		if (!killed)
			break;
	}
	assert_true(whole && n > whole);
}

#define host_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		host_test(folders_are_private),
		host_test(open_folders_stop_the_start),
		host_test(a_vm_in_a_strange_folder_is_not_read),
		host_test(names_never_meet),
		host_test(vm_round_trip),
		host_test(legs_are_hints),
		host_test(record_of_before),
		host_test(no_vm),
		host_test(damaged_vm),
		host_test(journal_round_trip),
		host_test(damaged_journal),
		host_test(lock_is_for_one),
		host_test(outcomes_are_kept),
		host_test(removal),
		host_test(removal_can_be_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
