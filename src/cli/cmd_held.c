// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_held.c - held: what VMs that run on other hosts have in this host's memory. */
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

static const char help[] =
	"usage: godwit held [--json]\n"
	"       godwit held --drop ID [--confirm] [--json]\n"
	"\n"
	"Show the memory that this host holds for VMs which run on other hosts (godwit split):\n"
	"whose it is, how much was promised, how much lies here, and whether the VM's host is\n"
	"connected.\n"
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

static void print_table(const json_t *result)
{
	const json_t *list = json_object_get(result, "held"), *one;
	char size[32], here[32];
	uint64_t promised = 0;
	size_t i;

	printf("%-20s %-20s %10s %10s  %-9s  %s\n", "NAME", "HOST", "PROMISED", "HERE", "CONNECTED",
	       "ID");
	json_array_foreach(list, i, one) {
		promised += number(one, "size");
		printf("%-20s %-20s %10s %10s  %-9s  %s\n", text(one, "name"), text(one, "host"),
		       gw_format_size(number(one, "size"), size, sizeof(size)),
		       gw_format_size(number(one, "held"), here, sizeof(here)),
		       json_is_true(json_object_get(one, "connected")) ? "yes" : "no",
		       text(one, "id"));
	}
	if (number(result, "limit"))
		printf("%s promised, of %s (memory-server-limit)\n",
		       gw_format_size(promised, size, sizeof(size)),
		       gw_format_size(number(result, "limit"), here, sizeof(here)));
	else
		printf("no more is promised: godwitd has no --memory-server-limit\n");
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
