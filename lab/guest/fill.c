/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fill: memory that must travel and then never changes.
 *
 * Incompressible data, the same for the same seed, and no instruction more
 * once it is there.
 */
#include <stdio.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

int fill_main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES;
	uint64_t random = mix64(argument(argc, argv, 2, "SEED", 0, UINT64_MAX, 1)) | 1;

	fill_random(map_pages(pages), pages * PAGE_WORDS, &random);
	puts("fill: filled");
	for (;;)
		pause();
}
