// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_attach.c - what gw_attach() finds out about a QEMU, and what it refuses.
 *
 * The QEMU is this process, which maps RAM files as one would, behind a monitor
 * that answers each command from a table; a test replaces single answers.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attach.h"

#define SIZE   (6UL << 20)
#define EXTRAS 6

static const char *const memdev = "[{\"id\":\"ram\",\"size\":6291456,\"share\":true},"
				  "{\"id\":\"low\",\"size\":6291456,\"share\":true}]";

static const struct answer usual[] = {
	{ "qmp_capabilities", "{}" },
	{ "query-version", "{\"qemu\":{\"major\":8,\"minor\":2,\"micro\":1},\"package\":\"\"}" },
	{ "\"/machine\"", "\"pc-q35-8.2-machine\"" },
	{ "info qtree", "\"bus: main-system-bus\\r\\n  dev: virtio-blk-pci, id \\\"\\\"\\r\\n\"" },
	{ "info network", "\"net0: index=0,type=tap,ifname=tap0\\r\\n\"" },
	{ "query-migrate", "{}" },
	{ "query-named-block-nodes", "[{\"cache\":{\"direct\":false}},{\"cache\":{}}]" },
	{ "info mtree",
	  "\"FlatView #0\\r\\n AS \\\"I/O\\\", root: io\\r\\n"
	  "  0000000000000000-0000000000000007 (prio 0, i/o): dma\\r\\n"
	  "FlatView #1\\r\\n AS \\\"memory\\\", root: system\\r\\n"
	  "  0000000000000000-000000000009ffff (prio 0, ram): ram\\r\\n"
	  "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\\r\\n"
	  "  00000000000c0000-00000000002fffff (prio 0, ram): ram @00000000000c0000\\r\\n"
	  "  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\\r\\n"
	  "  0000000100000000-00000001002fffff (prio 0, ram): ram @0000000000300000\\r\\n"
	  "  0000000200000000-00000002005fffff (prio 0, ram): low\\r\\n"
	  "FlatView #2\\r\\n AS \\\"other\\\", root: other\\r\\n"
	  "  0000000900000000-00000009002fffff (prio 0, ram): ram\\r\\n\"" },
	{ "\"property\":\"type\"", "\"memory-backend-file\"" },
	{ "\"property\":\"pmem\"", "false" },
	{ "\"property\":\"readonly\"", "false" },
	{ "\"property\":\"rom\"", "{}" },
	{ "query-memory-devices", "[]" },
	{ "query-memory-size-summary", "{\"base-memory\":12582912,\"plugged-memory\":0}" },
};

struct qemu {
	char *dir, *socket, *files[2];
	uint8_t *maps[2];
	char paths[2][512]; /* answers to mem-path */
	char ramblock[1024];
	char hva[2][128]; /* answers to gpa2hva, for the region of "ram" and of "low" */
	struct answer special[EXTRAS]; /* before the usual ones */
	struct monitor monitor;
	bool unknown; /* a command that no answer fits */
};

static const char *answer_to(void *arg, const char *asked)
{
	struct qemu *m = arg;
	const char *answer = answer_of(m->special, EXTRAS, asked);

	if (!answer && strstr(asked, "query-memdev"))
		return memdev;
	if (!answer && strstr(asked, "mem-path"))
		return m->paths[strstr(asked, "/objects/low") ? 1 : 0];
	if (!answer && strstr(asked, "info ramblock"))
		return m->ramblock;
	if (!answer && strstr(asked, "gpa2hva"))
		return m->hva[strstr(asked, "0x200000000") ? 1 : 0];
	answer = answer ?: answer_of(usual, GW_ARRAY_SIZE(usual), asked);
	m->unknown |= !answer;
	return answer ?: "{}";
}

static void *map_file(const char *path, int flags)
{
	gw_autofd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *map = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, SIZE))
		map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
	return map;
}

static int make(void **state)
{
	struct qemu *m = calloc(1, sizeof(*m));

	*state = m;
	/* In /dev/shm, as RAM files are: some file systems show another device in maps. */
	m->dir = strdup("/dev/shm/gw-unit-XXXXXX");
	if (!mkdtemp(m->dir))
		return -1;
	m->socket = gw_path("%s/qmp", m->dir);
	for (int i = 0; i < 2; i++) {
		m->files[i] = gw_path("%s/ram%d", m->dir, i);
		snprintf(m->paths[i], sizeof(m->paths[i]), "\"%s\"", m->files[i]);
		m->maps[i] = map_file(m->files[i], MAP_SHARED);
		if (m->maps[i] == MAP_FAILED)
			return -1;
	}
	m->monitor = (struct monitor){ monitor_listen(m->socket), answer_to, m, 0 };
	return m->monitor.listener < 0;
}

