// SPDX-License-Identifier: GPL-2.0-or-later
/* record.c - VM records, journals and outcomes; see record.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "record.h"
#include "split_record.h"

#define RECORD_MAX (4U << 20)

/* Begins the name of a folder in removal, after a dot. */
#define GW_GONE "gone-"

void gw_vm_free(struct gw_vm *vm)
{
	gw_definition_free(&vm->def);
	free(vm->qmp);
	json_decref(vm->blocks);
	json_decref(vm->split);
	memset(vm, 0, sizeof(*vm));
}

static int save_json(const char *path, json_t *json)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;

	json_decref(json);
	return text ? gw_write_file(path, text) : gw_fail(-ENOMEM, "%s: no memory", path);
}

static json_t *load_json(const char *path, int *rc)
{
	gw_autofree char *text = NULL;
	gw_autofd int fd = -1;
	json_t *json;

	*rc = 0;
	fd = gw_own_open(path, O_RDONLY, 0);
	if (fd < 0) {
		*rc = fd;
		return NULL;
	}
	text = gw_read_fd(fd, path, RECORD_MAX, NULL);
	json = text ? json_loads(text, 0, NULL) : NULL;
	if (!json)
		*rc = gw_fail(-EINVAL, "%s is damaged", path);
	return json;
}

int gw_vm_save(const struct gw_paths *p, const struct gw_vm *vm)
{
	gw_autofree char *dir = gw_vm_dir(p, vm->def.name);
	gw_autofree char *path = gw_path("%s/vm.json", dir);
	char secret[2 * GW_SECRET_LEN + 1];

	gw_secret_format(vm->secret, secret);
	return save_json(path,
			 json_pack("{s:o,s:i,s:I,s:s,s:b,s:o,s:s*,s:b,s:o,s:O?,s:O*}", "definition",
				   gw_definition_json(&vm->def), "pid", (int)vm->process.pid,
				   "pid-start", (json_int_t)vm->process.start, "qmp", vm->qmp,
				   "attached", vm->attached, "watch", gw_watch_json(&vm->watch),
				   "secret", vm->has_secret ? secret : NULL, "ram-folder",
				   !vm->def.flat, "legs", gw_legs_json(&vm->legs), "blocks",
				   vm->blocks, "split", vm->split));
}

uint64_t gw_vm_promised(const struct gw_vm *vm)
{
	const uint64_t all = gw_definition_bytes(&vm->def);
	struct gw_split_record r;

	if (!vm->split || gw_split_record_parse(&r, vm->split) || r.merging)
		return all;
	return r.main_memory < all ? r.main_memory : all;
}

int gw_vm_need_secret(const struct gw_paths *p, struct gw_vm *vm)
{
	int rc = vm->has_secret ? 0 : gw_secret_make(vm->secret);

	if (rc || vm->has_secret)
		return rc;
	vm->has_secret = true;
	return gw_vm_save(p, vm);
}

/* Records of before had one descriptor, "uffd": a VM that arrived then is tracked still. */
static void load_watch(struct gw_memory_watch *w, const json_t *json)
{
	const json_int_t uffd = json_integer_value(json_object_get(json, "uffd"));

	gw_watch_parse(w, json_object_get(json, "watch"));
	if (!json_object_get(json, "watch") && uffd > 0)
		*w = (struct gw_memory_watch){
			.mode = GW_WATCH_TRACKING,
			.numbers = { (int)uffd },
			.nr = 1,
			.since_arrival = json_is_true(json_object_get(json, "since-arrival")),
		};
}

static int damaged_vm(const char *path)
{
	return gw_fail(-EINVAL,
		       "%s is damaged, so godwitd leaves that VM alone: end its QEMU yourself, if "
		       "it has one, and remove the folder",
		       path);
}

