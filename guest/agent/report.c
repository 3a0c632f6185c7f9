// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One stream of ../abi.h: carried from the kernel module, if that is loaded, or
 * else put together from what the agent finds itself.
 *
 * What the module writes is passed on as it is. Only the runs are counted.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define WALK_SECONDS 60 /* longer than that no host waits, and the report would be old */
#define PAIRS_MAX    (PIECE_MAX / sizeof(struct gw_cache_pair))

int report_fail(struct report *report, int error, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(report->problem, sizeof(report->problem), format, args);
	va_end(args);
	if (length > 0 && (size_t)length < sizeof(report->problem))
		snprintf(report->problem + length, sizeof(report->problem) - length, ": %s",
			 strerror(error));
	return -error;
}

/* The module's */

/* Counts what is in a piece; @of_disk: pairs that are left of a disk's record. */
static void count(struct report *report, const struct gw_cache_pair *pairs, size_t n,
		  uint64_t *of_disk)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t first = le64toh(pairs[i].first);

		if (*of_disk) {
			(*of_disk)--;
		} else if ((first & GW_CACHE_LOW) == GW_CACHE_LOW) {
			*of_disk = first >> GW_CACHE_LOW_BITS;
		} else {
			report->runs++;
			report->pages += (first >> GW_CACHE_LOW_BITS) + 1;
		}
	}
}

static int carry(struct report *report, int device)
{
	uint64_t skip = sizeof(struct gw_cache_header) / sizeof(struct gw_cache_pair);
	ssize_t bytes;
	int error;

	while ((bytes = read(device, report->pairs, PIECE_MAX)) > 0) {
		if (bytes % sizeof(*report->pairs))
			return report_fail(report, EPROTO, "/dev/" GW_CACHE_DEVICE);
		count(report, report->pairs, bytes / sizeof(*report->pairs), &skip);
		error = report->sink->put(report->sink, report->pairs, bytes);
		if (error)
			return error;
	}
	return bytes ? report_fail(report, errno, "/dev/" GW_CACHE_DEVICE) : 0;
}

/* The agent's own */

static int put_pair(struct report *report, uint64_t first, uint64_t second)
{
	int error = 0;

	if (report->held == PAIRS_MAX) {
		error = report->sink->put(report->sink, report->pairs, PIECE_MAX);
		report->held = 0;
	}
	report->pairs[report->held++] = (struct gw_cache_pair){ htole64(first), htole64(second) };
	return error;
}

static int put_run(struct report *report)
{
	uint64_t more = (uint64_t)report->grown - 1;

	if (!report->grown)
		return 0;
	report->runs++;
	report->pages += report->grown;
	report->grown = 0;
	return put_pair(report, report->frame | more << GW_CACHE_LOW_BITS, report->place);
}

int report_page(struct report *report, uint64_t frame, unsigned int disk, uint64_t sector)
{
	uint64_t place = sector | (uint64_t)disk << GW_CACHE_LOW_BITS;
	uint32_t sectors = getpagesize() / 512;
	int error = 0;

	if (frame != report->frame + report->grown ||
	    place != report->place + (uint64_t)report->grown * sectors ||
	    report->grown == GW_CACHE_RUN_MAX)
		error = put_run(report);
	if (!report->grown) {
		report->frame = frame;
		report->place = place;
	}
	report->grown++;
	return error;
}

int report_disk(struct report *report, const char *text, uint64_t sectors)
{
	struct gw_cache_pair pairs[4] = {};
	uint64_t index = report->disks;
	size_t length = strlen(text), n = (length + sizeof(*pairs) - 1) / sizeof(*pairs);
	int error;

	if (length > sizeof(pairs) || index >> 16)
		return -EINVAL;
	memcpy(pairs, text, length);
	error = put_run(report);
	if (!error)
		error = put_pair(report, GW_CACHE_LOW | (uint64_t)n << GW_CACHE_LOW_BITS,
				 sectors | index << GW_CACHE_LOW_BITS);
	for (size_t i = 0; i < n && !error; i++)
		error = put_pair(report, le64toh(pairs[i].first), le64toh(pairs[i].second));
	if (error)
		return error;
	report->disks++;
	return index;
}

/* The index of the disk of systems[@i], as the first of that disk got it. */
static int index_of(struct report *report, const struct file_system *systems, int *indices,
		    size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (!strcmp(systems[j].disk, systems[i].disk))
			return indices[j];
	return report_disk(report, systems[i].text, systems[i].sectors);
}

static int find_all(struct report *report, struct file_system *systems, size_t n)
{
	struct timespec now;
	struct walk walk = { .report = report };
	int *indices = calloc(n + 1, sizeof(*indices)), error = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	walk.deadline = now.tv_sec + WALK_SECONDS;
	walk.finder = finder_new(report);
	if (!indices || !walk.finder)
		error = -ENOMEM;
	for (size_t i = 0; i < n && !error; i++) {
		indices[i] = index_of(report, systems, indices, i);
		walk.system = &systems[i];
		walk.disk = indices[i];
		error = indices[i] < 0 ? indices[i] : walk_files(&walk);
	}
	finder_free(walk.finder);
	free(indices);
	return error == -ETIME ? 0 : error;
}

static int find(struct report *report)
{
	struct gw_cache_header header = { .magic = GW_CACHE_MAGIC,
					  .page_size = htole32(getpagesize()) };
	struct file_system *systems;
	size_t n;
	int error = disks_find(&systems, &n);

	if (error)
		return report_fail(report, -error, "cannot find the file systems");
	memcpy(report->pairs, &header, sizeof(header));
	report->held = 1;
	error = find_all(report, systems, n);
	disks_free(systems, n);
	if (!error)
		error = put_run(report);
	if (!error)
		error = report->sink->put(report->sink, report->pairs,
					  report->held * sizeof(*report->pairs));
	return error;
}

int report_write(struct report *report)
{
	int device = open("/dev/" GW_CACHE_DEVICE, O_RDONLY | O_CLOEXEC), error;

	if (device < 0 && errno != ENOENT)
		return report_fail(report, errno, "/dev/" GW_CACHE_DEVICE);
	report->source = device < 0 ? GW_AGENT_SELF : GW_AGENT_MODULE;
	report->pairs = calloc(PAIRS_MAX, sizeof(*report->pairs));
	if (!report->pairs)
		error = -ENOMEM;
	else if (device < 0)
		error = find(report);
	else
		error = carry(report, device);
	free(report->pairs);
	if (device >= 0)
		close(device);
	if (error && !report->problem[0])
		report_fail(report, -error, "cannot make a report");
	return error;
}
