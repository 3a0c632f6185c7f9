/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * splay.h - sets of page numbers as top-down splay trees (Sleator and Tarjan, JACM 32(3), 1985,
 * section 4), for working-set prediction (paper ZawThein, III-C).
 *
 * What was asked for last is at the root, and what is asked for often stays near it: so the nodes
 * nearest to the root are a guess at the pages that are used next.
 *
 * All trees of a forest share one table of nodes, which never grows beyond what it was made for. A
 * tree is the number of its root; GW_SPLAY_NONE is the empty one. A tree may be as high as it has
 * nodes, so nothing here recurses.
 *
 * Not locked.
 */
#ifndef GW_SPLAY_H
#define GW_SPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_SPLAY_NONE 0

struct gw_splay_node {
	uint64_t page;
	uint32_t left, right; /* a free node's right is the next free one */
};

struct gw_forest {
	struct gw_splay_node *nodes; /* [0] is none's; the table is memory of its own */
	uint32_t *queue;	     /* of a walk */
	uint32_t most, used, free;   /* nodes; those ever taken; the first free one of these */
};

/** gw_forest_init() - with room for @most pages in all trees. 0/-ENOMEM; gw_forest_free(). */
int gw_forest_init(struct gw_forest *f, uint32_t most);
void gw_forest_free(struct gw_forest *f);

/**
 * gw_splay_add() - @page is at the root of *@tree afterwards; O(log n) amortised.
 *
 * Return: 1: it is new there; 0: it was in it; -ENOSPC, no message: there is no room.
 */
int gw_splay_add(struct gw_forest *f, uint32_t *tree, uint64_t page);

/** gw_splay_find() - whether *@tree has @page, which, or what is beside it, becomes the root. */
bool gw_splay_find(struct gw_forest *f, uint32_t *tree, uint64_t page);

/**
 * gw_splay_near() - call @visit for the pages of @tree, level by level from the root on.
 * @visit: false: that was enough
 *
 * Return: pages visited.
 */
size_t gw_splay_near(struct gw_forest *f, uint32_t tree, bool (*visit)(void *arg, uint64_t page),
		     void *arg);

/** gw_splay_drop() - *@tree has no pages any more. */
void gw_splay_drop(struct gw_forest *f, uint32_t *tree);

#endif
