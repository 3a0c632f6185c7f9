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
#include "words.h"

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

/* Keep the backends by id: page numbers run over them in this order, on every host. */
static int add_memory(struct gw_definition *def, const char *id, uint64_t size)
{
	unsigned int at = def->nr_memory;

	if (!gw_name_ok(id) || strlen(id) >= sizeof(def->memory[0].id))
		return gw_fail(-EINVAL, "a memory backend needs an id of letters and digits");
	if (at == GW_MEMORY_BLOCKS_MAX)
		return gw_fail(-EINVAL, "a VM with more than %d memory backends",
			       GW_MEMORY_BLOCKS_MAX);
	for (; at && strcmp(def->memory[at - 1].id, id) > 0; at--)
		def->memory[at] = def->memory[at - 1];
	snprintf(def->memory[at].id, sizeof(def->memory[at].id), "%s", id);
	def->memory[at].size = size;
	def->nr_memory++;
	return 0;
}

/* The memory backend that "-object VALUE" makes, or NULL. */
static json_t *backend_of(const char *value)
{
	json_t *object = gw_word_value(value, "qom-type");
	const char *type = json_string_value(json_object_get(object, "qom-type"));

	if (type && !strncmp(type, "memory-backend-", 15))
		return object;
	json_decref(object);
	return NULL;
}

static int size_of(const json_t *backend, uint64_t *size)
{
	const json_t *value = json_object_get(backend, "size");

	*size = (uint64_t)json_integer_value(value);
	if (json_is_integer(value))
		return 0;
	return gw_parse_size(json_is_string(value) ? json_string_value(value) : "", size);
}

/* Whether "-m VALUE" says how much may be plugged in, and not how much there is. */
static bool is_room_only(const char *value)
{
	json_t *parts = gw_word_value(value, "size");
	const bool is = json_object_size(parts) && !json_object_get(parts, "size");

	json_decref(parts);
	return is;
}

/*
 * What the user says that Godwit says itself is refused, and his own memory
 * backends (of DIMMs, of virtio-mem) become RAM files like the first.
 */
static int take_words(struct gw_definition *def, json_t *argv)
{
	static const struct {
		const char *option, *why;
	} ours[] = {
		{ "m", "give the size with --memory" },
		{ "mem-path", "Godwit makes the RAM file itself" },
		{ "daemonize", "Godwit runs QEMU in the background itself" },
		{ "preconfig", "Godwit waits for a QEMU that has its machine" },
		{ "incoming", "use 'godwit migrate' to move a VM here" },
		{ "S", "start the VM running; pause it afterwards if you must" },
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < json_array_size(argv); i++) {
		const char *option = i ? gw_words_option(argv, i) : "";
		const char *value = json_string_value(json_array_get(argv, i + 1));
		json_t *backend = strcmp(option, "object") ? NULL : backend_of(value);
		uint64_t size;

		for (size_t k = 0; !rc && k < GW_ARRAY_SIZE(ours); k++)
			if (!strcmp(option, ours[k].option) && (k || !is_room_only(value)))
				rc = gw_fail(-EINVAL, "leave -%s out of the command: %s",
					     ours[k].option, ours[k].why);
		if (!rc && backend) {
			rc = size_of(backend, &size);
			if (!rc)
				rc = add_memory(def,
						json_string_value(json_object_get(backend, "id")),
						size);
			if (rc)
				gw_fail_prefix(rc, "-object %.200s: ", value);
			i++;
		} else if (!rc) {
			json_array_append(def->argv, json_array_get(argv, i));
		}
		json_decref(backend);
	}
	return rc;
}

