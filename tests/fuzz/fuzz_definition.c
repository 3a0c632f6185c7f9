// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_definition.c - a peer's VM definition into gw_definition_parse().
 *
 * What is accepted must be a QEMU with sane memory, and make a command line.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "define.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
	char *ram[GW_MEMORY_BLOCKS_MAX];
	struct gw_definition def;
	char **argv;

	for (size_t i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		ram[i] = (char[]){ "/ram,file" };
	if (json && !gw_definition_parse(&def, json)) {
		if (!def.nr_memory || !json_array_size(def.argv) || strchr(def.name, '/'))
			abort();
		argv = gw_definition_command(&def, "/dir", ram, 3, true);
		if (!argv[0])
			abort();
		gw_strings_free(argv);
		gw_definition_free(&def);
	}
	json_decref(json);
	return 0;
}