int gw_vm_load(const struct gw_paths *p, const char *name, struct gw_vm *vm)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_path("%s/vm.json", dir);
	const char *qmp, *secret;
	int rc;
	json_t *json = load_json(path, &rc);

	memset(vm, 0, sizeof(*vm));
	if (rc)
		return rc == -EINVAL ? damaged_vm(path) : rc;
	rc = gw_definition_parse(&vm->def, json_object_get(json, "definition"));
	qmp = json_string_value(json_object_get(json, "qmp"));
	vm->process.pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
	vm->process.start = (uint64_t)json_integer_value(json_object_get(json, "pid-start"));
	vm->attached = json_is_true(json_object_get(json, "attached"));
	load_watch(&vm->watch, json);
	secret = json_string_value(json_object_get(json, "secret"));
	vm->has_secret = secret && !gw_secret_parse(secret, vm->secret);
	/* An older godwitd, under which the VM started, did not say. */
	vm->def.flat = !json_is_true(json_object_get(json, "ram-folder"));
	gw_legs_parse(&vm->legs, json_object_get(json, "legs"));
	vm->blocks = json_incref(json_object_get(json, "blocks"));
	vm->split = json_incref(json_object_get(json, "split"));
	vm->qmp = qmp ? strdup(qmp) : NULL;
	json_decref(json);
	if (!rc && !vm->qmp)
		rc = -EINVAL;
	if (rc)
		gw_vm_free(vm);
	return rc ? damaged_vm(path) : 0;
}

char *gw_vm_ledger_path(const struct gw_paths *p, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);

	return gw_path("%s/ledger", dir);
}

void gw_vm_describe(struct gw_vm *vm, const struct gw_ram *ram)
{
	json_decref(vm->blocks);
	vm->blocks = json_array();
	for (unsigned int i = 0; i < ram->nr_ranges; i++) {
		const struct gw_ram_range *b = &ram->ranges[i];

		json_array_append_new(vm->blocks,
				      json_pack("{s:s,s:I,s:I,s:I}", "backend",
						ram->memory.blocks[b->block].id, "address",
						(json_int_t)b->gpa, "size", (json_int_t)b->size,
						"offset", (json_int_t)b->offset));
	}
}

/* Where a folder lies that nobody shall find any more; free(). */
static char *gone_path(const struct gw_paths *p, const char *name)
{
	return gw_path("%s/vm/." GW_GONE "%s", p->run, name);
}

/* No user's file is in this folder. */
static int remove_ram(const char *folder, const char *name)
{
	gw_autofree char *dir = gw_ram_file_folder(folder, name);
	const int rc = gw_remove_tree(dir);

	*strrchr(dir, '/') = '\0';
	rmdir(dir); /* if it was the last */
	return rc;
}

int gw_vm_remove(const struct gw_paths *p, const struct gw_definition *def, bool attached)
{
	gw_autofree char *dir = gw_vm_dir(p, def->name);
	gw_autofree char *gone = gone_path(p, def->name);
	int rc;

	for (unsigned int i = 0; !attached && def->flat && i < def->nr_memory; i++) {
		gw_autofree char *ram = gw_vm_ram_path(p, def, i);

		if (unlink(ram) && errno != ENOENT)
			return gw_fail(-errno, "%s: %s", ram, strerror(errno));
	}
	/* By its name: whoever removes a VM whose record is damaged knows no more. */
	rc = remove_ram(p->ram, def->name);
	if (!rc)
		rc = remove_ram(p->ram_small, def->name);
	if (rc)
		return rc;
	/* What an earlier removal left there. */
	rc = gw_remove_tree(gone);
	if (!rc && rename(dir, gone) && errno != ENOENT)
		rc = gw_fail(-errno, "%s: %s", dir, strerror(errno));
	return rc ? rc : gw_remove_tree(gone);
}

void gw_vm_sweep(const struct gw_paths *p)
{
	gw_autofree char *path = gw_path("%s/vm", p->run);
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		gw_autofree char *gone = NULL;

		if (strncmp(e->d_name, "." GW_GONE, strlen("." GW_GONE)) != 0)
			continue;
		gone = gw_path("%s/%s", path, e->d_name);
		if (gw_remove_tree(gone))
			gw_err("%s", gw_error());
	}
	if (dir)
		closedir(dir);
}

