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
 * Compared is what the guest sees of each disk, whatever its format and wherever it
 * lies, and the bytes of raw files and block devices that are backing files. What the
 * source's QEMU has yet to flush is seen on neither side, so it makes no difference
 * on storage that both share (decision 21).
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
 * @now: as the other host has told it last
 */
struct gw_sample {
	uint32_t image;
	uint64_t offset;
	struct gw_digest digest, first, theirs, now;
};

/**
 * struct gw_samples - blocks of a VM's images; zero is none.
 * @images: an array as gw_images_find() makes it
 * @why: the first image of which blocks could not be read, and why; empty: none
 * @moved: its name leads to another file than the one that QEMU has open
 */
struct gw_samples {
	json_t *images;
	char why[500];
	bool moved;
	struct gw_sample at[GW_SAMPLES_MAX];
	size_t nr;
};

void gw_samples_free(struct gw_samples *s);

/**
 * struct gw_samples_from - where blocks are read.
 * @pid: the QEMU that has the images open
 * @dir: the VM's folder, into which nobody else writes
 * @ns: after so long what has not been read is unknown
 */
struct gw_samples_from {
	pid_t pid;
	const char *dir;
	const struct gw_key *key;
	int64_t ns;
};

/**
 * gw_samples_pick() - choose blocks of @s->images, and read them.
 *
 * First and last block, where the first partition usually begins, and random ones
 * that hold data.
 *
 * Return: 0; -ENOTSUP: an image has another file's name now, which is what another
 * QEMU would open; -ENOMEM. An image that cannot be read has no blocks, or unknown ones.
 */
int gw_samples_pick(struct gw_samples *s, const struct gw_samples_from *from);

/** gw_samples_read() - read the blocks of @s, of which images may be another host's. */
int gw_samples_read(struct gw_samples *s, const struct gw_samples_from *from);

/** gw_samples_ask() - the question of a SAMPLE message; caller frees. NULL: no memory. */
char *gw_samples_ask(const struct gw_samples *s);

/**
 * gw_samples_parse() - the reverse; trusts nothing (invariant 10).
 * @s: empty; its images get no files, those are found by gw_samples_here()
 *
 * Return: 0, or -EPROTO.
 */
int gw_samples_parse(const void *text, size_t len, struct gw_samples *s);

/** gw_samples_here() - how to read @s->images, from @ours, by disk and depth. */
void gw_samples_here(struct gw_samples *s, const json_t *ours);

/**
 * gw_samples_hear() - keep only blocks that are not what they were here.
 * @theirs: the other host's digests of all @s->nr blocks
 * @first: this is the first look at @theirs
 */
void gw_samples_hear(struct gw_samples *s, const struct gw_digest *theirs, bool first);

/**
 * gw_samples_judge() - keep only blocks that may be different.
 *
 * @s holds what was read here after gw_samples_hear(). A block that was
 * ever the same, has ever changed, or is not known, is no suspect.
 */
void gw_samples_judge(struct gw_samples *s);

/** gw_samples_refuse() - -ENOTSUP, naming the first image that differs on host @host. */
int gw_samples_refuse(const struct gw_samples *s, const char *host);

#endif
