/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * arrival.h - what this host kept of a VM that arrives, and the watch that is
 * kept over its memory from its first moment here.
 */
#ifndef GW_ARRIVAL_H
#define GW_ARRIVAL_H

#include "crew.h"
#include "dest.h"
#include "image.h"
#include "record.h"

/** struct gw_arrival - the image whose RAM files are the VM's, if @took. */
struct gw_arrival {
	struct gw_image image;
	bool took;
	struct gw_key key; /* the VM's */
	int64_t deadline;  /* for what is brought back or compared: the rest is sent */
	/* the comparison under way */
	const struct gw_memory *memory;
	struct gw_dest_kept *kept;
	_Atomic size_t next;
	_Atomic size_t skipped; /* pages that it was too late for */
};

/**
 * gw_arrival_take() - make what was kept of the VM its memory, or remove it, and
 * make room for the rest, which it was promised (memory.h).
 * @reuse: the source's departures (DEFINE), or NULL
 * @key: the VM's, or NULL: then nothing is used
 * @ram_paths: where its RAM files belong
 *
 * An image that is not of one of these departures is of no use to anybody. There is
 * a budget of time for bringing it back from disk and comparing it; what is not done
 * by then is sent.
 */
void gw_arrival_take(struct gw_arrival *a, const struct gw_paths *p,
		     const struct gw_definition *def, const json_t *reuse, const struct gw_key *key,
		     char *const ram_paths[]);

/**
 * gw_arrival_compare() - begin to find the pages that are not what the image's ledger says.
 * @crew: whose threads do it
 * @kept: filled in by gw_arrival_compared()
 *
 * Does nothing if none was taken. 0 or -errno; gw_arrival_compared() either way.
 */
int gw_arrival_compare(struct gw_arrival *a, struct gw_crew *crew, const struct gw_memory *memory,
		       struct gw_dest_kept *kept);

/** gw_arrival_compared() - wait for the end of it. 0 or -errno. */
int gw_arrival_compared(struct gw_arrival *a, struct gw_crew *crew);

/**
 * gw_arrival_give_back() - the VM did not come: its RAM files are an image again,
 * if they were one, for what they still hold. Also for a worker that died.
 */
void gw_arrival_give_back(const struct gw_paths *p, const struct gw_definition *def);

void gw_arrival_free(struct gw_arrival *a);

/**
 * gw_arrival_track() - track what the guest writes from here on.
 * @ram: as QEMU maps it; nothing has been written through that yet
 *
 * So its next departure need not look at the rest. What arrives by dest/place.c
 * does not count as written. Sets @vm's uffd and since_arrival, for the caller to
 * save. What fails is logged, and costs only that. Decision 14 has what it costs.
 */
void gw_arrival_track(struct gw_vm *vm, const struct gw_ram *ram);

#endif
