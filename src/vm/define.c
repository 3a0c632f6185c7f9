// SPDX-License-Identifier: GPL-2.0-or-later
/* define.c - definitions and command lines; see define.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "define.h"
#include "error.h"
#include "io.h"

#define RAM_ID	 "godwit-ram"
#define ARGS_MAX 4096

bool gw_name_ok(const char *name)
{
	size_t len = name ? strlen(name) : 0;

	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			len = 0;
	if (len && len < GW_NAME_MAX && name[0] != '.' && name[0] != '-')
		return true;
	gw_fail(-EINVAL, "'%.80s' cannot name a VM: use up to %d letters, digits, '.', '_', '-'",
		name ? name : "", GW_NAME_MAX - 1);
	return false;
}

/* The option of argument @i without its dashes ("-m" and "--m" are one), or "". */
static const char *option_at(const json_t *argv, size_t i)
{
	const char *arg = json_string_value(json_array_get(argv, i));

	if (!arg || arg[0] != '-')
		return "";
	return arg[1] == '-' ? arg + 2 : arg + 1;
}

/* Only a QEMU is started for a peer, whatever its definition says. */
static bool is_qemu(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	const char *base = slash ? slash + 1 : path;

	return base && (!strncmp(base, "qemu-system-", 12) || !strcmp(base, "qemu-kvm") ||
			!strcmp(base, "kvm"));
}

/* Devices by which a guest gives back single pages (F8, track/holes.c). */
static bool argv_discards(const json_t *argv)
{
	const json_t *arg;
	size_t i;

	json_array_foreach(argv, i, arg) {
		const char *text = json_string_value(arg);

		if (text && (strstr(text, "balloon") || strstr(text, "virtio-mem")))
			return true;
	}
	return false;
}

static int check(const struct gw_definition *def)
{
	uint64_t total = 0;
	const json_t *arg;
	size_t i;

	if (!gw_name_ok(def->name))
		return -EINVAL;
	if (!json_array_size(def->argv) || json_array_size(def->argv) > ARGS_MAX)
		return gw_fail(-EINVAL, "a QEMU command line of %zu words",
			       json_array_size(def->argv));
	json_array_foreach(def->argv, i, arg)
		if (!json_is_string(arg))
			return gw_fail(-EINVAL, "a QEMU command line with a word that is no text");
	if (!is_qemu(json_string_value(json_array_get(def->argv, 0))))
		return gw_fail(-EINVAL,
			       "'%s' is not a QEMU: the command must be qemu-system-ARCH or kvm",
			       json_string_value(json_array_get(def->argv, 0)));
	if (!def->nr_memory)
		return gw_fail(-EINVAL, "a VM without memory");
	for (unsigned int m = 0; m < def->nr_memory; m++) {
		if (!gw_name_ok(def->memory[m].id) || !def->memory[m].size ||
		    def->memory[m].size % GW_PAGE_SIZE || def->memory[m].size > INT64_MAX - total)
			return gw_fail(-EINVAL, "memory backend '%s' of %llu bytes",
				       def->memory[m].id, (unsigned long long)def->memory[m].size);
		total += def->memory[m].size;
		for (unsigned int k = 0; k < m; k++)
			if (!strcmp(def->memory[k].id, def->memory[m].id))
				return gw_fail(-EINVAL, "two memory backends '%s'",
					       def->memory[m].id);
	}
	return 0;
}

int gw_definition_run(struct gw_definition *def, const char *name, uint64_t memory, json_t *argv,
		      const char *cwd)
{
	static const struct {
		const char *option, *why;
	} ours[] = {
		{ "m", "give the size with --memory" },
		{ "mem-path", "Godwit makes the RAM file itself" },
		{ "daemonize", "Godwit runs QEMU in the background itself" },
		{ "incoming", "use 'godwit migrate' to move a VM here" },
		{ "S", "start the VM running; pause it afterwards if you must" },
	};

	if (!gw_name_ok(name))
		return -EINVAL;
	memset(def, 0, sizeof(*def));
	snprintf(def->name, sizeof(def->name), "%s", name);
	def->argv = json_incref(argv);
	def->cwd = strdup(cwd);
	def->managed = true;
	def->discards = argv_discards(argv);
	snprintf(def->memory[0].id, sizeof(def->memory[0].id), RAM_ID);
	def->memory[0].size = memory;
	def->nr_memory = 1;
	for (size_t i = 1; i < json_array_size(argv); i++)
		for (size_t k = 0; k < GW_ARRAY_SIZE(ours); k++)
			if (!strcmp(option_at(argv, i), ours[k].option))
				return gw_fail(-EINVAL, "leave -%s out of the command: %s",
					       ours[k].option, ours[k].why);
	return check(def);
}

