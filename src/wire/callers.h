/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * callers.h - connections that only work together, and come one by one.
 *
 * A peer that needs several opens them in order, each once the one before it was answered, and all
 * anew when any is lost. It may give up half-way, and whoever hears it may die half-way and be
 * replaced: what is left of one attempt must never be taken for a part of the next, or that is lost
 * for it, and so is the one after it.
 *
 * Rules: 0 begins a set, and ends whatever was left of another; any other that is not the next one
 * of the set is closed.
 */
#ifndef GW_CALLERS_H
#define GW_CALLERS_H

#include <stdbool.h>

#include "messages.h"
#include "transport.h"

/** struct gw_callers - connections that nobody has taken; zero is none. @conns: @nr of them */
struct gw_callers {
	struct gw_transport *conns[GW_PAGING_MAX];
	unsigned int nr;
};

/**
 * gw_callers_add() - @t has come as number @index, and is owned from here on.
 * Return: whether it is one of the set, and to be answered; otherwise it is closed.
 */
bool gw_callers_add(struct gw_callers *c, struct gw_transport *t, unsigned int index);

/** gw_callers_take() - the first @n into @t, the caller's from here on, if all have come. */
bool gw_callers_take(struct gw_callers *c, struct gw_transport **t, unsigned int n);

/** gw_callers_drop() - close what nobody has taken. */
void gw_callers_drop(struct gw_callers *c);

#endif
