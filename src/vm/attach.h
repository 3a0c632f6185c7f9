/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * attach.h - what an unmodified QEMU is, found out through its monitor and
 * /proc: its memory, and whether Godwit can move it.
 */
#ifndef GW_ATTACH_H
#define GW_ATTACH_H

#include <stdbool.h>

#include "blocks.h"
#include "qmp.h"
#include "ram.h"

#define GW_OTHER_BLOCKS_MAX 64

struct gw_guest_facts {
	int major, minor; /* QEMU's version */
	char machine[64]; /* "pc-q35-7.2": the versioned type, as -machine takes it */
	bool direct_io;	  /* some disk pins guest memory: the scan that counts must be quiesced */
	bool discards;	  /* a balloon or virtio-mem can punch the RAM file */
	bool reports;	  /* ... and does, all the time: free-page reporting, virtio-mem */
	/* What QEMU sends itself, because it is in no RAM file: video memory, ROMs, tables. */
	struct gw_qemu_block others[GW_OTHER_BLOCKS_MAX];
	unsigned int nr_others;
};

/**
 * gw_attach() - find a QEMU's RAM files and map its blocks.
 * @q: its monitor
 * @pid: its process
 * @ram: filled in; gw_ram_close()
 *
 * Return: 0, or -ENOTSUP with the reason why this VM cannot be moved and what
 * to change: memory that is not shared, a memfd where QEMU needs a named file,
 * a backend whose mapping is not proved (blocks.h), memory that is a file of the
 * user's (NVDIMM, ivshmem), devices whose writes nobody sees (VFIO, vhost-user,
 * vDPA), QEMU's own migration blockers, a QEMU older than 7.2. -EBUSY if QEMU is
 * migrating already.
 */
int gw_attach(struct gw_qmp *q, pid_t pid, struct gw_ram *ram, struct gw_guest_facts *facts);

#endif