int gw_vm_lock(const struct gw_paths *p, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_path("%s/lock", dir);
	gw_autofd int fd = gw_own_open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return gw_fail(-EBUSY, "another operation on VM '%s' is under way", name);
	return gw_steal_fd(&fd);
}

int gw_journal_save(const struct gw_paths *p, const char *name, const struct gw_journal *j)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_path("%s/journal.json", dir);
	char id[2 * GW_ID_LEN + 1], split[2 * GW_ID_LEN + 1];

	gw_id_format(j->id, id);
	gw_id_format(j->split_id, split);
	return save_json(
		path,
		json_pack("{s:s,s:i,s:s,s:s,s:b,s:i,s:I,s:s,s:s,s:I,s:s,s:b,s:b,s:I,s:s*,s:s*}",
			  "role", j->role == GW_ROLE_SOURCE ? "source" : "destination", "phase",
			  j->phase, "id", id, "peer", j->peer, "was-running", j->was_running,
			  "paging", (int)j->paging, "max-bandwidth", (json_int_t)j->max_bandwidth,
			  "settings", j->settings, "host", j->host, "since", (json_int_t)j->since,
			  "why", j->why, "lost", j->lost, "keeps", j->keeps, "image",
			  (json_int_t)j->image, "split-to", j->split_to[0] ? j->split_to : NULL,
			  "split-id", j->split_to[0] ? split : NULL));
}

int gw_journal_load(const struct gw_paths *p, const char *name, struct gw_journal *j)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_path("%s/journal.json", dir);
	const char *role, *peer, *settings;
	const json_t *phase;
	json_int_t number;
	bool known;
	int rc;
	json_t *json = load_json(path, &rc);

	memset(j, 0, sizeof(*j));
	if (rc)
		return rc;
	role = json_string_value(json_object_get(json, "role"));
	peer = json_string_value(json_object_get(json, "peer"));
	j->role = role && !strcmp(role, "source") ? GW_ROLE_SOURCE : GW_ROLE_DEST;
	phase = json_object_get(json, "phase");
	/* One end's journal must never be taken for the other's, nor its first phase assumed. */
	known = role && (!strcmp(role, "source") || !strcmp(role, "destination")) &&
		json_is_integer(phase);
	j->phase = (int)json_integer_value(phase);
	j->was_running = json_is_true(json_object_get(json, "was-running"));
	number = json_integer_value(json_object_get(json, "paging"));
	j->paging = number >= GW_PAGING_MIN && number <= GW_PAGING_MAX ? (unsigned int)number : 0;
	number = json_integer_value(json_object_get(json, "max-bandwidth"));
	j->max_bandwidth = number > 0 ? (uint64_t)number : 0;
	gw_copy_whole(j->peer, sizeof(j->peer), peer);
	settings = json_string_value(json_object_get(json, "settings"));
	snprintf(j->settings, sizeof(j->settings), "%s", settings ? settings : "");
	gw_copy_whole(j->host, sizeof(j->host), json_string_value(json_object_get(json, "host")));
	snprintf(j->why, sizeof(j->why), "%s",
		 json_string_value(json_object_get(json, "why")) ?: "");
	j->since = json_integer_value(json_object_get(json, "since"));
	j->lost = json_is_true(json_object_get(json, "lost"));
	j->keeps = json_is_true(json_object_get(json, "keeps"));
	j->image = (uint32_t)json_integer_value(json_object_get(json, "image"));
	rc = gw_id_parse(json_string_value(json_object_get(json, "id")), j->id);
	gw_copy_whole(j->split_to, sizeof(j->split_to),
		      json_string_value(json_object_get(json, "split-to")));
	if (!rc && j->split_to[0])
		rc = gw_id_parse(json_string_value(json_object_get(json, "split-id")), j->split_id);
	json_decref(json);
	return rc || known ? rc : gw_fail(-EINVAL, "%s is damaged", path);
}

