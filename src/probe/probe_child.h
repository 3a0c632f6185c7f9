/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * probe_child.h - the process that the probes try things on.
 *
 * It has one thread and maps GW_PROBE_PAGES pages of a RAM file; we map the
 * same file, so we see and change its memory without touching its page table.
 * It obeys one command at a time and sits in read() between commands.
 *
 * Rules: it dies with us, and with gw_probe_child_stop(), whatever it is doing.
 */
#ifndef GW_PROBE_CHILD_H
#define GW_PROBE_CHILD_H

#include <stdint.h>
#include <sys/types.h>

#include "bitmap.h"
#include "page.h"

#define GW_PROBE_PAGES (16 * GW_CHUNK_PAGES)
#define GW_PROBE_BYTES (GW_PROBE_PAGES * GW_PAGE_SIZE)

enum gw_probe_op {
	GW_PROBE_FILL,	/* each page with its own byte */
	GW_PROBE_CHECK, /* answers how many pages are not as filled */
	GW_PROBE_WRITE, /* one byte of each page */
	GW_PROBE_READ,	/* one byte of each page */
	GW_PROBE_SPIN,	/* write pages for ever, until told to stop */
	GW_PROBE_WAIT,	/* sit in system call @nr; answers what it returned */
};

struct gw_probe_command {
	enum gw_probe_op op;
	size_t first, count; /* pages */
	bool chosen;	     /* only those in gw_probe_control.pages */
	long nr;
};

/* Shared with the child, and not tracked. */
struct gw_probe_control {
	_Atomic uint32_t futex;		     /* FUTEX_WAIT waits for it to change */
	_Atomic uint32_t stop;		     /* ends GW_PROBE_SPIN */
	_Atomic uint64_t turns;		     /* of GW_PROBE_SPIN, each all over its pages */
	uint64_t pages[GW_PROBE_PAGES / 64]; /* what gw_probe_child_touch() asks for */
};
_Static_assert(sizeof(struct gw_probe_control) <= GW_PAGE_SIZE, "one page is mapped for it");

struct gw_probe_child {
	pid_t pid;
	int ram_fd;   /* a descriptor of our own */
	uint8_t *ram; /* our mapping of it */
	uint64_t hva; /* the child's mapping of it */
	int sock;
	struct gw_probe_control *control;
};

/* One that was not started, or is stopped: may be stopped. */
#define GW_PROBE_CHILD_NONE ((struct gw_probe_child){ .ram_fd = -1, .sock = -1 })

/** gw_probe_child_start() - fork it. @ram_fd: as in struct gw_probe. 0 or -errno. */
int gw_probe_child_start(struct gw_probe_child *c, int ram_fd);

/** gw_probe_child_stop() - end it, and wait until it has ended. */
void gw_probe_child_stop(struct gw_probe_child *c);

/** gw_probe_child_tell() - give a command and do not wait. 0 or -errno. */
int gw_probe_child_tell(struct gw_probe_child *c, enum gw_probe_op op, size_t first, size_t count,
			long nr);

/** gw_probe_child_hear() - wait for the answer to the last command; @answer may be NULL. */
int gw_probe_child_hear(struct gw_probe_child *c, long *answer);

/** gw_probe_child_do() - both, for pages [first, first + count). */
int gw_probe_child_do(struct gw_probe_child *c, enum gw_probe_op op, size_t first, size_t count);

/** gw_probe_child_touch() - GW_PROBE_WRITE or GW_PROBE_READ each page that is set in @pages. */
int gw_probe_child_touch(struct gw_probe_child *c, enum gw_probe_op op,
			 const struct gw_bitmap *pages);

/** gw_probe_child_filled() - hear the answer to GW_PROBE_CHECK: 0, or -EPROTO if a page differs. */
int gw_probe_child_filled(struct gw_probe_child *c);

/** gw_probe_child_check() - -EPROTO unless the child finds @count pages from @first as filled. */
int gw_probe_child_check(struct gw_probe_child *c, size_t first, size_t count);

/** gw_probe_pick() - set about one bit in @one_of of [first, end); first and last surely. */
void gw_probe_pick(struct gw_bitmap *pages, size_t first, size_t end, unsigned int one_of);

/** gw_probe_same() - 0, or -EPROTO with the first page by which @found differs from @expected. */
int gw_probe_same(const struct gw_bitmap *found, const struct gw_bitmap *expected,
		  const char *what);

#endif
