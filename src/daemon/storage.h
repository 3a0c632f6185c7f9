/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * storage.h - a VM's disks are copied with its memory (`--copy-storage`, decision 35).
 *
 *   source's QEMU ── mirror job ──> socket ── tunnel ══ STORAGE ══ tunnel ──> NBD server of the
 *                                                                             destination's QEMU
 *
 * The destination makes images that are like the source's, and its QEMU, which waits for device
 * state, serves them. A job for each disk copies all of it, then what the guest writes. Once the
 * guest stands still they are ended, which says that every byte is there and written down, and
 * begun anew, so that a switchover that is taken back costs no byte again. Before QEMU there is
 * given device state, its server ends: from then on nobody but the guest writes to the disks.
 *
 * Rules: what QEMU waits for is cut off in time, since a monitor, and a guest that does I/O, wait
 * with it (invariants 13 and 16). What the destination made, or put aside, is written down in the
 * VM's folder first, in storage.json, and undone by whoever removes the VM.
 */
#ifndef GW_STORAGE_H
#define GW_STORAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_source_env;
struct gw_dest_env;
struct gw_storage;
struct gw_storage_here;

/* --- at the source --- */

/**
 * gw_storage_ask() - what of @e's VM is to be copied, as the command's @args say. Sets e->storage
 * and e->s.storage, if anything is. 0 or -errno with a message.
 */
int gw_storage_ask(struct gw_source_env *e, const json_t *args);

/** gw_storage_below() - leave of @images (gw_images_find()) what is not copied. */
void gw_storage_below(const struct gw_source_env *e, json_t *images);

/** gw_storage_within() - QEMU may not wait for the other side beyond @deadline; GW_FOREVER: it may.
 */
void gw_storage_within(struct gw_source_env *e, int64_t deadline);

/** gw_storage_copy(), gw_storage_left(), gw_storage_settle() - ops; see source.h. */
int gw_storage_copy(void *env);
int gw_storage_left(void *env, uint64_t *bytes);
int gw_storage_settle(void *env, int64_t deadline);

/** gw_storage_stop() - the VM stays here: its QEMU copies nothing any more. Harmless if it never
 * did. */
void gw_storage_stop(struct gw_source_env *e);

/** gw_storage_free() - the connections. */
void gw_storage_free(struct gw_storage *s);

/* --- at the destination --- */

/** gw_storage_make() - images like those that @wanted (DEFINE's) tells of. 0 or -errno. */
int gw_storage_make(struct gw_dest_env *e, const json_t *wanted);

/** gw_storage_serve() - its QEMU runs: have it take what is written to them. 0 or -errno. */
int gw_storage_serve(struct gw_dest_env *e);

/** gw_storage_heed() - connections that the daemon has handed on. */
void gw_storage_heed(struct gw_dest_env *e);

/**
 * gw_storage_images() - have what is copied read as QEMU has it: @images of gw_images_find().
 * @compared: leave what is not copied instead
 */
void gw_storage_images(const struct gw_dest_env *e, json_t *images, bool compared);

/** gw_storage_sealed() - nobody writes to them from here on; op, see dest.h. */
int gw_storage_sealed(void *env);

/** gw_storage_here_free() - the connections, and whoever writes down. */
void gw_storage_here_free(struct gw_storage_here *s);

struct gw_paths;

/**
 * gw_storage_committed() - whether the guest may run here: what was made for it may then hold what
 * is nowhere else, and a process that finds it so lets it be.
 */
void gw_storage_committed(const struct gw_paths *p, const char *name, bool committed);

/** gw_storage_keep() - the VM lives on here: what was put aside for its images goes. */
void gw_storage_keep(const struct gw_paths *p, const char *name);

/**
 * gw_storage_undo() - it does not, and never did: what was made goes, and what was put aside is
 * back.
 */
void gw_storage_undo(const struct gw_paths *p, const char *name);

#endif
