/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the lab's clients, which watch a guest from outside, share.
 *
 * Rules: single-threaded, one poll loop; results go to standard output,
 * everything else to standard error. A client is ended by its SECONDS or by
 * SIGINT or SIGTERM, and prints its results either way.
 */
#ifndef LAB_HOST_H
#define LAB_HOST_H

#include <stdbool.h>
#include <stdint.h>

#define NSEC_PER_SEC  1000000000ll
#define NSEC_PER_MSEC 1000000ll
#define NSEC_PER_USEC 1000ll
#define RATE_TICK_MS  100
#define RATES_MAX     6000 /* ten minutes */

struct options {
	const char *host;
	const char *port;
	int64_t duration_ns; /* 0: until a signal */
	int64_t interval_ns;
	bool json;
};

/**
 * struct gap - the longest time between two successive events
 * @first: when the first event was, 0 if there was none
 * @last: when the last event was
 * @longest: the longest gap so far
 * @at: when that gap began
 */
struct gap {
	int64_t first;
	int64_t last;
	int64_t longest;
	int64_t at;
};

/**
 * struct tally - what a load counts of its operations once the guest is filled
 * @started_ns: since when, 0 if not yet
 * @started_at: the same by the wall clock
 * @operations: that were answered
 * @rates: operations in each RATE_TICK_MS
 * @gap: between two answers
 */
struct tally {
	int64_t started_ns;
	double started_at;
	uint64_t operations;
	uint32_t rates[RATES_MAX];
	struct gap gap;
};

extern const char *program_name;

/* Ends the program with "NAME: MESSAGE", and errno's text if @error is set. */
_Noreturn void die(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Parses HOST PORT SECONDS [--json], and --interval-us N if @interval_ns is not 0. */
struct options parse_options(int argc, char **argv, int64_t interval_ns);

/* A socket connected to the guest; for @type SOCK_STREAM it waits for the connection. */
int connect_to(const struct options *options, int type);

/* A descriptor that becomes readable when SIGINT or SIGTERM came. */
int open_signals(void);

/* A descriptor that becomes readable @first_ns from now and, if set, every @interval_ns. */
int open_timer(int64_t first_ns, int64_t interval_ns);

/*
 * Runs before everyone else where that is allowed, so that the gaps measured
 * are the guest's and not this program's own wait for a busy processor.
 */
void be_urgent(void);

int64_t now_ns(void);

/* An event at @now, or the end of the watch: what lies before it may be the longest gap. */
void gap_event(struct gap *gap, int64_t now);

/* From @now on operations count. */
void tally_start(struct tally *tally, int64_t now);

/* An operation was answered; before the start it does not count. */
void tally_operation(struct tally *tally);

/* Prints the results; @error is empty if all is well. */
void tally_print(struct tally *tally, const char *error, bool json);

static inline double milliseconds(int64_t ns)
{
	return (double)ns / NSEC_PER_MSEC;
}

#endif
