// SPDX-License-Identifier: GPL-2.0-or-later
/* carried.c - a model of a split guest's pager at the source; see carried.h. */
#include "carried.h"

#include <stdlib.h>
#include <string.h>

#include "away.h"
#include "buffers.h"
#include "clock.h"
#include "error.h"
#include "sim.h"

/* So often something leaves, and so often QEMU looks at a page while the guest stands still. */
#define LEAVE_NS (300 * GW_US)
#define LOOK_NS	 (200 * GW_US)

static struct {
	bool on, frozen, let_go;
	struct rng rng;
	struct gw_units units;
	gw_shared_word *away;
	gw_shared_word *moved;
	_Atomic uint8_t *holders;
	uint8_t *history;
	struct buffers store;
	uint8_t *stored; /* of each page: by which sub-host, and one more; 0: by none */
	struct gw_carried carried;
	json_t *define;
	int64_t next_leave, next_look;
} c;

static bool is_away(size_t page)
{
	return gw_shared_bit(c.away, page);
}

void carried_init(void)
{
	const struct gw_memory *m = sim.guest.memory;

	memset(&c, 0, sizeof(c));
	c.on = sim.sc->carried;
	if (!c.on)
		return;
	c.rng.state = sim.seed ^ 0xca441ed;
	gw_units_init(&c.units, m, CARRIED_UNIT);
	c.away = gw_shared_bits_new(gw_shared_bits_len(m->nr_pages));
	c.moved = gw_shared_bits_new(gw_shared_bits_len(c.units.nr));
	c.holders = calloc(c.units.nr, 1);
	c.history = calloc(c.units.nr, 1);
	c.stored = calloc(m->nr_pages, 1);
	if (!c.away || !c.moved || !c.holders || !c.history || !c.stored)
		abort();
	for (unsigned int i = 0; i < m->nr_blocks; i++)
		if (buffers_add(&c.store, m->blocks[i].id, m->blocks[i].size))
			abort();
	c.define = json_pack("{s:b}", "carried", 1);
	c.carried.define = c.define;
	c.carried.away = c.away;
	c.carried.moved = c.moved;
	c.carried.holders = c.holders;
	c.carried.units = &c.units;
	c.carried.history = c.history;
	c.carried.nr = CARRIED_SUBS;
	for (unsigned int k = 0; k < CARRIED_SUBS; k++)
		snprintf(c.carried.subs[k].host, sizeof(c.carried.subs[k].host), "sub%u", k);
}

void carried_free(void)
{
	if (!c.on)
		return;
	gw_shared_bits_free(c.away, gw_shared_bits_len(sim.guest.memory->nr_pages));
	gw_shared_bits_free(c.moved, gw_shared_bits_len(c.units.nr));
	free((void *)c.holders);
	free(c.history);
	free(c.stored);
	buffers_free(&c.store);
	json_decref(c.define);
	c.on = false;
}

struct gw_carried *carried_of(void)
{
	return c.on ? &c.carried : NULL;
}

static void copy(const struct gw_memory *from, const struct gw_memory *to, size_t page)
{
	uint8_t bytes[GW_PAGE_SIZE];

	if (gw_memory_read(from, page, 1, bytes) || gw_memory_write(to, page, 1, bytes))
		abort();
}

void carried_touch(size_t page)
{
	if (!c.on || !is_away(page))
		return;
	/* A guest that its user continued just then waits, for a moment that is not modelled. */
	sim_check(!c.let_go || sim.src.qemu == QEMU_RUNNING,
		  "page %zu is wanted here, where nobody calls the sub-hosts", page);
	sim_check(c.stored[page] == c.holders[gw_unit_of(&c.units, page)] + 1,
		  "page %zu is not where the source believes it", page);
	copy(&c.store.memory, sim.guest.memory, page);
	gw_bitmap_set(&sim.guest.data, page);
	gw_shared_bit_clear(c.away, page);
	gw_shared_bit_set(c.moved, gw_unit_of(&c.units, page));
	gw_bitmap_set(&sim.guest.written, page);
	if (!c.frozen)
		c.stored[page] = 0;
}

