/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * departure.h - what this host knows of a VM that leaves, and what it keeps of
 * it; arrival.h is the other end.
 */
#ifndef GW_DEPARTURE_H
#define GW_DEPARTURE_H

#include "image.h"
#include "record.h"
#include "source.h"
#include "worker.h"

/** struct gw_departure - a VM's, from its worker's start to its end. */
struct gw_departure {
	struct gw_ledger ledger; /* of its arrival here; none if it has no head */
	bool keeps;		 /* an image was begun */
};

/**
 * gw_departure_recall() - open the ledger of the VM's arrival, if there is a whole one.
 * @nr_pages: that its memory has
 *
 * Return: it, or NULL. What is wrong with it is logged: only reuse is lost.
 */
const struct gw_ledger *gw_departure_recall(struct gw_departure *d, const struct gw_paths *p,
					    const char *name, size_t nr_pages);

/**
 * gw_departure_ledger() - an empty ledger of this departure: where its image is to be
 * kept or, if it is not, in memory. 0 or -errno.
 */
int gw_departure_ledger(struct gw_departure *d, const struct gw_paths *p, const struct gw_vm *vm,
			size_t nr_pages, struct gw_ledger *l);

/**
 * gw_departure_keep() - the VM's QEMU is gone: make its memory the image.
 * @ledger: from gw_departure_ledger(), filled in, closed here; NULL: keep none
 *
 * What fails is logged.
 */
void gw_departure_keep(const struct gw_departure *d, const struct gw_paths *p,
		       const struct gw_definition *def, struct gw_ledger *ledger);

/** gw_departure_report() - tell the registry where it went, and what is kept here. */
void gw_departure_report(const struct gw_departure *d, const struct gw_worker *w,
			 const struct gw_source *s, const char *name, const char *address);

void gw_departure_free(struct gw_departure *d);

#endif
