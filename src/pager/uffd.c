// SPDX-License-Identifier: GPL-2.0-or-later
/* uffd.c - faults from userfaultfds; see uffd.h. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "uffd.h"
#include "urgency.h"

/* The kernel asks for patience while QEMU changes its mappings. */
#define PATIENCE 1000

static const struct gw_watched *part_of(const struct gw_paged *paged, size_t page)
{
	for (unsigned int i = 0; i < paged->nr_parts; i++) {
		const struct gw_track_range *r = &paged->parts[i].range;

		if (page >= r->first_page && page < r->first_page + r->nr_pages)
			return &paged->parts[i];
	}
	return NULL;
}

/* Where @page is mapped, and up to @count from it by the same descriptor. */
static struct uffdio_range range_of(const struct gw_watched *part, size_t page, size_t count)
{
	const size_t at = page - part->range.first_page;

	if (count > part->range.nr_pages - at)
		count = part->range.nr_pages - at;
	return (struct uffdio_range){ part->range.hva + at * GW_PAGE_SIZE, count * GW_PAGE_SIZE };
}

int gw_uffd_map(const struct gw_paged *paged, size_t page, size_t count, size_t *mapped)
{
	const struct gw_watched *part = part_of(paged, page);
	struct uffdio_continue go = { 0 };

	*mapped = 0;
	if (!part)
		return -ENOENT;
	go.range = range_of(part, page, count);
	if (!ioctl(part->uffd, UFFDIO_CONTINUE, &go)) {
		*mapped = go.range.len / GW_PAGE_SIZE;
		return 0;
	}
	if (go.mapped > 0)
		*mapped = (size_t)go.mapped / GW_PAGE_SIZE;
	return *mapped ? 0 : -errno;
}

int gw_uffd_map_zero(const struct gw_paged *paged, size_t page)
{
	const struct gw_watched *part = part_of(paged, page);
	struct uffdio_zeropage zero = { 0 };

	if (!part)
		return -ENOENT;
	zero.range = range_of(part, page, 1);
	return ioctl(part->uffd, UFFDIO_ZEROPAGE, &zero) ? -errno : 0;
}

void gw_uffd_wake(const struct gw_paged *paged, size_t page, size_t count)
{
	const struct gw_watched *part = part_of(paged, page);
	struct uffdio_range range;

	if (!part)
		return;
	range = range_of(part, page, count);
	if (ioctl(part->uffd, UFFDIO_WAKE, &range))
		gw_debug("UFFDIO_WAKE: %s", strerror(errno));
}

int gw_uffd_copy(const struct gw_paged *paged, size_t page, size_t count, const void *bytes,
		 size_t *copied)
{
	const struct gw_watched *part = part_of(paged, page);
	struct uffdio_copy copy = { .src = (uintptr_t)bytes };
	struct uffdio_range range;

	*copied = 0;
	if (!part)
		return -ENOENT;
	range = range_of(part, page, count);
	copy.dst = range.start;
	copy.len = range.len;
	if (!ioctl(part->uffd, UFFDIO_COPY, &copy)) {
		*copied = range.len / GW_PAGE_SIZE;
		return 0;
	}
	if (copy.copy > 0)
		*copied = (size_t)copy.copy / GW_PAGE_SIZE;
	return *copied ? 0 : -errno;
}