static int drop(void **state)
{
	struct qemu *m = *state;
	int rc;

	close(m->monitor.listener);
	for (int i = 0; i < 2; i++) {
		if (m->maps[i])
			munmap(m->maps[i], SIZE);
		free(m->files[i]);
	}
	rc = gw_remove_tree(m->dir);
	free(m->socket);
	free(m->dir);
	free(m);
	return rc;
}

/* What QEMU says of its blocks; without addresses before 8.1. */
static void say_blocks(struct qemu *m, bool addresses)
{
	const char *names[] = { "ram", "0000:00:03.0/low" };
	int n = snprintf(m->ramblock, sizeof(m->ramblock),
			 "\"     Block Name    PSize    Offset    Used    Total\\r\\n");

	for (int i = 0; i < 2; i++) {
		char hva[64] = "";

		if (addresses)
			snprintf(hva, sizeof(hva), " 0x%016lx  rw", (uintptr_t)m->maps[i]);
		n += snprintf(m->ramblock + n, sizeof(m->ramblock) - (size_t)n,
			      "  %s    4 KiB  0x0 0x%016lx 0x%016lx%s\\r\\n", names[i], SIZE, SIZE,
			      hva);
		snprintf(m->hva[i], sizeof(m->hva[i]),
			 "\"Host virtual address for 0x0 (%s) is 0x%lx\\r\\n\"", i ? "low" : "ram",
			 (uintptr_t)m->maps[i]);
	}
	snprintf(
		m->ramblock + n, sizeof(m->ramblock) - (size_t)n,
		"  0000:00:02.0/vga.vram    4 KiB  0x0 0x0000000001000000 0x0000000001000000%s\\r\\n"
		"                           4 KiB  0x0 0x1000 0x1000\\r\\n\"",
		addresses ? " 0x00007f0012340000  rw" : "");
}

/* Attach to ourselves through the monitor. */
static int attach(struct qemu *m, struct gw_ram *ram, struct gw_guest_facts *facts)
{
	struct gw_qmp *q;
	int rc;

	if (!m->ramblock[0])
		say_blocks(m, true);
	q = monitor_call(&m->monitor, m->socket);
	rc = gw_attach(q, getpid(), ram, facts);
	monitor_end(&m->monitor, q);
	assert_false(m->unknown);
	return rc;
}

static void assert_refused(struct qemu *m, const char *asked, const char *answer, const char *why)
{
	struct gw_guest_facts facts;
	struct gw_ram ram;

	m->special[0] = (struct answer){ asked, answer };
	assert_int_equal(attach(m, &ram, &facts), -ENOTSUP);
	assert_message(why);
	assert_int_equal(ram.memory.nr_blocks, 0); /* and nothing is left open */
}

static void finds_memory(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;
	uint8_t page[GW_PAGE_SIZE];

	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_int_equal(facts.major, 8);
	assert_int_equal(facts.minor, 2);
	assert_string_equal(facts.machine, "pc-q35-8.2");
	assert_false(facts.direct_io);
	assert_false(facts.discards);
	/* By id, so that every host numbers the pages alike. */
	assert_int_equal(ram.memory.nr_blocks, 2);
	assert_string_equal(ram.memory.blocks[0].id, "low");
	assert_string_equal(ram.memory.blocks[1].id, "ram");
	assert_int_equal(ram.files[0].hva, (uintptr_t)m->maps[1]);
	assert_int_equal(ram.files[1].hva, (uintptr_t)m->maps[0]);
	m->maps[0][GW_PAGE_SIZE + 5] = 77;
	assert_int_equal(gw_memory_read(&ram.memory, ram.memory.blocks[1].first_page + 1, 1, page),
			 0);
	assert_int_equal(page[5], 77);
	gw_ram_close(&ram);
}

