// SPDX-License-Identifier: GPL-2.0-or-later
/* watch.c - a VM's userfaultfds and what they are for; see watch.h. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "cleanup.h"
#include "error.h"
#include "inject.h"
#include "log.h"
#include "watch.h"

/* Not in Debian 12's headers, as those of written_uffd.c. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define SPLIT_FEATURES                                                           \
	((uint64_t)UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID)

static const char *const modes[] = {
	[GW_WATCH_NONE] = "none",
	[GW_WATCH_TRACKING] = "tracking",
	[GW_WATCH_PAGING] = "paging",
	[GW_WATCH_SPLIT] = "split",
};

json_t *gw_watch_json(const struct gw_memory_watch *w)
{
	json_t *numbers = json_array(), *ranges = json_array(), *vcpus = json_array();

	for (unsigned int i = 0; i < w->nr; i++)
		json_array_append_new(numbers, json_integer(w->numbers[i]));
	for (unsigned int i = 0; i < w->nr_ranges; i++)
		json_array_append_new(ranges, json_pack("[I,I,I]", (json_int_t)w->ranges[i].hva,
							(json_int_t)w->ranges[i].first_page,
							(json_int_t)w->ranges[i].nr_pages));
	for (unsigned int i = 0; i < w->nr_vcpus; i++)
		json_array_append_new(vcpus, json_integer(w->vcpus[i]));
	return json_pack("{s:s,s:o,s:o,s:o,s:b}", "mode", modes[w->mode], "descriptors", numbers,
			 "ranges", ranges, "vcpus", vcpus, "since-arrival", w->since_arrival);
}

static void parse_ranges(struct gw_memory_watch *w, const json_t *ranges)
{
	const json_t *one;
	size_t i;

	if (json_array_size(ranges) > GW_TRACK_RANGES)
		return;
	json_array_foreach(ranges, i, one) {
		json_int_t hva, first, nr;

		if (json_unpack((json_t *)(uintptr_t)one, "[I,I,I]", &hva, &first, &nr) ||
		    first < 0 || nr < 1) {
			w->nr_ranges = 0;
			return;
		}
		w->ranges[w->nr_ranges++] = (struct gw_track_range){ .hva = (uint64_t)hva,
								     .first_page = (size_t)first,
								     .nr_pages = (size_t)nr };
	}
}

void gw_watch_parse(struct gw_memory_watch *w, const json_t *json)
{
	const char *mode = json_string_value(json_object_get(json, "mode"));
	const json_t *numbers = json_object_get(json, "descriptors"), *one;
	size_t i;

	memset(w, 0, sizeof(*w));
	for (size_t m = 0; mode && m < GW_ARRAY_SIZE(modes); m++)
		if (!strcmp(mode, modes[m]))
			w->mode = (enum gw_watch_mode)m;
	if (w->mode == GW_WATCH_NONE || !json_array_size(numbers) ||
	    json_array_size(numbers) > GW_TRACK_RANGES) {
		w->mode = GW_WATCH_NONE;
		return;
	}
	json_array_foreach(numbers, i, one) {
		w->numbers[w->nr++] = (int)json_integer_value(one);
	}
	parse_ranges(w, json_object_get(json, "ranges"));
	json_array_foreach(json_object_get(json, "vcpus"), i, one) {
		if (w->nr_vcpus < GW_WATCH_VCPUS)
			w->vcpus[w->nr_vcpus++] = (pid_t)json_integer_value(one);
	}
	w->since_arrival = json_is_true(json_object_get(json, "since-arrival"));
}

unsigned int gw_track_ranges(const struct gw_ram *ram, struct gw_track_range *ranges)
{
	for (unsigned int i = 0; i < ram->memory.nr_blocks; i++)
		ranges[i] = (struct gw_track_range){ .hva = ram->files[i].hva,
						     .first_page = ram->memory.blocks[i].first_page,
						     .nr_pages = ram->memory.blocks[i].nr_pages };
	return ram->memory.nr_blocks;
}

/* @parts userfaultfds that stay in @pid. Return: how many there are; less: -errno in @rc. */
static unsigned int inject(struct gw_memory_watch *w, pid_t pid, unsigned int parts,
			   int uffds[GW_WATCH_PARTS], int *rc)
{
	*rc = 0;
	while (w->nr < parts) {
		uffds[w->nr] = gw_inject_staying(pid, &w->numbers[w->nr]);
		if (uffds[w->nr] < 0) {
			*rc = uffds[w->nr];
			break;
		}
		w->nr++;
	}
	return w->nr;
}

