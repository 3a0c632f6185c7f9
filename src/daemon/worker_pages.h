/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * worker_pages.h - the missing pages of a real QEMU's guest: the watch over its memory, its
 * faults, and the connections that the daemon hands on (dest/paging.h).
 */
#ifndef GW_WORKER_PAGES_H
#define GW_WORKER_PAGES_H

#include "callers.h"
#include "paging.h"
#include "qmp.h"
#include "uffd.h"
#include "worker.h"

struct gw_pages {
	struct gw_worker *w;
	struct gw_vm *vm;
	uint16_t version; /* for ACCEPT */
	char *table;
	struct gw_paged paged;
	struct gw_faults faults;
	bool open, hearing;
	struct gw_qmp **qmp;	   /* its monitor; *NULL: not open */
	int64_t next_call;	   /* for it (ns) */
	int qemu;		   /* pidfd; -1 until it is known */
	struct gw_callers callers; /* the source's connections */
	int64_t next_look;	   /* for a younger godwitd (ns) */
};

extern const struct gw_dest_page_ops gw_pages_ops;

/** gw_pages_init() - all is the caller's, and must outlive it. */
void gw_pages_init(struct gw_pages *g, struct gw_worker *w, struct gw_vm *vm, struct gw_qmp **qmp,
		   uint16_t version);
void gw_pages_free(struct gw_pages *g);

/**
 * gw_pages_prepare() - begin the watch over the memory of a QEMU that waits for device state, so
 * that it can be paged. @ram: as QEMU maps it. Sets the VM's watch, for the caller to save.
 *
 * Return: 0, or -errno with what to do: this host cannot page.
 */
int gw_pages_prepare(struct gw_pages *g, struct gw_qmp *qmp, const struct gw_ram *ram);

/** gw_pages_vcpus() - the threads of the guest's vCPUs, as many as a watch keeps; 0: not told. */
unsigned int gw_pages_vcpus(struct gw_qmp *qmp, pid_t threads[GW_WATCH_VCPUS]);

/** gw_pages_remember() - write down DEFINE's @reuse (may be NULL), for whoever takes over. */
int gw_pages_remember(struct gw_pages *g, const json_t *reuse);

/** gw_pages_recall() - what was written down, or NULL; the caller's. */
json_t *gw_pages_recall(const struct gw_pages *g);

/** gw_pages_heed() - answer the paging connections that the daemon has handed on. */
void gw_pages_heed(struct gw_pages *g);

#endif
