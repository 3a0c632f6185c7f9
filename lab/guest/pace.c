/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages read or written at a known rate.
 */
#include "guest.h"

#define TICKS	100 /* a second */
#define TICK_NS (NSEC_PER_SEC / TICKS)
/* Late by more than this, the guest was stopped or is too slow: nothing is made up for. */
#define LATE_NS (10 * TICK_NS)
/* Pages between two looks at the clock when the rate is unlimited. */
#define BATCH	64

static _Noreturn void access_unlimited(void (*access_next)(void *arg),
				       void (*look)(void *arg, uint64_t now), void *arg)
{
	for (;;) {
		for (int i = 0; i < BATCH; i++)
			access_next(arg);
		if (look)
			look(arg, now_ns());
	}
}

void access_at(uint64_t mib_per_second, void (*access_next)(void *arg),
	       void (*look)(void *arg, uint64_t now), void *arg)
{
	uint64_t tick = now_ns();
	uint64_t credit = 0; /* in 1/TICKS of a page */

	if (!mib_per_second)
		access_unlimited(access_next, look, arg);
	for (;;) {
		uint64_t now = now_ns();

		if (look)
			look(arg, now);
		tick += TICK_NS;
		if (now > tick + LATE_NS)
			tick = now;
		sleep_until(tick);
		for (credit += mib_per_second * MIB_PAGES; credit >= TICKS; credit -= TICKS)
			access_next(arg);
	}
}
