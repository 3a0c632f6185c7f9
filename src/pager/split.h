/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * split.h - a running guest whose memory is only in part on this host (decision 32): pages come
 * from the memory servers that hold them, and units leave for these, so that no more than a
 * limit is here.
 *
 *   a fault                      gw_split_fault(), in the thread of a userfaultfd
 *     MISSING, not away            is a page of zeros from now on
 *     MISSING, away                is wanted, and asked for once; with no room left it waits
 *     WP                           its unit is leaving: it stays (gw_split_left() hears of it)
 *   a page that comes            gw_split_place(), in the thread of a connection
 *   a unit that leaves           gw_split_leave(); its bytes are sent; gw_split_left()
 *
 *   here ──> leaving ──> away     leave: write-protected. left: away, then punched, then not
 *    ^ ^        │          │      protected any more
 *    │ └────────┘          │      a write came in between, or nobody could store it
 *    └─────────────────────┘      place: noted, UFFDIO_COPY, not away, not noted
 *
 * Where pages may be pinned by direct I/O (F10), which no protection stops, a unit is protected
 * while none is in flight, and may leave after that: gw_split_prepare(). Whoever pins a page of it
 * from then on faults.
 *
 * Where each page is stored twice, a unit leaves for two holders, and is away as soon as one has it
 * and the other has it, or will not. A page is asked of one of them, and of the other when that one
 * cannot be asked, has failed or has not got it. Both are told that it came.
 *
 * Rules: what changes a unit's state is done under the lock of its stripe, the kernel's calls
 * included; so no fault finds a page in between. Nothing waits under it but for the kernel. A page
 * is asked for once, and what was not asked for is not placed: an answer that is late would be
 * old bytes. Memory and hosts are reached through ops, so that tests can hold anybody anywhere.
 */
#ifndef GW_SPLIT_H
#define GW_SPLIT_H

#include <pthread.h>

#include "times.h"
#include "netpt.h"

#define GW_UNIT_WORDS (GW_UNIT_PAGES_MAX / 64)

/* Pages that are wanted and not asked for, beyond which they are looked for among all. */
#define GW_SPLIT_DEFERRED 1024

/*
 * With a page comes what lies around it: all of its unit (the paper's) where several of so many
 * requests before it lay there or in the unit before, 64 pages where one did, else 16. So a guest
 * that goes through its memory waits once a unit, and one that touches it at random brings little
 * that nobody needs.
 */
#define GW_SPLIT_RECENT 8
#define GW_AHEAD_PAGES	16
#define GW_AHEAD_NEAR	64

/* Where a test may hold a thread, and kill the process. */
enum gw_split_park {
	GW_SPLIT_NOTED,	    /* a page is about to be placed */
	GW_SPLIT_COPIED,    /* the guest sees it; the table does not say so */
	GW_SPLIT_CAME,	    /* it does; its holder has it still */
	GW_SPLIT_PROTECTED, /* a unit is write-protected, and nobody knows that it leaves */
	GW_SPLIT_LEAVING,   /* its bytes may be read */
	GW_SPLIT_STORED,    /* its holder has them; all of it is here */
	GW_SPLIT_AWAY,	    /* the table says so; it is not punched */
	GW_SPLIT_PUNCHED,   /* it is; still protected */
	GW_SPLIT_LEFT,
	GW_SPLIT_FAULT, /* a fault was read */
};

