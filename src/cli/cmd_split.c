// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_split.c - split, merge, evacuate: a VM's memory at other hosts, back, and from one to others.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "error.h"
#include "io.h"

static const char split_help[] =
	"usage: godwit split NAME --to HOST:PORT[=SIZE][,...] --main-memory SIZE [options]\n"
	"       godwit split NAME --to auto:N --main-memory SIZE [options]\n"
	"\n"
	"Keep only a part of a VM's memory on this host while it runs here. The rest, what it has\n"
	"not touched for longest, goes to memory servers: godwitds of other hosts that may hold\n"
	"some. What the guest touches comes back, and something colder leaves.\n"
	"Ends when no more than --main-memory is here; the VM stays split until godwit merge.\n"
	"\n"
	"  --to HOST:PORT[=SIZE]   a sub-host, and how much may be put there (default: all that\n"
	"                          is more than --main-memory); several with commas\n"
	"  --to auto:N             the N hosts of the registry that may hold most (godwit hosts)\n"
	"  --main-memory SIZE      what may stay here, e.g. 2G\n"
	"  --chunk-pages N         pages that leave together, and of which some or all come with one\n"
	"                          that the guest needs; a power of two up to 512\n"
	"                          (default 256; on huge pages always 512)\n"
	"  --replicas 2            have each page stored by two sub-hosts, so that one may die: the\n"
	"                          guest runs on, and what it held is stored again elsewhere\n"
	"  --history-period MS     how often to look which pages are used (default 1000)\n"
	"  --history-shift N       a use counts half as much after N periods (default 10)\n"
	"  --json                  print the result as JSON\n"
	"\n"
	"A VM that is split can migrate, and what the sub-hosts have stays there. A sub-host that is\n"
	"lost stops those of the guest's processors that need what only it has, until it is back.\n";

