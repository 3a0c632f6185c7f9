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

/* What every QEMU is asked, in one go. */
enum {
	VERSION,
	MACHINE,
	TREE,
	NETWORK,
	MIGRATION,
	NODES,
	BACKENDS,
	BLOCKS,
	REGIONS,
	DEVICES,
	SIZES,
	QUESTIONS
};

/* And of each of its memory backends. */
enum {
	TYPE,
	PMEM,
	READONLY,
	ROM,
	MEM_PATH,
	OF_BACKEND
};

static const char *const properties[OF_BACKEND] = { [TYPE] = "type",
						    [PMEM] = "pmem",
						    [READONLY] = "readonly",
						    [ROM] = "rom",
						    [MEM_PATH] = "mem-path" };

static struct gw_question property_of(const char *path, const char *property)
{
	return (struct gw_question){ .command = "qom-get",
				     .args = json_pack("{s:s,s:s}", "path", path, "property",
						       property) };
}

/* A QOM property as a string; empty if there is none. */
static void qom_string(const struct gw_question *asked, char *out, size_t len)
{
	snprintf(out, len, "%s", json_string_value(asked->answer) ?: "");
}

static int find_version(const struct gw_question *asked, struct gw_guest_facts *facts)
{
	const json_t *answer = NULL, *version;
	int rc = gw_question_answer(&asked[VERSION], &answer);
	char *suffix;

	if (rc)
		return rc;
	version = json_object_get(answer, "qemu");
	facts->major = (int)json_integer_value(json_object_get(version, "major"));
	facts->minor = (int)json_integer_value(json_object_get(version, "minor"));
	if (facts->major < 7 || (facts->major == 7 && facts->minor < 2))
		return gw_fail(-ENOTSUP, "this VM runs QEMU %d.%d; Godwit needs 7.2 or newer",
			       facts->major, facts->minor);
	qom_string(&asked[MACHINE], facts->machine, sizeof(facts->machine));
	suffix = strstr(facts->machine, "-machine");
	if (suffix)
		*suffix = '\0';
	return 0;
}

/*
 * Devices that write guest memory without QEMU's page table, so that neither
 * tracker sees them; and those whose memory is more than the VM's own.
 */
static int refuse_devices(const struct gw_question *asked)
{
	static const char *const unseen[] = { "dev: vfio-", "dev: vhost-user-", "type=vhost-user",
					      "type=vhost-vdpa", "dev: vhost-vdpa-" };
	/* Their memory is a file of the user's, which others share or which lasts. */
	static const char *const files[] = { "dev: ivshmem-", "dev: acpi-erst", "dev: cxl-type3",
					     "dev: virtio-pmem" };
	const char *tree = gw_question_text(&asked[TREE]);
	const char *net = tree ? gw_question_text(&asked[NETWORK]) : NULL;

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
	for (size_t i = 0; i < GW_ARRAY_SIZE(files); i++) {
		const char *at = strstr(tree, files[i]);

		if (at)
			return gw_fail(
				-ENOTSUP,
				"the VM has a device whose memory is a file that others share "
				"or that lasts (%.*s): it would stay behind",
				(int)strcspn(at, ",\n"), at);
	}
	return 0;
}

static int refuse_blocked(const struct gw_question *asked)
{
	const json_t *answer = NULL;
	const char *reason, *status;
	int rc = gw_question_answer(&asked[MIGRATION], &answer);

	if (rc)
		return rc;
	reason = json_string_value(json_array_get(json_object_get(answer, "blocked-reasons"), 0));
	if (reason)
		rc = gw_fail(-ENOTSUP, "QEMU says this VM cannot migrate: %s", reason);
	status = gw_qmp_text(answer, "status");
	if (!reason &&
	    (!strcmp(status, "setup") || !strcmp(status, "active") || !strcmp(status, "device") ||
	     !strcmp(status, "pre-switchover") || !strcmp(status, "cancelling")))
		rc = gw_fail(-EBUSY,
			     "QEMU is migrating this VM already (%s), without Godwit: wait "
			     "for it, or end it with migrate_cancel",
			     status);
	return rc;
}

/* Block drivers that let hardware, or another process, write guest memory by itself. */
static bool writes_unseen(const char *driver)
{
	/* libblkio's ("io_uring" among them) register all of the guest's memory once. */
	static const char *const drivers[] = { "nvme",
					       "nvme-io_uring",
					       "io_uring",
					       "virtio-blk-vfio-pci",
					       "virtio-blk-vhost-user",
					       "virtio-blk-vhost-vdpa" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(drivers); i++)
		if (!strcmp(driver, drivers[i]))
			return true;
	return false;
}

