/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hold.h - what a main host asks a memory server to hold (decision 32): HOLD, and the record
 * that the sub-host keeps of it.
 *
 *   {"name":"web1","host":"A","blocks":[{"id":"godwit-ram","size":4294967296}],
 *    "size":2147483648,"features":[...],"stages":[...]}
 *
 * Rules: it comes from a peer, so what is not exactly that is refused, but for members that are
 * not known here (invariant 10). Names become names of files.
 */
#ifndef GW_HOLD_H
#define GW_HOLD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "define.h"
#include "memory.h"
#include "messages.h"

/* Bytes of a VM's memory that a memory server keeps account of: 2 GiB of bits. */
#define GW_HOLD_BYTES_MAX (64ULL << 40)

/**
 * struct gw_hold - one VM's, at one sub-host.
 * @name: of the VM; @host: what its main host calls itself
 * @size: bytes that may be put here, at most those of all blocks
 * @features, @stages: what the main host can do and read (feature.h, stage.h)
 * @carried: the VM runs elsewhere still, and that host's word is what may go
 */
struct gw_hold {
	char name[GW_NAME_MAX];
	char host[GW_HOST_MAX];
	struct {
		char id[GW_MEMORY_ID_MAX];
		uint64_t size;
	} blocks[GW_MEMORY_BLOCKS_MAX];
	unsigned int nr_blocks;
	uint64_t size;
	uint32_t features, stages;
	bool carried;
};

/** gw_hold_parse() - check and read it. 0, or -EPROTO with a message. */
int gw_hold_parse(struct gw_hold *hold, const json_t *json);

/** gw_hold_json() - as it travels, with what this release has; the caller's, NULL: no memory. */
json_t *gw_hold_json(const struct gw_hold *hold);

/**
 * gw_hold_text() - HOLD's payload: @size bytes of VM @name's @memory are to be held.
 * @host: its main host's name
 * @carried: it is about to be that (feature split-carried)
 *
 * Return: text, free(); NULL: no memory.
 */
char *gw_hold_text(const char *name, const char *host, const struct gw_memory *memory,
		   uint64_t size, bool carried);

/**
 * gw_holding_parse() - the answer to it.
 * @host: what the sub-host calls itself
 * @stages, @features: that it reads, and has (stage.h, feature.h)
 *
 * Return: 0, or -EPROTO with a message.
 */
int gw_holding_parse(const void *payload, size_t len, char host[GW_HOST_MAX], uint32_t *stages,
		     uint32_t *features);

/** gw_hold_same_blocks() - whether pages have the same numbers in both. */
bool gw_hold_same_blocks(const struct gw_hold *a, const struct gw_hold *b);

#endif
