// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_hosts.c - hosts: which there are, and what memory servers hold for whom. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "io.h"

static const char help[] =
	"usage: godwit hosts [--json]\n"
	"\n"
	"Show the hosts that report to the registry (see godwitd(8)), and this one: their memory,\n"
	"what is free of it, what is free for VMs that run on other hosts, in memory and on disk, and\n"
	"what each holds for whom.\n"
	"\n"
	"  --json  print the result as JSON\n";

static uint64_t number(const json_t *one, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(one, key));
}

static const char *text(const json_t *one, const char *key)
{
	const char *value = json_string_value(json_object_get(one, key));

	return value && *value ? value : "-";
}

static void print_held(const json_t *server)
{
	json_t *one, *list = json_object_get(server, "held");
	const uint64_t vms = number(server, "vms");
	char here[32], promised[32];
	size_t i;

	json_array_foreach(list, i, one) {
		printf("  %s of %s has %s here, of %s promised%s\n", text(one, "vm"),
		       text(one, "host"), gw_format_size(number(one, "here"), here, sizeof(here)),
		       gw_format_size(number(one, "promised"), promised, sizeof(promised)),
		       strcmp(text(one, "where"), "disk") ? "" : ", on disk");
	}
	if (vms > json_array_size(list))
		printf("  and %zu VMs more: see 'godwit held' there\n",
		       (size_t)vms - json_array_size(list));
}

/* "8 GiB of 16 GiB", or "-". */
static const char *of_limit(const json_t *server, const char *left, const char *limit, char out[80])
{
	char one[32], all[32];

	snprintf(out, 80, "-");
	if (number(server, limit))
		snprintf(out, 80, "%s of %s",
			 gw_format_size(number(server, left), one, sizeof(one)),
			 gw_format_size(number(server, limit), all, sizeof(all)));
	return out;
}

static void print_host(const json_t *host)
{
	const json_t *server = json_object_get(host, "memory-server");
	const int64_t ago = time(NULL) - (int64_t)number(host, "reported");
	char memory[32], left[32], others[80], disk[80], seen[40] = "now";

	if (ago > 0)
		snprintf(seen, sizeof(seen), "%lld s ago", (long long)ago);
	printf("%-20s %-22s %10s %10s %6.2f  %-24s %-24s %s\n", text(host, "name"),
	       text(host, "address"),
	       gw_format_size(number(host, "memory"), memory, sizeof(memory)),
	       gw_format_size(number(host, "free"), left, sizeof(left)),
	       json_real_value(json_object_get(host, "load")),
	       of_limit(server, "free", "limit", others),
	       of_limit(server, "swap-free", "swap-limit", disk), seen);
	print_held(server);
}

int gw_cmd_hosts(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "hosts" };
	json_t *result, *one;
	bool json = false;
	size_t i;

	while (gw_cli_options(argc, argv, longs, help) != -1)
		json = true;
	if (optind < argc)
		return gw_cli_usage("hosts", "it takes no names");
	call.args = json_object();
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	printf("%-20s %-22s %10s %10s %6s  %-24s %-24s %s\n", "NAME", "ADDRESS", "MEMORY", "FREE",
	       "LOAD", "FREE FOR OTHERS", "ON DISK", "REPORTED");
	json_array_foreach(json_object_get(result, "hosts"), i, one) {
		print_host(one);
	}
	if (!json_is_true(json_object_get(result, "registry")))
		printf("this godwitd has no registry, so it knows no others (--registry)\n");
	json_decref(result);
	return 0;
}
