// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_serve.c - the source's keeper in post-copy: a guest runs at its destination and lacks
 * pages that are here, and the worker that moved it has died (source/serve.c).
 *
 * What that one knew of the destination is gone with it, so the pages that are still missing
 * travel whole. What is kept for the guest's way back is hashed in the end (source/reuse.c).
 *
 * What is served is in the RAM files, so that QEMU, which only stands still, may have ended.
 * They lie where the VM's own always do; where those of an attached QEMU lie is written down
 * before it moves, and where they have no name, only that QEMU has them, and the worker.
 *
 * Memory that nobody has any more is lost, and never comes: the destination is told so once
 * (serve.c), and the user, until he has settled it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "own.h"
#include "source_env.h"

#define NOTE_MAX (64UL << 10)

static char *note_path(const struct gw_source_env *e)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);

	return gw_path("%s/served.json", dir);
}

int gw_serve_note(struct gw_source_env *e)
{
	gw_autofree char *path = note_path(e);
	gw_autofree char *text = NULL;
	json_t *list;

	if (!e->vm.attached)
		return 0;
	list = json_array();
	for (unsigned int i = 0; i < e->ram.memory.nr_blocks; i++) {
		gw_autofree char *link = gw_path("/proc/self/fd/%d", e->ram.files[i].fd);
		char file[4096];
		const ssize_t n = readlink(link, file, sizeof(file));
		struct stat st;

		if (n < 0 || fstat(e->ram.files[i].fd, &st)) {
			json_decref(list);
			return gw_fail(-errno, "where the RAM file of '%s' lies: %s",
				       e->ram.memory.blocks[i].id, strerror(errno));
		}
		json_array_append_new(list, json_pack("{s:s%,s:I,s:I}", "file", file, (size_t)n,
						      "device", (json_int_t)st.st_dev, "inode",
						      (json_int_t)st.st_ino));
	}
	text = json_dumps(list, JSON_COMPACT);
	json_decref(list);
	return text ? gw_write_file(path, text) : gw_fail(-ENOMEM, "%s: no memory", path);
}

static json_t *load_note(const struct gw_source_env *e)
{
	gw_autofree char *path = note_path(e);
	gw_autofree char *text = access(path, F_OK) ? NULL : gw_own_read(path, NOTE_MAX, NULL);

	return text ? json_loads(text, 0, NULL) : NULL;
}

