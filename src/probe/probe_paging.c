// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe_paging.c - F9: memory is taken from a running process from outside, and
 * given back on demand; see probe.h.
 *
 * The child's memory is registered for missing pages and write-protection,
 * without WP_ASYNC, so that a write to a chunk on its way out waits:
 *
 *   protect -> (a write faults, and waits) -> copy out -> punch
 *           -> lift the protection -> wake -> (the write faults again, missing)
 *           -> UFFDIO_COPY -> (the write goes on, in a page with its old bytes)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "probe.h"
#include "probe_child.h"

/* Not in Debian 12's headers, as those of written_uffd.c. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define FEATURES                                                                 \
	((uint64_t)UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

#define VICTIM GW_CHUNK_PAGES	    /* first page of the chunk that goes out */
#define BUSY   (GW_CHUNK_PAGES + 7) /* its page that the child writes meanwhile */

struct pager {
	struct gw_probe_child c;
	int uffd;
	uint8_t *store; /* the chunk that is out */
};

static struct uffdio_range range_of(const struct pager *p, size_t page, size_t count)
{
	return (struct uffdio_range){ p->c.hva + page * GW_PAGE_SIZE, count * GW_PAGE_SIZE };
}

static int register_all(struct pager *p)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	struct uffdio_register reg = { .range = range_of(p, 0, GW_PROBE_PAGES),
				       .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };

	p->uffd = gw_inject_userfaultfd(p->c.pid);
	if (p->uffd < 0)
		return p->uffd;
	if (ioctl(p->uffd, UFFDIO_API, &api) || ioctl(p->uffd, UFFDIO_REGISTER, &reg))
		return gw_fail(-ENOTSUP, "this kernel cannot write-protect shared memory by "
					 "userfaultfd (Linux 5.19 or newer)");
	return 0;
}

static int protect(const struct pager *p, bool on)
{
	struct uffdio_writeprotect wp = { .range = range_of(p, VICTIM, GW_CHUNK_PAGES),
					  .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP
						     : UFFDIO_WRITEPROTECT_MODE_DONTWAKE };

	if (ioctl(p->uffd, UFFDIO_WRITEPROTECT, &wp))
		return gw_fail(-errno, "UFFDIO_WRITEPROTECT: %s", strerror(errno));
	return 0;
}