/* Devices that hand guest memory to the host's SCSI layer, which pins it whatever cache= says. */
static bool passes_through(const char *tree)
{
	static const char *const devices[] = { "dev: scsi-block", "dev: scsi-generic",
					       "dev: vhost-scsi", " scsi = true" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(devices); i++)
		if (strstr(tree, devices[i]))
			return true;
	return false;
}

static int find_disks(const struct gw_question *asked, struct gw_guest_facts *facts)
{
	const json_t *nodes = NULL, *node;
	size_t i;
	int rc = gw_question_answer(&asked[NODES], &nodes);

	if (rc)
		return rc;
	facts->direct_io = passes_through(gw_question_text(&asked[TREE]));
	json_array_foreach(nodes, i, node) {
		const char *driver = gw_qmp_text(node, "drv");

		if (json_is_true(json_object_get(json_object_get(node, "cache"), "direct")))
			facts->direct_io = true;
		if (!rc && writes_unseen(driver))
			rc = gw_fail(-ENOTSUP,
				     "disk '%s' (driver %s) writes memory unseen: use a disk that "
				     "QEMU reads and writes itself",
				     gw_qmp_text(node, "node-name"), driver);
	}
	return rc;
}

/*
 * Its file is the user's, and holds data of its own, where the backend is more than RAM.
 * Not every QEMU has all of these properties.
 */
static int refuse_lasting(const struct gw_question *asked, const char *id)
{
	for (int i = PMEM; i <= ROM; i++)
		if (json_is_true(asked[i].answer))
			return gw_fail(-ENOTSUP,
				       "memory backend '%s' (%s=on) has a file of its own, which "
				       "would stay behind: Godwit moves plain RAM",
				       id, properties[i]);
	return 0;
}

/* One file behind two backends would be two memories elsewhere. */
static int refuse_twice(const struct gw_ram *ram, const char *id, int fd)
{
	struct stat new, st;

	if (fstat(fd, &new))
		return gw_fail(-errno, "RAM file of backend '%s': %s", id, strerror(errno));
	for (unsigned int i = 0; i < ram->memory.nr_blocks; i++)
		if (!fstat(ram->files[i].fd, &st) && st.st_dev == new.st_dev &&
		    st.st_ino == new.st_ino)
			return gw_fail(-ENOTSUP,
				       "memory backends '%s' and '%s' have one file: give each one "
				       "of its own",
				       ram->memory.blocks[i].id, id);
	return 0;
}

static int add_backend(const struct gw_question *asked, pid_t pid, const json_t *dev,
		       const struct gw_qemu_ram *blocks, struct gw_ram *ram,
		       const struct gw_guest_facts *facts)
{
	const char *id = gw_qmp_text(dev, "id");
	uint64_t size = (uint64_t)json_integer_value(json_object_get(dev, "size")), hva;
	gw_autofree char *path = NULL;
	gw_autofd int fd = -1;
	char type[64], mem_path[512];
	struct stat st;
	bool memfd, named;
	int rc;

	qom_string(&asked[TYPE], type, sizeof(type));
	qom_string(&asked[MEM_PATH], mem_path, sizeof(mem_path));
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
	rc = memfd ? 0 : refuse_lasting(asked, id);
	if (!rc)
		rc = gw_blocks_hva(blocks, id, size, &hva);
	if (rc)
		return rc;
	path = gw_path("/proc/%d/root%s", (int)pid, memfd ? "" : mem_path);
	named = !memfd && !stat(path, &st);
	fd = gw_blocks_open(pid, id, named ? &st : NULL, size, &hva);
	if (fd < 0)
		return fd;
	rc = refuse_twice(ram, id, fd);
	if (!rc)
		rc = gw_ram_add(ram, id, fd, size, hva);
	if (!rc)
		gw_steal_fd(&fd);
	return rc;
}

/*
 * What a memory device is made of: "dimm" and "virtio-mem" are RAM. The others
 * (nvdimm, virtio-pmem, sgx-epc) hold what is not the VM's alone.
 */
