// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * spread_guest.c - a guest's vCPUs and one device, and the kernel as far as they and a pager see
 * it: a file that is the guest's memory, and who waits for a page of it; see spread.h.
 *
 * Who touches a page that is not in the file, or writes one that is protected, waits, and whoever
 * listens is told once. A device pins a page as a vCPU writes it, and writes it later: then no
 * protection stops it (F10).
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "spread.h"

/* Touches at once, however long nobody looked. */
#define AT_ONCE 60

#define HOT 24U

static uint64_t first_word(size_t page, uint64_t version)
{
	return version ? (version << 20 | page) * 0x9e3779b97f4a7c15ULL | 1 : 0;
}

/* Half of them can be compressed. */
static uint64_t word(uint64_t first, uint64_t version, size_t i)
{
	return version ? first + i * (version % 2 ? 1 : 0xbf58476d1ce4e5b9ULL) : 0;
}

#define WORDS (GW_PAGE_SIZE / sizeof(uint64_t))

void spread_fill(uint8_t *bytes, size_t page, uint64_t version)
{
	const uint64_t first = first_word(page, version);

	for (size_t i = 0; i < WORDS; i++) {
		const uint64_t w = word(first, version, i);

		memcpy(bytes + i * sizeof(w), &w, sizeof(w));
	}
}

bool spread_is(const uint8_t *bytes, size_t page, uint64_t version)
{
	uint8_t must[GW_PAGE_SIZE];

	spread_fill(must, page, version);
	return !memcmp(bytes, must, sizeof(must));
}

bool spread_seems(const uint8_t *bytes, size_t page, uint64_t version)
{
	const uint64_t first = first_word(page, version), last = word(first, version, WORDS - 1);

	return !memcmp(bytes, &first, sizeof(first)) &&
	       !memcmp(bytes + GW_PAGE_SIZE - sizeof(last), &last, sizeof(last));
}

static const struct gw_memory_block *block_of(size_t page, unsigned int *block, size_t *at)
{
	const struct gw_memory_block *b = gw_memory_block_of(&spread.file.memory, page);

	*block = (unsigned int)(b - spread.file.memory.blocks);
	*at = page - b->first_page;
	return b;
}

bool spread_in_file(size_t page)
{
	unsigned int block;
	size_t at;

	block_of(page, &block, &at);
	return gw_bitmap_test(&spread.file.data[block], at);
}

const uint8_t *spread_bytes(size_t page)
{
	unsigned int block;
	size_t at;

	block_of(page, &block, &at);
	return spread.file.bytes[block] + at * GW_PAGE_SIZE;
}

uint64_t spread_here(void)
{
	return gw_memory_resident(&spread.file.memory) / GW_PAGE_SIZE;
}

static void write_page(size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	spread.must[page] = rng_one_in(&spread.rng, spread.zeros) ? 0 : ++spread.version;
	spread_fill(bytes, page, spread.must[page]);
	if (gw_memory_write(&spread.file.memory, page, 1, bytes))
		abort();
	spread.written++;
}

/* Return: whether it could. */
static bool attempt(struct spread_cpu *c)
{
	if (spread.watched && (!spread_in_file(c->page) ||
			       (c->writes && gw_bitmap_test(&spread.protected, c->page)))) {
		c->protected = spread_in_file(c->page);
		c->state = SPREAD_FAULTS_NOW;
		return false;
	}
	sim_check(spread_in_file(c->page)
			  ? spread_is(spread_bytes(c->page), c->page, spread.must[c->page])
			  : !spread.must[c->page],
		  "page %zu is read, and is not what was written last", c->page);
	c->state = SPREAD_RUNS;
	return true;
}

static void touch(struct spread_cpu *c)
{
	if (!attempt(c))
		return;
	spread.touched++;
	if (c->writes)
		write_page(c->page);
}

static void pin(void)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	const size_t page = spread.device.page;

	if (!attempt(&spread.device))
		return;
	if (!spread_in_file(page) && gw_memory_write(&spread.file.memory, page, 1, zeros))
		abort();
	spread.pins = true;
	spread.pinned_until = sim_now() + (int64_t)rng_below(&spread.rng, 30) * GW_MS;
}

