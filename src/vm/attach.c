// SPDX-License-Identifier: GPL-2.0-or-later
/* attach.c - what an unmodified QEMU is; see attach.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "attach.h"
#include "cleanup.h"
#include "error.h"
#include "io.h"

static const char *string_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* A QOM property as a string; empty if there is none. */
static void qom_string(struct gw_qmp *q, const char *path, const char *property, char *out,
		       size_t len)
{
	json_t *answer = NULL;

	out[0] = '\0';
	if (!gw_qmp_call(q, "qom-get", json_pack("{s:s,s:s}", "path", path, "property", property),
			 &answer) &&
	    json_is_string(answer))
		snprintf(out, len, "%s", json_string_value(answer));
	json_decref(answer);
}

static int find_version(struct gw_qmp *q, struct gw_guest_facts *facts)
{
	json_t *answer = NULL, *version;
	int rc = gw_qmp_call(q, "query-version", NULL, &answer);
	char *suffix;

	if (rc)
		return rc;
	version = json_object_get(answer, "qemu");
	facts->major = (int)json_integer_value(json_object_get(version, "major"));
	facts->minor = (int)json_integer_value(json_object_get(version, "minor"));
	json_decref(answer);
	if (facts->major < 7 || (facts->major == 7 && facts->minor < 2))
		return gw_fail(-ENOTSUP, "this VM runs QEMU %d.%d; Godwit needs 7.2 or newer",
			       facts->major, facts->minor);
	qom_string(q, "/machine", "type", facts->machine, sizeof(facts->machine));
	suffix = strstr(facts->machine, "-machine");
	if (suffix)
		*suffix = '\0';
	return 0;
}

/*
 * Devices that write guest memory without QEMU's page table: neither tracker
 * sees them.
 */
static int refuse_unseen_writers(struct gw_qmp *q)
{
	static const char *const unseen[] = { "dev: vfio-", "dev: vhost-user-", "type=vhost-user",
					      "type=vhost-vdpa", "dev: vhost-vdpa-" };
	gw_autofree char *tree = gw_qmp_hmp(q, "info qtree");
	gw_autofree char *net = tree ? gw_qmp_hmp(q, "info network") : NULL;

	if (!net)
		return -EREMOTEIO;
	for (size_t i = 0; i < GW_ARRAY_SIZE(unseen); i++) {
		const char *at = strstr(tree, unseen[i]);

		if (!at)
			at = strstr(net, unseen[i]);
		if (at)
			return gw_fail(-ENOTSUP,
				       "the VM has a device that writes memory unseen (%.*s): "
				       "remove it, for example with device_del, before migrating",
				       (int)strcspn(at, ",\n"), at);
	}
	return 0;
}

static int refuse_blocked(struct gw_qmp *q)
{
	json_t *answer = NULL;
	const char *reason;
	int rc = gw_qmp_call(q, "query-migrate", NULL, &answer);

	if (rc)
		return rc;
	reason = json_string_value(json_array_get(json_object_get(answer, "blocked-reasons"), 0));
	if (reason)
		rc = gw_fail(-ENOTSUP, "QEMU says this VM cannot migrate: %s", reason);
	json_decref(answer);
	return rc;
}

static int find_disks(struct gw_qmp *q, struct gw_guest_facts *facts)
{
	json_t *nodes = NULL, *node;
	size_t i;
	int rc = gw_qmp_call(q, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes);

	if (rc)
		return rc;
	json_array_foreach(nodes, i, node)
		if (json_is_true(json_object_get(json_object_get(node, "cache"), "direct")))
			facts->direct_io = true;
	json_decref(nodes);
	return 0;
}

/* One line of /proc/PID/maps. */
struct mapping {
	uint64_t start, end, offset;
	unsigned int major, minor;
	unsigned long inode;
	char perms[8];
	char path[512];
};

static bool parse_mapping(const char *line, struct mapping *m)
{
	m->path[0] = '\0';
	return sscanf(line, "%lx-%lx %7s %lx %x:%x %lu %511[^\n]", &m->start, &m->end, m->perms,
		      &m->offset, &m->major, &m->minor, &m->inode, m->path) >= 7;
}

