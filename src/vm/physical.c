// SPDX-License-Identifier: GPL-2.0-or-later
/* physical.c - guest-physical frames and pages; see physical.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "physical.h"

/* The flat view that the guest's processors and its devices see. */
#define VIEW	     "FlatView #"
#define MEMORY	     "\n AS \"memory\", "
#define RAM	     "ram): "
#define NAME_MAX_LEN 127

static const struct gw_memory_block *block_named(const struct gw_memory *m, const char *name)
{
	for (unsigned int i = 0; i < m->nr_blocks; i++)
		if (!strcmp(m->blocks[i].id, name))
			return &m->blocks[i];
	return NULL;
}

/* "  0000000000100000-000000007fffffff (prio 0, ram): ram0 @0000000000100000" */
static void take_line(struct gw_physical *p, const char *line, const struct gw_memory *m)
{
	const char *ram = strstr(line, RAM);
	const struct gw_memory_block *block;
	uint64_t first, last, offset = 0, frames;
	char name[NAME_MAX_LEN + 1];

	if (!ram || p->nr == GW_PHYSICAL_MAX ||
	    sscanf(line, " %" SCNx64 "-%" SCNx64, &first, &last) != 2 ||
	    sscanf(ram + strlen(RAM), "%127s @%" SCNx64, name, &offset) < 1)
		return;
	block = block_named(m, name);
	if (!block || last < first || (first | offset) % GW_PAGE_SIZE ||
	    (last + 1) % GW_PAGE_SIZE || offset >= block->size)
		return;
	frames = (last - first + 1) / GW_PAGE_SIZE;
	if (frames > (block->size - offset) / GW_PAGE_SIZE)
		frames = (block->size - offset) / GW_PAGE_SIZE;
	p->ranges[p->nr++] = (struct gw_physical_range){
		first / GW_PAGE_SIZE, frames, block->first_page + offset / GW_PAGE_SIZE
	};
}

void gw_physical_parse(struct gw_physical *p, const char *text, const struct gw_memory *m)
{
	const char *memory = strstr(text, MEMORY), *end, *line;
	char copy[256];

	p->nr = 0;
	if (!memory)
		return;
	memory++;
	end = strstr(memory, VIEW);
	for (line = memory; line && (!end || line < end); line = strchr(line, '\n')) {
		const size_t len = strcspn(++line, "\r\n");

		if (len >= sizeof(copy))
			continue;
		memcpy(copy, line, len);
		copy[len] = '\0';
		take_line(p, copy, m);
	}
}

int gw_physical_ask(struct gw_physical *p, struct gw_qmp *q, const struct gw_memory *m)
{
	json_t *said = NULL;
	int rc = gw_qmp_call(q, "human-monitor-command",
			     json_pack("{s:s}", "command-line", "info mtree -f"), &said);

	p->nr = 0;
	if (!rc && json_is_string(said))
		gw_physical_parse(p, json_string_value(said), m);
	json_decref(said);
	if (!rc && !p->nr)
		rc = gw_fail(-ENODATA, "QEMU does not say where the guest's memory lies");
	return rc;
}

uint64_t gw_physical_pages(const struct gw_physical *p, uint64_t frame, uint64_t count,
			   size_t *page)
{
	for (unsigned int i = 0; i < p->nr; i++) {
		const struct gw_physical_range *r = &p->ranges[i];
		uint64_t left;

		if (frame < r->frame || frame - r->frame >= r->count)
			continue;
		*page = r->page + (size_t)(frame - r->frame);
		left = r->count - (frame - r->frame);
		return left < count ? left : count;
	}
	return 0;
}
