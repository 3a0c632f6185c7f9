/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * samples.h - whether two hosts have the same disks, by a sample of their blocks.
 *
 * Images of one name, size and format may hold different things: a copy that is
 * stale, or empty. Before a page moves the source picks blocks of its images, both
 * hosts read them from the very files that their QEMUs have open, and the source
 * compares digests that are keyed with the VM's secret (invariant 15).
 *
 * The guest runs and writes meanwhile, so a difference says little: gw_samples_judge()
 * is asked about it again and again, and believes it only if neither side's block has
 * changed all the while.
 *
 * Compared are images whose bytes are the guest's: raw files and block devices, also
 * as backing files. Of other formats equal disks may differ in their bytes, and what
 * QEMU knows of them is in part only in its memory (decision 21).
 *
 * Rules: nothing is ever written, and QEMU is asked only for names. What cannot be
 * read in time says nothing.
 */
#ifndef GW_SAMPLES_H
#define GW_SAMPLES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "clock.h"
#include "digest.h"
#include "key.h"

/* A block is a page's size, so that it has a page's digest. */
#define GW_SAMPLE_SIZE GW_PAGE_SIZE

/* How long a host reads its blocks, in ns: what takes longer costs the comparison. */
#define GW_DISKS_NS (3 * GW_S)

/* Questions of a source in one migration. */
#define GW_SAMPLES_ASKED 16

/* Blocks in all, and of one image. */
#define GW_SAMPLES_MAX	    1024
#define GW_SAMPLES_OF_IMAGE 64

/**
 * struct gw_sample - a block.
 * @image: its number in gw_samples.images
 * @digest: as it was read here last; GW_DIGEST_UNKNOWN: could not be
 * @first, @theirs: what it was here and there at the first look
 */
struct gw_sample {
	uint32_t image;
	uint64_t offset;
	struct gw_digest digest, first, theirs;
};

/**
 * struct gw_samples - blocks of a VM's images; zero is none.
 * @images: an array as gw_live_images() makes it
 */
struct gw_samples {
	json_t *images;
	struct gw_sample at[GW_SAMPLES_MAX];
	size_t nr;
};

void gw_samples_free(struct gw_samples *s);

/**
 * gw_samples_pick() - choose blocks of @s->images, and read them.
 * @pid: the QEMU that has the images open
 * @ns: after so long what has not been read is unknown
 *
 * First and last block, where the first partition usually begins, and random ones
 * that hold data.
 *
 * Return: 0, or -ENOMEM. An image that cannot be read has no blocks, or unknown ones.
 */
int gw_samples_pick(struct gw_samples *s, pid_t pid, const struct gw_key *key, int64_t ns);

/** gw_samples_read() - read the blocks of @s, of which images may be another host's. */
int gw_samples_read(struct gw_samples *s, pid_t pid, const struct gw_key *key, int64_t ns);

/** gw_samples_ask() - the question of a SAMPLE message; caller frees. NULL: no memory. */
char *gw_samples_ask(const struct gw_samples *s);

/**
 * gw_samples_parse() - the reverse; trusts nothing (invariant 10).
 * @s: empty; its images get no files, those are found by gw_samples_here()
 *
 * Return: 0, or -EPROTO.
 */
int gw_samples_parse(const void *text, size_t len, struct gw_samples *s);

/** gw_samples_here() - take files for @s->images from @ours, by disk and depth. */
void gw_samples_here(struct gw_samples *s, const json_t *ours);

/**
 * gw_samples_judge() - keep only blocks that may be different.
 * @theirs: the other host's digests of all @s->nr blocks
 * @first: this is the first look at @theirs
 *
 * @s holds what was read here after the other host had answered. A block that was
 * ever the same, has ever changed, or is not known, is no suspect.
 */
void gw_samples_judge(struct gw_samples *s, const struct gw_digest *theirs, bool first);

/** gw_samples_refuse() - -ENOTSUP, naming the first image that differs on host @host. */
int gw_samples_refuse(const struct gw_samples *s, const char *host);

#endif
