// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe_minor.c - F19 and F22: what post-copy stands on (decision 28); see probe.h.
 *
 * The child's memory is tracked by two userfaultfds, each for a half of it, then paged,
 * then tracked again. None of the changes costs more than a call for each range:
 *
 *   WP               every entry is a marker: written by nobody
 *   MISSING | MINOR  an access to what lies in the file waits (minor), so the file may be
 *                    written meanwhile; UFFDIO_CONTINUE lets it see that. One to a hole
 *                    waits (missing), UFFDIO_ZEROPAGE ends that
 *   WP               nobody waits for what nobody serves; written are the pages that were
 *                    accessed meanwhile, and no other
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "probe.h"
#include "probe_child.h"
#include "tracker.h"

#define HALF (GW_PROBE_PAGES / 2) /* is in the second part, for sure */
#define OLD  5UL		  /* its bytes are old when it is asked for */
#define HELD (HALF + 9)		  /* its bytes are right as they lie there */
#define HOLE (HALF + 300)	  /* it was given back */
#define LATE 700UL		  /* is accessed when nobody pages any more */

struct paged {
	struct gw_probe_child c;
	struct gw_tracker *t;
	int uffds[2]; /* the tracker's */
	struct gw_track_range parts[2];
	struct gw_bitmap due, touched;
};

static int uffd_of(const struct paged *p, size_t page)
{
	return p->uffds[page >= p->parts[1].first_page];
}

static int change(const struct paged *p, uint64_t mode)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct uffdio_register reg = {
			.range = { p->parts[i].hva, p->parts[i].nr_pages * GW_PAGE_SIZE },
			.mode = mode,
		};

		if (ioctl(p->uffds[i], UFFDIO_REGISTER, &reg))
			return gw_fail(-ENOTSUP,
				       "this kernel does not report minor faults of shared memory "
				       "(UFFDIO_REGISTER: %s)",
				       strerror(errno));
	}
	return 0;
}

/* What was filled stays in the file, and the child has no entry for it. */
static int drop_entries(const struct paged *p)
{
	struct gw_inject inj;
	long rc = gw_inject_begin(&inj, p->c.pid);

	if (rc)
		return (int)rc;
	rc = gw_inject_call(&inj, SYS_madvise, p->c.hva, GW_PROBE_BYTES, MADV_DONTNEED);
	gw_inject_end(&inj);
	return rc ? gw_fail((int)rc, "madvise: %s", strerror((int)-rc)) : 0;
}

static int track(struct paged *p)
{
	const struct gw_track_range range = { p->c.hva, 0, GW_PROBE_PAGES };
	int rc = gw_probe_child_do(&p->c, GW_PROBE_FILL, 0, GW_PROBE_PAGES);

	if (!rc)
		rc = drop_entries(p);
	for (unsigned int i = 0; !rc && i < 2; i++) {
		p->uffds[i] = gw_inject_userfaultfd(p->c.pid);
		rc = p->uffds[i] < 0 ? p->uffds[i] : 0;
		gw_track_part(&range, i, 2, &p->parts[i]);
	}
	if (rc)
		return rc;
	p->t = gw_tracker_uffd(p->c.pid, p->uffds, 2, &range, 1);
	return p->t ? 0 : -ENOTSUP;
}

/* Wait for the fault at @page, of the kind that @flags says, on the descriptor of its half. */
static int expect(const struct paged *p, size_t page, uint64_t flags, const char *what)
{
	struct pollfd pfd = { .fd = uffd_of(p, page), .events = POLLIN };
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;
	struct uffd_msg msg;
	int rc;

	do
		rc = poll(&pfd, 1, gw_poll_ms(deadline));
	while (rc < 0 && errno == EINTR);
	if (rc != 1 || read(pfd.fd, &msg, sizeof(msg)) != sizeof(msg))
		return gw_fail(-EPROTO, "%s was not reported", what);
	if (msg.event == UFFD_EVENT_PAGEFAULT && msg.arg.pagefault.flags == flags &&
	    (msg.arg.pagefault.address - p->c.hva) / GW_PAGE_SIZE == page)
		return 0;
	return gw_fail(-EPROTO, "%s was reported as something else (event %u, flags %#llx)", what,
		       msg.event, (unsigned long long)msg.arg.pagefault.flags);
}

static int expect_none(const struct paged *p, const char *what)
{
	struct uffd_msg msg;

	for (unsigned int i = 0; i < 2; i++)
		if (read(p->uffds[i], &msg, sizeof(msg)) >= 0 || errno != EAGAIN)
			return gw_fail(-EPROTO, "%s was reported as a fault", what);
	return 0;
}

static int go_on(const struct paged *p, size_t page)
{
	struct uffdio_continue go = { .range = { p->c.hva + page * GW_PAGE_SIZE, GW_PAGE_SIZE } };

	return ioctl(uffd_of(p, page), UFFDIO_CONTINUE, &go)
		       ? gw_fail(-errno, "UFFDIO_CONTINUE: %s", strerror(errno))
		       : 0;
}

