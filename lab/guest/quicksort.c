/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * quicksort: random numbers are sorted, over and over.
 *
 * Each pass fills the array anew and sorts it in place, each partition around
 * a pivot chosen at random. A sorted part is written no more until the next
 * pass, and an exchange that finds both numbers where they are stores what is
 * there: so this workload has warm and cold memory, and some fake writes, in
 * proportions that nobody has set. The result is checked, order and sum.
 *
 * SIGUSR1 ends a pass halfway: the program waits then, and with SIGUSR2, which may come before it
 * does, begins to sort what it sorted first. So whoever looks at what a pass takes gets the same
 * work each time, whatever came before.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "../served.h"
#include "guest.h"

/* Below this many numbers insertion is faster than another partition. */
#define SHORT 16

static volatile sig_atomic_t halted;

static void halt(int number)
{
	(void)number;
	halted = 1;
}

static void swap(uint32_t *a, uint32_t *b)
{
	uint32_t kept = *a;

	*a = *b;
	*b = kept;
}

static void insertion_sort(uint32_t *numbers, size_t count)
{
	for (size_t i = 1; i < count; i++)
		for (size_t j = i; j > 0 && numbers[j - 1] > numbers[j]; j--)
			swap(&numbers[j - 1], &numbers[j]);
}

/* Puts what is smaller than a random pivot before it, the rest behind it; where it lies then. */
static size_t partition(uint32_t *numbers, size_t count, uint64_t *random)
{
	size_t last = count - 1, at = 0;

	swap(&numbers[(next_random(random) >> 16) % count], &numbers[last]);
	for (size_t i = 0; i < last; i++)
		if (numbers[i] < numbers[last])
			swap(&numbers[at++], &numbers[i]);
	swap(&numbers[at], &numbers[last]);
	return at;
}

/* The shorter side by recursion, the longer by another turn: 32 levels are the most. */
static void quicksort(uint32_t *numbers, size_t count, uint64_t *random)
{
	while (count > SHORT && !halted) {
		size_t at = partition(numbers, count, random);
		size_t behind = count - at - 1;

		if (at < behind) {
			quicksort(numbers, at, random);
			numbers += at + 1;
			count = behind;
		} else {
			quicksort(numbers + at + 1, behind, random);
			count = at;
		}
	}
	if (!halted)
		insertion_sort(numbers, count);
}

static uint64_t sum(const uint32_t *numbers, size_t count)
{
	uint64_t result = 0;

	for (size_t i = 0; i < count; i++)
		result += numbers[i];
	return result;
}

static size_t out_of_order(const uint32_t *numbers, size_t count)
{
	size_t wrong = 0;

	for (size_t i = 1; i < count; i++)
		wrong += numbers[i - 1] > numbers[i];
	return wrong;
}

/* Until SIGUSR2, which is blocked; what it draws from then on is what it drew at first. */
static void wait_halted(const sigset_t *go_on, uint64_t *random)
{
	int number;

	puts("quicksort: waits");
	sigwait(go_on, &number);
	halted = 0;
	*random = mix64(1);
	puts("quicksort: goes on");
}

int quicksort_main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, "MIB", 1, 1 << 14, -1) * MIB_PAGES;
	size_t count = pages * PAGE_SIZE / sizeof(uint32_t);
	uint32_t *numbers = map_pages(pages);
	uint64_t random = mix64(1);
	sigset_t go_on;

	sigemptyset(&go_on);
	sigaddset(&go_on, SIGUSR2);
	sigprocmask(SIG_BLOCK, &go_on, NULL);
	signal(SIGUSR1, halt);
	for (uint64_t pass = 1;; pass++) {
		uint64_t began = now_ns(), before;
		size_t wrong;

		fill_random((uint64_t *)numbers, pages * PAGE_WORDS, &random);
		before = sum(numbers, count);
		if (pass == 1)
			puts("quicksort: filled");
		quicksort(numbers, count, &random);
		if (halted) {
			wait_halted(&go_on, &random);
			continue;
		}
		wrong = out_of_order(numbers, count);
		if (wrong || sum(numbers, count) != before)
			printf("quicksort: BAD pass %" PRIu64 ": %zu out of order, sum %s\n", pass,
			       wrong, sum(numbers, count) == before ? "right" : "wrong");
		else
			printf("quicksort: pass %" PRIu64 " ok, %" PRIu64 " ms\n", pass,
			       (now_ns() - began) / 1000000);
	}
}