static int refuse_memory_devices(const struct gw_question *asked, uint64_t *plugged)
{
	const json_t *devices = NULL, *device;
	int rc = gw_question_answer(&asked[DEVICES], &devices);
	size_t i;

	*plugged = 0;
	json_array_foreach(devices, i, device) {
		const char *type = gw_qmp_text(device, "type");
		const json_t *data = json_object_get(device, "data");
		const bool mem = !strcmp(type, "virtio-mem");

		if (!rc && !mem && strcmp(type, "dimm") != 0)
			rc = gw_fail(
				-ENOTSUP,
				"memory device '%s' (%s, %s) has a file of its own, whose data "
				"would stay behind: Godwit moves plain RAM",
				gw_qmp_text(data, "id"), type, gw_qmp_text(data, "memdev"));
		*plugged += (uint64_t)json_integer_value(
			json_object_get(data, mem ? "max-size" : "size"));
	}
	return rc;
}

/*
 * Every backend must be RAM. What is neither a memory device's nor the machine's
 * belongs to something else, which has its reasons for a file: shared with
 * others (ivshmem), or kept (an NVMe's PMR, ACPI's error records).
 */
static int refuse_other_uses(const struct gw_question *asked, const json_t *devs,
			     const struct gw_qemu_ram *blocks)
{
	const json_t *summary = NULL, *dev;
	uint64_t plugged, base, all = 0, expected;
	int rc = refuse_memory_devices(asked, &plugged);
	size_t i;

	if (!rc)
		rc = gw_question_answer(&asked[SIZES], &summary);
	if (rc)
		return rc;
	base = (uint64_t)json_integer_value(json_object_get(summary, "base-memory"));
	json_array_foreach(devs, i, dev)
		all += (uint64_t)json_integer_value(json_object_get(dev, "size"));
	expected = base + plugged;
	if (all == expected)
		return 0;
	/* Name the one that lies nowhere, or where no RAM begins (a PCI device's window). */
	json_array_foreach(devs, i, dev) {
		const char *id = gw_qmp_text(dev, "id");
		bool ram = false;

		for (unsigned int r = 0; r < blocks->nr_regions; r++)
			ram |= !strcmp(blocks->regions[r].id, id) &&
			       (blocks->regions[r].gpa < base ||
				blocks->regions[r].gpa - (4ULL << 30) < base + plugged);
		if (!ram)
			return gw_fail(
				-ENOTSUP,
				"memory backend '%s' is not RAM of the guest, but another "
				"device's (such as ivshmem) or nobody's: its file would stay "
				"behind",
				id);
	}
	return gw_fail(-ENOTSUP,
		       "the memory backends have %llu bytes, the guest's RAM has %llu: one of them "
		       "is used otherwise, and its file would stay behind",
		       (unsigned long long)all, (unsigned long long)expected);
}

/* What QEMU itself must send: video memory, ROMs, tables. */
static void note_others(const struct gw_qemu_ram *blocks, const struct gw_ram *ram,
			struct gw_guest_facts *facts)
{
	for (unsigned int i = 0; i < blocks->nr_blocks; i++) {
		const char *name = blocks->blocks[i].name, *slash = strrchr(name, '/');
		const char *id = slash ? slash + 1 : name;
		bool ours = false;

		for (unsigned int k = 0; k < ram->memory.nr_blocks; k++)
			ours |= !strcmp(ram->memory.blocks[k].id, id);
		if (!ours && facts->nr_others < GW_OTHER_BLOCKS_MAX)
			facts->others[facts->nr_others++] = blocks->blocks[i];
	}
}

/* Which memory backend has the lowest id above @last; as many as there are: none. */
static size_t next_by_id(const json_t *devs, const char *last)
{
	const char *next = NULL;
	const json_t *dev;
	size_t i, found = json_array_size(devs);

	json_array_foreach(devs, i, dev) {
		const char *id = gw_qmp_text(dev, "id");

		if ((!last || strcmp(id, last) > 0) && (!next || strcmp(id, next) < 0)) {
			next = id;
			found = i;
		}
	}
	return found;
}

