/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit-agent: tells the host which page frames hold what a disk holds too.
 *
 *   main.c      options
 *   port.c      the conversation with the host
 *   report.c    one stream: of what the kernel module tells, or of what is found here
 *   disks.c     which file systems there are, and on which disks
 *   walk.c      their files
 *   resident.c  the pages of a file that lie in the page cache
 *
 * What goes over the wire is in ../abi.h.
 *
 * Rules: memory is bounded, whatever lies on the disks. Nothing is done unless
 * the host asks. The page cache is left as it is found: nothing is read ahead,
 * no file's time of access changes, pages do not become younger. The walk over
 * the file systems, for who does without the module, cannot help reading folders
 * and inodes.
 *
 * Functions return 0 or -errno.
 */
#ifndef GODWIT_AGENT_H
#define GODWIT_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../abi.h"

#define AGENT_VERSION "0.1.0"
/* A frame's, and of whole pairs. */
#define PIECE_MAX \
	((GW_AGENT_FRAME_MAX - sizeof(struct gw_agent_frame)) & ~(sizeof(struct gw_cache_pair) - 1))

/* Where a stream goes. */
struct sink {
	/* Takes the next bytes, a multiple of 16 of them. */
	int (*put)(struct sink *sink, const void *data, size_t size);
	/* 0, or why nobody waits for the rest any more. */
	int (*wanted)(struct sink *sink);
};

struct report {
	struct sink *sink;
	uint32_t source; /* enum gw_agent_source */
	uint64_t runs, pages;
	char problem[160]; /* for the host's user, if it failed */

	/* The run that may still grow, */
	uint64_t frame, place;
	uint32_t grown;
	/* and what has not gone to the sink yet. */
	struct gw_cache_pair *pairs;
	size_t held;
	unsigned int disks;
};

/* Writes one stream to @report->sink. -ECANCELED: nobody waits for it any more. */
int report_write(struct report *report);

/* Pages in a row, of disk @disk of the stream. */
int report_pages(struct report *report, uint64_t frame, uint32_t pages, unsigned int disk,
		 uint64_t sector);

/* Records what is wrong, and returns -@error. */
int report_fail(struct report *report, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A file system, on a disk that the host knows. */
struct file_system {
	dev_t dev;
	int index; /* of the disk in the stream */
	bool xfs;
	bool whole;	  /* its root is what is mounted there */
	char *mounted;	  /* where */
	char disk[32];	  /* the disk's name, vda */
	char text[64];	  /* as the host knows it */
	uint64_t start;	  /* of the file system on the disk, in sectors */
	uint64_t sectors; /* of the disk */
};

/* All of them. The caller frees by disks_free(). */
int disks_find(struct file_system **found, size_t *count);
void disks_free(struct file_system *found, size_t count);
/* Finds the disk of system->dev, and where on it that begins; false: the host does not know it. */
bool disks_name(struct file_system *system);

/* The pages of all files of @system. */
struct walk {
	struct report *report;
	const struct file_system *system;
	int64_t deadline; /* of the monotonic clock, in seconds */
	struct finder *finder;
};

int walk_files(struct walk *walk);

/* Finds pages of one file after the other. */
struct finder *finder_new(struct report *report);
void finder_free(struct finder *finder);
int finder_file(struct walk *walk, int fd, uint64_t size);

/* Answers on the port for ever; returns why that came to an end. */
int port_serve(const char *path);

#endif
