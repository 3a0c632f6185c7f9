// SPDX-License-Identifier: GPL-2.0-or-later
/* live.c - attach to a running QEMU; see live.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "clock.h"
#include "error.h"
#include "live.h"

void live_need(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, gw_error());
	exit(1);
}

void live_assert(bool good, const char *complaint, ...)
{
	va_list ap;

	if (good)
		return;
	va_start(ap, complaint);
	vfprintf(stderr, complaint, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void live_attach(struct live *l, const char *path)
{
	struct gw_guest_facts facts;

	setvbuf(stdout, NULL, _IOLBF, 0);
	l->qmp = gw_qmp_open(path, gw_now() + 120 * GW_S);
	live_need(l->qmp ? 0 : -1, "monitor");
	live_need(gw_qmp_pid(l->qmp, &l->pid), "process");
	live_need(gw_attach(l->qmp, l->pid, &l->ram, &facts), "attach");
	live_assert(l->ram.memory.nr_blocks == 1, "the guest has %u RAM files",
		    l->ram.memory.nr_blocks);
	l->hva = l->ram.files[0].hva;
	l->pages = l->ram.memory.blocks[0].nr_pages;
	l->range = (struct gw_track_range){ .hva = l->hva, .nr_pages = l->pages };
	l->mem = mmap(NULL, l->pages * GW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      l->ram.files[0].fd, 0);
	live_assert(l->mem != MAP_FAILED, "cannot map the RAM file");
}
