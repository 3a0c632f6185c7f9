/* SPDX-License-Identifier: GPL-2.0-or-later */
/* urgency.h - which threads run first where there are fewer processors than work. */
#ifndef GW_URGENCY_H
#define GW_URGENCY_H

enum gw_urgency {
	GW_URGENT,     /* a guest waits for it; works for some microseconds, then waits itself */
	GW_BULK,       /* much work that guests in need of a processor come before */
	GW_BACKGROUND, /* housekeeping: guests come first */
};

/**
 * gw_thread_urgency() - what the calling thread does from here on is of that kind.
 *
 * Threads that it makes inherit it. Not real time, so whoever is urgent for good starves
 * nobody; and never idle, since on a host that is busy for good somebody waits for the end of
 * what is done in the background. What the kernel refuses is logged, and does no harm.
 */
void gw_thread_urgency(enum gw_urgency urgency);

#endif