int gw_watch_begin(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
		   unsigned int parts)
{
	int uffds[GW_WATCH_PARTS], rc = 0;
	struct gw_tracker *t = NULL;
	unsigned int nr;

	memset(w, 0, sizeof(*w));
	w->nr_ranges = gw_track_ranges(ram, w->ranges);
	nr = inject(w, pid, parts < 1 || parts > GW_WATCH_PARTS ? 1 : parts, uffds, &rc);
	if (!nr)
		return rc;
	if (rc)
		while (nr)
			close(uffds[--nr]);
	else
		t = gw_tracker_uffd(pid, uffds, nr, w->ranges, w->nr_ranges);
	/* Even one that could not be registered is open there, and is found again to be closed. */
	w->mode = GW_WATCH_TRACKING;
	w->since_arrival = t;
	gw_tracker_stop(t);
	return t ? 0 : rc ? rc : -ENOTSUP;
}

/* The descriptors of the watch that stayed, here. False: they are not there any more. */
static bool find(const struct gw_memory_watch *w, pid_t pid, int uffds[GW_TRACK_RANGES])
{
	unsigned int n = 0;

	while (n < w->nr) {
		uffds[n] = gw_inject_found(pid, w->numbers[n]);
		if (uffds[n] < 0)
			break;
		n++;
	}
	if (n == w->nr)
		return true;
	while (n)
		close(uffds[--n]);
	return false;
}

int gw_watch_open(const struct gw_memory_watch *w, pid_t pid, struct gw_paged *paged)
{
	memset(paged, 0, sizeof(*paged));
	if (!w->nr_ranges)
		return gw_fail(-ENOTSUP, "the VM's record does not say where its memory is");
	if (!w->nr || !find(w, pid, paged->uffds))
		return gw_fail(-ENOENT, "process %d has no watch over its memory any more", pid);
	paged->nr_uffds = w->nr;
	paged->nr_vcpus = w->nr_vcpus;
	memcpy(paged->vcpus, w->vcpus, sizeof(paged->vcpus));
	for (unsigned int i = 0; i < w->nr * w->nr_ranges; i++) {
		struct gw_watched *part = &paged->parts[paged->nr_parts];

		part->uffd = paged->uffds[i % w->nr];
		if (gw_track_part(&w->ranges[i / w->nr], i % w->nr, w->nr, &part->range))
			paged->nr_parts++;
	}
	return 0;
}

void gw_watch_close(struct gw_paged *paged)
{
	while (paged->nr_uffds)
		close(paged->uffds[--paged->nr_uffds]);
	paged->nr_parts = 0;
}

static struct uffdio_range range_of(const struct gw_watched *part)
{
	return (struct uffdio_range){ part->range.hva, part->range.nr_pages * GW_PAGE_SIZE };
}

static int change(const struct gw_paged *paged, uint64_t mode)
{
	for (unsigned int i = 0; i < paged->nr_parts; i++) {
		struct uffdio_register reg = { .range = range_of(&paged->parts[i]), .mode = mode };

		if (ioctl(paged->parts[i].uffd, UFFDIO_REGISTER, &reg))
			return gw_fail(-errno,
				       "the watch over the VM's memory cannot be changed "
				       "(UFFDIO_REGISTER: %s); see godwit check, F9 and F19",
				       strerror(errno));
	}
	return 0;
}

int gw_watch_page(struct gw_memory_watch *w, const struct gw_paged *paged)
{
	int rc = change(paged, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);

	if (!rc)
		w->mode = GW_WATCH_PAGING;
	return rc;
}

int gw_watch_unpage(struct gw_memory_watch *w, const struct gw_paged *paged)
{
	int rc = change(paged, UFFDIO_REGISTER_MODE_WP);

	if (rc)
		return rc;
	w->mode = GW_WATCH_TRACKING;
	return gw_watch_wake(paged);
}

