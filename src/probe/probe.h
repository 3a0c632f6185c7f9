/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * probe.h - does this kernel keep what Godwit stands on (design, section 3)?
 *
 * Each probe exercises one mechanism for real, in milliseconds, on a forked
 * child whose memory is a RAM file, the way QEMU's is; nothing is concluded
 * from version numbers. `godwit check` prints them, tests/probe runs them.
 *
 * Rules: a probe leaves nothing behind and never hangs (GW_PROBE_TIMEOUT).
 * What it returns says whose fault it is:
 *   0         the kernel does what Godwit needs
 *   -ENOTSUP  this kernel lacks it
 *   -EPERM    it may have it, but we may not use it
 *   -EPROTO   it has it, and it does something else: never work around that
 *   other     it could not be tried
 */
#ifndef GW_PROBE_H
#define GW_PROBE_H

#include <stddef.h>

/* Longest wait for anything that a probe has caused (ns): far above what a slow, busy host needs.
 */
#define GW_PROBE_TIMEOUT (10LL * 1000000000LL)

/**
 * struct gw_probe - a fact and how to find out.
 * @fact: its number in the design, "F1"
 * @key: its name in JSON
 * @title: what the kernel can do, in plain words
 * @needed_for: what Godwit cannot do without it
 * @remedy: what the user does where it is missing
 * @needs: the fact that must hold for this one to make sense, or NULL
 * @run: try it. @ram_fd: an empty file of the file system to try it on (its
 *       content is overwritten), or -1 for a memfd. 0 or -errno with a message
 */
struct gw_probe {
	const char *fact, *key, *title, *needed_for, *remedy, *needs;
	int (*run)(int ram_fd);
};

/** gw_probes - all of them, in the order of the design; gw_nr_probes many. */
extern const struct gw_probe gw_probes[];
extern const size_t gw_nr_probes;

/** gw_probe_verdict() - what a probe returned, in a word: ok, missing, forbidden, wrong, untried.
 */
const char *gw_probe_verdict(int rc);

/** gw_probe_find() - the probe of @fact ("F2"), or NULL. */
const struct gw_probe *gw_probe_find(const char *fact);

/** gw_probe_inject() - F1: system calls in another process, which does not notice. */
int gw_probe_inject(int ram_fd);

/** gw_probe_written() - F2: written pages exactly, once, none lost between two scans. */
int gw_probe_written(int ram_fd);

/** gw_probe_accessed() - F3: accessed, written, untouched and unknown pages after a zap. */
int gw_probe_accessed(int ram_fd);

/** gw_probe_softdirty() - F4: written pages exactly by soft-dirty bits. */
int gw_probe_softdirty(int ram_fd);

/** gw_probe_holes() - F8: emptied pages look unwritten; that they are holes tells. */
int gw_probe_holes(int ram_fd);

/** gw_probe_paging() - F9: a chunk is taken away and comes back on demand, page by page. */
int gw_probe_paging(int ram_fd);

/** gw_probe_minor() - F19: memory is paged on top of old bytes, and tracked before and after. */
int gw_probe_minor(int ram_fd);

#endif
