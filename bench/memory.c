// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * memory: what the ops of a guest's memory cost, in RAM files (vm/memory.h).
 *
 * Writes, reads and asks for holes in a memory of 64 MiB in a memfd as migrations do:
 * whole chunks, and pages one by one, which is the dearest way through the ops; and
 * reads as source/round.c does, with witnesses for holes. Prints one JSON object: the
 * cheapest of the passes, in ns of processor per call, so that a machine which is busy
 * with other things tells the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "holes.h"
#include "ram.h"

#define PAGES  16384UL /* 64 MiB */
#define PASSES 25

struct bench {
	const struct gw_memory *memory;
	struct gw_holes *holes;
	uint8_t *chunk;
};

static int write_pages(struct bench *b, size_t page, size_t count)
{
	return gw_memory_write(b->memory, page, count, b->chunk);
}

static int read_pages(struct bench *b, size_t page, size_t count)
{
	return gw_memory_read(b->memory, page, count, b->chunk);
}

static int witness_pages(struct bench *b, size_t page, size_t count)
{
	return gw_holes_read(b->holes, page, count, b->chunk);
}

static int ask_pages(struct bench *b, size_t page, size_t count)
{
	return gw_memory_is_hole(b->memory, page, count) < 0;
}

static const struct {
	const char *name;
	int (*call)(struct bench *b, size_t page, size_t count);
	size_t count;
} ops[] = {
	{ "write-chunk", write_pages, GW_CHUNK_PAGES },
	{ "write-page", write_pages, 1 },
	{ "read-chunk", read_pages, GW_CHUNK_PAGES },
	{ "read-page", read_pages, 1 },
	{ "witnessed-read-chunk", witness_pages, GW_CHUNK_PAGES },
	{ "witnessed-read-page", witness_pages, 1 },
	{ "is-hole-chunk", ask_pages, GW_CHUNK_PAGES },
};

static int64_t processor_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * GW_S + ts.tv_nsec;
}

/* The cheapest of its passes over all memory, in ns; negative: it failed. */
static int64_t measure(struct bench *b, size_t op)
{
	int64_t least = INT64_MAX;

	for (int i = 0; i < PASSES; i++) {
		int64_t ns = -processor_ns();

		for (size_t page = 0; page < PAGES; page += ops[op].count)
			if (ops[op].call(b, page, ops[op].count))
				return -1;
		ns += processor_ns();
		least = ns < least ? ns : least;
	}
	return least;
}

int main(void)
{
	struct bench b = { .chunk = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE) };
	int fd = memfd_create("bench", MFD_CLOEXEC);
	struct gw_ram ram = { 0 };

	if (!b.chunk || fd < 0 || ftruncate(fd, PAGES * GW_PAGE_SIZE) ||
	    gw_ram_add(&ram, "bench", fd, PAGES * GW_PAGE_SIZE, 0))
		return 1;
	memset(b.chunk, 1, GW_CHUNK_SIZE);
	b.memory = &ram.memory;
	if (gw_holes_open(&b.holes, b.memory, true)) {
		fprintf(stderr, "memory: %s\n", gw_error());
		return 1;
	}
	for (size_t op = 0; op < sizeof(ops) / sizeof(ops[0]); op++) {
		int64_t ns = measure(&b, op);

		if (ns < 0) {
			fprintf(stderr, "memory: %s: %s\n", ops[op].name, gw_error());
			return 1;
		}
		printf("%s\"%s\":%.1f", op ? "," : "{", ops[op].name,
		       (double)ns * (double)ops[op].count / (double)PAGES);
	}
	puts("}");
	gw_holes_close(b.holes);
	gw_ram_close(&ram);
	free(b.chunk);
	return 0;
}
