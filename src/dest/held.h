/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * held.h - device state that has arrived, and that QEMU does not have yet.
 *
 * QEMU loads it once and for ever, so until the source says that it stays (LOAD)
 * it lies here, and RESUMED makes it as if it had never come (decision 26).
 *
 * Rules: it grows with what arrives, whatever the source may promise, and never
 * above GW_HELD_MAX (invariant 10).
 */
#ifndef GW_HELD_H
#define GW_HELD_H

#include <stddef.h>
#include <stdint.h>

/* What QEMU sends by itself: devices, and memory of displays. */
#define GW_HELD_MAX  (1UL << 30)
#define GW_HELD_PART (1UL << 20)

struct gw_held {
	uint8_t *parts[GW_HELD_MAX / GW_HELD_PART];
	size_t len; /* bytes in them */
};

/** gw_held_add() - @len bytes more, copied. 0, -E2BIG (more than GW_HELD_MAX) or -ENOMEM. */
int gw_held_add(struct gw_held *h, const void *bytes, size_t len);

/** gw_held_give() - all of it to fn(arg, ...), in order. 0, or what fn returned that was not. */
int gw_held_give(const struct gw_held *h, int (*fn)(void *arg, const void *bytes, size_t len),
		 void *arg);

/** gw_held_drop() - forget it. */
void gw_held_drop(struct gw_held *h);

#endif
