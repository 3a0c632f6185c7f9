/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vm_folder.h - a VM comes into being on this host: its folder, its lock, its
 * record, its RAM files. The same for one that starts and one that arrives.
 */
#ifndef GW_VM_FOLDER_H
#define GW_VM_FOLDER_H

#include "record.h"

/**
 * gw_vm_claim() - make the folder of VM @name, which must not exist, and lock it.
 * @host: our name, for the message
 *
 * Return: the lock (gw_vm_lock()), or -errno; -EEXIST if there is such a VM.
 */
int gw_vm_claim(const struct gw_paths *p, const char *host, const char *name);

/** gw_vm_make_ram_folder() - make the folder for its RAM files. 0 or -errno. */
int gw_vm_make_ram_folder(const struct gw_paths *p, const struct gw_definition *def);

/**
 * gw_vm_make_ram() - open the VM's RAM files.
 * @made: they are there already, with content; otherwise they are made, and what
 *	is there is removed: the VM's folder is ours, so an old file is nobody's
 * @ram: gets them; zeroed by the caller, gw_ram_close()
 *
 * Return: 0 or -errno.
 */
int gw_vm_make_ram(const struct gw_paths *p, const struct gw_definition *def, bool made,
		   struct gw_ram *ram);

#endif