/*
 * Find where @pid maps the file @match (or, for a memfd, a memfd of @size
 * bytes) from offset 0 to @size; neighbouring pieces count as one.
 */
static int find_mapping(pid_t pid, const struct stat *match, uint64_t size, struct mapping *found)
{
	gw_autofree char *path = gw_path("/proc/%d/maps", (int)pid);
	gw_autofile FILE *f = fopen(path, "re");
	char line[1024];
	struct mapping m;
	uint64_t end = 0;
	int matches = 0;

	if (!f)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (!parse_mapping(line, &m) || m.perms[3] != 's')
			continue;
		if (match ? m.inode != match->st_ino || m.major != major(match->st_dev) ||
				    m.minor != minor(match->st_dev)
			  : !strstr(m.path, "/memfd:"))
			continue;
		if (m.offset == 0) {
			if (m.end - m.start == size)
				matches++;
			*found = m;
			end = m.end;
		} else if (end && m.start == end && m.inode == found->inode) {
			end = m.end;
		}
		if (end && end - found->start == size) {
			if (match || matches == 1)
				return 0;
		}
	}
	return gw_fail(-ENOTSUP,
		       "QEMU (process %d) does not map %llu bytes of shared memory where "
		       "its memory backend says",
		       (int)pid, (unsigned long long)size);
}

