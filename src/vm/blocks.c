// SPDX-License-Identifier: GPL-2.0-or-later
/* blocks.c - where a QEMU maps which of its RAM blocks; see blocks.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blocks.h"
#include "cleanup.h"
#include "error.h"
#include "io.h"

/* The id at the end of a block's or region's name ("0000:00:03.0/vm0", "/objects/ram0"). */
static const char *id_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/*
 * Lines of `info ramblock`, the last two columns since QEMU 8.1:
 *   Block Name    PSize              Offset               Used              Total     HVA  RO
 *          mem    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x7f..  rw
 * A block without a name is none that migrates.
 */
static int read_blocks(const char *said, struct gw_qemu_ram *b)
{
	gw_autofree char *text = strdup(said);
	char *save = NULL;

	for (char *line = strtok_r(text, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		struct gw_qemu_block block = { 0 };

		if (sscanf(line, " %127s %*u %*s 0x%*x 0x%lx 0x%*x 0x%lx", block.name, &block.used,
			   &block.hva) < 2)
			continue;
		if (b->nr_blocks == GW_QEMU_BLOCKS_MAX)
			return gw_fail(-ENOTSUP, "the VM has more than %d blocks of memory",
				       GW_QEMU_BLOCKS_MAX);
		b->blocks[b->nr_blocks++] = block;
	}
	return 0;
}

/*
 * The flat view that address space "memory" uses, in lines like
 *   0000000100000000-000000017fffffff (prio 0, ram): ram @0000000080000000
 */
static int read_regions(const char *said, struct gw_qemu_ram *b)
{
	gw_autofree char *text = strdup(said);
	char *save = NULL;
	bool ours = false;

	for (char *line = strtok_r(text, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		struct gw_region r = { 0 };
		char kind[16], name[256];
		const char *at;

		if (strstr(line, "FlatView #")) {
			if (b->nr_regions)
				break;
			ours = false;
		}
		if (strstr(line, "AS \"memory\","))
			ours = true;
		if (!ours || sscanf(line, " %lx-%lx (prio %*d, %15[^)]): %255s", &r.gpa, &r.last,
				    kind, name) != 4)
			continue;
		if (strcmp(kind, "ram") != 0 && strcmp(kind, "rom") != 0)
			continue;
		at = strstr(line, " @");
		if (at)
			r.offset = strtoull(at + 2, NULL, 16);
		snprintf(r.id, sizeof(r.id), "%.127s", id_of(name));
		if (b->nr_regions == GW_REGIONS_MAX)
			return gw_fail(-ENOTSUP, "the VM's memory lies in more than %d ranges",
				       GW_REGIONS_MAX);
		b->regions[b->nr_regions++] = r;
	}
	return 0;
}

/* A page on QEMU's wire: address and flags, then a fill byte or the page. */
#define WIRE_ZERO 9UL
#define WIRE_PAGE (8UL + GW_PAGE_SIZE)

static uint64_t weigh(int mem, const struct gw_qemu_block *block, uint8_t *bytes)
{
	uint64_t weight = 0;

	for (uint64_t at = 0; at < block->used; at += GW_CHUNK_SIZE) {
		const uint64_t left = block->used - at;
		const size_t len = left < GW_CHUNK_SIZE ? (size_t)left : GW_CHUNK_SIZE;
		/* What cannot be read is not there: QEMU may unplug a device at any time. */
		const bool known = block->hva &&
				   pread(mem, bytes, len, (off_t)(block->hva + at)) == (ssize_t)len;

		for (size_t i = 0; i + GW_PAGE_SIZE <= len; i += GW_PAGE_SIZE)
			weight += known && !gw_page_is_zero(bytes + i) ? WIRE_PAGE : WIRE_ZERO;
	}
	return weight;
}

uint64_t gw_blocks_weigh(pid_t pid, const struct gw_qemu_block *blocks, unsigned int n)
{
	gw_autofree char *path = gw_path("/proc/%d/mem", (int)pid);
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);
	gw_autofd int mem = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t weight = 0;

	for (unsigned int i = 0; bytes && i < n; i++)
		weight += weigh(mem, &blocks[i], bytes);
	return weight;
}

/* "Host virtual address for 0x100000 (mem) is 0x7fcb340ff000"; 0 if it says otherwise. */
static uint64_t read_hva(const char *text, const struct gw_region *r)
{
	const char *open = text ? strchr(text, '(') : NULL;
	char name[256];
	uint64_t hva;

	if (!open || sscanf(open, "(%255[^)]) is 0x%lx", name, &hva) != 2 ||
	    strcmp(id_of(name), r->id) != 0 || hva < r->offset)
		return 0;
	return hva - r->offset;
}

/* The @n-th range in which @block lies, or NULL. */
static const struct gw_region *region_of(const struct gw_qemu_ram *b,
					 const struct gw_qemu_block *block, unsigned int n)
{
	for (unsigned int i = 0; i < b->nr_regions; i++)
		if (!strcmp(b->regions[i].id, id_of(block->name)) && !n--)
			return &b->regions[i];
	return NULL;
}

/* Ask where the blocks lie of which that is not known, each by its @n-th range. */
static int ask_hvas(struct gw_qmp *q, struct gw_qemu_ram *b, unsigned int n, unsigned int *nr)
{
	struct gw_question asked[GW_QEMU_BLOCKS_MAX];
	struct place {
		struct gw_qemu_block *block;
		const struct gw_region *in;
	} places[GW_QEMU_BLOCKS_MAX] = { { NULL, NULL } };
	int rc;

	*nr = 0;
	for (unsigned int i = 0; i < b->nr_blocks; i++) {
		struct gw_qemu_block *block = &b->blocks[i];
		const struct gw_region *r = block->hva ? NULL : region_of(b, block, n);
		gw_autofree char *command = r ? gw_path("gpa2hva 0x%lx", r->gpa) : NULL;

		if (!r)
			continue;
		places[*nr] = (struct place){ block, r };
		asked[(*nr)++] = gw_question_hmp(command);
	}
	rc = gw_qmp_ask(q, asked, *nr);
	for (unsigned int i = 0; !rc && i < *nr && places[i].in; i++)
		places[i].block->hva = read_hva(json_string_value(asked[i].answer), places[i].in);
	gw_questions_free(asked, *nr);
	return rc;
}

int gw_blocks_read(struct gw_qmp *q, const char *blocks, const char *regions, struct gw_qemu_ram *b)
{
	unsigned int nr = 1;
	int rc;

	memset(b, 0, sizeof(*b));
	rc = read_blocks(blocks, b);
	if (!rc)
		rc = read_regions(regions, b);
	for (unsigned int n = 0; !rc && nr; n++)
		rc = ask_hvas(q, b, n, &nr);
	return rc;
}

int gw_blocks_hva(const struct gw_qemu_ram *b, const char *id, uint64_t size, uint64_t *hva)
{
	unsigned int named = 0;

	*hva = 0;
	for (unsigned int i = 0; i < b->nr_blocks; i++) {
		const struct gw_qemu_block *block = &b->blocks[i];

		if (strcmp(id_of(block->name), id) != 0 || block->used != size)
			continue;
		named++;
		*hva = block->hva;
	}
	if (named > 1)
		return gw_fail(-ENOTSUP, "QEMU has %u blocks of memory that are called '%s'", named,
			       id);
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

/* Where QEMU says where it is (@file NULL), any file will do. */
static bool is_file(const struct mapping *m, const struct stat *file)
{
	if (!file)
		return m->inode;
	return m->inode == file->st_ino && m->major == major(file->st_dev) &&
	       m->minor == minor(file->st_dev);
}

/*
 * The whole of the file, shared, from its first byte at @hva (0: wherever that
 * is); the kernel may show it in several neighbouring pieces.
 */
static unsigned int find_mapping(FILE *maps, const struct stat *file, uint64_t size, uint64_t hva,
				 struct mapping *found)
{
	struct mapping m, first = { 0 };
	unsigned int matches = 0;
	uint64_t end = 0;
	char line[1024];

	while (fgets(line, sizeof(line), maps)) {
		if (!parse_mapping(line, &m))
			continue;
		if (m.perms[3] != 's' || !is_file(&m, file))
			continue;
		if (m.offset == 0 && (!hva || m.start == hva)) {
			first = m;
			end = m.end;
		} else if (end && m.start == end && m.inode == first.inode &&
			   m.offset == m.start - first.start) {
			end = m.end;
		} else {
			end = 0;
		}
		if (end && end - first.start == size) {
			*found = first;
			matches++;
			end = 0;
		}
	}
	return matches;
}

int gw_blocks_open(pid_t pid, const char *id, const struct stat *file, uint64_t size, uint64_t *hva)
{
	gw_autofree char *path = gw_path("/proc/%d/maps", (int)pid);
	gw_autofile FILE *maps = fopen(path, "re");
	gw_autofree char *map_file = NULL;
	struct mapping m = { 0 };
	unsigned int matches;
	int fd;

	if (!maps)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (!file && !*hva)
		return gw_fail(
			-ENOTSUP,
			"QEMU does not tell where it maps memory backend '%s', and no file's "
			"name does: is it in use at all?",
			id);
	matches = find_mapping(maps, *hva ? NULL : file, size, *hva, &m);
	if (matches > 1)
		return gw_fail(-ENOTSUP,
			       "QEMU (process %d) maps the file of memory backend '%s' %u times: "
			       "each backend needs a file of its own",
			       (int)pid, id, matches);
	if (!matches)
		return gw_fail(-ENOTSUP,
			       "QEMU (process %d) does not map %llu bytes of shared memory where "
			       "its memory backend '%s' says",
			       (int)pid, (unsigned long long)size, id);
	/* By map_files, so that it works in any mount namespace and for a deleted file. */
	map_file = gw_path("/proc/%d/map_files/%lx-%lx", (int)pid, m.start, m.end);
	fd = open(map_file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return gw_fail(-errno, "RAM file of backend '%s': %s", id, strerror(errno));
	*hva = m.start;
	return fd;
}

/* Add a flat range of backend memory, or extend the range that it continues. */
static void add_range(struct gw_ram *ram, const struct gw_region *r)
{
	for (unsigned int i = 0; i < ram->memory.nr_blocks; i++) {
		if (strcmp(ram->memory.blocks[i].id, r->id) != 0)
			continue;
		for (unsigned int k = 0; k < ram->nr_ranges; k++) {
			struct gw_ram_range *range = &ram->ranges[k];

			/* Legacy holes (VGA, ROM shadow) do not split it. */
			if (range->block == i && range->gpa - range->offset == r->gpa - r->offset) {
				if (r->last + 1 > range->gpa + range->size)
					range->size = r->last + 1 - range->gpa;
				return;
			}
		}
		if (ram->nr_ranges < GW_RAM_RANGES_MAX)
			ram->ranges[ram->nr_ranges++] =
				(struct gw_ram_range){ .gpa = r->gpa,
						       .size = r->last + 1 - r->gpa,
						       .block = i,
						       .offset = r->offset };
		return;
	}
}

void gw_blocks_place(const struct gw_qemu_ram *b, struct gw_ram *ram)
{
	for (unsigned int i = 0; i < b->nr_regions; i++)
		add_range(ram, &b->regions[i]);
}
