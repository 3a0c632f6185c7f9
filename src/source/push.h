/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * push.h - in which order the pages that a running guest still lacks are sent to it.
 *
 * What it has asked for goes at once, and on a connection of its own (serve.c). Of the
 * rest, what lies behind the latest faults comes first, since who touched a page often
 * touches the next; then what is expected to be used soon (defer.h); then the others. Both in the
 * order of memory.
 *
 * Each page is given out once, to whoever claims it first. Those that are not due are the
 * destination's already, until it says that what it kept of one is wrong (decision 29): then it
 * is given out, too, once.
 *
 * Locking: one lock, inside.
 */
#ifndef GW_PUSH_H
#define GW_PUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "bitmap.h"
#include "page.h"

/* Faults whose neighbours come first. */
#define GW_PUSH_NEAR  16
/* Pages behind a fault that count as its neighbours. */
#define GW_PUSH_AHEAD 64

struct gw_push {
	pthread_mutex_t lock;
	struct gw_bitmap *due;		/* the caller's; a claimed page leaves it */
	struct gw_bitmap given;		/* all that are, or were, due */
	const struct gw_bitmap *sooner; /* the caller's: these go before others; NULL: none */
	size_t left, at, sooner_at;
	struct {
		size_t at, end;
	} near[GW_PUSH_NEAR]; /* the latest first */
	unsigned int nr_near;
};

void gw_push_init(struct gw_push *p);
void gw_push_free(struct gw_push *p);

/**
 * gw_push_begin() - give out the pages of @due, from its first on, alone. 0 or -ENOMEM.
 * @sooner: those of them that go first, in as many pages, which stay the caller's; NULL: none
 */
int gw_push_begin(struct gw_push *p, struct gw_bitmap *due, const struct gw_bitmap *sooner);

/** gw_push_claim() - take page @page, and remember that it was asked for. False: it is taken. */
bool gw_push_claim(struct gw_push *p, size_t page);

/** gw_push_is_new() - whether @page was never due; from now on it was. For one caller only. */
bool gw_push_is_new(struct gw_push *p, size_t page);

/** gw_push_add() - and is due, like the others. False: it is already. */
bool gw_push_add(struct gw_push *p, size_t page);

/**
 * gw_push_next() - take the pages that are to go next, all in one chunk.
 * @most: at most
 * @chunk: set to that chunk
 * @pages: set to them
 *
 * Return: how many; 0: all are taken.
 */
unsigned int gw_push_next(struct gw_push *p, unsigned int most, size_t *chunk,
			  struct gw_pageset *pages);

/** gw_push_left() - pages that nobody has taken. */
size_t gw_push_left(struct gw_push *p);

#endif
