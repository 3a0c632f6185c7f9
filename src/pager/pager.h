/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pager.h - a running guest whose memory is still to come: who waits for what, who
 * brings what, and who lets whom go on.
 *
 *   a fault                      gw_pager_fault(), in the thread of a userfaultfd
 *     on a page that is there      is let go on at once
 *     on a missing one             is wanted; asked for once, however many wait for it
 *   a page that comes            dest/place.c, in the thread of a connection
 *     claim                        gw_pager_claim(): requests and pushes cross, one is dropped
 *     its bytes into the file      nobody sees them: who faults waits
 *     placed                       gw_pager_placed(): the table says so (missing.h); then who
 *                                  wants it goes on
 *   a page that lies here        unchecked (decision 29): it may be right, and nobody has looked.
 *                                Whoever claims it takes that mark and looks: a fault first of
 *                                all, else gw_pager_check(). It is placed, or lacking like others
 *
 * Neither misses the other: a fault is wanted before it looks whether the page is missing, a
 * page is placed before it is looked at whether somebody wants it.
 *
 * Rules: nothing here allocates, and nothing waits but for the kernel. The memory and the
 * source are reached through ops, so that tests can hold anybody anywhere.
 */
#ifndef GW_PAGER_H
#define GW_PAGER_H

#include "missing.h"
#include "times.h"

/* Pages around one that is there which are let be seen with it, as the kernel does. */
#define GW_FAULT_AROUND 16

/* Unchecked pages that are claimed at a time, and whose readers wait for one another. */
#define GW_COMPARED_MAX 16

/* Where a test may hold a thread, and kill the process. */
enum gw_park {
	GW_PARK_CLAIMED, /* its bytes are not in the file */
	GW_PARK_WRITTEN, /* they are; the table does not say so */
	GW_PARK_PLACED,	 /* it does; nobody sees it yet */
	GW_PARK_MAPPED,	 /* whoever waited goes on */
	GW_PARK_FAULT,	 /* a fault was read */
	GW_PARK_WANTED,	 /* it is wanted; whether it is missing is not yet looked at */
};

struct gw_pager_ops {
	int64_t (*now)(void *env);
	/*
	 * Let @count pages from @page, in one file, be seen, and wake who waits. Set @mapped
	 * to how many are, from the first on. 0; -EEXIST: the first was; -EFAULT: it is a hole;
	 * -ESRCH: QEMU has ended; -EAGAIN; or another -errno.
	 */
	int (*map)(void *env, size_t page, size_t count, size_t *mapped);
	/* The same for one page that is a hole, and then is a page of zeros. */
	int (*map_zero)(void *env, size_t page);
	/* Whoever waits for one of them tries again. */
	void (*wake)(void *env, size_t page, size_t count);
	/*
	 * Ask the source for @n pages, ascending. Must not wait; what cannot be asked now is
	 * asked for when it can be reached again (gw_pager_wanted()).
	 */
	void (*request)(void *env, const size_t *pages, unsigned int n);
	/*
	 * Which of @count pages from @page, GW_COMPARED_MAX at most, are right as they lie in
	 * the file. And tell the source of those that are not, and that nobody waits for.
	 * Where pages are unchecked, or are told by digests; else both may be NULL.
	 */
	void (*compare)(void *env, size_t page, unsigned int count, bool *right);
	void (*refuse)(void *env, size_t page, unsigned int count);
	/* Something has changed that whoever watches the whole should look at. */
	void (*notify)(void *env);
	/* For tests; may be NULL. */
	void (*park)(void *env, enum gw_park where, size_t page);
};

struct gw_pager {
	/* set by the caller */
	const struct gw_pager_ops *ops;
	void *env;
	const struct gw_memory *memory;
	struct gw_missing missing;

	gw_shared_word *claimed, *wanted; /* a bit a page */
	/*
	 * Of the missing: what may be right as it lies there, but nobody has looked; and what
	 * was found not to be. The first is NULL where there is nothing of the kind.
	 */
	gw_shared_word *unchecked, *refused;
	size_t len; /* of each, in bytes */
	_Atomic size_t unchecked_left;
	_Atomic bool torn;  /* a page was written in part: its base is lost */
	_Atomic bool retry; /* somebody waits for memory of this host */
	_Atomic bool gone;  /* QEMU has ended */

	struct gw_fault_times times; /* of faults on pages that were missing */
	_Atomic uint64_t local;	     /* faults on pages that were there */
};

/** gw_pager_init() - for what @p->memory holds. The table is made or opened by the caller.
 * 0/-ENOMEM.
 */
int gw_pager_init(struct gw_pager *p);
/** gw_pager_free() - and close the table. */
void gw_pager_free(struct gw_pager *p);

/** gw_pager_fault() - @n that wait (GW_FAULTS_MAX at most). Any thread. */
void gw_pager_fault(struct gw_pager *p, const struct gw_fault *faults, unsigned int n);

/** gw_pager_hear() - the same, of a struct gw_pager, for gw_faults_start(). */
void gw_pager_hear(void *pager, const struct gw_fault *faults, unsigned int n);

/**
 * gw_pager_claim() - the next pages of [*page, end) that are ours to place.
 * Return: how many from *page; 0: there are no more.
 */
size_t gw_pager_claim(struct gw_pager *p, size_t *page, size_t end);

/**
 * gw_pager_check_rest() - before it begins: all pages that are not missing are, but only until
 * somebody has compared them. They join the table, which a successor believes: it asks for
 * them all. 0 or -errno.
 */
int gw_pager_check_rest(struct gw_pager *p);

/**
 * gw_pager_check() - compare the unchecked pages of [first, stop) that nobody has claimed. Any
 * thread.
 */
void gw_pager_check(struct gw_pager *p, size_t first, size_t stop);

/**
 * gw_pager_lacking() - the next run of pages that only the source has: missing, and not unchecked.
 * @at: where to begin; moves behind it
 * Return: how many pages from @first; 0: there is none.
 */
size_t gw_pager_lacking(const struct gw_pager *p, size_t *at, size_t *first);

/**
 * gw_pager_refused() - the next run of pages that were refused and are missing; as
 * gw_pager_lacking(). For a source that was not there to hear of it.
 */
size_t gw_pager_refused(const struct gw_pager *p, size_t *at, size_t *first);

/** gw_pager_unclaim() - they could not be placed; @torn: and may be half written. */
void gw_pager_unclaim(struct gw_pager *p, size_t page, size_t count, bool torn);

/** gw_pager_lack() - what lies there of claimed pages is wrong: the source is to be told. */
void gw_pager_lack(struct gw_pager *p, size_t page, size_t count);

/** gw_pager_written() - for tests: the bytes of claimed pages are in the file. */
void gw_pager_written(struct gw_pager *p, size_t page);

/** gw_pager_placed() - claimed pages lie in the file: who wants one goes on. */
void gw_pager_placed(struct gw_pager *p, size_t page, size_t count);

/**
 * gw_pager_wanted() - pages that somebody waits for and that are missing, to ask for them again.
 * @at: where to begin; moves on
 * Return: how many of @most are in @pages; 0: there are no more.
 */
unsigned int gw_pager_wanted(const struct gw_pager *p, size_t *at, size_t *pages,
			     unsigned int most);

#endif
