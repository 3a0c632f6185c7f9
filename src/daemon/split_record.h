/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split_record.h - what a VM's record says of its split: the memory servers that hold what is not
 * here, and how much may be (decision 32). The network page table lies beside it.
 */
#ifndef GW_SPLIT_RECORD_H
#define GW_SPLIT_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "messages.h"
#include "split.h"

/* Less would be a guest that does nothing but page. */
#define GW_MAIN_MEMORY_LEAST (32ULL << 20)

struct gw_split_record {
	uint8_t id[GW_ID_LEN];
	uint64_t main_memory; /* bytes */
	unsigned int unit_pages;
	unsigned int replicas;	    /* how many servers are to have each page: 1 or 2 */
	unsigned int period_ms;	    /* between two samples of what was accessed */
	unsigned int shift_periods; /* after so many its history is shifted (paper, IV-B) */
	bool direct_io;		    /* pages may be pinned (F10) */
	bool merging;		    /* all of it is to come back */
	bool stopped;		    /* by us, for a moment: to be continued */
	bool carried; /* it moves, and this is not its main host yet: its sub-hosts are another's */
	struct {
		char address[GW_ADDRESS_MAX];
		uint64_t size; /* bytes that may be put there */
		bool leaves;   /* nothing more is, and what is there comes back */
		bool gone;     /* nothing is there any more; another may have its place */
	} servers[GW_HOLDERS_MAX];
	unsigned int nr_servers;
};

/** gw_split_record_json() - as the VM's record keeps it; owned by the caller. */
json_t *gw_split_record_json(const struct gw_split_record *r);

/** gw_split_record_spare() - pages that the main host keeps free for what is fetched ahead. */
uint64_t gw_split_record_spare(const struct gw_split_record *r);

/** gw_split_record_parse() - the reverse. 0, or -EINVAL: it is none of ours. */
int gw_split_record_parse(struct gw_split_record *r, const json_t *json);

/**
 * gw_split_record_ask() - of the arguments of the command "split".
 * @memory: bytes that the VM has
 *
 * What is not said is set to what is usual; the id stays zero. 0, or -EINVAL with a message.
 */
int gw_split_record_ask(struct gw_split_record *r, const json_t *args, uint64_t memory);

/** gw_split_record_find() - who is called @who, an address. Its place, or -ENOENT. */
int gw_split_record_find(const struct gw_split_record *r, const char *who);

/**
 * gw_split_record_join() - servers that are to take the place of the one at @index, if any are
 * needed.
 * @to: an array as in "split", or NULL; without a size, as much as that one has
 *
 * Return: 0; or -EINVAL with a message, also if they and the others cannot take all that does not
 * fit here: @r is as it was.
 */
int gw_split_record_join(struct gw_split_record *r, unsigned int index, const json_t *to,
			 uint64_t memory);

#endif
