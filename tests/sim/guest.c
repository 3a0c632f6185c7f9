// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * guest.c - the guest's memory, writes, disk reads and tracker; see guest.h.
 *
 * A page that is data is read and written where it lies, as a guest does. A hole never is:
 * reading it through the mapping of a file would fill it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "carried.h"
#include "clock.h"
#include "disks.h"
#include "fiber.h"
#include "guest.h"
#include "sim.h"

#define MAIN_PAGES  (3 * GW_CHUNK_PAGES)
#define SMALL_PAGES 37UL
#define HOLE_PAGES  (700 * GW_CHUNK_PAGES) /* several parts of a scan */
#define DATA_RUNS   75			   /* of RUN_PAGES pages each, at the start */
#define RUN_PAGES   4UL

/* A guest that ran for seconds unwatched has not more to say than one that ran for ms. */
#define WRITES_AT_ONCE 500

/* Where the page lies, or NULL if it is a hole. */
static uint8_t *page_bytes(const struct guest *g, size_t page)
{
	const struct gw_memory_block *block = gw_memory_block_of(g->memory, page);

	carried_touch(page);
	if (!gw_bitmap_test(&g->data, page))
		return NULL;
	return g->bytes[block - g->memory->blocks] + (page - block->first_page) * GW_PAGE_SIZE;
}

/* Whole pages from the first byte of @page on, or a part of one. */
static void write_page(struct guest *g, size_t page, size_t offset, const void *bytes, size_t len)
{
	uint8_t *there = page_bytes(g, page), whole[GW_PAGE_SIZE] = { 0 };
	size_t count = (len + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE;

	if (there && count == 1) {
		memcpy(there + offset, bytes, len);
		return;
	}
	if (len % GW_PAGE_SIZE) {
		memcpy(whole + offset, bytes, len);
		bytes = whole;
	}
	if (gw_memory_write(g->memory, page, count, bytes))
		abort();
	gw_bitmap_set_range(&g->data, page, count);
}

/* Bytes that no other page has. */
static void new_content(struct guest *g, uint8_t *bytes)
{
	uint64_t word = rng_next(&g->rng);

	for (size_t i = 0; i < GW_PAGE_SIZE; i += sizeof(word), word += 0x9e3779b97f4a7c15ULL)
		memcpy(bytes + i, &word, sizeof(word));
}

/* A page that exists: the last chunk is padding for the most part. */
size_t guest_any_page(struct guest *g)
{
	return rng_below(&g->rng, MAIN_PAGES + SMALL_PAGES);
}

static size_t favourite_page(struct guest *g)
{
	if (!rng_one_in(&g->rng, 16))
		return rng_below(&g->rng, g->b->working_set);
	return guest_any_page(g);
}

void guest_load(const struct guest *g, size_t page, uint8_t *bytes)
{
	const uint8_t *there = page_bytes(g, page);

	if (there)
		memcpy(bytes, there, GW_PAGE_SIZE);
	else
		memset(bytes, 0, GW_PAGE_SIZE);
}

void guest_store(struct guest *g, size_t page, const uint8_t *bytes)
{
	gw_bitmap_set(&g->written, page);
	write_page(g, page, 0, bytes, GW_PAGE_SIZE);
}

/* What each stage is there for; the offset of a change is anywhere. */
static void write_familiar(struct guest *g, size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	guest_load(g, page, bytes);
	switch (rng_below(&g->rng, 8)) {
	case 0:
	case 1:
		break;
	case 2:
		guest_load(g, guest_any_page(g), bytes);
		break;
	case 3:
		rng_fill(&g->rng, bytes, 32);
		for (size_t i = 32; i < GW_PAGE_SIZE; i++)
			bytes[i] = bytes[i - 32];
		break;
	default:
		bytes[rng_below(&g->rng, GW_PAGE_SIZE)] ^= 0xff;
	}
	write_page(g, page, 0, bytes, sizeof(bytes));
}

static void write_something(struct guest *g)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	uint8_t bytes[GW_PAGE_SIZE];
	size_t page = favourite_page(g);

	gw_bitmap_set(&g->written, page);
	if (g->b->caches && rng_one_in(&g->rng, 3)) {
		disks_fill(g, page);
		return;
	}
	if (g->b->familiar && !rng_one_in(&g->rng, 4)) {
		write_familiar(g, page);
		if (g->b->caches)
			disks_changed(g, page);
		return;
	}
	switch (rng_below(&g->rng, 8)) {
	case 0:
		write_page(g, page, 0, zeros, sizeof(zeros));
		break;
	case 1:
		new_content(g, bytes);
		write_page(g, page, 0, bytes, sizeof(bytes));
		break;
	case 2: /* the same bytes again */
		guest_load(g, page, bytes);
		write_page(g, page, 0, bytes, sizeof(bytes));
		break;
	default:
		rng_fill(&g->rng, bytes, 8);
		write_page(g, page, 8 * rng_below(&g->rng, GW_PAGE_SIZE / 8), bytes, 8);
	}
}

