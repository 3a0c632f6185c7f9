// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * scan PID MONITOR SCANS: what one scan for written pages costs.
 *
 * Tracks the memory of the running QEMU with the product's own injection and
 * tracker, scans it again and again, 10 ms apart, and prints one JSON object:
 * the time to protect everything, and of the scans the median, the 90th
 * percentile and the longest, in ms. The guest runs on, before and after.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "attach.h"
#include "bitmap.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "qmp.h"
#include "tracker.h"

#define PAUSE_NS (10 * GW_MS)

static int fail(void)
{
	fprintf(stderr, "scan: %s\n", gw_error());
	return 1;
}

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double ms(int64_t ns)
{
	return (double)ns / GW_MS;
}

/* The memory of the QEMU behind @monitor, and its tracker; NULL with a message. */
static struct gw_tracker *track(pid_t pid, const char *monitor, struct gw_ram *ram,
				int64_t *protect_ns)
{
	struct gw_track_range ranges[GW_TRACK_RANGES];
	struct gw_qmp *q = gw_qmp_open(monitor, gw_now() + 5 * GW_S);
	struct gw_guest_facts facts;
	struct gw_tracker *t;
	int rc, uffd;

	if (!q)
		return NULL;
	rc = gw_attach(q, pid, ram, &facts);
	gw_qmp_close(q);
	if (rc)
		return NULL;
	for (unsigned int i = 0; i < ram->nr_files; i++)
		ranges[i] = (struct gw_track_range){ .hva = ram->files[i].hva,
						     .first_page = ram->files[i].first_page,
						     .nr_pages = ram->files[i].nr_pages };
	uffd = gw_inject_userfaultfd(pid);
	if (uffd < 0)
		return NULL;
	*protect_ns = -gw_now();
	t = gw_tracker_uffd(pid, uffd, ranges, ram->nr_files);
	*protect_ns += gw_now();
	return t;
}

int main(int argc, char **argv)
{
	struct gw_bitmap due = { 0 }, unmapped = { 0 };
	struct gw_ram ram = { 0 };
	struct gw_tracker *t;
	int64_t protect_ns, *ns;
	size_t scans = argc == 4 ? strtoul(argv[3], NULL, 10) : 0, due_pages = 0;

	if (!scans) {
		fprintf(stderr, "usage: scan PID MONITOR SCANS\n");
		return 2;
	}
	t = track((pid_t)atoi(argv[1]), argv[2], &ram, &protect_ns);
	if (!t)
		return fail();
	ns = calloc(scans, sizeof(*ns));
	if (!ns || gw_bitmap_init(&due, ram.nr_pages) || gw_bitmap_init(&unmapped, ram.nr_pages))
		return fail();
	for (size_t i = 0; i < scans; i++) {
		struct timespec pause = { .tv_nsec = PAUSE_NS };
		int64_t began;

		nanosleep(&pause, NULL);
		gw_bitmap_zero(&due);
		gw_bitmap_zero(&unmapped);
		began = gw_now();
		if (gw_tracker_scan(t, &due, &unmapped))
			return fail();
		ns[i] = gw_now() - began;
		due_pages += gw_bitmap_count(&due, 0, ram.nr_pages);
	}
	gw_tracker_stop(t);
	qsort(ns, scans, sizeof(*ns), by_time);
	printf("{\"bytes\":%llu,\"resident\":%llu,\"unmapped-pages\":%zu,\"scans\":%zu,"
	       "\"due-pages\":%.1f,\"protect-ms\":%.3f,\"median-ms\":%.3f,\"p90-ms\":%.3f,"
	       "\"longest-ms\":%.3f}\n",
	       (unsigned long long)gw_ram_bytes(&ram), (unsigned long long)gw_ram_resident(&ram),
	       gw_bitmap_count(&unmapped, 0, ram.nr_pages), scans,
	       (double)due_pages / (double)scans, ms(protect_ns), ms(ns[scans / 2]),
	       ms(ns[scans * 9 / 10]), ms(ns[scans - 1]));
	gw_bitmap_free(&due);
	gw_bitmap_free(&unmapped);
	gw_ram_close(&ram);
	free(ns);
	return 0;
}
