// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_migrate.c - the worker behind `godwit migrate`: what is asked for, and
 * what can be refused before the destination is even called.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "activate.h"
#include "agent.h"
#include "address.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "hinter.h"
#include "images.h"
#include "io.h"
#include "live.h"
#include "log.h"
#include "qemu_log.h"
#include "saved.h"
#include "source_env.h"

#define ENDING_MS     2000
#define PREPROCESS_MS 500

static unsigned int unsigned_arg(const json_t *args, const char *key, unsigned int otherwise)
{
	const json_t *value = json_object_get(args, key);

	return json_is_integer(value) ? (unsigned int)json_integer_value(value) : otherwise;
}

static bool is_true(const json_t *args, const char *key)
{
	return json_is_true(json_object_get(args, key));
}

/*
 * Streams are also the threads that hash and compress. Half of the processors,
 * because guests need them too, and never so many that a big host opens dozens.
 */
static unsigned int default_streams(void)
{
	unsigned int half = 0;
	cpu_set_t cpus;

	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		half = (unsigned int)CPU_COUNT(&cpus) / 2;
	return half < GW_STREAMS_LEAST	? GW_STREAMS_LEAST
	       : half > GW_STREAMS_MOST ? GW_STREAMS_MOST
					: half;
}

/* How the pages are to travel: every technique can be switched off alone. */
static int page_options(struct gw_page_options *o, const json_t *args)
{
	const char *hash = json_string_value(json_object_get(args, "hash"));
	const char *compress = json_string_value(json_object_get(args, "compress"));
	const json_t *cache = json_object_get(args, "delta-cache");
	int rc = 0;

	o->compress = GW_COMPRESS_AUTO;
	o->delta_cache = cache ? (uint64_t)json_integer_value(cache) : GW_DELTA_CACHE_DEFAULT;
	if (hash)
		rc = gw_hash_parse(hash, &o->hash);
	if (!rc && compress)
		rc = gw_compress_parse(compress, &o->compress);
	if (is_true(args, "no-zero"))
		o->off |= 1U << GW_STAGE_ZERO;
	if (is_true(args, "no-fake-dirty"))
		o->off |= 1U << GW_STAGE_SAME;
	if (is_true(args, "no-duplicate"))
		o->off |= 1U << GW_STAGE_DUPLICATE;
	if (!o->delta_cache)
		o->off |= 1U << GW_STAGE_DELTA;
	if (o->compress == GW_COMPRESS_NONE)
		o->off |= 1U << GW_STAGE_COMPRESS;
	return rc;
}

static int postcopy_options(struct gw_source *s, const json_t *args)
{
	static const char *const words[] = { [GW_POSTCOPY_NEVER] = "never",
					     [GW_POSTCOPY_AUTO] = "auto",
					     [GW_POSTCOPY_NOW] = "now" };
	const char *word = json_string_value(json_object_get(args, "postcopy")) ?: "never";
	const unsigned int after = unsigned_arg(args, "postcopy-after", 0);
	size_t i = 0;

	while (i < GW_ARRAY_SIZE(words) && strcmp(word, words[i]) != 0)
		i++;
	if (i == GW_ARRAY_SIZE(words))
		return gw_fail(-EINVAL, "--postcopy is never, auto or now, not '%s'", word);
	if (after && i != GW_POSTCOPY_AUTO)
		return gw_fail(-EINVAL, "--postcopy-after is for --postcopy auto");
	s->params.postcopy = (enum gw_postcopy)i;
	s->params.postcopy_after = after;
	return 0;
}

static int working_set_options(struct gw_source *s, const json_t *args)
{
	const char *word = json_string_value(json_object_get(args, "working-set")) ?: "auto";
	int rc = gw_defer_parse(word, &s->params.working_set);

	s->params.preprocess_ms = unsigned_arg(args, "preprocess", PREPROCESS_MS);
	if (!rc && json_object_get(args, "preprocess") &&
	    (!gw_defer_watches(s->params.working_set) || s->params.postcopy == GW_POSTCOPY_NOW))
		return gw_fail(-EINVAL, "--preprocess is for --working-set lru or lru-splay, and "
					"not with --postcopy now, which waits for nothing");
	return rc;
}

/* Who names replicas of disks wants them to be read. */
static const char *teleport_word(const json_t *args)
{
	return json_string_value(json_object_get(args, "teleport"))
		       ?: (json_object_get(args, "disk-map") ? "auto" : "off");
}

