// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kept.c - a guest that was at the destination before, and somewhere else since.
 *
 * It left the destination at departure 1, which kept its memory; parts of that
 * have since been damaged or given up. It arrived at the source at departure 1,
 * or after another stay at departure 2, and has worked there since.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "sim.h"

#define STAY_WRITES  150
#define SINCE_WRITES 60
#define DAMAGED	     12

const uint8_t sim_secret[GW_SECRET_LEN] = "what the guest must never know";

const struct gw_key *kept_key(void)
{
	static struct gw_key key;

	if (!key.id[0] && gw_key_init(&key, sim_secret))
		abort();
	return &key;
}

/* Of the guest's memory as it is. */
static void digest_memory(struct gw_digests *d)
{
	uint8_t bytes[GW_PAGE_SIZE];
	struct gw_memory_walk walk = gw_memory_walk(sim.guest.memory);
	size_t first, stop;

	if (gw_digests_init(d, sim.guest.memory->nr_pages))
		abort();
	while (gw_memory_walk_next(&walk, &first, &stop) > 0)
		for (size_t i = first; i < stop; i++) {
			if (gw_memory_read(sim.guest.memory, i, 1, bytes))
				abort();
			gw_digests_set(d, i, gw_key_page(kept_key(), bytes));
		}
}

static void depart(struct gw_ledger *l, const struct gw_ledger *before, uint8_t id)
{
	uint8_t ids[GW_ID_LEN] = { id };
	struct gw_digests now;

	digest_memory(&now);
	if (gw_ledger_create(l, NULL, now.nr_pages) || gw_ledger_depart(l, before, &now, ids) ||
	    (gw_ledger_set_key(l, kept_key()->id), gw_ledger_seal(l)))
		abort();
	gw_digests_free(&now);
}

void kept_copy(struct buffers *to, const struct gw_memory *from)
{
	static uint8_t bytes[GW_CHUNK_SIZE];
	struct gw_memory_walk walk = gw_memory_walk(from);
	size_t page, stop;

	for (unsigned int i = 0; i < from->nr_blocks; i++)
		if (buffers_add(to, from->blocks[i].id, from->blocks[i].size))
			abort();
	while (gw_memory_walk_next(&walk, &page, &stop) > 0) {
		for (size_t n; page < stop; page += n) {
			n = GW_CHUNK_PAGES - page % GW_CHUNK_PAGES;
			n = stop - page < n ? stop - page : n;
			if (gw_memory_read(from, page, n, bytes) ||
			    gw_memory_write(&to->memory, page, n, bytes))
				abort();
		}
	}
}

/* Bytes that flipped, pages that were evicted, and some where there was nothing. */
static void damage(const struct gw_memory *image)
{
	uint8_t bytes[GW_PAGE_SIZE];

	for (unsigned int i = 0; i < DAMAGED; i++) {
		size_t page = rng_below(&sim.guest.rng, 3 * GW_CHUNK_PAGES);

		if (gw_memory_read(image, page, 1, bytes))
			abort();
		bytes[rng_below(&sim.guest.rng, GW_PAGE_SIZE)] ^= 1;
		if (rng_one_in(&sim.guest.rng, 3) ? gw_memory_punch(image, page, 1)
						  : gw_memory_write(image, page, 1, bytes))
			abort();
	}
}

const char *kept_path(void)
{
	static char path[64];

	snprintf(path, sizeof(path), "/dev/shm/godwit-sim.%d", (int)getpid());
	return path;
}

void kept_init(void)
{
	struct gw_ledger *first = &sim.dst.kept;

	if (!sim.sc->reuse)
		return;
	guest_stop(&sim.guest); /* to leave; its disks are quiet until it runs here */
	guest_work(&sim.guest, STAY_WRITES);
	depart(first, NULL, sim.sc->reuse == REUSE_STRANGER ? 9 : 1);
	kept_copy(&sim.dst.image, sim.guest.memory);
	damage(&sim.dst.image.memory);
	if (sim.sc->reuse == REUSE_ROUND || sim.sc->reuse == REUSE_UNTRACKED) {
		guest_work(&sim.guest, STAY_WRITES);
		depart(&sim.src.arrived, first, 2);
	} else {
		depart(&sim.src.arrived, NULL, 1);
	}
	sim.src.s.ledger = &sim.src.arrived;
	guest_arrive(&sim.guest);
	guest_work(&sim.guest, SINCE_WRITES);
}

void kept_free(void)
{
	gw_ledger_close(&sim.dst.kept);
	if (sim.sc->reuse)
		unlink(kept_path());
	gw_ledger_close(&sim.src.arrived);
	gw_ledger_close(&sim.src.left);
	buffers_free(&sim.dst.image);
}

/* Both ledgers of a move that nothing befell: of the memory at the stop, and equal. */
void kept_check(void)
{
	const struct gw_ledger *left = &sim.src.left, *before = &sim.src.arrived;
	struct gw_ledger there;
	struct gw_digests now;
	uint32_t number;

	if (!sim.src.s.params.reuse)
		return; /* an older destination was found to know no keyed digests */
	sim_check(left->head, "a move left no ledger");
	sim_check(!gw_ledger_open(&there, kept_path()), "the destination's ledger: %s", gw_error());
	number = gw_ledger_departures(left);
	sim_check(number == gw_ledger_departures(before) + 1 &&
			  number == gw_ledger_departures(&there) &&
			  gw_ledger_find(&there, sim.src.s.id) == number &&
			  gw_ledger_find(&there, gw_ledger_id(before, number - 1)) == number - 1,
		  "departure %u is not the next", number);
	digest_memory(&now);
	for (size_t page = 0; page < now.nr_pages; page++) {
		const bool changed = !gw_digest_equal(now.table[page], before->digests[page]);

		sim_check(gw_digest_equal(left->digests[page], now.table[page]) &&
				  gw_digest_equal(there.digests[page], now.table[page]),
			  "page %zu has a digest that is not its own", page);
		sim_check(left->generations[page] ==
					  (changed ? number : before->generations[page]) &&
				  there.generations[page] == left->generations[page],
			  "page %zu has generation %u, and %u there", page, left->generations[page],
			  there.generations[page]);
	}
	gw_digests_free(&now);
	gw_ledger_close(&there);
}