static int add_backend(struct gw_qmp *q, pid_t pid, const json_t *dev, struct gw_ram *ram,
		       const struct gw_guest_facts *facts)
{
	const char *id = string_of(dev, "id");
	uint64_t size = (uint64_t)json_integer_value(json_object_get(dev, "size"));
	gw_autofree char *object = gw_path("/objects/%s", id);
	gw_autofree char *path = NULL, *map_file = NULL;
	char type[64], mem_path[512];
	struct mapping m = { 0 };
	struct stat st;
	bool memfd;
	int fd, rc;

	qom_string(q, object, "type", type, sizeof(type));
	memfd = !strcmp(type, "memory-backend-memfd");
	if (!json_is_true(json_object_get(dev, "share")) ||
	    (!memfd && strcmp(type, "memory-backend-file") != 0))
		return gw_fail(-ENOTSUP,
			       "memory backend '%s' (%s) is not a shared file: start the VM with "
			       "'godwit run', or with -object memory-backend-file,share=on,...",
			       id, type);
	if (memfd && (facts->major > 8 || (facts->major == 8 && facts->minor >= 1)))
		return gw_fail(-ENOTSUP,
			       "memory backend '%s' is a memfd, which QEMU %d.%d would send "
			       "itself: use -object memory-backend-file,share=on,mem-path=FILE",
			       id, facts->major, facts->minor);
	if (!memfd) {
		qom_string(q, object, "mem-path", mem_path, sizeof(mem_path));
		path = gw_path("/proc/%d/root%s", (int)pid, mem_path);
		if (stat(path, &st))
			return gw_fail(-errno, "RAM file %s of backend '%s': %s", mem_path, id,
				       strerror(errno));
	}
	rc = find_mapping(pid, memfd ? NULL : &st, size, &m);
	if (rc)
		return rc;
	/* By map_files, so that it works in any mount namespace and for a deleted file. */
	map_file = gw_path("/proc/%d/map_files/%lx-%lx", (int)pid, m.start, m.end);
	fd = open(map_file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return gw_fail(-errno, "RAM file of backend '%s': %s", id, strerror(errno));
	rc = gw_ram_add(ram, id, fd, size, m.start);
	if (rc)
		close(fd);
	return rc;
}

/* Add a flat range of backend memory, or extend the block it continues. */
static void add_range(struct gw_ram *ram, const char *region, uint64_t gpa, uint64_t last,
		      uint64_t offset)
{
	const char *slash = strrchr(region, '/');
	const char *id = slash ? slash + 1 : region;

	for (unsigned int i = 0; i < ram->nr_files; i++) {
		if (strcmp(ram->files[i].id, id) != 0)
			continue;
		for (unsigned int b = 0; b < ram->nr_blocks; b++) {
			struct gw_ram_block *block = &ram->blocks[b];

			/* Legacy holes (VGA, ROM shadow) do not split a block. */
			if (block->file == i && block->gpa - block->offset == gpa - offset) {
				if (last + 1 > block->gpa + block->size)
					block->size = last + 1 - block->gpa;
				return;
			}
		}
		if (ram->nr_blocks < GW_RAM_BLOCKS_MAX)
			ram->blocks[ram->nr_blocks++] = (struct gw_ram_block){
				.gpa = gpa, .size = last + 1 - gpa, .file = i, .offset = offset
			};
		return;
	}
}

/*
 * The flat view that address space "memory" uses, in lines like
 *   0000000100000000-000000017fffffff (prio 0, ram): ram @0000000080000000
 */
static int find_blocks(struct gw_qmp *q, struct gw_ram *ram)
{
	gw_autofree char *text = gw_qmp_hmp(q, "info mtree -f");
	char *save = NULL;
	bool ours = false;

	if (!text)
		return -EREMOTEIO;
	for (char *line = strtok_r(text, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		char kind[16], region[256];
		uint64_t start, last, offset = 0;
		const char *at;

		if (strstr(line, "FlatView #")) {
			if (ram->nr_blocks)
				break;
			ours = false;
		}
		if (strstr(line, "AS \"memory\","))
			ours = true;
		if (!ours || sscanf(line, " %lx-%lx (prio %*d, %15[^)]): %255s", &start, &last,
				    kind, region) != 4)
			continue;
		at = strstr(line, " @");
		if (at)
			offset = strtoull(at + 2, NULL, 16);
		if (!strcmp(kind, "ram") || !strcmp(kind, "rom"))
			add_range(ram, region, start, last, offset);
	}
	if (!ram->nr_blocks)
		return gw_fail(-ENOTSUP, "QEMU's memory map names none of its memory backends");
	return 0;
}

/* The memory backend with the lowest id above @last. */
static const json_t *next_by_id(const json_t *devs, const char *last)
{
	const json_t *dev, *next = NULL;
	size_t i;

	json_array_foreach(devs, i, dev) {
		const char *id = string_of(dev, "id");

		if ((!last || strcmp(id, last) > 0) &&
		    (!next || strcmp(id, string_of(next, "id")) < 0))
			next = dev;
	}
	return next;
}

int gw_attach(struct gw_qmp *q, pid_t pid, struct gw_ram *ram, struct gw_guest_facts *facts)
{
	const char *last_id = NULL;
	json_t *devs = NULL;
	const json_t *dev;
	gw_autofree char *tree = NULL;
	int rc;

	memset(ram, 0, sizeof(*ram));
	memset(facts, 0, sizeof(*facts));
	rc = find_version(q, facts);
	if (!rc)
		rc = refuse_unseen_writers(q);
	if (!rc)
		rc = refuse_blocked(q);
	if (!rc)
		rc = find_disks(q, facts);
	if (!rc)
		rc = gw_qmp_call(q, "query-memdev", NULL, &devs);
	if (!rc && !json_array_size(devs))
		rc = gw_fail(-ENOTSUP, "the VM has no memory backend: start it with 'godwit run', "
				       "or with -object memory-backend-file,share=on,... and "
				       "-machine memory-backend=ID");
	/* Page numbers run over the backends, so their order must be the same on every host. */
	while (!rc && (dev = next_by_id(devs, last_id))) {
		last_id = string_of(dev, "id");
		rc = add_backend(q, pid, dev, ram, facts);
	}
	json_decref(devs);
	if (!rc)
		rc = find_blocks(q, ram);
	if (!rc) {
		tree = gw_qmp_hmp(q, "info qtree");
		facts->discards = !tree || strstr(tree, "dev: virtio-balloon") ||
				  strstr(tree, "dev: virtio-mem");
		facts->reports = !tree || strstr(tree, "free-page-reporting = true") ||
				 strstr(tree, "dev: virtio-mem");
	}
	if (rc)
		gw_ram_close(ram);
	return rc;
}
