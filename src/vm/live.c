// SPDX-License-Identifier: GPL-2.0-or-later
/* live.c - what a QEMU has now; see live.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "images.h"
#include "io.h"
#include "live.h"
#include "mirror.h"

#define TREE_DEPTH 32

/* What a description is made of; asked for in one go. */
enum {
	VERSION,
	TREE,
	NAMED,
	UNNAMED,
	OBJECTS,
	NETWORK,
	DISKS,
	QUESTIONS
};

static void set_named(json_t *map, const char *id, const char *value)
{
	gw_autofree char *key = gw_path("'%s'", id);

	json_object_set_new(map, key, json_string(value));
}

/* Things without a name are told apart by what they are; equal ones are counted. */
static void set_unnamed(json_t *map, const char *value)
{
	gw_autofree char *key = strdup(value);

	for (int n = 2; json_object_get(map, key); n++) {
		free(key);
		key = gw_path("%s #%d", value, n);
	}
	json_object_set_new(map, key, json_string(value));
}

/* A device of the tree while its lines are read. */
struct device {
	char id[128], text[512];
};

static void finish_device(json_t *devices, struct device *d)
{
	if (d->id[0])
		set_named(devices, d->id, d->text);
	else if (d->text[0])
		set_unnamed(devices, d->text);
	d->id[0] = d->text[0] = '\0';
}

/* The properties that say where a device is and what it leads to. */
static void read_property(struct device *d, const char *line)
{
	static const char *const told[] = { "addr",    "netdev",  "chardev", "mac",
					    "serial",  "memdev",  "unit",    "port",
					    "channel", "scsi-id", "lun",     "nr" };
	char key[32], value[128];
	size_t at = strlen(d->text);

	if (!at || sscanf(line, " %31[^ =] = %127[^\r\n]", key, value) != 2 ||
	    !strcmp(value, "\"\"") || !strncmp(value, "\"#", 2)) /* "#net035": made up by QEMU */
		return;
	for (size_t i = 0; i < GW_ARRAY_SIZE(told); i++)
		if (!strcmp(key, told[i]))
			snprintf(d->text + at, sizeof(d->text) - at, ", %s=%s", key, value);
}

/*
 * "info qtree", by indentation:
 *   bus: pci.0
 *     dev: virtio-blk-pci, id "vb"
 *       addr = 02.0
 *       bus: virtio-bus
 *         dev: virtio-blk-device, id ""
 *           drive = "nb"
 * The device on a virtio-bus is a part of the one that has that bus.
 */
