/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * diskio: notices any write of a virtual disk into memory that is lost.
 *
 * Four threads, so four requests are in flight. In each pass a thread writes
 * its part of the disk with a pattern of (block, pass), then reads it back
 * block by block, each into a page that nothing but the disk writes to.
 * The page is verified at once, which finds a disk that lost data, and again
 * just before it is read into for the next time, which finds memory that fell
 * back to an older state after the disk had written to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

#define THREADS	    4
#define POOL_PAGES  (16 * MIB_PAGES / THREADS)
#define WRITE_PAGES 16
#define STEP	    0x9e3779b97f4a7c15
/* A prime above any part's length in blocks, so that strides meet every block. */
#define STRIDE	    2147483647ull
#define REPORTS_MAX 16

/* What a page of the pool holds; pass 0: nothing yet. */
struct slot {
	uint64_t block;
	uint64_t pass;
};

struct worker {
	pthread_t thread;
	uint64_t first; /* block on the disk */
	uint64_t blocks;
	uint64_t *out;
	uint64_t *pool;
	struct slot slots[POOL_PAGES];
	size_t next;
};

static int disk;
static pthread_barrier_t pass_end;
static atomic_uint bad; /* in this pass */

static uint64_t first_word(uint64_t block, uint64_t pass)
{
	return mix64(block ^ mix64(pass));
}

static void report(uint64_t block, const char *what)
{
	if (atomic_fetch_add(&bad, 1) < REPORTS_MAX)
		printf("diskio: BAD offset %lu: %s\n", block * PAGE_SIZE, what);
}

static void verify(const uint64_t *page, const struct slot *slot, const char *what)
{
	uint64_t value = first_word(slot->block, slot->pass);

	for (size_t i = 0; i < PAGE_WORDS; i++, value += STEP) {
		if (page[i] == value)
			continue;
		report(slot->block, what);
		return;
	}
}

static void write_part(struct worker *w, uint64_t pass)
{
	for (uint64_t at = w->first; at < w->first + w->blocks; at += WRITE_PAGES) {
		size_t size = WRITE_PAGES * PAGE_SIZE;

		for (size_t page = 0; page < WRITE_PAGES; page++) {
			uint64_t value = first_word(at + page, pass);

			for (size_t i = 0; i < PAGE_WORDS; i++, value += STEP)
				w->out[page * PAGE_WORDS + i] = value;
		}
		if (pwrite(disk, w->out, size, at * PAGE_SIZE) != (ssize_t)size)
			report(at, "write failed");
	}
}

static void read_block(struct worker *w, uint64_t block, uint64_t pass)
{
	struct slot *slot = &w->slots[w->next];
	uint64_t *page = w->pool + w->next * PAGE_WORDS;

	w->next = (w->next + 1) % POOL_PAGES;
	if (slot->pass)
		verify(page, slot, "the buffer changed after it was read");
	slot->pass = 0;
	if (pread(disk, page, PAGE_SIZE, block * PAGE_SIZE) != PAGE_SIZE) {
		report(block, "read failed");
		return;
	}
	slot->block = block;
	slot->pass = pass;
	verify(page, slot, "the disk did not return what was written");
}

static void *worker_run(void *data)
{
	struct worker *w = data;

	for (uint64_t pass = 1;; pass++) {
		write_part(w, pass);
		for (uint64_t i = 0; i < w->blocks; i++)
			read_block(w, w->first + i * STRIDE % w->blocks, pass);
		if (pthread_barrier_wait(&pass_end) == PTHREAD_BARRIER_SERIAL_THREAD) {
			unsigned int count = atomic_exchange(&bad, 0);

			if (count)
				printf("diskio: BAD pass %lu: %u errors\n", pass, count);
			else
				printf("diskio: pass %lu ok\n", pass);
		}
	}
	return NULL;
}

static void worker_start(unsigned int index, uint64_t blocks)
{
	struct worker *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		die(errno, "no memory for a worker");
	w->first = index * blocks;
	w->blocks = blocks;
	w->out = map_pages(WRITE_PAGES);
	w->pool = map_pages(POOL_PAGES);
	error = pthread_create(&w->thread, NULL, worker_run, w);
	if (error)
		die(error, "cannot start a thread");
}

int diskio_main(int argc, char **argv)
{
	uint64_t size, mib;

	if (argc < 2)
		die(0, "DEV is missing; usage: diskio DEV [MIB]");
	disk = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		die(errno, "cannot open %s", argv[1]);
	if (ioctl(disk, BLKGETSIZE64, &size) < 0)
		die(errno, "%s is no disk", argv[1]);
	if (size < MIB_PAGES * PAGE_SIZE)
		die(0, "%s is smaller than 1 MiB", argv[1]);
	size /= MIB_PAGES * PAGE_SIZE;
	mib = argument(argc, argv, 2, "MIB", 1, size, size < 64 ? size : 64);

	pthread_barrier_init(&pass_end, NULL, THREADS);
	for (unsigned int i = 0; i < THREADS; i++)
		worker_start(i, mib * MIB_PAGES / THREADS);
	puts("diskio: started");
	for (;;)
		pause();
}