void gw_journal_gone_text(const struct gw_journal *j, const char *name, char *text, size_t len)
{
	const char *host = j->host[0] ? j->host : "?";
	const time_t since = (time_t)j->since;
	char at[64] = "";
	struct tm tm;

	if (j->since && gmtime_r(&since, &tm))
		strftime(at, sizeof(at), " since %Y-%m-%d %H:%M:%S UTC", &tm);
	if (j->role == GW_ROLE_DEST) {
		snprintf(
			text, len,
			"VM '%s' runs here, and what is missing of its memory will not come: %s. "
			"What touches that waits for ever, all else runs on: save what can be saved "
			"from within, then 'godwit stop %s', and start the VM from its disks",
			name, j->why, name);
		return;
	}
	if (j->lost) {
		snprintf(
			text, len,
			"VM '%s' runs on host '%s' (%s)%s, and what it lacks there of its memory is "
			"lost: %s. What touches that waits for ever, all else runs on: save what can "
			"be saved from within, then 'godwit stop %s' there, 'godwit recover %s "
			"--discard' here, and start the VM from its disks",
			name, host, j->peer, at, j->why, name, name);
		return;
	}
	snprintf(
		text, len,
		"VM '%s' had run on host '%s' (%s)%s, and is gone there: %s. What it wrote to its "
		"memory since is lost; its disks hold what it wrote to them. Its QEMU here is "
		"stopped, with the memory that it had when it left, which is older than its disks: "
		"'godwit recover %s --discard' removes it; then start the VM from its disks",
		name, host, j->peer, at, j->why, name);
}

void gw_journal_remove(const struct gw_paths *p, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(p, name);
	gw_autofree char *path = gw_path("%s/journal.json", dir);

	unlink(path);
}

static const char *const outcomes[] = {
	[GW_OUTCOME_UNKNOWN] = "unknown", [GW_OUTCOME_ABORTED] = "aborted",
	[GW_OUTCOME_RUNNING] = "running", [GW_OUTCOME_LOST] = "lost",
	[GW_OUTCOME_PAGING] = "paging",	  [GW_OUTCOME_ENDED] = "ended",
};

static char *settled_path(const struct gw_paths *p, const uint8_t id[GW_ID_LEN])
{
	char text[2 * GW_ID_LEN + 1];

	gw_id_format(id, text);
	return gw_path("%s/settled/%s", p->run, text);
}

int gw_settled_save(const struct gw_paths *p, const uint8_t id[GW_ID_LEN], enum gw_outcome o)
{
	gw_autofree char *path = settled_path(p, id);

	return gw_write_file(path, outcomes[o]);
}

/* What is written of it; NULL: nothing. free(). */
static char *settled_text(const struct gw_paths *p, const uint8_t id[GW_ID_LEN])
{
	gw_autofree char *path = settled_path(p, id);

	return access(path, F_OK) ? NULL : gw_own_read(path, 64, NULL);
}

bool gw_settled_any(const struct gw_paths *p, const uint8_t id[GW_ID_LEN])
{
	gw_autofree char *path = settled_path(p, id);

	return !access(path, F_OK) || errno != ENOENT;
}

bool gw_settled_doubted(const struct gw_paths *p, const uint8_t id[GW_ID_LEN])
{
	gw_autofree char *text = settled_text(p, id);

	return text && !strcmp(text, outcomes[GW_OUTCOME_UNKNOWN]);
}

enum gw_outcome gw_settled_load(const struct gw_paths *p, const uint8_t id[GW_ID_LEN])
{
	gw_autofree char *text = settled_text(p, id);

	for (size_t i = GW_OUTCOME_ABORTED; text && i < GW_ARRAY_SIZE(outcomes); i++)
		if (!strcmp(text, outcomes[i]))
			return (enum gw_outcome)i;
	return 0;
}
