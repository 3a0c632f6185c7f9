// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * splay.c - top-down splay trees; see splay.h.
 *
 * On the way down from the root what is less than the page is hung onto a left tree, at its right
 * end, and what is greater onto a right tree, at its left end; below them the rest is put together
 * again. Two steps in one direction (zig-zig) are rotated first, which is what makes paths
 * shorter; one step (zig), and one in each direction (zig-zag, here as two zigs), are not.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "splay.h"

static void *table(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static size_t nodes_bytes(const struct gw_forest *f)
{
	return ((size_t)f->most + 1) * sizeof(*f->nodes);
}

static size_t queue_bytes(const struct gw_forest *f)
{
	return ((size_t)f->most + 1) * sizeof(*f->queue);
}

int gw_forest_init(struct gw_forest *f, uint32_t most)
{
	memset(f, 0, sizeof(*f));
	f->most = most;
	f->nodes = table(nodes_bytes(f));
	f->queue = table(queue_bytes(f));
	if (f->nodes && f->queue)
		return 0;
	gw_forest_free(f);
	return gw_fail(-ENOMEM, "no memory to note which pages are used");
}

void gw_forest_free(struct gw_forest *f)
{
	if (f->nodes)
		munmap(f->nodes, nodes_bytes(f));
	if (f->queue)
		munmap(f->queue, queue_bytes(f));
	memset(f, 0, sizeof(*f));
}

/* The page, or the last one on the way to where it would be, becomes the root. */
static uint32_t splay(struct gw_forest *f, uint32_t root, uint64_t page)
{
	struct gw_splay_node *n = f->nodes, sides = { 0 };
	uint32_t *less = &sides.left, *greater = &sides.right;

	if (!root)
		return root;
	while (n[root].page != page) {
		const bool left = page < n[root].page;
		uint32_t next = left ? n[root].left : n[root].right;

		if (!next)
			break;
		if (left && page < n[next].page && n[next].left) {
			n[root].left = n[next].right;
			n[next].right = root;
			root = next;
			next = n[root].left;
		} else if (!left && page > n[next].page && n[next].right) {
			n[root].right = n[next].left;
			n[next].left = root;
			root = next;
			next = n[root].right;
		}
		if (left) {
			*greater = root;
			greater = &n[root].left;
		} else {
			*less = root;
			less = &n[root].right;
		}
		root = next;
	}
	*less = n[root].left;
	*greater = n[root].right;
	n[root].left = sides.left;
	n[root].right = sides.right;
	return root;
}

static uint32_t take_node(struct gw_forest *f)
{
	const uint32_t node = f->free;

	if (node) {
		f->free = f->nodes[node].right;
		return node;
	}
	return f->used < f->most ? ++f->used : GW_SPLAY_NONE;
}

int gw_splay_add(struct gw_forest *f, uint32_t *tree, uint64_t page)
{
	const uint32_t root = splay(f, *tree, page);
	struct gw_splay_node *n = f->nodes;
	uint32_t node;

	*tree = root;
	if (root && n[root].page == page)
		return 0;
	node = take_node(f);
	if (!node)
		return -ENOSPC;
	n[node] = (struct gw_splay_node){ .page = page };
	if (root && page < n[root].page) {
		n[node].left = n[root].left;
		n[node].right = root;
		n[root].left = GW_SPLAY_NONE;
	} else if (root) {
		n[node].right = n[root].right;
		n[node].left = root;
		n[root].right = GW_SPLAY_NONE;
	}
	*tree = node;
	return 1;
}

bool gw_splay_find(struct gw_forest *f, uint32_t *tree, uint64_t page)
{
	*tree = splay(f, *tree, page);
	return *tree && f->nodes[*tree].page == page;
}

size_t gw_splay_near(struct gw_forest *f, uint32_t tree, bool (*visit)(void *arg, uint64_t page),
		     void *arg)
{
	size_t at = 0, end = 0;

	if (tree)
		f->queue[end++] = tree;
	while (at < end) {
		const struct gw_splay_node *n = &f->nodes[f->queue[at++]];

		if (n->left)
			f->queue[end++] = n->left;
		if (n->right)
			f->queue[end++] = n->right;
		if (!visit(arg, n->page))
			break;
	}
	return at;
}

/* Left children are turned up until there is none, then the root goes. */
void gw_splay_drop(struct gw_forest *f, uint32_t *tree)
{
	struct gw_splay_node *n = f->nodes;
	uint32_t root = *tree;

	while (root) {
		const uint32_t left = n[root].left, right = n[root].right;

		if (left) {
			n[root].left = n[left].right;
			n[left].right = root;
			root = left;
			continue;
		}
		n[root].right = f->free;
		f->free = root;
		root = right;
	}
	*tree = GW_SPLAY_NONE;
}
