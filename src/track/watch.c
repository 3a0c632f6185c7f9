// SPDX-License-Identifier: GPL-2.0-or-later
/* watch.c - a VM's userfaultfds and what they are for; see watch.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "inject.h"
#include "log.h"
#include "watch.h"

static const char *const modes[] = {
	[GW_WATCH_NONE] = "none",
	[GW_WATCH_TRACKING] = "tracking",
	[GW_WATCH_PAGING] = "paging",
};

json_t *gw_watch_json(const struct gw_memory_watch *w)
{
	json_t *numbers = json_array();

	for (unsigned int i = 0; i < w->nr; i++)
		json_array_append_new(numbers, json_integer(w->numbers[i]));
	return json_pack("{s:s,s:o,s:b}", "mode", modes[w->mode], "descriptors", numbers,
			 "since-arrival", w->since_arrival);
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
	w->since_arrival = json_is_true(json_object_get(json, "since-arrival"));
}

static unsigned int ranges_of(const struct gw_ram *ram, struct gw_track_range *ranges)
{
	for (unsigned int i = 0; i < ram->memory.nr_blocks; i++)
		ranges[i] = (struct gw_track_range){ .hva = ram->files[i].hva,
						     .first_page = ram->memory.blocks[i].first_page,
						     .nr_pages = ram->memory.blocks[i].nr_pages };
	return ram->memory.nr_blocks;
}

int gw_watch_begin(struct gw_memory_watch *w, pid_t pid, const struct gw_ram *ram)
{
	struct gw_track_range ranges[GW_TRACK_RANGES];
	const unsigned int nr = ranges_of(ram, ranges);
	struct gw_tracker *t = NULL;
	int number = -1, uffd = gw_inject_staying(pid, &number);

	memset(w, 0, sizeof(*w));
	if (uffd < 0)
		return uffd;
	t = gw_tracker_uffd(pid, &uffd, 1, ranges, nr);
	/* Even one that could not be registered is open there, and is found again to be closed. */
	*w = (struct gw_memory_watch){
		.mode = GW_WATCH_TRACKING, .numbers = { number }, .nr = 1, .since_arrival = t
	};
	gw_tracker_stop(t);
	return t ? 0 : -ENOTSUP;
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
	const unsigned int nr = ranges_of(ram, ranges);
	struct gw_tracker *t = NULL;
	int uffd;

	*resumed = *since_arrival = false;
	if (w->mode == GW_WATCH_PAGING) {
		gw_fail(-EBUSY, "the VM's memory is paged by a newer release of Godwit");
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
