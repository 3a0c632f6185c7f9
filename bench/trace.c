// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * trace PID MONITOR WINDOWS WINDOW_MS FILE: record what a guest accesses and writes.
 *
 * Watches the running QEMU as a migration does (track/tracker.h), and at the end of each window
 * asks what was written and accessed in it, and which processes ran at either end of it. What that
 * costs the guest is what a sampling migration costs it, and is part of what is recorded.
 *
 * Prints a JSON object: pages of the guest, windows, and of a window the mean length (ms), the mean
 * time that looking took (ms), pages accessed and written.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attach.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "page.h"
#include "process.h"
#include "qmp.h"
#include "trace.h"
#include "tracker.h"
#include "watch.h"

struct recording {
	struct gw_ram ram;
	struct gw_qmp *qmp;
	struct gw_tracker *tracker;
	struct gw_bitmap accessed, written;
	FILE *file;
	uint64_t processes[2 * TRACE_PROCESSES];
	size_t before, now; /* of these: those at its beginning; all */
	int64_t ns, look_ns;
	uint64_t nr_accessed, nr_written;
};

static int fail(void)
{
	fprintf(stderr, "trace: %s\n", gw_error());
	return 1;
}

static int put(struct recording *r, const void *at, size_t len)
{
	return fwrite(at, 1, len, r->file) == len ? 0 : gw_fail(-EIO, "the file cannot be written");
}

static int put_list(struct recording *r, const struct gw_bitmap *pages)
{
	const struct trace_list list = { .pages = gw_bitmap_count(pages, 0, pages->bits) };
	int rc = put(r, &list, sizeof(list));

	for (size_t i = 0; i < (pages->bits + 63) / 64; i++)
		for (uint64_t word = pages->words[i]; !rc && word; word &= word - 1) {
			const uint32_t page = (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(word);

			rc = put(r, &page, sizeof(page));
		}
	return rc;
}

static int put_used(struct recording *r)
{
	struct gw_memory_walk walk = gw_memory_walk(&r->ram.memory);
	struct gw_bitmap used = { 0 };
	size_t first, stop;
	int rc = gw_bitmap_init(&used, r->ram.memory.nr_pages);

	while (!rc && (rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		gw_bitmap_set_range(&used, first, stop - first);
		rc = 0;
	}
	if (!rc)
		rc = put_list(r, &used);
	gw_bitmap_free(&used);
	return rc;
}

/* Who runs, beside those that ran when the window began. */
static int ask_processes(struct recording *r)
{
	gw_autofree char *text = gw_qmp_hmp(r->qmp, "info registers -a");

	if (!text)
		return -EIO;
	r->now = r->before + gw_process_parse(text, r->processes + r->before, TRACE_PROCESSES);
	return 0;
}

static int look(struct recording *r)
{
	int rc;

	gw_bitmap_zero(&r->accessed);
	gw_bitmap_zero(&r->written);
	rc = gw_tracker_scan(r->tracker, &r->written);
	if (!rc)
		rc = r->tracker->ops->sample(r->tracker, &r->accessed);
	return rc ? rc : ask_processes(r);
}

static void wait_until(int64_t ns)
{
	const struct timespec t = { .tv_sec = ns / GW_S, .tv_nsec = ns % GW_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static int record(struct recording *r, size_t windows, int64_t window_ns)
{
	const struct trace_header header = { .magic = TRACE_MAGIC,
					     .pages = r->ram.memory.nr_pages,
					     .windows = windows,
					     .window_ns = window_ns };
	int rc = put(r, &header, sizeof(header)) ?: put_used(r) ?: look(r);
	int64_t last = gw_now();

	for (size_t i = 0; !rc && i < windows; i++) {
		struct trace_window w;
		int64_t began;

		/* Who ran at its end ran at the beginning of the next. */
		r->before = r->now - r->before;
		memmove(r->processes, r->processes + r->now - r->before,
			r->before * sizeof(r->processes[0]));
		wait_until(last + window_ns);
		began = gw_now();
		rc = look(r);
		w = (struct trace_window){ .ns = gw_now() - last,
					   .look_ns = gw_now() - began,
					   .processes = r->now };
		last += w.ns;
		r->ns += w.ns;
		r->look_ns += w.look_ns;
		r->nr_accessed += gw_bitmap_count(&r->accessed, 0, r->accessed.bits);
		r->nr_written += gw_bitmap_count(&r->written, 0, r->written.bits);
		rc = rc ?: put(r, &w, sizeof(w)) ?:
		     put(r, r->processes, r->now * sizeof(r->processes[0])) ?:
		     put_list(r, &r->accessed) ?: put_list(r, &r->written);
	}
	return rc;
}

static int track(struct recording *r, pid_t pid)
{
	struct gw_track_range ranges[GW_TRACK_RANGES];
	const unsigned int nr = gw_track_ranges(&r->ram, ranges);
	int uffd = gw_inject_userfaultfd(pid);

	if (uffd < 0)
		return uffd;
	r->tracker = gw_tracker_uffd(pid, &uffd, 1, ranges, nr);
	return r->tracker ? 0 : -EIO;
}

int main(int argc, char **argv)
{
	const size_t windows = argc == 6 ? strtoul(argv[3], NULL, 10) : 0;
	const unsigned long ms = argc == 6 ? strtoul(argv[4], NULL, 10) : 0;
	struct gw_guest_facts facts;
	struct recording r = { 0 };
	pid_t pid;
	int rc;

	if (!windows || windows > TRACE_WINDOWS || !ms || ms > 60000) {
		fprintf(stderr,
			"usage: trace PID MONITOR WINDOWS WINDOW_MS FILE (%lu windows at most, "
			"each at most a minute)\n",
			TRACE_WINDOWS);
		return 2;
	}
	pid = (pid_t)atoi(argv[1]);
	r.qmp = gw_qmp_open(argv[2], gw_now() + 5 * GW_S);
	r.file = fopen(argv[5], "wbe");
	if (!r.qmp || !r.file) {
		fprintf(stderr, "trace: %s\n", r.qmp ? "the file cannot be written" : gw_error());
		return 1;
	}
	rc = gw_attach(r.qmp, pid, &r.ram, &facts);
	if (!rc)
		rc = gw_bitmap_init(&r.accessed, r.ram.memory.nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&r.written, r.ram.memory.nr_pages);
	if (!rc)
		rc = track(&r, pid);
	if (!rc)
		rc = record(&r, windows, (int64_t)ms * GW_MS);
	if (!rc && fflush(r.file))
		rc = gw_fail(-EIO, "the file cannot be written");
	fclose(r.file);
	if (!rc)
		printf("{\"pages\": %zu, \"windows\": %zu, \"window-ms\": %.3f, \"look-ms\": %.3f, "
		       "\"accessed\": %.1f, \"written\": %.1f}\n",
		       r.ram.memory.nr_pages, windows, (double)r.ns / GW_MS / (double)windows,
		       (double)r.look_ns / GW_MS / (double)windows,
		       (double)r.nr_accessed / (double)windows,
		       (double)r.nr_written / (double)windows);
	gw_tracker_stop(r.tracker);
	gw_bitmap_free(&r.accessed);
	gw_bitmap_free(&r.written);
	gw_ram_close(&r.ram);
	gw_qmp_close(r.qmp);
	return rc ? fail() : 0;
}
