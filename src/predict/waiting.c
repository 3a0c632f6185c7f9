// SPDX-License-Identifier: GPL-2.0-or-later
/* waiting.c - pages that wait for the last round; see waiting.h. */
#include <string.h>

#include "waiting.h"

int gw_waiting_init(struct gw_waiting *w, size_t pages, bool learns)
{
	struct gw_bitmap *const maps[] = { &w->hot, &w->waits, &w->predicted, &w->seen,
					   &w->before };
	int rc = 0;

	memset(w, 0, sizeof(*w));
	w->learns = learns;
	for (size_t i = 0; !rc && i < sizeof(maps) / sizeof(maps[0]); i++)
		rc = gw_bitmap_init(maps[i], pages);
	return rc;
}

void gw_waiting_free(struct gw_waiting *w)
{
	gw_bitmap_free(&w->hot);
	gw_bitmap_free(&w->waits);
	gw_bitmap_free(&w->predicted);
	gw_bitmap_free(&w->seen);
	gw_bitmap_free(&w->before);
}

/* To write zeros where there are zeros would cost memory. */
static void put(uint64_t *word, uint64_t value)
{
	if (*word != value)
		*word = value;
}

static size_t words(const struct gw_waiting *w)
{
	return (w->waits.bits + 63) / 64;
}

void gw_waiting_first(struct gw_waiting *w, struct gw_bitmap *due)
{
	for (size_t i = 0; i < words(w); i++) {
		const uint64_t waits = w->hot.words[i] & due->words[i];

		put(&w->waits.words[i], waits);
		put(&w->predicted.words[i], waits);
		put(&due->words[i], due->words[i] & ~waits);
		w->nr_waits += (size_t)__builtin_popcountll(waits);
	}
	w->nr_predicted = w->nr_waits;
}

size_t gw_waiting_room(const struct gw_waiting *w, size_t fits, int64_t before, int64_t now)
{
	return w->learns && now <= before - before / 5 ? 0 : fits / 2;
}

/* The lowest @n bits of @word that are set. */
static uint64_t lowest(uint64_t word, size_t n)
{
	uint64_t rest = word;

	if (n >= (size_t)__builtin_popcountll(word))
		return word;
	while (n--)
		rest &= rest - 1;
	return word & ~rest;
}

/* Of the pages that were predicted, these of the @i-th 64 were written. */
static void see(struct gw_waiting *w, size_t i, uint64_t written)
{
	const uint64_t more = written & w->predicted.words[i] & ~w->seen.words[i];

	put(&w->seen.words[i], w->seen.words[i] | more);
	w->nr_seen += (size_t)__builtin_popcountll(more);
}

static void predict(struct gw_waiting *w, size_t i, uint64_t waits)
{
	const uint64_t more = waits & ~w->predicted.words[i];

	put(&w->predicted.words[i], w->predicted.words[i] | more);
	w->nr_predicted += (size_t)__builtin_popcountll(more);
}

void gw_waiting_scan(struct gw_waiting *w, struct gw_bitmap *due, const struct gw_bitmap *held,
		     size_t room)
{
	w->nr_waits = 0;
	for (size_t i = 0; i < words(w); i++) {
		const uint64_t written = due->words[i], waited = w->waits.words[i];
		const uint64_t learned = w->before.words[i] & (held ? held->words[i] : UINT64_MAX);
		const uint64_t hot = w->learns ? learned : w->hot.words[i];
		const uint64_t waits = lowest(written & hot, room);

		if (!(written | waited | w->before.words[i]))
			continue;
		room -= (size_t)__builtin_popcountll(waits);
		w->nr_waits += (size_t)__builtin_popcountll(waits);
		put(&w->hot.words[i], w->hot.words[i] & ~(waited & ~written));
		see(w, i, written);
		predict(w, i, waits);
		put(&w->waits.words[i], waits);
		if (w->learns)
			put(&w->before.words[i], written);
		put(&due->words[i], (written | waited) & ~waits);
	}
}

void gw_waiting_end(struct gw_waiting *w, struct gw_bitmap *due)
{
	for (size_t i = 0; i < words(w); i++) {
		if (!(due->words[i] | w->waits.words[i]))
			continue;
		see(w, i, due->words[i]);
		due->words[i] |= w->waits.words[i];
		put(&w->waits.words[i], 0);
	}
	w->nr_waits = 0;
}

size_t gw_waiting_count(const struct gw_waiting *w, const struct gw_bitmap *written)
{
	size_t n = 0;

	for (size_t i = 0; i < words(w); i++)
		n += (size_t)__builtin_popcountll(w->waits.words[i] & ~written->words[i]);
	return n;
}