/* Whether "-object VALUE" makes one of the backends in @ram. */
static bool makes_backend(const char *value, const struct gw_ram *ram)
{
	if (!value || strncmp(value, "memory-backend-", 15) != 0)
		return false;
	for (unsigned int i = 0; i < ram->nr_files; i++) {
		gw_autofree char *id = gw_path("id=%s", ram->files[i].id);
		const char *at = strstr(value, id);

		if (at && (at[strlen(id)] == ',' || !at[strlen(id)]))
			return true;
	}
	return false;
}

/* @text with every @from replaced by @to; caller frees. */
static char *replace_all(const char *text, const char *from, const char *to)
{
	size_t room = 1, step = strlen(from);
	char *out, *at;

	for (const char *p = text; *p; p++)
		room += strncmp(p, from, step) ? 1 : strlen(to) + 1;
	out = at = malloc(room + strlen(to));
	if (!out)
		abort();
	while (*text) {
		if (step && !strncmp(text, from, step)) {
			at = stpcpy(at, to);
			text += step;
		} else {
			*at++ = *text++;
		}
	}
	*at = '\0';
	return out;
}

int gw_definition_attach(struct gw_definition *def, const char *name, pid_t pid,
			 const char *qmp_path, const struct gw_ram *ram,
			 const struct gw_guest_facts *facts)
{
	gw_autofree char *path = gw_path("/proc/%d/cmdline", (int)pid);
	gw_autofree char *cwd_link = gw_path("/proc/%d/cwd", (int)pid);
	gw_autofree char *cmdline = NULL;
	char cwd[4096];
	size_t len;
	ssize_t n = readlink(cwd_link, cwd, sizeof(cwd) - 1);
	bool take_next = false, object_next = false;

	memset(def, 0, sizeof(*def));
	if (!gw_name_ok(name))
		return -EINVAL;
	cmdline = gw_read_file(path, 1 << 20, &len);
	if (!cmdline || n < 0)
		return gw_fail(-ESRCH, "QEMU (process %d) is gone", (int)pid);
	cwd[n] = '\0';
	snprintf(def->name, sizeof(def->name), "%s", name);
	snprintf(def->machine, sizeof(def->machine), "%s", facts->machine);
	def->cwd = strdup(cwd);
	def->argv = json_array();
	def->discards = facts->discards;
	for (const char *arg = cmdline; arg < cmdline + len; arg += strlen(arg) + 1) {
		const char *option = arg[0] == '-' ? arg + 1 + (arg[1] == '-') : "";
		gw_autofree char *mine = NULL;

		if (take_next) {
			take_next = false;
			continue;
		}
		if (object_next) {
			object_next = false;
			if (makes_backend(arg, ram))
				continue;
			json_array_append_new(def->argv, json_string("-object"));
		} else if (!strcmp(option, "object")) {
			object_next = true;
			continue;
		}
		if (!strcmp(option, "daemonize") || !strcmp(option, "S"))
			continue;
		if (!strcmp(option, "incoming") || !strcmp(option, "pidfile")) {
			take_next = true;
			continue;
		}
		mine = replace_all(arg, qmp_path, "{dir}/user.qmp");
		json_array_append_new(def->argv, json_string(mine));
	}
	for (unsigned int i = 0; i < ram->nr_files; i++) {
		snprintf(def->memory[i].id, sizeof(def->memory[i].id), "%s", ram->files[i].id);
		def->memory[i].size = ram->files[i].size;
	}
	def->nr_memory = ram->nr_files;
	return check(def);
}

