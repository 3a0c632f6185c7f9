/* SPDX-License-Identifier: GPL-2.0-or-later */
/* verify.h - the destination's half of --verify; source/verify.c is the other. */
#ifndef GW_VERIFY_H
#define GW_VERIFY_H

#include "dest.h"

/**
 * gw_dest_verify() - compare all memory with the source's; its first VERIFY is in the inbox.
 *
 * Return: 0, and it has been told; -EBADMSG: it differs; or another -errno.
 */
int gw_dest_verify(struct gw_dest *d);

#endif
