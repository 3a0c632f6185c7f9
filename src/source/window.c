// SPDX-License-Identifier: GPL-2.0-or-later
/* window.c - how much may be under way on a connection; see window.h. */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "page.h"
#include "window.h"

/* What a page that is asked for may find before it: so long, or a part of the round trip. */
#define QUEUE_NS    (500 * GW_US)
#define QUEUE_PART  4
/* Of a window, so that one is placed, one travels and one is made. */
#define FRAMES	    4
#define PAGES_LEAST 8
#define PAGES_MOST  128
/* A rate that falls is believed slowly: most low ones are of a thread that had to wait. */
#define FALL	    16

void gw_window_init(struct gw_window *w, double rate)
{
	memset(w, 0, sizeof(*w));
	w->rate = rate;
}

uint64_t gw_window_bytes(const struct gw_window *w)
{
	const int64_t part = w->least_ns / QUEUE_PART;
	const int64_t queue = part > QUEUE_NS ? part : QUEUE_NS;
	const uint64_t bytes = (uint64_t)(w->rate * (double)(w->least_ns + queue) / GW_S);
	const uint64_t least = (uint64_t)PAGES_LEAST * GW_PAGE_SIZE;

	return bytes > least ? bytes : least;
}

bool gw_window_open(const struct gw_window *w)
{
	/* Not quite: the last frame may stand out, or one frame would never become two. */
	return w->nr < GW_WINDOW_FRAMES && w->sent - w->placed < gw_window_bytes(w);
}

unsigned int gw_window_pages(const struct gw_window *w)
{
	const uint64_t pages = gw_window_bytes(w) / FRAMES / GW_PAGE_SIZE;

	return pages < PAGES_LEAST  ? PAGES_LEAST
	       : pages > PAGES_MOST ? PAGES_MOST
				    : (unsigned int)pages;
}

void gw_window_sent(struct gw_window *w, uint64_t bytes, int64_t now_ns)
{
	const unsigned int last = (w->first + w->nr) % GW_WINDOW_FRAMES;

	w->sent = bytes;
	if (w->nr == GW_WINDOW_FRAMES)
		return; /* who does not ask whether it is open measures less */
	w->frames[last].end = bytes;
	w->frames[last].placed = w->placed;
	w->frames[last].at_ns = now_ns;
	w->nr++;
}

/* Frame @first of those under way is placed, and was with those before it. */
static void learn(struct gw_window *w, uint64_t bytes, int64_t now_ns)
{
	const int64_t ns = now_ns - w->frames[w->first].at_ns;
	double rate;

	if (ns <= 0)
		return;
	rate = (double)(bytes - w->frames[w->first].placed) * GW_S / (double)ns;
	if (!w->least_ns || ns < w->least_ns)
		w->least_ns = ns;
	w->rate = rate > w->rate ? rate : w->rate + (rate - w->rate) / FALL;
}

int gw_window_placed(struct gw_window *w, uint64_t bytes, int64_t now_ns)
{
	if (bytes < w->placed || bytes > w->sent)
		return gw_fail(-EPROTO, "destination: has placed what was not sent");
	while (w->nr && w->frames[w->first].end <= bytes) {
		if (w->nr == 1 || w->frames[(w->first + 1) % GW_WINDOW_FRAMES].end > bytes)
			learn(w, bytes, now_ns);
		w->first = (w->first + 1) % GW_WINDOW_FRAMES;
		w->nr--;
	}
	w->placed = bytes;
	return 0;
}
