/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * copier: pages are copied over others, for ever, as fast as the guest can.
 *
 * Only the second half is overwritten, by pages of either: without the first
 * half as a stock all pages would soon be the same. A table says what each
 * page holds; after as many copies as there are pages all are verified.
 */
#include <stdio.h>
#include <string.h>

#include "../served.h"
#include "guest.h"

int copier_main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES;
	size_t stock = pages / 2;
	uint64_t *memory = map_pages(pages);
	uint32_t *holds = map_pages(pages * sizeof(*holds) / PAGE_SIZE);
	uint64_t random = mix64(1);
	struct pass pass = { .name = "copier" };

	for (size_t page = 0; page < pages; page++) {
		write_pattern(memory + page * PAGE_WORDS, mix64(page));
		holds[page] = page;
	}
	puts("copier: filled");
	for (;;) {
		for (size_t i = 0; i < pages; i++) {
			/* The middle bits: xorshift's low ones are its weakest. */
			size_t from = (next_random(&random) >> 20) % pages;
			size_t to = stock + (next_random(&random) >> 20) % (pages - stock);

			memmove(memory + to * PAGE_WORDS, memory + from * PAGE_WORDS, PAGE_SIZE);
			holds[to] = holds[from];
		}
		for (size_t page = 0; page < pages; page++)
			verify_pattern(&pass, page, memory + page * PAGE_WORDS, mix64(holds[page]));
		end_pass(&pass);
	}
}