static int teleport_options(struct gw_source *s, const json_t *args)
{
	const char *word = teleport_word(args);

	s->disk_map = json_object_get(args, "disk-map");
	if (s->disk_map && !strcmp(word, "off"))
		return gw_fail(-EINVAL, "--disk-map is for --teleport, which is off");
	if (!strcmp(word, "off")) {
		s->params.pages.off |= 1U << GW_STAGE_TELEPORT;
		return 0;
	}
	if (strcmp(word, "auto") != 0 && strcmp(word, "agent") != 0 && strcmp(word, "index") != 0)
		return gw_fail(-EINVAL, "--teleport is auto, agent, index or off, not '%s'", word);
	return s->params.pages.hash == GW_HASH_GMAC
		       ? 0
		       : gw_fail(-EINVAL, "--teleport goes by digests that only --hash gmac makes");
}

/* What its disks hold is asked while the destination starts. Without it goes, too. */
static void start_hinter(struct gw_source_env *e, const json_t *args)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name), *agent = NULL;
	json_t *images = NULL, *disks = NULL;
	struct gw_hinter_from from = { .pid = e->vm.process.pid,
				       .dir = dir,
				       .lib = e->w->paths->lib,
				       .nr_pages = e->ram.memory.nr_pages };
	const char *word = teleport_word(args);
	int rc;

	if (e->s.params.pages.off >> GW_STAGE_TELEPORT & 1)
		return;
	from.by = !strcmp(word, "agent")   ? GW_HINTER_AGENT
		  : !strcmp(word, "index") ? GW_HINTER_INDEX
					   : GW_HINTER_AUTO;
	rc = gw_images_find(e->qmp, &images);
	if (!rc && from.by != GW_HINTER_INDEX &&
	    (gw_agent_find(e->qmp, &agent) || gw_agent_disks(e->qmp, &disks) ||
	     gw_physical_ask(&from.physical, e->qmp, &e->ram.memory)))
		gw_info("VM '%s': %s", e->vm.def.name, gw_error());
	from.images = images;
	from.disks = disks;
	from.agent = from.physical.nr ? agent : NULL;
	e->hinter = rc ? NULL : gw_hinter_start(&from);
	if (!e->hinter)
		gw_warn("no page of VM '%s' goes by what its disks hold: %s", e->vm.def.name,
			gw_error());
	json_decref(images);
	json_decref(disks);
}

/* Each disk of --disk-map is one of the VM's. */
static int check_disk_map(struct gw_source_env *e)
{
	json_t *images = NULL, *names = json_object(), *replica;
	const char *disk;
	const json_t *image;
	size_t i;
	int rc = e->s.disk_map ? gw_images_find(e->qmp, &images) : 0;

	json_array_foreach(images, i, image) {
		json_object_set_new(names, gw_qmp_text(image, "disk"), json_true());
	}
	json_object_foreach((json_t *)(uintptr_t)e->s.disk_map, disk, replica) {
		if (!rc && !json_object_get(names, disk))
			rc = gw_fail(-EINVAL,
				     "VM '%s' has no disk '%s' with an image; see godwit check %s",
				     e->vm.def.name, disk, e->vm.def.name);
		else if (!rc && !json_string_length(replica))
			rc = gw_fail(-EINVAL, "--disk-map needs DISK=PATH");
	}
	json_decref(names);
	json_decref(images);
	return rc;
}

/* A memory backend that only one of the definition (@defined) and QEMU (otherwise) has, or NULL. */
static const char *odd_one(const struct gw_source_env *e, bool *defined)
{
	const struct gw_definition *def = &e->vm.def;
	const struct gw_memory *m = &e->ram.memory;
	unsigned int d = 0, r = 0;

	/* Both are in the order of their ids. */
	while (d < def->nr_memory || r < m->nr_blocks) {
		int order = d == def->nr_memory ? 1
			    : r == m->nr_blocks ? -1
						: strcmp(def->memory[d].id, m->blocks[r].id);

		if (!order && def->memory[d].size == m->blocks[r].size) {
			d++;
			r++;
			continue;
		}
		*defined = order < 0;
		return order < 0 ? def->memory[d].id : m->blocks[r].id;
	}
	return NULL;
}