int gw_watch_unsplit(struct gw_memory_watch *w, pid_t pid)
{
	int rc = w->nr ? gw_inject_close(pid, w->numbers, w->nr) : 0;

	memset(w, 0, sizeof(*w));
	return rc;
}

int gw_watch_arm(const struct gw_paged *paged)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < paged->nr_uffds; i++) {
		struct uffdio_api api = { .api = UFFD_API, .features = SPLIT_FEATURES };

		/* EINVAL: somebody before us has said so already; or the kernel cannot. */
		if (ioctl(paged->uffds[i], UFFDIO_API, &api) && errno != EINVAL)
			rc = gw_fail(-errno, "UFFDIO_API: %s", strerror(errno));
	}
	return rc ? rc : change(paged, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

int gw_watch_split(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
		   unsigned int parts)
{
	int uffds[GW_WATCH_PARTS], rc = gw_watch_unsplit(w, pid);
	unsigned int nr;

	if (rc)
		return rc;
	w->nr_ranges = gw_track_ranges(ram, w->ranges);
	nr = inject(w, pid, parts < 1 || parts > GW_WATCH_PARTS ? 1 : parts, uffds, &rc);
	while (nr)
		close(uffds[--nr]); /* they stay there */
	if (!rc) {
		w->mode = GW_WATCH_SPLIT;
		return 0;
	}
	if (gw_watch_unsplit(w, pid))
		gw_warn("what was made to watch process %d stays there: %s", (int)pid, gw_error());
	return rc;
}

int gw_watch_wake(const struct gw_paged *paged)
{
	for (unsigned int i = 0; i < paged->nr_parts; i++) {
		struct uffdio_range range = range_of(&paged->parts[i]);

		if (ioctl(paged->parts[i].uffd, UFFDIO_WAKE, &range))
			return gw_fail(-errno, "UFFDIO_WAKE: %s", strerror(errno));
	}
	return 0;
}

static struct gw_tracker *resume(struct gw_memory_watch *w, pid_t pid,
				 const struct gw_track_range *ranges, unsigned int nr,
				 int (*save)(void *arg), void *arg, bool *since_arrival)
{
	const bool since = w->since_arrival;
	int uffds[GW_TRACK_RANGES];
	bool found = find(w, pid, uffds);

	w->since_arrival = false;
	if (!found || save(arg)) {
		gw_warn("the watch over the memory of process %d cannot be gone on with: %s",
			(int)pid, gw_error());
		for (unsigned int i = 0; found && i < w->nr; i++)
			close(uffds[i]);
		return NULL;
	}
	*since_arrival = since;
	return gw_tracker_resume(pid, uffds, w->nr, ranges, nr);
}

struct gw_tracker *gw_watch_track(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram,
				  int (*save)(void *arg), void *arg, bool *resumed,
				  bool *since_arrival)
{
	struct gw_track_range ranges[GW_TRACK_RANGES];
	const unsigned int nr = gw_track_ranges(ram, ranges);
	struct gw_tracker *t = NULL;
	int uffd;

	*resumed = *since_arrival = false;
	if (w->mode == GW_WATCH_PAGING) {
		gw_fail(-EBUSY, "memory of the VM is still to come from where it came from; "
				"'godwit status' says how much");
		return NULL;
	}
	if (w->mode == GW_WATCH_SPLIT) {
		gw_fail(-EBUSY, "memory of the VM is at other hosts; 'godwit merge' brings it "
				"back, 'godwit status' says where it is");
		return NULL;
	}
	if (w->mode == GW_WATCH_TRACKING)
		t = resume(w, pid, ranges, nr, save, arg, since_arrival);
	*resumed = t;
	if (t)
		return t;
	if (gw_track_has_uffd()) {
		uffd = gw_inject_userfaultfd(pid);
		return uffd < 0 ? NULL : gw_tracker_uffd(pid, &uffd, 1, ranges, nr);
	}
	if (gw_track_has_softdirty())
		return gw_tracker_softdirty(pid, ranges, nr);
	gw_fail(-ENOTSUP, "this kernel cannot track a process' writes (neither asynchronous "
			  "write-protection nor soft-dirty bits); see godwit check");
	return NULL;
}
