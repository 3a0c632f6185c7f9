/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cpu: a guest that computes and leaves its memory alone.
 *
 * Counts primes by trial division, as sysbench's cpu test does: one event is
 * all numbers from 3 to LIMIT, each divided by every smaller number up to its
 * root. Reported are the events done in each second of the guest's clock, or,
 * if one takes longer, in the time that it took.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

static unsigned int count_primes(uint64_t limit)
{
	unsigned int primes = 0;

	for (uint64_t number = 3; number <= limit; number++) {
		uint64_t divisor = 2;

		while (divisor * divisor <= number && number % divisor)
			divisor++;
		primes += divisor * divisor > number;
	}
	return primes;
}

int cpu_main(int argc, char **argv)
{
	uint64_t limit = argument(argc, argv, 1, "LIMIT", 3, 1 << 30, 10000);
	unsigned int primes = count_primes(limit);
	uint64_t began = now_ns(), events = 0;

	puts("cpu: started");
	for (;;) {
		uint64_t now;

		if (count_primes(limit) != primes)
			puts("cpu: BAD number of primes");
		events++;
		now = now_ns();
		if (now - began < NSEC_PER_SEC)
			continue;
		printf("cpu: %.2f\n", (double)events * NSEC_PER_SEC / (now - began));
		events = 0;
		began = now;
	}
}