int gw_definition_run(struct gw_definition *def, const char *name, uint64_t memory, json_t *argv,
		      const char *cwd)
{
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	memset(def, 0, sizeof(*def));
	snprintf(def->name, sizeof(def->name), "%s", name);
	def->argv = json_array();
	def->cwd = strdup(cwd);
	def->managed = true;
	def->discards = argv_discards(argv);
	if (!memory || memory % GW_RAM_GRAIN)
		return gw_fail(
			-EINVAL,
			"--memory %llu: the size must be a multiple of 8 KiB; units are K, M, "
			"G, T, as in --memory %lluM",
			(unsigned long long)memory,
			memory && memory < 1 << 20 ? (unsigned long long)memory : 512ULL);
	add_memory(def, RAM_ID, memory);
	rc = take_words(def, argv);
	if (!rc)
		rc = check(def);
	return rc ? rc : gw_words_movable(argv);
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

/* Whether "-object VALUE" makes one of the backends in @memory, in whichever form; @seen: which. */
static bool makes_backend(const char *value, const struct gw_memory *memory, bool seen[])
{
	json_t *backend = backend_of(value);
	bool makes = false;

	for (unsigned int i = 0; backend && i < memory->nr_blocks; i++)
		if (gw_word_is(backend, "id", memory->blocks[i].id))
			makes = seen[i] = true;
	json_decref(backend);
	return makes;
}

int gw_definition_attach(struct gw_definition *def, const char *name, pid_t pid,
			 const char *qmp_path, const struct gw_memory *memory,
			 const struct gw_guest_facts *facts)
{
	gw_autofree char *path = gw_path("/proc/%d/cmdline", (int)pid);
	gw_autofree char *cwd_link = gw_path("/proc/%d/cwd", (int)pid);
	gw_autofree char *cmdline = NULL;
	char cwd[4096];
	size_t len;
	ssize_t n = readlink(cwd_link, cwd, sizeof(cwd) - 1);
	bool seen[GW_MEMORY_BLOCKS_MAX] = { false };
	const char *arg, *next, *readconfig = NULL;
	int rc;

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
	for (arg = cmdline; arg < cmdline + len; arg = next) {
		const char *option = gw_word_option(arg);
		gw_autofree char *mine = NULL;

		next = arg + strlen(arg) + 1;
		if (!strcmp(option, "daemonize") || !strcmp(option, "S"))
			continue;
		/* Where it began is not where it is now. */
		if (!strcmp(option, "incoming") || !strcmp(option, "pidfile") ||
		    !strcmp(option, "loadvm") ||
		    (!strcmp(option, "object") && next < cmdline + len &&
		     makes_backend(next, memory, seen))) {
			next = next < cmdline + len ? next + strlen(next) + 1 : next;
			continue;
		}
		if (!strcmp(option, "readconfig") && next < cmdline + len)
			readconfig = next;
		mine = replace_all(arg, qmp_path, "{dir}/user.qmp");
		json_array_append_new(def->argv, json_string(mine));
	}
	for (unsigned int i = 0; i < memory->nr_blocks; i++) {
		snprintf(def->memory[i].id, sizeof(def->memory[i].id), "%s", memory->blocks[i].id);
		def->memory[i].size = memory->blocks[i].size;
	}
	def->nr_memory = memory->nr_blocks;
	rc = check(def);
	for (unsigned int i = 0; !rc && i < memory->nr_blocks; i++)
		if (!seen[i])
			rc = gw_fail(
				-ENOTSUP,
				"memory backend '%s' is not on QEMU's command line%s%s%s: only "
				"there can Godwit give it another RAM file on another host",
				memory->blocks[i].id,
				readconfig ? ", but perhaps in " : " (plugged in later?)",
				readconfig ? readconfig : "", readconfig ? " (-readconfig)" : "");
	return rc;
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
	if (json_array_size(memory) > GW_MEMORY_BLOCKS_MAX || !cwd || cwd[0] != '/' || !machine ||
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

uint64_t gw_definition_bytes(const struct gw_definition *def)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < def->nr_memory; i++)
		bytes += def->memory[i].size;
	return bytes;
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

/* Which backend is called @id; the first if none is, as with a peer's. */
static unsigned int index_of(const struct gw_definition *def, const char *id)
{
	for (unsigned int i = 0; i < def->nr_memory; i++)
		if (!strcmp(def->memory[i].id, id))
			return i;
	return 0;
}

char **gw_definition_command(const struct gw_definition *def, const char *dir,
			     char *const ram_paths[], int qmp_fd, bool incoming)
{
	size_t user = json_array_size(def->argv), n = 0;
	const unsigned int main_ram = index_of(def, RAM_ID);
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
		/* Where QEMU maps it decides whether the guest gets huge pages (decision 4). */
		argv[n++] = gw_path("memory-backend-file,id=%s,size=%llu,mem-path=%s,share=on,"
				    "align=2M",
				    def->memory[i].id, (unsigned long long)def->memory[i].size,
				    path);
	}
	if (def->managed) {
		argv[n++] = strdup("-m");
		argv[n++] = gw_path("%lluB", (unsigned long long)def->memory[main_ram].size);
		argv[n++] = strdup("-machine");
		argv[n++] = gw_path("memory-backend=%s", def->memory[main_ram].id);
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