int gw_uffd_protect(const struct gw_paged *paged, size_t page, size_t count, bool on)
{
	const uint64_t mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;

	while (count) {
		const struct gw_watched *part = part_of(paged, page);
		struct uffdio_writeprotect wp = { .mode = mode };
		int rc = -EAGAIN;

		if (!part)
			return -ENOENT;
		wp.range = range_of(part, page, count);
		for (int i = 0; i < PATIENCE && rc == -EAGAIN; i++) {
			rc = ioctl(part->uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
			if (rc == -EAGAIN)
				sched_yield();
		}
		if (rc)
			return rc;
		page += wp.range.len / GW_PAGE_SIZE;
		count -= wp.range.len / GW_PAGE_SIZE;
	}
	return 0;
}

_Static_assert(GW_WATCH_VCPUS <= GW_FAULT_VCPUS_MAX, "each is told");

static unsigned int vcpu_of(const struct gw_paged *paged, uint32_t thread)
{
	for (unsigned int i = 0; i < paged->nr_vcpus; i++)
		if ((uint32_t)paged->vcpus[i] == thread)
			return i;
	return GW_NO_VCPU;
}

/* What @n messages of @uffd say. Return: how many wait. */
static unsigned int faults_of(const struct gw_paged *paged, int uffd, const struct uffd_msg *msgs,
			      size_t n, struct gw_fault *faults)
{
	unsigned int nr = 0;

	for (size_t i = 0; i < n; i++) {
		const uint64_t at = msgs[i].arg.pagefault.address;

		for (unsigned int k = 0; k < paged->nr_parts; k++) {
			const struct gw_track_range *r = &paged->parts[k].range;

			if (msgs[i].event != UFFD_EVENT_PAGEFAULT || paged->parts[k].uffd != uffd ||
			    at < r->hva || (at - r->hva) / GW_PAGE_SIZE >= r->nr_pages)
				continue;
			faults[nr++] = (struct gw_fault){
				.page = r->first_page + (size_t)(at - r->hva) / GW_PAGE_SIZE,
				.vcpu = vcpu_of(paged, msgs[i].arg.pagefault.feat.ptid),
				.protected = msgs[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
			};
			break;
		}
	}
	return nr;
}

static void *hear(void *arg)
{
	struct gw_fault_thread *t = arg;
	struct gw_faults *f = t->faults;
	struct pollfd fds[2] = { { .fd = t->uffd, .events = POLLIN },
				 { .fd = f->stop, .events = POLLIN } };
	struct uffd_msg msgs[GW_FAULTS_MAX];
	struct gw_fault faults[GW_FAULTS_MAX];

	gw_thread_urgency(GW_URGENT);
	for (;;) {
		ssize_t n;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			gw_warn("poll: %s", strerror(errno));
		if (fds[1].revents)
			break;
		n = read(t->uffd, msgs, sizeof(msgs));
		if (n > 0)
			f->hear(f->env, faults,
				faults_of(f->paged, t->uffd, msgs, (size_t)n / sizeof(msgs[0]),
					  faults));
		if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
			continue;
		/* Nobody is there any more who could fault. */
		gw_debug("userfaultfd: %s", n ? strerror(errno) : "ended");
		break;
	}
	return NULL;
}

void gw_faults_stop(struct gw_faults *f)
{
	const uint64_t one = 1;

	if (f->nr && write(f->stop, &one, sizeof(one)) != sizeof(one))
		gw_err("eventfd: %s", strerror(errno));
	while (f->nr)
		pthread_join(f->threads[--f->nr].thread, NULL);
	if (f->hear)
		close(f->stop);
	f->hear = NULL;
}

int gw_faults_start(struct gw_faults *f,
		    void (*hear_them)(void *env, const struct gw_fault *faults, unsigned int n),
		    void *env, const struct gw_paged *paged)
{
	memset(f, 0, sizeof(*f));
	f->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->stop < 0)
		return gw_fail(-errno, "eventfd: %s", strerror(errno));
	f->hear = hear_them;
	f->env = env;
	f->paged = paged;
	while (f->nr < paged->nr_uffds) {
		struct gw_fault_thread *t = &f->threads[f->nr];

		*t = (struct gw_fault_thread){ .faults = f, .uffd = paged->uffds[f->nr] };
		if (pthread_create(&t->thread, NULL, hear, t)) {
			gw_faults_stop(f);
			return gw_fail(-EAGAIN, "no thread to page with");
		}
		f->nr++;
	}
	return gw_watch_wake(paged);
}
