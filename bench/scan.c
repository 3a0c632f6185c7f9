// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * scan PID MONITOR SCANS THREADS: what one scan for written pages costs.
 *
 * Tracks the memory of the running QEMU with the product's own injection and
 * tracker, scans it again and again, 10 ms apart, in parts by so many threads
 * as source/machine.c does, and prints one JSON object: the time to protect
 * everything, and of the scans the median, the 90th percentile and the
 * longest, in ms; and what the second witness for holes costs (track/holes.h): to read
 * all memory without it and with it, and one look. The guest runs on, before and after.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "attach.h"
#include "bitmap.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "holes.h"
#include "inject.h"
#include "qmp.h"
#include "tracker.h"
#include "watch.h"

#define PAUSE_NS    (10 * GW_MS)
#define PART	    ((256UL << 20) / GW_PAGE_SIZE) /* as in source/machine.c */
#define THREADS_MAX 64

struct pass {
	struct gw_tracker *tracker;
	size_t pages;
	struct gw_bitmap due;
	_Atomic size_t next;
	_Atomic int rc;
};

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
	unsigned int nr;
	int rc, uffd;

	if (!q)
		return NULL;
	rc = gw_attach(q, pid, ram, &facts);
	gw_qmp_close(q);
	if (rc)
		return NULL;
	nr = gw_track_ranges(ram, ranges);
	uffd = gw_inject_userfaultfd(pid);
	if (uffd < 0)
		return NULL;
	*protect_ns = -gw_now();
	t = gw_tracker_uffd(pid, &uffd, 1, ranges, nr);
	*protect_ns += gw_now();
	return t;
}

static void *scan_parts(void *arg)
{
	struct pass *p = arg;

	for (;;) {
		size_t first = p->next++ * PART;

		if (first >= p->pages)
			return NULL;
		if (p->tracker->ops->scan(p->tracker, first, PART, &p->due))
			p->rc = fail();
	}
}

/* One scan of everything; what it took, threads' starts and ends included. */
static int64_t scan(struct pass *p, unsigned int nr_threads)
{
	pthread_t threads[THREADS_MAX];
	unsigned int started = 0;
	int64_t began = gw_now();

	p->next = 0;
	while (started + 1 < nr_threads && !pthread_create(&threads[started], NULL, scan_parts, p))
		started++;
	scan_parts(p);
	while (started)
		pthread_join(threads[--started], NULL);
	return gw_now() - began;
}

/* One thread; as if the destination held everything with content, so a look has all to do. */
static int holes(const struct gw_ram *ram, int64_t *plain, int64_t *read, int64_t *look)
{
	gw_autofree uint8_t *bytes = malloc(GW_CHUNK_SIZE);
	struct gw_digests held = { 0 };
	struct gw_bitmap due = { 0 };
	struct gw_holes *h = NULL;
	int rc = bytes ? gw_digests_init(&held, ram->memory.nr_pages) : -ENOMEM;

	if (!rc)
		rc = gw_bitmap_init(&due, ram->memory.nr_pages);
	if (!rc)
		rc = gw_holes_open(&h, &ram->memory, true);
	*plain = -gw_now();
	for (size_t page = 0; !rc && page < ram->memory.nr_pages; page += GW_CHUNK_PAGES)
		rc = gw_memory_read(&ram->memory, page, GW_CHUNK_PAGES, bytes);
	*plain += gw_now();
	*read = -gw_now();
	for (size_t page = 0; !rc && page < ram->memory.nr_pages; page += GW_CHUNK_PAGES)
		rc = gw_holes_read(h, page, GW_CHUNK_PAGES, bytes);
	*read += gw_now();
	for (size_t page = 0; !rc && page < ram->memory.nr_pages; page++)
		gw_digests_set(&held, page, (struct gw_digest){ page + 1, 1 });
	*look = -gw_now();
	if (!rc)
		rc = gw_holes_due(h, 0, ram->memory.nr_pages, &held, &due);
	*look += gw_now();
	gw_holes_close(h);
	gw_digests_free(&held);
	gw_bitmap_free(&due);
	return rc;
}

int main(int argc, char **argv)
{
	int64_t plain = 0, read = 0, look = 0;
	struct pass pass = { 0 };
	struct gw_ram ram = { 0 };
	int64_t protect_ns, *ns;
	size_t scans = argc == 5 ? strtoul(argv[3], NULL, 10) : 0, due_pages = 0;
	unsigned long threads = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;

	if (!scans || !threads || threads > THREADS_MAX) {
		fprintf(stderr, "usage: scan PID MONITOR SCANS THREADS\n");
		return 2;
	}
	pass.tracker = track((pid_t)atoi(argv[1]), argv[2], &ram, &protect_ns);
	if (!pass.tracker)
		return fail();
	pass.pages = ram.memory.nr_pages;
	ns = calloc(scans, sizeof(*ns));
	if (!ns || gw_bitmap_init(&pass.due, pass.pages))
		return fail();
	for (size_t i = 0; !pass.rc && i < scans; i++) {
		struct timespec pause = { .tv_nsec = PAUSE_NS };

		nanosleep(&pause, NULL);
		gw_bitmap_zero(&pass.due);
		ns[i] = scan(&pass, (unsigned int)threads);
		due_pages += gw_bitmap_count(&pass.due, 0, pass.pages);
	}
	gw_tracker_stop(pass.tracker);
	if (!pass.rc && holes(&ram, &plain, &read, &look))
		pass.rc = fail();
	qsort(ns, scans, sizeof(*ns), by_time);
	printf("{\"bytes\":%llu,\"resident\":%llu,\"scans\":%zu,"
	       "\"threads\":%lu,\"due-pages\":%.1f,\"protect-ms\":%.3f,\"median-ms\":%.3f,"
	       "\"p90-ms\":%.3f,\"longest-ms\":%.3f,\"read-ms\":%.3f,"
	       "\"witnessed-read-ms\":%.3f,\"holes-ms\":%.3f}\n",
	       (unsigned long long)gw_memory_bytes(&ram.memory),
	       (unsigned long long)gw_memory_resident(&ram.memory), scans, threads,
	       (double)due_pages / (double)scans, ms(protect_ns), ms(ns[scans / 2]),
	       ms(ns[scans * 9 / 10]), ms(ns[scans - 1]), ms(plain), ms(read), ms(look));
	gw_bitmap_free(&pass.due);
	gw_ram_close(&ram);
	free(ns);
	return pass.rc;
}
