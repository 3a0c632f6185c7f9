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
 * Devices that write guest memory without QEMU's page table, so that neither
 * tracker sees them; and those whose memory is more than the VM's own.
 */
static int refuse_devices(struct gw_qmp *q)
{
	static const char *const unseen[] = { "dev: vfio-", "dev: vhost-user-", "type=vhost-user",
					      "type=vhost-vdpa", "dev: vhost-vdpa-" };
	/* Their memory is a file of the user's, which others share or which lasts. */
	static const char *const files[] = { "dev: ivshmem-", "dev: acpi-erst", "dev: cxl-type3",
					     "dev: virtio-pmem" };
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

static int refuse_blocked(struct gw_qmp *q)
{
	json_t *answer = NULL;
	const char *reason, *status;
	int rc = gw_qmp_call(q, "query-migrate", NULL, &answer);

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
	json_decref(answer);
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
static bool passes_through(struct gw_qmp *q)
{
	static const char *const devices[] = { "dev: scsi-block", "dev: scsi-generic",
					       "dev: vhost-scsi", " scsi = true" };
	gw_autofree char *tree = gw_qmp_hmp(q, "info qtree");

	for (size_t i = 0; tree && i < GW_ARRAY_SIZE(devices); i++)
		if (strstr(tree, devices[i]))
			return true;
	return !tree;
}

static int find_disks(struct gw_qmp *q, struct gw_guest_facts *facts)
{
	json_t *nodes = NULL, *node;
	size_t i;
	int rc = gw_qmp_call(q, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes);

	if (rc)
		return rc;
	facts->direct_io = passes_through(q);
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
	json_decref(nodes);
	return rc;
}

/* Whether a boolean property of a backend is set; false if this QEMU has none of that name. */
static bool qom_true(struct gw_qmp *q, const char *path, const char *property)
{
	json_t *answer = NULL;
	bool is = !gw_qmp_call(q, "qom-get",
			       json_pack("{s:s,s:s}", "path", path, "property", property),
			       &answer) &&
		  json_is_true(answer);

	json_decref(answer);
	return is;
}

/* Its file is the user's, and holds data of its own, where the backend is more than RAM. */
static int refuse_lasting(struct gw_qmp *q, const char *id, const char *object)
{
	static const char *const lasting[] = { "pmem", "readonly", "rom" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(lasting); i++)
		if (qom_true(q, object, lasting[i]))
			return gw_fail(-ENOTSUP,
				       "memory backend '%s' (%s=on) has a file of its own, which "
				       "would stay behind: Godwit moves plain RAM",
				       id, lasting[i]);
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

static int add_backend(struct gw_qmp *q, pid_t pid, const json_t *dev,
		       const struct gw_qemu_ram *blocks, struct gw_ram *ram,
		       const struct gw_guest_facts *facts)
{
	const char *id = gw_qmp_text(dev, "id");
	uint64_t size = (uint64_t)json_integer_value(json_object_get(dev, "size")), hva;
	gw_autofree char *object = gw_path("/objects/%s", id);
	gw_autofree char *path = NULL;
	gw_autofd int fd = -1;
	char type[64], mem_path[512];
	struct stat st;
	bool memfd, named;
	int rc;

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
	rc = memfd ? 0 : refuse_lasting(q, id, object);
	if (!rc)
		rc = gw_blocks_hva(q, blocks, id, size, &hva);
	if (rc)
		return rc;
	if (!memfd)
		qom_string(q, object, "mem-path", mem_path, sizeof(mem_path));
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
static int refuse_memory_devices(struct gw_qmp *q, uint64_t *plugged)
{
	json_t *devices = NULL, *device;
	int rc = gw_qmp_call(q, "query-memory-devices", NULL, &devices);
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
	json_decref(devices);
	return rc;
}

/*
 * Every backend must be RAM. What is neither a memory device's nor the machine's
 * belongs to something else, which has its reasons for a file: shared with
 * others (ivshmem), or kept (an NVMe's PMR, ACPI's error records).
 */
static int refuse_other_uses(struct gw_qmp *q, const json_t *devs, const struct gw_qemu_ram *blocks)
{
	json_t *summary = NULL;
	const json_t *dev;
	uint64_t plugged, base, all = 0, expected;
	int rc = refuse_memory_devices(q, &plugged);
	size_t i;

	if (!rc)
		rc = gw_qmp_call(q, "query-memory-size-summary", NULL, &summary);
	if (rc)
		return rc;
	base = (uint64_t)json_integer_value(json_object_get(summary, "base-memory"));
	json_decref(summary);
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
static void note_others(struct gw_qmp *q, const struct gw_qemu_ram *blocks,
			const struct gw_ram *ram, struct gw_guest_facts *facts)
{
	for (unsigned int i = 0; i < blocks->nr_blocks; i++) {
		struct gw_qemu_block block = blocks->blocks[i];
		const char *slash = strrchr(block.name, '/');
		const char *id = slash ? slash + 1 : block.name;
		bool ours = false;

		for (unsigned int k = 0; k < ram->memory.nr_blocks; k++)
			ours |= !strcmp(ram->memory.blocks[k].id, id);
		if (ours || facts->nr_others == GW_OTHER_BLOCKS_MAX)
			continue;
		if (!block.hva && gw_blocks_hva(q, blocks, id, block.used, &block.hva))
			gw_error_clear();
		facts->others[facts->nr_others++] = block;
	}
}

/* The memory backend with the lowest id above @last. */
static const json_t *next_by_id(const json_t *devs, const char *last)
{
	const json_t *dev, *next = NULL;
	size_t i;

	json_array_foreach(devs, i, dev) {
		const char *id = gw_qmp_text(dev, "id");

		if ((!last || strcmp(id, last) > 0) &&
		    (!next || strcmp(id, gw_qmp_text(next, "id")) < 0))
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
	gw_autofree struct gw_qemu_ram *blocks = malloc(sizeof(*blocks));
	int rc;

	if (!blocks)
		return gw_fail(-ENOMEM, "no memory to look at QEMU's");
	memset(ram, 0, sizeof(*ram));
	memset(facts, 0, sizeof(*facts));
	rc = find_version(q, facts);
	if (!rc)
		rc = refuse_devices(q);
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
	if (!rc)
		rc = gw_blocks_read(q, blocks);
	/* Page numbers run over the backends, so their order must be the same on every host. */
	while (!rc && (dev = next_by_id(devs, last_id))) {
		last_id = gw_qmp_text(dev, "id");
		rc = add_backend(q, pid, dev, blocks, ram, facts);
	}
	if (!rc)
		rc = refuse_other_uses(q, devs, blocks);
	json_decref(devs);
	if (!rc)
		gw_blocks_place(blocks, ram);
	if (!rc && !ram->nr_ranges)
		rc = gw_fail(-ENOTSUP, "QEMU's memory map names none of its memory backends");
	if (!rc) {
		note_others(q, blocks, ram, facts);
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