static uint64_t number_of(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const json_t *split_of(const json_t *status)
{
	return json_object_get(json_object_get(status, "godwit"), "split");
}

bool gw_progress_split(const json_t *status, char *text, size_t len)
{
	const json_t *split = split_of(status);
	char here[32], limit[32], away[32];

	if (!split)
		return false;
	gw_format_size(number_of(split, "resident"), here, sizeof(here));
	gw_format_size(number_of(split, "main-memory"), limit, sizeof(limit));
	gw_format_size(number_of(split, "away-pages") * 4096, away, sizeof(away));
	snprintf(text, len,
		 "%s here (of %s), %s away, %" PRIu64 " faults/s, each %.2f ms, %" PRIu64
		 " pages in, %" PRIu64 " out",
		 here, limit, away, number_of(split, "faults-per-s"),
		 (double)number_of(split, "latency") / GW_MS, number_of(split, "page-ins"),
		 number_of(split, "page-outs"));
	return true;
}

void gw_print_split(const json_t *status)
{
	json_t *one, *holders = json_object_get(split_of(status), "holders");
	const uint64_t single = number_of(split_of(status), "single-pages");
	char size[32];
	size_t i;

	if (single)
		printf("  %s have one copy only, and are to have two\n",
		       gw_format_size(single * 4096, size, sizeof(size)));

	json_array_foreach(holders, i, one) {
		const char *why = json_string_value(json_object_get(one, "error-desc"));
		const bool up = json_is_true(json_object_get(one, "connected"));
		const uint64_t lost = number_of(one, "lost");
		char has[32];

		gw_format_size(number_of(one, "pages") * 4096, has, sizeof(has));
		printf("  %-24s %10s  %s%s%s%s\n",
		       json_string_value(json_object_get(one, "address")), has,
		       up ? "connected" : "not connected",
		       json_is_true(json_object_get(one, "leaves")) ? ", evacuated" : "",
		       !up && why && *why ? ": " : "", !up && why ? why : "");
		if (lost)
			printf("  %-24s it has lost %" PRIu64 " pages of the guest\n", "", lost);
	}
}

void gw_progress_spread(const json_t *status, char *text, size_t len)
{
	const json_t *spread = json_object_get(json_object_get(status, "godwit"), "sub-hosts");
	json_t *one, *holders = json_object_get(spread, "holders");
	uint64_t sent = 0;
	char size[32];
	size_t i;

	text[0] = '\0';
	if (json_is_true(json_object_get(spread, "sampling")))
		snprintf(text, len, ", sampling which of its memory it uses");
	if (!spread || text[0])
		return;
	json_array_foreach(holders, i, one) {
		sent += number_of(one, "sent-pages");
	}
	snprintf(text, len, ", %s to sub-hosts", gw_format_size(sent * 4096, size, sizeof(size)));
}

static void show(void *arg, const json_t *status)
{
	const bool *terminal = arg;
	char text[240];

	if (*terminal && gw_progress_split(status, text, sizeof(text)))
		fprintf(stderr, "\r\033[K%s", text);
}

/* HOST:PORT[=SIZE],... 0 or -EINVAL with a message. */
static int parse_to(const char *option, const char *text, json_t *to)
{
	gw_autofree char *copy = strdup(text);
	char *save = NULL;

	for (char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		char *size = strchr(one, '=');
		uint64_t bytes = 0;

		if (size)
			*size++ = '\0';
		if (size && gw_parse_size(size, &bytes))
			return -EINVAL;
		if (!*one)
			return gw_fail(-EINVAL, "%s needs HOST:PORT", option);
		json_array_append_new(
			to, size ? json_pack("{s:s,s:I}", "address", one, "size", (json_int_t)bytes)
				 : json_pack("{s:s}", "address", one));
	}
	return json_array_size(to) ? 0 : gw_fail(-EINVAL, "%s needs HOST:PORT", option);
}

int gw_split_option(char opt, const char *option, json_t *args)
{
	const char *const keys[] = { "chunk-pages", "history-period-ms", "history-shift" };
	const char *const letters = "cps";
	json_t *to;
	uint64_t bytes;
	long value;
	int rc;

	if (opt == 't' && !strncmp(optarg, "auto:", 5)) {
		rc = gw_cli_number(optarg + 5, 1, 16, &value);
		json_object_set_new(args, "auto", json_integer(value));
		return rc;
	}
	if (opt == 't') {
		to = json_array();
		rc = parse_to(option, optarg, to);
		json_object_set_new(args, "to", to);
		return rc;
	}
	if (opt == 'r') {
		rc = gw_cli_number(optarg, 1, 2, &value);
		json_object_set_new(args, "replicas", json_integer(value));
		return rc;
	}
	if (opt == 'm') {
		rc = gw_parse_size(optarg, &bytes);
		if (!rc)
			json_object_set_new(args, "main-memory", json_integer((json_int_t)bytes));
		return rc;
	}
	rc = gw_cli_number(optarg, 1, 3600000, &value);
	if (!rc)
		json_object_set_new(args, keys[strchr(letters, opt) - letters],
				    json_integer(value));
	return rc;
}

static void print(const json_t *status)
{
	char text[240];

	if (gw_progress_split(status, text, sizeof(text)))
		printf("%s\n", text);
	gw_print_split(status);
}

/* @args is taken over. 0, with the caller's @result; or the exit status of what has been said. */
static int call(const char *command, json_t *args, const char *cancel_name, json_t **result)
{
	bool terminal = isatty(STDERR_FILENO);
	struct gw_call c = { .command = command,
			     .args = args,
			     .on_progress = show,
			     .arg = &terminal,
			     .cancel_name = cancel_name };
	int rc = gw_cli_call(&c, result);

	json_decref(c.status);
	if (terminal)
		fprintf(stderr, "\r\033[K");
	return rc ? gw_cli_fail() : 0;
}

static int call_and_print(const char *command, json_t *args, bool json, const char *cancel_name)
{
	json_t *result = NULL;
	int rc = call(command, args, cancel_name, &result);

	if (rc)
		return rc;
	if (json)
		gw_cli_print(result); /* which takes it over */
	else
		print(result);
	if (!json)
		json_decref(result);
	return 0;
}

int gw_cmd_split(int argc, char **argv)
{
	static const struct option longs[] = { { "to", 1, NULL, 't' },
					       { "main-memory", 1, NULL, 'm' },
					       { "chunk-pages", 1, NULL, 'c' },
					       { "replicas", 1, NULL, 'r' },
					       { "history-period", 1, NULL, 'p' },
					       { "history-shift", 1, NULL, 's' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	json_t *args = json_object();
	const char *name = NULL;
	bool json = false;
	int opt, rc = 0;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, split_help)) != -1) {
			if (opt == 'j')
				json = true;
			else if (!rc)
				rc = gw_split_option((char)opt, "--to", args);
		}
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!rc && name && optind == argc &&
	    (json_object_get(args, "to") || json_object_get(args, "auto")) &&
	    json_object_get(args, "main-memory")) {
		json_object_set_new(args, "name", json_string(name));
		return call_and_print("split", args, json, name);
	}
	json_decref(args);
	return gw_cli_usage("split", rc ? gw_error()
					: "one NAME, --to HOST:PORT and --main-memory SIZE are "
					  "needed");
}