/* Wait for a fault, which must be at @page and have the flags @flags, and no others. */
static int expect_fault(const struct pager *p, size_t page, uint64_t flags, const char *what)
{
	struct pollfd pfd = { .fd = p->uffd, .events = POLLIN };
	int64_t deadline = gw_now() + GW_PROBE_TIMEOUT;
	struct uffd_msg msg;
	int rc;

	do
		rc = poll(&pfd, 1, gw_poll_ms(deadline));
	while (rc < 0 && errno == EINTR);
	if (rc != 1 || read(p->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return gw_fail(-EPROTO, "%s was not reported", what);
	if (msg.event != UFFD_EVENT_PAGEFAULT || msg.arg.pagefault.flags != flags ||
	    (msg.arg.pagefault.address - p->c.hva) / GW_PAGE_SIZE != page)
		return gw_fail(-EPROTO,
			       "%s was reported as something else (event %u, flags %#llx, "
			       "page %llu)",
			       what, msg.event, (unsigned long long)msg.arg.pagefault.flags,
			       (unsigned long long)(msg.arg.pagefault.address - p->c.hva) /
				       GW_PAGE_SIZE);
	return 0;
}

static int expect_no_fault(const struct pager *p, const char *what)
{
	struct uffd_msg msg;

	if (read(p->uffd, &msg, sizeof(msg)) < 0 && errno == EAGAIN)
		return 0;
	return gw_fail(-EPROTO, "%s was reported as a fault (event %u)", what, msg.event);
}

static int page_in(const struct pager *p, size_t page)
{
	struct uffdio_copy copy = { .dst = p->c.hva + page * GW_PAGE_SIZE,
				    .src = (uintptr_t)p->store + (page - VICTIM) * GW_PAGE_SIZE,
				    .len = GW_PAGE_SIZE };

	if (ioctl(p->uffd, UFFDIO_COPY, &copy))
		return gw_fail(-errno, "UFFDIO_COPY: %s", strerror(errno));
	return 0;
}

/* Copy the protected chunk out and take it away. */
static int take_away(struct pager *p)
{
	struct uffdio_range range = range_of(p, VICTIM, GW_CHUNK_PAGES);
	struct stat before, after;
	int rc;

	memcpy(p->store, p->c.ram + VICTIM * GW_PAGE_SIZE, GW_CHUNK_SIZE);
	if (fstat(p->c.ram_fd, &before) ||
	    fallocate(p->c.ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      VICTIM * GW_PAGE_SIZE, GW_CHUNK_SIZE) ||
	    fstat(p->c.ram_fd, &after))
		return gw_fail(-errno, "cannot punch a hole: %s", strerror(errno));
	if ((before.st_blocks - after.st_blocks) * 512 != GW_CHUNK_SIZE)
		return gw_fail(-EPROTO, "a chunk of memory that was taken away was not freed");
	rc = protect(p, false);
	if (!rc && ioctl(p->uffd, UFFDIO_WAKE, &range))
		rc = gw_fail(-errno, "UFFDIO_WAKE: %s", strerror(errno));
	return rc;
}

static int evict(struct pager *p)
{
	const uint64_t write = UFFD_PAGEFAULT_FLAG_WRITE;
	long answer;
	int rc = protect(p, true);

	if (!rc)
		rc = gw_probe_child_tell(&p->c, GW_PROBE_WRITE, BUSY, 1, 0);
	if (!rc)
		rc = expect_fault(p, BUSY, write | UFFD_PAGEFAULT_FLAG_WP,
				  "a write to a protected page");
	if (!rc)
		rc = take_away(p);
	if (!rc)
		rc = expect_fault(p, BUSY, write, "a write to a page taken away");
	if (!rc)
		rc = page_in(p, BUSY);
	if (!rc)
		rc = gw_probe_child_hear(&p->c, &answer);
	/* The child's write is in the page, and all the rest of it came back. */
	p->store[(BUSY - VICTIM) * GW_PAGE_SIZE + GW_PAGE_SIZE / 2]++;
	if (!rc && memcmp(p->c.ram + BUSY * GW_PAGE_SIZE, p->store + (BUSY - VICTIM) * GW_PAGE_SIZE,
			  GW_PAGE_SIZE) != 0)
		rc = gw_fail(-EPROTO, "a page taken away during a write came back otherwise");
	return rc;
}

/* The child uses all its memory: each page that is out faults once, no other does. */
static int serve(struct pager *p)
{
	const size_t end = VICTIM + GW_CHUNK_PAGES;
	int rc = gw_probe_child_check(&p->c, 0, VICTIM);

	for (size_t page = VICTIM; !rc && page < end; page++) {
		if (page == BUSY)
			continue; /* is back; evict() compared it */
		rc = gw_probe_child_tell(&p->c, GW_PROBE_CHECK, page, 1, 0);
		if (!rc)
			rc = expect_fault(p, page, 0, "a read of a page taken away");
		if (!rc)
			rc = page_in(p, page);
		if (!rc)
			rc = gw_probe_child_filled(&p->c);
	}
	if (!rc)
		rc = gw_probe_child_check(&p->c, end, GW_PROBE_PAGES - end);
	if (!rc)
		rc = gw_probe_child_do(&p->c, GW_PROBE_WRITE, 0, GW_PROBE_PAGES);
	return rc ? rc : expect_no_fault(p, "an access to a page that is there");
}

int gw_probe_paging(int ram_fd)
{
	gw_autofree uint8_t *store = malloc(GW_CHUNK_SIZE);
	struct pager p = { .uffd = -1, .store = store };
	int rc = gw_probe_child_start(&p.c, ram_fd);

	if (!rc && !store)
		rc = gw_fail(-ENOMEM, "no memory for a probe");
	if (!rc)
		rc = gw_probe_child_do(&p.c, GW_PROBE_FILL, 0, GW_PROBE_PAGES);
	if (!rc)
		rc = register_all(&p);
	if (!rc)
		rc = evict(&p);
	if (!rc)
		rc = serve(&p);
	if (p.uffd >= 0)
		close(p.uffd);
	gw_probe_child_stop(&p.c);
	return rc;
}