/* The file of block @i of an attached VM, if it is still the one that it was. */
static int open_noted(const json_t *one)
{
	const char *path = json_string_value(json_object_get(one, "file"));
	gw_autofd int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	struct stat st;

	if (path && fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		return gw_fail(-errno, "RAM file %s: %s", path, strerror(errno));
	if (fd < 0 || fstat(fd, &st) ||
	    (json_int_t)st.st_dev != json_integer_value(json_object_get(one, "device")) ||
	    (json_int_t)st.st_ino != json_integer_value(json_object_get(one, "inode")))
		return gw_fail(-ENOENT, "the RAM file %s is gone",
			       path ? path : "of which nothing is noted");
	return gw_steal_fd(&fd);
}

static int open_own(const struct gw_source_env *e, unsigned int i)
{
	gw_autofree char *path = gw_vm_ram_path(e->w->paths, &e->vm.def, i);
	int fd = gw_own_open(path, O_RDONLY, 0);

	return fd < 0 ? gw_fail_prefix(fd, "RAM file ") : fd;
}

static int open_files(struct gw_source_env *e)
{
	const struct gw_definition *def = &e->vm.def;
	json_t *note = e->vm.attached ? load_note(e) : NULL;
	int rc = 0;

	for (unsigned int i = 0; !rc && i < def->nr_memory; i++) {
		gw_autofd int fd = e->vm.attached ? open_noted(json_array_get(note, i))
						  : open_own(e, i);
		struct stat st;

		rc = fd < 0 ? fd : 0;
		if (!rc && (fstat(fd, &st) || (uint64_t)st.st_size < def->memory[i].size))
			rc = gw_fail(-ENODATA, "the RAM file of backend '%s' was cut short",
				     def->memory[i].id);
		if (!rc)
			rc = gw_ram_add(&e->ram, def->memory[i].id, fd, def->memory[i].size, 0);
		if (!rc)
			gw_steal_fd(&fd);
	}
	json_decref(note);
	if (rc)
		gw_ram_close(&e->ram);
	return rc;
}

/*
 * What the guest lacks is in files, or in a QEMU that alone has them. *@lost: in neither, which
 * no later try changes.
 */
static int open_memory(struct gw_source_env *e, bool *lost)
{
	char why[GW_ERROR_MAX];
	int rc = open_files(e);

	*lost = false;
	if (!rc)
		return 0;
	snprintf(why, sizeof(why), "%s", gw_error());
	if (!gw_process_alive(&e->vm.process)) {
		*lost = rc == -ENOENT || rc == -ENODATA;
		return gw_fail(rc, "its QEMU on host '%s' has ended, and %s", e->w->host, why);
	}
	e->qmp = gw_qmp_open(e->vm.qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	rc = e->qmp ? gw_qmp_check(e->qmp, e->vm.process.pid) : -EPIPE;
	return rc ? rc : gw_attach(e->qmp, e->vm.process.pid, &e->ram, &e->facts);
}

bool gw_serve_gone(struct gw_source_env *e)
{
	bool lost;

	if (!open_memory(e, &lost))
		gw_ram_close(&e->ram);
	return lost;
}

/* What a guest lacks of memory that is lost is known of by its pages' numbers alone. */
static int imagine_memory(struct gw_source_env *e)
{
	const struct gw_definition *def = &e->vm.def;
	int rc = 0;

	for (unsigned int i = 0; !rc && i < def->nr_memory; i++)
		rc = gw_ram_add(&e->ram, def->memory[i].id, -1, def->memory[i].size, 0);
	return rc;
}

/* Whether it is lost, which is written down as soon as it is known. */
static int find_memory(struct gw_source_env *e)
{
	bool lost;
	int rc = open_memory(e, &lost);

	if (rc && !lost)
		return rc;
	if (lost) {
		snprintf(e->journal.why, sizeof(e->journal.why), "%.*s",
			 (int)sizeof(e->journal.why) - 1, gw_error());
		e->s.lost = e->journal.why;
		gw_err("VM '%s': what it lacks of its memory at %s is lost: %s", e->vm.def.name,
		       e->journal.peer, e->journal.why);
		rc = imagine_memory(e);
	}
	if (!rc && e->journal.lost != lost) {
		e->journal.lost = lost;
		rc = gw_journal_save(e->w->paths, e->vm.def.name, &e->journal);
	}
	return rc;
}

static int prepare(struct gw_source_env *e)
{
	struct gw_source *s = &e->s;
	int rc = gw_journal_load(e->w->paths, e->vm.def.name, &e->journal);

	if (!rc && (e->journal.role != GW_ROLE_SOURCE || e->journal.phase != GW_SOURCE_SERVING))
		rc = gw_fail(-EINVAL, "nobody waits for memory of VM '%s'", e->vm.def.name);
	if (!rc)
		rc = find_memory(e);
	if (rc)
		return rc;
	e->settings = gw_settings_parse(e->journal.settings);
	memcpy(s->id, e->journal.id, GW_ID_LEN);
	memcpy(s->secret, e->vm.secret, sizeof(s->secret));
	s->ops = &gw_source_live_ops;
	s->env = e;
	s->memory = &e->ram.memory;
	s->paging = e->journal.paging;
	s->stopped = e->journal.was_running; /* stays written down */
	s->params.streams = s->paging - 1;
	s->params.max_bandwidth = e->journal.max_bandwidth;
	s->params.pages.compress = GW_COMPRESS_AUTO;
	s->params.reuse = e->journal.keeps && !s->lost;
	s->holder.image = e->journal.image;
	gw_copy_whole(s->holder.host, sizeof(s->holder.host), e->journal.host);
	if (s->params.reuse)
		s->ledger = gw_departure_recall(&e->departure, e->w->paths, e->vm.def.name,
						s->memory->nr_pages);
	return 0;
}

int gw_worker_serve(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	gw_autofd int lock = -1;
	struct gw_source_env *e = gw_source_env_served(w, name, &lock);
	json_t *definition;
	int rc;

	if (!e)
		return -EIO;
	rc = prepare(e);
	if (!rc)
		rc = gw_source_env_crews(e);
	if (rc) {
		gw_source_env_free(e);
		return rc;
	}
	if (!e->s.lost)
		gw_info("VM '%s': bringing what it lacks of its memory to %s", name,
			e->journal.peer);
	definition = gw_definition_json(&e->vm.def);
	e->s.definition = definition;
	rc = gw_source_serve(&e->s);
	rc = gw_source_env_told(e, rc, result);
	json_decref(definition);
	gw_source_env_free(e);
	return rc;
}