/* The destination numbers pages by the definition: it must say what QEMU says. */
static int check_memory(const struct gw_source_env *e)
{
	const struct gw_definition *def = &e->vm.def;
	bool defined;
	const char *odd = odd_one(e, &defined);

	if (odd)
		return gw_fail(-ENOTSUP,
			       "memory backend '%s' of VM '%s' was %s since it was started: the "
			       "destination's QEMU would not have the same memory; %s",
			       odd, def->name, defined ? "removed" : "added",
			       defined ? "plug it in again before migrating"
				       : "unplug it before migrating (device_del, object_del)");
	if (gw_ram_has_huge_pages(&e->ram) && (e->facts.discards || !gw_track_has_uffd()))
		return gw_fail(-ENOTSUP,
			       "the RAM file of VM '%s' lies on a file system with huge "
			       "pages, which %s: start it with its RAM file on a tmpfs "
			       "mounted with huge=never",
			       def->name,
			       e->facts.discards ? "a balloon can empty unseen"
						 : "this kernel's soft-dirty bits do not survive");
	return 0;
}

/* What the VM has now is what the destination must have (invariant 14). */
static int describe(struct gw_source_env *e)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc = gw_live_refuse_temporary(e->qmp, e->vm.process.pid);

	if (!rc)
		rc = gw_live_refuse_jobs(e->qmp);
	return rc ? rc : gw_live_describe(e->qmp, e->vm.process.pid, dir, &e->live);
}

/* A guest that does not run: is its state saved already, are its disks active (vm/activate.h)? */
static int find_saved(struct gw_source_env *e, const char *status)
{
	if (!strcmp(status, "postmigrate")) {
		e->device = gw_saved_find(e);
		e->saved = e->device >= 0;
		return e->saved ? 0 : e->device;
	}
	gw_saved_drop(e);
	return strcmp(status, "running") ? gw_disks_activate(e->qmp) : 0;
}

/* Everything that can be refused before the destination is even called. */
static int prepare(struct gw_source_env *e, const json_t *args)
{
	const char *address = json_string_value(json_object_get(args, "address"));
	struct gw_source *s = &e->s;
	struct gw_journal found;
	json_t *settings = NULL;
	char status[32] = "";
	int rc;

	if (!address)
		return gw_fail(-EINVAL, "where to? write godwit migrate NAME IP:PORT");
	rc = gw_address_check(address, false);
	if (rc)
		return rc;
	rc = gw_journal_load(e->w->paths, e->vm.def.name, &found);
	if (rc != -ENOENT)
		return gw_fail(-EBUSY,
			       "VM '%s' has an unsettled migration; first run godwit "
			       "recover %s",
			       e->vm.def.name, e->vm.def.name);
	snprintf(e->journal.peer, sizeof(e->journal.peer), "%s", address);
	e->journal.role = GW_ROLE_SOURCE;
	rc = gw_id_make(e->journal.id);
	if (!rc)
		rc = gw_attach(e->qmp, e->vm.process.pid, &e->ram, &e->facts);
	if (!rc)
		rc = check_memory(e);
	if (!rc)
		rc = describe(e);
	if (!rc)
		rc = gw_settings_find(e->qmp, gw_source_capabilities, &settings);
	if (!rc)
		rc = gw_settings_format(settings, e->journal.settings);
	json_decref(settings);
	if (rc)
		return rc;
	rc = gw_qmp_status(e->qmp, status, sizeof(status));
	if (!rc)
		rc = find_saved(e, status);
	if (rc)
		return rc;
	memcpy(s->id, e->journal.id, GW_ID_LEN);
	s->ops = &gw_source_live_ops;
	s->env = e;
	s->memory = &e->ram.memory;
	s->listen = e->w->paths->listen;
	s->legs = e->vm.legs;
	s->direct_io = e->facts.direct_io;
	s->discards = e->facts.discards;
	s->reports = e->facts.reports;
	s->params.max_bandwidth =
		(uint64_t)json_integer_value(json_object_get(args, "max-bandwidth"));
	s->params.downtime_limit_ms = unsigned_arg(args, "downtime-limit", 300);
	s->params.streams = unsigned_arg(args, "streams", default_streams());
	s->params.verify = is_true(args, "verify");
	rc = page_options(&s->params.pages, args);
	if (!rc)
		rc = postcopy_options(s, args);
	if (!rc)
		rc = working_set_options(s, args);
	if (!rc)
		rc = teleport_options(s, args);
	if (!rc)
		rc = check_disk_map(e);
	if (!rc && s->params.postcopy != GW_POSTCOPY_NEVER)
		rc = gw_serve_note(e);
	if (rc)
		return rc;
	rc = gw_vm_need_secret(e->w->paths, &e->vm);
	if (rc)
		return rc;
	memcpy(s->secret, e->vm.secret, sizeof(s->secret));
	/* Reuse goes by keyed digests; the others are for measuring. */
	s->params.reuse = !is_true(args, "no-reuse") && s->params.pages.hash == GW_HASH_GMAC;
	rc = e->carry ? gw_carry_note(e, args) : gw_spread_ask(e, args);
	if (rc)
		return rc;
	if (s->params.reuse)
		s->ledger = gw_departure_recall(&e->departure, e->w->paths, e->vm.def.name,
						e->ram.memory.nr_pages);
	if (!s->params.streams || s->params.streams > GW_STREAMS_MAX)
		return gw_fail(-EINVAL, "--streams must be 1 to %d", GW_STREAMS_MAX);
	if (s->params.downtime_limit_ms < GW_SOURCE_FIXED_MS)
		return gw_fail(-EINVAL,
			       "--downtime-limit must be at least %d ms: stopping the guest, its "
			       "device state and resuming it may take that long",
			       GW_SOURCE_FIXED_MS);
	return 0;
}

