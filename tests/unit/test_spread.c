// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_spread.c - a migration to several hosts: each page lies at its holder and nowhere else, and
 * the main host knows where; sub-hosts that fail, or lie, and sources that do.
 */
#include "spread.h"

#include "codec.h"
#include "runs.h"

#define HOT  1U /* unit: as op_history() says */
#define WARM 4U

static unsigned int owner(const struct world *w, size_t page)
{
	return gw_spread_owner(&w->spread, page / GW_CHUNK_PAGES);
}

static unsigned int second(const struct world *w, size_t page)
{
	return w->spread.seconds ? w->spread.seconds[page / GW_CHUNK_PAGES] : GW_NO_HOLDER;
}

static void open_all(struct world *w)
{
	assert_int_equal(gw_spread_open(&w->s), 0);
	assert_int_equal(gw_spread_start(&w->s), 0);
}

/* Send what is due to the sub-hosts. 0 or the first failure. */
static int send_due(struct world *w)
{
	struct gw_source *s = &w->s;
	int rc = 0;

	gw_encoder_round(&s->holder.encoder, &s->due);
	gw_spread_round(s);
	for (unsigned int k = 0; !rc && k < SUBS; k++) {
		for (size_t chunk = 0; !rc && chunk < PAGES / GW_CHUNK_PAGES; chunk++)
			if (gw_spread_owner(s->spread, chunk) == k)
				rc = gw_spread_send(s, k, chunk);
		if (!rc)
			rc = gw_spread_barrier(s, k);
	}
	gw_bitmap_zero(&s->due);
	return rc;
}

/* The main host hears all that it was told. */
static void hear_all(struct world *w)
{
	assert_int_equal(gw_frame_send(w->s.holder.control, GW_MSG_BARRIER, 0, NULL, 0), 0);
	for (;;) {
		assert_int_equal(gw_frame_recv(w->d.control, &w->d.inbox, gw_now() + 60 * GW_S), 0);
		if (w->d.inbox.type == GW_MSG_BARRIER)
			return;
		if (w->d.inbox.type == GW_MSG_HISTORY)
			assert_int_equal(gw_away_history(&w->d), 0);
		else
			assert_int_equal(gw_away_heed(&w->d), 0);
	}
}

static bool is_zero(struct world *w, size_t page, uint8_t *bytes)
{
	assert_int_equal(gw_memory_read(&w->ram.memory, page, 1, bytes), 0);
	return gw_page_is_zero(bytes);
}

/* What the guest has lies at its holder, and only there; and the main host knows. */
static void check_all(struct world *w)
{
	uint8_t has[GW_PAGE_SIZE], is[GW_PAGE_SIZE];
	size_t away = 0, pages[SUBS] = { 0 };

	assert_int_equal(gw_spread_tell(&w->s), 0);
	hear_all(w);
	for (size_t page = 0; page < PAGES; page++) {
		const unsigned int k = is_memory(page) ? owner(w, page) : GW_SPREAD_MAIN;
		const bool lies = k < SUBS && !is_zero(w, page, is);

		assert_int_equal(gw_netpt_is_away(&w->table, page), lies);
		away += lies;
		for (unsigned int i = 0; i < SUBS; i++) {
			const bool one = lies && (i == k || i == second(w, page));
			const int slot = gw_netpt_slot(&w->table, gw_unit_of(&w->table.units, page),
						       i);

			if (w->servers[i].open)
				assert_int_equal(gw_memstore_has(&w->servers[i].store, page), one);
			if (!one)
				continue;
			pages[i]++;
			assert_true(slot >= 0 && gw_netpt_copies(&w->table, page) & 1U << slot);
			assert_int_equal(gw_memstore_get(&w->servers[i].store, page, 1, has), 0);
			assert_memory_equal(has, is, GW_PAGE_SIZE);
		}
	}
	assert_int_equal(w->spread.told.pages, away);
	assert_int_equal(w->table.single, 0);
	for (unsigned int i = 0; i < SUBS; i++) {
		assert_int_equal(w->spread.subs[i].pages, pages[i]);
		assert_int_equal(w->d.split.pages[i], pages[i]);
	}
}

static void fill(struct world *w)
{
	for (size_t page = 0; page < PAGES; page++)
		if (is_memory(page) && page % 5)
			write_page(w, page, page + 1);
		else if (is_memory(page))
			gw_bitmap_set(&w->s.due, page);
}

