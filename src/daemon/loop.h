/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * loop.h - the daemon's event loop: descriptors and what to call when readable.
 *
 * Rules: one thread; a callback never blocks; it may remove any watch,
 * its own included.
 */
#ifndef GW_LOOP_H
#define GW_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct gw_loop;
struct gw_watch;

struct gw_loop *gw_loop_new(void);
void gw_loop_free(struct gw_loop *loop);

/** gw_loop_add() - call fn(arg) when @fd is readable or has ended. NULL with a message. */
struct gw_watch *gw_loop_add(struct gw_loop *loop, int fd, void (*fn)(void *arg), void *arg);

/** gw_loop_want() - what to call for: while it is readable, or writable, or both. */
void gw_loop_want(struct gw_loop *loop, struct gw_watch *watch, bool readable, bool writable);

/**
 * gw_loop_accept() - take a connection from the listening socket of @watch.
 *
 * Without descriptors or memory for it, the socket stays readable, and the loop would
 * turn for nothing: it looks away from it for a moment then.
 *
 * Return: a non-blocking descriptor, or -1 (none came, or none could be taken).
 */
int gw_loop_accept(struct gw_loop *loop, struct gw_watch *watch);

/** gw_loop_remove() - forget a watch; the descriptor stays open. NULL is ignored. */
void gw_loop_remove(struct gw_loop *loop, struct gw_watch *watch);

/**
 * gw_loop_run() - run until gw_loop_quit().
 * @tick: called about every @tick_ms as well
 */
void gw_loop_run(struct gw_loop *loop, int tick_ms, void (*tick)(void *arg), void *arg);
void gw_loop_quit(struct gw_loop *loop);

#endif
