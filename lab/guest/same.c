/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * same: memory that is written for ever and never changes.
 *
 * Every page is verified and gets one of its words stored again, as fast as
 * the guest can: to a tracker all of it is dirty, always, and none of it is.
 */
#include <stdio.h>

#include "../served.h"
#include "guest.h"

static void store_again(volatile uint64_t *word)
{
	*word = *word;
}

int same_main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES;
	uint64_t *memory = map_pages(pages);
	struct pass pass = { .name = "same" };

	for (size_t page = 0; page < pages; page++)
		write_pattern(memory + page * PAGE_WORDS, mix64(page));
	puts("same: filled");
	for (;;) {
		for (size_t page = 0; page < pages; page++) {
			uint64_t *words = memory + page * PAGE_WORDS;

			verify_pattern(&pass, page, words, mix64(page));
			store_again(&words[pass.number % PAGE_WORDS]);
		}
		end_pass(&pass);
	}
}