static void read_tree(json_t *devices, json_t *types, char *tree)
{
	char buses[TREE_DEPTH][64] = { "" }, type[128], *save = NULL;
	struct device d = { 0 };

	for (char *line = strtok_r(tree, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		size_t depth = strspn(line, " ");
		const char *text = line + depth, *bus, *id;

		depth = depth / 2 < TREE_DEPTH ? depth / 2 : TREE_DEPTH - 1;
		bus = depth ? buses[depth - 1] : "";
		if (sscanf(text, "bus: %63s", buses[depth]) == 1) {
			if (strcmp(buses[depth], "virtio-bus") != 0)
				finish_device(devices, &d);
		} else if (sscanf(text, "dev: %127[^,]", type) == 1) {
			if (!strcmp(bus, "virtio-bus") && d.text[0])
				continue;
			finish_device(devices, &d);
			json_object_set_new(types, type, json_true());
			id = strstr(text, ", id \"");
			if (id)
				snprintf(d.id, sizeof(d.id), "%.*s", (int)strcspn(id + 6, "\""),
					 id + 6);
			snprintf(d.text, sizeof(d.text), "%s at %s", type, bus);
		} else {
			read_property(&d, text);
		}
	}
	finish_device(devices, &d);
}

/* "child<TYPE>" of qom-list's answers; empty for what is no child. */
static void child_type(const json_t *property, char type[128])
{
	if (sscanf(gw_qmp_text(property, "type"), "child<%127[^>]>", type) != 1)
		type[0] = '\0';
}

/* Devices without a bus (processors, memory) are in no tree. @types: those that are. */
static int add_busless(const struct gw_question *asked, bool named, const json_t *types,
		       json_t *devices)
{
	const json_t *list = NULL, *entry;
	char type[128];
	size_t i;
	int rc = gw_question_answer(asked, &list);

	json_array_foreach(list, i, entry) {
		gw_autofree char *key = gw_path("'%s'", gw_qmp_text(entry, "name"));

		child_type(entry, type);
		if (type[0] && named && !json_object_get(devices, key))
			json_object_set_new(devices, key, json_string(type));
		else if (type[0] && !named && !json_object_get(types, type))
			set_unnamed(devices, type);
	}
	return rc;
}

static int describe_devices(const struct gw_question *asked, json_t *live)
{
	const char *text = gw_question_text(&asked[TREE]);
	gw_autofree char *tree = text ? strdup(text) : NULL;
	json_t *devices = json_object(), *types = json_object();
	int rc = tree ? 0 : -EREMOTEIO;

	if (!rc) {
		read_tree(devices, types, tree);
		rc = add_busless(&asked[NAMED], true, types, devices);
	}
	if (!rc)
		rc = add_busless(&asked[UNNAMED], false, types, devices);
	json_decref(types);
	json_object_set_new(live, "devices", devices);
	return rc;
}

/* Objects that things of the guest may depend on; secrets and the like come and go. */
static int describe_objects(const struct gw_question *asked, json_t *live)
{
	static const char *const passing[] = { "secret", "tls-", "authz-", "throttle-group" };
	json_t *objects = json_object();
	const json_t *list = NULL, *entry;
	int rc = gw_question_answer(&asked[OBJECTS], &list);
	char type[128];
	size_t i;

	json_array_foreach(list, i, entry) {
		bool tell;

		child_type(entry, type);
		tell = type[0];
		for (size_t k = 0; k < GW_ARRAY_SIZE(passing); k++)
			tell = tell && strncmp(type, passing[k], strlen(passing[k])) != 0;
		/* A memfd is a file elsewhere: what is compared of memory is in vm/attach.c. */
		if (tell && strncmp(type, "memory-backend-", 15) != 0)
			set_named(objects, gw_qmp_text(entry, "name"), type);
	}
	json_object_set_new(live, "objects", objects);
	return rc;
}

/* "info network": lines like " \ n0: index=0,type=user,net=10.0.2.0,restrict=off". */
static int describe_netdevs(const struct gw_question *asked, json_t *live)
{
	const char *said = gw_question_text(&asked[NETWORK]);
	gw_autofree char *text = said ? strdup(said) : NULL;
	json_t *netdevs = json_object();
	char name[128], type[64], *save = NULL;

	json_object_set_new(live, "netdevs", netdevs);
	if (!text)
		return -EREMOTEIO;
	for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		if (sscanf(line + strspn(line, " \\"), "%127[^:]: index=%*d,type=%63[^,]", name,
			   type) == 2 &&
		    strcmp(type, "nic") != 0 && name[0] != '#')
			set_named(netdevs, name, type);
	return 0;
}

/* Where names of files are looked up: by the process, on behalf of the VM. */
struct place {
	pid_t pid;
	const char *dir;
	char cwd[4096];
};

static int find_place(struct place *p, pid_t pid, const char *dir)
{
	gw_autofree char *link = gw_path("/proc/%d/cwd", (int)pid);
	ssize_t n = readlink(link, p->cwd, sizeof(p->cwd) - 1);

	if (n < 0)
		return gw_fail(-ESRCH, "QEMU (process %d) is gone", (int)pid);
	p->cwd[n] = '\0';
	if (!strcmp(p->cwd, "/"))
		p->cwd[0] = '\0';
	p->pid = pid;
	p->dir = dir;
	return 0;
}

/* @text with the first @from in it replaced by @to; caller frees. */
static char *replace(const char *text, const char *from, const char *to)
{
	const char *at = from[0] ? strstr(text, from) : NULL;

	if (!at)
		return strdup(text);
	return gw_path("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

/* The name by which both hosts know a file; caller frees. */
static char *common_name(const struct place *p, const char *name)
{
	gw_autofree char *whole = name[0] != '/' && name[0] && gw_image_is_file(name)
					  ? gw_path("%s/%s", p->cwd, name)
					  : strdup(name);

	return replace(whole, p->dir, "{dir}");
}

/* Names of files in the tree of options that QEMU shows where a name alone does not tell. */
static void common_names(const struct place *p, json_t *options)
{
	const char *key;
	json_t *value;

	json_object_foreach(options, key, value) {
		if (json_is_object(value)) {
			common_names(p, value);
		} else if (json_is_string(value) &&
			   (!strcmp(key, "filename") || !strcmp(key, "path"))) {
			gw_autofree char *name = common_name(p, json_string_value(value));

			json_string_set(value, name);
		}
	}
}

char *gw_live_file(pid_t pid, const char *dir, const char *name)
{
	struct place p;

	return find_place(&p, pid, dir) ? NULL : common_name(&p, name);
}

char *gw_live_file_here(const char *dir, const char *name)
{
	return replace(name, "{dir}", dir);
}

static char *image_name(const struct place *p, const char *name)
{
	json_t *options = strncmp(name, "json:", 5) ? NULL : json_loads(name + 5, 0, NULL);
	char *text, *whole;

	if (!options)
		return common_name(p, name);
	common_names(p, options);
	text = json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS);
	whole = gw_path("json:%s", text ? text : "");
	free(text);
	json_decref(options);
	return whole;
}

/* "FILE (FORMAT, SIZE bytes) over FILE ..." of an image and its backing chain; caller frees. */
static char *chain_text(const struct place *p, const json_t *image, bool read_only)
{
	char *text = NULL;

	for (int depth = 0; image && depth < GW_CHAIN_MAX; depth++) {
		gw_autofree char *name = image_name(p, gw_qmp_text(image, "filename"));
		char *longer = gw_path(
			"%s%s%s (%s, %lld bytes%s)", text ? text : "", text ? " over " : "", name,
			gw_qmp_text(image, "format"),
			(long long)json_integer_value(json_object_get(image, "virtual-size")),
			!text && read_only ? ", read-only" : "");

		free(text);
		text = longer;
		image = json_object_get(image, "backing-image");
	}
	return text ? text : strdup("no medium");
}

/* What a medium is in a form that another QEMU can be given; JSON null: none, or not simple. */
static json_t *describe_medium(const struct place *p, const json_t *entry)
{
	const json_t *inserted = json_object_get(entry, "inserted");
	const json_t *image = json_object_get(inserted, "image");
	const char *id = gw_qmp_text(entry, "qdev");
	gw_autofree char *name = common_name(p, gw_qmp_text(image, "filename"));

	/* A drive is called by its device; an empty file name says "no medium". */
	return json_pack("{s:s,s:s,s:s,s:b,s:b}", "id", id, "file", name, "format",
			 gw_qmp_text(inserted, "drv"), "ro",
			 json_is_true(json_object_get(inserted, "ro")), "simple",
			 !json_object_get(image, "backing-image") &&
				 strncmp(gw_qmp_text(image, "filename"), "json:", 5) != 0);
}

static int describe_disks(const struct gw_question *asked, const struct place *p, json_t *live)
{
	json_t *disks = json_object(), *media = json_object();
	const json_t *list = NULL, *entry;
	int rc = gw_question_answer(&asked[DISKS], &list);
	size_t i;

	json_array_foreach(list, i, entry) {
		const json_t *inserted = json_object_get(entry, "inserted");
		gw_autofree char *text = chain_text(p, json_object_get(inserted, "image"),
						    json_is_true(json_object_get(inserted, "ro")));
		char name[256];

		gw_image_disk(entry, name);
		set_named(disks, name, text);
		if (json_is_true(json_object_get(entry, "removable"))) {
			gw_autofree char *key = gw_path("'%s'", name);

			json_object_set_new(media, key, describe_medium(p, entry));
		}
	}
	json_object_set_new(live, "disks", disks);
	json_object_set_new(live, "media", media);
	return rc;
}

static int describe_version(const struct gw_question *asked, json_t *live)
{
	const json_t *answer = NULL, *version;
	int rc = gw_question_answer(&asked[VERSION], &answer);
	char text[64];

	version = json_object_get(answer, "qemu");
	snprintf(text, sizeof(text), "%lld.%lld",
		 (long long)json_integer_value(json_object_get(version, "major")),
		 (long long)json_integer_value(json_object_get(version, "minor")));
	json_object_set_new(live, "qemu", json_string(text));
	return rc;
}

static struct gw_question list_of(const char *path)
{
	return (struct gw_question){ .command = "qom-list",
				     .args = json_pack("{s:s}", "path", path) };
}

int gw_live_describe(struct gw_qmp *q, pid_t pid, const char *dir, json_t **live)
{
	struct gw_question asked[QUESTIONS] = {
		[VERSION] = { .command = "query-version" },
		[TREE] = gw_question_hmp("info qtree"),
		[NAMED] = list_of("/machine/peripheral"),
		[UNNAMED] = list_of("/machine/peripheral-anon"),
		[OBJECTS] = list_of("/objects"),
		[NETWORK] = gw_question_hmp("info network"),
		[DISKS] = { .command = "query-block" },
	};
	struct place p;
	json_t *found = json_object();
	int rc = find_place(&p, pid, dir);

	if (!rc)
		rc = gw_qmp_ask(q, asked, QUESTIONS);
	if (!rc)
		rc = describe_version(asked, found);
	if (!rc)
		rc = describe_devices(asked, found);
	if (!rc)
		rc = describe_objects(asked, found);
	if (!rc)
		rc = describe_netdevs(asked, found);
	if (!rc)
		rc = describe_disks(asked, &p, found);
	gw_questions_free(asked, QUESTIONS);
	if (rc) {
		json_decref(found);
		return gw_fail_prefix(rc, "what the VM has now cannot be found out: ");
	}
	*live = found;
	return 0;
}

/* Whether @name is a file that QEMU made to be thrown away: it has no name any more. */
static bool is_temporary(const char *name, pid_t pid)
{
	const char *slash = strrchr(name, '/');
	gw_autofree char *path = gw_path("/proc/%d/root%s", (int)pid, name);
	struct stat st;

	return name[0] == '/' && !strncmp(slash + 1, "vl.", 3) && stat(path, &st) &&
	       errno == ENOENT;
}

static int refuse_temporary(void *pid, const char *disk, const json_t *entry)
{
	const json_t *image = json_object_get(json_object_get(entry, "inserted"), "image");
	int rc = 0;

	for (int depth = 0; !rc && image && depth < GW_CHAIN_MAX; depth++) {
		const char *name = gw_qmp_text(image, "filename");
		json_t *options = strncmp(name, "json:", 5) ? NULL : json_loads(name + 5, 0, NULL);
		const char *file =
			options ? gw_qmp_text(json_object_get(options, "file"), "filename") : name;

		if (is_temporary(file, *(pid_t *)pid))
			rc = gw_fail(-ENOTSUP,
				     "disk '%s' is opened with -snapshot or snapshot=on: "
				     "what the guest writes lies in a temporary file of "
				     "this QEMU and would be lost by a move; start the VM "
				     "without it, or on an overlay made with qemu-img",
				     disk);
		json_decref(options);
		image = json_object_get(image, "backing-image");
	}
	return rc;
}

int gw_live_refuse_temporary(struct gw_qmp *q, pid_t pid)
{
	return gw_images_each(q, refuse_temporary, &pid);
}

int gw_live_refuse_jobs(struct gw_qmp *q)
{
	enum {
		JOBS,
		EXPORTS
	};
	struct gw_question asked[] = {
		[JOBS] = { .command = "query-jobs" },
		[EXPORTS] = { .command = "query-block-exports" },
	};
	const json_t *list = NULL, *entry;
	size_t i;
	int rc = gw_qmp_ask(q, asked, GW_ARRAY_SIZE(asked));

	if (!rc)
		rc = gw_question_answer(&asked[JOBS], &list);
	json_array_foreach(list, i, entry) {
		const char *status = gw_qmp_text(entry, "status");

		if (!rc && strcmp(status, "concluded") && strcmp(status, "null") &&
		    !gw_mirror_is_ours(gw_qmp_text(entry, "id")))
			rc = gw_fail(-EBUSY,
				     "a job of QEMU's is under way on its disks (%s '%s', %s) and "
				     "would not move: wait for its end, or end it with "
				     "block-job-cancel or job-cancel",
				     gw_qmp_text(entry, "type"), gw_qmp_text(entry, "id"), status);
	}
	if (!rc)
		rc = gw_question_answer(&asked[EXPORTS], &list);
	if (!rc && json_array_size(list)) {
		entry = json_array_get(list, 0);
		rc = gw_fail(-EBUSY,
			     "node '%s' of the VM's disks is exported ('%s'), which would end "
			     "with a move: remove it first with block-export-del",
			     gw_qmp_text(entry, "node-name"), gw_qmp_text(entry, "id"));
	}
	gw_questions_free(asked, GW_ARRAY_SIZE(asked));
	return rc;
}

/* Make one drive's medium what it is at the source. */
static int carry_medium(struct gw_qmp *q, const char *dir, const json_t *medium, const char *id)
{
	const char *name = gw_qmp_text(medium, "file");
	gw_autofree char *file = replace(name, "{dir}", dir);

	if (!name[0])
		return gw_qmp_call(q, "eject", json_pack("{s:s,s:b}", "id", id, "force", 1), NULL);
	return gw_qmp_call(
		q, "blockdev-change-medium",
		json_pack("{s:s,s:s,s:s,s:s}", "id", id, "filename", file, "format",
			  gw_qmp_text(medium, "format"), "read-only-mode",
			  json_is_true(json_object_get(medium, "ro")) ? "read-only" : "read-write"),
		NULL);
}

int gw_live_carry(struct gw_qmp *q, pid_t pid, const char *dir, const json_t *theirs, json_t **ours)
{
	json_t *media = json_object_get(*ours, "media"), *mine, *now = NULL;
	const char *name;
	bool changed = false;
	int rc = 0;

	json_object_foreach(media, name, mine) {
		const json_t *wanted = json_object_get(json_object_get(theirs, "media"), name);
		const json_t *text = json_object_get(json_object_get(theirs, "disks"), name);

		if (rc || !json_is_object(wanted) ||
		    !json_is_true(json_object_get(wanted, "simple")) ||
		    json_equal(text, json_object_get(json_object_get(*ours, "disks"), name)))
			continue;
		rc = carry_medium(q, dir, wanted, gw_qmp_text(mine, "id"));
		if (rc)
			return gw_fail_prefix(rc,
					      "drive %s has another medium at the source, which "
					      "cannot be had here (%s): ",
					      name, gw_qmp_text(wanted, "file"));
		changed = true;
	}
	if (changed)
		rc = gw_live_describe(q, pid, dir, &now);
	if (now) {
		json_decref(*ours);
		*ours = now;
	}
	return rc;
}

/* What differs, as one finds and mends it. */
struct difference {
	char kind[16];
	char name[300];
	const char *there, *here; /* NULL: not there, not here */
};

static bool differ(const json_t *there, const json_t *here, const char *kind, bool named_only,
		   struct difference *d)
{
	const char *key;
	json_t *value;

	memset(d, 0, sizeof(*d));
	json_object_foreach((json_t *)there, key, value) {
		const json_t *mine = json_object_get(here, key);

		if ((named_only && key[0] != '\'') || (mine && json_equal(value, mine)))
			continue;
		d->there = json_string_value(value) ?: "?";
		d->here = json_string_value(mine);
		break;
	}
	if (!d->there)
		json_object_foreach((json_t *)here, key, value)
			if (!(named_only && key[0] != '\'') && !json_object_get(there, key)) {
				d->here = json_string_value(value) ?: "?";
				break;
			}
	if (!d->there && !d->here)
		return false;
	snprintf(d->kind, sizeof(d->kind), "%s", kind);
	snprintf(d->name, sizeof(d->name), "%s", key);
	return true;
}

static bool find_difference(const json_t *there, const json_t *here, bool named_only,
			    struct difference *d)
{
	static const struct {
		const char *field, *kind;
	} told[] = { { "disks", "disk" },
		     { "devices", "device" },
		     { "netdevs", "netdev" },
		     { "objects", "object" } };

	for (size_t i = 0; i < GW_ARRAY_SIZE(told); i++)
		if (differ(json_object_get(there, told[i].field),
			   json_object_get(here, told[i].field), told[i].kind,
			   named_only && !strcmp(told[i].field, "devices"), d))
			return true;
	return false;
}

int gw_live_compare(const json_t *theirs, const json_t *ours, const char *host)
{
	const bool named_only = strcmp(gw_qmp_text(theirs, "qemu"), gw_qmp_text(ours, "qemu")) != 0;
	struct difference d;

	if (!theirs || !find_difference(theirs, ours, named_only, &d))
		return 0;
	if (!d.here)
		return gw_fail(
			-ENOTSUP,
			"the VM has %s %.150s (%.300s), which its command line does not make "
			"on host '%s': it was added while the VM ran; remove it (device_del, "
			"netdev_del, object-del), or start the VM anew with it",
			d.kind, d.name, d.there, host);
	if (!d.there)
		return gw_fail(-ENOTSUP,
			       "%s %.150s (%.300s) is on the VM's command line, but the VM does "
			       "not have it any more: host '%s' would open it again; start the VM "
			       "anew without it before moving it",
			       d.kind, d.name, d.here, host);
	if (!strcmp(d.kind, "disk"))
		return gw_fail(
			-ENOTSUP,
			"disk %.150s is %.300s at the source now, but %.300s on host '%s': "
			"after a snapshot or a mirror merge it back (block-commit), or start "
			"the VM anew with the new image; images on both hosts must be of one "
			"size and format",
			d.name, d.there, d.here, host);
	return gw_fail(-ENOTSUP,
		       "%s %.150s is '%.300s' at the source now, but '%.300s' on host '%s': start "
		       "the VM anew with what it has now",
		       d.kind, d.name, d.there, d.here, host);
}

int gw_live_unchanged(const json_t *before, const json_t *now)
{
	struct difference d;

	if (!find_difference(before, now, false, &d))
		return 0;
	return gw_fail(
		-EBUSY,
		"%s %.150s of the VM was changed while it moved (%.300s before, %.300s now): "
		"the destination does not have that; migrate again",
		d.kind, d.name, d.there ? d.there : "none", d.here ? d.here : "none");
}