/* A guest that powered off in mid-move shows as one failure or another: say what it was. */
static void explain_end(struct gw_source_env *e)
{
	gw_autofree char *said = NULL;

	gw_info("VM '%s' ended while this failed: %s", e->vm.def.name, e->s.error);
	if (!e->vm.attached)
		said = gw_qemu_said(e->w->paths, e->w->host, e->vm.def.name);
	snprintf(
		e->s.error, sizeof(e->s.error),
		"the QEMU of VM '%s' ended here in mid-move: the guest has powered off, or QEMU was "
		"killed or crashed. It runs nowhere now; start it again%s%s",
		e->vm.def.name, said ? ". " : "", said ? said : "");
}

/* The move failed for certain. Whoever reads why wants to know first how the guest is. */
static void tell_fate(struct gw_source_env *e)
{
	char *text = e->s.error, status[32];
	const size_t len = strlen(text), room = sizeof(e->s.error) - len;
	int rc = gw_process_ended(&e->vm.process, 0)
			 ? -EPIPE
			 : gw_qmp_status(e->qmp, status, sizeof(status));

	/* It closes its monitor a moment before it ends. */
	if (rc == -EPIPE && gw_process_ended(&e->vm.process, ENDING_MS))
		explain_end(e);
	/* What was not resumed has been told of, and so has what was. */
	if (rc || e->s.stopped || strstr(text, "runs on here"))
		return;
	snprintf(text + len, room, "%s guest %s%s",
		 len && strchr(".?", text[len - 1]) ? " The" : "; the",
		 strcmp(status, "running") != 0 ? "is here, and as it was: " : "runs on here",
		 strcmp(status, "running") != 0 ? status : "");
}

int gw_worker_migrate(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	gw_autofd int lock = -1;
	struct gw_source_env *e = gw_source_env_served(w, name, &lock);
	json_t *definition;
	int rc;

	if (!e)
		return -EINVAL;
	rc = e->vm.split ? gw_carry_begin(e, true) : 0;
	if (!rc)
		rc = gw_source_env_monitor(e);
	if (!rc)
		rc = prepare(e, args);
	if (!rc)
		rc = gw_source_env_crews(e);
	if (!rc)
		rc = gw_storage_ask(e, args);
	if (rc) {
		gw_source_env_free(e);
		return rc;
	}
	definition = gw_definition_json(&e->vm.def);
	json_object_set(definition, "live", e->live);
	e->s.definition = definition;
	start_hinter(e, args);
	rc = gw_source_run(&e->s);
	if (e->s.state != GW_SOURCE_IN_DOUBT && e->s.state != GW_SOURCE_COMPLETED)
		gw_storage_stop(e);
	/* A guest that was not resumed, because it was paused, has its QEMU as it was, too. */
	if (e->settings && e->s.state != GW_SOURCE_IN_DOUBT && e->s.state != GW_SOURCE_COMPLETED) {
		if (gw_source_end_saving(e))
			gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
		gw_settings_put_back(e->qmp, &e->settings, e->vm.def.name);
	}
	/* In doubt, the journal is what `godwit recover` goes by. */
	if (e->s.state != GW_SOURCE_IN_DOUBT && e->s.state != GW_SOURCE_COMPLETED && !e->s.stopped)
		gw_journal_remove(w->paths, e->vm.def.name);
	if (rc && e->s.state != GW_SOURCE_IN_DOUBT)
		tell_fate(e);
	rc = gw_source_env_told(e, rc, result);
	if (rc && e->carry && w->orphaned && e->s.state != GW_SOURCE_IN_DOUBT)
		gw_carry_keep(e);
	json_decref(definition);
	gw_source_env_free(e);
	return rc;
}