static const char merge_help[] =
	"usage: godwit merge NAME [--json]\n"
	"\n"
	"Bring all memory of a split VM back to this host while it runs, and release it at the\n"
	"sub-hosts. Ends when all of it is here. Refused if this host has no room for it.\n"
	"\n"
	"  --json  print the result as JSON\n";

int gw_cmd_merge(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	const char *name = NULL;
	bool json = false;

	for (;;) {
		while (gw_cli_options(argc, argv, longs, merge_help) != -1)
			json = true;
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!name || optind < argc)
		return gw_cli_usage("merge", "one NAME is needed");
	return call_and_print("merge", json_pack("{s:s}", "name", name), json, NULL);
}

static const char evacuate_help[] =
	"usage: godwit evacuate HOST:PORT [NAME...] [--to HOST:PORT[=SIZE][,...]|auto:N] [--json]\n"
	"\n"
	"Bring what split VMs of this host have at a sub-host to others while they run, so that it\n"
	"can be switched off. Their other sub-hosts take it as far as they may; --to names more.\n"
	"Ends when nothing is there any more. Without NAME, all VMs that have memory there.\n"
	"\n"
	"  --to HOST:PORT[=SIZE]  a sub-host in its place, and how much may be put there (default:\n"
	"                         as much as might be put at the one that is left); several with\n"
	"                         commas\n"
	"  --to auto:N            N hosts of the registry that may hold most (godwit hosts)\n"
	"  --json                 print the results as a JSON array\n";

static bool has_part_at(const json_t *vm, const char *address)
{
	const json_t *one, *servers = json_object_get(json_object_get(vm, "split"), "servers");
	size_t i;

	json_array_foreach(servers, i, one) {
		if (!strcmp(json_string_value(json_object_get(one, "address")), address))
			return true;
	}
	return false;
}

/* The VMs of this host that have memory at @address: their names. NULL: it has been said why. */
static json_t *vms_at(const char *address)
{
	json_t *list = NULL, *names, *vm;
	size_t i;

	if (call("list", NULL, NULL, &list))
		return NULL;
	names = json_array();
	json_array_foreach(list, i, vm) {
		if (has_part_at(vm, address))
			json_array_append(names, json_object_get(vm, "name"));
	}
	json_decref(list);
	return names;
}

/* Each of @names, one after another, whatever comes of the others. Return: exit status. */
static int evacuate(const json_t *names, const json_t *args, json_t *results)
{
	const json_t *name;
	int worst = 0;
	size_t i;

	json_array_foreach(names, i, name) {
		json_t *ask = json_copy((json_t *)(uintptr_t)args), *result = NULL;
		int rc;

		json_object_set(ask, "name", (json_t *)(uintptr_t)name);
		rc = call("evacuate", ask, NULL, &result);
		worst = rc > worst ? rc : worst;
		if (rc)
			continue;
		json_object_set(result, "name", (json_t *)(uintptr_t)name);
		json_array_append_new(results, result);
	}
	return worst;
}

int gw_cmd_evacuate(int argc, char **argv)
{
	static const struct option longs[] = { { "to", 1, NULL, 't' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	json_t *args = json_object(), *names = json_array(), *results = json_array(), *one;
	const char *address = NULL;
	bool json = false, failed = false;
	int opt, rc;
	size_t i;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, evacuate_help)) != -1) {
			if (opt == 'j')
				json = true;
			else
				failed = failed || gw_split_option((char)opt, "--to", args);
		}
		if (optind >= argc)
			break;
		if (address)
			json_array_append_new(names, json_string(argv[optind]));
		else
			address = argv[optind];
		optind++;
	}
	if (!address || failed)
		return gw_cli_usage("evacuate", failed ? gw_error() : "HOST:PORT is needed");
	json_object_set_new(args, "address", json_string(address));
	if (!json_array_size(names)) {
		json_decref(names);
		names = vms_at(address);
		if (!names)
			return 1;
		if (!json_array_size(names) && !json)
			printf("no VM of this host has memory at %s\n", address);
	}
	rc = evacuate(names, args, results);
	json_array_foreach(results, i, one) {
		if (json)
			continue;
		printf("%s: ", json_string_value(json_object_get(one, "name")));
		print(one);
	}
	if (json)
		gw_cli_print(json_incref(results));
	json_decref(results);
	json_decref(names);
	json_decref(args);
	return rc;
}
