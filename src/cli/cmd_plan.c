// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_plan.c - plan: which host a VM would best move to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "error.h"
#include "io.h"

static const char plan_help[] =
	"usage: godwit plan NAME [--downtime-limit MS] [--json]\n"
	"\n"
	"Predict what moving a VM to each of the other hosts would cost, best host first. Nothing\n"
	"is moved. It is predicted from what hosts have told the registry (see godwitd(8)):\n"
	"how much of the VM's memory each has kept, how fast links were, and how fast the guest\n"
	"writes. What nobody has measured is assumed, and said to be so.\n"
	"\n"
	"  --downtime-limit MS  as for godwit migrate (300)\n"
	"  --json               print the prediction as one JSON object\n";

static double number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static uint64_t bytes_of(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void print_host(const json_t *host, double pages)
{
	char send[32], free_bytes[32], reuse[16], total[24], downtime[24];
	const char *address = text_of(host, "address");

	gw_format_size(bytes_of(host, "wire-bytes"), send, sizeof(send));
	gw_format_size(bytes_of(host, "free"), free_bytes, sizeof(free_bytes));
	snprintf(reuse, sizeof(reuse), "%.0f %%",
		 pages > 0 ? number_of(host, "reused") * 100 / pages : 0.0);
	snprintf(total, sizeof(total), "%.1f s", number_of(host, "total-time") / 1000);
	snprintf(downtime, sizeof(downtime), "%.0f ms", number_of(host, "downtime"));
	printf("%-20s %-22s %6s %10s %10s %10s %10s  %s\n", text_of(host, "host"),
	       address[0] ? address : "-", reuse, send, total, downtime, free_bytes,
	       text_of(host, "note"));
}

int gw_cmd_plan(int argc, char **argv)
{
	static const struct option longs[] = { { "downtime-limit", 1, NULL, 'd' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "plan" };
	const json_t *hosts, *host;
	const char *name = NULL;
	bool json = false;
	long limit = 300;
	json_t *result;
	size_t i;
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, plan_help)) != -1) {
			if (opt == 'j')
				json = true;
			else if (gw_cli_number(optarg, 1, 3600000, &limit))
				return gw_cli_usage("plan", gw_error());
		}
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!name || optind < argc)
		return gw_cli_usage("plan", "one NAME is needed");
	call.args = json_pack("{s:s,s:I}", "name", name, "downtime-limit", (json_int_t)limit);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	hosts = json_object_get(result, "hosts");
	if (!json_array_size(hosts))
		fprintf(stderr, "godwit: the registry knows no other host\n");
	else
		printf("%-20s %-22s %6s %10s %10s %10s %10s  %s\n", "HOST", "ADDRESS", "REUSE",
		       "SEND", "TIME", "DOWNTIME", "FREE", "NOTE");
	json_array_foreach(hosts, i, host) {
		print_host(host, number_of(result, "pages"));
	}
	json_decref(result);
	return 0;
}
