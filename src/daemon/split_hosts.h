/* SPDX-License-Identifier: GPL-2.0-or-later */
/* split_hosts.h - the sub-hosts of a split, where the registry is to choose them (auto:N). */
#ifndef GW_SPLIT_HOSTS_H
#define GW_SPLIT_HOSTS_H

#include "worker.h"

/**
 * gw_split_hosts() - @args with the sub-hosts in "to".
 * @args: of the command; in "but" addresses that are not to be chosen
 * @memory: bytes that the VM has
 * @main: where it goes, as its user has said it; NULL: it stays
 * @chosen: a copy of @args; with "auto" in it the hosts with most room, by what they said last. The
 * caller's, whatever is returned
 *
 * Return: 0, or -errno with a message.
 */
int gw_split_hosts(const struct gw_worker *w, const json_t *args, uint64_t memory, const char *main,
		   json_t **chosen);

#endif
