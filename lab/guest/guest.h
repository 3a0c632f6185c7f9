/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The programs inside the lab's guest: one static binary, many names.
 *
 * Rules: a program prints whole lines that begin with its name, so that the
 * lines of several programs can share one serial console; a line that holds
 * "BAD" means lost or wrong memory, and nothing else prints that word. What a
 * program cannot do at all ends it with a line on standard error.
 */
#ifndef LAB_GUEST_H
#define LAB_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE    4096
#define MIB_PAGES    256
#define NSEC_PER_SEC 1000000000ull

int memtest_main(int argc, char **argv);
int fill_main(int argc, char **argv);
int text_main(int argc, char **argv);
int wset_main(int argc, char **argv);
int same_main(int argc, char **argv);
int flip_main(int argc, char **argv);
int latency_main(int argc, char **argv);
int copier_main(int argc, char **argv);
int quicksort_main(int argc, char **argv);
int busy_main(int argc, char **argv);
int cpu_main(int argc, char **argv);
int diskio_main(int argc, char **argv);
int stream_main(int argc, char **argv);
int churn_main(int argc, char **argv);
int linear_main(int argc, char **argv);
int encrypt_main(int argc, char **argv);
int shop_main(int argc, char **argv); /* in servers.img alone */
int served_main(int argc, char **argv);
int execd_main(int argc, char **argv);
int reaper_main(int argc, char **argv);

/* Ends the program with "NAME: MESSAGE", and errno's text if @error is set. */
_Noreturn void die(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * argument() - the number at argv[@index]
 * @name: what the user calls it, for the message
 * @fallback: taken if there are not so many arguments; below @min: it must be given
 *
 * Ends the program if the argument is missing or not within @min..@max.
 */
uint64_t argument(int argc, char **argv, int index, const char *name, uint64_t min, uint64_t max,
		  int64_t fallback);

/* Fresh zeroed memory of @pages pages, page-aligned; ends the program if there is none. */
void *map_pages(size_t pages);

/* Goes on in the background; who waits for the program learns that it is ready. */
void go_background(void);

uint64_t now_ns(void);

/* Waits until the monotonic clock shows @ns. */
void sleep_until(uint64_t ns);

/* xorshift64: good enough to defeat a compressor, and cheap under TCG. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* Overwrites @words words at @to with random data. */
void fill_random(uint64_t *to, size_t words, uint64_t *state);

/**
 * access_at() - reads or writes pages for ever
 * @mib_per_second: how much of them; 0: as fast as the guest can
 * @access_next: does so with one page
 * @look: called now and then, with the time; may be NULL
 */
_Noreturn void access_at(uint64_t mib_per_second, void (*access_next)(void *arg),
			 void (*look)(void *arg, uint64_t now), void *arg);

/* One pass of a program over its memory. */
struct pass {
	const char *name; /* the program's */
	uint64_t number;  /* passes done */
	unsigned int bad; /* errors in this one */
};

/* Overwrites a page by the pattern whose first word is @first; its word @i. */
void write_pattern(uint64_t *words, uint64_t first);
uint64_t pattern_word(uint64_t first, size_t i);

/* Whether an error, which is counted, shall be printed. */
bool may_report(struct pass *pass);

/* Counts, and perhaps prints, that word @i of @page is not what it should be. */
void report_word(struct pass *pass, size_t page, size_t i, uint64_t got, uint64_t want);

/* Reports and repairs page @page at @words unless it holds the pattern of @first. */
void verify_pattern(struct pass *pass, size_t page, uint64_t *words, uint64_t first);

/* Prints how the pass was; the next one begins. */
void end_pass(struct pass *pass);

#endif