int gw_definition_parse(struct gw_definition *def, const json_t *json)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	const char *cwd = json_string_value(json_object_get(json, "cwd"));
	const char *machine = json_string_value(json_object_get(json, "machine"));
	const json_t *memory = json_object_get(json, "memory"), *entry;
	size_t i;

	memset(def, 0, sizeof(*def));
	if (!gw_name_ok(name))
		return -EINVAL;
	if (json_array_size(memory) > GW_RAM_FILES_MAX || !cwd || cwd[0] != '/' || !machine ||
	    strlen(machine) >= sizeof(def->machine))
		return gw_fail(-EINVAL, "a VM definition with fields missing or out of range");
	snprintf(def->name, sizeof(def->name), "%s", name);
	snprintf(def->machine, sizeof(def->machine), "%s", machine);
	json_array_foreach(memory, i, entry) {
		const char *id = json_string_value(json_object_get(entry, "id"));

		if (!gw_name_ok(id))
			return -EINVAL;
		snprintf(def->memory[i].id, sizeof(def->memory[i].id), "%s", id);
		def->memory[i].size = (uint64_t)json_integer_value(json_object_get(entry, "size"));
		def->nr_memory++;
	}
	def->managed = json_is_true(json_object_get(json, "managed"));
	def->discards = json_is_true(json_object_get(json, "discards"));
	def->argv = json_incref(json_object_get(json, "argv"));
	def->cwd = strdup(cwd);
	i = check(def) ? 1 : 0;
	if (i)
		gw_definition_free(def);
	return i ? -EINVAL : 0;
}

json_t *gw_definition_json(const struct gw_definition *def)
{
	json_t *memory = json_array();

	for (unsigned int i = 0; i < def->nr_memory; i++)
		json_array_append_new(memory, json_pack("{s:s,s:I}", "id", def->memory[i].id,
							"size", (json_int_t)def->memory[i].size));
	return json_pack("{s:s,s:O,s:s,s:s,s:b,s:b,s:o}", "name", def->name, "argv", def->argv,
			 "cwd", def->cwd, "machine", def->machine, "managed", def->managed,
			 "discards", def->discards, "memory", memory);
}

void gw_definition_free(struct gw_definition *def)
{
	json_decref(def->argv);
	free(def->cwd);
	memset(def, 0, sizeof(*def));
}

void gw_strings_free(char **strings)
{
	for (size_t i = 0; strings && strings[i]; i++)
		free(strings[i]);
	free(strings);
}

char **gw_definition_command(const struct gw_definition *def, const char *dir,
			     char *const ram_paths[], int qmp_fd, bool incoming)
{
	size_t user = json_array_size(def->argv), n = 0;
	char **argv = calloc(user + 2 * (size_t)def->nr_memory + 16, sizeof(*argv));

	if (!argv)
		abort();
	for (size_t i = 0; i < user; i++)
		argv[n++] = replace_all(json_string_value(json_array_get(def->argv, i)), "{dir}",
					dir);
	for (unsigned int i = 0; i < def->nr_memory; i++) {
		/* QEMU's option syntax doubles commas in values. */
		gw_autofree char *path = replace_all(ram_paths[i], ",", ",,");

		argv[n++] = strdup("-object");
		argv[n++] = gw_path("memory-backend-file,id=%s,size=%llu,mem-path=%s,share=on",
				    def->memory[i].id, (unsigned long long)def->memory[i].size,
				    path);
	}
	if (def->managed) {
		argv[n++] = strdup("-m");
		argv[n++] = gw_path("%lluB", (unsigned long long)def->memory[0].size);
		argv[n++] = strdup("-machine");
		argv[n++] = gw_path("memory-backend=%s", def->memory[0].id);
	}
	if (def->machine[0]) {
		/* The alias ("q35") may mean another version where this QEMU is newer. */
		argv[n++] = strdup("-machine");
		argv[n++] = gw_path("type=%s", def->machine);
	}
	argv[n++] = strdup("-chardev");
	argv[n++] = gw_path("socket,id=godwit-qmp,fd=%d,server=on,wait=off", qmp_fd);
	argv[n++] = strdup("-mon");
	argv[n++] = strdup("chardev=godwit-qmp,mode=control");
	if (incoming) {
		argv[n++] = strdup("-incoming");
		argv[n++] = strdup("defer");
		argv[n++] = strdup("-S");
	}
	return argv;
}