/* Each page at two sub-hosts. */
static void store_twice(struct world *w)
{
	static const uint8_t id[GW_ID_LEN] = { 7 };

	w->spread.copies = 2;
	for (unsigned int i = 0; i < SUBS; i++)
		w->spread.subs[i].size = w->d.split.size[i] = 4UL * UNIT * GW_PAGE_SIZE;
	gw_netpt_close(&w->table);
	assert_int_equal(gw_netpt_create_for(&w->table, w->path, &w->main_ram.memory, id, UNIT, 2),
			 0);
}

/* What it uses most stays; the others go to who has room. */
static void planned(void **state)
{
	struct world *w = *state;
	size_t units[SUBS + 1] = { 0 };

	for (size_t unit = 0; unit < UNITS; unit++)
		write_page(w, unit * UNIT, 1);
	open_all(w);
	for (size_t unit = 0; unit < UNITS; unit++) {
		const unsigned int k = owner(w, unit * UNIT);

		assert_true(k == GW_SPREAD_MAIN || k < SUBS);
		units[k == GW_SPREAD_MAIN ? SUBS : k]++;
	}
	assert_int_equal(owner(w, HOT * UNIT), GW_SPREAD_MAIN);
	assert_int_equal(owner(w, WARM * UNIT), GW_SPREAD_MAIN);
	assert_int_equal(units[SUBS], 2);
	assert_true(units[0] && units[0] <= 2 && units[1] <= 4);
	hear_all(w);
	assert_true(w->history[HOT] > w->history[WARM] && w->history[WARM]);
	assert_int_equal(w->history[0], 0);
}

/* What has no memory does not stay in the place of what has, though nobody uses that. */
static void planned_empty(void **state)
{
	struct world *w = *state;

	write_page(w, 3 * UNIT, 1);
	write_page(w, (UNITS - 1) * UNIT, 1);
	open_all(w);
	assert_int_equal(owner(w, 3 * UNIT), GW_SPREAD_MAIN);
	assert_int_equal(owner(w, (UNITS - 1) * UNIT), GW_SPREAD_MAIN);
	assert_true(owner(w, HOT * UNIT) < SUBS);
}

static void no_room(void **state)
{
	struct world *w = *state;

	w->spread.subs[0].size = w->spread.subs[1].size = UNIT * GW_PAGE_SIZE;
	assert_int_equal(gw_spread_open(&w->s), -ENOSPC);
	assert_message("too few");
	gw_spread_dismiss(&w->s);
	/* With more of it at the main host than it wants to begin with, it fits. */
	w->spread.subs[1].size = 3 * UNIT * GW_PAGE_SIZE;
	w->spread.stay = UNIT;
	free(w->spread.owners);
	assert_int_equal(gw_spread_open(&w->s), 0);
	assert_int_equal(w->spread.subs[0].units + w->spread.subs[1].units, 4);
}

/* Sent, sent again, emptied, as it was; told; left; dismissed. */
static void to_their_holders(void **state)
{
	struct world *w = *state;

	fill(w);
	open_all(w);
	assert_int_equal(send_due(w), 0);
	check_all(w);
	assert_true(w->spread.told.pages > PAGES / 3);
	/* Re-sent, to the same; what is zero is released; what is not changed does not travel. */
	for (size_t page = 0; page < PAGES; page += 3)
		if (is_memory(page))
			write_page(w, page, page % 2 ? 0 : page + 7);
	assert_int_equal(send_due(w), 0);
	check_all(w);
	{
		const uint64_t arrived = w->spread.subs[0].arrived + w->spread.subs[1].arrived;
		const uint64_t bytes = gw_spread_bytes(&w->spread);

		for (size_t page = 1; page < PAGES; page += 6)
			if (is_memory(page) && page % 5)
				write_page(w, page, page + 1); /* as it was */
		assert_int_equal(send_due(w), 0);
		assert_int_equal(w->spread.subs[0].arrived + w->spread.subs[1].arrived, arrived);
		assert_int_equal(gw_spread_bytes(&w->spread), bytes);
	}
	check_all(w);
	/* What was written since the scan comes next time, whether it is zero by then or not. */
	write_page(w, 0, 0);
	write_page(w, 2, 99);
	gw_bitmap_set(&w->rewritten, 0);
	gw_bitmap_set(&w->rewritten, 2);
	assert_int_equal(send_due(w), 0);
	gw_bitmap_zero(&w->rewritten);
	gw_bitmap_set(&w->s.due, 0);
	gw_bitmap_set(&w->s.due, 2);
	assert_int_equal(send_due(w), 0);
	check_all(w);
	assert_int_equal(gw_spread_leave(&w->s), 0);
	hear_all(w);
	assert_true(w->d.split.sealed);
	for (unsigned int k = 0; k < SUBS; k++)
		assert_null(w->spread.subs[k].conns[0]);
	/* And if the guest does not get there after all, nobody keeps anything. */
	gw_spread_dismiss(&w->s);
	for (unsigned int k = 0; k < SUBS; k++)
		assert_int_equal(w->servers[k].store.pages, 0);
}

