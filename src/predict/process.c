// SPDX-License-Identifier: GPL-2.0-or-later
/* process.c - address spaces by CR3; see process.h. */
#include <stdlib.h>
#include <string.h>

#include "process.h"

/* Bits 0 to 11: the identifier, or cache control; 12: Linux's user half; 63: of a write to CR3. */
#define SAYS_NOTHING (0x1fffULL | 1ULL << 63)

/* An address space's table is a page, so its number ends in zeros. */
#define REGION 1ULL

uint64_t gw_process_of(uint64_t cr3)
{
	return cr3 & ~SAYS_NOTHING;
}

uint64_t gw_process_region(uint64_t page)
{
	return page / GW_PROCESS_REGION_PAGES << 1 | REGION;
}

size_t gw_process_parse(const char *text, uint64_t *processes, size_t most)
{
	static const char word[] = "CR3=";
	size_t n = 0;

	while (n < most && (text = strstr(text, word))) {
		char *end;
		const uint64_t cr3 = strtoull(text + strlen(word), &end, 16);

		if (end != text + strlen(word))
			processes[n++] = gw_process_of(cr3);
		text = end;
	}
	return n;
}
