// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One stream of ../abi.h: of what the kernel module tells, if that is loaded, or
 * else of what the agent finds itself.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
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

int report_pages(struct report *report, uint64_t frame, uint32_t pages, unsigned int disk,
		 uint64_t sector)
{
	uint64_t place = sector | (uint64_t)disk << GW_CACHE_LOW_BITS;
	uint32_t sectors = getpagesize() / 512;
	int error = 0;

	if (frame != report->frame + report->grown ||
	    place != report->place + (uint64_t)report->grown * sectors ||
	    report->grown + pages > GW_CACHE_RUN_MAX)
		error = put_run(report);
	if (!report->grown) {
		report->frame = frame;
		report->place = place;
	}
	report->grown += pages;
	return error;
}

static int put_disk(struct report *report, const char *text, uint64_t sectors)
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

/* Gives systems[@i] the index of its disk, which is told of with the first that is on it. */
static int give_index(struct report *report, struct file_system *systems, size_t i)
{
	int index = -1;

	for (size_t j = 0; j < i && index < 0; j++)
		if (!strcmp(systems[j].disk, systems[i].disk))
			index = systems[j].index;
	if (index < 0)
		index = put_disk(report, systems[i].text, systems[i].sectors);
	systems[i].index = index;
	return index < 0 ? index : 0;
}

/* The module's */

struct carried {
	int device;
	/* What it has told of; index -1: the host does not know the disk. */
	struct file_system *systems;
	size_t n, now;
};

/* From now on it tells of what lies on @dev. */
static int take_device(struct report *report, struct carried *c, dev_t dev)
{
	struct file_system *more;

	for (c->now = 0; c->now < c->n; c->now++)
		if (c->systems[c->now].dev == dev)
			return 0;
	more = reallocarray(c->systems, c->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->systems = more;
	more[c->n++] = (struct file_system){ .dev = dev, .index = -1 };
	return disks_name(&more[c->now]) ? give_index(report, more, c->now) : 0;
}

static int take_pair(struct report *report, struct carried *c, const struct gw_cache_pair *pair)
{
	const uint64_t first = le64toh(pair->first), second = le64toh(pair->second);
	const uint64_t pages = (first >> GW_CACHE_LOW_BITS) + 1;
	const struct file_system *system;

	if ((first & GW_CACHE_LOW) == GW_CACHE_LOW)
		return take_device(report, c, makedev(second >> 32, second & UINT32_MAX));
	if (c->now == c->n)
		return -EPROTO;
	system = &c->systems[c->now];
	/* A file system may not be what it says. */
	if (system->index < 0 || second > system->sectors ||
	    system->start + second + pages * getpagesize() / 512 > system->sectors)
		return 0;
	return report_pages(report, first & GW_CACHE_LOW, pages, system->index,
			    system->start + second);
}

static int carry_all(struct report *report, struct carried *c)
{
	struct gw_cache_pair pairs[GW_DEVICE_READ / sizeof(struct gw_cache_pair)];
	const struct gw_cache_header *header = (void *)pairs;
	int error = 0;
	ssize_t bytes = read(c->device, pairs, sizeof(pairs));

	if (bytes >= (ssize_t)sizeof(*pairs) &&
	    memcmp(header->magic, GW_DEVICE_MAGIC, sizeof(header->magic)) != 0)
		return report_fail(report, EPROTO,
				   "/dev/" GW_CACHE_DEVICE " is of another version");
	for (size_t i = 1; !error && bytes > 0; i = 0) {
		for (; !error && i < bytes / sizeof(*pairs); i++)
			error = take_pair(report, c, &pairs[i]);
		if (!error)
			bytes = read(c->device, pairs, sizeof(pairs));
	}
	return bytes < 0 ? report_fail(report, errno, "/dev/" GW_CACHE_DEVICE) : error;
}

static int carry(struct report *report, int device)
{
	struct carried carried = { .device = device };
	int error = carry_all(report, &carried);

	free(carried.systems);
	return error;
}

/* The agent's own */

static int find_all(struct report *report, struct file_system *systems, size_t n)
{
	struct timespec now;
	struct walk walk = { .report = report };
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	walk.deadline = now.tv_sec + WALK_SECONDS;
	walk.finder = finder_new(report);
	if (!walk.finder)
		error = -ENOMEM;
	for (size_t i = 0; i < n && !error; i++) {
		walk.system = &systems[i];
		error = give_index(report, systems, i);
		if (!error)
			error = walk_files(&walk);
	}
	finder_free(walk.finder);
	return error == -ETIME ? 0 : error;
}

static int find(struct report *report)
{
	struct file_system *systems;
	size_t n;
	int error = disks_find(&systems, &n);

	if (error)
		return report_fail(report, -error, "cannot find the file systems");
	error = find_all(report, systems, n);
	disks_free(systems, n);
	return error;
}

static int write_all(struct report *report, int device)
{
	struct gw_cache_header header = { .magic = GW_CACHE_MAGIC,
					  .page_size = htole32(getpagesize()) };
	int error;

	memcpy(report->pairs, &header, sizeof(header));
	report->held = 1;
	error = device < 0 ? find(report) : carry(report, device);
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
	error = report->pairs ? write_all(report, device) : -ENOMEM;
	free(report->pairs);
	if (device >= 0)
		close(device);
	if (error && !report->problem[0])
		report_fail(report, -error, "cannot make a report");
	return error;
}
