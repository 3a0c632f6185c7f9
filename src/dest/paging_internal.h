/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paging_internal.h - what paging.c (the pages that are missing, and the connections that they come
 * on) and paging_end.c (until none is, and what follows then) share.
 */
#ifndef GW_PAGING_INTERNAL_H
#define GW_PAGING_INTERNAL_H

#include <pthread.h>

#include "clock.h"
#include "paging.h"
#include "pipeline.h"
#include "place.h"
#include "teleport.h"

#define ASK_NS (5 * GW_S) /* a source that does not take a request is not there */

struct gw_page {
	struct gw_dest *d;
	struct gw_pager pager;
	struct gw_page_in in;
	unsigned int n; /* connections */
	struct gw_transport *conns[GW_PAGING_MAX];
	struct gw_decoder decoders[GW_PAGING_MAX];
	bool started, sealed;
	bool known;	  /* this process knows what lies under missing pages */
	bool receives;	  /* receivers were spawned */
	bool until_whole; /* nothing missing is all that is waited for */
	uint64_t received;
	pthread_mutex_t push_locks[GW_PAGING_MAX]; /* of sending on one that pushes; of @open */
	bool open[GW_PAGING_MAX];
	bool checks;		 /* threads compare what was kept */
	_Atomic bool checked;	 /* or are to end */
	_Atomic size_t next;	 /* chunk for one of them */
	uint64_t counted, per_s; /* faults at @counted_ns, and in the second before */
	int64_t counted_ns;
	pthread_mutex_t lock; /* of what follows, and of sending on connection 0 */
	bool up;
	int rc; /* of the first receiver that failed */
	char message[GW_ERROR_MAX];
	_Atomic bool failed;
	_Atomic bool handed; /* connection 0 is past its pages: @first is next on it */
	struct gw_frame first;
};

static inline const struct gw_dest_page_ops *gw_page_ops_of(const struct gw_page *g)
{
	return g->d->page_ops;
}

static inline int64_t gw_page_now(const struct gw_page *g)
{
	return g->d->ops->now(g->d->env);
}

/** gw_page_failure() - what the first receiver that failed says. -errno with that message. */
int gw_page_failure(struct gw_page *g);

/** gw_page_mend() - connections that have come, in place of those that are there. */
void gw_page_mend(struct gw_page *g);

/** gw_page_tell_faults() - tell the source how the guest has waited. */
void gw_page_tell_faults(struct gw_page *g);

/** gw_page_check_end() - nobody compares what was kept any more. Harmless where nobody does. */
void gw_page_check_end(struct gw_page *g);

#endif
