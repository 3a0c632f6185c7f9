/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sub_hosts.h - which memory servers are to hold a VM's memory, where nobody has named them. */
#ifndef GW_SUB_HOSTS_H
#define GW_SUB_HOSTS_H

#include "registry.h"

/**
 * gw_sub_hosts_choose() - @count of @hosts, those that may be promised most.
 *
 * In memory, if there is so much at so many; else each counts with its disk, where it has more
 * there.
 * @own, @main: names or addresses that are none, where the VM is and where it goes (NULL: nowhere)
 * @need: bytes that they are to hold together
 * @now: seconds of the wall clock; who has not reported lately is none, either
 * @to: an array, of which each gets an object with "address" and "size", as --to has it
 *
 * Each is asked for as much as the others, or for all that it has left.
 *
 * Return: 0; -ENOSPC: these are not so many, or have not so much, with the figures.
 */
int gw_sub_hosts_choose(const struct gw_host_record *hosts, size_t nr, unsigned int count,
			const char *own, const char *main, uint64_t need, int64_t now, json_t *to);

#endif
