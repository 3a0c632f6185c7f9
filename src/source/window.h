/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * window.h - how much may be under way on a connection that pushes pages.
 *
 * What is pushed leaves by the same link as the pages that a guest waits for, and whatever
 * is under way when it asks stands before the answer. Too little, and the link idles while
 * word of what was placed travels back. So the window is the product of two things that are
 * measured with every frame: the rate at which frames are placed, and the shortest time from
 * sent to placed (nothing stood before that one), with a little for the queue. No round need
 * have told the bandwidth before.
 *
 * It is of the family of TCP Vegas and BBR; what it takes from the latter is that a rate is
 * counted over the time that one frame was under way. A thread that was not scheduled
 * makes one long delay and a low rate, both of which the next frames outvote.
 *
 * Locking: none; a window belongs to the thread of its connection.
 */
#ifndef GW_WINDOW_H
#define GW_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* Frames under way, at most; also a bound for what is told of them in return. */
#define GW_WINDOW_FRAMES 64

struct gw_window {
	uint64_t sent, placed; /* bytes */
	double rate;	       /* bytes/s; 0: not known */
	int64_t least_ns;      /* from sent to placed; 0: not known */
	struct {
		uint64_t end, placed; /* bytes sent with it; placed when it went */
		int64_t at_ns;
	} frames[GW_WINDOW_FRAMES];
	unsigned int first, nr;
};

/** gw_window_init() - nothing is under way. @rate: bytes/s if there is an idea of it, or 0. */
void gw_window_init(struct gw_window *w, double rate);

/** gw_window_bytes() - what may be under way now. */
uint64_t gw_window_bytes(const struct gw_window *w);

/** gw_window_open() - whether another frame may go. */
bool gw_window_open(const struct gw_window *w);

/** gw_window_pages() - how many pages the next frame is to have at most. */
unsigned int gw_window_pages(const struct gw_window *w);

/** gw_window_sent() - a frame went; @bytes have been sent in all. */
void gw_window_sent(struct gw_window *w, uint64_t bytes, int64_t now_ns);

/**
 * gw_window_placed() - @bytes have been placed in all.
 * Return: 0, or -EPROTO with a message if that is less than before or more than was sent.
 */
int gw_window_placed(struct gw_window *w, uint64_t bytes, int64_t now_ns);

#endif
