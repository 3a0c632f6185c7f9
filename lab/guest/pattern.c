/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages whose every word is known, and what is said about them pass by pass.
 *
 * A bad page is reported by its first bad word, then put right, so that one
 * loss is one report.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

#define STEP	    0x9e3779b97f4a7c15
/* Reports per pass; a guest that lost everything must not drown the console. */
#define REPORTS_MAX 16

void write_pattern(uint64_t *words, uint64_t first)
{
	for (size_t i = 0; i < PAGE_WORDS; i++, first += STEP)
		words[i] = first;
}

uint64_t pattern_word(uint64_t first, size_t i)
{
	return first + i * STEP;
}

bool may_report(struct pass *pass)
{
	return ++pass->bad <= REPORTS_MAX;
}

void report_word(struct pass *pass, size_t page, size_t i, uint64_t got, uint64_t want)
{
	if (may_report(pass))
		printf("%s: BAD page %zu word %zu got %016lx want %016lx\n", pass->name, page, i,
		       got, want);
}

void verify_pattern(struct pass *pass, size_t page, uint64_t *words, uint64_t first)
{
	uint64_t value = first;
	size_t i;

	for (i = 0; i < PAGE_WORDS && words[i] == value; i++)
		value += STEP;
	if (i == PAGE_WORDS)
		return;
	report_word(pass, page, i, words[i], value);
	write_pattern(words, first);
}

void end_pass(struct pass *pass)
{
	pass->number++;
	if (pass->bad)
		printf("%s: BAD pass %lu: %u errors\n", pass->name, pass->number, pass->bad);
	else
		printf("%s: pass %lu ok\n", pass->name, pass->number);
	pass->bad = 0;
	/* The compiler may not remember what it wrote: memory is on trial. */
	__asm__ volatile("" : : : "memory");
}