static void to_two(void **state)
{
	struct world *w = *state;

	store_twice(w);
	to_their_holders(state);
	for (size_t page = 0; page < PAGES; page++)
		assert_true(owner(w, page) == GW_SPREAD_MAIN
				    ? second(w, page) == GW_NO_HOLDER
				    : second(w, page) == 1 - owner(w, page));
}

struct sender {
	struct world *w;
	unsigned int k;
	int rc;
};

static void *send_own(void *arg)
{
	struct sender *own = arg;
	struct gw_source *s = &own->w->s;

	for (size_t chunk = 0; !own->rc && chunk < PAGES / GW_CHUNK_PAGES; chunk++)
		if (gw_spread_owner(s->spread, chunk) == own->k)
			own->rc = gw_spread_send(s, own->k, chunk);
	if (!own->rc)
		own->rc = gw_spread_barrier(s, own->k);
	return NULL;
}

/* Each by its own thread, as in a round: what one sends to the other's is stored as well. */
static void to_two_at_once(void **state)
{
	struct world *w = *state;
	pthread_t threads[SUBS];
	struct sender own[SUBS];

	store_twice(w);
	fill(w);
	open_all(w);
	for (uint64_t round = 0; round < 20; round++) {
		for (size_t page = 0; page < PAGES; page++)
			if (is_memory(page) && (page + round) % 3)
				write_page(w, page, (page + round) % 7 ? page * 64 + round : 0);
		gw_encoder_round(&w->s.holder.encoder, &w->s.due);
		gw_spread_round(&w->s);
		for (unsigned int k = 0; k < SUBS; k++) {
			own[k] = (struct sender){ w, k, 0 };
			assert_int_equal(pthread_create(&threads[k], NULL, send_own, &own[k]), 0);
		}
		for (unsigned int k = 0; k < SUBS; k++) {
			pthread_join(threads[k], NULL);
			assert_int_equal(own[k].rc, 0);
		}
		for (unsigned int k = 0; k < SUBS; k++)
			assert_int_equal(w->spread.subs[k].stored, w->spread.subs[k].sent);
		gw_bitmap_zero(&w->s.due);
		check_all(w);
	}
}

/* What each may take counts as far as another has room for the same. */
static void room_for_two(void **state)
{
	struct world *w = *state;

	store_twice(w);
	w->spread.subs[0].size = 3UL * UNIT * GW_PAGE_SIZE;
	w->spread.subs[1].size = 100UL * UNIT * GW_PAGE_SIZE;
	assert_int_equal(gw_spread_open(&w->s), -ENOSPC);
	assert_message("too few");
	gw_spread_dismiss(&w->s);
	w->spread.main_memory += UNIT * GW_PAGE_SIZE;
	free(w->spread.owners);
	free(w->spread.seconds);
	assert_int_equal(gw_spread_open(&w->s), 0);
	assert_int_equal(w->spread.subs[0].units, 3);
	assert_int_equal(w->spread.subs[1].units, 3);
	gw_spread_dismiss(&w->s);
	w->s.holder.features &= ~(1U << GW_FEATURE_CARRIED);
	assert_int_equal(gw_spread_open(&w->s), -ENOTSUP);
	assert_message("--replicas");
}

