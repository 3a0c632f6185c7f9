// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_held.c - held: what VMs that run on other hosts have in this host's memory, or on its disk.
 */
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

static const char help[] =
	"usage: godwit held [--json]\n"
	"       godwit held --drop ID [--confirm] [--json]\n"
	"\n"
	"Show the memory that this host holds for VMs which run on other hosts (godwit split):\n"
	"whose it is, how much was promised, how much lies here, in memory or on a disk, and whether\n"
	"the VM's host is connected.\n"
	"\n"
	"  --drop ID  drop what lies here under ID, and its promise, where the VM's host will never\n"
	"             come for it. Not while that is connected. THE VM LOSES THESE PAGES: if it\n"
	"             runs still, it cannot go on\n"
	"  --confirm  yes, drop it, though some of the VM's memory lies here\n"
	"  --json     print the result as JSON\n";

static uint64_t number(const json_t *one, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(one, key));
}

static const char *text(const json_t *one, const char *key)
{
	return json_string_value(json_object_get(one, key));
}

static void print_sum(const json_t *result, uint64_t promised, const char *where, const char *limit,
		      const char *left, const char *option)
{
	char sum[32], all[32], more[32];

	if (!promised && !number(result, limit))
		return;
	printf("%s promised %s, of %s (%s); %s more may be\n",
	       gw_format_size(promised, sum, sizeof(sum)), where,
	       gw_format_size(number(result, limit), all, sizeof(all)), option,
	       gw_format_size(number(result, left), more, sizeof(more)));
}

static void print_table(const json_t *result)
{
	const json_t *list = json_object_get(result, "held"), *one;
	char size[32], here[32];
	uint64_t memory = 0, disk = 0;
	size_t i;

	printf("%-20s %-20s %10s %10s  %-6s  %-9s  %s\n", "NAME", "HOST", "PROMISED", "HERE",
	       "WHERE", "CONNECTED", "ID");
	json_array_foreach(list, i, one) {
		const bool on_disk = !strcmp(text(one, "where"), "disk");

		*(on_disk ? &disk : &memory) += number(one, "size");
		printf("%-20s %-20s %10s %10s  %-6s  %-9s  %s%s\n", text(one, "name"),
		       text(one, "host"), gw_format_size(number(one, "size"), size, sizeof(size)),
		       gw_format_size(number(one, "held"), here, sizeof(here)), text(one, "where"),
		       json_is_true(json_object_get(one, "connected")) ? "yes" : "no",
		       text(one, "id"),
		       json_is_true(json_object_get(one, "failed")) ? "  THE DISK HAS LOST SOME"
								    : "");
	}
	print_sum(result, memory, "in memory", "limit", "free", "memory-server-limit");
	print_sum(result, disk, "on disk", "swap-limit", "swap-free", "swap-limit");
	if (!number(result, "limit") && !number(result, "swap-limit"))
		printf("no more is promised: godwitd has neither --memory-server-limit nor "
		       "--swap-dir\n");
}

int gw_cmd_held(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "drop", 1, NULL, 'd' }, { "confirm", 0, NULL, 'c' }, { "json", 0, NULL, 'j' },
		{ "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	struct gw_call call = { .command = "held" };
	bool json = false, confirm = false;
	const char *drop = NULL;
	json_t *result;
	char freed[32];
	int opt;

	while ((opt = gw_cli_options(argc, argv, longs, help)) != -1) {
		json = json || opt == 'j';
		confirm = confirm || opt == 'c';
		if (opt == 'd')
			drop = optarg;
	}
	if (optind < argc)
		return gw_cli_usage("held", "it takes no names");
	if (confirm && !drop)
		return gw_cli_usage("held", "--confirm is for --drop");
	call.args = json_pack("{s:s*,s:b}", "drop", drop, "confirm", (int)confirm);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	if (drop)
		printf("dropped %s that VM '%s' of host '%s' had here\n",
		       gw_format_size(number(result, "freed"), freed, sizeof(freed)),
		       text(result, "name"), text(result, "host"));
	else
		print_table(result);
	json_decref(result);
	return 0;
}