static size_t some_page(void)
{
	const struct gw_memory *m = &spread.file.memory;
	size_t page;

	do
		page = rng_one_in(&spread.rng, 3) ? rng_below(&spread.rng, m->nr_pages)
						  : spread.hot + rng_below(&spread.rng, HOT);
	while (!gw_memory_block_of(m, page));
	return page;
}

/* The device: its I/O ends, or another begins. */
static void device_tick(void)
{
	struct spread_cpu *d = &spread.device;

	if (spread.pins && sim_now() >= spread.pinned_until) {
		sim_check(spread_in_file(d->page), "page %zu left while a device had pinned it",
			  d->page);
		write_page(d->page);
		spread.pins = false;
	}
	if (spread.pins || spread.quiesced || d->state != SPREAD_RUNS ||
	    !rng_one_in(&spread.rng, 50))
		return;
	d->page = some_page();
	d->writes = true;
	pin();
}

void spread_tick(void)
{
	const int64_t now = sim_now();

	if (spread.pinned)
		device_tick();
	spread.debt += (double)(now - spread.ran_until) * spread.touches_per_ms / GW_MS;
	spread.ran_until = now;
	if (spread.debt > AT_ONCE)
		spread.debt = AT_ONCE;
	for (; spread.debt >= 1 && !spread.quiesced; spread.debt--) {
		struct spread_cpu *c = &spread.cpu[rng_below(&spread.rng, SPREAD_CPUS)];

		if (c->state != SPREAD_RUNS)
			continue;
		if (rng_one_in(&spread.rng, 200))
			spread.hot = rng_below(&spread.rng, spread.file.memory.nr_pages - HOT);
		c->page = some_page();
		c->writes = rng_one_in(&spread.rng, 2);
		touch(c);
	}
}

static void wake_one(struct spread_cpu *c, size_t page, size_t count, void (*again)(void))
{
	if (c->state == SPREAD_RUNS || c->page < page || c->page - page >= count)
		return;
	if (again)
		again();
	else
		touch(c);
}

void spread_wake(size_t page, size_t count)
{
	for (unsigned int i = 0; i < SPREAD_CPUS; i++)
		wake_one(&spread.cpu[i], page, count, NULL);
	wake_one(&spread.device, page, count, pin);
}

static unsigned int part_of(size_t page)
{
	return page >= spread.file.memory.blocks[1].first_page;
}

unsigned int spread_faults(unsigned int part, struct gw_fault faults[GW_FAULTS_MAX], bool take)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i <= SPREAD_CPUS; i++) {
		struct spread_cpu *c = i < SPREAD_CPUS ? &spread.cpu[i] : &spread.device;

		if (c->state != SPREAD_FAULTS_NOW || part_of(c->page) != part)
			continue;
		if (take && i == SPREAD_CPUS && c->protected)
			spread_road(ROAD_DEVICE_KEPT);
		if (take) {
			c->state = SPREAD_WAITS;
			faults[n] = (struct gw_fault){ .page = c->page,
						       .vcpu = i < SPREAD_CPUS ? i : GW_NO_VCPU,
						       .protected = c->protected };
		}
		n++;
	}
	return n;
}

void spread_guest_init(void)
{
	static const char *const ids[] = { "ram", "more" };

	memset(&spread.file, 0, sizeof(spread.file));
	for (unsigned int i = 0; i < 2; i++)
		if (buffers_add(&spread.file, ids[i],
				(100 + rng_below(&spread.rng, 280)) * GW_PAGE_SIZE))
			abort();
	if (spread.file.memory.nr_pages > SPREAD_PAGES ||
	    gw_bitmap_init(&spread.protected, spread.file.memory.nr_pages))
		abort();
	memset(spread.must, 0, sizeof(spread.must));
	memset(spread.cpu, 0, sizeof(spread.cpu));
	memset(&spread.device, 0, sizeof(spread.device));
	spread.pins = spread.quiesced = spread.watched = false;
	spread.version = spread.touched = spread.written = 0;
	spread.ran_until = 0;
	spread.debt = 0;
	spread.hot = 0;
	for (size_t page = 0; page < spread.file.memory.nr_pages; page++)
		if (gw_memory_block_of(&spread.file.memory, page) && !rng_one_in(&spread.rng, 5))
			write_page(page);
}

void spread_guest_free(void)
{
	buffers_free(&spread.file);
	gw_bitmap_free(&spread.protected);
}