struct gw_split_ops {
	int64_t (*now)(void *env);
	/* UFFDIO_COPY, which wakes: 0, -EEXIST, -ESRCH, -EAGAIN, ... @copied: how many. */
	int (*copy)(void *env, size_t page, size_t count, const void *bytes, size_t *copied);
	int (*zero)(void *env, size_t page);
	/* -EAGAIN: not now; some of them may be. */
	int (*protect)(void *env, size_t page, size_t count);
	/* And whoever waits for one of them tries again. */
	int (*unprotect)(void *env, size_t page, size_t count);
	void (*wake)(void *env, size_t page, size_t count);
	/* Which of @count pages, of one unit, are in the file: bit i for page @page + i. */
	int (*present)(void *env, size_t page, size_t count, uint64_t bits[GW_UNIT_WORDS]);
	/*
	 * Ask @holder for @n pages, ascending, now. Must not wait. -errno: it cannot be asked:
	 * gw_split_ask(), once it can.
	 */
	int (*request)(void *env, unsigned int holder, const size_t *pages, unsigned int n);
	/* Of these, all of one unit, what is away is worth fetching, too. Must not wait. */
	void (*fetch)(void *env, unsigned int holder, size_t first, size_t count);
	/* @holder need not keep these: in order with what is sent to it. Must not wait. */
	void (*release)(void *env, unsigned int holder, size_t page, size_t count);
	/* These pages of the guest were used. */
	void (*touched)(void *env, size_t page, size_t count);
	/* More, or less, is here than there was. */
	void (*notify)(void *env);
	/* For tests; may be NULL. */
	void (*park)(void *env, enum gw_split_park where, size_t page);
};

/** struct gw_split_stats - what has happened in this process. */
struct gw_split_stats {
	struct gw_fault_stats faults; /* on pages that were away */
	uint64_t page_ins, page_outs; /* pages */
	uint64_t units_out;	      /* that were sent */
	uint64_t units_kept;	      /* of these, that were written meanwhile */
	uint64_t deferred;	      /* faults that waited for room */
	uint64_t ahead;		      /* of page_ins, those that nobody waited for */
};

struct gw_split {
	/* set by the caller */
	const struct gw_split_ops *ops;
	void *env;
	const struct gw_memory *memory;
	struct gw_netpt table;
	_Atomic uint64_t limit; /* pages that may be here */

	_Atomic uint64_t coming;      /* pages asked for, or just being made */
	_Atomic unsigned int threads; /* that place pages */
	bool pinned;		      /* pages may be: only what was prepared leaves */
	bool moves;		      /* what changes is noted from the start (changes.h) */
	_Atomic bool quiesces;	      /* the guest is to stand still, and must get that far */
	_Atomic bool frozen;	      /* nothing leaves, and what comes stays at its holder, too */
	_Atomic bool owes;	      /* and something has come */
	_Atomic bool gone;	      /* QEMU has ended */
	_Atomic bool retry;	 /* this host has no memory for a page that somebody waits for: to
				    be tried again, by all of them, after a while */
	_Atomic bool told_short; /* and that was said */

	gw_shared_word *wanted, *asked; /* a bit a page */
	gw_shared_word *second;	  /* of what is asked for: of its second holder; may be NULL */
	gw_shared_word *lost;	  /* their holder has said that it has not got them */
	gw_shared_word *changed;  /* changes.h; NULL: nobody wants to know */
	_Atomic uint8_t *leaving; /* a byte a unit: enum in split.c */
	size_t bits_len, units_len;
	pthread_mutex_t stripes[GW_NETPT_STRIPES];

	struct gw_fault_times times;
	pthread_mutex_t lock; /* of what follows */
	struct gw_split_stats stats;
	size_t deferred[GW_SPLIT_DEFERRED];
	unsigned int nr_deferred;
	bool overflown;			/* there are more: among wanted */
	size_t recent[GW_SPLIT_RECENT]; /* units that were asked for */
	unsigned int next_recent;
};

/** gw_split_init() - for @s->memory. The table is made or opened by the caller. 0/-ENOMEM. */
int gw_split_init(struct gw_split *s, unsigned int threads);
/** gw_split_free() - and close the table. */
void gw_split_free(struct gw_split *s);

/**
 * gw_split_mend() - before anything else, where another process has paged: what it left half done
 * is done, and nothing is protected any more. 0 or -errno with a message.
 */
int gw_split_mend(struct gw_split *s);

/** gw_split_fault() - @n that wait (GW_FAULTS_MAX at most). Any thread. */
void gw_split_fault(struct gw_split *s, const struct gw_fault *faults, unsigned int n);

/**
 * gw_split_place() - @count pages from @page have come.
 * @bytes: NULL: zeros
 *
 * What was not asked for, or is here, is dropped. What this host has no memory for is asked for
 * again (gw_split_ask()).
 */
void gw_split_place(struct gw_split *s, size_t page, size_t count, const uint8_t *bytes);

