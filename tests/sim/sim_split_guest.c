// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split_guest.c - a guest's vCPUs and one device, and the kernel as far as they and a pager see
 * it: a file that is the guest's memory, and who waits for a page of it; see sim_split.h.
 *
 * Who touches a page that is not in the file, or writes one that is protected, waits, and whoever
 * listens is told once. A device pins a page as a vCPU writes it, and writes it later: then no
 * protection stops it (F10).
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "sim_split.h"

/* Touches at once, however long nobody looked. */
#define AT_ONCE 60

#define HOT 24U

/* Time for what is done as there is room. */
#define NAP_NS (700 * GW_MS)

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

void split_fill(uint8_t *bytes, size_t page, uint64_t version)
{
	const uint64_t first = first_word(page, version);

	for (size_t i = 0; i < WORDS; i++) {
		const uint64_t w = word(first, version, i);

		memcpy(bytes + i * sizeof(w), &w, sizeof(w));
	}
}

bool split_is(const uint8_t *bytes, size_t page, uint64_t version)
{
	uint8_t must[GW_PAGE_SIZE];

	split_fill(must, page, version);
	return !memcmp(bytes, must, sizeof(must));
}

bool split_seems(const uint8_t *bytes, size_t page, uint64_t version)
{
	const uint64_t first = first_word(page, version), last = word(first, version, WORDS - 1);

	return !memcmp(bytes, &first, sizeof(first)) &&
	       !memcmp(bytes + GW_PAGE_SIZE - sizeof(last), &last, sizeof(last));
}

static const struct gw_memory_block *block_of(size_t page, unsigned int *block, size_t *at)
{
	const struct gw_memory_block *b = gw_memory_block_of(&sim_split.host->file.memory, page);

	*block = (unsigned int)(b - sim_split.host->file.memory.blocks);
	*at = page - b->first_page;
	return b;
}

bool split_is_in(const struct split_host *host, size_t page)
{
	unsigned int block;
	size_t at;

	block_of(page, &block, &at);
	return gw_bitmap_test(&host->file.data[block], at);
}

const uint8_t *split_bytes_at(const struct split_host *host, size_t page)
{
	unsigned int block;
	size_t at;

	block_of(page, &block, &at);
	return host->file.bytes[block] + at * GW_PAGE_SIZE;
}

bool split_in_file(size_t page)
{
	return split_is_in(sim_split.host, page);
}

const uint8_t *split_bytes(size_t page)
{
	return split_bytes_at(sim_split.host, page);
}

uint64_t split_here(void)
{
	return gw_memory_resident(&sim_split.host->file.memory) / GW_PAGE_SIZE;
}

static void write_page(size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	sim_split.must[page] = rng_one_in(&sim_split.rng, sim_split.zeros) ? 0
									   : ++sim_split.version;
	split_fill(bytes, page, sim_split.must[page]);
	if (gw_memory_write(&sim_split.host->file.memory, page, 1, bytes))
		abort();
	sim_split.written++;
}

/* Return: whether it could. */
static bool attempt(struct split_cpu *c)
{
	if (sim_split.watched &&
	    (!split_in_file(c->page) ||
	     (c->writes && gw_bitmap_test(&sim_split.host->protected, c->page)))) {
		c->protected = split_in_file(c->page);
		if (c->state == SPLIT_RUNS)
			c->since = sim_now();
		c->state = SPLIT_FAULTS_NOW;
		return false;
	}
	sim_check(split_in_file(c->page)
			  ? split_is(split_bytes(c->page), c->page, sim_split.must[c->page])
			  : !sim_split.must[c->page],
		  "page %zu is read, and is not what was written last", c->page);
	c->state = SPLIT_RUNS;
	return true;
}

static void touch(struct split_cpu *c)
{
	if (!attempt(c))
		return;
	sim_split.touched++;
	if (c->writes)
		write_page(c->page);
}

static void pin(void)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	const size_t page = sim_split.device.page;

	if (!attempt(&sim_split.device))
		return;
	if (!split_in_file(page) && gw_memory_write(&sim_split.host->file.memory, page, 1, zeros))
		abort();
	sim_split.pins = true;
	sim_split.pinned_until = sim_now() + (int64_t)rng_below(&sim_split.rng, 30) * GW_MS;
}

static size_t some_page(void)
{
	const struct gw_memory *m = &sim_split.host->file.memory;
	size_t page;

	do
		page = rng_one_in(&sim_split.rng, 3)
			       ? rng_below(&sim_split.rng, m->nr_pages)
			       : sim_split.hot + rng_below(&sim_split.rng, HOT);
	while (!gw_memory_block_of(m, page));
	return page;
}