/* What a balloon does: the page looks unwritten. Often the guest takes it back at once. */
static void punch_something(struct guest *g)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	size_t page = guest_any_page(g);

	if (gw_bitmap_test(&g->written, page))
		return;
	for (unsigned int i = 0; i < GUEST_IOS; i++)
		if (g->io[i].busy && g->io[i].page == page)
			return; /* pinned */
	if (gw_memory_punch(g->memory, page, 1))
		abort();
	gw_bitmap_clear_range(&g->data, page, 1);
	g->punched++;
	/* Reading a hole through QEMU's mapping makes a page of zeros of it. */
	if (rng_one_in(&g->rng, 2))
		write_page(g, page, 0, zeros, sizeof(zeros));
}

static void land(struct guest *g, struct guest_io *io)
{
	uint8_t bytes[64];

	rng_fill(&g->rng, bytes, sizeof(bytes));
	write_page(g, io->page, 512 * rng_below(&g->rng, 8), bytes, sizeof(bytes));
	/* Pinned before tracking, or before a scan that forgot it: nobody will know. */
	if (g->tracked && !gw_bitmap_test(&g->written, io->page) && g->scans != io->scans)
		g->lost++;
	io->busy = false;
}

static void start_io(struct guest *g)
{
	static const uint8_t zeros[GW_PAGE_SIZE];

	for (unsigned int i = 0; i < GUEST_IOS; i++) {
		struct guest_io *io = &g->io[i];

		if (io->busy)
			continue;
		io->page = guest_any_page(g);
		io->lands = sim_now() + (int64_t)rng_below(&g->rng, 3 * GW_MS);
		io->scans = g->scans;
		io->busy = true;
		gw_bitmap_set(&g->written, io->page);	 /* pinning it for writing faults */
		if (!gw_bitmap_test(&g->data, io->page)) /* and what was a hole is one no more */
			write_page(g, io->page, 0, zeros, sizeof(zeros));
		return;
	}
}

void guest_tick(struct guest *g)
{
	int64_t now = sim_now();
	unsigned int n;

	for (unsigned int i = 0; i < GUEST_IOS; i++)
		if (g->io[i].busy && g->io[i].lands <= now)
			land(g, &g->io[i]);
	if (g->running) {
		g->debt += (double)g->b->writes_per_ms * (double)(now - g->ran_until) / GW_MS;
		if (g->debt > WRITES_AT_ONCE)
			g->debt = WRITES_AT_ONCE;
		n = (unsigned int)g->debt;
		g->debt -= n;
		while (n--) {
			write_something(g);
			if (g->b->punches && rng_one_in(&g->rng, 4))
				punch_something(g);
			if (g->b->direct_io && rng_one_in(&g->rng, 4))
				start_io(g);
		}
	}
	g->ran_until = now;
}

void guest_run(struct guest *g)
{
	guest_tick(g);
	g->running = true;
}

void guest_stop(struct guest *g)
{
	guest_tick(g);
	g->running = false;
	for (unsigned int i = 0; i < GUEST_IOS; i++)
		if (g->io[i].busy)
			land(g, &g->io[i]);
}

static struct guest *guest_of(struct gw_tracker *t)
{
	return (struct guest *)((char *)t - offsetof(struct guest, tracker));
}

static int track_scan(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *due)
{
	struct guest *g = guest_of(t);
	size_t start, stop;
	int rc = sim_step(&sim.src.worker, "scan", STEP_FAILS);

	if (rc)
		return rc;
	sim_check(!g->b->needs_quiesce || !g->running || source_disturbed(),
		  "a tracker that needs a stopped guest was scanned while it runs");
	if (count > g->memory->nr_pages - first)
		count = g->memory->nr_pages - first;
	gw_bitmap_for_each_run(&g->written, first, first + count, start, stop) {
		gw_bitmap_set_range(due, start, stop - start);
		gw_bitmap_clear_range(&g->written, start, stop - start);
	}
	g->scans++;
	return 0;
}

static int track_peek(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *written)
{
	struct guest *g = guest_of(t);
	size_t start, stop;
	int rc = sim_step(&sim.src.worker, "peek", STEP_FAILS);

	if (rc)
		return rc;
	gw_bitmap_for_each_run(&g->written, first, first + count, start, stop)
		gw_bitmap_set_range(written, start, stop - start);
	return 0;
}

/* What it writes, and some of what lies there. */
static int track_sample(struct gw_tracker *t, struct gw_bitmap *accessed)
{
	struct guest *g = guest_of(t);
	int rc = sim_step(&sim.src.worker, "sample", STEP_FAILS);

	gw_bitmap_or(accessed, &g->written);
	for (size_t page = g->scans % 7; page < g->memory->nr_pages; page += 7)
		gw_bitmap_set(accessed, page);
	return rc;
}