static void maps_blocks(void **state)
{
	struct gw_guest_facts facts;
	struct gw_ram ram;

	assert_int_equal(attach(*state, &ram, &facts), 0);
	/* Below and above 4 GiB; the hole for the VGA window splits nothing. */
	assert_int_equal(ram.nr_ranges, 3);
	assert_int_equal(ram.ranges[0].gpa, 0);
	assert_int_equal(ram.ranges[0].size, 0x300000);
	assert_int_equal(ram.ranges[0].block, 1);
	assert_int_equal(ram.ranges[0].offset, 0);
	assert_int_equal(ram.ranges[1].gpa, 0x100000000);
	assert_int_equal(ram.ranges[1].size, 0x300000);
	assert_int_equal(ram.ranges[1].block, 1);
	assert_int_equal(ram.ranges[1].offset, 0x300000);
	assert_int_equal(ram.ranges[2].gpa, 0x200000000);
	assert_int_equal(ram.ranges[2].size, SIZE);
	assert_int_equal(ram.ranges[2].block, 0);
	gw_ram_close(&ram);
}

static void notices_disks_and_balloons(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;

	m->special[0] = (struct answer){ "query-named-block-nodes",
					 "[{\"cache\":{\"direct\":false}},"
					 "{\"cache\":{\"direct\":true}}]" };
	m->special[1] = (struct answer){ "info qtree", "\"dev: virtio-balloon-pci\"" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_true(facts.direct_io);
	assert_true(facts.discards);
	gw_ram_close(&ram);
	m->special[1] = (struct answer){ "info qtree", "\"  dev: hv-balloon, id \\\"\\\"\"" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_true(facts.discards);
	gw_ram_close(&ram);
}

static void refuses_old_versions(void **state)
{
	assert_refused(*state, "query-version", "{\"qemu\":{\"major\":7,\"minor\":1}}",
		       "runs QEMU 7.1; Godwit needs 7.2");
}

static void refuses_unseen_writers(void **state)
{
	assert_refused(*state, "info qtree", "\"  dev: vfio-pci, id \\\"gpu\\\"\\r\\n\"",
		       "writes memory unseen (dev: vfio-pci)");
	assert_refused(*state, "info network", "\"net0: index=0,type=vhost-user,\\r\\n\"",
		       "type=vhost-user");
	assert_refused(*state, "info network", "\"net0: index=0,type=vhost-vdpa,\\r\\n\"",
		       "type=vhost-vdpa");
}

static void refuses_what_qemu_refuses(void **state)
{
	assert_refused(*state, "query-migrate", "{\"blocked-reasons\":[\"a 9p mount\"]}",
		       "cannot migrate: a 9p mount");
}

static void refuses_other_memory(void **state)
{
	struct qemu *m = *state;

	assert_refused(m, "query-memdev", "[]", "no memory backend");
	assert_refused(m, "query-memdev", "[{\"id\":\"ram\",\"size\":6291456,\"share\":false}]",
		       "'ram' (memory-backend-file) is not a shared file");
	assert_refused(m, "\"property\":\"type\"", "\"memory-backend-ram\"",
		       "(memory-backend-ram) is not a shared file");
	assert_refused(m, "\"property\":\"type\"", "\"memory-backend-memfd\"",
		       "a memfd, which QEMU 8.2 would send itself");
	assert_refused(m, "info mtree",
		       "\"FlatView #1\\r\\n AS \\\"memory\\\", root: system\\r\\n\"",
		       "names none of its memory backends");
}

/* QEMU says "shared", the kernel knows better. */
static void refuses_private_mappings(void **state)
{
	struct qemu *m = *state;

	munmap(m->maps[0], SIZE);
	m->maps[0] = map_file(m->files[0], MAP_PRIVATE);
	assert_ptr_not_equal(m->maps[0], MAP_FAILED);
	assert_refused(m, "query-memdev", "[{\"id\":\"ram\",\"size\":6291456,\"share\":true}]",
		       "does not map 6291456 bytes of shared memory");
}

/* Before 8.1 a memfd is as good as a file, and has no name to be found by. */
static void takes_memfds_of_old_qemus(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;
	gw_autofd int fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC);
	uint8_t page[GW_PAGE_SIZE];
	uint8_t *map;

	assert_int_equal(ftruncate(fd, SIZE), 0);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	map[0] = 88;
	m->special[4] = (struct answer){ "query-memory-size-summary", "{\"base-memory\":6291456}" };
	m->special[3] = (struct answer){ "gpa2hva", m->hva[0] };
	munmap(m->maps[0], SIZE);
	m->maps[0] = map;
	say_blocks(m, false);
	m->special[0] = (struct answer){ "query-version", "{\"qemu\":{\"major\":7,\"minor\":2}}" };
	m->special[1] = (struct answer){ "\"property\":\"type\"", "\"memory-backend-memfd\"" };
	m->special[2] = (struct answer){ "query-memdev",
					 "[{\"id\":\"ram\",\"size\":6291456,\"share\":true}]" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_int_equal(ram.files[0].hva, (uintptr_t)map);
	assert_int_equal(gw_memory_read(&ram.memory, 0, 1, page), 0);
	assert_int_equal(page[0], 88);
	/* Which QEMU sends itself; of this one it does not say where it is. */
	assert_int_equal(facts.nr_others, 2);
	assert_string_equal(facts.others[1].name, "0000:00:02.0/vga.vram");
	assert_int_equal(facts.others[1].used, 16 << 20);
	assert_int_equal(facts.others[1].hva, 0);
	gw_ram_close(&ram);
}

/* Two memfds of one size: only QEMU knows which is which. */
static void tells_memfds_apart(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;

	for (int i = 0; i < 2; i++) {
		gw_autofd int fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, SIZE), 0);
		munmap(m->maps[i], SIZE);
		m->maps[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(m->maps[i], MAP_FAILED);
	}
	say_blocks(m, false);
	m->special[2] = (struct answer){ "query-version", "{\"qemu\":{\"major\":7,\"minor\":2}}" };
	m->special[1] = (struct answer){ "\"property\":\"type\"", "\"memory-backend-memfd\"" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_string_equal(ram.memory.blocks[0].id, "low");
	assert_int_equal(ram.files[0].hva, (uintptr_t)m->maps[1]);
	assert_int_equal(ram.files[1].hva, (uintptr_t)m->maps[0]);
	gw_ram_close(&ram);
	/* It says nothing, or that something else lies there, or where nothing does. */
	assert_refused(m, "gpa2hva", "\"No memory is mapped at address 0x0\\r\\n\"",
		       "does not tell where it maps");
	assert_refused(m, "gpa2hva",
		       "\"Host virtual address for 0x0 (pc.bios) is 0x7f0000000000\\r\\n\"",
		       "does not tell where it maps");
	snprintf(m->hva[1], sizeof(m->hva[1]),
		 "\"Host virtual address for 0x0 (low) is 0x%lx\\r\\n\"",
		 (uintptr_t)m->maps[1] + GW_PAGE_SIZE);
	m->special[0] = (struct answer){ 0 };
	assert_refused(m, "none", "", "does not map 6291456 bytes of shared memory");
}

static void refuses_twins(void **state)
{
	struct qemu *m = *state;

	/* One file twice, and a name twice. */
	munmap(m->maps[1], SIZE);
	m->maps[1] = map_file(m->files[0], MAP_SHARED);
	assert_refused(m, "none", "", "'low' and 'ram' have one file");
	snprintf(m->ramblock, sizeof(m->ramblock),
		 "\" a/low 4 KiB 0x0 0x600000 0x600000 0x1 rw\\r\\n"
		 " b/low 4 KiB 0x0 0x600000 0x600000 0x2 rw\\r\\n\"");
	assert_refused(m, "none", "", "2 blocks of memory that are called 'low'");
}

/* Backends with a file of the user's. */
static void refuses_files_that_last(void **state)
{
	struct qemu *m = *state;
	static const char *const devices[] = { "ivshmem-plain", "ivshmem-doorbell", "acpi-erst",
					       "virtio-pmem-pci" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(devices); i++) {
		gw_autofree char *tree = gw_path("\"  dev: %s, id \\\"x\\\"\\r\\n\"", devices[i]);

		assert_refused(m, "info qtree", tree, devices[i]);
		assert_message("would stay behind");
	}
	assert_refused(m, "query-memory-devices",
		       "[{\"type\":\"nvdimm\",\"data\":{\"id\":\"nv\",\"size\":6291456,"
		       "\"memdev\":\"/objects/low\"}}]",
		       "memory device 'nv' (nvdimm, /objects/low)");
	assert_refused(m, "\"property\":\"pmem\"", "true", "'low' (pmem=on)");
	/* An NVMe's PMR and whatever else takes a backend: it is not in the sum of the RAM. */
	assert_refused(m, "query-memory-size-summary", "{\"base-memory\":6291456}",
		       "'low' is not RAM of the guest");
}

/* Memory devices that are RAM count as such. */
static void takes_memory_devices(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;

	m->special[0] = (struct answer){ "query-memory-size-summary", "{\"base-memory\":6291456}" };
	m->special[1] = (struct answer){ "query-memory-devices",
					 "[{\"type\":\"virtio-mem\",\"data\":{\"size\":0,"
					 "\"max-size\":6291456,\"memdev\":\"/objects/low\"}}]" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	gw_ram_close(&ram);
	m->special[1] = (struct answer){ "query-memory-devices",
					 "[{\"type\":\"dimm\",\"data\":{\"size\":6291456,"
					 "\"memdev\":\"/objects/low\"}}]" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_int_equal(facts.nr_others, 1);
	assert_int_equal(facts.others[0].hva, 0x7f0012340000);
	gw_ram_close(&ram);
}

/* A RAM file whose name is gone is as good as any: QEMU says where it is mapped. */
static void takes_files_without_a_name(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;

	assert_int_equal(unlink(m->files[0]), 0);
	assert_int_equal(attach(m, &ram, &facts), 0);
	assert_int_equal(ram.files[1].hva, (uintptr_t)m->maps[0]);
	gw_ram_close(&ram);
}

static void disks_that_pin(void **state)
{
	struct qemu *m = *state;
	static const char *const devices[] = { "scsi-block", "scsi-generic", "vhost-scsi-pci" };
	struct gw_guest_facts facts;
	struct gw_ram ram;

	for (size_t i = 0; i < GW_ARRAY_SIZE(devices); i++) {
		gw_autofree char *tree = gw_path("\"  dev: %s, id \\\"x\\\"\\r\\n\"", devices[i]);

		m->special[0] = (struct answer){ "info qtree", tree };
		assert_int_equal(attach(m, &ram, &facts), 0);
		assert_true(facts.direct_io);
		gw_ram_close(&ram);
	}
	assert_refused(m, "query-named-block-nodes",
		       "[{\"drv\":\"raw\"},{\"drv\":\"nvme\",\"node-name\":\"n1\"}]",
		       "disk 'n1' (driver nvme) writes memory unseen");
}

static void waits_for_a_migration_of_others(void **state)
{
	struct qemu *m = *state;
	struct gw_guest_facts facts;
	struct gw_ram ram;

	m->special[0] = (struct answer){ "query-migrate", "{\"status\":\"active\"}" };
	assert_int_equal(attach(m, &ram, &facts), -EBUSY);
	assert_message("migrating this VM already");
	m->special[0] = (struct answer){ "query-migrate", "{\"status\":\"failed\"}" };
	assert_int_equal(attach(m, &ram, &facts), 0);
	gw_ram_close(&ram);
}

/* QEMU sends zeros in a few bytes, other pages whole, and what is unknown is not counted as more.
 */
static void blocks_are_weighed(void **state)
{
	const size_t pages = 3 * GW_CHUNK_PAGES + 5;
	uint8_t *at = mmap(NULL, pages * GW_PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct gw_qemu_block block = { .name = "0000:00:02.0/vga.vram",
				       .used = pages * GW_PAGE_SIZE };
	uint64_t empty, weight;

	(void)state;
	assert_ptr_not_equal(at, MAP_FAILED);
	empty = gw_blocks_weigh(getpid(), &block, 1);
	assert_true(empty > 0 && empty < 20 * pages);
	block.hva = (uintptr_t)at;
	assert_int_equal(gw_blocks_weigh(getpid(), &block, 1), empty);
	for (size_t page = 0; page < pages; page += 7)
		at[page * GW_PAGE_SIZE + 4095] = 1;
	weight = gw_blocks_weigh(getpid(), &block, 1);
	assert_in_range(weight, (pages + 6) / 7 * GW_PAGE_SIZE,
			empty + (pages + 6) / 7 * (GW_PAGE_SIZE + 16));
	munmap(at, pages * GW_PAGE_SIZE);
	/* A device that was unplugged meanwhile: nothing is mapped there, as nothing is at page 0.
	 */
	block.hva = GW_PAGE_SIZE;
	assert_int_equal(gw_blocks_weigh(getpid(), &block, 1), empty);
}

#define attach_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_weighed),
		attach_test(finds_memory),
		attach_test(maps_blocks),
		attach_test(notices_disks_and_balloons),
		attach_test(refuses_old_versions),
		attach_test(refuses_unseen_writers),
		attach_test(refuses_what_qemu_refuses),
		attach_test(refuses_other_memory),
		attach_test(refuses_private_mappings),
		attach_test(takes_memfds_of_old_qemus),
		attach_test(tells_memfds_apart),
		attach_test(refuses_twins),
		attach_test(refuses_files_that_last),
		attach_test(takes_memory_devices),
		attach_test(takes_files_without_a_name),
		attach_test(disks_that_pin),
		attach_test(waits_for_a_migration_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