/* All of a unit that is here, to who has the rest of it; of that what is zero goes nowhere. */
static void leave(size_t unit)
{
	size_t first, count = gw_unit_pages(&c.units, unit, &first);
	uint8_t bytes[GW_PAGE_SIZE];
	bool any = false;

	for (size_t page = first; page < first + count; page++)
		any = any || is_away(page);
	if (!any)
		c.holders[unit] = (uint8_t)rng_below(&c.rng, CARRIED_SUBS);
	for (size_t page = first; page < first + count; page++) {
		if (!gw_bitmap_test(&sim.guest.data, page))
			continue;
		if (gw_memory_read(sim.guest.memory, page, 1, bytes))
			abort();
		if (!gw_page_is_zero(bytes)) {
			copy(sim.guest.memory, &c.store.memory, page);
			c.stored[page] = c.holders[unit] + 1;
			gw_shared_bit_set(c.away, page);
		}
		if (gw_memory_punch(sim.guest.memory, page, 1))
			abort();
		gw_bitmap_clear(&sim.guest.data, page);
		gw_bitmap_set(&sim.guest.written, page);
	}
	gw_shared_bit_set(c.moved, unit);
}

/* Where something hangs for seconds there is not more to be seen than in some ms. */
static int64_t often(int64_t ns)
{
	return sim_now() > GW_S ? 200 * ns : ns;
}

void carried_tick(void)
{
	const int64_t now = sim_now();

	if (!c.on || sim.src.qemu == QEMU_ENDED)
		return;
	for (; !c.frozen && c.next_leave <= now; c.next_leave += often(LEAVE_NS))
		leave(rng_below(&c.rng, c.units.nr));
	if (c.frozen)
		c.next_leave = now + LEAVE_NS;
	for (; c.next_look <= now; c.next_look += often(LOOK_NS)) {
		const size_t page = rng_below(&c.rng, sim.guest.memory->nr_pages);

		if (!c.let_go && gw_memory_block_of(sim.guest.memory, page))
			carried_touch(page);
	}
}

/* What came while nothing was released is released. */
void carried_back(void)
{
	if (!c.on)
		return;
	c.frozen = c.let_go = false;
	for (size_t page = 0; page < sim.guest.memory->nr_pages; page++)
		if (!is_away(page))
			c.stored[page] = 0;
}

int carried_freeze(void *env)
{
	int rc = sim_step(env, "freeze", STEP_FAILS);

	if (!((struct process *)env)->dead)
		c.frozen = true;
	return rc;
}

int carried_leave(void *env)
{
	int rc = sim_step(env, "leave the sub-hosts", STEP_FAILS);

	if (!rc)
		c.let_go = true;
	return rc;
}

void carried_thaw(void *env)
{
	if (sim_step(env, "thaw", 0))
		return;
	sim_rare(RARE_CARRIED_BACK);
	carried_back();
}

/* The guest's page, wherever it lies; at the destination by the table that it was told. */
static void read_there(size_t page, uint8_t bytes[GW_PAGE_SIZE])
{
	const struct gw_netpt *t = sim.dst.d.split.table;
	unsigned int holder;

	if (gw_memory_read(sim.dst.memory, page, 1, bytes))
		abort();
	if (!gw_netpt_is_away(t, page))
		return;
	holder = gw_netpt_holder(t, gw_unit_of(&t->units, page));
	sim_check(gw_memory_is_hole(sim.dst.memory, page, 1) == 1,
		  "page %zu is away, and hidden by another", page);
	sim_check(c.stored[page] == holder + 1, "page %zu is not at sub-host %u", page, holder);
	if (gw_memory_read(&c.store.memory, page, 1, bytes))
		abort();
}

void carried_compare(void)
{
	const struct gw_memory *m = sim.guest.memory;
	uint8_t here[GW_PAGE_SIZE], there[GW_PAGE_SIZE];

	if (!c.frozen)
		return;
	for (size_t page = 0; page < m->nr_pages; page++) {
		if (!gw_memory_block_of(m, page))
			continue;
		if (gw_memory_read(is_away(page) ? &c.store.memory : m, page, 1, here))
			abort();
		read_there(page, there);
		sim_check(!memcmp(here, there, sizeof(here)), "page %zu differs between the hosts",
			  page);
	}
}

void carried_load(void)
{
	struct gw_netpt *t = sim.dst.d.split.table;

	if (!c.frozen) /* the source has it back, and this one will hear */
		return;
	sim_check(c.let_go, "two hosts call the sub-hosts");
	for (unsigned int i = 0; i < 20; i++) {
		const size_t page = rng_below(&c.rng, t->nr_pages);

		if (!gw_netpt_is_away(t, page))
			continue;
		copy(&c.store.memory, sim.dst.memory, page);
		gw_netpt_placed(t, gw_unit_of(&t->units, page), page, 1);
	}
}

void carried_check(void)
{
	if (!c.on || sim.src.qemu == QEMU_ENDED)
		return;
	sim_check(!c.frozen && !c.let_go, "the guest is here, and its sub-hosts are not");
	for (size_t page = 0; page < sim.guest.memory->nr_pages; page++)
		sim_check(!is_away(page) || c.stored[page], "page %zu is nowhere", page);
}
