/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * compress_auto.h - which compression a stream should use now, if any.
 *
 * Pure logic: stage_compress.c tells what it was offered, what compressing
 * cost and what the network took; the answer is a method. Every stream has one
 * of its own. Model, bounds and figures: doc/decisions/0010-compress-auto.md.
 *
 *            measured: another method promises a tenth less time
 *   settled ----------------------------------------------------> trying
 *      ^                     start_trying()                          |
 *      +-------------------------------------------------------------+
 *       end_window(): it kept its promise, or the old method is back
 *
 * Time is whatever the caller's clock says; it may stand still.
 */
#ifndef GW_COMPRESS_AUTO_H
#define GW_COMPRESS_AUTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gw_auto_method {
	GW_AUTO_NONE,
	GW_AUTO_LZ4,
	GW_AUTO_ZSTD_2,
	GW_AUTO_ZSTD_3,
	GW_AUTO_METHODS,
};

/**
 * struct gw_auto_cost - what a method does with a byte offered to it: running averages.
 * @ns: time it takes
 * @ratio: bytes that come out
 * @weight: of how many batches, up to a limit; 0: not known
 */
struct gw_auto_cost {
	double ns, ratio, weight;
};

/** struct gw_auto_window - what happened since @start. */
struct gw_auto_window {
	int64_t start;
	int64_t send_ns, work_ns, trial_ns;
	double offered; /* bytes that compress could have taken */
	double out;	/* what became of them */
	double wire;	/* bytes of whole frames, other stages' too */
};

/** struct gw_auto - one stream's; read @method, the rest is compress_auto.c's. */
struct gw_auto {
	enum gw_auto_method method; /* to be used for the next batch */
	struct gw_auto_cost cost[GW_AUTO_METHODS];
	struct gw_auto_window w;
	uint64_t round;
	int64_t born, last; /* first and latest moment heard of */
	double link;	    /* ns that the network takes for a byte */
	double serial;	    /* share of making and sending that does not overlap */
	double fastest;	    /* ns a byte of the fastest send: one that did not wait */
	bool settling;	    /* the socket's buffer is not in balance yet: do not measure */
	bool hurry;	    /* nothing is known: no window needs to be whole */
	bool blocked;	    /* the last window waited for the network */
	double pace;	    /* ns a byte of the slowest sends since the link got better */
	double time_ns[GW_AUTO_METHODS]; /* a byte took, on average, when that was measured */
	double batch;			 /* bytes offered at once, lately */
	/* trying */
	bool trying;
	enum gw_auto_method from;
	double from_ns; /* a byte, measured */
	int64_t since;	/* of the switch */
	/* what may be tried, and when */
	int64_t retry[GW_AUTO_METHODS], backoff[GW_AUTO_METHODS];
	double spent; /* ns lost by trying */
	double trials_ns;
	unsigned int trials;
};

/** gw_auto_init() - a stream that has sent nothing yet. */
void gw_auto_init(struct gw_auto *a, int64_t now);

/**
 * gw_auto_offer() - a batch of @bytes has come to the stage.
 * @round: of the migration; between two rounds a stream waits, which says nothing
 *
 * Return: the method to use for it.
 */
enum gw_auto_method gw_auto_offer(struct gw_auto *a, int64_t now, uint64_t round, size_t bytes);

/** gw_auto_wants_trial() - whether all methods should be tried on a few pages of this batch. */
bool gw_auto_wants_trial(const struct gw_auto *a, int64_t now);

/** gw_auto_has_spare() - whether time for trials is to be had while the stream waits. */
bool gw_auto_has_spare(const struct gw_auto *a);

/** gw_auto_changed() - the content is not what it was: forget what trials said. */
void gw_auto_changed(struct gw_auto *a);

/** gw_auto_trial() - @method, on trial, made @out bytes of @bytes in @ns. */
void gw_auto_trial(struct gw_auto *a, enum gw_auto_method method, size_t bytes, size_t out,
		   int64_t ns);

/** gw_auto_worked() - the stream's method made @out bytes of the @bytes offered in @ns. */
void gw_auto_worked(struct gw_auto *a, size_t bytes, size_t out, int64_t ns);

/** gw_auto_sent() - a frame of @bytes went out, for which the network took @ns until @now. */
void gw_auto_sent(struct gw_auto *a, int64_t now, size_t bytes, int64_t ns);

#endif
