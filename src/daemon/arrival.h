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
	struct gw_crew crew;
	bool begun;
	void (*notify)(void *arg); /* a part of it is done; any thread */
	void *arg;
	struct gw_bitmap absent; /* words of a part are its thread's until it is done */
	_Atomic bool *done;	 /* each part */
	size_t parts, told;	 /* parts in a row that are known to be done */
	_Atomic size_t next;
	_Atomic size_t skipped; /* pages that it was too late for */
	_Atomic bool halted;
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
 * @memory: must stay open until gw_arrival_free()
 * @later: the rounds go on meanwhile; then it has more time
 * @kept: what is kept, whose pages gw_arrival_compared() will tell
 * @notify: called with @arg from any thread, whenever that may tell more
 *
 * Does nothing if none was taken. What cannot be compared, or not within the budget
 * of time, is absent. 0 or -errno.
 */
int gw_arrival_compare(struct gw_arrival *a, const struct gw_memory *memory, bool later,
		       struct gw_dest_kept *kept, void (*notify)(void *arg), void *arg);

/** gw_arrival_unchecked() - what is kept, of which nobody has compared anything, nor does here. */
void gw_arrival_unchecked(const struct gw_arrival *a, struct gw_dest_kept *kept);

/**
 * gw_arrival_compared() - how many pages are known, from the first on; see dest.h's compared().
 * By one thread. Past the budget all of them are: what is not done by then is absent.
 */
size_t gw_arrival_compared(struct gw_arrival *a, size_t from, struct gw_bitmap *absent);

/** gw_arrival_compare_all() - wait until all is known, for a source that cannot ask later. */
void gw_arrival_compare_all(struct gw_arrival *a, struct gw_bitmap *absent);

/** gw_arrival_compare_end() - nobody asks any more: its threads end, but are not waited for. */
void gw_arrival_compare_end(struct gw_arrival *a);

/**
 * gw_arrival_give_back() - the VM did not come: its RAM files are an image again,
 * if they were one, for what they still hold. Also for a worker that died.
 */
void gw_arrival_give_back(const struct gw_paths *p, const struct gw_definition *def);

/** gw_arrival_free() - waits for its threads. */
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
