/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * process.h - which process of a guest runs, seen from outside (F11).
 *
 * An address space is known by the table that the processor walks (x86: CR3). Two bits of it say
 * nothing of that: the process-context identifier, and which half of a pair of tables is used, the
 * kernel's or the user's.
 */
#ifndef GW_PROCESS_H
#define GW_PROCESS_H

#include <stddef.h>
#include <stdint.h>

/** gw_process_of() - of the value @cr3. */
uint64_t gw_process_of(uint64_t cr3);

/**
 * gw_process_parse() - the processes that run, a vCPU each, by what QEMU's "info registers -a"
 * printed.
 * @most: @processes at most
 *
 * Return: how many vCPUs were found.
 */
size_t gw_process_parse(const char *text, uint64_t *processes, size_t most);

/* Where nobody can tell: memory by regions of 2 MiB, which no address space is called like. */
#define GW_PROCESS_REGION_PAGES 512UL

/** gw_process_region() - that of @page. */
uint64_t gw_process_region(uint64_t page);

#endif