/* The bytes of @page, as the child filled it, in place of others. */
static int bring(const struct paged *p, size_t page, const uint8_t *bytes)
{
	return pwrite(p->c.ram_fd, bytes, GW_PAGE_SIZE, (off_t)(page * GW_PAGE_SIZE)) ==
			       (ssize_t)GW_PAGE_SIZE
		       ? go_on(p, page)
		       : gw_fail(-EIO, "the RAM file of a probe cannot be written");
}

/* What was old when the child asked for it is new when the child sees it. */
static int old_page(struct paged *p)
{
	uint8_t right[GW_PAGE_SIZE], old[GW_PAGE_SIZE];
	int rc = 0;

	memset(old, 0xee, sizeof(old));
	if (pread(p->c.ram_fd, right, sizeof(right), OLD * GW_PAGE_SIZE) != sizeof(right) ||
	    pwrite(p->c.ram_fd, old, sizeof(old), OLD * GW_PAGE_SIZE) != sizeof(old))
		rc = gw_fail(-EIO, "the RAM file of a probe cannot be written");
	if (!rc)
		rc = gw_probe_child_tell(&p->c, GW_PROBE_CHECK, OLD, 1, 0);
	if (!rc)
		rc = expect(p, OLD, UFFD_PAGEFAULT_FLAG_MINOR, "a read of what lies in the file");
	if (!rc)
		rc = bring(p, OLD, right);
	gw_bitmap_set(&p->touched, OLD);
	return rc ? rc : gw_probe_child_filled(&p->c);
}

static int held_page(struct paged *p)
{
	int rc = gw_probe_child_tell(&p->c, GW_PROBE_FILL, HELD, 1, 0);

	if (!rc)
		rc = expect(p, HELD, UFFD_PAGEFAULT_FLAG_MINOR | UFFD_PAGEFAULT_FLAG_WRITE,
			    "a write to what lies in the file");
	if (!rc)
		rc = go_on(p, HELD);
	gw_bitmap_set(&p->touched, HELD);
	return rc ? rc : gw_probe_child_hear(&p->c, NULL);
}

static int hole(struct paged *p)
{
	struct uffdio_zeropage zero = { .range = { p->c.hva + HOLE * GW_PAGE_SIZE, GW_PAGE_SIZE } };
	int rc = 0;

	if (fallocate(p->c.ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(HOLE * GW_PAGE_SIZE), (off_t)GW_PAGE_SIZE))
		return gw_fail(-errno, "cannot punch a hole: %s", strerror(errno));
	rc = gw_probe_child_tell(&p->c, GW_PROBE_READ, HOLE, 1, 0);
	/* Of a huge page only the content goes. */
	if (!rc)
		rc = expect(p, HOLE, 0, "a read of a hole");
	if (rc && !gw_probe_child_hear(&p->c, NULL))
		return rc;
	if (!rc && ioctl(uffd_of(p, HOLE), UFFDIO_ZEROPAGE, &zero))
		rc = gw_fail(-errno, "UFFDIO_ZEROPAGE: %s", strerror(errno));
	gw_bitmap_set(&p->touched, HOLE);
	return rc ? rc : gw_probe_child_hear(&p->c, NULL);
}

/* Nobody pages any more: nobody waits, and what was written since the start is known. */
static int track_again(struct paged *p)
{
	int rc = change(p, UFFDIO_REGISTER_MODE_WP);

	if (!rc)
		rc = gw_probe_child_do(&p->c, GW_PROBE_READ, 0, GW_PROBE_PAGES);
	if (!rc)
		rc = gw_probe_child_do(&p->c, GW_PROBE_WRITE, LATE, 1);
	gw_bitmap_set(&p->touched, LATE);
	if (!rc)
		rc = expect_none(p, "an access to memory that is only tracked");
	if (!rc)
		rc = gw_tracker_scan(p->t, &p->due);
	return rc ? rc : gw_probe_same(&p->due, &p->touched, "written since before it was paged");
}

int gw_probe_minor(int ram_fd)
{
	struct paged p = { .uffds = { -1, -1 } };
	int rc = gw_probe_child_start(&p.c, ram_fd);

	if (!rc &&
	    (gw_bitmap_init(&p.due, GW_PROBE_PAGES) || gw_bitmap_init(&p.touched, GW_PROBE_PAGES)))
		rc = gw_fail(-ENOMEM, "no memory for a probe");
	if (!rc)
		rc = track(&p);
	if (!rc)
		rc = change(&p, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
	if (!rc)
		rc = old_page(&p);
	if (!rc)
		rc = held_page(&p);
	if (!rc)
		rc = hole(&p);
	if (!rc)
		rc = expect_none(&p, "an access to a page that is there");
	if (!rc)
		rc = track_again(&p);
	gw_tracker_stop(p.t);
	gw_probe_child_stop(&p.c);
	gw_bitmap_free(&p.due);
	gw_bitmap_free(&p.touched);
	return rc;
}