static void cut(void **state)
{
	struct world *w = *state;

	fill(w);
	open_all(w);
	w->servers[1].conns[1]->ops->shutdown(w->servers[1].conns[1]);
	assert_int_equal(send_due(w), -EREMOTEIO);
	assert_message("sub-host sub1:1");
	gw_spread_dismiss(&w->s);
	for (unsigned int k = 0; k < SUBS; k++)
		assert_int_equal(w->servers[k].store.pages, 0);
}

static void cut_of_two(void **state)
{
	store_twice(*state);
	cut(state);
}

static void refused(void **state)
{
	struct world *w = *state;

	w->servers[1].refuses = "no room for it";
	assert_int_equal(gw_spread_open(&w->s), -EREMOTEIO);
	assert_message("sub-host sub1:1");
	assert_message("no room for it");
	w->servers[1].refuses = NULL;
	gw_spread_dismiss(&w->s);
	w->s.holder.features &= ~(1U << GW_FEATURE_SPLIT);
	assert_int_equal(gw_spread_open(&w->s), -ENOTSUP);
}

/* Servers that say what cannot be. */
static void hostile_server(void **state)
{
	static const struct {
		unsigned int type;
		uint64_t arg;
		const char *text, *message;
	} says[] = {
		{ GW_MSG_STORED, 1000, "", "more than it was sent" },
		{ GW_MSG_PAGES, 0, "", "not due" },
		{ GW_MSG_ERROR, 0, "the disk burns", "the disk burns" },
	};
	struct world *w = *state;

	w->servers[0].silent = true;
	for (size_t i = 0; i < GW_ARRAY_SIZE(says); i++) {
		fill(w);
		free(w->spread.owners);
		w->spread.subs[0].units = w->spread.subs[1].units = 0;
		assert_int_equal(gw_spread_open(&w->s), 0);
		if (!i)
			assert_int_equal(gw_spread_start(&w->s), 0);
		assert_int_equal(gw_frame_send_buf(w->servers[0].conns[1], says[i].type,
						   says[i].arg, says[i].text, strlen(says[i].text)),
				 0);
		assert_true(send_due(w) < 0);
		assert_message("sub-host sub0:1");
		assert_message(says[i].message);
		gw_spread_dismiss(&w->s);
		/* Nothing of it is held any more. */
		for (size_t page = 0; page < PAGES; page++)
			gw_digests_set(&w->s.holder.encoder.held, page, (struct gw_digest){ 0, 0 });
	}
}

static int say_away(struct world *w, unsigned int type, uint64_t arg, size_t first, size_t count)
{
	uint8_t run[GW_RUN_LEN];

	gw_run_put(run, first, count);
	assert_int_equal(gw_frame_send_buf(w->s.holder.control, type, arg, run,
					   type == GW_MSG_AWAY ? sizeof(run) : 0),
			 0);
	assert_int_equal(gw_frame_recv(w->d.control, &w->d.inbox, gw_now() + 60 * GW_S), 0);
	return gw_away_heed(&w->d);
}

/* Sources that tell the main host what cannot be. */
static void hostile_source(void **state)
{
	struct world *w = *state;
	uint8_t bytes[UNITS + 1] = { 0 };

	assert_int_equal(say_away(w, GW_MSG_AWAY, SUBS, 0, 1), -EPROTO);
	assert_int_equal(say_away(w, GW_MSG_AWAY, UINT64_MAX, 0, 1), -EPROTO);
	/* Padding, and beyond all. */
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, FIRST_PAGES + SECOND_PAGES, 1), -EPROTO);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, PAGES, 1), -EPROTO);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 0, 0), -EPROTO);
	/* From where it is not. */
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 5, 1), -EPROTO);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 0, 4), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 3, 2), -EPROTO);
	assert_message("twice");
	assert_int_equal(say_away(w, GW_MSG_AWAY, 1, 8, 1), -EPROTO);
	assert_message("another sub-host");
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 3, 0, 0), -EPROTO);
	assert_false(w->d.split.sealed);
	/* More than it may hold. */
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, UNIT, 2 * UNIT), -EPROTO);
	assert_message("may hold");
	assert_int_equal(
		gw_frame_send_buf(w->s.holder.control, GW_MSG_HISTORY, 0, bytes, sizeof(bytes)), 0);
	assert_int_equal(gw_frame_recv(w->d.control, &w->d.inbox, gw_now() + 60 * GW_S), 0);
	assert_int_equal(gw_away_history(&w->d), -EPROTO);
	assert_int_equal(
		gw_frame_send_buf(w->s.holder.control, GW_MSG_HISTORY, UINT64_MAX, bytes, 1), 0);
	assert_int_equal(gw_frame_recv(w->d.control, &w->d.inbox, gw_now() + 60 * GW_S), 0);
	assert_int_equal(gw_away_history(&w->d), -EPROTO);
}