static void track_stop(struct gw_tracker *t)
{
	guest_of(t)->tracked = false;
}

void guest_work(struct guest *g, unsigned int writes)
{
	while (writes--) {
		write_something(g);
		if (g->b->punches && rng_one_in(&g->rng, 4))
			punch_something(g);
	}
}

void guest_arrive(struct guest *g)
{
	gw_bitmap_zero(&g->written);
}

static struct gw_tracker *tracker_of(struct guest *g)
{
	static const struct gw_tracker_ops exact = { .name = "exact",
						     .scan = track_scan,
						     .peek = track_peek,
						     .sample = track_sample,
						     .stop = track_stop };
	static const struct gw_tracker_ops quiesced = { .name = "exact, quiesced",
							.needs_quiesce = true,
							.scan = track_scan,
							.peek = track_peek,
							.stop = track_stop };

	g->tracker.ops = g->b->needs_quiesce ? &quiesced : &exact;
	g->tracker.pagemap = -1;
	g->tracked = true;
	return &g->tracker;
}

struct gw_tracker *guest_track(struct guest *g)
{
	guest_tick(g);
	gw_bitmap_zero(&g->written);
	g->scans++; /* what was pinned before is forgotten as by a scan */
	return tracker_of(g);
}

struct gw_tracker *guest_resume_tracking(struct guest *g)
{
	guest_tick(g);
	return tracker_of(g);
}

/* @used: the guest reads and writes there */
static void add_block(struct guest *g, const char *id, size_t pages, bool used)
{
	unsigned int block = g->memory->nr_blocks;
	size_t len = pages * GW_PAGE_SIZE;
	int fd;

	if (!g->b->punches) {
		if (buffers_add(&g->buffers, id, len))
			abort();
		g->bytes[block] = g->buffers.bytes[block];
		return;
	}
	fd = memfd_create(id, MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)len) || gw_ram_add(&g->ram, id, fd, len, 0))
		abort();
	if (!used)
		return;
	g->bytes[block] = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (g->bytes[block] == MAP_FAILED)
		abort();
}

void guest_init(struct guest *g, const struct behaviour *b, uint64_t seed)
{
	uint8_t bytes[RUN_PAGES * GW_PAGE_SIZE];

	memset(g, 0, sizeof(*g));
	g->b = b;
	g->rng.state = seed ^ 0x9e3779b9;
	g->memory = b->punches ? &g->ram.memory : &g->buffers.memory;
	add_block(g, "main", MAIN_PAGES, true);
	add_block(g, "small", SMALL_PAGES, true);
	if (b->big)
		add_block(g, "holes", HOLE_PAGES, false);
	if (gw_bitmap_init(&g->written, g->memory->nr_pages) ||
	    gw_bitmap_init(&g->data, g->memory->nr_pages))
		abort();
	for (unsigned int i = 0; i < DATA_RUNS; i++) {
		size_t page = guest_any_page(g) / RUN_PAGES * RUN_PAGES;

		for (size_t k = 0; k < RUN_PAGES; k++)
			new_content(g, bytes + k * GW_PAGE_SIZE);
		write_page(g, page, 0, bytes,
			   (gw_memory_block_of(g->memory, page + RUN_PAGES - 1) ? RUN_PAGES : 1) *
				   GW_PAGE_SIZE);
	}
	if (b->direct_io)
		start_io(g);
}

void guest_free(struct guest *g)
{
	for (unsigned int i = 0; g->b->punches && i < g->memory->nr_blocks; i++)
		if (g->bytes[i])
			munmap(g->bytes[i], g->memory->blocks[i].size);
	gw_ram_close(&g->ram);
	buffers_free(&g->buffers);
	gw_bitmap_free(&g->data);
	gw_bitmap_free(&g->written);
}

size_t guest_compare(const struct gw_memory *a, const struct gw_memory *b)
{
	static uint8_t x[GW_CHUNK_SIZE], y[GW_CHUNK_SIZE];

	for (size_t page = 0; page < a->nr_pages; page += GW_CHUNK_PAGES) {
		if (gw_memory_is_hole(a, page, GW_CHUNK_PAGES) == 1 &&
		    gw_memory_is_hole(b, page, GW_CHUNK_PAGES) == 1)
			continue;
		if (gw_memory_read(a, page, GW_CHUNK_PAGES, x) ||
		    gw_memory_read(b, page, GW_CHUNK_PAGES, y))
			abort();
		for (size_t i = 0; memcmp(x, y, sizeof(x)) != 0 && i < GW_CHUNK_PAGES; i++)
			if (memcmp(x + i * GW_PAGE_SIZE, y + i * GW_PAGE_SIZE, GW_PAGE_SIZE) != 0)
				return page + i;
	}
	return a->nr_pages;
}