/**
 * gw_split_absent() - @holder has not got @count pages from @page. Those that another has are asked
 * of that one. The others are lost, unless they are found there before gw_split_unask(); nobody
 * is asked for them until then.
 * @dropped: how many another has
 *
 * Return: how many of them were not known to be lost.
 */
size_t gw_split_absent(struct gw_split *s, unsigned int holder, size_t page, size_t count,
		       size_t *dropped);

/**
 * gw_split_rest() - what of @count pages from @first, all of one unit, is away, at @holder, and not
 * asked for: asked of it from here on, by the caller. Return: how many; 0: none, or there is no
 * room.
 * @pages: GW_UNIT_PAGES_MAX, ascending
 */
unsigned int gw_split_rest(struct gw_split *s, unsigned int holder, size_t first, size_t count,
			   size_t *pages);

/** gw_split_ask() - ask for whatever is wanted and not asked for, where there is room. */
void gw_split_ask(struct gw_split *s);

/** gw_split_unask() - @holder is gone: what it was asked for will not come, nor what it said be
 * true. */
void gw_split_unask(struct gw_split *s, unsigned int holder);

/** gw_split_has_room() - whether a unit more may be fetched that nobody waits for. */
bool gw_split_has_room(const struct gw_split *s);

/** struct gw_leaving - a unit on its way out, the caller's. */
struct gw_leaving {
	size_t unit, first, count;
	unsigned int to[GW_COPIES_MAX]; /* as the table numbers its holders; or GW_NO_HOLDER */
	uint64_t pages[GW_UNIT_WORDS];	/* of it, that leave; bit i is page first + i */
	/* Of these, that are zero: set by the caller, and by who sends them to its second holder.
	 */
	uint64_t zero[GW_UNIT_WORDS], zero_second[GW_UNIT_WORDS];
};

/**
 * gw_split_prepare() - write-protect @unit, with no direct I/O in flight: it may leave from here
 * on. Return: whether it may.
 */
bool gw_split_prepare(struct gw_split *s, size_t unit);

/**
 * gw_split_leave_to() - write-protect @unit: what is here of it is leaving. The caller reads it
 * from the memory, sends what is not zero to those in @l->to, and calls gw_split_left().
 *
 * Return: how many pages; 0: none, or not now, or another holder has the rest of it, and
 * nothing is to be done; -errno.
 */
int gw_split_leave_to(struct gw_split *s, size_t unit, const unsigned int to[GW_COPIES_MAX],
		      struct gw_leaving *l);

/** gw_split_leave() - the same, for one holder. */
static inline int gw_split_leave(struct gw_split *s, size_t unit, unsigned int holder,
				 struct gw_leaving *l)
{
	const unsigned int to[GW_COPIES_MAX] = { holder, GW_NO_HOLDER };

	return gw_split_leave_to(s, unit, to, l);
}

/** gw_split_stays() - whether a unit that is leaving was written meanwhile: no need to send it. */
bool gw_split_stays(const struct gw_split *s, const struct gw_leaving *l);

/**
 * gw_split_left() - its holders @stored, bit k for @l->to[k], have what was sent of it: so it is
 * away, unless it was written meanwhile; or nobody has, and it stays. 0 or -errno with a message.
 */
int gw_split_left(struct gw_split *s, const struct gw_leaving *l, unsigned int stored);

/**
 * gw_split_freeze() - from here on what lies at the holders is as the table says at this moment,
 * whatever comes: nothing leaves, what is on its way out stays, and nothing is released. Whoever
 * waits for a page gets it, beyond the limit if need be.
 */
void gw_split_freeze(struct gw_split *s);

/** gw_split_thaw() - Return: whether holders have what they need not: each is to compare. */
bool gw_split_thaw(struct gw_split *s);

/** gw_split_stripe() - whoever changes the state of unit @unit holds this. */
static inline pthread_mutex_t *gw_split_stripe(struct gw_split *s, size_t unit)
{
	return &s->stripes[unit % GW_NETPT_STRIPES];
}

/** gw_split_here() - how many pages are here, as the files say. */
uint64_t gw_split_here(const struct gw_split *s);

/** gw_split_stats() - a copy. */
void gw_split_stats(struct gw_split *s, struct gw_split_stats *stats);

#endif
