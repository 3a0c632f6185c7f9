/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * own.h - folders and files that nobody else can have put there, or exchange (decision 27).
 *
 * Godwit is root as a rule, and what it keeps (records, images, guests' memory) says what
 * it starts, kills and reads. So all of that lies in folders that are **ours**: they belong
 * to root or to us, and neither group nor others may write to them; and so does every folder
 * above. A sticky one (/tmp, /dev/shm) may be above: there nobody renames or removes what
 * is ours, and what somebody else has put there is not ours, and refused.
 *
 * Rules:
 *   - gw_own_place() once, for each place that a host keeps things in, with all above it.
 *   - Everything below is opened through its folder's descriptor: no link is followed on
 *     the way there or at its end; what was opened is a plain file of ours, or refused.
 *   - What we make did not exist before (O_EXCL).
 */
#ifndef GW_OWN_H
#define GW_OWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/**
 * gw_own_place() - a place where things may be kept; it is made if need be.
 * @path: may be relative, or lead through links of ours
 * @shared: it may be sticky itself, if others may write to it
 * @real: its true path, without links; free(); may be NULL
 *
 * Return: 0; -EPERM if it, or a folder above it, is not ours, with a message that names
 * the folder and what to do; -errno.
 */
int gw_own_place(const char *path, bool shared, char **real);

/**
 * gw_own_folder() - the folder @path, which is ours, for openat() and its like.
 *
 * No link is followed, so @path is one that gw_own_place() gave, or below. What lies
 * above it is not looked at again.
 *
 * Return: a descriptor (O_PATH), or -errno with a message; -EPERM: not ours.
 */
int gw_own_folder(const char *path);

/** gw_own_mkdirs() - make @path and what is missing above it, for us alone. 0 or -errno. */
int gw_own_mkdirs(const char *path);

/**
 * gw_own_open() - open the plain file @path, which is ours, in a folder that is.
 * @flags: of open(); @mode: if one is made
 *
 * Return: a descriptor, or -errno with a message; -EPERM: not ours.
 */
int gw_own_open(const char *path, int flags, mode_t mode);

/** gw_own_make() - make the file @path, for us alone, in place of any that is there. As above. */
int gw_own_make(const char *path, int flags);

/** gw_own_read() - gw_read_file() of a file of ours. */
char *gw_own_read(const char *path, size_t max, size_t *len);

/** gw_own_tail() - gw_own_read() of the last @max bytes, where there are more. */
char *gw_own_tail(const char *path, size_t max, size_t *len);

#endif