static int add_backends(struct gw_qmp *q, pid_t pid, const json_t *devs,
			const struct gw_qemu_ram *blocks, struct gw_ram *ram,
			const struct gw_guest_facts *facts)
{
	const size_t nr = json_array_size(devs);
	gw_autofree struct gw_question *asked = calloc(nr, OF_BACKEND * sizeof(*asked));
	const char *last = NULL;
	const json_t *dev;
	size_t i;
	int rc;

	if (!asked)
		return gw_fail(-ENOMEM, "no memory to ask for %zu memory backends", nr);
	json_array_foreach(devs, i, dev) {
		gw_autofree char *object = gw_path("/objects/%s", gw_qmp_text(dev, "id"));

		for (int k = 0; k < OF_BACKEND; k++)
			asked[i * OF_BACKEND + (size_t)k] = property_of(object, properties[k]);
	}
	rc = gw_qmp_ask(q, asked, nr * OF_BACKEND);
	/* Page numbers run over the backends, so their order must be the same on every host. */
	while (!rc && (i = next_by_id(devs, last)) < nr) {
		dev = json_array_get(devs, i);
		last = gw_qmp_text(dev, "id");
		rc = add_backend(&asked[i * OF_BACKEND], pid, dev, blocks, ram, facts);
	}
	gw_questions_free(asked, nr * OF_BACKEND);
	return rc;
}

/* Its memory, once nothing else speaks against a move. */
static int find_memory(struct gw_qmp *q, pid_t pid, const struct gw_question *asked,
		       struct gw_ram *ram, struct gw_guest_facts *facts)
{
	gw_autofree struct gw_qemu_ram *blocks = malloc(sizeof(*blocks));
	const char *said = gw_question_text(&asked[BLOCKS]);
	const char *mapped = said ? gw_question_text(&asked[REGIONS]) : NULL;
	const json_t *devs = NULL;
	int rc = gw_question_answer(&asked[BACKENDS], &devs);

	if (!blocks)
		return gw_fail(-ENOMEM, "no memory to look at QEMU's");
	if (!rc && !json_array_size(devs))
		return gw_fail(-ENOTSUP,
			       "the VM has no memory backend: start it with 'godwit run', "
			       "or with -object memory-backend-file,share=on,... and "
			       "-machine memory-backend=ID");
	if (!rc && !mapped)
		return -EREMOTEIO;
	if (!rc)
		rc = gw_blocks_read(q, said, mapped, blocks);
	if (!rc)
		rc = add_backends(q, pid, devs, blocks, ram, facts);
	if (!rc)
		rc = refuse_other_uses(asked, devs, blocks);
	if (rc)
		return rc;
	gw_blocks_place(blocks, ram);
	if (!ram->nr_ranges)
		return gw_fail(-ENOTSUP, "QEMU's memory map names none of its memory backends");
	note_others(blocks, ram, facts);
	return 0;
}

int gw_attach(struct gw_qmp *q, pid_t pid, struct gw_ram *ram, struct gw_guest_facts *facts)
{
	struct gw_question asked[QUESTIONS] = {
		[VERSION] = { .command = "query-version" },
		[MACHINE] = property_of("/machine", "type"),
		[TREE] = gw_question_hmp("info qtree"),
		[NETWORK] = gw_question_hmp("info network"),
		[MIGRATION] = { .command = "query-migrate" },
		[NODES] = { .command = "query-named-block-nodes",
			    .args = json_pack("{s:b}", "flat", 1) },
		[BACKENDS] = { .command = "query-memdev" },
		[BLOCKS] = gw_question_hmp("info ramblock"),
		[REGIONS] = gw_question_hmp("info mtree -f"),
		[DEVICES] = { .command = "query-memory-devices" },
		[SIZES] = { .command = "query-memory-size-summary" },
	};
	const char *tree;
	int rc = gw_qmp_ask(q, asked, QUESTIONS);

	memset(ram, 0, sizeof(*ram));
	memset(facts, 0, sizeof(*facts));
	if (!rc)
		rc = find_version(asked, facts);
	if (!rc)
		rc = refuse_devices(asked);
	if (!rc)
		rc = refuse_blocked(asked);
	if (!rc)
		rc = find_disks(asked, facts);
	if (!rc)
		rc = find_memory(q, pid, asked, ram, facts);
	if (!rc) {
		tree = gw_question_text(&asked[TREE]);
		/* virtio-balloon, and hv-balloon since QEMU 8.2. */
		facts->discards = strstr(tree, "balloon") || strstr(tree, "dev: virtio-mem");
		facts->reports = strstr(tree, "free-page-reporting = true") ||
				 strstr(tree, "dev: virtio-mem");
	}
	gw_questions_free(asked, QUESTIONS);
	if (rc)
		gw_ram_close(ram);
	return rc;
}