/* The device: its I/O ends, or another begins. */
static void device_tick(void)
{
	struct split_cpu *d = &sim_split.device;

	if (sim_split.pins && sim_now() >= sim_split.pinned_until) {
		sim_check(split_in_file(d->page), "page %zu left while a device had pinned it",
			  d->page);
		write_page(d->page);
		sim_split.pins = false;
	}
	if (sim_split.pins || sim_split.quiesced || d->state != SPLIT_RUNS ||
	    !rng_one_in(&sim_split.rng, 50))
		return;
	d->page = some_page();
	d->writes = true;
	pin();
}

void split_tick(void)
{
	const int64_t now = sim_now();

	if ((sim_split.sleeps && sim_split.merging) || (sim_split.naps && now / NAP_NS % 2)) {
		sim_split.ran_until = now;
		return;
	}
	if (sim_split.pinned)
		device_tick();
	sim_split.debt += (double)(now - sim_split.ran_until) * sim_split.touches_per_ms / GW_MS;
	sim_split.ran_until = now;
	if (sim_split.debt > AT_ONCE)
		sim_split.debt = AT_ONCE;
	for (; sim_split.debt >= 1 && !sim_split.quiesced; sim_split.debt--) {
		struct split_cpu *c = &sim_split.cpu[rng_below(&sim_split.rng, SPLIT_CPUS)];

		if (c->state != SPLIT_RUNS)
			continue;
		if (rng_one_in(&sim_split.rng, 200))
			sim_split.hot = rng_below(&sim_split.rng,
						  sim_split.host->file.memory.nr_pages - HOT);
		c->page = some_page();
		c->writes = rng_one_in(&sim_split.rng, 2);
		touch(c);
	}
}

static void wake_one(struct split_cpu *c, size_t page, size_t count, void (*again)(void))
{
	if (c->state == SPLIT_RUNS || c->page < page || c->page - page >= count)
		return;
	if (again)
		again();
	else
		touch(c);
}

void split_wake(size_t page, size_t count)
{
	for (unsigned int i = 0; i < SPLIT_CPUS; i++)
		wake_one(&sim_split.cpu[i], page, count, NULL);
	wake_one(&sim_split.device, page, count, pin);
}

static unsigned int part_of(size_t page)
{
	return page >= sim_split.host->file.memory.blocks[1].first_page;
}

unsigned int split_faults(unsigned int part, struct gw_fault faults[GW_FAULTS_MAX], bool take)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i <= SPLIT_CPUS; i++) {
		struct split_cpu *c = i < SPLIT_CPUS ? &sim_split.cpu[i] : &sim_split.device;

		if (c->state != SPLIT_FAULTS_NOW || part_of(c->page) != part)
			continue;
		if (take && i == SPLIT_CPUS && c->protected)
			split_road(ROAD_DEVICE_KEPT);
		if (take) {
			c->state = SPLIT_WAITS;
			faults[n] = (struct gw_fault){ .page = c->page,
						       .vcpu = i < SPLIT_CPUS ? i : GW_NO_VCPU,
						       .protected = c->protected };
		}
		n++;
	}
	return n;
}

void split_guest_init(void)
{
	static const char *const ids[] = { "ram", "more" };

	memset(sim_split.hosts, 0, sizeof(sim_split.hosts));
	sim_split.host = &sim_split.hosts[0];
	for (unsigned int i = 0; i < 2; i++) {
		const uint64_t size = (100 + rng_below(&sim_split.rng, 280)) * GW_PAGE_SIZE;

		for (unsigned int k = 0; k < 2; k++)
			if (buffers_add(&sim_split.hosts[k].file, ids[i], size))
				abort();
	}
	for (unsigned int k = 0; k < 2; k++)
		if (sim_split.hosts[k].file.memory.nr_pages > SPLIT_PAGES ||
		    gw_bitmap_init(&sim_split.hosts[k].protected,
				   sim_split.hosts[k].file.memory.nr_pages))
			abort();
	memset(sim_split.must, 0, sizeof(sim_split.must));
	memset(sim_split.cpu, 0, sizeof(sim_split.cpu));
	memset(&sim_split.device, 0, sizeof(sim_split.device));
	sim_split.pins = sim_split.quiesced = sim_split.watched = false;
	sim_split.version = sim_split.touched = sim_split.written = 0;
	sim_split.ran_until = 0;
	sim_split.debt = 0;
	sim_split.hot = 0;
	for (size_t page = 0; page < sim_split.host->file.memory.nr_pages; page++)
		if (gw_memory_block_of(&sim_split.host->file.memory, page) &&
		    !rng_one_in(&sim_split.rng, 5))
			write_page(page);
}

void split_guest_free(void)
{
	for (unsigned int k = 0; k < 2; k++) {
		buffers_free(&sim_split.hosts[k].file);
		gw_bitmap_free(&sim_split.hosts[k].protected);
	}
}