/* Where something is told to be away is a hole, all of the unit, whatever came here before. */
static void holes_here(void **state)
{
	struct world *w = *state;
	uint8_t bytes[GW_PAGE_SIZE];

	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(gw_memory_write(&w->main_ram.memory, 2, 1, bytes), 0);
	assert_int_equal(gw_memory_write(&w->main_ram.memory, UNIT - 1, 1, bytes), 0);
	assert_int_equal(gw_memory_write(&w->main_ram.memory, UNIT, 1, bytes), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 1, 2, 1), 0);
	assert_int_equal(gw_memory_is_hole(&w->main_ram.memory, 0, UNIT), 1);
	assert_int_equal(gw_memory_is_hole(&w->main_ram.memory, UNIT, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 1, 0, 0), 0);
	assert_true(w->d.split.sealed);
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 2, 1), 0);
	assert_false(w->d.split.sealed);
	assert_int_equal(w->table.away, 0);
}

/* Of a VM that was split before, a part of a unit may be here, and units change their holder. */
static void carried(void **state)
{
	struct world *w = *state;
	uint8_t bytes[GW_PAGE_SIZE];

	w->d.split.carried = true;
	memset(bytes, 1, sizeof(bytes));
	assert_int_equal(gw_memory_write(&w->main_ram.memory, 2, 1, bytes), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 1, 3, 1), 0);
	assert_int_equal(gw_memory_is_hole(&w->main_ram.memory, 2, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 4, 1), -EPROTO);
	assert_message("at another sub-host");
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 3, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 4, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 1, 0, 0), 0);
	assert_true(w->d.split.sealed);
	/* More than it may hold, but for a moment. */
	w->d.split.size[0] = GW_PAGE_SIZE;
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 5, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 2, 0, 0), -EPROTO);
	assert_message("may hold");
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 4, 1), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 1, 0, 0), 0);
}

/* What is said of who has what of it; and of one of three, of a unit that has two. */
static void hostile_source_of_two(void **state)
{
	struct world *w = *state;

	store_twice(w);
	w->d.split.nr = 3;
	w->d.split.size[2] = w->d.split.size[1];
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 0, 4), 0);
	assert_int_equal(w->table.single, 4);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 0, 3, 2), -EPROTO);
	assert_message("twice");
	assert_int_equal(say_away(w, GW_MSG_AWAY, 1, 2, 6), 0);
	assert_int_equal(w->table.single, 6);
	assert_int_equal(w->table.away, 8);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 1, 2, 1), -EPROTO);
	assert_message("twice");
	assert_int_equal(say_away(w, GW_MSG_AWAY, 2, 9, 1), -EPROTO);
	assert_message("at another sub-host");
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 7, 3), -EPROTO);
	/* Where one has nothing any more, a third may. */
	assert_int_equal(say_away(w, GW_MSG_AWAY, GW_HOLDERS_MAX, 0, 4), 0);
	assert_int_equal(say_away(w, GW_MSG_AWAY, 2, 0, 6), 0);
	assert_int_equal(w->table.single, 5);
	assert_int_equal(w->d.split.pages[0], 0);
	assert_int_equal(w->d.split.pages[1], 3);
	assert_int_equal(w->d.split.pages[2], 6);
	assert_int_equal(say_away(w, GW_MSG_AWAY_END, 7, 0, 0), 0);
	assert_true(w->d.split.sealed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(planned),	    world_test(planned_empty),
		world_test(no_room),	    world_test(to_their_holders),
		world_test(to_two),	    world_test(to_two_at_once),
		world_test(room_for_two),   world_test(cut),
		world_test(cut_of_two),	    world_test(refused),
		world_test(hostile_server), world_test(hostile_source),
		world_test(holes_here),	    world_test(hostile_source_of_two),
		world_test(carried),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
